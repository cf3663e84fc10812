# WebSocket tunnels: bytes pass both ways untouched and under back-pressure, and either side may end them.
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.client import Client, connected
from support.upstream import OK, Connection, Handler, replies
from support.waiting import until

from .stand import Stand, stand, stuck
from .test_pressure import EDGE, KERNEL, steady

ASK = (
    b"GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n"


async def mirror(connection: Connection) -> None:
    """Agrees, then sends back whatever comes."""
    await connection.request()
    connection.write(SWITCH)
    while True:
        at = connection._at
        while len(connection.data) == at:
            await connection.more()
        connection.write(await connection.take(len(connection.data) - at))


@asynccontextmanager
async def tunnel(handler: Handler = mirror, ask: bytes = ASK, **changes: Any) -> AsyncIterator[tuple[Stand, Client]]:
    async with stand("h1", handler, **changes) as s, connected(s.edge.https_port) as client:
        await client.send(ask)
        head = await client.take_until(b"\r\n\r\n")
        assert head is not None
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"\r\nupgrade: websocket\r\n" in head
        assert head.lower().count(b"\r\nconnection: upgrade\r\n") == 1
        assert b"sec-websocket-accept: x" in head
        assert b"content-length" not in head
        yield s, client
        await client.leave()
        await until(lambda: s.edge.data_plane.connections == 0)


async def test_echo() -> None:
    async with tunnel() as (s, client):
        assert s.upstream.requests[0].values(b"upgrade") == [b"websocket"]
        assert s.upstream.requests[0].values(b"sec-websocket-key") == [b"dGhlIHNhbXBsZSBub25jZQ=="]
        for message in (b"\x00", b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 1000):
            await client.send(message)
            assert await client.take(len(message)) == message


async def test_bytes_behind_the_heads_are_not_lost() -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(SWITCH + b"hello")
        assert await connection.take(5) == b"early"
        connection.write(b"thanks")
        await connection.gone()

    async with tunnel(handler, ASK + b"early") as (_, client):
        assert await client.take(11) == b"hellothanks"


async def test_bytes_before_the_agreement_in_several_reads() -> None:
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        await gate.wait()
        connection.write(SWITCH)
        connection.write(await connection.take(9))
        await connection.gone()

    async with stand("h1", handler) as s, connected(s.edge.https_port) as client:
        await client.send(ASK + b"one")
        await until(lambda: s.upstream.requests)
        (connection,) = s.edge.data_plane._secure.connections
        await client.send(b"two")
        await until(lambda: connection.app._tunnel._rest == b"onetwo")
        await client.send(b"end")
        await until(lambda: connection.app._tunnel._rest == b"onetwoend")
        gate.set()
        head = await client.take_until(b"\r\n\r\n")
        assert head is not None and head.startswith(b"HTTP/1.1 101")
        assert await client.take(9) == b"onetwoend"


async def test_the_record() -> None:
    async with tunnel() as (s, client):
        await client.send(b"12345")
        assert await client.take(5) == b"12345"
        client.close_notify()
        await until(lambda: s.log.lines)
        (record,) = s.records
        assert (record["status"], record["bytes_in"], record["bytes_out"]) == (101, 5, 5)
        assert record["outcome"] in {"ok", "client_gone"}


@pytest.mark.parametrize("how", ["close_notify", "reset"])
async def test_the_client_ends_it(how: str) -> None:
    async with tunnel() as (s, client):
        getattr(client, how)()
        await until(lambda: s.upstream.cancels == 1, 1)
        assert len(s.log.lines) == 1


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_the_upstream_ends_it(how: str) -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(SWITCH + b"bye")
        await connection.take(2)
        getattr(connection, how)()

    async with tunnel(handler) as (s, client):
        assert await client.take(3) == b"bye"
        await client.send(b"go")
        assert await client.rest() == b""
        assert client.end in ({"clean"} if how == "close" else {"clean", "reset", "truncated"})
        await until(lambda: s.log.lines)
        assert s.target().active == 0


async def test_a_client_that_does_not_read_stops_the_upstream() -> None:
    sent = 0

    async def handler(connection: Connection) -> None:
        nonlocal sent
        await connection.request()
        connection.write(SWITCH)
        while sent < 64 << 20 and not connection.closed:
            if connection.transport.get_write_buffer_size() < 64 * 1024:
                connection.write(bytes(32768))
                sent += 32768
            await asyncio.sleep(0)

    async with tunnel(handler) as (s, client):
        client.writer.transport.pause_reading()
        await steady(lambda: sent)
        assert sent < KERNEL
        assert s.queued <= EDGE
        client.writer.transport.resume_reading()
        assert await client.take(1 << 20) == bytes(1 << 20)


async def test_an_upstream_that_does_not_read_stops_the_client() -> None:
    gate = asyncio.Event()
    total = 64 << 20

    async def handler(connection: Connection) -> None:
        await connection.request()
        stuck(connection)
        connection.write(SWITCH)
        await gate.wait()
        connection.transport.resume_reading()
        await connection.take(total)
        connection.write(b"all")
        await connection.gone()

    async with tunnel(handler) as (s, client):
        done = 0

        async def upload() -> None:
            nonlocal done
            while done < total:
                await client.send(bytes(65536))
                done += 65536

        task = asyncio.create_task(upload())
        try:
            await steady(lambda: done)
            assert done < KERNEL
            assert s.queued_up <= EDGE
            gate.set()
            assert await client.take(3) == b"all"
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_traffic_in_either_direction_keeps_it_open() -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(SWITCH)
        await connection.gone()

    async with tunnel(handler) as (s, client):
        seen = len(s.upstream.data)
        for number in range(3):
            s.edge.after(59 * (number + 1))
            await client.send(b"x")
            await until(lambda seen=seen, number=number: len(s.upstream.data) == seen + number + 1)
        assert s.log.lines == []


@pytest.mark.parametrize("status", [200, 400, 403, 426, 503])
async def test_a_refused_upgrade(status: int) -> None:
    answer = b"HTTP/1.1 %d X\r\ncontent-length: 2\r\nx-why: z\r\n\r\nno" % status
    async with stand("h1", replies(answer)) as s, connected(s.edge.https_port) as client:
        await client.send(ASK)
        response = await client.response()
        assert response is not None
        assert (response.status, response.body, response.values(b"x-why")) == (status, b"no", [b"z"])
        if not response.closes:
            await client.send(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            again = await client.response()
            assert again is not None
            assert again.status == status
        record = s.records[0]
        assert (record["status"], record["outcome"], record["bytes_out"]) == (status, "ok", 2)


async def test_a_switch_to_something_else_is_refused() -> None:
    answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    async with stand("h1", replies(answer)) as s, connected(s.edge.https_port) as client:
        await client.send(ASK)
        response = await client.response()
        assert response is not None
        assert response.status == 502


async def test_the_upstream_dies_before_it_agrees() -> None:
    async with stand("h1", replies(b"", then="close")) as s, connected(s.edge.https_port) as client:
        await client.send(ASK)
        response = await client.response()
        assert response is not None
        assert response.status == 502
        assert len(s.upstream.requests) == 1


async def test_a_tunnel_is_never_repeated() -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(OK)
        await connection.request()
        connection.reset()

    async with stand("h1", handler) as s, connected(s.edge.https_port) as client:
        await client.send(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        await client.response()
        await client.send(ASK)
        response = await client.response()
        assert response is not None
        assert response.status == 502
        assert len(s.upstream.requests) == 2


async def test_drain_leaves_tunnels_to_the_hard_stop() -> None:
    async with tunnel() as (s, client):
        s.edge.data_plane.drain()
        await client.send(b"still")
        assert await client.take(5) == b"still"
        s.edge.data_plane.abort()
        await client.rest()
        assert client.end != "clean"
