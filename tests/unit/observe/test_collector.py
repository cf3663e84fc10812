from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgeproxy.ipc import KeysState, ProcessState, State
from edgeproxy.observe.collector import Process, Scrape, render
from edgeproxy.observe.metrics import H2, WorkerStats, counters_only, merge, record

DOCS = Path(__file__).parents[3] / "docs" / "operations.md"


def scrape() -> Scrape:
    stats = WorkerStats()
    for seconds in (0.004, 0.3, 500.0):
        record(stats.route('*/v1/"quoted\\'), H2, 200, seconds, 10, 100)
    stats.handshakes, stats.handshakes_resumed = 5, 2
    stats.handshake_failures["timeout"] = 1
    stats.fault("upstream", "reset")
    stats.rule_hit("scanners", "block")
    stats.rule_error("scanners")
    stats.limit("per-ip", "allowed")
    stats.challenge("refused", "replayed")
    stats.limit("tokens", "refunded", 7)
    stats.block("network")
    stats.bots.scores[0], stats.bots.scores[1], stats.bots.scores[30] = 2, 3, 5
    stats.bots.detection("scanner")
    stats.bots.act("block", acts=False)
    stats.bots.failures = 4
    stats.bots.lookups["name", "found"] = 6
    stats.bots.range_reads = {"found": 2}
    store = stats.store
    store.mode, store.watch = "local", lambda: (1, 2)
    store.known, store.fallbacks, store.failures, store.settles, store.undone = range(31, 36)
    store.sent(3)
    store.answered(3, 0.002)
    quic = stats.quic
    quic.datagrams_in, quic.datagrams_out, quic.reads, quic.writes, quic.bytes_in, quic.bytes_out = range(101, 107)
    quic.handshakes, quic.handshakes_resumed, quic.passed_in, quic.passed_on = 9, 4, 7, 8
    quic.retries, quic.version_negotiations, quic.resets_sent = 21, 22, 23
    quic.packets_sent, quic.packets_lost, quic.probes, quic.migrations = 24, 25, 26, 27
    quic.connections_open, quic.half_open = 3, 5
    quic.drop("unknown id")
    quic.handshake_failure("timeout")
    for seconds in (0.001, 0.03, 60.0):
        quic.rtt(seconds)
    target = stats.upstream("chat", "http://10.0.0.1:80")
    target.timeouts["idle"] = 2
    other = WorkerStats()
    other.upstream("chat", "http://10.0.0.1:80").up = 0
    state = State(
        number=1,
        draining=False,
        started=True,
        generation=3,
        workers=(ProcessState("worker-0", 7, "ready", 3, 0), ProcessState("worker-1", 0, "back-off", 0, 0)),
        supervisor=1,
        restarts={"worker": 4, "control": 0},
        reloads={"ok": 2, "failed": 1},
        last_reload=None,
        keys=KeysState(time.time() - 100, 5),
    )
    total = merge([stats.dump(), other.dump(), counters_only(stats.dump())])
    return Scrape(total, state, True, [Process("worker-0", 1000, 1.5, 9)], {"worker-0": 0.25}, {"ip": 7})


def samples() -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(render(scrape()).decode())
        for sample in family.samples
    }


def test_text_is_read_by_the_prometheus_parser() -> None:
    found = samples()
    route = '*/v1/"quoted\\'
    assert found["edgeproxy_requests_total", "2xx", "h2", route] == 6
    assert found["edgeproxy_request_duration_seconds_bucket", "0.005", route] == 2
    assert found["edgeproxy_request_duration_seconds_bucket", "163.84", route] == 4
    assert found["edgeproxy_request_duration_seconds_bucket", "+Inf", route] == 6
    assert found["edgeproxy_request_duration_seconds_count", route] == 6
    assert found["edgeproxy_handshakes_total", "false"] == 6
    assert found["edgeproxy_handshakes_total", "true"] == 4
    assert found["edgeproxy_faults_total", "reset", "upstream"] == 2
    assert found["edgeproxy_upstream_timeouts_total", "http://10.0.0.1:80", "idle", "chat"] == 4
    assert found["edgeproxy_upstream_up", "http://10.0.0.1:80", "chat"] == 0.5  # one of the two that live
    assert found["edgeproxy_worker_up", "worker-0"] == 1
    assert found["edgeproxy_worker_up", "worker-1"] == 0
    assert found["edgeproxy_process_cpu_seconds_total", "worker-0"] == 1.5
    assert found["edgeproxy_config_generation",] == 3


def test_quic_is_told_with_every_number_in_its_place() -> None:
    """Of the three dumps two have counters and one has gauges."""
    found = {key[0].removeprefix("edgeproxy_quic_") + "".join(f" {label}" for label in key[1:]): n
             for key, n in samples().items() if key[0].startswith("edgeproxy_quic_")}  # fmt: skip
    buckets = {key: n for key, n in found.items() if key.startswith("rtt_seconds_bucket")}
    assert {key: n for key, n in found.items() if key not in buckets} == {
        "connections_open": 3, "handshakes_pending": 5,
        "datagrams_total in": 202, "datagrams_total out": 204, "syscalls_total in": 206, "syscalls_total out": 208,
        "bytes_total in": 210, "bytes_total out": 212, "handshakes_total false": 10, "handshakes_total true": 8,
        "handshake_failures_total timeout": 2, "retries_total": 42, "version_negotiations_total": 44,
        "resets_sent_total": 46, "packets_sent_total": 48, "packets_lost_total": 50, "probes_total": 52,
        "migrations_total": 54, "passed_total in": 14, "passed_total out": 16, "drops_total unknown id": 2,
        "rtt_seconds_sum": pytest.approx(120.062), "rtt_seconds_count": 6,
    }  # fmt: skip
    assert (buckets["rtt_seconds_bucket 0.001"], buckets["rtt_seconds_bucket 0.032"]) == (2, 4)
    assert (buckets["rtt_seconds_bucket 4.096"], buckets["rtt_seconds_bucket +Inf"]) == (4, 6)


def test_the_store_and_blocks() -> None:
    found = samples()
    store = {name.removeprefix("edgeproxy_store_"): n for (name, *rest), n in found.items() if not rest}
    assert (store["failures_total"], store["settles_total"], store["undone_total"]) == (66, 68, 70)
    assert {by[0]: n for (name, *by), n in found.items() if name == "edgeproxy_store_decisions_total"} == {
        "store": 6, "known": 62, "local": 64,
    }  # fmt: skip
    assert (found["edgeproxy_store_breakers", "closed"], found["edgeproxy_store_breakers", "open"]) == (1, 2)  # gauges: one lives
    assert found["edgeproxy_store_fallback", "local"] == 1
    assert (found["edgeproxy_store_latency_seconds_bucket", "0.001"], store["latency_seconds_count"]) == (0, 6)
    assert (found["edgeproxy_store_latency_seconds_bucket", "0.0025"], store["latency_seconds_sum"]) == (6, pytest.approx(0.012))
    assert (found["edgeproxy_store_batch_size_bucket", "2"], found["edgeproxy_store_batch_size_bucket", "4"]) == (0, 2)
    assert (found["edgeproxy_blocks", "ip"], found["edgeproxy_blocked_total", "network"]) == (7, 2)


def test_every_family_has_help_and_a_type_once() -> None:
    lines = render(scrape()).decode().splitlines()
    types = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    helps = [line.split()[2] for line in lines if line.startswith("# HELP")]
    assert types == helps and len(types) == len(set(types))
    assert all(name.startswith("edgeproxy_") for name in types)


def test_every_metric_is_documented_with_its_labels_and_no_other() -> None:
    rows = re.findall(r"^\| `(edgeproxy_\w+)` \|([^|]*)\|", DOCS.read_text(), re.MULTILINE)
    documented = {name: frozenset(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(render(scrape()).decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = found.setdefault(name, set())
        for sample in family.samples:
            labels |= sample.labels.keys() - {"le"}
    assert documented == {name: frozenset(labels) for name, labels in found.items()}
