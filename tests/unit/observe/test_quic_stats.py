from __future__ import annotations

import json
from itertools import pairwise

from edgeproxy.observe.quic_stats import GAUGES, MAX_DROPS, MAX_FAILURES, RTT_BUCKETS, QuicStats, add, counters_only


def test_everything_begins_at_zero_and_is_in_the_dump() -> None:
    dump = QuicStats().dump()
    assert set(QuicStats.__slots__) == dump.keys()
    assert dump.pop("rtt_buckets") == [0] * (len(RTT_BUCKETS) + 1)
    assert [value for value in dump.values() if value] == []


def test_rtt_buckets_double_from_1_ms_to_4_s() -> None:
    assert RTT_BUCKETS[0] == 0.001 and RTT_BUCKETS[-1] == 4.096
    assert all(b == round(2 * a, 3) for a, b in pairwise(RTT_BUCKETS))


def test_a_round_trip_time_is_put_in_its_bucket() -> None:
    stats = QuicStats()
    for seconds in (0.0, 0.001, 0.0011, 4.096, 5.0):
        stats.rtt(seconds)
    assert (stats.rtt_buckets[0], stats.rtt_buckets[1], stats.rtt_buckets[-2], stats.rtt_buckets[-1]) == (2, 1, 1, 1)
    assert (stats.rtt_count, round(stats.rtt_sum, 4)) == (5, 9.0981)


def test_reasons_are_bounded_and_none_is_lost() -> None:
    stats = QuicStats()
    for n in range(100):
        stats.drop(f"reason {n}")
        stats.handshake_failure(f"reason {n}")
    stats.drop("reason 0")
    assert (len(stats.drops), len(stats.handshake_failures)) == (MAX_DROPS, MAX_FAILURES)
    assert (stats.drops["reason 0"], stats.drops["other"]) == (2, 100 - (MAX_DROPS - 1))
    assert sum(stats.handshake_failures.values()) == 100


def test_dumps_are_added_up() -> None:
    stats = QuicStats()
    numbers = [name for name in QuicStats.__slots__ if isinstance(getattr(stats, name), int) and not name.startswith("rtt")]
    for at, name in enumerate(numbers, 1):
        setattr(stats, name, at)
    stats.drop("a")
    stats.handshake_failure("b")
    stats.rtt(0.5)
    dump = stats.dump()
    assert json.loads(json.dumps(dump)) == dump
    total = QuicStats().dump()
    add(total, dump)
    assert total == dump
    add(total, counters_only(dump))
    assert {name: total[name] for name in numbers} == {
        name: at if name in GAUGES else 2 * at for at, name in enumerate(numbers, 1)
    }
    assert (total["drops"], total["handshake_failures"]) == ({"a": 2}, {"b": 2})
    assert (total["rtt_count"], total["rtt_sum"], sum(total["rtt_buckets"])) == (2, 1.0, 2)
