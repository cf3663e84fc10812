# Supervisor, workers and control as real processes, around a data plane that is a fake (fake_edge.py): what happens
# when they start, when one of them dies, or can't start.
from __future__ import annotations

import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import REQUESTS, Edge, is_alive, stopped_edge, until


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    with stopped_edge(tmp_path) as edge:
        yield edge


# Start and end


def test_serves_with_all_workers_and_ends_without_leftovers(edge: Edge) -> None:
    edge.start()
    seen: set[str] = set()
    until(lambda: seen.add(edge.ask("GET /pid")) or len(seen) == 2, "an answer of each worker")
    pids = edge.pids()
    assert seen == {str(pids["worker-0"]), str(pids["worker-1"])}
    status, detail = edge.ready()
    assert status == 200 and detail["ready"] and detail["generation"] == 1
    assert edge.metrics()[REQUESTS] >= 2
    sockets = list(edge.directory.glob("edgeproxy-*"))
    assert [stat.S_IMODE(path.stat().st_mode) for path in sockets] == [0o700]

    edge.signal(signal.SIGTERM)
    assert edge.wait() == 0
    assert not list(edge.directory.glob("edgeproxy-*"))
    assert not [pid for pid in pids.values() if is_alive(pid)]


def test_children_end_with_a_killed_supervisor(edge: Edge) -> None:
    pids = edge.start().pids()
    edge.signal(signal.SIGKILL)
    edge.wait()
    until(lambda: not [pid for pid in pids.values() if is_alive(pid)], "all processes gone")


def test_children_leave_signals_to_the_supervisor(edge: Edge) -> None:
    pids = edge.start().pids()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        for name in ("worker-0", "worker-1", "control"):
            os.kill(pids[name], number)
    assert {int(edge.ask("GET /pid")) for _ in range(8)} <= {pids["worker-0"], pids["worker-1"]}
    assert edge.metrics()["edgeproxy_restarts_total", "worker"] == 0


def test_each_child_holds_its_own_sockets_only(edge: Edge) -> None:
    pids = edge.start().pids()

    def listening(pid: int) -> set[str]:
        """Inodes of the TCP sockets a process holds on the traffic port, in state LISTEN (0A)."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        port = f":{edge.port('https'):04X}"
        wanted = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and row[1].endswith(port)}
        return wanted & {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}

    assert len(listening(pids["supervisor"])) == 2
    first, second = listening(pids["worker-0"]), listening(pids["worker-1"])
    assert (len(first), len(second), len(first | second)) == (1, 1, 2)
    assert not listening(pids["control"])


# Deaths


def test_a_killed_worker_is_replaced_and_nothing_is_refused_or_forgotten(edge: Edge) -> None:
    pids = edge.start().pids()
    for _ in range(20):
        edge.ask("GET /other")
    before = edge.metrics()[REQUESTS]  # a scrape makes the workers report, so nothing of this can get lost
    os.kill(pids["worker-0"], signal.SIGKILL)
    asked = 0
    while not any("worker-0 is back" in line for line in list(edge.log)) or asked < 50:
        assert edge.ask("GET /other") == "ok"
        asked += 1
    metrics = edge.metrics()
    assert metrics[REQUESTS] == before + asked == 20 + asked
    assert metrics["edgeproxy_restarts_total", "worker"] == 1
    assert metrics["edgeproxy_connections_open", "h1"] <= 1  # gauges of the dead don't count
    new = edge.ready()[1]["workers"][0]["pid"]
    assert new != pids["worker-0"]
    until(lambda: edge.ask("GET /pid") == str(new), "an answer of the new worker")


def test_a_slot_in_back_off_is_lent_and_given_back(edge: Edge) -> None:
    edge.start()

    def workers() -> list[dict[str, Any]]:
        return edge.ready()[1]["workers"]  # type: ignore[no-any-return]

    for count in range(1, 4):  # each death doubles the back-off: the fourth is 0.8 s
        os.kill(workers()[0]["pid"], signal.SIGKILL)
        edge.wait_for("worker-0 is back", count)
        until(lambda: workers()[0]["state"] == "ready", "control knows")
    os.kill(workers()[0]["pid"], signal.SIGKILL)
    edge.wait_for(r"worker-0 .*SIGKILL", 4)
    other = str(workers()[1]["pid"])
    answers = {edge.ask("GET /pid") for _ in range(30)}  # half of them are queued on the dead worker's socket
    assert answers == {other}
    first = workers()[0]
    assert (first["state"], first["served_by"]) == ("back-off", 1), "the test was too slow to see it"
    assert edge.ready()[0] == 200
    edge.wait_for("worker-0 is back", 4)
    until(lambda: workers()[0]["served_by"] == 0, "given back")
    new = workers()[0]["pid"]
    until(lambda: edge.ask("GET /pid") == str(new), "an answer of the new worker")
    # Not only shared: what is on the slot's socket goes to its own worker, so both get their part.
    answers = {edge.ask("GET /pid") for _ in range(60)}
    assert answers == {other, str(new)}


def test_a_single_worker_edge_is_not_ready_without_it(edge: Edge) -> None:
    edge.write(workers=1)
    pids = edge.start().pids()
    os.kill(pids["worker-0"], signal.SIGKILL)
    assert edge.ask("GET /other") == "ok"  # queued by the kernel, answered by the replacement
    until(lambda: edge.ready()[0] == 200, "ready again")


def test_a_killed_control_comes_back_with_all_counters(edge: Edge) -> None:
    pids = edge.start().pids()
    for _ in range(10):
        edge.ask("GET /other")
    assert edge.metrics()[REQUESTS] == 10
    os.kill(pids["worker-1"], signal.SIGKILL)
    edge.wait_for("worker-1 is back")
    assert edge.metrics()[REQUESTS] == 10
    os.kill(pids["control"], signal.SIGKILL)
    assert edge.ask("GET /other") == "ok"
    edge.wait_for("control is back")
    until(lambda: edge.metrics().get(REQUESTS) == 11, "dead and living workers' counters")
    metrics = edge.metrics()
    assert metrics["edgeproxy_restarts_total", "control"] == 1
    assert metrics["edgeproxy_restarts_total", "worker"] == 1
    assert edge.ready()[0] == 200


def test_a_worker_that_hangs_holds_up_neither_scrapes_nor_the_end(edge: Edge) -> None:
    edge.write(drain="100ms")
    pids = edge.start().pids()
    edge.ask("GET /other")
    assert edge.metrics()[REQUESTS] == 1
    os.kill(pids["worker-0"], signal.SIGSTOP)
    metrics = edge.metrics()
    assert metrics[REQUESTS] == 1  # its last report is used, and its age says so
    assert metrics["edgeproxy_worker_report_age_seconds", "worker-0"] > 0
    assert metrics["edgeproxy_worker_report_age_seconds", "worker-1"] == 0
    edge.signal(signal.SIGTERM)
    assert edge.wait() == 0
    edge.wait_for("worker-0 .*has not ended; killing it")
    assert not is_alive(pids["worker-0"])


# What keeps it from starting


def test_a_taken_port_is_named(edge: Edge) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:  # SO_REUSEPORT, as another edge has it
        port = taken.getsockname()[1]
        edge.write(listen={"https": f"127.0.0.1:{port}", "admin": None})
        edge.start(ready=False)
        assert edge.wait() == 1
    line = edge.wait_for("not started")
    assert f"127.0.0.1:{port}" in line and "another process listens there" in line


def test_a_wrong_file_is_explained(edge: Edge) -> None:
    edge.write(workers="many", upstream={})
    edge.start(ready=False)
    assert edge.wait() == 1
    edge.wait_for("upstream")
    edge.wait_for("workers")
    edge.wait_for("not started: correct the configuration")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("refused", "worker-. says: upstream 'refused' is refused"),
        ("exit", "worker-. ended 5 times before it was ready"),
    ],
)
def test_workers_that_never_get_ready_end_the_start(edge: Edge, name: str, message: str) -> None:
    edge.write(upstreams={name: {"targets": [{"url": "http://127.0.0.1:9000"}]}}, routes=[{"upstream": name}])
    edge.start(ready=False)
    assert edge.wait() == 1
    edge.wait_for(f"not started: {message}")


def test_unix_sockets_are_shared_and_a_stale_file_is_replaced(edge: Edge) -> None:
    path = edge.directory / "edge.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    edge.write(listen={"https": ["127.0.0.1:0", f"unix:{path}"], "admin": "127.0.0.1:0"})
    edge.start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o660

    def pid() -> str:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /pid\n")
            return client.recv(100).decode().strip()

    assert int(pid()) in edge.pids().values()
    edge.signal(signal.SIGTERM)
    assert edge.wait() == 0
    assert not path.exists()
