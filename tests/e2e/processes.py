# An edge as real processes around a fake data plane (fake_edge.py), with its log and what its admin address says.
"""`Edge` and `Line` for tests of supervisor, workers and control."""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@functools.cache
def certificates() -> Path:
    """The folder of a development certificate, made once per test process."""
    directory = Path(tempfile.mkdtemp(prefix="edgeproxy-tests-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    make_development(directory)
    return directory


@contextmanager
def stopped_edge(directory: Path) -> Iterator[Edge]:
    """An edge to be started, and ended with all its processes."""
    edge = Edge(directory, certificates())
    try:
        yield edge
    finally:
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
