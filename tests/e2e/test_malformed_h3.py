# Malformed HTTP/3 against a real edge: the right error where the RFC names one, and not one byte at the upstream.
"""hardening.md 7, 10 and 11 over HTTP/3 (RFC 9114 §4, §6 and §7; RFC 9204)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support import h3
from support.edge import Edge, running_edge
from support.h3 import CONTROL, DECODER, ENCODER, GREASE, RawH3, data, frame, h3_connected, headers, settings
from support.heads import GET, GOOD, HEADS, POST, Fields, but
from support.quic import varint
from support.upstream import Upstream, running_upstream
from support.waiting import until


async def nothing_of_it(upstream: Upstream, port: int) -> None:
    """A good request on a new connection is all that the upstream has received."""
    async with h3_connected(port) as client:
        await client.fine(GOOD)
    assert [request.line for request in upstream.requests if b"/good" not in request.line] == []
    assert len(upstream.data) == sum(len(request.head) + len(request.body) for request in upstream.requests)


@asynccontextmanager
async def standing() -> AsyncIterator[tuple[Edge, Upstream]]:
    """An edge and its upstream; at the end a neighbour's connection must have lived on."""
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        async with h3_connected(edge.https_port) as neighbour:
            await neighbour.fine(GOOD)
            yield edge, upstream
            await neighbour.fine(GOOD)
        await nothing_of_it(upstream, edge.https_port)


def refused(client: RawH3, stream: int) -> bool:
    """A 4xx or a stream error of the message's own; never a success, and never the end of the connection."""
    reply = client.stream(stream)
    return not client.ended and (400 <= reply.status < 500 or (reply.status == 0 and reply.reset == h3.MESSAGE))


async def test_heads() -> None:
    """On one connection: a malformed message is an error of its stream (RFC 9114 §4.1.2)."""
    async with standing() as (edge, _), h3_connected(edge.https_port) as client:
        wrong = []
        # Engines refuse an empty name as undecodable: see `REQUESTS`.
        for name, fields in [each for each in HEADS.items() if each[0] != "empty name"]:
            stream = client.request(headers(fields))
            await client.over(stream)
            if not refused(client, stream):
                wrong.append((name, client.stream(stream), client.code, client.reason))
                if client.ended:
                    break
        assert wrong == []
        await client.fine(GOOD)


LENGTHS: dict[str, tuple[bytes, list[bytes]]] = {
    "less than said": (b"5", [b"abc"]),
    "more than said": (b"2", [b"abc"]),
    "nothing": (b"5", []),
    "an empty frame": (b"5", [b""]),
    "something, though zero was said": (b"0", [b"abc"]),
    "more, in a second frame": (b"3", [b"abc", b"d"]),
}


@pytest.mark.parametrize("name", LENGTHS)
async def test_content_length_against_data_in_the_first_packet(name: str) -> None:
    length, parts = LENGTHS[name]
    async with standing() as (edge, _), h3_connected(edge.https_port) as client:
        stream = client.request(headers(but(POST, (b"content-length", length))), *map(data, parts))
        await client.over(stream)
        assert refused(client, stream), client.stream(stream)


@pytest.mark.parametrize(("first", "second"), [(b"abc", b"d"), (b"abc", b"defg"), (b"abc", b"")])
async def test_content_length_against_later_data(first: bytes, second: bytes) -> None:
    """The upstream has the head by then: it is cut off and never sees an end."""
    async with running_upstream() as upstream, running_edge(upstream.port) as edge, h3_connected(edge.https_port) as client:
        stream = client.request(headers(but(POST, (b"content-length", b"5"))), data(first), end=False)
        await until(lambda: b"abc" in upstream.data)
        client.write(stream, data(second), True)
        await client.over(stream)
        assert refused(client, stream)
        await until(lambda: upstream.cancels == 1)
        assert len(upstream.data.rpartition(b"\r\n\r\n")[2]) < 5, "never as much as was said"
        await client.fine(GOOD)


async def test_a_reset_in_the_middle_of_the_content() -> None:
    async with running_upstream() as upstream, running_edge(upstream.port) as edge, h3_connected(edge.https_port) as client:
        stream = client.request(headers(but(POST)), data(b"abc"), end=False)
        await until(lambda: b"abc" in upstream.data)
        client.quic.reset_stream(stream, h3.CANCELLED)
        client.transmit()
        await until(lambda: upstream.cancels == 1)
        assert not upstream.data.endswith(b"0\r\n\r\n")
        await client.fine(GOOD)


@pytest.mark.parametrize("fields", [
    [(b":path", b"/x")], [(b":status", b"200")], [(b"connection", b"close")], [(b"transfer-encoding", b"chunked")],
    [(b"x", b"a\r\nb")], [(b"X", b"y")],
])  # fmt: skip
async def test_trailers_that_are_not_allowed(fields: Fields) -> None:
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        async with h3_connected(edge.https_port) as client:
            stream = client.request(headers(but(POST)), data(b"abc"), headers(fields))
            await client.over(stream)
            assert refused(client, stream), client.stream(stream)
            await client.fine(GOOD)
        assert b"abc" not in upstream.data


async def test_a_second_head_is_no_trailer_section() -> None:
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        async with h3_connected(edge.https_port) as client:
            stream = client.request(headers(but(POST)), headers(but(GET)), headers(but(GET)))
            await client.over(stream)
            assert client.code == h3.UNEXPECTED or refused(client, stream)
        assert upstream.data == b""


REQUEST = headers(but(POST))
FIELDS = h3.section(but(POST))
# (what goes on a request stream, the end with it, codes that are right)
REQUESTS: dict[str, tuple[bytes, bool, set[int]]] = {
    "DATA before HEADERS": (data(b"abc") + REQUEST, True, {h3.UNEXPECTED}),
    "DATA alone": (data(b""), False, {h3.UNEXPECTED}),
    "HEADERS behind trailers": (headers(but(POST)) + headers([(b"x", b"y")]) * 2, True, {h3.UNEXPECTED}),
    "DATA behind trailers": (REQUEST + headers([(b"x", b"y")]) + data(b"abc"), True, {h3.UNEXPECTED}),
    "SETTINGS": (settings(), False, {h3.UNEXPECTED}),
    "SETTINGS behind HEADERS": (REQUEST + settings(), True, {h3.UNEXPECTED}),
    "GOAWAY": (frame(h3.GOAWAY, varint(0)), False, {h3.UNEXPECTED}),
    "MAX_PUSH_ID": (frame(h3.MAX_PUSH_ID, varint(1)), False, {h3.UNEXPECTED}),
    "CANCEL_PUSH": (frame(h3.CANCEL_PUSH, varint(0)), False, {h3.UNEXPECTED}),
    "PUSH_PROMISE": (frame(h3.PUSH_PROMISE, varint(0) + FIELDS), False, {h3.UNEXPECTED}),
    **{f"HTTP/2's frame {kind}": (frame(kind), False, {h3.UNEXPECTED}) for kind in (2, 6, 8, 9)},
    "HEADERS cut by the end": (REQUEST[:-3], True, {h3.FRAME}),
    "DATA cut by the end": (REQUEST + frame(h3.DATA, b"abc", 5), True, {h3.FRAME}),
    "a frame's length cut by the end": (b"\x01\x40", True, {h3.FRAME}),
    "an unknown frame cut by the end": (REQUEST + frame(GREASE, b"abc", 5), True, {h3.FRAME}),
    "empty field section": (frame(h3.HEADERS), True, {h3.DECOMPRESSION}),
    "half a prefix": (frame(h3.HEADERS, b"\0"), True, {h3.DECOMPRESSION}),
    "field line cut": (frame(h3.HEADERS, FIELDS[:-3]), True, {h3.DECOMPRESSION}),
    "required insert count": (frame(h3.HEADERS, b"\x02\0" + FIELDS[2:]), True, {h3.DECOMPRESSION}),
    "indexed in the dynamic table": (frame(h3.HEADERS, b"\0\0\x80" + FIELDS[2:]), True, {h3.DECOMPRESSION}),
    "indexed behind the base": (frame(h3.HEADERS, b"\0\0\x10" + FIELDS[2:]), True, {h3.DECOMPRESSION}),
    "name in the dynamic table": (frame(h3.HEADERS, b"\0\0\x40\x01x" + FIELDS[2:]), True, {h3.DECOMPRESSION}),
    "static index too large": (frame(h3.HEADERS, b"\0\0\xff\x24" + FIELDS[2:]), True, {h3.DECOMPRESSION}),
    "integer without end": (frame(h3.HEADERS, b"\0\0\xff" + b"\xff" * 20), True, {h3.DECOMPRESSION}),
    "empty name": (frame(h3.HEADERS, FIELDS + b"\x20\x01x"), True, {h3.DECOMPRESSION, h3.MESSAGE}),
    "broken Huffman": (frame(h3.HEADERS, b"\0\0\x51\x84\xff\xff\xff\xff" + FIELDS[2:]), True, {h3.DECOMPRESSION}),
}  # fmt: skip


@pytest.mark.parametrize("name", REQUESTS)
async def test_request_streams_that_end_the_connection(name: str) -> None:
    content, end, codes = REQUESTS[name]
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        async with h3_connected(edge.https_port) as client:
            client.request(content, end=end)
            assert await client.gone() in codes, client.reason
            assert client.application
        if not content.startswith(REQUEST):  # with a good head in front the upstream may have seen that
            await nothing_of_it(upstream, edge.https_port)


@pytest.mark.parametrize("content", [b"", frame(GREASE, b"abc")])
async def test_a_stream_without_a_request(content: bytes) -> None:
    """RFC 9114 §4.1: H3_REQUEST_INCOMPLETE, or an answer; the connection lives."""
    async with standing() as (edge, _), h3_connected(edge.https_port) as client:
        stream = client.request(content)
        reply = await client.over(stream)
        assert reply.reset == h3.INCOMPLETE or 400 <= reply.status < 500
        await client.fine(GOOD)


# What goes on a unidirectional stream, or on which one behind what `start` sent; codes that are right.
CONTROLS: dict[str, tuple[int | None, bytes, bool, set[int]]] = {
    "DATA": (CONTROL, data(b"abc"), False, {h3.UNEXPECTED}),
    "HEADERS": (CONTROL, REQUEST, False, {h3.UNEXPECTED}),
    "PUSH_PROMISE": (CONTROL, frame(h3.PUSH_PROMISE, varint(0) + FIELDS), False, {h3.UNEXPECTED}),
    "a second SETTINGS": (CONTROL, settings(), False, {h3.UNEXPECTED}),
    **{f"HTTP/2's frame {kind}": (CONTROL, frame(kind), False, {h3.UNEXPECTED}) for kind in (2, 6, 8, 9)},
    "MAX_PUSH_ID goes down": (
        CONTROL, frame(h3.MAX_PUSH_ID, varint(5)) + frame(h3.MAX_PUSH_ID, varint(4)), False, {h3.ID},
    ),
    "MAX_PUSH_ID with more behind it": (CONTROL, frame(h3.MAX_PUSH_ID, varint(5) + b"x"), False, {h3.FRAME}),
    "MAX_PUSH_ID empty": (CONTROL, frame(h3.MAX_PUSH_ID), False, {h3.FRAME}),
    "CANCEL_PUSH of no push": (CONTROL, frame(h3.CANCEL_PUSH, varint(3)), False, {h3.ID}),
    "GOAWAY goes up": (CONTROL, frame(h3.GOAWAY, varint(4)) + frame(h3.GOAWAY, varint(8)), False, {h3.ID}),
    "GOAWAY with more behind it": (CONTROL, frame(h3.GOAWAY, varint(4) + b"x"), False, {h3.FRAME}),
    "control stream ends": (CONTROL, b"", True, {h3.CRITICAL}),
    "encoder stream ends": (ENCODER, b"", True, {h3.CRITICAL}),
    "decoder stream ends": (DECODER, b"", True, {h3.CRITICAL}),
    "a second control stream": (None, varint(0) + settings(), False, {h3.CREATION}),
    "a second encoder stream": (None, varint(2), False, {h3.CREATION}),
    "a second decoder stream": (None, varint(3), False, {h3.CREATION}),
    "a push stream": (None, varint(1, 0), False, {h3.CREATION}),
    "a capacity for the dynamic table": (ENCODER, h3.prefixed(0x20, 5, 4096), False, {h3.ENCODER_STREAM}),
    "an insertion into the dynamic table": (ENCODER, b"\x41x\x01y", False, {h3.ENCODER_STREAM}),
    "an insertion with a static name": (ENCODER, b"\xc0\x01y", False, {h3.ENCODER_STREAM}),
    "a duplicate of nothing": (ENCODER, b"\x00", False, {h3.ENCODER_STREAM}),
    "acknowledging no section": (DECODER, b"\x80", False, {h3.DECODER_STREAM}),
    "more insertions than were made": (DECODER, b"\x01", False, {h3.DECODER_STREAM}),
    "an increment of zero": (DECODER, b"\x00", False, {h3.DECODER_STREAM}),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTROLS)
async def test_unidirectional_streams_that_end_the_connection(name: str) -> None:
    stream, content, end, codes = CONTROLS[name]
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        async with h3_connected(edge.https_port) as client:
            if stream is None:
                client.uni(content, end)
            else:
                client.write(stream, content, end)
            assert await client.gone() in codes, client.reason
            assert client.application
        await nothing_of_it(upstream, edge.https_port)


@pytest.mark.parametrize("stream", [CONTROL, ENCODER, DECODER])
async def test_resetting_a_critical_stream(stream: int) -> None:
    async with running_upstream() as upstream, running_edge(upstream.port) as edge, h3_connected(edge.https_port) as client:
        await client.fine(GOOD)
        client.quic.reset_stream(stream, h3.NO_ERROR)
        client.transmit()
        assert await client.gone() == h3.CRITICAL


async def test_stopping_the_control_stream() -> None:
    """It is the only one that the edge opens."""
    async with running_upstream() as upstream, running_edge(upstream.port) as edge, h3_connected(edge.https_port) as client:
        await client.fine(GOOD)
        client.quic.stop_stream(3, h3.NO_ERROR)
        client.transmit()
        assert await client.gone() == h3.CRITICAL


# The control stream from its first byte on.
OPENINGS: dict[str, tuple[bytes, set[int]]] = {
    "no SETTINGS": (frame(h3.MAX_PUSH_ID, varint(1)), {h3.MISSING}),
    "an unknown frame first": (frame(GREASE) + settings(), {h3.MISSING}),
    "DATA first": (data(b""), {h3.MISSING, h3.UNEXPECTED}),
    "a setting twice": (settings((6, 100), (6, 100)), {h3.SETTING}),
    **{f"HTTP/2's setting {key}": (settings((key, 0)), {h3.SETTING}) for key in (2, 3, 4, 5)},
    "half a setting": (frame(h3.SETTINGS, b"\x06"), {h3.FRAME}),
    "half an integer": (frame(h3.SETTINGS, b"\x06\x40"), {h3.FRAME}),
    "endless SETTINGS": (frame(h3.SETTINGS, bytes(20_000), 1 << 30), {h3.EXCESSIVE, h3.FRAME, h3.SETTING}),
}


@pytest.mark.parametrize("name", OPENINGS)
async def test_control_streams_that_begin_badly(name: str) -> None:
    content, codes = OPENINGS[name]
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        async with h3_connected(edge.https_port, start=False) as client:
            client.start(control=content)
            assert await client.gone() in codes, client.reason
        await nothing_of_it(upstream, edge.https_port)
