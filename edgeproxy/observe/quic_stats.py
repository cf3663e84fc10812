# What a worker counts of QUIC: packets, paths, handshakes. Plain slots like metrics.py; requests over h3 are counted there.
"""`QuicStats`: counters that the QUIC listener writes, and how copies of them are added up."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Final

# Seconds: 1 ms doubling to 4.096 s.
RTT_BUCKETS: Final[tuple[float, ...]] = tuple(round(0.001 * 2**n, 3) for n in range(13))
MAX_DROPS: Final = 32
MAX_FAILURES: Final = 64
OTHER: Final = "other"  # what has no place of its own any more

QuicDump = dict[str, Any]

COUNTERS: Final = (
    "datagrams_in", "datagrams_out", "reads", "writes", "bytes_in", "bytes_out",
    "handshakes", "handshakes_resumed", "retries", "version_negotiations", "resets_sent",
    "packets_sent", "packets_lost", "probes", "migrations", "passed_on", "passed_in", "rtt_sum", "rtt_count",
)  # fmt: skip
GAUGES: Final = ("connections_open", "half_open")
REASONS: Final = ("drops", "handshake_failures")


class QuicStats:
    """One worker's counters of QUIC. ``connections_open`` and ``half_open`` are gauges, the rest only ever grows.

    Attributes:
        reads, writes: system calls for datagrams; one may carry many.
        bytes_in, bytes_out: of UDP payloads.
        resets_sent: stateless resets (RFC 9000 §10.3).
        probes: packets sent because a probe timeout ran out (RFC 9002 §6.2).
        passed_on, passed_in: datagrams given to and taken from other workers.
        connections_open, half_open: with their handshake confirmed, and on the way there.
        drops: datagrams and packets that were not used, by reason.
        rtt_buckets, rtt_sum, rtt_count: smoothed round-trip times, one for each connection and interval (see `Session.expire`).
    """

    __slots__ = (*COUNTERS, *GAUGES, *REASONS, "rtt_buckets")

    def __init__(self) -> None:
        self.datagrams_in = 0
        self.datagrams_out = 0
        self.reads = 0
        self.writes = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.handshakes = 0
        self.handshakes_resumed = 0
        self.retries = 0
        self.version_negotiations = 0
        self.resets_sent = 0
        self.packets_sent = 0
        self.packets_lost = 0
        self.probes = 0
        self.migrations = 0
        self.passed_on = 0
        self.passed_in = 0
        self.connections_open = 0
        self.half_open = 0
        self.drops: dict[str, int] = {}
        self.handshake_failures: dict[str, int] = {}
        self.rtt_buckets: list[int] = [0] * (len(RTT_BUCKETS) + 1)
        self.rtt_sum = 0.0
        self.rtt_count = 0

    def rtt(self, seconds: float) -> None:
        """Counts the smoothed round-trip time of a connection."""
        self.rtt_buckets[bisect_left(RTT_BUCKETS, seconds)] += 1
        self.rtt_sum += seconds
        self.rtt_count += 1

    def drop(self, reason: str, n: int = 1) -> None:
        """Counts what was not used; reasons over MAX_DROPS become OTHER."""
        _count(self.drops, reason, MAX_DROPS, n)

    def handshake_failure(self, reason: str) -> None:
        """Counts a handshake that failed; reasons over MAX_FAILURES become OTHER."""
        _count(self.handshake_failures, reason, MAX_FAILURES)

    def dump(self) -> QuicDump:
        """A copy made of dicts, lists, strings and numbers only."""
        copy: QuicDump = {name: getattr(self, name) for name in COUNTERS + GAUGES}
        copy["drops"] = dict(self.drops)
        copy["handshake_failures"] = dict(self.handshake_failures)
        copy["rtt_buckets"] = list(self.rtt_buckets)
        return copy


def counters_only(dump: QuicDump) -> QuicDump:
    """What remains of a worker that is gone: counters as they were, gauges 0."""
    return {**dump, **dict.fromkeys(GAUGES, 0)}


def add(total: QuicDump, dump: QuicDump) -> None:
    """Adds a dump to a sum, which began as the dump of new QuicStats."""
    for name in COUNTERS + GAUGES:
        total[name] += dump[name]
    for name in REASONS:
        sums = total[name]
        for reason, n in dump[name].items():
            sums[reason] = sums.get(reason, 0) + n
    total["rtt_buckets"] = [a + b for a, b in zip(total["rtt_buckets"], dump["rtt_buckets"], strict=True)]


def _count(reasons: dict[str, int], reason: str, most: int, n: int = 1) -> None:
    if reason not in reasons and len(reasons) >= most - 1:
        reason = OTHER
    reasons[reason] = reasons.get(reason, 0) + n
