# An upstream that does as it is told and forgets nothing. Its HTTP parser is its own, so that it cannot share a mistake
# with the edge's.
"""`running_upstream`: a scriptable TCP server that records every byte it receives, its connections and their ends."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
Handler = Callable[["Connection"], Awaitable[None]]


class Gone(Exception):
    """The edge closed or reset the connection."""


@dataclass
class Received:
    """One request as it was on the wire.

    Attributes:
        head: everything up to and with the blank line.
        body: content without framing.
        trailers: raw lines behind the last chunk.
    """

    head: bytes
    body: bytes
    trailers: bytes
    chunked: bool

    @property
    def line(self) -> bytes:
        """The request line."""
        return self.head.partition(b"\r\n")[0]

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """Field lines with names in lower case."""
        lines = self.head.split(b"\r\n")[1:-2]
        return [(name.lower(), value.strip(b" ")) for name, _, value in (line.partition(b":") for line in lines)]

    def values(self, name: bytes) -> list[bytes]:
        """Every value of a field, in order."""
        return [value for key, value in self.fields if key == name]


class Connection(asyncio.Protocol):
    """One connection from the edge.

    Attributes:
        data: every byte received.
        closed: the edge is gone; `error` says how (None: an orderly FIN, or our own close).
        ended: we closed it.
    """

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.data = bytearray()
        self.closed = False
        self.ended = False
        self.error: Exception | None = None
        self.transport: asyncio.Transport
        self._at = 0
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.upstream.connections.append(self)
        self._task = asyncio.get_running_loop().create_task(self._run())

    def data_received(self, data: bytes) -> None:
        self.data += data
        self._news.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        self.error = error
        if not self.ended:
            self.upstream.cancels += 1
        self._news.set()

    async def _run(self) -> None:
        with contextlib.suppress(Gone):
            await self.upstream.handler(self)

    async def more(self) -> None:
        """Waits for more bytes. Raises Gone when there will be none."""
        if self.closed:
            raise Gone
        self._news.clear()
        await self._news.wait()

    async def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        while len(self.data) - self._at < size:
            await self.more()
        self._at += size
        return bytes(self.data[self._at - size : self._at])

    async def take_until(self, mark: bytes) -> bytes:
        """The next bytes up to and with `mark`."""
        while (at := self.data.find(mark, self._at)) < 0:
            await self.more()
        found = bytes(self.data[self._at : at + len(mark)])
        self._at = at + len(mark)
        return found

    async def request(self) -> Received:
        """The next whole request. Raises Gone; AssertionError when its framing is not strictly right."""
        received = await self.head()
        await self.body(received)
        return received

    async def head(self) -> Received:
        """The next request head; its body is still to come (`body`)."""
        received = Received(await self.take_until(b"\r\n\r\n"), b"", b"", False)
        self.upstream.requests.append(received)
        return received

    async def body(self, received: Received) -> None:
        """The body behind a head."""
        codings, lengths = received.values(b"transfer-encoding"), received.values(b"content-length")
        assert len(codings) + len(lengths) <= 1, received.head
        if codings:
            assert codings == [b"chunked"], received.head
            received.chunked = True
            while size := int((await self.take_until(b"\r\n"))[:-2], 16):
                received.body += await self.take(size)
                assert await self.take(2) == b"\r\n"
            while (line := await self.take_until(b"\r\n")) != b"\r\n":
                received.trailers += line
        elif lengths:
            received.body = await self.take(int(lengths[0]))

    def write(self, data: bytes) -> None:
        """Sends bytes."""
        if not self.closed:
            self.transport.write(data)

    def close(self) -> None:
        """Sends what is queued, then FIN."""
        self.ended = True
        self.transport.close()

    def reset(self) -> None:
        """Ends the connection at once."""
        self.ended = True
        self.transport.abort()

    async def gone(self) -> None:
        """Waits until the edge has closed the connection, whatever it still sends."""
        while not self.closed:
            self._news.clear()
            await self._news.wait()


class Upstream:
    """The server.

    Attributes:
        connections: in the order of their arrival, dead ones included.
        requests: heads that a handler has read, over all connections.
        cancels: connections that the edge ended, not we.
    """

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.port = 0
        self.connections: list[Connection] = []
        self.requests: list[Received] = []
        self.cancels = 0

    @property
    def data(self) -> bytes:
        """Every byte received, connection by connection."""
        return b"".join(bytes(connection.data) for connection in self.connections)

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return sum(not connection.closed for connection in self.connections)


async def ok(connection: Connection) -> None:
    """Answers every request with 200 and `ok`."""
    while True:
        received = await connection.request()
        head = received.line.startswith(b"HEAD ")
        connection.write(OK[:-2] if head else OK)


async def echo(connection: Connection) -> None:
    """Answers every request with its own content."""
    while True:
        received = await connection.request()
        connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(received.body), received.body))


def replies(*parts: bytes, then: str = "keep") -> Handler:
    """Every request is answered with these bytes, written one part after the other; `then` keep, close or reset."""

    async def handler(connection: Connection) -> None:
        while True:
            await connection.request()
            for part in parts:
                connection.write(part)
                await asyncio.sleep(0.01 if len(parts) > 1 else 0)  # parts arrive in reads of their own
            if then == "close":
                connection.close()
                return
            if then == "reset":
                connection.reset()
                return

    return handler


@asynccontextmanager
async def running_upstream(handler: Handler = ok, tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    """An upstream on a free loopback port. An exception in its handler fails the test at the end."""
    upstream = Upstream(handler)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(upstream), "127.0.0.1", 0, ssl=tls)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        failures = []
        for connection in upstream.connections:
            connection.ended = True
            connection.transport.abort()
            task = connection._task
            if task is not None:
                if task.done() and not task.cancelled() and task.exception() is not None:
                    failures.append(task.exception())
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
        await asyncio.sleep(0)
    for failure in failures:
        assert failure is not None
        raise failure
