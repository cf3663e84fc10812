from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from edgeproxy.ipc import ProcessState, State
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
    )
    total = merge([stats.dump(), other.dump(), counters_only(stats.dump())])
    return Scrape(total, state, True, [Process("worker-0", 1000, 1.5, 9)], {"worker-0": 0.25})


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
