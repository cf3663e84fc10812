# HTTP/2 alone: floods, window accounting, limits on streams, the end of a connection.
from __future__ import annotations

import asyncio
import contextlib

import ngh2
import pytest
from support.h2 import GET, POST, H2Client, h2_connected
from support.upstream import OK, Connection, Handler, ok
from support.waiting import until

from .stand import STREAM, Stand, chunk, stand, upstream_settings
from .wires import H2Wire


async def dial(s: Stand) -> H2Wire:
    wire = await s.dial()
    assert isinstance(wire, H2Wire)
    return wire


async def finished(h2: H2Client) -> None:
    """Reads until the connection has ended, answering as long as that is possible."""
    with contextlib.suppress(RuntimeError, ConnectionError):  # uvloop's way to say that a transport is closed
        await h2.until(lambda: False)


def silent_until(gate: asyncio.Event) -> Handler:
    async def handler(connection: Connection) -> None:
        while True:
            await connection.request()
            await gate.wait()
            connection.write(OK)

    return handler


async def test_rapid_reset_ends_the_connection_and_costs_the_upstream_little() -> None:
    gate = asyncio.Event()
    async with stand("h2", silent_until(gate)) as s:
        async with h2_connected(s.edge.https_port) as h2:
            for number in range(1, 4000, 2):
                with contextlib.suppress(RuntimeError):
                    await h2.send(h2.headers(number, GET))
                    await h2.send(h2.rst(number))
                if h2.client.writer.is_closing() or s.edge.data_plane.connections == 0:
                    break
            await finished(h2)
        await until(lambda: s.edge.data_plane.connections == 0)
        assert s.edge.faults
        assert all(source == "client" for source, _ in s.edge.faults)
        await until(lambda: s.target().active == 0)
        assert len(s.upstream.connections) < 400
        assert {record["outcome"] for record in s.records} <= {"client_gone"}
        gate.set()
        assert (await (await s.dial()).get()).status == 200  # everybody else is served


raw = H2Client.raw
FLOODS = {
    "ping": raw(6, 0, 0, bytes(8)),
    "settings": raw(4, 0, 0, b""),
    "priority": raw(2, 0, 1, bytes(4) + b"\x10"),
    "window_update": raw(8, 0, 0, (1).to_bytes(4)),
    "unknown": raw(0x77, 0, 0, bytes(16)),
    "empty data": raw(0, 0, 1, b""),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_floods_end_the_connection(name: str) -> None:
    async def handler(connection: Connection) -> None:
        await connection.head()
        await connection.gone()

    async with stand("h2", handler) as s:
        async with h2_connected(s.edge.https_port) as h2:
            await h2.send(h2.headers(1, POST, end=False))
            await until(lambda: s.upstream.requests)
            for _ in range(200):
                with contextlib.suppress(RuntimeError):
                    await h2.send(FLOODS[name] * 100)
                if s.edge.data_plane.connections == 0:
                    break
            await finished(h2)
        await until(lambda: s.edge.data_plane.connections == 0)
        assert s.edge.faults
        assert all(source == "client" for source, _ in s.edge.faults)
        await until(lambda: s.upstream.cancels == 1)


async def test_pings_now_and_then_are_answered() -> None:
    async with stand("h2", ok) as s:
        wire = await dial(s)
        for count in range(1, 30):
            wire.engine.ping(bytes(8))
            wire.flush()
            await until(lambda count=count: wire.pings == count)
        assert (await wire.get()).status == 200


async def test_streams_over_the_limit_do_not_reach_the_upstream() -> None:
    gate = asyncio.Event()
    async with stand("h2", silent_until(gate), client={"h2": {"max_streams": 10}}) as s:
        async with h2_connected(s.edge.https_port) as h2:
            await h2.until(lambda: h2.settings)
            assert h2.settings[3] == 10
            await h2.settled()  # the edge has our ACK: from here on the limit is one
            await h2.send(*[h2.headers(2 * number + 1, GET) for number in range(12)])
            # The client has acknowledged the limit: going over it is an error of the connection (RFC 9113 §5.1.2 leaves
            # the choice; the engine's is this one).
            await finished(h2)
            assert h2.goaway is not None
            assert len(s.upstream.requests) <= 10
        gate.set()
        await until(lambda: s.target().active == 0)


async def test_window_comes_back_after_cancelled_uploads() -> None:
    """The connection's window counts content that nobody took: a later upload must find all of it again."""

    async def handler(connection: Connection) -> None:
        received = await connection.head()
        if b"/take" in received.line:
            await connection.body(received)
            connection.write(OK)
        else:
            connection.transport.pause_reading()
        await connection.gone()

    async with stand("h2", handler) as s:
        wire = await dial(s)
        await until(lambda: wire.engine.remote_window_size > 65535)
        full = wire.engine.remote_window_size
        for _ in range(40):
            seen = len(s.upstream.requests)
            call = wire.call("POST", "/leave", end=False)
            call.send(bytes(60_000))
            await until(lambda seen=seen: len(s.upstream.requests) > seen)
            call.cancel()
        # Engines give window back in halves.
        await until(lambda: wire.engine.remote_window_size >= full // 2, 2)
        call = wire.call("POST", "/take", (), bytes(2 << 20))
        assert await call.reply() == 200


@pytest.mark.parametrize("case", ["no route", "too large", "full", "preview", "early", "dies"])
async def test_window_comes_back_when_an_exchange_ends_without_taking_its_content(case: str) -> None:
    async def handler(connection: Connection) -> None:
        while True:
            received = await connection.head()
            if b"/take" in received.line:
                await connection.body(received)
                connection.write(OK)
            elif case == "early":
                connection.write(b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n")
                await connection.gone()
            elif case == "dies":
                connection.reset()
                return
            else:
                await connection.gone()

    routes = [{"path": "/take", "upstream": "main", "max_body": "10MiB"}]
    if case == "preview":
        routes += [{"path": "/x", "upstream": "main", "models": {"m": "main"}, "preview": "4KiB"}]
    elif case != "no route":
        routes += [{"path": "/x", "upstream": "main", "max_body": "16KiB" if case == "too large" else "10MiB"}]
    settings = upstream_settings(max_connections=1, max_pending=0) if case == "full" else {}
    async with stand("h2", handler, routes=routes, upstreams=settings) as s:
        wire = await dial(s)
        await until(lambda: wire.engine.remote_window_size > 65535)
        full = wire.engine.remote_window_size
        blocker = None
        if case == "full":
            blocker = (await s.dial()).call("GET", "/x")
            await until(lambda: s.upstream.requests)
        for _ in range(40):
            call = wire.call("POST", "/x", end=False)
            call.send(bytes(60_000))
            await until(lambda call=call: call.status or call.error)
            assert call.status in {403, 404, 413, 502, 503}, call.error
            await until(lambda call=call: call.over)
        if blocker is not None:
            blocker.cancel()
            await until(lambda: s.target().active == 0)
        await until(lambda: wire.engine.remote_window_size >= full // 2, 2)
        call = wire.call("POST", "/take", (), bytes(2 << 20))
        assert await call.reply() == 200


async def test_an_early_answer_tells_the_client_to_stop_without_an_error() -> None:
    async def handler(connection: Connection) -> None:
        await connection.head()
        connection.write(b"HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno")
        await connection.gone()

    async with stand("h2", handler) as s:
        wire = await dial(s)
        call = wire.call("POST", "/", end=False)
        assert await call.reply() == 403
        assert call.body == b"no"
        # RFC 9113 §8.1: RST_STREAM with NO_ERROR behind a complete answer.
        await until(lambda: not next(iter(s.edge.data_plane._secure.connections)).app.streams)
        assert not wire.closed
        assert (await wire.get("/again")).status == 403


async def test_a_reader_that_asks_on_while_it_does_not_read_is_still_cut() -> None:
    """A new request is no progress of the reading side."""

    async def handler(connection: Connection) -> None:
        received = await connection.request()
        if b"/quick" in received.line:
            connection.write(OK)
            await connection.request()
        connection.write(STREAM)
        while not connection.closed:
            if connection.transport.get_write_buffer_size() < 64 * 1024:
                connection.write(chunk(bytes(16384)))
            await asyncio.sleep(0)

    async with stand("h2", handler) as s:
        wire = await s.dial(receive_buffer=65536)
        assert isinstance(wire, H2Wire)
        wire.engine.update_settings({ngh2.Setting.INITIAL_WINDOW_SIZE: 1 << 20})
        await wire.get("/quick")
        wire.pause()
        for _ in range(20):
            wire.call()
        app = next(iter(s.edge.data_plane._secure.connections)).app
        await until(lambda: app._stalled)
        wire.call("GET", "/one/more")
        await until(lambda: len(s.upstream.requests) == 22)
        for _ in range(4):
            s.edge.after(70)
        await until(lambda: s.edge.data_plane.connections == 0)


async def test_a_broken_frame_ends_with_goaway() -> None:
    async with stand("h2", ok) as s:
        async with h2_connected(s.edge.https_port) as h2:
            await h2.send(h2.headers(1, GET))
            assert (await h2.over(1)).status == 200
            await h2.send(h2.raw(0, 0, 0, b"data on stream 0"))
            await finished(h2)
            assert h2.goaway == 1
        await until(lambda: s.edge.data_plane.connections == 0)
        assert set(s.edge.faults) == {("client", "h2_protocol")}


async def test_ray_ids_stay_out_of_the_compressors_table() -> None:
    """Each is another one: in the client's table it would only push out fields that come again."""
    async with stand("h2", ok) as s:
        async with h2_connected(s.edge.https_port) as h2:
            for number in (1, 3, 5):
                await h2.send(h2.headers(number, GET))
                stream = await h2.over(number)
                assert len(stream.values(b"x-ray-id")) == 1
            table = [name for name, _ in h2.decoder.header_table.dynamic_entries]
        assert b"strict-transport-security" in table
        assert b"x-ray-id" not in table
