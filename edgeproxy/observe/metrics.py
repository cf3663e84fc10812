# Counters of one worker, as plain slots: the hot path adds integers, nothing here locks, allocates labels or knows
# Prometheus. Turning the numbers into text is collector.py's job, in another process.
"""Counters that the data plane writes and the control process merges.

A worker owns one ``WorkerStats``; only its event loop writes to it. ``dump()`` gives a JSON-able copy, ``merge()`` adds
copies up, ``counters_only()`` is what is left of a worker that died: its counters (they must never fall), no gauges.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any, Final

from edgeproxy.observe import bot_stats, quic_stats
from edgeproxy.observe.bot_stats import BotStats
from edgeproxy.observe.quic_stats import QuicStats
from edgeproxy.state import stats as store_stats
from edgeproxy.state.stats import StoreStats

PROTOCOLS: Final = ("h1", "h2", "h3")
H1: Final = 0
H2: Final = 1
H3: Final = 2

# Index of a status class is status // 100; class 0 is a client that left before any status was sent.
CLASSES: Final = 6
CLASS_NAMES: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")

# Seconds: 5 ms doubling to 163.84 s. Chat answers last minutes, so the scale must reach there.
DURATION_BUCKETS: Final[tuple[float, ...]] = tuple(round(0.005 * 2**n, 3) for n in range(16))

Dump = dict[str, Any]


class RouteStats:
    """Requests of one route. ``requests[protocol * CLASSES + status // 100]``, ``durations`` has one slot per bucket
    and a last one for everything slower; ``duration_sum`` in seconds; bytes are of bodies, as seen by the client."""

    __slots__ = ("bytes_in", "bytes_out", "duration_sum", "durations", "name", "requests")

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests: list[int] = [0] * (len(PROTOCOLS) * CLASSES)
        self.durations: list[int] = [0] * (len(DURATION_BUCKETS) + 1)
        self.duration_sum = 0.0
        self.bytes_in = 0
        self.bytes_out = 0


class UpstreamStats:
    """One target of one upstream. ``open`` counts connections, ``active`` those with a request on them, ``pending``
    requests that wait for a connection, ``up`` is 1 or 0; these four are gauges, the rest only ever grows.
    ``timeouts`` is keyed by the timer that fired (``connect``, ``first_byte``, ``idle``, ``total``). ``targets`` is not
    shown: how many targets count here, configured ones and those that a reload took away and that have connections left."""

    __slots__ = (
        "active",
        "client_retries",
        "client_retries_refused",
        "connect_failures",
        "connects",
        "name",
        "open",
        "pending",
        "pending_low",
        "resets",
        "retries",
        "retries_withheld",
        "reused",
        "target",
        "targets",
        "timeouts",
        "up",
    )

    def __init__(self, name: str, target: str) -> None:
        self.name = name
        self.target = target
        self.targets = 0
        self.connects = 0
        self.connect_failures = 0
        self.reused = 0
        self.retries = 0
        self.retries_withheld = 0
        # Of the upstream as a whole, in the row of its first target: they are counted before there is a target.
        self.client_retries = 0
        self.client_retries_refused = 0
        self.resets = 0
        self.timeouts: dict[str, int] = {}
        self.open = 0
        self.active = 0
        self.pending = 0
        self.pending_low = 0
        self.up = 1


class WorkerStats:
    """Everything one worker counts. Lists are indexed by protocol (H1, H2, H3); a connection whose handshake is not
    done has no protocol yet; see ``handshakes_pending``. ``handshakes`` counts completed ones, resumed included."""

    __slots__ = (
        "blocked",
        "bots",
        "challenges",
        "connections_open",
        "connections_total",
        "events_dropped",
        "faults",
        "handshake_failures",
        "handshakes",
        "handshakes_pending",
        "handshakes_resumed",
        "limits",
        "log_dropped",
        "quic",
        "redirects",
        "routes",
        "rule_errors",
        "rule_hits",
        "store",
        "streams_open",
        "upstreams",
    )

    def __init__(self) -> None:
        self.connections_open: list[int] = [0] * len(PROTOCOLS)
        self.connections_total: list[int] = [0] * len(PROTOCOLS)
        self.streams_open = 0
        self.handshakes = 0
        self.handshakes_resumed = 0
        self.handshakes_pending = 0
        self.handshake_failures: dict[str, int] = {}
        self.redirects = 0
        # (source, reason): the rare path, and both are names from our own tables, never text from outside.
        self.faults: dict[tuple[str, str], int] = {}
        # (rule, action), and rule: ids of rule files. They survive a reload under these names, as routes do.
        self.rule_hits: dict[tuple[str, str], int] = {}
        self.rule_errors: dict[str, int] = {}
        # (limit, what became of it): allowed, limited, unasked; settled and refunded are units, the others requests.
        self.limits: dict[tuple[str, str], int] = {}
        self.bots = BotStats()
        # Requests that an operator's block refused, by its kind.
        self.blocked: dict[str, int] = {}
        # (what became of it, why): of challenges; both are words of our own.
        self.challenges: dict[tuple[str, str], int] = {}
        self.log_dropped = 0
        self.events_dropped = 0
        self.quic = QuicStats()
        self.store = StoreStats()
        self.routes: dict[str, RouteStats] = {}
        self.upstreams: dict[tuple[str, str], UpstreamStats] = {}

    def route(self, name: str) -> RouteStats:
        """The counters of a route, by host + path as configured (``*/v1/``); they survive a reload under that name."""
        stats = self.routes.get(name)
        if stats is None:
            stats = self.routes[name] = RouteStats(name)
        return stats

    def upstream(self, name: str, target: str) -> UpstreamStats:
        """The counters of a target of an upstream; they survive a reload under these names (until ``leave``)."""
        stats = self.upstreams.get((name, target))
        if stats is None:
            stats = self.upstreams[name, target] = UpstreamStats(name, target)
        return stats

    def leave(self, stats: UpstreamStats) -> None:
        """A target is gone for good. The counters under its name go too, unless another one bears it by now."""
        stats.targets -= 1
        if stats.targets == 0:
            del self.upstreams[stats.name, stats.target]

    def fault(self, source: str, reason: str) -> None:
        """Counts a fault (rare path)."""
        key = (source, reason)
        self.faults[key] = self.faults.get(key, 0) + 1

    def rule_hit(self, rule: str, action: str) -> None:
        """Counts a rule that matched."""
        key = (rule, action)
        self.rule_hits[key] = self.rule_hits.get(key, 0) + 1

    def rule_error(self, rule: str) -> None:
        """Counts a rule that failed while it ran (rare path)."""
        self.rule_errors[rule] = self.rule_errors.get(rule, 0) + 1

    def limit(self, name: str, outcome: str, n: int = 1) -> None:
        """Counts what became of a limit's charge."""
        key = (name, outcome)
        self.limits[key] = self.limits.get(key, 0) + n

    def block(self, kind: str) -> None:
        """Counts a request that a block refused."""
        self.blocked[kind] = self.blocked.get(kind, 0) + 1
    def challenge(self, outcome: str, reason: str = "") -> None:
        """Counts what became of a challenge."""
        key = (outcome, reason)
        self.challenges[key] = self.challenges.get(key, 0) + 1

    def dump(self) -> Dump:
        """A copy made of dicts, lists, strings and numbers only; cheap enough for once a second."""
        return {
            "reporters": 1,
            "connections_open": list(self.connections_open),
            "handshakes_pending": self.handshakes_pending,
            "streams_open": self.streams_open,
            "connections_total": list(self.connections_total),
            "handshakes": self.handshakes,
            "handshakes_resumed": self.handshakes_resumed,
            "handshake_failures": dict(self.handshake_failures),
            "redirects": self.redirects,
            "faults": [[source, reason, n] for (source, reason), n in self.faults.items()],
            "rule_hits": [[rule, action, n] for (rule, action), n in self.rule_hits.items()],
            "rule_errors": dict(self.rule_errors),
            "limits": [[name, outcome, n] for (name, outcome), n in self.limits.items()],
            "bots": self.bots.dump(),
            "blocked": dict(self.blocked),
            "challenges": [[outcome, reason, n] for (outcome, reason), n in self.challenges.items()],
            "log_dropped": self.log_dropped,
            "events_dropped": self.events_dropped,
            "quic": self.quic.dump(),
            "store": self.store.dump(),
            "routes": {
                r.name: [list(r.requests), list(r.durations), r.duration_sum, r.bytes_in, r.bytes_out]
                for r in self.routes.values()
            },
            "upstreams": [
                {
                    "name": u.name,
                    "target": u.target,
                    **{field: getattr(u, field) for field in _UPSTREAM_COUNTERS + _UPSTREAM_GAUGES},
                    "timeouts": dict(u.timeouts),
                    "reporters": 1,
                }
                for u in self.upstreams.values()
            ],
        }


def record(stats: RouteStats, protocol: int, status: int, seconds: float, bytes_in: int, bytes_out: int) -> None:
    """Counts one finished request. ``status`` 0 means that the client left before any status was sent."""
    klass = status // 100
    # An upstream may answer 600…999; they are errors of its making and must not land in the next protocol's row.
    stats.requests[protocol * 6 + (klass if klass < 6 else 5)] += 1
    stats.durations[bisect_left(DURATION_BUCKETS, seconds)] += 1
    stats.duration_sum += seconds
    stats.bytes_in += bytes_in
    stats.bytes_out += bytes_out


_UPSTREAM_COUNTERS: Final = (
    "connects", "connect_failures", "reused", "retries", "retries_withheld", "client_retries", "client_retries_refused", "resets",
)  # fmt: skip
_UPSTREAM_GAUGES: Final = ("open", "active", "pending", "pending_low", "up")
_COUNTERS: Final = ("handshakes", "handshakes_resumed", "redirects", "log_dropped", "events_dropped")
_GAUGES: Final = ("reporters", "handshakes_pending", "streams_open")
_LISTS: Final = ("connections_open", "connections_total")


def empty() -> Dump:
    """The dump of a worker that has done nothing and is not there (no reporter)."""
    return counters_only(WorkerStats().dump())


def counters_only(dump: Dump) -> Dump:
    """What remains of a worker that is gone: counters as they were, gauges 0."""
    left = {**dump, "connections_open": [0] * len(PROTOCOLS), **dict.fromkeys(_GAUGES, 0)}
    left["quic"] = quic_stats.counters_only(dump["quic"])
    left["store"] = store_stats.counters_only(dump["store"])
    left["upstreams"] = [{**u, **dict.fromkeys(_UPSTREAM_GAUGES, 0), "reporters": 0} for u in dump["upstreams"]]
    return left


def merge(dumps: Iterable[Dump]) -> Dump:
    """The sum of dumps, in the same shape; no dump is changed. ``up`` of a target becomes the number of reporters
    that see it up, to be read against that target's ``reporters``."""
    total: Dump = {
        **dict.fromkeys(_COUNTERS + _GAUGES, 0),
        **{name: [0] * len(PROTOCOLS) for name in _LISTS},
        "handshake_failures": {},
        "rule_errors": {},
        "blocked": {},
        "quic": QuicStats().dump(),
        "bots": BotStats().dump(),
        "store": StoreStats().dump(),
    }
    faults: dict[tuple[str, str], int] = {}
    rule_hits: dict[tuple[str, str], int] = {}
    limits: dict[tuple[str, str], int] = {}
    challenges: dict[tuple[str, str], int] = {}
    routes: dict[str, list[Any]] = {}
    upstreams: dict[tuple[str, str], Dump] = {}
    for dump in dumps:
        for name in _COUNTERS + _GAUGES:
            total[name] += dump[name]
        for name in _LISTS:
            total[name] = _add(total[name], dump[name])
        _add_keys(total["handshake_failures"], dump["handshake_failures"])
        quic_stats.add(total["quic"], dump["quic"])
        bot_stats.add(total["bots"], dump["bots"])
        store_stats.add(total["store"], dump["store"])
        for source, reason, n in dump["faults"]:
            faults[source, reason] = faults.get((source, reason), 0) + n
        for rule, action, n in dump["rule_hits"]:
            rule_hits[rule, action] = rule_hits.get((rule, action), 0) + n
        _add_keys(total["rule_errors"], dump["rule_errors"])
        _add_keys(total["blocked"], dump["blocked"])
        for name, outcome, n in dump["limits"]:
            limits[name, outcome] = limits.get((name, outcome), 0) + n
        for outcome, reason, n in dump["challenges"]:
            challenges[outcome, reason] = challenges.get((outcome, reason), 0) + n
        for name, row in dump["routes"].items():
            have = routes.get(name)
            if have is None:
                routes[name] = [list(row[0]), list(row[1]), *row[2:]]
            else:
                sums = (a + b for a, b in zip(have[2:], row[2:], strict=True))
                routes[name] = [_add(have[0], row[0]), _add(have[1], row[1]), *sums]
        for target in dump["upstreams"]:
            _merge_target(upstreams, target)
    total["faults"] = [[source, reason, n] for (source, reason), n in faults.items()]
    total["rule_hits"] = [[rule, action, n] for (rule, action), n in rule_hits.items()]
    total["limits"] = [[name, outcome, n] for (name, outcome), n in limits.items()]
    total["challenges"] = [[outcome, reason, n] for (outcome, reason), n in challenges.items()]
    total["routes"] = routes
    total["upstreams"] = list(upstreams.values())
    return total


def _merge_target(into: dict[tuple[str, str], Dump], target: Dump) -> None:
    key = (target["name"], target["target"])
    have = into.get(key)
    if have is None:
        into[key] = {**target, "timeouts": dict(target["timeouts"])}
        return
    for field in (*_UPSTREAM_COUNTERS, *_UPSTREAM_GAUGES, "reporters"):
        have[field] += target[field]
    _add_keys(have["timeouts"], target["timeouts"])


def _add(left: list[int], right: list[int]) -> list[int]:
    return [a + b for a, b in zip(left, right, strict=True)]


def _add_keys(into: dict[str, int], more: dict[str, int]) -> None:
    for key, n in more.items():
        into[key] = into.get(key, 0) + n
