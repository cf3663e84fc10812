# A client that sends exactly the bytes it is told and sees how a connection ends; its parser of replies is its own.
"""TLS (or plain TCP) client over MemoryBIO on asyncio streams."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from support.edge import client_context

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

PATIENCE = 5.0  # seconds before a read fails the test


@dataclass
class Response:
    """A reply as it was on the wire; `complete` is False when the connection ended before its framing did."""

    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: bytes = b""
    complete: bool = True
    chunked: bool = False
    interim: list[int] = field(default_factory=list)

    def values(self, name: bytes) -> list[bytes]:
        """Every value of a field, in order; `name` in lower case."""
        return [value for key, value in self.fields if key == name]

    @property
    def closes(self) -> bool:
        """`Connection: close` was announced."""
        return self.values(b"connection") == [b"close"]


class Client:
    """One connection.

    Attributes:
        tls: the SSLObject, None for plain TCP.
        data: plaintext received and not yet taken.
        end: how the peer ended the connection: "" (it has not), "clean" (close_notify, or FIN on plain TCP),
            "truncated" (FIN without close_notify), "reset", or "alert: …".
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.tls: ssl.SSLObject | None = None
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.data = b""
        self.end = ""

    async def handshake(
        self, context: ssl.SSLContext, name: str | None, session: ssl.SSLSession | None = None, step: int = 0
    ) -> None:
        """The TLS handshake; `step`: bytes that are sent at once, each in a segment of its own (0: all)."""
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name, session=session)
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._out(step)
                if not await self._in():
                    raise ConnectionResetError("closed during the handshake") from None
        await self._out(step)

    async def _out(self, step: int = 0) -> None:
        data = self.outgoing.read()
        for at in range(0, len(data), step or len(data) or 1):
            self.writer.write(data[at : at + (step or len(data))])
            if step:
                await asyncio.sleep(0)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def _in(self) -> bool:
        """Ciphertext from the socket; False at its end."""
        try:
            data = await asyncio.wait_for(self.reader.read(65536), PATIENCE)
        except ConnectionError:
            self.end = self.end or "reset"
            return False
        if not data:
            if self.tls is not None:
                self.end = self.end or "truncated"
            else:
                self.end = self.end or "clean"
            return False
        self.incoming.write(data)
        return True

    async def send(self, data: bytes, step: int = 0) -> None:
        """Sends plaintext; `step`: bytes of plaintext in a record and segment of their own (0: all at once)."""
        for at in range(0, len(data), step or len(data) or 1):
            piece = data[at : at + (step or len(data))]
            if self.tls is not None:
                self.tls.write(piece)
                await self._out()
            else:
                self.writer.write(piece)
            if step:
                await asyncio.sleep(0)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    async def send_raw(self, data: bytes) -> None:
        """Sends bytes below TLS."""
        self.writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self.writer.drain()

    def _decrypt(self) -> bool:
        """Plaintext that is here; False when there was none."""
        if self.tls is None:
            got = self.incoming.read()
            self.data += got
            return bool(got)
        got = b""
        while True:
            try:
                piece = self.tls.read(65536)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                self.end = self.end or "clean"
                break
            except ssl.SSLError as error:
                self.end = self.end or f"alert: {error.reason}"
                break
            if not piece:
                self.end = self.end or "clean"
                break
            got += piece
        self.data += got
        return bool(got)

    async def more(self) -> bool:
        """Waits for more plaintext; False when the connection has ended."""
        while True:
            if self._decrypt():
                return True
            if self.end or not await self._in():
                return False

    async def take(self, size: int) -> bytes | None:
        """The next `size` bytes, None when they do not come."""
        while len(self.data) < size:
            if not await self.more():
                return None
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    async def take_until(self, mark: bytes) -> bytes | None:
        """The next bytes up to and with `mark`, None when it does not come."""
        while (at := self.data.find(mark)) < 0:
            if not await self.more():
                return None
        at += len(mark)
        taken, self.data = self.data[:at], self.data[at:]
        return taken

    async def rest(self) -> bytes:
        """Everything until the connection ends; see `end` for how."""
        while await self.more():
            pass
        if self.end == "clean" and self.tls is not None:
            # What the socket says after close_notify (a RST is nothing unusual there) does not matter any more.
            pass
        taken, self.data = self.data, b""
        return taken

    async def response(self, method: str = "GET") -> Response | None:
        """The next reply, interim ones noted; None when the connection ended before a head. Fails on bad framing."""
        interim: list[int] = []
        while True:
            head = await self.take_until(b"\r\n\r\n")
            if head is None:
                return None
            line, *lines = head[:-4].split(b"\r\n")
            version, status, _ = line.split(b" ", 2)
            assert version == b"HTTP/1.1", line
            fields = [(name.lower(), value.strip(b" ")) for name, _, value in (each.partition(b":") for each in lines)]
            if 100 <= int(status) < 200 and int(status) != 101:
                interim.append(int(status))
                continue
            response = Response(int(status), fields, interim=interim)
            await self._body(response, method)
            return response

    async def _body(self, response: Response, method: str) -> None:
        codings, lengths = response.values(b"transfer-encoding"), response.values(b"content-length")
        assert len(codings) + len(lengths) <= 1, response
        if method == "HEAD" or response.status in {101, 204, 304}:
            return
        if codings:
            assert codings == [b"chunked"]
            response.chunked = True
            await self._chunks(response)
        elif lengths:
            body = await self.take(int(lengths[0]))
            if body is None:
                response.body, self.data, response.complete = self.data, b"", False
            else:
                response.body = body
        else:
            response.body = await self.rest()
            response.complete = self.end == "clean"

    async def _chunks(self, response: Response) -> None:
        while True:
            line = await self.take_until(b"\r\n")
            if line is None:
                break
            size = int(line[:-2], 16)
            if not size:
                while (line := await self.take_until(b"\r\n")) not in {None, b"\r\n"}:
                    response.trailers += line or b""
                response.complete = line is not None
                return
            piece = await self.take(size + 2)
            if piece is None:
                response.body += self.data
                self.data = b""
                break
            assert piece.endswith(b"\r\n")
            response.body += piece[:-2]
        response.complete = False

    def close_notify(self) -> None:
        """Says goodbye in TLS, without closing the socket."""
        assert self.tls is not None
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        self.writer.write(self.outgoing.read())

    def reset(self) -> None:
        """Leaves with a RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def leave(self) -> None:
        """Closes the socket."""
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


@asynccontextmanager
async def connected(
    port: int, *, context: ssl.SSLContext | None = None, name: str | None = "localhost", plain: bool = False,
    session: ssl.SSLSession | None = None, step: int = 0,
) -> AsyncIterator[Client]:  # fmt: skip
    """A connection to the edge, its handshake done (unless `plain`); closed at the end.

    Args:
        context: a client's context; by default one that offers http/1.1.
        name: for SNI and verification; None sends no SNI (the context must not check names then).
    """
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    try:
        if not plain:
            await client.handshake(context or client_context(), name, session, step)
        yield client
    finally:
        await client.leave()


async def answered(client: Client, raw: bytes = GET) -> bytes:
    """Sends a request; the content of its answer, which must be a 200."""
    await client.send(raw)
    response = await client.response()
    assert response is not None and response.status == 200, client.end
    return response.body
