# The four timers towards upstreams and those towards clients: the right one fires, with the right status and outcome.
from __future__ import annotations

import asyncio
import json
import socket

import pytest
from support.upstream import Connection
from support.waiting import until

from .stand import STREAM, chunk, routed, stand, stuck, upstream_settings
from .wires import H1Wire

# Deadlines are made long and passed by moving the clock (`Edge.after`); `real` tests wait for short ones.


async def silent(connection: Connection) -> None:
    await connection.request()
    await connection.gone()


async def one_event(connection: Connection) -> None:
    await connection.request()
    connection.write(STREAM + chunk(b"data: 1\n\n"))
    await connection.gone()


async def test_first_byte(protocol: str) -> None:
    async with stand(protocol, silent, routes=routed(dialect="openai")) as s:
        call = (await s.dial()).call("POST", "/", (), b"{}")
        await until(lambda: s.upstream.requests)
        s.edge.after(119)
        assert call.status == 0
        s.edge.after(121)
        assert await call.reply() == 504
        assert json.loads(call.body)["error"]["type"] == "timeout_error"
        assert (await s.record())["outcome"] == "upstream: first_byte_timeout"
        assert s.target().timeouts == {"first_byte": 1}
        await until(lambda: s.upstream.cancels == 1)


async def test_first_byte_counts_from_the_end_of_the_upload(protocol: str) -> None:
    async with stand(protocol, silent, upstreams=upstream_settings(timeouts={"first_byte": "10s"})) as s:
        call = (await s.dial()).call("POST", "/", end=False)
        for _ in range(3):
            seen = len(s.upstream.data)
            call.send(b"x")
            await until(lambda seen=seen: len(s.upstream.data) > seen)
            s.edge.after(9)  # moves deadlines' clock: what comes next counts from there
        assert call.status == 0
        call.send(b"", end=True)
        await until(lambda: s.upstream.data.endswith(b"0\r\n\r\n"))
        s.edge.after(30)
        assert await call.reply() == 504


async def test_idle(protocol: str) -> None:
    async with stand(protocol, one_event, routes=routed(dialect="openai")) as s:
        call = (await s.dial()).call()
        await call.received(9)
        s.edge.after(59)
        assert not call.over
        s.edge.after(61)
        await call.failed()
        assert b'"code":"idle_timeout"' in call.body
        record = await s.record()
        assert (record["outcome"], record["status"]) == ("upstream: idle_timeout", 200)
        assert s.target().timeouts == {"idle": 1}
        await until(lambda: s.upstream.cancels == 1)


async def test_idle_before_the_head_does_not_count(protocol: str) -> None:
    settings = upstream_settings(timeouts={"idle": "1s", "first_byte": "100s"})
    async with stand(protocol, silent, upstreams=settings) as s:
        call = (await s.dial()).call()
        await until(lambda: s.upstream.requests)
        s.edge.after(99)
        assert not call.over


@pytest.mark.parametrize("begun", [False, True])
async def test_total(protocol: str, begun: bool) -> None:
    settings = upstream_settings(timeouts={"total": "10s"})
    async with stand(protocol, one_event if begun else silent, upstreams=settings) as s:
        call = (await s.dial()).call()
        await until(lambda: s.upstream.requests)
        if begun:
            await call.received(9)
        s.edge.after(9)
        assert not call.over
        s.edge.after(11)
        if begun:
            await call.failed()
        else:
            assert await call.reply() == 504
        assert (await s.record())["outcome"] == "upstream: total_timeout"
        assert s.target().timeouts == {"total": 1}


async def test_connect_real(protocol: str) -> None:
    """A TLS handshake that never ends is part of connecting."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        targets = [{"url": f"https://127.0.0.1:{mute.getsockname()[1]}"}]
        settings = upstream_settings(targets=targets, timeouts={"connect": "100ms"})
        async with stand(protocol, upstreams=settings) as s:
            call = (await s.dial()).call("POST", "/", (), b"x")
            assert await call.reply(2) == 504
            record = await s.record()
            assert record["outcome"] == "upstream: connect_timeout"
            assert 90 < record["duration_ms"] < 1500
            assert s.target().timeouts == {"connect": 1}
            assert s.target().connect_failures == 1
            assert s.target().open == 0


async def test_first_byte_real(protocol: str) -> None:
    async with stand(protocol, silent, upstreams=upstream_settings(timeouts={"first_byte": "100ms"})) as s:
        call = (await s.dial()).call()
        assert await call.reply(2) == 504
        assert 90 < (await s.record())["duration_ms"] < 1500


async def test_idle_real_and_never_while_chunks_come(protocol: str) -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(STREAM)
        for _ in range(20):
            connection.write(chunk(b"x"))
            await asyncio.sleep(0.05)
        await connection.gone()

    async with stand(protocol, handler, upstreams=upstream_settings(timeouts={"idle": "400ms"})) as s:
        call = (await s.dial()).call()
        await call.failed(5)
        assert len(call.body) == 20
        record = await s.record()
        assert record["outcome"] == "upstream: idle_timeout"
        assert 1000 < record["duration_ms"] < 3000


async def test_waiting_for_a_connection_ends(protocol: str) -> None:
    async with stand(protocol, silent, upstreams=upstream_settings(max_connections=1)) as s:
        (await s.dial()).call()
        await until(lambda: s.upstream.requests)
        call = (await s.dial()).call()
        await until(lambda: s.target().pending == 1)
        s.edge.after(4)
        assert await call.reply() == 503
        assert call.values(b"retry-after") == [b"1"]
        assert (await s.record())["outcome"] == "edge: upstream_full"
        assert s.target().pending == 0


async def test_an_upload_that_the_upstream_does_not_take_is_the_upstreams_fault(protocol: str) -> None:
    """Nobody may call a client slow while it is not allowed to send."""

    async def handler(connection: Connection) -> None:
        await connection.head()
        stuck(connection)
        await connection.gone()

    settings = upstream_settings(timeouts={"first_byte": "1000s"})
    async with stand(protocol, handler, upstreams=settings, client={"max_body": "100MiB"}) as s:
        wire = await s.dial()
        call = wire.call("POST", "/", end=False, length=wire.huge)
        call.send(bytes(wire.huge), end=True)
        seen = [-1]

        def still() -> bool:
            seen.append(call.unsent)
            return len(seen) > 60 and len(set(seen[-60:])) == 1

        await until(still, 10)
        s.edge.after(500)
        assert not call.over, f"{call.status} {s.edge.faults}"
        s.edge.after(1500)
        await until(lambda: s.log.lines)
        record = await s.record()
        assert (record["status"], record["outcome"]) == (504, "upstream: first_byte_timeout")


async def test_a_head_that_drips() -> None:
    """HTTP/1.1; one deadline for the whole head, however often a byte comes."""
    async with stand("h1", silent) as s:
        wire = await s.dial()
        assert isinstance(wire, H1Wire)
        wire.transport.write(b"GET / HTT")
        await until(lambda: any(getattr(c.app, "_partial", 0) == 9 for c in s.edge.data_plane._secure.connections))
        s.edge.after(6)
        wire.transport.write(b"P/1.1\r\n")
        await until(lambda: any(getattr(c.app, "_partial", 0) == 16 for c in s.edge.data_plane._secure.connections))
        s.edge.after(11)
        await until(lambda: wire.closed)
        record = await s.record()
        assert (record["status"], record["outcome"]) == (408, "client: head_timeout")
        assert s.upstream.connections == []


@pytest.mark.parametrize("sent", [0, 10])
async def test_a_body_that_stops_coming(protocol: str, sent: int) -> None:
    async def handler(connection: Connection) -> None:
        await connection.head()
        await connection.gone()

    async with stand(protocol, handler) as s:
        call = (await s.dial()).call("POST", "/", end=False, length=100)
        if sent:
            call.send(bytes(sent))
        await until(lambda: s.upstream.data.endswith(b"\r\n\r\n" + bytes(sent)))
        s.edge.after(59)
        assert not call.over
        s.edge.after(61)
        assert await call.reply() == 408
        record = await s.record()
        assert (record["status"], record["outcome"], record["bytes_in"]) == (408, "client: body_timeout", sent)
        await until(lambda: s.upstream.cancels == 1)


async def test_a_body_that_stops_coming_in_a_preview(protocol: str) -> None:
    async with stand(protocol, routes=routed(models={"m": "main"}, dialect="anthropic")) as s:
        wire = await s.dial()
        call = wire.call("POST", "/", end=False, length=100)
        call.send(b"{")
        await until(lambda: s.previewed == 1)
        s.edge.after(61)
        assert await call.reply() == 408
        assert json.loads(call.body)["error"]["type"] == "timeout_error"
        assert s.upstream.connections == []


async def test_a_reader_that_stands_still_is_cut(protocol: str) -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(STREAM)
        while not connection.closed:
            if connection.transport.get_write_buffer_size() < 64 * 1024:
                connection.write(chunk(bytes(16384)))
            await asyncio.sleep(0)

    async with stand(protocol, handler) as s:
        wire = await s.dial(receive_buffer=65536)
        wire.call()
        await until(lambda: s.upstream.requests)
        wire.pause()
        seen = [-1]

        def still() -> bool:
            seen.append(s.queued)
            return len(seen) > 60 and len(set(seen[-60:])) == 1

        await until(still, 10)
        s.edge.after(59)
        assert s.log.lines == []
        for turn in range(1, 4):  # progress that was made before counts as progress once
            s.edge.after(62 * turn)
        record = await s.record()
        assert (record["status"], record["outcome"]) in {(200, "client: slow_reader"), (200, "client_gone")}
        await until(lambda: s.upstream.cancels == 1)


async def test_an_idle_connection_is_closed(protocol: str) -> None:
    async with stand(protocol) as s:
        wire = await s.dial()
        await wire.get()
        s.edge.after(59)
        assert not wire.is_leaving()
        s.edge.after(61)
        await until(wire.is_leaving)
        s.edge.after(63)
        await until(lambda: s.edge.data_plane.connections == 0)
        assert len(s.log.lines) == 1


async def test_a_connection_that_never_asks_is_closed(protocol: str) -> None:
    async with stand(protocol) as s:
        await s.dial()
        s.edge.after(61)
        s.edge.after(63)
        await until(lambda: s.edge.data_plane.connections == 0)
        assert s.log.lines == []
        assert s.edge.faults == {}


async def test_a_long_answer_keeps_the_connection_open(protocol: str) -> None:
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(STREAM + chunk(b"x"))
        await gate.wait()
        connection.write(b"0\r\n\r\n")
        await connection.gone()

    async with stand(protocol, handler, upstreams=upstream_settings(timeouts={"idle": "100h"})) as s:
        call = (await s.dial()).call()
        await call.received(1)
        s.edge.after(10_000)
        gate.set()
        assert await call.reply() == 200
