# What clients did before: a few numbers for each session, address and fingerprint, in bounded memory. Pure: time comes in.
"""`Behaviour.seen(…)` counts a request, `ended(…)` its answer, `moved(…)` says what that speaks for, as log-odds.

Counted at one worker: the rates of a client whose connections go to several, or to several edges, are added up through the
store (`due` and `shared`), everything else is a ratio, which a part of the requests shows as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from edgeproxy.bots.smoothing import Steady

MOST: Final = 3.0  # log-odds that behaviour takes away at most, and
LEAST: Final = 1.0  # that it gives at most: a person can be imitated by waiting
KEYS: Final = 20_000  # of each kind in one generation; the oldest generation is forgotten as a whole
GENERATION: Final = 1800.0  # seconds after which one begins, at the latest
_OF_MANY: Final = 0.7  # how much what is said of an address counts
_ENOUGH: Final = 5  # requests before anything is said
_SHARE: Final = 0.1  # of a new interval in the moving averages
_BUCKETS: Final = 16  # of paths
_HEARD: Final = 20.0  # seconds for which the rate that all workers together saw says something
_PAUSES: Final = 8  # that have to be seen before regularity is spoken of: a person's first few may be alike
_BURST: Final = 0.5  # seconds: what comes closer together is one page being loaded (parts come 20 to 120 ms after it on loopback)
_NAMES: Final = 4  # User-Agents of one fingerprint at one address: an office has a few
_MOST_NAMES: Final = 8  # that are told apart
SESSION, ADDRESS, PROGRAM = range(3)


class Keys(NamedTuple):
    """By what a client is known; empty what it has not got.

    Attributes:
        session: id of its session cookie.
        program: its address and its fingerprint.
    """

    session: bytes | str
    address: str
    program: str


class Weights(NamedTuple):
    """Log-odds, each at its full effect; below 0: towards automated."""

    rate: float = -1.5
    regular: float = -1.2
    errors: float = -1.5
    spread: float = -0.8
    no_cookies: float = -0.8
    many_agents: float = -1.0
    pages: float = 0.6


def bounds(weights: Weights, *, session: bool) -> tuple[float, float]:
    """What a client can come to at worst and at best, in log-odds, whatever it does.

    Args:
        session: it may have one; else it is known by its address.
    """
    alone = (weights.rate, weights.regular, weights.errors, weights.spread, weights.pages)
    known = [([_OF_MANY * each for each in alone], (weights.no_cookies, weights.many_agents))]
    if session:
        known.append(([*alone], (weights.many_agents, weights.many_agents)))
    worst = min(sum(min(each, 0.0) for each in (*some, *more)) for some, more in known)
    best = max(sum(max(each, 0.0) for each in (*some, *more)) for some, more in known)
    return max(-MOST, worst), min(LEAST, best)


class Track:
    """What one session, address or fingerprint did.

    Attributes:
        requests, errors: errors are answers with 400–499.
        statics: for what pages are made of (scripts, styles, pictures, fonts).
        cookies: with a cookie of ours; given: whose answer had one.
        last: when the last one came.
        pauses: times between bursts that were seen; `pause`, `square`: moving averages of them and of their squares.
        agents: hashes of User-Agents, at most _MOST_NAMES.
        rate: requests a second as all workers together see it, 0.0 while that is not known; `heard`: when that was; `told`: how
            many of ours are in it.
        steady: what the model said of a session's requests; None of other tracks, and while nobody asked.
        telling: it is about to be told of, or never will be.
    """

    __slots__ = (
        "agents", "began", "cookies", "errors", "given", "heard", "last", "paths", "pause", "pauses", "rate", "requests",
        "square", "statics", "steady", "telling", "told",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self.requests = 0
        self.errors = 0
        self.statics = 0
        self.cookies = 0
        self.given = 0
        self.began = now
        self.last = now
        self.pause = 0.0
        self.pauses = 0
        self.square = 0.0
        self.paths = [0] * _BUCKETS
        self.agents: tuple[int, ...] = ()
        self.rate = 0.0
        self.heard = 0.0
        self.told = 0
        self.telling = False
        self.steady: Steady | None = None

    def count(self, now: float, path: int, agent: int, *, static: bool, cookie: bool, error: bool, given: bool = False) -> None:
        """A request was answered.

        Args:
            given: the answer had a cookie of ours.
            path, agent: hashes of its path and its User-Agent.
            cookie: it had a session's.
            error: the answer was one of 400–499.
        """
        if not self.requests:
            self.last = now  # it may be known for longer: from when its first request came
        self.requests += 1
        if error:
            self.errors += 1
        if agent not in self.agents and len(self.agents) < _MOST_NAMES:
            self.agents += (agent,)
        if static:
            self.statics += 1
        if cookie:
            self.cookies += 1
        if given:
            self.given += 1
        self.paths[path % _BUCKETS] += 1
        pause = now - self.last
        if pause > _BURST:
            self.last = now
            self.pauses += 1
            self.pause += _SHARE * (pause - self.pause) if self.pause else pause
            self.square += _SHARE * (pause * pause - self.square) if self.square else pause * pause

    def variation(self) -> float:
        """Of the time between bursts, its standard deviation over its mean; people have about 1 and more, timers near 0."""
        if not self.pause:
            return 1.0
        return math.sqrt(max(0.0, self.square - self.pause * self.pause)) / self.pause

    def entropy(self) -> float:
        """Of paths, 0 (always the same) to 1 (spread evenly)."""
        total = self.requests
        return -sum(n / total * math.log2(n / total) for n in self.paths if n) / math.log2(_BUCKETS) if total else 0.0

    def a_second(self, now: float) -> float:
        """Requests in a second, over at least ten."""
        rate = self.rate if now - self.heard < _HEARD else 0.0
        return max(rate, self.requests / max(10.0, now - self.began))


class Table:
    """Tracks by key, in two generations: what was not seen during a whole one is forgotten."""

    __slots__ = ("_born", "_most", "_new", "_old")

    def __init__(self, most: int = KEYS) -> None:
        self._most = most
        self._new: dict[bytes | str, Track] = {}
        self._old: dict[bytes | str, Track] = {}
        self._born = 0.0

    def get(self, key: bytes | str, now: float) -> Track:
        """The track of a key, a new one where there is none."""
        track = self._new.get(key)
        if track is None:
            if len(self._new) >= self._most or now - self._born > GENERATION:
                self._old, self._new, self._born = self._new, {}, now
            track = self._old.pop(key, None) or Track(now)
            self._new[key] = track
        return track

    def find(self, key: bytes | str) -> Track | None:
        """The track of a key, if there is one."""
        return self._new.get(key) or self._old.get(key)

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def items(self) -> Iterator[tuple[bytes | str, Track]]:
        """All of the new generation."""
        return iter(self._new.items())


class Behaviour:
    """One worker's.

    Attributes:
        tables: by SESSION, ADDRESS and PROGRAM (a fingerprint at an address).
    """

    __slots__ = ("tables", "weights")

    def __init__(self, weights: Weights = Weights(), most: int = KEYS) -> None:  # noqa: B008  it never changes
        self.weights = weights
        self.tables = (Table(most), Table(most), Table(most))

    def tracks(self, keys: Keys, now: float) -> list[Track]:
        """What is kept of a client, by the kinds of keys it has."""
        (session, address, program), (sessions, addresses, programs) = keys, self.tables
        found = [sessions.get(session, now)] if session else []
        if address:
            found.append(addresses.get(address, now))
        if program:
            found.append(programs.get(program, now))
        return found

    def name(self, keys: Keys, track: Track) -> str | None:
        """Of the one whose track it is, the same in all workers; None for programs, whose speed says nothing."""
        if keys.session and self.tables[SESSION].find(keys.session) is track:
            return f"session {keys.session!r}"
        if keys.address and self.tables[ADDRESS].find(keys.address) is track:
            return f"address {keys.address}"
        return None

    def moved(self, keys: Keys, now: float) -> float:
        """Log-odds that what a client did adds to its score, between -MOST and LEAST.

        A session is one client. An address may be many, so that what is said of it weighs less; whose cookies never come
        back keeps none.
        """
        weights, total = self.weights, 0.0
        session, address, program = (table.find(key) if key else None for table, key in zip(self.tables, keys, strict=True))
        if session is not None and session.requests >= _ENOUGH:
            total += self._alone(session, now)
            if len(session.agents) > 1:  # a session's client has one name until it is updated
                total += weights.many_agents
        elif address is not None and address.requests >= _ENOUGH:
            total += _OF_MANY * self._alone(address, now)
            if address.given >= 2 * _ENOUGH and address.cookies == 0:
                total += weights.no_cookies
        if program is not None and len(program.agents) >= _NAMES:
            total += weights.many_agents
        return max(-MOST, min(LEAST, total))

    def _alone(self, track: Track, now: float) -> float:
        weights, requests = self.weights, track.requests
        total = weights.rate * _ramp(track.a_second(now), 1.0, 5.0)
        total += weights.errors * _ramp(track.errors / requests, 0.2, 0.7)
        pages = _ramp(track.statics / requests, 0.1, 0.5)
        if track.pauses >= _PAUSES:
            total += weights.regular * _ramp(0.5 - track.variation(), 0.1, 0.4)
            total += weights.spread * _ramp(track.entropy(), 0.6, 0.9) * (1 - pages)
        return total + weights.pages * pages


def _ramp(value: float, low: float, high: float) -> float:
    """0 up to `low`, 1 from `high` on, a line between."""
    return max(0.0, min(1.0, (value - low) / (high - low)))
