# Back-pressure in both directions: what is in flight is bounded by buffers, never by the size of a message.
from __future__ import annotations

import asyncio
import resource
from pathlib import Path

from support.upstream import Connection
from support.waiting import until

from .stand import STREAM, chunk, routed, stand, stuck, upstream_settings
from .wires import WIRES, H1Wire, H2Wire

PIECE = bytes(32 * 1024)
# What may be on its way without anybody taking it: socket buffers of two loopback connections (the kernel grows them
# up to 6 MB each), and the edge's own 64 KiB here and there.
KERNEL = 24 << 20
EDGE = 512 * 1024


def rss() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Source:
    """An upstream that sends `size` bytes as fast as the edge takes them, and counts."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.sent = 0

    async def __call__(self, connection: Connection) -> None:
        await connection.request()
        connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % self.size)
        while self.sent < self.size and not connection.closed:
            if connection.transport.get_write_buffer_size() < 64 * 1024:
                connection.write(PIECE)
                self.sent += len(PIECE)
            await asyncio.sleep(0)


async def steady(value: object, turns: int = 60) -> None:
    """Waits until a number stands still for `turns` looks at it, 2 ms apart."""
    assert callable(value)
    last, same = value(), 0

    def still() -> bool:
        nonlocal last, same
        now = value()
        same = same + 1 if now == last else 0
        last = now
        return same >= turns

    await until(still, 20)


async def test_a_client_that_does_not_read_stops_the_upstream(protocol: str) -> None:
    source = Source(WIRES[protocol].huge)
    async with stand(protocol, source) as s:
        wire = await s.dial(receive_buffer=64 * 1024)
        before = rss()
        call = wire.call()
        await call.head()
        wire.pause()
        held = len(call.body)
        await steady(lambda: source.sent)
        assert source.sent < KERNEL + held
        assert s.queued <= EDGE
        assert rss() - before < 16 << 20
        # No timer of the upstream runs while it is the client that is slow.
        s.edge.after(59)
        assert s.edge.faults == {}
        wire.resume()
        assert await call.reply(30) == 200
        assert len(call.body) == source.size
        assert (await s.record())["bytes_out"] == source.size


async def test_a_stream_without_window_stops_its_upstream_only() -> None:
    """HTTP/2: the connection is read, but one stream's content is not given back."""
    source = Source(H2Wire.huge)

    async def handler(connection: Connection) -> None:
        if not s.upstream.requests:
            await source(connection)
            return
        await connection.request()
        connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await connection.gone()

    async with stand("h2", handler) as s:
        wire = await s.dial()
        assert isinstance(wire, H2Wire)
        call = wire.call()
        wire.held.add(call.id)
        await call.head()
        await steady(lambda: source.sent)
        assert len(call.body) == 65535
        assert source.sent < KERNEL
        assert s.queued <= EDGE
        other = await wire.get()
        assert other.body == b"ok"
        wire.held.clear()
        wire.engine.acknowledge_received_data(len(call.body), call.id)
        wire.flush()
        assert await call.reply(30) == 200
        assert len(call.body) == source.size


async def test_an_upstream_that_does_not_read_stops_the_client(protocol: str) -> None:
    gate = asyncio.Event()
    huge = WIRES[protocol].huge

    async def handler(connection: Connection) -> None:
        await connection.head()
        stuck(connection)
        await gate.wait()
        connection.transport.resume_reading()
        await connection.take(huge)
        connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await connection.gone()

    async with stand(protocol, handler, client={"max_body": "100MiB"}) as s:
        call = (await s.dial()).call("POST", "/", end=False, length=huge)
        call.send(bytes(huge), end=True)
        await until(lambda: s.upstream.requests)
        await steady(lambda: call.unsent)
        assert huge - call.unsent < KERNEL
        assert s.queued_up <= EDGE
        gate.set()
        assert await call.reply(30) == 200
        assert (await s.record())["bytes_in"] == huge


async def test_an_upload_waits_for_a_connection_in_bounded_memory(protocol: str) -> None:
    """The pool has no room: what the client sends meanwhile is held up to the buffer, then it must wait."""
    total = 32 << 20
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        while True:
            received = await connection.head()
            if received.line.startswith(b"GET"):
                await gate.wait()
            else:
                await connection.body(received)
            connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    settings = upstream_settings(max_connections=1, timeouts={"connect": "30s"})
    async with stand(protocol, handler, client={"max_body": "100MiB"}, upstreams=settings) as s:
        blocker = (await s.dial()).call()
        await until(lambda: s.upstream.requests)
        call = (await s.dial()).call("POST", "/", end=False, length=total)
        call.send(bytes(total), end=True)
        await until(lambda: s.target().pending == 1)
        exchange = s.edge.data_plane._gateway.pools["main"].pending[0].exchange
        await steady(lambda: call.unsent)
        assert total - call.unsent < KERNEL
        assert exchange.body.received <= 256 * 1024
        gate.set()
        assert await blocker.reply() == 200
        assert await call.reply(30) == 200


async def test_a_preview_holds_no_more_than_it_may(protocol: str) -> None:
    routes = routed(preview="64KiB", models={"m": "main"})
    async with stand(protocol, routes=routes, client={"max_body": "100MiB"}) as s:
        call = (await s.dial()).call("POST", "/", end=False)
        call.send(b'{"model": "m", "x": "' + bytes(1 << 20))
        assert await call.reply() == 413
        assert s.upstream.connections == []
        assert (await s.record())["outcome"] == "client: preview_too_large"


SMALL = 32 * 1024
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % SMALL + bytes(SMALL)


async def answering(connection: Connection) -> None:
    """Small answers, each of which is whole in one read of the edge's."""
    while True:
        await connection.request()
        connection.write(ANSWER)


async def test_pipelined_answers_do_not_pile_up() -> None:
    """HTTP/1.1: each answer alone is small, all of them together must not wait in the edge."""
    async with stand("h1", answering) as s:
        wire = await s.dial(receive_buffer=64 * 1024)
        assert isinstance(wire, H1Wire)
        wire.pause()
        calls = [wire.call() for _ in range(1500)]
        most = 0

        def watched() -> int:
            nonlocal most
            most = max(most, s.queued)
            return len(s.upstream.requests)

        await steady(watched)
        assert most <= 2 << 20, f"{most >> 20} MiB wait in the edge"
        assert len(s.upstream.requests) < KERNEL // SMALL
        wire.resume()
        for call in calls:
            assert await call.reply(20) == 200
            assert len(call.body) == SMALL


async def test_a_pipelining_client_that_does_not_read_is_cut() -> None:
    async with stand("h1", answering) as s:
        wire = await s.dial(receive_buffer=64 * 1024)
        wire.pause()
        for _ in range(1500):
            wire.call()
        await steady(lambda: len(s.upstream.requests))
        assert s.queued
        s.edge.after(61)
        await until(lambda: s.edge.data_plane.connections == 0)


async def test_an_event_stream_to_a_slow_reader_is_held_and_then_whole(protocol: str) -> None:
    count = 4000
    event = b"data: " + b"x" * 2000 + b"\n\n"
    written = 0

    async def handler(connection: Connection) -> None:
        nonlocal written
        await connection.request()
        connection.write(STREAM)
        for _ in range(count):
            while connection.transport.get_write_buffer_size() > 64 * 1024:  # noqa: ASYNC110  it has no event
                await asyncio.sleep(0.001)
            connection.write(chunk(event))
            written += 1
        connection.write(b"0\r\n\r\n")
        await connection.gone()

    async with stand(protocol, handler) as s:
        wire = await s.dial(receive_buffer=32 * 1024)
        call = wire.call()
        await call.received(1)
        wire.pause()
        await steady(lambda: written)
        assert s.queued <= EDGE
        wire.resume()
        assert await call.reply(20) == 200
        assert bytes(call.body) == event * count
