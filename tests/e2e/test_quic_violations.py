# QUIC frames and packets that are not allowed: the connection ends with the code that RFC 9000 names, and nobody else's.
"""Packets of any content on a good connection, sealed with its own keys. RFC 9000 §12.4, §13, §19 and §20."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.edge import Edge, running_edge
from support.h3 import RawH3, data, h3_connected, headers
from support.heads import GOOD, POST, but
from support.quic import varint
from support.quic_frames import (
    CLOSE,
    CRYPTO,
    CRYPTO_BUFFER,
    DONE,
    ENCODING,
    FINAL_SIZE,
    FLOW,
    ID_LIMIT,
    MAX_DATA,
    MAX_STREAM_DATA,
    MAX_STREAMS,
    MOST,
    NEW_TOKEN,
    PATH_RESPONSE,
    PROTOCOL,
    RESET,
    RETIRE_ID,
    STOP,
    STREAM,
    STREAM_LIMIT,
    STREAM_STATE,
    STREAMS_BLOCKED,
    new_id,
    stream,
)
from support.upstream import Connection, Handler, Upstream, echo, ok, running_upstream
from support.waiting import until

TLS = 0x10A  # unexpected_message

# The request streams 0 (complete, answered) and 4 (open, ten bytes of it received) exist when these arrive.
FRAMES: dict[str, tuple[bytes, set[int]]] = {
    "unknown frame": (varint(0x2A) + b"abc", {ENCODING}),
    "unknown frame of four bytes": (varint(0x15228C00), {ENCODING}),
    "DATAGRAM, which nobody offered": (varint(0x31, 3) + b"abc", {ENCODING, PROTOCOL}),
    "HANDSHAKE_DONE": (varint(DONE), {PROTOCOL}),
    "NEW_TOKEN": (varint(NEW_TOKEN, 3) + b"abc", {PROTOCOL}),
    "frame type cut": (b"\x40", {ENCODING}),
    "STREAM cut": (varint(STREAM, 4, 10, 500) + b"abc", {ENCODING}),
    "RESET_STREAM cut": (varint(RESET, 4), {ENCODING}),
    "ACK cut": (b"\x02\x05", {ENCODING}),
    "ACK of a packet never sent": (varint(2, 1_000_000, 0, 0, 0), {PROTOCOL}),
    "ACK of a range that begins below zero": (varint(2, 3, 0, 0, 4), {ENCODING}),
    "ACK with a gap below zero": (varint(2, 3, 0, 1, 0, 9, 0), {ENCODING}),
    "STREAM on a server's stream never opened": (stream(1, 0, b"abc"), {STREAM_STATE}),
    "STREAM on the server's control stream": (stream(3, 0, b"abc"), {STREAM_STATE}),
    "RESET_STREAM of the server's control stream": (varint(RESET, 3, 0, 0), {STREAM_STATE}),
    "STOP_SENDING of our control stream": (varint(STOP, 2, 0), {STREAM_STATE}),
    "STOP_SENDING of a server's stream never opened": (varint(STOP, 1, 0), {STREAM_STATE}),
    "MAX_STREAM_DATA for our control stream": (varint(MAX_STREAM_DATA, 2, 100), {STREAM_STATE}),
    "MAX_STREAM_DATA for a server's stream never opened": (varint(MAX_STREAM_DATA, 1, 100), {STREAM_STATE}),
    "STREAM_DATA_BLOCKED of the server's control stream": (varint(0x15, 3, 0), {STREAM_STATE}),
    "MAX_STREAM_DATA for a stream too many": (varint(MAX_STREAM_DATA, 4 * 5000, 100), {STREAM_LIMIT}),
    "STOP_SENDING of a stream too many": (varint(STOP, 4 * 5000, 0), {STREAM_LIMIT}),
    "RESET_STREAM of a stream too many": (varint(RESET, 4 * 5000, 0, 0), {STREAM_LIMIT}),
    "a stream too many": (stream(4 * 5000, 0, b"a"), {STREAM_LIMIT}),
    "a unidirectional stream too many": (stream(2 + 4 * 5000, 0, b"a"), {STREAM_LIMIT}),
    "the largest stream id": (stream(MOST & ~3, 0, b"a"), {STREAM_LIMIT}),
    "content beyond the stream's window": (stream(4, 64 << 20, b"a"), {FLOW}),
    "an end beyond the stream's window": (stream(4, 64 << 20, b"", end=True), {FLOW}),
    "a reset beyond the stream's window": (varint(RESET, 4, 0, 64 << 20), {FLOW}),
    "an offset beyond everything": (stream(4, MOST, b"a"), {ENCODING, FLOW}),
    "content behind the end": (stream(4, 20, b"", end=True) + stream(4, 25, b"a"), {FINAL_SIZE}),
    "two ends": (stream(4, 20, b"", end=True) + stream(4, 30, b"", end=True), {FINAL_SIZE}),
    "an end before what was received": (stream(4, 5, b"", end=True), {FINAL_SIZE}),
    "a reset before what was received": (varint(RESET, 4, 0, 5), {FINAL_SIZE}),
    "a reset that moves the end": (stream(4, 20, b"", end=True) + varint(RESET, 4, 0, 25), {FINAL_SIZE}),
    "two resets that differ": (varint(RESET, 4, 0, 20) + varint(RESET, 4, 0, 25), {FINAL_SIZE}),
    "content behind a reset": (varint(RESET, 4, 0, 20) + stream(4, 20, b"a"), {FINAL_SIZE}),
    "more streams than there are ids": (varint(MAX_STREAMS, 1 << 61), {ENCODING}),
    "blocked beyond all streams": (varint(STREAMS_BLOCKED, 1 << 61), {ENCODING, STREAM_LIMIT}),
    "an empty connection id": (new_id(1, 0, b""), {ENCODING}),
    "a connection id too long": (new_id(1, 0, bytes(21)), {ENCODING}),
    "an id that retires later ones": (new_id(1, 2, bytes(8)), {ENCODING}),
    "one number for two ids": (new_id(50, 0, b"a" * 8, b"a" * 16) + new_id(50, 0, b"b" * 8, b"b" * 16), {PROTOCOL, ID_LIMIT}),
    "too many connection ids": (b"".join(new_id(n, 0, bytes([n]) * 8, bytes([n]) * 16) for n in range(50, 80)), {ID_LIMIT}),
    "retiring an id that was never given": (varint(RETIRE_ID, 5000), {PROTOCOL}),
    "CRYPTO far ahead": (varint(CRYPTO, 1 << 20, 1) + b"a", {CRYPTO_BUFFER, PROTOCOL, TLS}),
    "CRYPTO beyond everything": (varint(CRYPTO, MOST, 1) + b"a", {ENCODING, CRYPTO_BUFFER, PROTOCOL, TLS}),
    "a TLS message out of place": (varint(CRYPTO, 0, 5) + b"\x18\0\0\x01\0", {TLS, PROTOCOL, CRYPTO_BUFFER}),
}  # fmt: skip


async def silent_bad(connection: Connection) -> None:
    """Answers good requests, never those for /bad."""
    while True:
        received = await connection.head()
        if b"/bad" in received.line:
            await connection.gone()
        connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


async def opened(client: RawH3) -> None:
    """Stream 0 is complete, stream 4 open with its head and more received."""
    await client.fine(GOOD)
    content = headers(but(POST)) + data(b"0123456789")
    client.request(content, end=False)
    await client.ping()


@asynccontextmanager
async def connected(handler: Handler) -> AsyncIterator[tuple[RawH3, Upstream, Edge]]:
    """A client with a good request behind it, the upstream, the edge."""
    async with (
        running_upstream(handler) as upstream, running_edge(upstream.port) as edge, h3_connected(edge.https_port) as client,
    ):  # fmt: skip
        await client.fine(GOOD)
        yield client, upstream, edge


@pytest.mark.parametrize("name", FRAMES)
async def test_frames_that_end_the_connection(name: str) -> None:
    payload, codes = FRAMES[name]
    async with running_upstream(silent_bad) as upstream, running_edge(upstream.port) as edge:
        async with h3_connected(edge.https_port) as neighbour, h3_connected(edge.https_port) as client:
            await opened(client)
            client.frames(payload)
            assert await client.gone() in codes, (hex(client.code or 0), client.reason)
            assert not client.application
            await neighbour.fine(GOOD)
        await until(lambda: upstream.cancels >= 1)


@pytest.mark.parametrize("bits", [0x08, 0x10, 0x18])
async def test_reserved_bits(bits: int) -> None:
    async with connected(ok) as (client, _, _):
        client.frames(b"\x01", first=0x40 | bits)
        assert await client.gone() == PROTOCOL


async def test_no_frames_at_all() -> None:
    async with connected(ok) as (client, _, _):
        client.send(client.quic.packet(b""))
        assert await client.gone() == PROTOCOL


async def test_content_beyond_the_connections_window() -> None:
    """Each stream stays inside its own window; together they are too much."""
    async with connected(silent_bad) as (client, _, _):
        limits = client.quic
        last = limits._remote_max_stream_data_bidi_remote - 1
        for number in range(limits._remote_max_data // last + 2):
            client.frames(stream(4 + 4 * number, last, b"a"))
        assert await client.gone() == FLOW


async def test_ends_that_agree_and_frames_that_come_again_are_no_error() -> None:
    async with connected(echo) as (client, _, _):
        content = headers([*POST[:3], (b":path", b"/good")]) + data(b"0123456789")
        number = client.next()
        client.quic._get_or_create_stream_for_send(number)  # aioquic must know that answers will come
        size = len(content)
        for at in range(size - 1, -1, -1):  # backwards, a byte at a time, each twice
            client.frames(stream(number, at, content[at : at + 1], end=at == size - 1) * 2)
        client.frames(stream(number, size, b"", end=True))
        reply = await client.over(number)
        assert (reply.status, reply.body) == (200, b"0123456789")
        client.frames(stream(number, 0, content, end=True) + varint(RESET, number, 0, size) + varint(STOP, number, 0))
        client.frames(varint(MAX_DATA, 1) + varint(MAX_STREAM_DATA, number, 1) + varint(0x14, 5) + varint(STREAMS_BLOCKED, 5))
        client.frames(varint(2, 0, 0, 0, 0))
        await client.ping()
        await client.fine(GOOD)


async def test_a_response_to_no_challenge_is_ignored_or_an_error() -> None:
    async with connected(ok) as (client, _, _):
        client.frames(varint(PATH_RESPONSE) + bytes(8))
        await client.ping()
        assert client.code in {None, PROTOCOL}


async def test_a_challenge_is_answered() -> None:
    async with connected(ok) as (client, _, _):
        seen = client.catch(varint(PATH_RESPONSE) + b"question")
        client.frames(varint(0x1A) + b"question" + bytes(1200))
        await until(lambda: seen)
        await client.fine(GOOD)


async def test_keys_are_updated() -> None:
    """RFC 9001 §6: the client takes new keys, again and again, in the middle of everything."""
    async with connected(echo) as (client, _, _):
        for turn in range(5):
            number = client.request(headers([*POST[:3], (b":path", b"/good")]), data(bytes(20_000)), end=False)
            client.quic.request_key_update()
            await client.ping()
            client.write(number, data(b"%d" % turn), True)
            reply = await client.over(number)
            assert (reply.status, len(reply.body)) == (200, 20_001)


async def test_a_clients_close_ends_its_exchanges() -> None:
    async with connected(silent_bad) as (client, upstream, edge):
        await opened(client)
        client.frames(varint(CLOSE, 0, 0, 3) + b"bye")
        await until(lambda: upstream.cancels == 1, 1)
        await until(lambda: edge.data_plane.connections == 0)
