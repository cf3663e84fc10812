# Several exchanges over one connection, HTTP/2 and HTTP/3 alike: none of them is at the mercy of another.
from __future__ import annotations

import asyncio

from support.upstream import OK, Connection, Handler, echo, ok
from support.waiting import until

from .stand import STREAM, chunk, routed, stand

SOON = 1.0  # seconds


def silent_until(gate: asyncio.Event) -> Handler:
    async def handler(connection: Connection) -> None:
        while True:
            await connection.request()
            await gate.wait()
            connection.write(OK)

    return handler


async def test_a_call_that_was_cancelled_leaves_the_others_of_its_connection_alone(multiplexed: str) -> None:
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        while True:
            await connection.request()
            await gate.wait()
            connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async with stand(multiplexed, handler) as s:
        wire = await s.dial()
        calls = [wire.call() for _ in range(3)]
        await until(lambda: len(s.upstream.requests) == 3)
        calls[1].cancel()
        await until(lambda: s.upstream.cancels == 1, SOON)
        gate.set()
        assert await calls[0].reply() == await calls[2].reply() == 200
        assert (await wire.get()).status == 200


async def test_a_few_resets_are_no_attack(multiplexed: str) -> None:
    gate = asyncio.Event()
    async with stand(multiplexed, silent_until(gate)) as s:
        wire = await s.dial()
        for _ in range(50):
            wire.call().cancel()
        gate.set()
        assert (await wire.get()).status == 200


async def test_one_slow_upload_does_not_take_the_window_of_the_others(multiplexed: str) -> None:
    async def handler(connection: Connection) -> None:
        received = await connection.head()
        if b"/slow" in received.line:
            connection.transport.pause_reading()
            await connection.gone()
        await connection.body(received)
        connection.write(OK)
        connection.close()

    async with stand(multiplexed, handler) as s:
        wire = await s.dial()
        slow = wire.call("POST", "/slow", end=False)
        slow.send(bytes(8 << 20))
        await until(lambda: s.upstream.requests)
        for _ in range(3):
            call = wire.call("POST", "/", (), bytes(1 << 20))
            assert await call.reply() == 200
        assert not slow.over


async def test_failures_of_the_upstream_do_not_end_the_clients_connection(multiplexed: str) -> None:
    async def handler(connection: Connection) -> None:
        received = await connection.request()
        if b"/good" in received.line:
            connection.write(OK)
            await connection.gone()
        connection.write(STREAM + chunk(b"data: 1\n\n"))
        connection.transport.close()
        connection.ended = True

    async with stand(multiplexed, handler, routes=routed(dialect="openai")) as s:
        wire = await s.dial()
        for _ in range(150):
            call = wire.call()
            await call.failed()
        assert not wire.closed
        assert not wire.is_leaving()
        assert set(s.edge.faults) == {("upstream", "truncated")}
        assert (await wire.get("/good")).status == 200


async def test_many_streams_at_once(multiplexed: str) -> None:
    async with stand(multiplexed, echo) as s:
        wire = await s.dial()
        calls = [wire.call("POST", f"/{number}", (), b"%d" % number * 1000) for number in range(100)]
        for number, call in enumerate(calls):
            assert await call.reply() == 200
            assert call.body == b"%d" % number * 1000
        assert s.edge.stats.streams_open == 0


async def test_cookie_crumbs_are_one_field_for_the_upstream(multiplexed: str) -> None:
    async with stand(multiplexed, ok) as s:
        await (await s.dial()).get(fields=[(b"cookie", b"a=1"), (b"cookie", b"b=2")])
        assert s.upstream.requests[0].values(b"cookie") == [b"a=1; b=2"]


async def test_requests_after_cancelled_uploads_find_all_of_the_window_again(multiplexed: str) -> None:
    """The connection's window counts content that nobody took."""

    async def handler(connection: Connection) -> None:
        received = await connection.head()
        if b"/take" in received.line:
            await connection.body(received)
            connection.write(OK)
        else:
            connection.transport.pause_reading()
        await connection.gone()

    async with stand(multiplexed, handler) as s:
        wire = await s.dial()
        for _ in range(60):
            seen = len(s.upstream.requests)
            call = wire.call("POST", "/leave", end=False)
            call.send(bytes(60_000))
            await until(lambda seen=seen: len(s.upstream.requests) > seen)
            call.cancel()
        call = wire.call("POST", "/take", (), bytes(2 << 20))
        assert await call.reply() == 200


async def test_a_lost_answer_leaves_the_others_alone(multiplexed: str) -> None:
    """An upstream that dies in the middle of one answer, while others run over the same connection of the client."""
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        received = await connection.request()
        connection.write(STREAM + chunk(b"x"))
        await gate.wait()
        if b"/dies" in received.line:
            connection.reset()
            return
        connection.write(chunk(b"y") + b"0\r\n\r\n")
        await connection.gone()

    async with stand(multiplexed, handler) as s:
        wire = await s.dial()
        calls = [wire.call("GET", path) for path in ("/dies", "/lives", "/dies", "/lives")]
        for call in calls:
            await call.received(1)
        gate.set()
        for call in calls[::2]:
            await call.failed()
        for call in calls[1::2]:
            assert await call.reply() == 200
            assert call.body == b"xy"
