# What /metrics says of targets after reloads of a real edge with two workers: the removed go, no total of the others falls.
from __future__ import annotations

import os
import re
import signal
import ssl
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import Backend, Process, free_ports, until

from edgeproxy.certs import make_development

CONNECTS = re.compile(r'^edgeproxy_upstream_connects_total\{target="127\.0\.0\.1:(\d+)",upstream="(\w+)"\} (\S+)$', re.MULTILINE)


class Running:
    """An edge whose configuration can be written anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "edge.yaml"
        self.https, self.admin = free_ports(2)
        self.paths = make_development(folder / "certs")
        self.process: Process | None = None

    def write(self, *ports: int) -> None:
        """One upstream with these targets."""
        values: dict[str, Any] = {
            "listen": {"https": f"127.0.0.1:{self.https}", "admin": f"127.0.0.1:{self.admin}"},
            "workers": 2,
            "tls": {"certificates": [{"cert": str(self.paths.cert), "key": str(self.paths.key)}]},
            "upstreams": {
                "chat": {"balance": "round-robin", "targets": [{"url": f"http://127.0.0.1:{port}"} for port in ports]},
            },
            "routes": [{"path": "/", "upstream": "chat"}],
        }
        self.file.write_text(yaml.safe_dump(values))

    def get(self, url: str) -> str:
        context = ssl.create_default_context(cafile=str(self.paths.ca))
        handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        with urllib.request.build_opener(*handlers).open(url, timeout=10) as answer:
            return str(answer.read().decode())

    def ask(self, times: int) -> None:
        for _ in range(times):
            self.get(f"https://localhost:{self.https}/health")

    def connects(self) -> dict[int, float]:
        """Connections made, by the port of the target."""
        text = self.get(f"http://127.0.0.1:{self.admin}/metrics")
        return {int(port): float(n) for port, _, n in CONNECTS.findall(text)}

    def reload(self, generation: int) -> None:
        assert self.process is not None
        self.process.popen.send_signal(signal.SIGHUP)
        until(lambda: f"generation {generation} is in use" in self.process.said(), 15)  # type: ignore[union-attr]

    def pids(self) -> list[int]:
        assert self.process is not None
        return [int(pid) for pid in re.findall(r"worker-\d+ (\d+)", self.process.said())]


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path)
    yield running
    if running.process is not None:
        running.process.stop()
        sys.stderr.write(running.process.said())


def test_targets_that_are_gone_leave_the_metrics(edge: Running, backend: Backend) -> None:
    (dead,) = free_ports(1)
    edge.write(backend.port, dead)
    edge.process = Process([sys.executable, "-m", "edgeproxy", "serve", "-c", str(edge.file)], edge.folder / "said", edge.folder)
    until(lambda: "ready after" in edge.process.said(), 20)  # type: ignore[union-attr]
    edge.ask(20)
    before = edge.connects()
    assert set(before) == {backend.port, dead} and before[backend.port] > 0

    # A worker dies: what it had counted is kept for all targets.
    os.kill(edge.pids()[0], signal.SIGKILL)
    until(lambda: "is back" in edge.process.said(), 15)  # type: ignore[union-attr]
    assert edge.connects()[backend.port] >= before[backend.port]

    edge.write(backend.port)
    edge.reload(2)
    until(lambda: set(edge.connects()) == {backend.port}, 5)
    assert edge.connects()[backend.port] >= before[backend.port]

    # And back: a new target of that name begins at zero.
    edge.write(backend.port, dead)
    edge.reload(3)
    until(lambda: set(edge.connects()) == {backend.port, dead}, 5)
    assert edge.connects()[dead] == 0
