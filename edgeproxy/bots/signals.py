# How the programs of one fingerprint behave together, in the last hour: ratios and ranks among all fingerprints. Pure.
"""`Signals`: Cloudflare's JA4 signals, as whole numbers (percent, and ranks from 1), for rules; of what this worker saw.

Two half hours are kept, the present one and the one before: "the last hour" is the last thirty to sixty minutes.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, NamedTuple

HALF: Final = 1800.0
FINGERPRINTS: Final = 2_000  # of a half hour; what comes later is not counted
_DISTINCT: Final = 512  # addresses, User-Agents and paths that are told apart, of one fingerprint: bits of one number each
_BITS: Final = tuple(1 << bit for bit in range(_DISTINCT))
_FRESH: Final = 30.0  # seconds for which ranks hold


class Signal(NamedTuple):
    """Of one fingerprint.

    Attributes:
        h2h3, heuristic, browser: percent of its requests that came over HTTP/2 or HTTP/3, that a heuristic caught, and that
            claim to come from a browser.
        requests_quantile, addresses_quantile: percent of all fingerprints that have as many or fewer.
        requests_rank, addresses_rank, agents_rank, paths_rank: 1: nobody has more.
    """

    h2h3: int
    heuristic: int
    browser: int
    requests_quantile: int
    addresses_quantile: int
    requests_rank: int
    addresses_rank: int
    agents_rank: int
    paths_rank: int


class _Counts:
    __slots__ = ("addresses", "agents", "browser", "h2h3", "heuristic", "paths", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.h2h3 = 0
        self.heuristic = 0
        self.browser = 0
        self.addresses = 0
        self.agents = 0
        self.paths = 0


class Signals:
    """See the module; one a worker."""

    __slots__ = ("_began", "_new", "_old", "_ranked", "_sorted")

    def __init__(self) -> None:
        self._new: dict[str, _Counts] = {}
        self._old: dict[str, _Counts] = {}
        self._began = 0.0
        self._ranked = -_FRESH
        self._sorted: tuple[list[int], ...] = ([], [], [], [])

    def count(
        self, ja4: str, now: float, address: int, agent: int, path: int, *, modern: bool, caught: bool, browser: bool
    ) -> None:
        """A request.

        Args:
            address, agent, path: hashes.
            modern: over HTTP/2 or HTTP/3.
            caught: a heuristic was true.
            browser: one is claimed.
        """
        if now - self._began > HALF:
            self._old = self._new if now - self._began <= 2 * HALF else {}
            self._new, self._began = {}, now
        counts = self._new.get(ja4)
        if counts is None:
            if len(self._new) >= FINGERPRINTS:
                return
            counts = self._new[ja4] = _Counts()
        counts.requests += 1
        counts.h2h3 += modern
        counts.heuristic += caught
        counts.browser += browser
        # Sets of them would be kilobytes, which whoever makes up fingerprints could fill.
        counts.addresses |= _BITS[address % _DISTINCT]
        counts.agents |= _BITS[agent % _DISTINCT]
        counts.paths |= _BITS[path % _DISTINCT]

    def of(self, ja4: str, now: float) -> Signal | None:
        """What is known of a fingerprint; None where nothing is."""
        numbers = self._numbers(ja4)
        if numbers is None:
            return None
        self._rank(now)
        requests, addresses, agents, paths = (
            _place(order, number) for order, number in zip(self._sorted, numbers, strict=True)
        )
        both = [counts for counts in (self._new.get(ja4), self._old.get(ja4)) if counts is not None]

        def percent(name: str) -> int:
            share: int = round(100 * sum(getattr(counts, name) for counts in both) / numbers[0])
            return share

        return Signal(
            percent("h2h3"), percent("heuristic"), percent("browser"), requests[1], addresses[1], requests[0], addresses[0],
            agents[0], paths[0],
        )  # fmt: skip

    def _numbers(self, ja4: str) -> tuple[int, int, int, int] | None:
        new, old = self._new.get(ja4), self._old.get(ja4)
        if new is None or old is None:
            one = new or old
            if one is None:
                return None
            return one.requests, one.addresses.bit_count(), one.agents.bit_count(), one.paths.bit_count()
        return (
            new.requests + old.requests, (new.addresses | old.addresses).bit_count(), (new.agents | old.agents).bit_count(),
            (new.paths | old.paths).bit_count(),
        )  # fmt: skip

    def _rank(self, now: float) -> None:
        if now - self._ranked < _FRESH:
            return
        self._ranked = now
        rows = [self._numbers(ja4) for ja4 in self._new.keys() | self._old.keys()]
        self._sorted = tuple(sorted(column) for column in zip(*(row for row in rows if row is not None), strict=True))


def _place(order: list[int], number: int) -> tuple[int, int]:
    """Rank from the top, and percent that have as many or fewer."""
    below = bisect_right(order, number)
    percent: int = round(100 * below / len(order)) if order else 100
    return len(order) - below + 1, percent
