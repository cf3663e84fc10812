# An edge whose data plane is a fake: real supervisor, workers, control and sockets, and an answer fixed here. Run as a
# program: `python fake_edge.py FILE [WORKERS]`.
"""GET /pid answers the worker's pid, GET /generation a mark of its configuration (max_url), GET /count counts a request;
GET /hold answers only after another line has come."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from edgeproxy.config.model import Config
from edgeproxy.observe.access import AccessLogWriter, Entry
from edgeproxy.observe.metrics import H1, WorkerStats, record


class FakePlane:
    def __init__(self, loop: asyncio.AbstractEventLoop, stats: WorkerStats, log: AccessLogWriter | None) -> None:
        self.loop = loop
        self.stats = stats
        self.log = log
        self.open: set[Connection] = set()
        self.snapshot: Config | None = None
        self.servers: dict[socket.socket, Any] = {}
        self.draining = False

    @staticmethod
    def prepare(config: Config, ticket_keys: bytes) -> Config:
        assert len(ticket_keys) == 80
        if "exit" in config.upstreams:
            os._exit(7)
        if "refused" in config.upstreams:
            raise ValueError("upstream 'refused' is refused by this data plane")
        return config

    def switch(self, snapshot: Config) -> None:
        self.snapshot = snapshot

    async def listen(self, https: list[socket.socket], http: list[socket.socket]) -> None:
        for sock in https + http:
            self.servers[sock] = await self.loop.create_server(lambda: Connection(self), sock=sock, backlog=4096)

    async def release(self, sockets: list[socket.socket]) -> None:
        for sock in sockets:
            self.servers.pop(sock).close()
            sock.close()

    async def stop_accepting(self) -> None:
        await self.release(list(self.servers))

    def drain(self) -> None:
        self.draining = True
        for connection in list(self.open):
            if connection.idle:
                connection.transport.close()

    @property
    def connections(self) -> int:
        return len(self.open)

    def abort(self) -> None:
        for connection in list(self.open):
            connection.transport.abort()


class Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, plane: FakePlane) -> None:
        self.plane = plane
        self.idle = True

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.plane.open.add(self)
        self.plane.stats.connections_open[H1] += 1
        self.plane.stats.connections_total[H1] += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.plane.open.discard(self)
        self.plane.stats.connections_open[H1] -= 1

    def data_received(self, data: bytes) -> None:
        for line in data.decode().splitlines():
            self.line(line)

    def line(self, line: str) -> None:
        plane = self.plane
        assert plane.snapshot is not None
        if line == "GET /hold":
            self.idle = False
            return
        answer = {"GET /pid": os.getpid(), "GET /generation": plane.snapshot.client.max_url}.get(line, "ok")
        record(plane.stats.route("*/"), H1, 200, 0.01, 1, 2)
        plane.stats.upstream("web", "http://127.0.0.1:1")
        if plane.log is not None:
            plane.log.entries.append(
                Entry(
                    time.time(),
                    "ray",
                    "127.0.0.1",
                    "h1",
                    "GET",
                    "localhost",
                    line,
                    200,
                    1,
                    2,
                    10.0,
                    5.0,
                    "*/",
                    "web",
                    "ok",
                    "test",
                )  # fmt: skip
            )
        self.transport.write(f"{answer}\n".encode())
        if plane.draining:
            self.transport.close()


if __name__ == "__main__":
    from edgeproxy.supervisor import serve

    workers = int(sys.argv[2]) if len(sys.argv) > 2 else None
    sys.exit(serve(Path(sys.argv[1]), workers=workers, data_plane=FakePlane))
