# Clients that send much which means nothing: bounded memory, bounded answers, and everybody else is served meanwhile.
"""Floods over HTTP/3: rapid resets, frames without content, QUIC frames that ask for answers, streams and ids."""

from __future__ import annotations

import gc
import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from support import h3
from support.edge import running_edge
from support.h3 import CONTROL, GREASE, RawH3, data, frame, h3_connected, headers
from support.heads import GET, GOOD, POST, but
from support.quic import varint
from support.quic_frames import CRYPTO, MAX_DATA, MAX_STREAM_DATA, RETIRE_ID, STOP, new_id, stream
from support.upstream import Connection, running_upstream
from support.waiting import until

GROWTH = 12 << 20  # bytes that a flood may cost this whole process, both ends of it


def rss() -> int:
    """Resident bytes of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def held(connection: Connection) -> None:
    """Answers /good; everything else waits."""
    while True:
        received = await connection.head()
        if b"/good" not in received.line:
            await connection.gone()
        connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


def rapid_reset(client: RawH3) -> None:
    number = client.request(headers(but()))
    client.quic.reset_stream(number, h3.CANCELLED)
    client.quic.stop_stream(number, h3.CANCELLED)
    client.transmit()


def malformed(client: RawH3) -> None:
    """The edge resets what we sent: as dear to it as if we had."""
    client.request(headers(but(GET, (b"X", b"y"))))


def given_up(client: RawH3) -> None:
    """Complete requests whose answers nobody wants."""
    number = client.request(headers(but()))
    client.quic.stop_stream(number, h3.CANCELLED)
    client.transmit()


@pytest.mark.parametrize("turn", [rapid_reset, malformed, given_up])
async def test_rapid_resets_end_the_connection_and_cost_the_upstream_little(turn: Callable[[RawH3], None]) -> None:
    async with running_upstream(held) as upstream, running_edge(upstream.port) as edge:
        async with h3_connected(edge.https_port) as neighbour, h3_connected(edge.https_port) as client:
            for number in range(3000):
                if client.ended:
                    break
                turn(client)
                if number % 20 == 19:
                    await neighbour.ping()
            assert await client.gone() == h3.EXCESSIVE
            await neighbour.fine(GOOD)
        assert len(upstream.connections) < 400
        assert all(source == "client" for source, _ in edge.faults)
        await until(lambda: all(target.active == 0 for target in edge.stats.upstreams.values()))


async def test_a_few_resets_are_no_attack() -> None:
    async with running_upstream(held) as upstream, running_edge(upstream.port) as edge, h3_connected(edge.https_port) as client:
        for _ in range(50):
            rapid_reset(client)
            await client.ping()
        await client.fine(GOOD)


# What goes on stream 0 (a request whose content is open) or on the control stream, hundreds in a packet.
EMPTY: dict[str, tuple[int, bytes]] = {
    "empty DATA": (0, data(b"")),
    "unknown frames of a request": (0, frame(GREASE)),
    "unknown frames of the connection": (CONTROL, frame(GREASE)),
    "PRIORITY_UPDATE": (CONTROL, frame(0xF0700, varint(0) + b"u=1")),
    "MAX_PUSH_ID": (CONTROL, frame(h3.MAX_PUSH_ID, varint(1))),
}


@pytest.mark.parametrize("name", EMPTY)
async def test_frames_without_content_end_the_connection(name: str) -> None:
    number, content = EMPTY[name]
    async with running_upstream(held) as upstream, running_edge(upstream.port) as edge:
        async with h3_connected(edge.https_port) as neighbour, h3_connected(edge.https_port) as client:
            client.request(headers(but(POST)), end=False)
            await until(lambda: upstream.requests)
            for _ in range(400):
                if client.ended:
                    break
                client.write(number, content * 250)
                await neighbour.ping()
            assert await client.gone() == h3.EXCESSIVE
            await neighbour.fine(GOOD)
        await until(lambda: upstream.cancels >= 1)


async def test_a_few_frames_without_content_are_no_attack() -> None:
    async with running_upstream(held) as upstream, running_edge(upstream.port) as edge, h3_connected(edge.https_port) as client:
        client.write(CONTROL, frame(GREASE, b"x" * 100) * 10 + frame(0xF0700, varint(0) + b"u=1") * 10)
        for _ in range(20):
            good = [*POST[:3], (b":path", b"/good")]
            extra = frame(GREASE, b"abc"), data(b""), frame(GREASE)
            await client.over(client.request(frame(GREASE), headers(good), data(b""), *extra))
        await client.fine(GOOD)


# One frame of each flood, by its running number. Stream 0 is a request whose content is open.
QUIC: dict[str, Callable[[int], bytes]] = {
    "PING": lambda _: b"\x01",
    "PATH_CHALLENGE": lambda number: b"\x1a" + number.to_bytes(8, "big"),
    "NEW_CONNECTION_ID that retires": lambda number: new_id(
        number + 1, number + 1, number.to_bytes(8, "big"), number.to_bytes(16, "big")
    ),
    "RETIRE_CONNECTION_ID": lambda number: varint(RETIRE_ID, number + 1),
    "MAX_DATA": lambda number: varint(MAX_DATA, number),
    "MAX_STREAM_DATA": lambda number: varint(MAX_STREAM_DATA, 4 * (number % 50), number),
    "STOP_SENDING": lambda _: varint(STOP, 0, 0),
    "content with holes": lambda number: stream(0, 1000 + 2 * (number % 100_000), b"x"),
    "the same content again": lambda _: stream(0, 0, b"\x01"),
    "STREAM without content": lambda number: stream(4 * (number % 50), 0, b""),
    "CRYPTO with holes": lambda number: varint(CRYPTO, 1 + 2 * (number % 30_000), 1) + b"x",
    "ACK": lambda _: varint(2, 0, 0, 0, 0),
    "DATA_BLOCKED": lambda number: varint(0x14, number),
    "STREAMS_BLOCKED": lambda number: varint(0x16, number),
}  # fmt: skip


@pytest.mark.parametrize("name", QUIC)
async def test_quic_frames_from_a_client_that_hears_nothing(name: str) -> None:
    """Nothing is acknowledged: what the edge would answer has to wait in it. Its own choice whether it ends the connection."""
    make, count = QUIC[name], 100_000
    async with (
        running_upstream(held) as upstream, running_edge(upstream.port) as edge,
        h3_connected(edge.https_port) as neighbour, h3_connected(edge.https_port) as client,
    ):  # fmt: skip
        client.request(headers(but(POST)), end=False)
        await until(lambda: upstream.requests)
        heard = client.deafen()
        before, sent, number, packets = rss(), client.sent, 0, 0
        while number < count and not heard.closed:
            payload = bytearray()
            while len(payload) < 1150 and number < count:
                payload += make(number)
                number += 1
            client.frames(bytes(payload))
            packets += 1
            if packets % 40 == 0:
                await neighbour.ping()
        await neighbour.fine(GOOD)
        assert rss() - before < GROWTH, f"{rss() - before >> 20} MiB"
        assert heard.size <= 2 * (client.sent - sent) + 20_000
