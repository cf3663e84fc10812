# When a server that failed is asked again. No time is read and nothing is sent here.
"""`Breaker`: closed while the server answers; open from its first failure until a probe was answered in time."""

from __future__ import annotations

from typing import Final

FIRST: Final = 0.05  # seconds from a failure to the first probe; doubled with each failure in a row …
LONGEST: Final = 1.0  # … up to this
STEADY: Final = 5.0  # seconds of answers after which the next failure is the first of its row


class Breaker:
    """See the module. Times are in seconds on any clock that does not go back.

    Attributes:
        closed: ask the server; else decide without it.
        since: of the last change.
        failures: how often it was opened (a counter).
        probe_at: while open: when to probe next.
    """

    __slots__ = ("closed", "delay", "failures", "probe_at", "since")

    def __init__(self, now: float) -> None:
        """Open, until the first probe: nobody has met the server yet."""
        self.closed = False
        self.since = now
        self.failures = 0
        self.delay = FIRST
        self.probe_at = now

    def fail(self, now: float) -> bool:
        """The server did not answer in time, refused, or went. Whether this opened the breaker."""
        if not self.closed:
            self.delay = min(self.delay * 2, LONGEST)
            self.probe_at = now + self.delay
            return False
        self.delay = FIRST if now - self.since >= STEADY else min(self.delay * 2, LONGEST)
        self.closed = False
        self.since = now
        self.failures += 1
        self.probe_at = now + self.delay
        return True

    def answered(self, now: float) -> None:
        """A probe was answered in time."""
        if not self.closed:
            self.closed = True
            self.since = now
