# What a store counts about itself: plain slots, added to once for a batch or an exchange. Nothing here knows Prometheus.
"""`StoreStats`, one for each worker, whatever its store is; `dump`, `add` and `counters_only` as in observe/metrics.py."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any, Final

# Seconds: from a fast server on loopback to one in another region, and to what no deadline allows.
LATENCY_BUCKETS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
SIZE_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64)

StoreDump = dict[str, Any]
_COUNTERS: Final = ("latency_sum", "size_sum", "failures", "settles", "undone")
_GAUGES: Final = ("asked", "away")
_LISTS: Final = ("latencies", "sizes")


class StoreStats:
    """Counters of one store; all only grow.

    Attributes:
        mode: what decides without the store; "" where it is in this process.
        exchanges: that the store decided; known: refused here, because a key was known to be over its limit; fallbacks: decided
            without it, by `mode`.
        batches, size_sum, sizes: what was sent, and the exchanges in them.
        latencies, latency_sum: seconds until the answer, of each exchange (that of the oldest in its batch).
        failures: batches that were refused, lost or overdue.
        undone: of `fallbacks`, those that the store admitted, too, too late.
        watch: gives how many servers are asked, and how many are not since they do not answer; None: there are none.
    """

    __slots__ = (
        "batches", "exchanges", "failures", "fallbacks", "known", "latencies", "latency_sum", "mode", "resent", "settles",
        "size_sum", "sizes", "undone", "watch",
    )  # fmt: skip

    def __init__(self) -> None:
        self.mode = ""
        self.batches = 0
        self.exchanges = 0
        self.settles = 0
        self.failures = 0
        self.fallbacks = 0
        self.known = 0
        self.undone = 0
        self.resent = 0
        self.latencies: list[int] = [0] * (len(LATENCY_BUCKETS) + 1)
        self.latency_sum = 0.0
        self.sizes: list[int] = [0] * (len(SIZE_BUCKETS) + 1)
        self.size_sum = 0
        self.watch: Callable[[], tuple[int, int]] | None = None

    def sent(self, exchanges: int) -> None:
        """A batch goes out; one without exchanges only settles."""
        self.batches += 1
        if exchanges:
            self.sizes[bisect_left(SIZE_BUCKETS, exchanges)] += 1
            self.size_sum += exchanges

    def answered(self, exchanges: int, seconds: float) -> None:
        """The store has decided a batch's exchanges."""
        self.exchanges += exchanges
        if exchanges:
            self.latencies[bisect_left(LATENCY_BUCKETS, seconds)] += exchanges
            self.latency_sum += seconds * exchanges

    def dump(self) -> StoreDump:
        """A copy made of dicts, lists, strings and numbers only."""
        asked, away = self.watch() if self.watch is not None else (0, 0)
        decided = {"store": self.exchanges, "known": self.known, **({self.mode: self.fallbacks} if self.mode else {})}
        return {
            **{name: getattr(self, name) for name in _COUNTERS},
            **{name: list(getattr(self, name)) for name in _LISTS},
            "decided": decided, "asked": asked, "away": away, "fallback": {self.mode: int(away > 0)} if self.mode else {},
        }  # fmt: skip


def counters_only(dump: StoreDump) -> StoreDump:
    """What remains of a worker that is gone."""
    return {**dump, **dict.fromkeys(_GAUGES, 0), "fallback": dict.fromkeys(dump["fallback"], 0)}


def add(total: StoreDump, dump: StoreDump) -> None:
    """Adds a dump to a sum, which began as the dump of new StoreStats."""
    for name in _COUNTERS + _GAUGES:
        total[name] += dump[name]
    for name in _LISTS:
        total[name] = [a + b for a, b in zip(total[name], dump[name], strict=True)]
    for name in ("decided", "fallback"):
        for key, n in dump[name].items():
            total[name][key] = total[name].get(key, 0) + n
