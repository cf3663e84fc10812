# The end of a worker: what runs is finished, what is idle closes, and nothing that is cut looks complete.
from __future__ import annotations

import asyncio

import pytest
from support.upstream import Connection, Handler
from support.waiting import until

from .stand import STREAM, chunk, stand
from .wires import H2Wire


def streaming(gate: asyncio.Event) -> Handler:
    async def handler(connection: Connection) -> None:
        while True:
            received = await connection.request()
            if b"/quick" in received.line:
                connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                continue
            if b"/silent" not in received.line:
                connection.write(STREAM + chunk(b"one"))
            await gate.wait()
            if b"/silent" in received.line:
                connection.write(STREAM + chunk(b"one"))
            connection.write(chunk(b"two") + b"0\r\n\r\n")

    return handler


async def test_idle_connections_close(protocol: str) -> None:
    gate = asyncio.Event()
    async with stand(protocol, streaming(gate)) as s:
        wires = [await s.dial() for _ in range(3)]
        await wires[0].get("/quick")
        s.edge.data_plane.drain()
        await until(lambda: s.edge.data_plane.connections == 0)
        await until(lambda: all(wire.closed for wire in wires))


@pytest.mark.parametrize("path", ["/", "/silent"])
async def test_running_streams_finish(protocol: str, path: str) -> None:
    gate = asyncio.Event()
    async with stand(protocol, streaming(gate)) as s:
        wire = await s.dial()
        call = wire.call("GET", path)
        await until(lambda: s.upstream.requests)
        if path == "/":
            await call.received(3)
        await s.edge.data_plane.stop_accepting()
        s.edge.data_plane.drain()
        s.edge.after(2)
        assert s.edge.data_plane.connections == 1
        assert not wire.closed
        gate.set()
        assert await call.reply() == 200
        assert call.body == b"onetwo"
        await until(lambda: s.edge.data_plane.connections == 0)
        await until(wire.is_leaving)  # it hears of it after the edge has let go
        if wire.announces and path == "/silent":
            assert call.values(b"connection") == [b"close"]


async def test_uploads_finish(protocol: str) -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await connection.gone()

    async with stand(protocol, handler) as s:
        wire = await s.dial()
        call = wire.call("POST", "/", end=False, length=6)
        call.send(b"one")
        await until(lambda: s.upstream.data.endswith(b"one"))
        s.edge.data_plane.drain()
        call.send(b"two", end=True)
        assert await call.reply() == 200
        assert s.upstream.requests[0].body == b"onetwo"
        await until(lambda: s.edge.data_plane.connections == 0)


async def test_nobody_new_is_accepted(protocol: str) -> None:
    gate = asyncio.Event()
    async with stand(protocol, streaming(gate)) as s:
        await s.edge.data_plane.stop_accepting()
        with pytest.raises(ConnectionError):
            await s.dial()


async def test_a_hard_stop_never_looks_like_an_end(protocol: str) -> None:
    gate = asyncio.Event()
    async with stand(protocol, streaming(gate)) as s:
        call = (await s.dial()).call()
        await call.received(3)
        s.edge.data_plane.drain()
        s.edge.data_plane.abort()
        await call.failed()
        assert call.body == b"one"
        assert len(s.log.lines) == 1
        await until(lambda: s.upstream.cancels == 1)


async def test_a_request_in_the_grace_period_is_served() -> None:
    """HTTP/2: the announcement comes first, so that what the client had on the way is not lost."""
    gate = asyncio.Event()
    async with stand("h2", streaming(gate)) as s:
        wire = await s.dial()
        assert isinstance(wire, H2Wire)
        long = wire.call()
        await long.received(3)
        s.edge.data_plane.drain()
        late = wire.call("GET", "/quick")
        assert await late.reply() == 200
        await until(lambda: wire.goaway)
        assert wire.goaway[0].last_stream_id == 2**31 - 1
        # The second GOAWAY must come although a request came in between.
        s.edge.after(2)
        await until(lambda: len(wire.goaway) == 2)
        assert wire.goaway[1].last_stream_id == late.id
        assert wire.goaway[1].error_code == 0
        assert not long.over
        gate.set()
        assert await long.reply() == 200
        await until(lambda: s.edge.data_plane.connections == 0)
