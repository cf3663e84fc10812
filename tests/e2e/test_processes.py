# Supervisor, workers and control as real processes, around a data plane that is a fake (fake_edge.py): what happens
# when one of them dies, is told to reload, to drain, or can't start.
from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

import edgeproxy
from edgeproxy.certs import make_development

FAKE = Path(__file__).with_name("fake_edge.py")
T = TypeVar("T")


def until(probe: Callable[[], T], what: str, seconds: float = 15) -> T:
    """The first true value of ``probe``; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (value := probe()):
        if time.monotonic() > deadline:
            pytest.fail(f"not in {seconds} s: {what}")
        time.sleep(0.01)
    return value


class Line:
    """A client connection that speaks the fake's lines."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=15)

    def ask(self, line: str) -> str:
        self.send(line)
        return self.receive()

    def send(self, line: str) -> None:
        self.socket.sendall(f"{line}\n".encode())

    def receive(self) -> str:
        data = b""
        while not data.endswith(b"\n"):
            more = self.socket.recv(100)
            if not more:
                raise EOFError
            data += more
        return data.decode().strip()

    def close(self) -> None:
        self.socket.close()


class Edge:
    """A running edge, its log, and what its admin address says."""

    def __init__(self, directory: Path, certificates: Path, **settings: Any) -> None:
        self.directory = directory
        self.file = directory / "edge.yaml"
        self.base: dict[str, Any] = {
            "listen": {"https": "127.0.0.1:0", "admin": "127.0.0.1:0"},
            "workers": 2,
            "tls": {
                "certificates": [{"cert": str(certificates / "edge.pem"), "key": str(certificates / "edge-key.pem")}]
            },
            "upstreams": {"web": {"targets": [{"url": "http://127.0.0.1:9000"}]}},
            "routes": [{"upstream": "web"}],
        }
        self.write(**settings)
        self.log: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self.reader: threading.Thread | None = None

    def write(self, **settings: Any) -> None:
        self.file.write_text(yaml.safe_dump({**self.base, **settings}))

    def start(self, ready: bool = True) -> Edge:
        root = str(Path(edgeproxy.__file__).parent.parent)
        environment = {**os.environ, "TMPDIR": str(self.directory), "PYTHONPATH": root}
        self.process = subprocess.Popen(
            [sys.executable, str(FAKE), str(self.file)], stderr=subprocess.PIPE, text=True, env=environment
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if ready:
            self.wait_for(r"ready after")
        return self

    def _read(self) -> None:
        assert self.process is not None and self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.rstrip())

    def wait_for(self, pattern: str, count: int = 1) -> str:
        """The ``count``-th log line that matches."""

        def found() -> str | None:
            lines = [line for line in list(self.log) if re.search(pattern, line)]
            return lines[count - 1] if len(lines) >= count else None

        try:
            return until(found, pattern)
        except BaseException:
            sys.stdout.write("\n".join(self.log))
            raise

    def port(self, name: str) -> int:
        match = re.search(rf"{name}\S*://127\.0\.0\.1:(\d+)", self.wait_for("edgeproxy: serving"))
        assert match is not None
        return int(match[1])

    def client(self) -> Line:
        return Line(self.port("https"))

    def ask(self, line: str) -> str:
        client = self.client()
        try:
            return client.ask(line)
        finally:
            client.close()

    def admin(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port('admin http')}{path}", timeout=15) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as e:
            with e:
                return e.code, e.read()

    def ready(self) -> tuple[int, dict[str, Any]]:
        status, body = self.admin("/readyz")
        return status, json.loads(body)

    def metrics(self) -> dict[tuple[str, ...], float]:
        """Values by name and label values in the order of label names."""
        text = self.admin("/metrics")[1].decode()
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def pids(self) -> dict[str, int]:
        found = dict(re.findall(r"(supervisor|control|worker-\d+) (\d+)", self.wait_for("ready after")))
        return {name: int(pid) for name, pid in found.items()}

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, seconds: float = 20) -> int:
        assert self.process is not None
        return self.process.wait(seconds)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certs")
    make_development(directory)
    return directory


@pytest.fixture
def edge(tmp_path: Path, certificates: Path) -> Iterator[Edge]:
    edge = Edge(tmp_path, certificates)
    yield edge
    if edge.process is not None:
        if edge.process.poll() is None:
            edge.process.kill()  # its children have PR_SET_PDEATHSIG
        edge.process.wait(10)
        if edge.reader is not None:
            edge.reader.join(10)  # ends with the last process that has standard error
        if edge.process.stderr is not None:
            edge.process.stderr.close()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


REQUESTS = ("edgeproxy_requests_total", "2xx", "h1", "*/")


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


# Reload


def test_reload_applies_and_names_what_needs_a_restart(edge: Edge) -> None:
    edge.start()
    client = edge.client()
    assert client.ask("GET /mark") == "16384"
    edge.write(client={"max_url": "4KiB"}, workers=3, listen={**edge.base["listen"], "https": "127.0.0.1:1"})
    edge.signal(signal.SIGHUP)
    assert "restart is needed for: listen.https, workers" in edge.wait_for("generation 2 is in use")
    assert client.ask("GET /mark") == "4096"  # the same connection
    until(lambda: edge.ready()[1]["generation"] == 2, "told to control")
    status, detail = edge.ready()
    assert status == 200
    assert detail["last_reload"]["result"] == "ok"
    assert detail["last_reload"]["needs_restart"] == ["listen.https", "workers"]
    assert [w["generation"] for w in detail["workers"]] == [2, 2]
    metrics = edge.metrics()
    assert metrics["edgeproxy_config_generation",] == 2
    assert metrics["edgeproxy_reloads_total", "ok"] == 1

    # A worker that starts later has the newest configuration.
    os.kill(detail["workers"][0]["pid"], signal.SIGKILL)
    edge.wait_for("worker-0 is back")
    assert {edge.ask("GET /mark") for _ in range(20)} == {"4096"}
    client.close()


@pytest.mark.parametrize(
    ("upstreams", "reason"),
    [
        ({}, "upstreams"),  # the file itself
        ({"refused": {"targets": [{"url": "http://127.0.0.1:9000"}]}}, "refused by this data plane"),
        ({"exit": {"targets": [{"url": "http://127.0.0.1:9000"}]}}, "ended while preparing"),
    ],
)
def test_a_bad_reload_changes_nothing_and_says_why(edge: Edge, upstreams: dict[str, Any], reason: str) -> None:
    edge.start()
    name = next(iter(upstreams), "web")
    edge.write(client={"max_url": "4KiB"}, upstreams=upstreams, routes=[{"upstream": name}])
    edge.signal(signal.SIGHUP)
    edge.wait_for("reload failed, generation 1 stays in use")
    until(lambda: edge.ready()[1]["last_reload"], "told to control")
    last = edge.ready()[1]["last_reload"]
    assert last["result"] == "failed" and reason in last["reason"]
    until(lambda: edge.ready()[0] == 200, "ready as before")
    assert {edge.ask("GET /mark") for _ in range(20)} == {"16384"}
    assert edge.metrics()["edgeproxy_reloads_total", "failed"] == 1

    edge.write(client={"max_url": "8KiB"})
    edge.signal(signal.SIGHUP)
    edge.wait_for(" is in use")  # 2, or 3 where workers had seen the refused one: no number is used twice
    assert edge.ask("GET /mark") == "8192"


def test_signals_during_a_reload_lead_to_one_more(edge: Edge) -> None:
    edge.start()
    for size in (4, 5, 6):
        edge.write(client={"max_url": f"{size}KiB"})
        edge.signal(signal.SIGHUP)
    until(lambda: {edge.ask("GET /mark") for _ in range(8)} == {"6144"}, "the last file is in use")
    assert edge.ready()[0] == 200


def test_reload_reopens_the_access_log(edge: Edge) -> None:
    log, old = edge.directory / "access.jsonl", edge.directory / "access.jsonl.1"
    edge.write(access_log={"file": str(log)})
    edge.start()
    edge.ask("GET /pid")
    until(lambda: log.read_text().count("\n") == 1, "a line")
    log.rename(old)
    edge.signal(signal.SIGHUP)
    edge.wait_for("generation 2 is in use")
    edge.ask("GET /pid")
    until(lambda: log.exists() and log.read_text().count("\n") == 1, "a line in the new file")
    assert old.read_text().count("\n") == 1
    other = edge.directory / "other.jsonl"
    edge.write(access_log={"file": str(other)})
    edge.signal(signal.SIGHUP)
    edge.wait_for("generation 3 is in use")
    edge.ask("GET /pid")
    until(lambda: other.exists() and other.read_text().count("\n") == 1, "a line in the other file")
    entry = json.loads(other.read_text())
    assert entry["client"] == "127.0.0.1" and entry["status"] == 200


# Drain


def test_sigterm_waits_for_a_stream_and_fails_readiness(edge: Edge) -> None:
    edge.start()
    busy, idle = edge.client(), edge.client()
    busy.send("GET /hold")
    assert idle.ask("GET /other") == "ok"
    edge.metrics()
    edge.signal(signal.SIGTERM)
    edge.wait_for("draining")
    until(lambda: edge.ready()[0] == 503, "readiness fails")
    assert edge.ready()[1]["draining"] is True
    assert idle.socket.recv(1) == b""  # idle connections are closed

    def is_refused() -> bool:
        try:
            edge.client().close()
        except ConnectionRefusedError:
            return True
        return False

    until(is_refused, "new connections are refused")
    assert edge.admin("/healthz")[0] == 200
    assert edge.metrics()["edgeproxy_ready",] == 0
    assert busy.ask("GET /other") == "ok"  # the stream goes on, and ends whole
    assert edge.wait() == 0
    busy.close()
    idle.close()


def test_what_is_left_after_the_drain_time_is_reset(edge: Edge) -> None:
    edge.write(drain="300ms")
    edge.start()
    client = edge.client()
    client.send("GET /hold")
    until(lambda: edge.metrics()["edgeproxy_connections_open", "h1"] == 1, "the connection is there")
    edge.signal(signal.SIGTERM)
    with pytest.raises(ConnectionResetError):
        client.receive()
    assert edge.wait() == 0
    client.close()


def test_a_second_signal_stops_at_once(edge: Edge) -> None:
    edge.write(drain="1h")
    edge.start()
    client = edge.client()
    client.send("GET /hold")
    until(lambda: edge.metrics()["edgeproxy_connections_open", "h1"] == 1, "the connection is there")
    edge.signal(signal.SIGINT)
    edge.wait_for("draining")
    edge.signal(signal.SIGTERM)
    with pytest.raises(ConnectionResetError):
        client.receive()
    assert edge.wait() == 0
    client.close()


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
