# One connection to a Redis server: bytes out, replies in, in order. What is said on it is not known here.
"""`Link`: an asyncio protocol over hiredis's reader. No task, no future and no timer per call."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import hiredis

_EMPTY: Final = object()


class Refusal(Exception):
    """An error reply; `str()` is its text, which begins with a word in capitals."""

    @property
    def word(self) -> str:
        """Its first word, such as NOSCRIPT."""
        return str(self).partition(" ")[0]


class Call(Protocol):
    """What waits for a reply. Either `answered` or `lost` is called, once; `overdue` at most once, before it.

    Attributes:
        sent: on the loop's clock.
        late: `overdue` was called.
    """

    sent: float
    late: bool

    def answered(self, reply: Any) -> None:
        """The reply, possibly a Refusal; possibly late."""

    def overdue(self) -> None:
        """It takes too long: go on without it."""

    def lost(self) -> None:
        """The connection ended: nobody knows whether it was done."""


class Link(asyncio.Protocol):
    """A connection.

    Attributes:
        calls: that wait, oldest first.
    """

    __slots__ = ("_on_lost", "_reader", "_transport", "calls")

    def __init__(self) -> None:
        self.calls: deque[Call] = deque()
        self._reader = hiredis.Reader(replyError=Refusal, notEnoughData=_EMPTY)
        self._transport: asyncio.Transport | None = None
        self._on_lost: Callable[[], None] | None = None

    def watch(self, on_lost: Callable[[], None]) -> None:
        """Have somebody told when it ends; at once, if it did."""
        self._on_lost = on_lost
        if self._transport is None:
            on_lost()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # asyncio types it as BaseTransport

    def send(self, data: bytes, calls: Iterable[Call]) -> None:
        """Write commands; `calls` are one for each of them. Not on a link that ended."""
        self.calls.extend(calls)
        if self._transport is not None:
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        reader, calls = self._reader, self.calls
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _EMPTY:
                if not calls:  # more replies than questions: whose is whose?
                    self.abort()
                    return
                calls.popleft().answered(reply)
        except hiredis.ProtocolError:  # not Redis
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio says it; the reason does not matter
        self._transport = None
        on_lost, self._on_lost = self._on_lost, None
        if on_lost is not None:
            on_lost()
        calls, self.calls = self.calls, deque()
        for call in calls:
            call.lost()

    def abort(self) -> None:
        """End it now; `lost` follows in the loop's next round."""
        if self._transport is not None:
            self._transport.abort()

    def close(self, *, linger: bool) -> None:
        """End it; `linger`: after what was written is sent."""
        if self._transport is not None:
            if linger:
                self._transport.close()
            else:
                self._transport.abort()


def command(*words: bytes) -> bytes:
    """A command on the wire."""
    return b"".join((b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)))
