# How many tokens the events of a stream held, from their number and size. Reports of usage are not known here.
"""`Sent`: a running estimate of the text that was streamed, for a few nanoseconds an event.

Around the text of an event is always about as much JSON. How much, and how many tokens a byte of the text has, is learned
from the first events and from some later ones; of all others only number and size are kept. Those are decoded when somebody
asks: for a stream that reports its usage, as most do, nobody does.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from edgeproxy.chat.sse import data_of
from edgeproxy.chat.tokens import estimate

_FIRST: Final = 4  # events that are looked at, before it is each one whose number is twice that of the last
_KEEP: Final = 2048  # characters of an event's text that its language is told by
_SAMPLE: Final = 4096  # bytes of an event that is kept until then; a longer one is decoded at once
_BEGIN: Final = 16384  # bytes of the first events that are kept as they came
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
        count: events with text.
        size: their bytes.
        due: number of the next event that is to be looked at.
    """

    __slots__ = ("_begin", "_delta", "_empty", "_frame", "_looked", "_samples", "_texts", "count", "due", "size")

    def __init__(self, delta: bytes) -> None:
        """Begin.

        Args:
            delta: what an event that brings text has in it.
        """
        self._delta = delta
        self.count = self.size = 0
        self.due = 1
        self._begin = b""  # the first events
        self._samples: list[tuple[bytes, int]] = []  # events that are to be looked at, and their sizes
        self._empty = 0  # looked at, without text
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
        if self.count >= self.due:
            self._sample(event, size)

    def add_all(self, whole: bytes, count: int) -> None:
        """Count `count` such events, each with its empty line."""
        before = self.count
        self.count += count
        self.size += len(whole)
        if not before and len(whole) <= _BEGIN:
            self._begin = whole
            while self.due <= count:
                self.due = _next(self.due)
        elif self.count >= self.due:
            self._choose(whole, before)

    def tokens(self) -> int:
        """Tokens of what was counted: at least one for each event with text."""
        if not self.count:
            return 0
        if self._begin:
            begin, self._begin, due = self._begin, b"", self.due
            self.due = 1
            self._choose(begin, 0)
            self.due = due
        for event, size in self._samples:
            self._look(event, size)
        self._samples.clear()
        text = "".join(self._texts).encode()
        least = max(0, self.count - self._empty)
        if not text or not self._looked:
            return least
        content = self.size - self.count * self._frame // self._looked
        return max(least, content * estimate(text) // len(text))

    def _choose(self, whole: bytes, before: int) -> None:
        """Keep those that are due of some events, of which `before` came earlier."""
        found = [event for event in whole.split(b"\n\n") if self._delta in event]
        self.due = max(self.due, before + 1)  # of garbage fewer were found than were counted
        while self.due - before <= len(found):
            event = found[self.due - before - 1]
            self._sample(event, len(event) + 2)

    def _sample(self, event: bytes, size: int) -> None:
        """Keep the event that is due."""
        self.due = _next(self.due)
        if len(event) <= _SAMPLE:
            self._samples.append((event, size))
        else:
            self._look(event, size)

    def _look(self, event: bytes, size: int) -> None:
        try:
            text = "".join(_texts(_decode(data_of(event))))
        except (ValueError, RecursionError):
            if size > len(event) + 2:
                return  # a part of a long one is no JSON, and tells nothing
            text = ""  # no client can read it
        self._looked += 1
        if text:
            self._texts.append(text[:_KEEP])
            self._frame += max(0, size - len(_encode(text)) + 2)
        else:
            self._empty += 1
            self._frame += size


def _next(due: int) -> int:
    return due + 1 if due < _FIRST else due * 2


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
