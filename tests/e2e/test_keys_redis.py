# Keys of the edge in Redis, with real processes: made and ended by command, in use on every edge without a reload.
from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from running import Process, free_ports, until
from support.edge import certificates
from support.redis_server import MISSING, Server, running_server

import edgeproxy
from edgeproxy.keys_redis import NAME

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

REFRESH = 0.2
WITHIN = 30.0  # of a busy machine


class Node:
    """One edge."""

    def __init__(self, folder: Path, pepper: Path, redis: str, **keys: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.https, self.admin = free_ports(2)
        self.paths = certificates()
        section = {"redis": redis, "pepper": str(pepper), "refresh": f"{REFRESH}s", **keys}
        self.settings: dict[str, Any] = {
            "listen": {"https": f"127.0.0.1:{self.https}", "admin": f"127.0.0.1:{self.admin}", "protocols": ["h1"]},
            "workers": 2,
            "tls": {"certificates": [{"cert": str(self.paths.cert), "key": str(self.paths.key)}]},
            "keys": section,
            "upstreams": {"main": {"targets": [{"url": f"http://127.0.0.1:{self.admin}"}]}},
            # What has a key gets what the admin address says: nothing else is needed to know who passed.
            "routes": [{"path": "/healthz", "upstream": "main", "keys": "required"}],
        }
        self.write()
        self.process: Process | None = None

    def write(self) -> None:
        (self.folder / "edge.yaml").write_text(yaml.safe_dump(self.settings))

    def start(self) -> None:
        command = [sys.executable, "-m", "edgeproxy", "serve", "-c", "edge.yaml"]
        self.process = Process(command, self.folder / "said", self.folder)

    def ready(self) -> Node:
        self.start()
        until(lambda: "ready after" in self.said() or self.ended(), 60)
        assert not self.ended(), self.said()
        return self

    def ended(self) -> bool:
        return self.process is not None and self.process.popen.poll() is not None

    def said(self) -> str:
        assert self.process is not None
        return self.process.said()

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop()
            assert "Traceback" not in self.said(), self.said()

    def status(self, key: str) -> int:
        """On a new connection: one of the workers."""
        request = urllib.request.Request(f"https://localhost:{self.https}/healthz", headers={"x-api-key": key})
        try:
            with urllib.request.urlopen(
                request, timeout=10, context=ssl.create_default_context(cafile=str(self.paths.ca))
            ) as got:
                return int(got.status)
        except urllib.error.HTTPError as error:
            return error.code

    def settled(self, key: str, status: int) -> float:
        """Seconds until every worker answers so: ten connections in a row."""
        return until(lambda: all(self.status(key) == status for _ in range(10)), WITHIN)

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=5) as got:
            families = list(text_string_to_metric_families(got.read().decode()))
        return next(sample.value for family in families for sample in family.samples if sample.name == f"edgeproxy_{name}")

    def pids(self, name: str) -> list[int]:
        return [int(pid) for pid in re.findall(rf"{name} (\d+)", self.said())]

    def keys(self, *arguments: str) -> str:
        """What `edgeproxy keys` prints."""
        command = [sys.executable, "-m", "edgeproxy", "keys", *arguments, "-c", "edge.yaml"]
        environment = {**os.environ, "PYTHONPATH": str(Path(edgeproxy.__file__).parents[1])}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@contextmanager
def nodes(tmp_path: Path, server: Server, count: int = 1, **keys: Any) -> Iterator[list[Node]]:
    made = [Node(tmp_path / str(number), tmp_path / "pepper", server.url, **keys) for number in range(count)]
    try:
        yield made
    finally:
        for node in made:
            node.stop()


def test_a_keys_life_on_two_edges(tmp_path: Path) -> None:
    with running_server() as server, nodes(tmp_path, server, 2) as (one, other):
        first = one.keys("create", "--name", "first")
        assert first not in str(server.client.hgetall(NAME)), "the key itself is nowhere"
        for node in (one, other):
            node.ready()
            assert node.status(first) == 200
        workers = one.pids("worker-0") + one.pids("worker-1")
        second = other.keys("create", "--name", "second")
        for node in (one, other):
            node.settled(second, 200)
        rotated = one.keys("rotate", "second", "--keep", "0s")
        for node in (one, other):
            node.settled(second, 401)
            assert node.status(rotated) == 200
        other.keys("revoke", "first")
        for node in (one, other):
            node.settled(first, 401)
            assert node.status(rotated) == 200
        assert one.metric("keys_updates_total") == 3 and one.metric("keys_age_seconds") == 0
        assert one.metric("config_generation") == 1 and one.pids("worker-0") + one.pids("worker-1") == workers
        found = [json.loads(line) for line in one.keys("list", "--json").splitlines()]
        assert [(each["name"], each["state"]) for each in found] == [("first", "revoked"), ("second", "active")]


def test_redis_goes_and_comes_back(tmp_path: Path) -> None:
    with running_server("--appendonly", "yes", "--appendfsync", "always") as server, nodes(tmp_path, server) as (edge,):
        good, bad = edge.keys("create", "--name", "good"), edge.keys("create", "--name", "bad")
        edge.ready()
        server.kill()
        until(lambda: "the known keys hold" in edge.said(), WITHIN)
        assert edge.status(good) == edge.status(bad) == 200
        until(lambda: edge.metric("keys_age_seconds") > 3 * REFRESH, WITHIN)
        for pid in edge.pids("worker-0"):
            os.kill(pid, signal.SIGKILL)
        until(lambda: "worker-0 is back" in edge.said(), WITHIN)
        edge.settled(good, 200)
        assert edge.said().count("the known keys hold") == 1, "told once"
        server.restart()
        until(lambda: edge.metric("keys_age_seconds") == 0, WITHIN)
        edge.keys("revoke", "bad")
        edge.settled(bad, 401)
        assert edge.status(good) == 200
        server.client.flushall()
        until(lambda: "Redis has none" in edge.said(), WITHIN)
        assert (edge.status(good), edge.status(bad)) == (200, 401), "what is lost is not taken for what was revoked"


def test_a_worker_that_comes_later_has_the_newest_keys_though_redis_is_gone(tmp_path: Path) -> None:
    with running_server() as server, nodes(tmp_path, server) as (edge,):
        key, other = edge.keys("create", "--name", "team"), edge.keys("create", "--name", "other")
        edge.ready()
        edge.keys("revoke", "team")
        edge.settled(key, 401)
        server.kill()
        for name in ("worker-0", "worker-1"):
            os.kill(edge.pids(name)[0], signal.SIGKILL)
        until(lambda: all(f"worker-{slot} is back" in edge.said() for slot in (0, 1)), WITHIN)
        edge.settled(key, 401)
        edge.settled(other, 200)
        # So does a reload.
        edge.settings["keys"]["networks_per_hour"] = 4
        edge.write()
        assert edge.process is not None
        edge.process.popen.send_signal(signal.SIGHUP)
        until(lambda: "generation 2 is in use" in edge.said(), WITHIN)
        assert (edge.status(key), edge.status(other)) == (401, 200)


def test_a_start_without_redis(tmp_path: Path) -> None:
    with running_server() as server, nodes(tmp_path, server) as (edge,):
        key = edge.keys("create", "--name", "team")
        server.pause()
        edge.start()
        until(edge.ended, WITHIN)
        assert "not started: no keys: Redis does not answer within 1 s; 'keys.cache' names no file" in edge.said()
        server.resume()
        edge.settings["keys"]["cache"] = "nowhere/kept.json"
        edge.write()
        edge.start()
        until(lambda: "cannot be kept in nowhere/kept.json: No such file" in edge.said() and edge.ended(), WITHIN)
        edge.settings["keys"]["cache"] = "kept.json"
        edge.write()
        edge.ready()
        edge.stop()
        kept = edge.folder / "kept.json"
        assert kept.stat().st_mode & 0o777 == 0o600 and key not in kept.read_text()
        os.utime(kept, (time.time() - 1000,) * 2)
        server.kill()
        (edge.folder / "said").unlink()
        edge.ready()
        assert edge.status(key) == 200
        until(lambda: edge.metric("keys_age_seconds") > 999, WITHIN)
        server.restart()  # empty
        until(lambda: "Redis has none" not in edge.said() and edge.metric("keys_age_seconds") > 999, WITHIN)
        edge.keys("create", "--name", "new")
        edge.settled(key, 401)


def test_the_process_that_asks_is_killed(tmp_path: Path) -> None:
    with running_server() as server, nodes(tmp_path, server) as (edge,):
        key = edge.keys("create", "--name", "team")
        edge.ready()
        os.kill(edge.pids("keys")[-1], signal.SIGKILL)
        until(lambda: "keys is back" in edge.said(), WITHIN)
        assert edge.status(key) == 200
        edge.keys("revoke", "team")
        edge.settled(key, 401)
        until(lambda: edge.metric("keys_age_seconds") == 0, WITHIN)


def test_another_place_by_a_reload(tmp_path: Path) -> None:
    with running_server() as server, nodes(tmp_path, server) as (edge,):
        key = edge.keys("create", "--name", "team")
        edge.ready()
        edge.settings["keys"]["redis"] = server.url.replace("/0", "/1")
        edge.write()
        assert edge.process is not None
        edge.process.popen.send_signal(signal.SIGHUP)
        until(lambda: "reload failed, generation 1 stays in use: no keys: Redis has none" in edge.said(), WITHIN)
        assert edge.status(key) == 200
        other = edge.keys("create", "--name", "team")
        edge.process.popen.send_signal(signal.SIGHUP)
        until(lambda: "generation 2 is in use" in edge.said(), WITHIN)
        assert (edge.status(key), edge.status(other)) == (401, 200)
        edge.keys("revoke", "team")
        edge.settled(other, 401)
