from __future__ import annotations

import copy
import json
from itertools import pairwise

from edgeproxy.observe.metrics import (
    CLASSES,
    DURATION_BUCKETS,
    H1,
    H2,
    WorkerStats,
    counters_only,
    empty,
    merge,
    record,
)


def busy() -> WorkerStats:
    stats = WorkerStats()
    record(stats.route("*/v1/"), H1, 200, 0.2, 10, 100)
    record(stats.route("*/v1/"), H2, 502, 200.0, 1, 2)
    stats.connections_open[H2] = 3
    stats.connections_total[H2] = 5
    stats.streams_open = 2
    stats.handshakes = 5
    stats.handshakes_resumed = 1
    stats.handshakes_pending = 4
    stats.handshake_failures["timeout"] = 1
    stats.redirects = 7
    stats.fault("client", "bad head")
    stats.fault("client", "bad head")
    stats.log_dropped = 6
    stats.quic.handshakes = 2
    stats.quic.connections_open = 1
    stats.quic.drop("unknown id")
    stats.quic.rtt(0.05)
    target = stats.upstream("chat", "http://10.0.0.1:80")
    target.connects = 8
    target.open = target.active = target.pending = 1
    target.timeouts["idle"] = 2
    return stats


def test_buckets_double_from_5_ms_to_163_s() -> None:
    assert DURATION_BUCKETS[0] == 0.005 and DURATION_BUCKETS[-1] == 163.84
    assert all(b == round(2 * a, 3) for a, b in pairwise(DURATION_BUCKETS))


def test_record_puts_a_request_in_its_row_and_bucket() -> None:
    stats = WorkerStats().route("*/")
    record(stats, H2, 404, 0.005, 3, 4)  # on the bound: le="0.005"
    record(stats, H2, 0, 0.0051, 0, 0)
    record(stats, H1, 999, 1e9, 0, 0)  # no class of its own, and not the next protocol's
    assert stats.requests[H2 * CLASSES + 4] == 1
    assert stats.requests[H2 * CLASSES] == 1
    assert stats.requests[H1 * CLASSES + 5] == 1
    assert sum(stats.requests) == 3
    assert (stats.durations[0], stats.durations[1], stats.durations[-1]) == (1, 1, 1)
    assert (stats.bytes_in, stats.bytes_out) == (3, 4)


def test_names_are_stable() -> None:
    stats = WorkerStats()
    assert stats.route("a") is stats.route("a")
    assert stats.upstream("a", "t") is stats.upstream("a", "t")
    assert stats.upstream("a", "t") is not stats.upstream("b", "t")


def test_dump_is_a_copy_that_json_can_carry() -> None:
    stats = busy()
    dump = stats.dump()
    assert json.loads(json.dumps(dump)) == dump
    before = copy.deepcopy(dump)
    record(stats.route("*/v1/"), H1, 200, 0.2, 10, 100)
    stats.upstream("chat", "http://10.0.0.1:80").timeouts["idle"] = 9
    stats.handshake_failures["timeout"] = 9
    stats.connections_open[0] = 9
    stats.quic.drop("unknown id")
    stats.quic.rtt(0.05)
    assert dump == before


def test_merge_adds_everything_and_changes_no_dump() -> None:
    one, two = busy().dump(), busy().dump()
    before = copy.deepcopy(one)
    record_more = busy()
    record(record_more.route("*/other"), H1, 200, 1, 1, 1)
    total = merge([one, two, record_more.dump()])
    assert one == before
    assert total["reporters"] == 3
    assert total["routes"]["*/v1/"][0][2] == 3
    assert total["routes"]["*/v1/"][3:] == [33, 306]
    assert total["routes"]["*/other"][3:] == [1, 1]
    assert total["connections_open"][H2] == 9
    assert total["handshake_failures"] == {"timeout": 3}
    assert total["faults"] == [["client", "bad head", 6]]
    assert (total["redirects"], total["log_dropped"], total["handshakes_pending"]) == (21, 18, 12)
    assert (total["quic"]["handshakes"], total["quic"]["connections_open"], total["quic"]["rtt_count"]) == (6, 3, 3)
    assert total["quic"]["drops"] == {"unknown id": 3}
    (target,) = total["upstreams"]
    assert (target["connects"], target["open"], target["up"], target["reporters"]) == (24, 3, 3, 3)
    assert target["timeouts"] == {"idle": 6}


def test_merge_has_the_shape_of_a_dump() -> None:
    assert merge([busy().dump()]) == busy().dump()
    assert merge([merge([busy().dump()]), empty()]) == busy().dump()
    assert merge([]) == empty()


def test_the_dead_keep_their_counters_and_lose_their_gauges() -> None:
    dump = busy().dump()
    left = counters_only(dump)
    assert dump == busy().dump()
    assert left["routes"] == dump["routes"] and left["connections_total"] == dump["connections_total"]
    assert left["connections_open"] == [0, 0, 0]
    assert (left["reporters"], left["streams_open"], left["handshakes_pending"]) == (0, 0, 0)
    assert left["quic"] == {**dump["quic"], "connections_open": 0}
    (target,) = left["upstreams"]
    assert (target["connects"], target["open"], target["active"], target["pending"], target["up"]) == (8, 0, 0, 0, 0)


def test_every_slot_is_in_the_dump() -> None:
    dump = WorkerStats().dump()
    assert set(WorkerStats.__slots__) <= dump.keys()
    stats = WorkerStats()
    target = stats.upstream("a", "b")
    assert set(target.__slots__) - {"targets"} <= stats.dump()["upstreams"][0].keys()
