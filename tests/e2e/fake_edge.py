# An edge whose data plane is a fake: real supervisor, workers, control and sockets, and an answer fixed here. Run as a
# program: `python fake_edge.py FILE [WORKERS]`.
"""GET /pid answers the worker's pid, GET /mark a mark of its configuration (max_url), GET /other `ok`; GET /hold makes
the connection busy and answers only after another line has come. By datagram: `who` answers the worker's slot,
generation, pid and a digest of the shared secret, `pass N TEXT` puts TEXT into slot N's mailbox, `mail` answers what came."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

from edgeproxy.config.model import Config
from edgeproxy.observe.access import AccessLogWriter, line, static_part
from edgeproxy.observe.events import Events
from edgeproxy.observe.metrics import H1, WorkerStats, record
from edgeproxy.quic.ids import Seat
from edgeproxy.state.ports import Store


class FakePlane:
    def __init__(self, loop: asyncio.AbstractEventLoop, stats: WorkerStats, log: AccessLogWriter | None) -> None:
        self.loop = loop
        self.stats = stats
        self.log = log
        self.open: set[Connection] = set()
        self.snapshot: Config | None = None
        self.servers: dict[socket.socket, Any] = {}
        self.draining = False
        self.packets: list[socket.socket] = []
        self.seat = Seat.single()
        self.mail: list[bytes] = []

    @staticmethod
    def prepare(config: Config, ticket_keys: bytes, instance: str | None = None) -> Config:
        assert len(ticket_keys) == 80
        assert instance
        if "exit" in config.upstreams:
            os._exit(7)
        if "refused" in config.upstreams:
            raise ValueError("upstream 'refused' is refused by this data plane")
        return config

    def tell(self, events: Events) -> None:
        raise AssertionError("events are not configured")

    def count(self, store: Store) -> None:
        raise AssertionError("limits are not configured")

    def block(self, blocks: Any) -> None:
        assert blocks is None

    def look(self, charges: Any, reset: bool, done: Any) -> None:
        done(None)

    def switch(self, snapshot: Config) -> None:
        self.snapshot = snapshot

    async def listen(self, https: list[socket.socket], http: list[socket.socket]) -> None:
        for sock in https + http:
            create = self.loop.create_unix_server if sock.family == socket.AF_UNIX else self.loop.create_server
            self.servers[sock] = await create(lambda: Connection(self), sock=sock, backlog=4096)

    def listen_quic(self, sockets: list[socket.socket], seat: Seat) -> None:
        self.packets, self.seat = sockets, seat
        for sock in sockets:
            self.loop.add_reader(sock.fileno(), self.on_packet, sock)
        if seat.inbox is not None:
            self.loop.add_reader(seat.inbox.fileno(), lambda inbox: self.mail.append(inbox.recv(100)), seat.inbox)

    def on_packet(self, sock: socket.socket) -> None:
        question, client = sock.recvfrom(100)
        answer = b"ok"
        if question == b"who":
            digest = hashlib.sha256(self.seat.secret).hexdigest()
            answer = f"{self.seat.index} {self.seat.generation} {os.getpid()} {digest}".encode()
        elif question == b"mail":
            answer = b" ".join(self.mail)
        else:
            _, slot, text = question.split(b" ")
            self.seat.outboxes[int(slot)].send(text)
        sock.sendto(answer, client)

    async def release(self, sockets: list[socket.socket]) -> None:
        for sock in sockets:
            self.servers.pop(sock).close()
            sock.close()

    async def stop_accepting(self) -> None:
        await self.release(list(self.servers))
        for sock in self.packets:
            self.loop.remove_reader(sock.fileno())
            sock.close()

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
            sock = connection.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not a clean end
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
        for question in data.decode().splitlines():
            self.answer(question)

    def answer(self, question: str) -> None:
        plane = self.plane
        assert plane.snapshot is not None
        if question == "GET /hold":
            self.idle = False
            return
        answer = {"GET /pid": os.getpid(), "GET /mark": plane.snapshot.client.max_url}.get(question, "ok")
        record(plane.stats.route("*/"), H1, 200, 0.01, 1, 2)
        plane.stats.upstream("web", "http://127.0.0.1:1")
        if plane.log is not None:
            static = static_part(
                client="127.0.0.1",
                protocol="h1",
                method=b"GET",
                host=b"localhost",
                path=b"/",
                route="*/",
                agent=b"test",
            )
            plane.log.lines.append(line(time.time(), b"ab", 200, 1, 2, 0.01, 0.005, b'"web"', "ok", static))
        self.transport.write(f"{answer}\n".encode())
        if plane.draining:
            self.transport.close()


if __name__ == "__main__":
    from edgeproxy.supervisor import serve

    workers = int(sys.argv[2]) if len(sys.argv) > 2 else None
    sys.exit(serve(Path(sys.argv[1]), workers=workers, data_plane=FakePlane))
