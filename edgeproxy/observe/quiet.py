# How often the same thing is told: at most once in a while, with how often it happened meanwhile. Nothing is written here.
"""`Quiet`: bounded, time comes in."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

EVERY: Final = 60.0  # seconds between two events about the same thing
NAMES: Final = 8192  # things that are remembered; then those that are known longest are forgotten


class Quiet:
    """See the module."""

    __slots__ = ("_every", "_known", "_most")

    def __init__(self, every: float = EVERY, most: int = NAMES) -> None:
        self._every = every
        self._most = most
        self._known: dict[Hashable, list[float]] = {}  # when it was told last, and how often it happened since

    def again(self, name: Hashable, now: float) -> int:
        """It happened. Returns: how often since it was last told, this time included; 0: it is not to be told now."""
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= self._most:
                del self._known[next(iter(self._known))]
            self._known[name] = [now, 0]
            return 1
        known[1] += 1
        if now - known[0] < self._every:
            return 0
        times, known[0], known[1] = int(known[1]), now, 0
        return times
