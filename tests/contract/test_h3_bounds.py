# Bounds of HTTP/3 in the configuration: content held, connections of a source, requests of a connection; and memory.
from __future__ import annotations

import asyncio

import pytest
from support import h3
from support.h3 import RawH3, data, h3_connected, headers
from support.heads import GET, POST
from support.upstream import OK, Connection
from support.waiting import until

from edgeproxy.quic.errors import CONNECTION_REFUSED, STREAM_LIMIT_ERROR
from edgeproxy.quic.streams import CONNECTION_HIGH, HIGH

from .h3_wire import H3Wire
from .stand import Stand, stand, upstream_settings
from .test_pressure import KERNEL, Source, rss, steady

MIB = 1 << 20
PIECE = 250_000  # of content: what a stream's window holds, all but


def bodies(s: Stand) -> int:
    """Bytes of content that the listener says it holds."""
    listener = s.edge.data_plane._quic
    assert listener is not None
    return listener.bodies


def gated(gate: asyncio.Event):  # type: ignore[no-untyped-def]
    """Whoever comes first keeps the only connection busy; content of the others waits in the edge."""

    async def handler(connection: Connection) -> None:
        while True:
            received = await connection.request()
            if received.line.startswith(b"GET"):
                await gate.wait()
            connection.write(OK)

    return handler


# -- client.h3.max_bodies ----------------------------------------------------------------------------------------


async def test_content_over_the_bound_of_the_worker_is_refused() -> None:
    gate = asyncio.Event()
    settings = upstream_settings(max_connections=1)
    client = {"h3": {"max_bodies": "1MiB"}}
    async with (
        stand("h3", gated(gate), client=client, upstreams=settings) as s,
        h3_connected(s.edge.https_port) as one, h3_connected(s.edge.https_port) as other,
    ):  # fmt: skip
        first = other.request(headers(GET))
        await until(lambda: s.upstream.requests)
        waiting = [one.request(headers(POST), data(bytes(PIECE)), end=False) for _ in range(4)]
        await until(lambda: bodies(s) == 4 * PIECE)
        over = other.request(headers(POST), data(bytes(PIECE)), end=False)
        reply = await other.over(over)
        assert (reply.status, reply.reset) == (503, None)
        await until(lambda: reply.stopped is not None)
        assert reply.stopped == h3.NO_ERROR
        assert s.records[-1]["outcome"] == "edge: bodies_full"
        assert bodies(s) == 4 * PIECE, "what was refused is not held"
        # Nobody else notices: neither on this connection nor on the other.
        assert not other.stream(first).over
        gate.set()
        for number in waiting:
            one.write(number, b"", end=True)
        for peer, number in ((other, first), *((one, number) for number in waiting)):
            assert (await peer.over(number)).status == 200
        await until(lambda: bodies(s) == 0)
        assert (await other.over(other.request(headers(POST), data(bytes(PIECE))))).status == 200
        assert bodies(s) == 0


@pytest.mark.parametrize("how", ["reset", "close", "vanish"])
async def test_content_of_clients_that_leave_is_held_no_longer(how: str) -> None:
    gate = asyncio.Event()
    settings = upstream_settings(max_connections=1)
    async with stand("h3", gated(gate), upstreams=settings) as s, h3_connected(s.edge.https_port) as busy:
        busy.request(headers(GET))
        await until(lambda: s.upstream.requests)
        client = RawH3(s.edge.https_port)
        await client.connect()
        client.start()
        number = client.request(headers(POST), data(bytes(PIECE)), end=False)
        await until(lambda: bodies(s) == PIECE)
        if how == "reset":
            client.quic.reset_stream(number, h3.CANCELLED)
            client.transmit()
        elif how == "close":
            client.close()
        else:
            client.silent = True
            for seconds in (31, 62, 93, 124):
                s.edge.after(seconds, answered=False)
        await until(lambda: bodies(s) == 0)
        gate.set()
        client.drop()
        s.edge.after(200, answered=False)


# -- client.h3.max_per_source ------------------------------------------------------------------------------------


async def test_connections_of_one_source_are_bounded() -> None:
    async with stand("h3", client={"h3": {"max_per_source": 2}}) as s:
        port = s.edge.https_port
        async with h3_connected(port) as one:
            async with h3_connected(port) as two:
                for count in (1, 2):
                    client = RawH3(port)
                    with pytest.raises(ConnectionRefusedError):
                        await client.connect()
                    assert (client.code, client.application) == (CONNECTION_REFUSED, False)
                    assert s.edge.faults == {("edge", "max_per_source"): count}
                async with h3_connected(port, source="127.0.0.77") as stranger:
                    await stranger.fine(GET)
                await two.fine(GET)
            await until(lambda: s.edge.data_plane.connections == 1)
            async with h3_connected(port) as again:
                await again.fine(GET)
            await one.fine(GET)
        assert s.edge.faults == {("edge", "max_per_source"): 2}


async def test_handshakes_that_end_nowhere_give_their_place_back() -> None:
    async with stand("h3", client={"h3": {"max_per_source": 1}}) as s:
        port = s.edge.https_port
        mute = RawH3(port)
        mute.quic.connect(("127.0.0.1", port), mute.loop.time())
        for packet, _ in mute.quic.datagrams_to_send(mute.loop.time()):
            mute.send(packet)
        mute.silent = True
        await until(lambda: s.edge.stats.quic.half_open == 1)
        client = RawH3(port)
        with pytest.raises(ConnectionRefusedError):
            await client.connect()
        s.edge.after(11)
        mute.drop()
        async with h3_connected(port) as client:
            await client.fine(GET)


# -- client.h3.max_streams ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 7])
async def test_requests_of_a_connection_are_bounded(most: int) -> None:
    gate = asyncio.Event()
    async with stand("h3", gated(gate), client={"h3": {"max_streams": most}}) as s, h3_connected(s.edge.https_port) as client:
        assert client.quic._remote_max_streams_bidi == most
        s.reload(client={"h3": {"max_streams": most + 1}})
        async with h3_connected(s.edge.https_port) as later:
            assert later.quic._remote_max_streams_bidi == most + 1
        calls = [client.request(headers(GET)) for _ in range(most)]
        await until(lambda: len(s.upstream.requests) == most)
        gate.set()
        for number in calls:
            assert (await client.over(number)).status == 200
        await until(lambda: client.quic._remote_max_streams_bidi > most)
        # The next one that was not allowed ends the connection (RFC 9000 §4.6).
        number = 4 * client.quic._remote_max_streams_bidi
        client.frames(b"\x0a" + bytes([0x40 | number >> 8, number & 0xFF]) + b"\x01\x01")
        assert await client.gone() == STREAM_LIMIT_ERROR


# -- memory ------------------------------------------------------------------------------------------------------


async def test_a_client_that_acknowledges_and_never_grants_window() -> None:
    """Ten answers of 100 MB each: what the edge holds of them does not depend on their size."""
    size, streams = 100_000_000, 10
    sources = [Source(size) for _ in range(streams)]
    left = list(sources)

    async def handler(connection: Connection) -> None:
        await left.pop()(connection)

    async with stand("h3", handler) as s:
        wire = await s.dial(receive_buffer=256 * 1024)
        assert isinstance(wire, H3Wire)
        before = rss()
        wire.pause()
        calls = [wire.call() for _ in range(streams)]
        await until(lambda: len(s.upstream.requests) == streams)
        await steady(lambda: sum(source.sent for source in sources))
        assert sum(len(call.body) for call in calls) <= 256 * 1024
        assert s.queued <= CONNECTION_HIGH + streams * HIGH
        (quic,) = s._quic
        await until(lambda: not quic.recovery.sent)
        assert quic.recovery.in_flight == 0
        assert all(source.sent < KERNEL for source in sources)
        assert rss() - before < 16 * MIB
        # The window comes after all: everybody goes on.
        had = [len(call.body) for call in calls]
        wire.resume()
        await until(lambda: all(len(call.body) > old + MIB for call, old in zip(calls, had, strict=True)), 20)
        assert rss() - before < 16 * MIB + sum(len(call.body) for call in calls) * 2


@pytest.mark.parametrize("paused", [False, True], ids=["reading", "stalled"])
async def test_a_client_that_vanishes_in_the_middle_of_an_answer(paused: bool) -> None:
    """Nothing tells the edge: its idle timeout does, and the upstream is let go."""
    source = Source(100_000_000)
    async with stand("h3", source) as s:
        wire = await s.dial(receive_buffer=256 * 1024)
        assert isinstance(wire, H3Wire)
        call = wire.call()
        await call.received(200_000)
        if paused:
            wire.pause()
            await steady(lambda: source.sent)
        wire.die()
        await steady(lambda: source.sent)
        assert s.log.lines == []
        assert s.queued <= CONNECTION_HIGH + HIGH
        for seconds in (31, 62, 93, 124):
            s.edge.after(seconds, answered=False)
        await until(lambda: s.upstream.cancels == 1)
        await until(lambda: s.edge.data_plane.connections == 0)
        assert (await s.record())["outcome"] in {"client_gone", "client: slow_reader"}
        assert s.queued == 0
