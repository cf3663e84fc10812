# One stand for every test of the contract: client, edge and upstream on real sockets, and what must be true afterwards.
"""`stand`: brings everything up and, when the test is through, checks that nothing is left over and all is counted."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from support.edge import Edge, RecordedLog, configuration, prepared, running_edge
from support.upstream import Connection, Handler, Upstream, ok, running_upstream
from support.waiting import until

from edgeproxy.preview import Preview

from .clients import Wire
from .wires import WIRES

STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk on the wire."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def stuck(connection: Connection) -> None:
    """Stops taking bytes from the edge."""
    connection.transport.pause_reading()


class Stand:
    """What a test has in its hands."""

    def __init__(self, protocol: str, edge: Edge, upstream: Upstream, log: RecordedLog) -> None:
        self.protocol = protocol
        self.edge = edge
        self.upstream = upstream
        self.log = log
        self.wires: list[Wire] = []

    async def dial(self, *, name: str = "localhost", receive_buffer: int = 0, wait: bool = True) -> Wire:
        """A connection of a client, closed at the end of the test; `wait`: until the edge is through with the handshake."""
        kind, stats = WIRES[self.protocol], self.edge.stats
        handshakes = kind.handshakes(stats)
        wire = await kind.open(self.edge.https_port, name=name, receive_buffer=receive_buffer)
        self.wires.append(wire)
        if wait:
            await until(lambda: kind.handshakes(stats) > handshakes)
        return wire

    @property
    def records(self) -> list[dict[str, Any]]:
        """The access log so far."""
        return [json.loads(line) for line in self.log.lines]

    async def record(self, count: int = 1, within: float = 5.0) -> dict[str, Any]:
        """Waits for the `count`-th line of the log; that line. There must not be more of them."""
        await until(lambda: len(self.log.lines) >= count, within)
        assert len(self.log.lines) == count, self.records
        return self.records[-1]

    def target(self, index: int = 0) -> Any:
        """Counters of an upstream's target."""
        return list(self.edge.stats.upstreams.values())[index]

    def reload(self, **changes: Any) -> None:
        """A new snapshot, made and made current."""
        self.edge.data_plane.switch(prepared(configuration(self.upstream.port, **changes)))

    @property
    def previewed(self) -> int:
        """Bytes of request bodies that the edge holds to look into; -1 when it holds none back."""
        apps = [connection.app for connection in self.edge.data_plane._secure.connections]
        exchanges = [getattr(app, "exchange", None) for app in apps]
        exchanges += [stream.exchange for app in apps for stream in getattr(app, "streams", {}).values()]
        requests = [stream.app for quic in self._quic for stream in quic.streams.by_id.values()]
        exchanges += [getattr(request, "exchange", None) for request in requests]
        attempts = [exchange.attempt for exchange in exchanges if exchange is not None]
        return sum(attempt.size for attempt in attempts if isinstance(attempt, Preview)) if attempts else -1

    @property
    def _quic(self) -> list[Any]:
        """The QUIC connections, behind their handshakes."""
        listener = self.edge.data_plane._quic
        sessions = [] if listener is None else listener.open
        return [session.app.quic for session in sessions if session.app is not None and session.app.quic is not None]

    @property
    def queued(self) -> int:
        """Bytes the edge holds for clients: in its transports, in h2 engines and in QUIC's streams."""
        total = sum(quic.queued for quic in self._quic)
        for connection in self.edge.data_plane._secure.connections:
            total += connection.get_write_buffer_size()
            engine = getattr(connection.app, "engine", None)
            if engine is not None:
                total += engine.queued_body_size()
        return total

    @property
    def queued_up(self) -> int:
        """Bytes the edge holds for upstreams."""
        members = self.edge.deadlines.members
        transports = [getattr(member, "target", None) and member.transport for member in members]
        return sum(transport.get_write_buffer_size() for transport in transports if transport)

    async def expire(self, seconds: float, done: Callable[[], object]) -> None:
        """Lets deadlines up to `seconds` from now pass, without waiting, until something has happened."""
        self.edge.after(seconds)
        await until(done)

    async def leave(self) -> None:
        """Every client leaves."""
        for wire in self.wires:
            await wire.leave()

    async def settled(self) -> None:
        """Nothing may be left over, and every exchange must be counted once, with the same numbers everywhere."""
        stats = self.edge.stats
        await until(lambda: self.edge.data_plane.connections == 0)
        assert stats.handshakes_pending == 0
        assert (stats.quic.half_open, stats.quic.connections_open) == (0, 0)
        assert stats.connections_open == [0, 0, 0]
        await until(lambda: stats.streams_open == 0, 1)
        for target in stats.upstreams.values():
            await until(lambda target=target: target.active == 0, 1)
            assert target.pending == 0, "a place in the queue is still counted"
        assert self.edge.data_plane._gateway.held == 0, "previews hold something"
        assert not any(isinstance(each, Preview) for each in self.edge.deadlines.members)
        pools = list(self.edge.data_plane._gateway.pools.values())
        await until(lambda: not any(pool._tasks for pool in pools))
        for pool in pools:
            assert not pool.pending
            assert pool.connections == sum(len(target.idle) for target in pool.targets)
        routes = stats.routes.values()
        records = self.records
        assert sum(sum(route.requests) for route in routes) == len(records)
        assert sum(sum(route.durations) for route in routes) == len(records)
        assert sum(route.bytes_in for route in routes) == sum(record["bytes_in"] for record in records)
        assert sum(route.bytes_out for route in routes) == sum(record["bytes_out"] for record in records)
        rays = [record["ray"] for record in records]
        assert len(set(rays)) == len(rays)


@asynccontextmanager
async def stand(
    protocol: str, handler: Handler = ok, *, tls: ssl.SSLContext | None = None, **changes: Any
) -> AsyncIterator[Stand]:
    """Everything up. `changes` are sections of the edge's configuration (see `support.edge.configuration`)."""
    log = RecordedLog()
    async with running_upstream(handler, tls) as upstream, running_edge(upstream.port, log=log, **changes) as edge:
        one = Stand(protocol, edge, upstream, log)
        try:
            yield one
        finally:
            await one.leave()
        await one.settled()


def upstream_settings(**settings: Any) -> dict[str, Any]:
    """Settings for the one upstream: `stand(…, upstreams=upstream_settings(timeouts={"idle": "1s"}))`."""
    return {"main": settings}


def routed(**settings: Any) -> list[dict[str, Any]]:
    """The one route with settings: `stand(…, routes=routed(dialect="openai"))`."""
    return [{"path": "/", "upstream": "main", **settings}]
