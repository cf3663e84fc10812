# How often one request may be tried, by its client and by the edge together, and when an upstream gets no more retries of ours.
"""`count` reads what SDKs say of their retries; `allowance` shares the attempts out; `Budget` knows a storm when it sees one."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

FIELD: Final = b"x-stainless-retry-count"  # of the official SDKs of OpenAI and Anthropic: 0 with the first try
HALF: Final = 5.0  # seconds; a budget looks at the last one or two halves
_DIGITS: Final = 4


def count(value: bytes | None) -> int:
    """How often a client has tried before; 0 for what is no such number."""
    return int(value) if value is not None and len(value) <= _DIGITS and value.isdigit() else 0


@lru_cache(maxsize=4096)
def allowance(cap: int, tried: int, most: int) -> int:
    """Attempts that the edge may make for one try of a client, so that all its tries together never make more than the cap.

    Half of what is left goes to each try until there is one left for each. So the edge can try again where that helps most,
    with the first try, and the client's own retries, which wait in between, are not used up by it.

    Args:
        cap: attempts for all tries, 1 or more.
        tried: tries before this one.
        most: attempts that the edge would make for one try, if it were for that alone.

    Returns: 0 when the earlier tries may have used up all of them.
    """
    left = cap
    for _ in range(tried):
        if left <= 0:
            return 0
        left -= max(1, min(most, left // 2))
    return max(1, min(most, left // 2)) if left > 0 else 0


class Budget:
    """Retries of the last seconds against all requests. Nothing is counted for requests that are none: their number comes in."""

    __slots__ = ("_base", "_before", "_began", "_retries")

    def __init__(self) -> None:
        self._began = float("-inf")  # of this half
        self._retries = 0  # in this half
        self._before = (0, 0)  # in the half before: retries, and the number of requests when it began
        self._base = 0  # number of requests when this half began

    def note(self, now: float, requests: int) -> None:
        """A retry.

        Args:
            now: monotonic seconds.
            requests: all that there ever were.
        """
        self._turn(now, requests)
        self._retries += 1

    def over(self, now: float, requests: int, share: float, floor: float) -> bool:
        """Whether there are too many for one more.

        Args:
            share: of all requests that may be retries, 0 to 1.
            floor: retries a second that there may always be.
        """
        self._turn(now, requests)
        retries, base = self._before
        retries += self._retries
        return retries >= floor * HALF and retries >= share * max(0, requests - base)

    def _turn(self, now: float, requests: int) -> None:
        passed = now - self._began
        if passed < HALF and requests >= self._base:
            return
        # A number that has fallen: a reload took a target and its counters away.
        fresh = passed >= 2 * HALF or requests < self._base
        self._before = (0, requests) if fresh else (self._retries, self._base)
        self._began, self._retries, self._base = now, 0, requests
