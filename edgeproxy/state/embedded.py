# The embedded store of one worker that has it all to itself: the contract over `Memory`, with a clock. Nothing else.
"""`EmbeddedStore`: every answer comes from inside the call."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from edgeproxy.state.memory import Memory
from edgeproxy.state.ports import Admitted, Change, Charge, Level
from edgeproxy.state.stats import StoreStats

Clock = Callable[[], int]
"""Microseconds since the epoch."""


def steady_clock() -> Clock:
    """Time that passes evenly from what the system's clock says now: setting that clock changes no quota."""
    monotonic = time.monotonic_ns
    offset = time.time_ns() - monotonic()

    def clock() -> int:
        return (monotonic() + offset) // 1000

    return clock


class EmbeddedStore:
    """See ports.py; `memory` may be shared by stores of one process, as long as they have the same clock."""

    __slots__ = ("_clock", "memory", "stats")

    def __init__(self, memory: Memory | None = None, clock: Clock | None = None, stats: StoreStats | None = None) -> None:
        self.stats = stats or StoreStats()
        self._clock = clock or steady_clock()
        self.memory = Memory(self._clock()) if memory is None else memory  # an empty one is false

    def admit(self, charges: Sequence[Charge], lease: bytes, done: Admitted) -> None:
        self.stats.exchanges += 1
        done(self.memory.admit(charges, lease, self._clock()))

    def settle(self, changes: Sequence[Change], lease: bytes) -> None:
        self.memory.settle(changes, lease, self._clock())

    def prolong(self, charges: Sequence[Charge], lease: bytes) -> None:
        self.memory.prolong(charges, lease, self._clock())

    def peek(self, charges: Sequence[Charge], done: Callable[[tuple[Level, ...] | None], None]) -> None:
        done(self.memory.peek(charges, self._clock()))

    def block(self, key: bytes, ttl: int, done: Callable[[bool], None]) -> None:
        done(self.memory.block(key, ttl, self._clock()))

    def reset(self, charges: Sequence[Charge], done: Callable[[bool], None]) -> None:
        self.memory.reset(charges)
        done(True)

    def get(self, key: bytes, done: Callable[[bytes | None], None]) -> None:
        done(self.memory.get(key, self._clock()))

    def put(self, key: bytes, value: bytes, ttl: int, *, once: bool, done: Callable[[bool], None]) -> None:
        done(self.memory.put(key, value, ttl, self._clock(), once=once))

    def close(self) -> None:
        """Nothing waits, and nothing is open."""
