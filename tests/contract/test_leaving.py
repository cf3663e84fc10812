# A client that leaves stops all work for it: seen by the upstream within a second, whatever the exchange was doing.
from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest
from support.upstream import Connection, Gone, ok
from support.waiting import until

from .stand import STREAM, chunk, routed, stand, upstream_settings

SOON = 1.0  # seconds


async def silent(connection: Connection) -> None:
    """Takes a request and never answers."""
    await connection.request()
    await connection.gone()


@pytest.mark.parametrize("how", ["cancel", "reset", "close"])
async def test_before_the_first_byte(protocol: str, how: str) -> None:
    async with stand(protocol, silent) as s:
        wire = await s.dial()
        call = wire.call("POST", "/", (), b"question")
        await until(lambda: s.upstream.requests)
        {"cancel": call.cancel, "reset": wire.reset, "close": wire.close}[how]()
        await until(lambda: s.upstream.cancels == 1, SOON)
        record = await s.record()
        assert record["outcome"] == "client_gone"
        assert (record["status"], record["bytes_in"], record["bytes_out"]) == (0, 8, 0)
        assert record["first_byte_ms"] is None
        assert record["upstream"] == f"127.0.0.1:{s.upstream.port}"


@pytest.mark.parametrize("how", ["cancel", "reset", "close"])
async def test_in_mid_stream(protocol: str, how: str) -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(STREAM + chunk(b"data: 1\n\n"))
        await connection.gone()

    async with stand(protocol, handler, routes=routed(dialect="openai")) as s:
        wire = await s.dial()
        call = wire.call()
        await call.received(9)
        {"cancel": call.cancel, "reset": wire.reset, "close": wire.close}[how]()
        await until(lambda: s.upstream.cancels == 1, SOON)
        record = await s.record()
        assert (record["outcome"], record["status"], record["bytes_out"]) == ("client_gone", 200, 9)
        assert record["first_byte_ms"] is not None


async def test_while_the_upload_runs(protocol: str) -> None:
    async def handler(connection: Connection) -> None:
        await connection.head()
        await connection.gone()

    async with stand(protocol, handler) as s:
        call = (await s.dial()).call("POST", "/", end=False, length=1 << 20)
        call.send(bytes(1000))
        await until(lambda: s.upstream.data.endswith(bytes(1000)))
        call.cancel()
        await until(lambda: s.upstream.cancels == 1, SOON)
        record = await s.record()
        assert (record["outcome"], record["bytes_in"]) == ("client_gone", 1000)


async def test_while_the_client_is_too_slow_to_read(protocol: str) -> None:
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
        await until(lambda: s.queued > 16 * 1024)
        wire.reset()
        await until(lambda: s.upstream.cancels == 1, SOON)
        assert (await s.record())["outcome"] == "client_gone"


@pytest.fixture
def mute() -> Iterator[socket.socket]:
    """A listening socket that the kernel answers, but nobody behind it: a TLS handshake with it never ends."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


async def test_while_connecting(protocol: str, mute: socket.socket) -> None:
    targets = [{"url": f"https://127.0.0.1:{mute.getsockname()[1]}"}]
    async with stand(protocol, upstreams=upstream_settings(targets=targets, timeouts={"connect": "60s"})) as s:
        call = (await s.dial()).call()
        mute.settimeout(5)
        accepted, _ = await asyncio.to_thread(mute.accept)
        with accepted:
            accepted.settimeout(SOON)
            assert await asyncio.to_thread(accepted.recv, 1) == b"\x16"  # the ClientHello
            assert s.target().active == 1
            call.cancel()
            await until(lambda: s.target().active == 0, SOON)
            assert await asyncio.to_thread(ends, accepted)
        record = await s.record()
        assert (record["outcome"], record["status"], record["upstream"]) == ("client_gone", 0, None)
        assert s.target().open == 0


def ends(sock: socket.socket) -> bool:
    """The peer closed or reset the connection (within the socket's timeout)."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


async def test_while_connecting_hands_the_place_to_the_next(protocol: str, mute: socket.socket) -> None:
    """The queue must not wait for a connection that nobody makes any more."""
    targets = [{"url": f"https://127.0.0.1:{mute.getsockname()[1]}"}]
    settings = upstream_settings(targets=targets, max_connections=1, timeouts={"connect": "60s"})
    async with stand(protocol, upstreams=settings) as s:
        first = (await s.dial()).call()
        await until(lambda: s.target().active == 1)
        (await s.dial()).call()
        await until(lambda: s.target().pending == 1)
        first.cancel()
        await until(lambda: s.target().pending == 0, SOON)
        assert s.target().active == 1


async def test_while_waiting_in_the_queue(protocol: str) -> None:
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        while True:
            await connection.request()
            await gate.wait()
            connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with stand(protocol, handler, upstreams=upstream_settings(max_connections=1)) as s:
        first = (await s.dial()).call()
        await until(lambda: s.upstream.requests)
        second = (await s.dial()).call("GET", "/second")
        await until(lambda: s.target().pending == 1)
        third = (await s.dial()).call("GET", "/third")
        await until(lambda: s.target().pending == 2)
        fourth = (await s.dial()).call("GET", "/fourth")
        await until(lambda: s.target().pending == 3)
        third.cancel()
        assert (await s.record())["outcome"] == "client_gone"
        await until(lambda: s.target().pending == 2, SOON)
        second.cancel()
        await s.record(2)
        await until(lambda: s.target().pending == 1, SOON)
        gate.set()
        assert await first.reply() == 200
        assert await fourth.reply() == 200
        assert [seen.line for seen in s.upstream.requests] == [b"GET / HTTP/1.1", b"GET /fourth HTTP/1.1"]


async def test_places_of_those_who_left_the_queue_are_free_again(protocol: str) -> None:
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        while True:
            await connection.request()
            await gate.wait()
            connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with stand(protocol, handler, upstreams=upstream_settings(max_connections=1, max_pending=2)) as s:
        busy = (await s.dial()).call()
        await until(lambda: s.upstream.requests)
        waiting = (await s.dial()).call("GET", "/waits")
        await until(lambda: s.target().pending == 1)
        for count in range(1, 4):
            leaver = (await s.dial()).call("GET", "/leaves")
            await until(lambda: s.target().pending == 2)
            leaver.cancel()
            assert (await s.record(count))["outcome"] == "client_gone"
            await until(lambda: s.target().pending == 1, SOON)
        gate.set()
        assert await busy.reply() == await waiting.reply() == 200


async def test_during_a_preview(protocol: str) -> None:
    async with stand(protocol, routes=routed(models={"m": "main"})) as s:
        wire = await s.dial()
        call = wire.call("POST", "/", end=False, length=100)
        call.send(b'{"model":')
        await until(lambda: s.edge.stats.streams_open or not wire.streams_counted)
        call.cancel()
        record = await s.record()
        assert record["outcome"] == "client_gone"
        assert record["upstream"] is None
        assert s.upstream.connections == []


async def test_others_on_the_same_upstream_are_not_disturbed(protocol: str) -> None:
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(STREAM + chunk(b"x"))
        try:
            await gate.wait()
            connection.write(b"0\r\n\r\n")
            await connection.gone()
        except Gone:
            pass

    async with stand(protocol, handler) as s:
        wires = [await s.dial() for _ in range(4)]
        calls = [wire.call() for wire in wires]
        for call in calls:
            await call.received(1)
        calls[1].cancel()
        calls[2].cancel()
        await until(lambda: s.upstream.cancels == 2, SOON)
        gate.set()
        assert await calls[0].reply() == 200
        assert await calls[3].reply() == 200
        outcomes = sorted(record["outcome"] for record in s.records)
        assert outcomes == ["client_gone", "client_gone", "ok", "ok"]


async def test_goodbye_on_an_idle_connection_is_no_exchange(protocol: str) -> None:
    async with stand(protocol, ok) as s:
        wire = await s.dial()
        await wire.get()
        wire.close()
        await until(lambda: s.edge.data_plane.connections == 0, SOON)
        assert (await s.record())["outcome"] == "ok"
        assert s.upstream.open == 1
