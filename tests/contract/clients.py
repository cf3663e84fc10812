# A client of the edge as the contract sees it: requests go out, replies come in, and reading can be held. One
# implementation per protocol; no test of the shared suite knows which one it has.
"""`Wire`: one client connection over TLS; `Call`: one request on it and what came back."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Sequence

from support.edge import client_context
from support.waiting import until

from edgeproxy.observe.metrics import WorkerStats

Fields = Sequence[tuple[bytes, bytes]]


class Call:
    """One request and its reply.

    Attributes:
        status: 0 until the reply's head is here.
        body: content so far.
        complete: the reply ended as its framing says it should.
        error: why it did not, "" while that is open.
        offered: bytes of request content given to `send`.
    """

    def __init__(self, wire: Wire, method: bytes) -> None:
        self.wire = wire
        self.method = method
        self.id = 0
        self.status = 0
        self.fields: list[tuple[bytes, bytes]] = []
        self.interim: list[int] = []
        self.trailers: list[tuple[bytes, bytes]] = []
        self.body = bytearray()
        self.complete = False
        self.error = ""
        self.offered = 0

    @property
    def over(self) -> bool:
        """Complete or failed."""
        return self.complete or bool(self.error)

    def values(self, name: bytes) -> list[bytes]:
        """Every value of a reply's field."""
        return [value for key, value in self.fields if key == name]

    async def head(self, within: float = 5.0) -> int:
        """Waits for the reply's head; its status."""
        await until(lambda: self.status or self.over, within)
        assert self.status, f"no head: {self.error}"
        return self.status

    async def received(self, size: int, within: float = 5.0) -> bytes:
        """Waits for so many bytes of content."""
        await until(lambda: len(self.body) >= size or self.over, within)
        assert len(self.body) >= size, f"{len(self.body)} bytes, then {self.error or 'the end'}"
        return bytes(self.body)

    async def reply(self, within: float = 5.0) -> int:
        """Waits for the whole reply; its status."""
        await until(lambda: self.over, within)
        assert self.complete, f"status {self.status}, {len(self.body)} bytes, then: {self.error}"
        return self.status

    async def failed(self, within: float = 5.0) -> str:
        """Waits for a reply that must not end well; how it ended."""
        await until(lambda: self.over, within)
        assert not self.complete, f"a clean end, status {self.status}, {bytes(self.body[-200:])!r}"
        return self.error

    def send(self, data: bytes, *, end: bool = False) -> None:
        """More request content, queued without bound on the client's side; `unsent` tells how much still waits."""
        self.offered += len(data)
        self.wire.content(self, data, end)

    @property
    def unsent(self) -> int:
        """Bytes of request content that neither the kernel nor the edge has taken yet."""
        return self.wire.unsent(self)

    def cancel(self) -> None:
        """Leaves: RST_STREAM where there is one, else the connection is closed."""
        self.wire.leave_call(self)


class Wire:
    """One connection. What a protocol cannot do, or does in its own way, is said by attributes, not asked by name.

    Attributes:
        name: as in the access log.
        index: of the protocol in the counters (`observe.metrics.PROTOCOLS`).
        alpn: what the handshake must agree on.
        multiplexed: several calls at a time; a call may fail or be cancelled alone.
        announces: the last reply of a connection says `Connection: close`.
        huge: bytes of content that no buffer on the way can hold (fewer where the client itself is slow).
        streams_counted: a request counts as a stream from its first byte on, not from its complete head.
    """

    name = ""
    index = 0
    alpn = ""
    multiplexed = False
    announces = False
    huge = 64 << 20
    streams_counted = True

    def __init__(self) -> None:
        self.closed = False
        self.error: Exception | None = None
        self.calls: list[Call] = []

    def call(
        self, method: str = "GET", path: str = "/", fields: Fields = (), body: bytes | None = None, *,
        end: bool = True, host: str = "localhost", length: int | None = None,
    ) -> Call:  # fmt: skip
        """Begins a request.

        Args:
            body: None and `end`: a request without content.
            end: False leaves the request open for `Call.send`.
            length: Content-Length; by default that of a whole body, none for an open one.
        """
        call = Call(self, method.encode())
        if body is not None and end and length is None:
            length = len(body)
        self.calls.append(call)
        self.begin(call, path.encode(), [*fields], body, end, host.encode(), length)
        return call

    async def get(self, path: str = "/", fields: Fields = (), *, host: str = "localhost") -> Call:
        """A GET and its whole reply."""
        call = self.call("GET", path, fields, host=host)
        await call.reply()
        return call

    def lost(self, error: Exception | None) -> None:
        """The connection is over."""
        self.closed = True
        self.error = error
        for call in self.calls:
            if not call.over:
                call.error = f"connection lost: {error}"

    async def leave(self) -> None:
        """Close, whatever is going on."""
        if not self.closed:
            self.abort()
            await until(lambda: self.closed)

    # what a protocol has to say itself

    @classmethod
    async def open(cls, port: int, *, name: str = "localhost", receive_buffer: int = 0) -> Wire:
        """Connects; `receive_buffer`: bytes that may be on their way to a client that does not read."""
        raise NotImplementedError

    @staticmethod
    def handshakes(stats: WorkerStats) -> int:
        """Handshakes of the wire's kind that the edge has completed."""
        return stats.handshakes

    def begin(
        self, call: Call, path: bytes, fields: list[tuple[bytes, bytes]], body: bytes | None, end: bool, host: bytes,
        length: int | None,
    ) -> None:  # fmt: skip
        raise NotImplementedError

    def content(self, call: Call, data: bytes, end: bool) -> None:
        raise NotImplementedError

    def unsent(self, call: Call) -> int:
        raise NotImplementedError

    def leave_call(self, call: Call) -> None:
        raise NotImplementedError

    def is_leaving(self) -> bool:
        """The edge has announced that it will take no more requests here."""
        raise NotImplementedError

    def pause(self) -> None:
        """Stop reading: what is on its way fills the buffers, then the edge must wait."""
        raise NotImplementedError

    def resume(self) -> None:
        """Read again."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave in good order."""
        raise NotImplementedError

    def reset(self) -> None:
        """Leave with an error that the edge sees at once."""
        raise NotImplementedError

    def abort(self) -> None:
        """Leave at once, with whatever the protocol has for it."""
        raise NotImplementedError


class StreamWire(asyncio.Protocol, Wire):
    """A connection over TCP with TLS."""

    def __init__(self) -> None:
        super().__init__()
        self.transport: asyncio.Transport

    @classmethod
    async def open(cls, port: int, *, name: str = "localhost", receive_buffer: int = 0) -> Wire:
        loop = asyncio.get_running_loop()
        context = client_context((cls.alpn,))
        if receive_buffer:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", port))
            _, wire = await loop.create_connection(cls, sock=sock, ssl=context, server_hostname=name)
        else:
            _, wire = await loop.create_connection(cls, "127.0.0.1", port, ssl=context, server_hostname=name)
        tls: ssl.SSLObject = wire.transport.get_extra_info("ssl_object")
        assert tls.selected_alpn_protocol() == cls.alpn
        return wire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, error: Exception | None) -> None:
        self.lost(error)

    def pause(self) -> None:
        self.transport.pause_reading()

    def resume(self) -> None:
        self.transport.resume_reading()

    def close(self) -> None:
        self.transport.close()

    def reset(self) -> None:
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def abort(self) -> None:
        self.transport.abort()
