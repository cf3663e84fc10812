# How the programs of one fingerprint behave together, in the last hour: ratios and ranks among all fingerprints. Pure.
"""`Signals`: Cloudflare's JA4 signals, as whole numbers (percent, and ranks from 1), for rules; of what this worker saw, and what
others told it (`busiest` there, `Heard` here; signalling.py carries it).

Two half hours are kept, the present one and the one before: "the last hour" is the last thirty to sixty minutes.
"""

from __future__ import annotations

from bisect import bisect_right
from heapq import nlargest
from struct import Struct
from typing import Final, NamedTuple

HALF: Final = 1800.0
FINGERPRINTS: Final = 2_000  # of a half hour; what comes later is not counted
_DISTINCT: Final = 512  # addresses, User-Agents and paths that are told apart, of one fingerprint: bits of one number each
_BITS: Final = tuple(1 << bit for bit in range(_DISTINCT))
_FRESH: Final = 30.0  # seconds for which ranks hold
_PART: Final = 256  # fingerprints that are ranked at once
TOLD: Final = 256  # fingerprints of which others are told: the busiest
_SIZE: Final = _DISTINCT // 8
_ROW: Final = Struct(f"<36s4I{_SIZE}s{_SIZE}s{_SIZE}s")  # JA4, requests, h2h3, heuristic, browser; addresses, agents, paths
_MOST: Final = (1 << 32) - 1


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
    """See the module; one a worker.

    Attributes:
        heard: what others counted, as `Heard` adds it up.
    """

    __slots__ = ("_began", "_new", "_old", "_ranked", "_rows", "_sorted", "_unranked", "heard")

    def __init__(self) -> None:
        self.heard: dict[str, _Counts] = {}
        self._new: dict[str, _Counts] = {}
        self._old: dict[str, _Counts] = {}
        self._began = 0.0
        self._ranked = -2 * _FRESH
        self._unranked: list[str] | None = None  # while ranks are made anew: those whose turn has not come
        self._rows: list[tuple[int, int, int, int]] = []
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
            self._turn(now)
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

    def _turn(self, now: float) -> None:
        """Another half hour begins."""
        self._old = self._new if now - self._began <= 2 * HALF else {}
        self._new, self._began = {}, now

    def busiest(self, now: float) -> bytes:
        """What this worker counted of the busiest fingerprints, for others; b"" when it is nothing."""
        if now - self._began > HALF:
            self._turn(now)
        new, old = self._new, self._old
        requests = {ja4: counts.requests for ja4, counts in new.items()}
        for ja4, counts in old.items():
            requests[ja4] = requests.get(ja4, 0) + counts.requests
        return b"".join([_row(ja4, new.get(ja4), old.get(ja4)) for ja4 in nlargest(TOLD, requests, key=requests.__getitem__)])

    def of(self, ja4: str, now: float) -> Signal | None:
        """What is known of a fingerprint; None where nothing is."""
        numbers = self._numbers(ja4)
        if numbers is None:
            return None
        self._rank(now)
        requests, addresses, agents, paths = (
            _place(order, number) for order, number in zip(self._sorted, numbers, strict=True)
        )
        found = [counts for counts in (self._new.get(ja4), self._old.get(ja4), self.heard.get(ja4)) if counts is not None]

        def percent(name: str) -> int:
            share: int = round(100 * sum(getattr(counts, name) for counts in found) / numbers[0])
            return share

        return Signal(
            percent("h2h3"), percent("heuristic"), percent("browser"), requests[1], addresses[1], requests[0], addresses[0],
            agents[0], paths[0],
        )  # fmt: skip

    def _numbers(self, ja4: str) -> tuple[int, int, int, int] | None:
        requests = addresses = agents = paths = 0
        for counts in (self._new.get(ja4), self._old.get(ja4), self.heard.get(ja4)):
            if counts is not None:
                requests += counts.requests
                addresses |= counts.addresses
                agents |= counts.agents
                paths |= counts.paths
        return (requests, addresses.bit_count(), agents.bit_count(), paths.bit_count()) if requests else None

    def _rank(self, now: float) -> None:
        """Makes the ranks anew, a part with each call: all at once would keep the loop for milliseconds.

        When it is called for the first time, or seldom, it makes all of them.
        """
        age = now - self._ranked
        if age < _FRESH:
            return
        if self._unranked is None:
            self._unranked = list(self._new.keys() | self._old.keys() | self.heard.keys())
            self._rows = []
        names = self._unranked
        size = _PART if age < 2 * _FRESH else len(names)
        part = names[-size:]
        del names[-size:]
        self._rows += [row for row in map(self._numbers, part) if row is not None]
        if not names:
            self._sorted = tuple(sorted(column) for column in zip(*self._rows, strict=True)) or ([], [], [], [])
            self._ranked, self._unranked, self._rows = now, None, []


class Heard:
    """What others told, added up.

    Attributes:
        counts: by fingerprint, at most FINGERPRINTS of them.
    """

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[str, _Counts] = {}

    def add(self, rows: bytes) -> None:
        """One worker's, as `busiest` gives them. Raises: ValueError for what is none."""
        if len(rows) % _ROW.size or len(rows) > TOLD * _ROW.size:
            raise ValueError("this is not what a worker tells")
        number, known = int.from_bytes, self.counts
        for name, requests, h2h3, heuristic, browser, addresses, agents, paths in _ROW.iter_unpack(rows):
            ja4 = name.rstrip(b"\0").decode("ascii")  # a UnicodeDecodeError is a ValueError
            counts = known.get(ja4)
            if counts is None:
                if len(known) >= FINGERPRINTS:
                    continue
                counts = known[ja4] = _Counts()
            counts.requests += requests
            counts.h2h3 += h2h3
            counts.heuristic += heuristic
            counts.browser += browser
            counts.addresses |= number(addresses, "little")
            counts.agents |= number(agents, "little")
            counts.paths |= number(paths, "little")


def _row(ja4: str, new: _Counts | None, old: _Counts | None) -> bytes:
    """The last hour of one fingerprint."""
    requests = h2h3 = heuristic = browser = addresses = agents = paths = 0
    for counts in (new, old):
        if counts is not None:
            requests += counts.requests
            h2h3 += counts.h2h3
            heuristic += counts.heuristic
            browser += counts.browser
            addresses |= counts.addresses
            agents |= counts.agents
            paths |= counts.paths
    numbers = [min(each, _MOST) for each in (requests, h2h3, heuristic, browser)]
    sets = [each.to_bytes(_SIZE, "little") for each in (addresses, agents, paths)]
    return _ROW.pack(ja4.encode("ascii", "replace"), *numbers, *sets)


def _place(order: list[int], number: int) -> tuple[int, int]:
    """Rank from the top, and percent that have as many or fewer."""
    below = bisect_right(order, number)
    percent: int = round(100 * below / len(order)) if order else 100
    return len(order) - below + 1, percent
