# Windows and datagram sizes of HTTP/3 as the edge's sending side meets them: credit that runs out, and paths that take more
# or less than the smallest datagram.
from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from support.lossy import Lossy, lossy
from support.quic_wire import Frame, parse
from support.upstream import Connection
from support.waiting import until

from .h3_wire import H3Wire
from .stand import Stand, stand
from .test_h3_paths import CONTENT, digest

SMALLEST = 1200
LARGE = CONTENT * 5
DATA_BLOCKED, STREAM_DATA_BLOCKED = 0x14, 0x15


async def large(connection: Connection) -> None:
    """An answer of two megabytes."""
    while True:
        await connection.request()
        connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(LARGE) + LARGE)


async def dial(s: Stand, port: int, **settings: Any) -> H3Wire:
    wire = await H3Wire.open(port, **settings)
    s.wires.append(wire)
    await until(lambda: s._quic)
    return wire


def sizes_of(wire: H3Wire) -> Counter[int]:
    """Sizes of the datagrams that arrive from now on."""
    sizes: Counter[int] = Counter()
    wire.client.datagram = lambda data: sizes.update([len(data)])  # type: ignore[method-assign]
    return sizes


def frames_of(wire: H3Wire) -> list[Frame]:
    """Frames of the packets that arrive from now on."""
    frames: list[Frame] = []
    wire.quic.payload = lambda plain: frames.extend(parse(plain))  # type: ignore[method-assign]
    return frames


async def settled(s: Stand, network: Lossy) -> None:
    network.perfect()
    await s.leave()
    await until(lambda: s.edge.data_plane.connections == 0)


# -- sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1200, 1350, 1452])
async def test_larger_datagrams_where_the_path_takes_them(most: int) -> None:
    """RFC 8899: not before there is something to gain, and never larger than the configuration says."""
    async with stand("h3", large, client={"h3": {"max_datagram": f"{most}B"}}) as s:
        wire = await s.dial()
        assert isinstance(wire, H3Wire)
        sizes = sizes_of(wire)
        for _ in range(2):
            call = await wire.get()
            assert digest(call.body) == digest(LARGE)
        assert max(sizes) == most
        full = sum(count for size, count in sizes.items() if size > most - 12)
        assert full > 0.8 * sizes.total()
        assert s._quic[0].recovery.lost == 0


async def test_a_path_that_takes_no_larger_datagrams() -> None:
    async with stand("h3", large) as s, lossy(s.edge.https_port) as network:
        network.pass_down = lambda data: len(data) <= SMALLEST
        wire = await dial(s, network.port)
        for _ in range(3):
            call = await wire.get()
            assert digest(call.body) == digest(LARGE)
        (quic,) = s._quic
        assert quic.paths.size == SMALLEST
        assert quic.recovery.lost <= 3, "the probes, and nothing else"
        assert quic.recovery.window >= 10 * SMALLEST, "a lost probe says nothing about congestion (RFC 8899 §3)"
        await settled(s, network)


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside small answers"])
async def test_a_path_that_takes_less_from_now_on(beside: bool) -> None:
    """A route that changes under a transfer, and nobody says so (a black hole, RFC 8899 §4.3)."""
    async def handler(connection: Connection) -> None:
        while True:
            received = await connection.request()
            content = b"" if b"/small" in received.line else LARGE
            connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(content) + content)

    async with stand("h3", handler) as s, lossy(s.edge.https_port) as network:
        wire = await dial(s, network.port)
        assert digest((await wire.get()).body) == digest(LARGE)
        (quic,) = s._quic
        assert quic.paths.size > SMALLEST
        network.pass_down = lambda data: len(data) <= SMALLEST
        call = wire.call()
        if beside:
            async with asyncio.timeout(10):
                while not call.over:
                    await wire.get("/small")
        assert await call.reply(10) == 200
        assert digest(call.body) == digest(LARGE)
        assert quic.paths.size == SMALLEST
        await settled(s, network)


# -- credit ------------------------------------------------------------------------------------------------------


async def test_what_was_lost_is_repaired_while_the_window_is_used_up() -> None:
    """Lost bytes are within every window (RFC 9000 §4.1): they wait for nobody, also where their streams do."""
    window = 64 * 1024
    seen = 0

    def some(data: bytes) -> bool:
        nonlocal seen
        seen += len(data) > 1000
        return len(data) <= 1000 or seen % 3 != 0 or seen > 60

    async with stand("h3", large) as s, lossy(s.edge.https_port) as network:
        wire = await dial(s, network.port, receive_buffer=window)
        wire.pause()
        network.pass_down = some
        calls = [wire.call() for _ in range(3)]
        (quic,) = s._quic
        await until(lambda: quic.starved)
        await until(lambda: not quic.recovery.in_flight)
        assert network.down.seen < seen + 100
        assert quic.recovery.lost
        assert quic.data_sent == quic.data_limit
        assert not any(stream._lost for stream in quic.streams.by_id.values())
        assert sum(stream.receiver._buffer_start for stream in wire.quic._streams.values()) == window, "all of it is there"
        wire.resume()
        for call in calls:
            assert await call.reply(20) == 200
            assert digest(call.body) == digest(LARGE)
        assert not quic.starved
        await settled(s, network)


async def test_streams_that_wait_for_the_window_and_end_are_forgotten() -> None:
    """Else who never grants any fills our memory with streams that are over."""
    async with stand("h3", large) as s:
        wire = await s.dial(receive_buffer=64 * 1024)
        assert isinstance(wire, H3Wire)
        wire.pause()
        (quic,) = s._quic
        first = wire.call()
        await until(lambda: quic.starved)
        for _ in range(5):
            call = wire.call()
            await until(lambda: len(quic.starved) == 2)
            call.cancel()
            await until(lambda: len(quic.starved) == 1)
        assert set(quic.starved) == {first.id}


@pytest.mark.parametrize(("share", "kind"), [(1, DATA_BLOCKED), (4, STREAM_DATA_BLOCKED)], ids=["connection", "stream"])
async def test_the_client_hears_once_of_each_limit_that_is_reached(share: int, kind: int) -> None:
    """RFC 9000 §4.1: DATA_BLOCKED and STREAM_DATA_BLOCKED."""
    async with stand("h3", large) as s:
        wire = await s.dial(receive_buffer=64 * 1024)
        assert isinstance(wire, H3Wire)
        frames = frames_of(wire)
        wire.quic.share = share
        calls = [wire.call() for _ in range(3)]
        for call in calls:
            assert await call.reply(20) == 200
            assert digest(call.body) == digest(LARGE)
        assert any(frame.kind == kind for frame in frames)
        for each in (DATA_BLOCKED, STREAM_DATA_BLOCKED):
            told = [frame.values for frame in frames if frame.kind == each]
            assert len(told) == len(set(told)), told
        (quic,) = s._quic
        limits = [frame.values[0] for frame in frames if frame.kind == DATA_BLOCKED]
        assert limits == sorted(limits)
        assert all(limit <= quic.data_limit for limit in limits)
