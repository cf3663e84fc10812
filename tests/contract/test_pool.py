# The pool as clients feel it: who gets a connection, who waits, and what may be repeated.
from __future__ import annotations

import asyncio
import socket

import pytest
from support.upstream import OK, Connection, Handler, replies
from support.waiting import until

from .clients import Fields
from .stand import STREAM, chunk, stand, upstream_settings


def gated(gate: asyncio.Event) -> Handler:
    """Answers every request once the gate is open."""

    async def handler(connection: Connection) -> None:
        while True:
            await connection.request()
            await gate.wait()
            connection.write(OK)

    return handler


# -- repeating ---------------------------------------------------------------------------------------------------


def dies_on_second(counter: list[int]) -> Handler:
    """The first connection answers one request and dies silently when it gets the next."""

    async def handler(connection: Connection) -> None:
        first = len(connection.upstream.connections) == 1
        await connection.request()
        connection.write(OK)
        await connection.request()
        counter.append(1)
        if first:
            connection.reset()
            return
        connection.write(OK)
        await connection.gone()

    return handler


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
async def test_a_reused_connection_that_died_is_replaced(protocol: str, method: str) -> None:
    died: list[int] = []
    async with stand(protocol, dies_on_second(died), routes=[{"path": "/", "upstream": "main"}]) as s:
        wire = await s.dial()
        await wire.get("/first")
        body = b"content" if method == "PUT" else None
        call = wire.call(method, "/again", (), body)
        # `OK` has content, which an answer to HEAD must not have: the edge hides that from the client.
        assert await call.reply() == 200
        assert died == [1]
        lines = [seen.line.split()[1] for seen in s.upstream.requests]
        assert lines == [b"/first", b"/again", b"/again"]
        if body:
            assert s.upstream.requests[-1].body == body
        assert s.target().retries == 1
        assert [record["status"] for record in s.records] == [200, 200]


@pytest.mark.parametrize(("fields", "repeated"), [((), False), ([(b"idempotency-key", b"k")], True)])
async def test_a_post_is_repeated_only_with_a_key(protocol: str, fields: Fields, repeated: bool) -> None:
    died: list[int] = []
    async with stand(protocol, dies_on_second(died)) as s:
        wire = await s.dial()
        await wire.get("/first")
        call = wire.call("POST", "/again", fields, b"content")
        assert await call.reply() == (200 if repeated else 502)
        assert [seen.body for seen in s.upstream.requests] == [b"", b"content", b"content"][: 3 if repeated else 2]


async def test_a_body_that_is_not_whole_is_not_repeated(protocol: str) -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(OK)
        await connection.head()
        connection.reset()

    async with stand(protocol, handler) as s:
        wire = await s.dial()
        await wire.get("/first")
        call = wire.call("PUT", "/again", end=False, length=100)
        call.send(b"x")
        assert await call.reply() == 502
        assert len(s.upstream.connections) == 1


async def test_a_fresh_connection_that_died_is_not_replaced(protocol: str) -> None:
    async with stand(protocol, replies(b"", then="reset")) as s:
        assert (await (await s.dial()).get()).status == 502
        assert len(s.upstream.connections) == 1
        assert s.target().retries == 0


async def test_once_a_byte_came_back_nothing_is_repeated(protocol: str) -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(OK)
        await connection.request()
        connection.write(b"HTTP/1.1 2")
        connection.close()

    async with stand(protocol, handler) as s:
        wire = await s.dial()
        await wire.get()
        assert (await wire.get()).status == 502
        assert len(s.upstream.connections) == 1


async def test_a_request_is_repeated_once_only(protocol: str) -> None:
    async def handler(connection: Connection) -> None:
        if len(connection.upstream.requests) == 0:
            await connection.request()
            connection.write(OK)
        await connection.request()
        connection.reset()

    async with stand(protocol, handler) as s:
        wire = await s.dial()
        await wire.get()
        assert (await wire.get()).status == 502
        assert len(s.upstream.requests) == 3


# -- keeping connections -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"connection: close", b"connection: keep-alive, close"])
async def test_an_upstream_that_says_close_is_not_asked_again(protocol: str, end: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n" + end + b"\r\n\r\nok"
    async with stand(protocol, replies(answer)) as s:
        wire = await s.dial()
        for count in (1, 2):
            await wire.get()
            assert len(s.upstream.connections) == count


async def test_http_1_0_is_not_asked_again(protocol: str) -> None:
    async with stand(protocol, replies(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok")) as s:
        wire = await s.dial()
        await wire.get()
        await wire.get()
        assert len(s.upstream.connections) == 2


async def test_a_connection_that_the_upstream_closed_is_not_used(protocol: str) -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(OK)
        connection.close()

    async with stand(protocol, handler) as s:
        wire = await s.dial()
        for count in (1, 2, 3):
            call = wire.call("POST", "/", (), b"x")
            assert await call.reply() == 200
            await until(lambda: s.target().open == 0)
            assert len(s.upstream.connections) == count


async def test_idle_connections_are_closed_after_keepalive(protocol: str) -> None:
    async with stand(protocol) as s:
        await (await s.dial()).get()
        s.edge.after(59)
        assert s.target().open == 1
        s.edge.after(61)
        await until(lambda: s.target().open == 0 and s.upstream.open == 0)


async def test_keepalive_0_keeps_nothing(protocol: str) -> None:
    async with stand(protocol, upstreams=upstream_settings(keepalive="0s")) as s:
        wire = await s.dial()
        for count in (1, 2, 3):
            await wire.get()
            assert len(s.upstream.connections) == count
        await until(lambda: s.target().open == 0)


@pytest.mark.parametrize(
    ("hint", "kept", "gone"), [(b"timeout=5", 3.5, 4.6), (b"max=100, timeout=10", 8.5, 9.6), (b"timeout=600", 59, 61)]
)
async def test_the_upstreams_own_hint_is_believed(protocol: str, hint: bytes, kept: float, gone: float) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\nkeep-alive: " + hint + b"\r\n\r\nok"
    async with stand(protocol, replies(answer)) as s:
        call = await (await s.dial()).get()
        assert call.values(b"keep-alive") == []
        s.edge.after(kept)
        assert s.target().open == 1
        s.edge.after(gone)
        await until(lambda: s.target().open == 0)


async def test_the_last_used_connection_is_used_next(protocol: str) -> None:
    gate = asyncio.Event()
    async with stand(protocol, gated(gate)) as s:
        calls = [(await s.dial()).call() for _ in range(3)]
        await until(lambda: len(s.upstream.requests) == 3)
        gate.set()
        for call in calls:
            await call.reply()
        wire = await s.dial()
        for _ in range(5):
            await wire.get()
        sizes = sorted(connection.data.count(b"GET /") for connection in s.upstream.connections)
        assert sizes == [1, 1, 6]


# -- limits ------------------------------------------------------------------------------------------------------


async def test_more_requests_than_connections_wait_in_order(protocol: str) -> None:
    gate = asyncio.Event()
    async with stand(protocol, gated(gate), upstreams=upstream_settings(max_connections=2)) as s:
        calls = []
        for number in range(8):
            calls.append((await s.dial()).call("GET", f"/{number}"))
            await until(lambda number=number: len(s.upstream.requests) + s.target().pending == number + 1)
        assert s.target().pending == 6
        gate.set()
        for call in calls:
            assert await call.reply() == 200
        assert [seen.line.split()[1] for seen in s.upstream.requests] == [b"/%d" % number for number in range(8)]
        assert len(s.upstream.connections) == 2
        assert s.target().pending == 0


async def test_a_full_queue_is_a_503_at_once(protocol: str) -> None:
    gate = asyncio.Event()
    settings = upstream_settings(max_connections=1, max_pending=1)
    async with stand(protocol, gated(gate), upstreams=settings) as s:
        first = (await s.dial()).call()
        await until(lambda: s.upstream.requests)
        second = (await s.dial()).call()
        await until(lambda: s.target().pending == 1)
        third = await (await s.dial()).get()
        assert third.status == 503
        assert third.values(b"retry-after") == [b"1"]
        assert s.records[0]["outcome"] == "edge: upstream_full"
        gate.set()
        assert await first.reply() == await second.reply() == 200


async def test_no_queue_at_all(protocol: str) -> None:
    gate = asyncio.Event()
    settings = upstream_settings(max_connections=1, max_pending=0)
    async with stand(protocol, gated(gate), upstreams=settings) as s:
        first = (await s.dial()).call()
        await until(lambda: s.upstream.requests)
        assert (await (await s.dial()).get()).status == 503
        gate.set()
        assert await first.reply() == 200


async def test_a_connection_that_dies_makes_room_for_who_waits(protocol: str) -> None:
    async def handler(connection: Connection) -> None:
        received = await connection.request()
        if b"/stuck" in received.line:
            connection.write(STREAM + chunk(b"x"))
            await connection.gone()
        connection.write(OK)
        await connection.gone()

    async with stand(protocol, handler, upstreams=upstream_settings(max_connections=1)) as s:
        first = (await s.dial()).call("GET", "/stuck")
        await first.received(1)
        second = (await s.dial()).call()
        await until(lambda: s.target().pending == 1)
        first.cancel()
        assert await second.reply() == 200


async def test_a_connect_that_fails_makes_room_for_who_waits(protocol: str) -> None:
    """Who waits must not wait for its own timeout when the connection it hoped for was never made."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        targets = [{"url": f"https://127.0.0.1:{mute.getsockname()[1]}"}]
        settings = upstream_settings(targets=targets, max_connections=1, timeouts={"connect": "100ms"})
        async with stand(protocol, upstreams=settings) as s:
            calls = [(await s.dial()).call() for _ in range(2)]
            for call in calls:
                assert await call.reply(2) in {503, 504}
            assert s.target().open == 0


async def test_a_request_that_is_refused_in_the_read_that_brought_it_gives_its_place_back(protocol: str) -> None:
    """The connect task must not need a first step to clean up after itself."""
    async with stand(protocol, upstreams=upstream_settings(max_connections=2), client={"max_body": "1KiB"}) as s:
        for count in range(1, 6):
            wire = await s.dial()
            call = wire.call("POST", "/", end=False)
            call.send(bytes(4096))
            assert await call.reply() == 413
            await s.record(count)
        await until(lambda: s.target().active == 0, 1)
        assert (await (await s.dial()).get()).status == 200


async def test_clients_that_ask_and_leave_at_once_use_nothing_up(protocol: str) -> None:
    """However the leaving and the connecting meet: every place in the pool is given back."""
    async with stand(protocol, upstreams=upstream_settings(max_connections=5)) as s:
        for turns in range(40):
            wire = await s.dial(wait=bool(turns % 2))
            call = wire.call("GET", "/leaves")
            for _ in range(turns // 4):
                await asyncio.sleep(0)
            call.cancel()
            await wire.leave()
        await until(lambda: s.target().active == 0, 1)
        calls = [(await s.dial()).call() for _ in range(5)]
        for call in calls:
            assert await call.reply() == 200
