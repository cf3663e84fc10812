# HTTP/3 with two real workers: a client whose port moves to the other's socket, a worker that dies, a reload and a drain.
from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import Backend, Process, free_ports
from support.edge import certificates
from support.h3 import RawH3, data, headers
from support.heads import Fields
from support.waiting import until

GET: Fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/v1/models")]
POST: Fields = [(b":method", b"POST"), *GET[1:3], (b":path", b"/v1/chat/completions"), (b"content-type", b"application/json")]
ASK = {"model": "edge-demo", "stream": True, "max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]}


@dataclass
class Pair:
    """An edge with two workers."""

    https: int
    admin: int
    process: Process
    file: Path

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=5) as answer:
            found: str = answer.read().decode()
        return found

    def metric(self, start: str) -> float:
        """The sum of the samples whose line begins so."""
        return sum(float(line.rpartition(" ")[2]) for line in self.get("/metrics").splitlines() if line.startswith(start))

    def workers(self) -> list[int]:
        detail: dict[str, Any] = json.loads(self.get("/readyz"))
        return [worker["pid"] for worker in detail["workers"]]


@pytest.fixture
def pair(tmp_path: Path, backend: Backend) -> Iterator[Pair]:
    for _ in range(3):
        https, admin = free_ports(2)
        file = tmp_path / "edge.yaml"
        paths = certificates()
        file.write_text(yaml.safe_dump({
            "listen": {"https": f"127.0.0.1:{https}", "admin": f"127.0.0.1:{admin}"},
            "tls": {"certificates": [{"cert": str(paths.cert), "key": str(paths.key)}]},
            "drain": "10s",
            "upstreams": {"chat": {"targets": [{"url": backend.url}]}},
            "routes": [{"path": "/", "upstream": "chat", "dialect": "openai"}],
        }))  # fmt: skip
        process = Process(
            [sys.executable, "-m", "edgeproxy", "serve", "-c", str(file), "--workers", "2"], tmp_path / "edge.log", tmp_path
        )
        if process.wait_for(f"http://127.0.0.1:{admin}/readyz"):
            break
    else:
        pytest.fail(process.said())
    yield Pair(https, admin, process, file)
    process.stop()


async def client(pair: Pair) -> RawH3:
    made = RawH3(pair.https)
    await made.connect()
    made.start()
    return made


def worker_of(made: RawH3) -> int:
    """The slot of the worker that has the connection, from the id it gave (edgeproxy/quic/ids.py)."""
    return made.quic._peer_cid.cid[1]


async def both(pair: Pair) -> dict[int, RawH3]:
    """A client at each worker."""
    found: dict[int, RawH3] = {}
    for _ in range(64):
        made = await client(pair)
        if worker_of(made) in found:
            made.close()
        else:
            found[worker_of(made)] = made
        if len(found) == 2:
            return found
    pytest.fail("the kernel gave all connections to one worker")


async def test_a_moved_port_finds_its_worker(pair: Pair) -> None:
    """The kernel gives datagrams from a new port to any worker: they are passed on to the one that has the connection."""
    made = await client(pair)
    for _ in range(16):
        await made.fine(GET)
        made.rebind()
    await made.fine(GET)
    # Sixteen new ports: the kernel gives some of them to the other worker.
    assert pair.metric("edgeproxy_quic_passed_total") > 0
    made.close()


def stream(made: RawH3) -> int:
    return made.request(headers(POST), data(json.dumps(ASK).encode()))


async def test_a_killed_worker_takes_only_its_own_connections_along(pair: Pair) -> None:
    clients = await both(pair)
    streams = {slot: stream(made) for slot, made in clients.items()}
    for slot, made in clients.items():
        await until(lambda slot=slot, made=made: made.stream(streams[slot]).body)
    os.kill(pair.workers()[0], signal.SIGKILL)
    lives = await clients[1].over(streams[1])
    assert lives.body.endswith(b"data: [DONE]\n\n")
    await clients[1].fine(GET)

    def told() -> bool:
        """The next worker of the slot knows nothing of the connection, and says so."""
        if not clients[0].ended:
            clients[0].frames(b"\x01")
        return clients[0].was_reset

    await until(told, 10)
    for made in clients.values():
        made.close()
    again = await client(pair)
    await again.fine(GET)
    again.close()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
async def test_reload_and_drain_lose_no_stream(pair: Pair, number: signal.Signals) -> None:
    clients = [await client(pair) for _ in range(6)]
    streams = [stream(made) for made in clients]
    for made, one in zip(clients, streams, strict=True):
        await until(lambda made=made, one=one: made.stream(one).body)
    os.kill(pair.process.popen.pid, number)
    for made, one in zip(clients, streams, strict=True):
        reply = await made.over(one, 10)
        assert reply.ended, (reply.reset, made.code, made.reason)
        assert reply.body.endswith(b"data: [DONE]\n\n")
    if number == signal.SIGHUP:
        for made in clients:
            await made.fine(GET)
    for made in clients:
        made.close()
    if number == signal.SIGTERM:
        assert await asyncio.to_thread(pair.process.popen.wait, 15) == 0
