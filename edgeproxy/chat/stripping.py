# Takes the usage event out of a chat stream whose client did not ask for it. All other bytes pass as they are.
"""`UsageStripper`, for OpenAI's chat and completion streams that `with_usage` was applied to.

Only an event that has not ended yet is held back, since its client could not read it either; and no more of it than
`HOLD` bytes, for the event with the usage is short.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from edgeproxy.chat.sse import data_of, events, first_boundary, last_boundary

HOLD: Final = 16384
MARK: Final = b'prompt_tokens"'  # not "usage": where usage was asked for, every chunk has that, as null
_LINE_ENDS: Final = b"\r\n"


class _Chunk(msgspec.Struct):
    choices: list[Any] | None = None
    usage: dict[str, Any] | None = None


_decode = msgspec.json.Decoder(_Chunk).decode


class UsageStripper:
    """One stream.

    Attributes:
        held: bytes that are held back.
        through: the event that has not ended is too long to be the one; it passes.
    """

    __slots__ = ("held", "through")

    def __init__(self) -> None:
        self.held = b""
        self.through = False

    def feed(self, data: bytes) -> bytes:
        """What of these bytes, and of those that were held back, may pass."""
        if not self.held and not self.through and data.endswith(b"\n\n") and MARK not in data:
            return data
        data = self.held + data
        passed = b""
        if self.through:
            end = first_boundary(data) if last_boundary(data) else 0
            if not end:
                return self._pass_on(data)
            self.through = False
            passed, data = data[:end], data[end:]
        end = last_boundary(data)
        passed += _without_usage(data[:end])
        self.held = data[end:]
        if len(self.held) > HOLD:
            self.through = True
            passed += self._pass_on(self.held)
        return passed

    def finish(self) -> bytes:
        """What was held back, when the stream has ended."""
        rest, self.held = self.held, b""
        return rest if self.through else _without_usage(rest)

    def _pass_on(self, data: bytes) -> bytes:
        """All but the line ends behind it: they may be the beginning of the event's end."""
        passed = data.rstrip(_LINE_ENDS)
        self.held = data[len(passed) :]
        return passed


def _without_usage(whole: bytes) -> bytes:
    if MARK not in whole:
        return whole
    return b"".join([_left_of(event) if _is_usage(event) else event for event in events(whole)])


def _left_of(event: bytes) -> bytes:
    """An empty line before the event is not part of it."""
    return event[: len(event) - len(event.lstrip(_LINE_ENDS))]


def _is_usage(event: bytes) -> bool:
    if MARK not in event or len(event) > HOLD:
        return False
    try:
        chunk = _decode(data_of(event))
    except (ValueError, RecursionError):
        return False
    return chunk.choices == [] and chunk.usage is not None
