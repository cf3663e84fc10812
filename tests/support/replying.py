# An upstream connection without a socket: what is below it, the pool it belongs to and the exchange it works for only remember.
"""`begun` is a real UpstreamConnection that waits for the reply to a request."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from edgeproxy.faults import Fault
from edgeproxy.message import Body, Headers, Reply
from edgeproxy.upstream.h1 import UpstreamConnection
from edgeproxy.upstream.known import KnownHeads

TIMEOUTS = SimpleNamespace(connect=3.0, first_byte=120.0, idle=60.0, total=None)


class Wire:
    """A transport that remembers."""

    def __init__(self) -> None:
        self.data = b""
        self.aborted = self.closing = self.paused = False

    def write(self, data: bytes) -> None:
        self.data += data

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.aborted = self.closing = True

    close = abort

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Pool:
    """Pool and target in one, as far as a connection knows them."""

    def __init__(self) -> None:
        self.settings = SimpleNamespace(keepalive=60.0, timeouts=TIMEOUTS)
        self.deadlines = SimpleNamespace(now=1000.0)
        self.stats = SimpleNamespace(resets=0, timeouts={})
        self.pool = self
        self.heads = KnownHeads()
        self.returned: list[UpstreamConnection] = []
        self.gone: list[UpstreamConnection] = []
        self.faults: list[tuple[Fault, bytes]] = []

    def released(self, connection: UpstreamConnection) -> None:
        self.returned.append(connection)

    def closed(self, connection: UpstreamConnection) -> None:
        self.gone.append(connection)

    def retire(self, connection: UpstreamConnection) -> None:
        self.gone.append(connection)

    def failed(self, exchange: Any, fault: Fault, tail: bytes) -> None:
        self.faults.append((fault, tail))


class Exchange:
    """What a connection sees of an exchange, and what it did to it."""

    def __init__(self, method: bytes = b"GET", length: int | None = 0, trailers: bool = True) -> None:
        self.request = SimpleNamespace(method=method, length=length, upgrade=False, expects=False)
        self.body = Body(None)
        self.body.done = length == 0
        self.sink = self
        self.ray = b"0123456789abcdef"
        self.attempt: Any = None
        self.gateway = self
        self.plan = SimpleNamespace(route=SimpleNamespace(trailers=trailers), snapshot=SimpleNamespace(rules=None))
        self.head: Reply | None = None
        self.content = b""
        self.ended = 0
        self.fields: Headers = []

    def proceed(self) -> None: ...

    def trailers(self, fields: Headers) -> None:
        self.fields = fields

    def reply(self, _: Exchange, reply: Reply, data: bytes, end: bool) -> None:
        assert self.head is None
        self.head = reply
        self.write(data, end)

    def write(self, data: bytes, end: bool) -> None:
        assert not self.ended
        self.content += data
        self.ended += end


def begun(exchange: Exchange, pool: Pool | None = None) -> tuple[UpstreamConnection, Pool, Wire]:
    """A connection that has just sent the request of an exchange."""
    pool, wire = pool or Pool(), Wire()
    connection = UpstreamConnection(pool)  # type: ignore[arg-type]
    connection.connection_made(wire)  # type: ignore[arg-type]
    begin(connection, exchange)
    return connection, pool, wire


def begin(connection: UpstreamConnection, exchange: Exchange) -> None:
    """Send another request."""
    connection.begin(exchange, b"GET / HTTP/1.1\r\nhost: a\r\nx-ray-id: ")  # type: ignore[arg-type]
