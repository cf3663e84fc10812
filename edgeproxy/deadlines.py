# Connections have deadlines, exchanges do not have timers: one sweep, four times a second, looks at every connection.
"""Coarse deadlines for everything that waits on a peer.

An asyncio timer per request costs more than the routing of it (measured: 6.5 µs). A connection carries one float;
moving it is an attribute store. The sweep over 10,000 connections takes under half a millisecond.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

INTERVAL = 0.25
"""Seconds between sweeps: a deadline is met up to twice this late, never early."""

NEVER = float("inf")


class Expiring(Protocol):
    """Something with a deadline on the clock of `Deadlines.now`."""

    deadline: float

    def expire(self, now: float) -> None:
        """The deadline passed. Must close the object or move its deadline."""


class Deadlines:
    """The worker's set of things that can expire.

    Attributes:
        now: monotonic seconds, as of the last sweep; good for deadlines, too coarse for durations.
    """

    __slots__ = ("_handle", "_loop", "members", "now")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None
        self.members: set[Expiring] = set()
        self.now = loop.time()

    def start(self) -> None:
        """Begin sweeping."""
        if self._handle is None:
            self._tick()

    def stop(self) -> None:
        """End sweeping."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def sweep(self, now: float) -> None:
        """Expire every member whose deadline has passed at `now` (monotonic seconds)."""
        self.now = now
        # Deadlines were computed from a `now` that was up to one interval old: waiting for one more makes none early.
        due = now - INTERVAL
        for member in [member for member in self.members if member.deadline < due]:
            # An earlier member's expiry may have closed this one or moved its deadline.
            if member in self.members and member.deadline < due:
                try:
                    member.expire(now)
                except Exception as error:
                    self.members.discard(member)
                    self._loop.call_exception_handler({"message": f"deadline of {member!r}", "exception": error})

    def _tick(self) -> None:
        self._handle = self._loop.call_later(INTERVAL, self._tick)
        self.sweep(self._loop.time())
