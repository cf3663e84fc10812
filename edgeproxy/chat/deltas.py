# How many tokens the events of a stream held, from their number and size. Reports of usage are not known here.
"""`Sent`: a running estimate of the text that was streamed, for a few nanoseconds an event.

Around the text of an event is always about as much JSON. How much, and how many tokens a byte of the text has, is learned
from the first events and from some later ones; of all others only number and size are kept.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from edgeproxy.chat.sse import data_of
from edgeproxy.chat.tokens import estimate

_FIRST: Final = 4  # events that are looked at, before it is each one whose number is twice that of the last
_KEEP: Final = 2048  # characters of an event's text that its language is told by
_KEYS: Final = ("content", "reasoning_content", "reasoning", "refusal", "text", "thinking", "partial_json")


class _Delta(msgspec.Struct):
    delta: Any = None
    text: str | None = None


class _Event(_Delta):
    choices: list[_Delta] | None = None


_decode = msgspec.json.Decoder(_Event).decode
_encode = msgspec.json.encode


class Sent:
    """See the module.

    Attributes:
        count: events with text, since the last `forget`.
        size: their bytes.
        seen: events since the beginning.
        due: number of the next event that is to be looked at.
    """

    __slots__ = ("_empty", "_frame", "_looked", "_texts", "count", "due", "seen", "size")

    def __init__(self) -> None:
        self.count = self.size = self.seen = 0
        self.due = 1
        self._empty = 0  # looked at since the last `forget`, without text
        self._looked = 0  # looked at
        self._frame = 0  # bytes of those that are not text
        self._texts: list[str] = []

    def add(self, event: bytes, size: int) -> None:
        """Count an event that is known to bring text.

        Args:
            event: the event, or some of it where it is very long.
            size: bytes of all of it.
        """
        self.count += 1
        self.size += size
        self.seen += 1
        if self.seen >= self.due:
            self.due = self.seen + 1 if self.seen < _FIRST else self.seen * 2
            self._look(event, size)

    def forget(self) -> None:
        """What was counted is accounted for; what was learned stays."""
        self.count = self.size = self._empty = 0

    def tokens(self) -> int:
        """Tokens of what was counted: at least one for each event with text."""
        if not self.count:
            return 0
        text = "".join(self._texts).encode()
        least = max(0, self.count - self._empty)
        if not text or not self._looked:
            return least
        content = self.size - self.count * self._frame // self._looked
        return max(least, content * estimate(text) // len(text))

    def _look(self, event: bytes, size: int) -> None:
        try:
            text = "".join(_texts(_decode(data_of(event))))
        except (ValueError, RecursionError):
            return
        self._looked += 1
        if text:
            self._texts.append(text[:_KEEP])
            self._frame += max(0, size - len(_encode(text)) + 2)
        else:
            self._empty += 1
            self._frame += size


def _texts(event: _Event) -> list[str]:
    found: list[str] = []
    for holder in event.choices if event.choices is not None else (event,):
        if holder.text is not None:
            found.append(holder.text)
        delta = holder.delta
        if isinstance(delta, str):
            found.append(delta)
        elif isinstance(delta, dict):
            found.extend(value for key in _KEYS if isinstance(value := delta.get(key), str))
            calls = delta.get("tool_calls")
            for call in calls if isinstance(calls, list) else ():
                function = call.get("function") if isinstance(call, dict) else None
                if isinstance(function, dict):
                    found.extend(value for key in ("name", "arguments") if isinstance(value := function.get(key), str))
    return found
