# Answers that come before the request is complete are delivered, and the rest of the request is never taken for another.
from __future__ import annotations

import asyncio

import pytest
from support.client import connected
from support.upstream import Connection
from support.waiting import until

from .stand import STREAM, chunk, stand

TEAPOT = b"HTTP/1.1 418 Teapot\r\ncontent-length: 5\r\n\r\nearly"


async def test_a_declared_length_over_the_limit(protocol: str) -> None:
    async with stand(protocol, client={"max_body": "64KiB"}) as s:
        call = (await s.dial()).call("POST", "/", end=False, length=1 << 20)
        assert await call.reply() == 413
        assert s.upstream.connections == []
        record = await s.record()
        assert (record["status"], record["outcome"]) == (413, "client: body_too_large")


@pytest.mark.parametrize("size", [128 * 1024, 900 * 1024])
async def test_a_body_that_grows_over_the_limit(protocol: str, size: int) -> None:
    """The client writes on while the answer is on its way: it must still read 413, not a reset."""

    async def handler(connection: Connection) -> None:
        await connection.head()
        await connection.gone()

    async with stand(protocol, handler, client={"max_body": "64KiB"}) as s:
        call = (await s.dial()).call("POST", "/", end=False)
        call.send(bytes(size))
        await call.head()
        assert call.status == 413
        await until(lambda: call.complete)
        assert b"body_too_large" in call.body
        await until(lambda: s.upstream.cancels == len(s.upstream.connections))
        assert (await s.record())["outcome"] == "client: body_too_large"


async def test_the_upstream_answers_before_the_body_is_there(protocol: str) -> None:
    async def handler(connection: Connection) -> None:
        await connection.head()
        connection.write(TEAPOT)
        await connection.gone()

    async with stand(protocol, handler) as s:
        call = (await s.dial()).call("POST", "/", end=False, length=1 << 20)
        call.send(bytes(1000))
        assert await call.reply() == 418
        assert call.body == b"early"
        # A half-sent request must never get another one behind it.
        await until(lambda: s.upstream.cancels == 1)
        record = await s.record()
        assert (record["status"], record["outcome"]) == (418, "ok")


@pytest.mark.parametrize("more", [16 * 1024, 512 * 1024])
async def test_a_client_that_sends_on_and_reads_later_still_gets_the_answer(more: int) -> None:
    """HTTP/1.1: closing a socket with unread bytes would reset it, and the answer with it (RFC 9112 §9.6)."""

    async def handler(connection: Connection) -> None:
        await connection.head()
        connection.write(TEAPOT)
        await connection.gone()

    async with stand("h1", handler) as s, connected(s.edge.https_port) as client:
        await client.send(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n" + bytes(1000))
        await s.record()
        await client.send(bytes(more))
        response = await client.response()
        assert response is not None
        assert (response.status, response.body, response.complete) == (418, b"early", True)
        assert response.closes


async def test_the_upstream_answers_and_closes(protocol: str) -> None:
    async def handler(connection: Connection) -> None:
        await connection.head()
        connection.write(b"HTTP/1.1 401 No\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")
        connection.close()

    async with stand(protocol, handler) as s:
        call = (await s.dial()).call("POST", "/", end=False, length=1 << 20)
        call.send(bytes(1000))
        assert await call.reply() == 401
        assert call.body == b"no"


async def test_an_answer_that_begins_early_and_goes_on_with_the_upload(protocol: str) -> None:
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.head()
        connection.write(STREAM + chunk(b"begun"))
        await connection.take(6)
        await gate.wait()
        connection.write(chunk(b"end") + b"0\r\n\r\n")
        await connection.gone()

    async with stand(protocol, handler) as s:
        call = (await s.dial()).call("POST", "/", end=False, length=6)
        await call.received(5)
        call.send(b"123456", end=True)
        gate.set()
        assert await call.reply() == 200
        assert call.body == b"begunend"


async def test_the_connection_serves_on_or_says_that_it_does_not(protocol: str) -> None:
    async def handler(connection: Connection) -> None:
        while True:
            received = await connection.head()
            if received.line.startswith(b"POST"):
                connection.write(TEAPOT)
                await connection.gone()
            connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async with stand(protocol, handler) as s:
        wire = await s.dial()
        call = wire.call("POST", "/", end=False, length=100)
        assert await call.reply() == 418
        if wire.multiplexed:
            assert (await wire.get()).body == b"ok"
        else:
            assert call.values(b"connection") == [b"close"]
            await until(lambda: wire.closed)
