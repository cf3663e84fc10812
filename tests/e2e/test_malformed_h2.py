# Malformed HTTP/2 requests against a real edge: a stream error or a 4xx, and not one byte at the upstream.
"""hardening.md 7, 10 and 11 over HTTP/2 (RFC 9113 §8.1-8.3)."""

from __future__ import annotations

import pytest
from support.client import connected
from support.edge import client_context, running_edge
from support.h2 import H2Client, h2_connected
from support.heads import BAD, GOOD, HEADS, POST, Fields, but
from support.upstream import Upstream, running_upstream
from support.waiting import until


async def nothing_of_it(upstream: Upstream, port: int) -> None:
    """A good request on a new connection is all that the upstream has received."""
    async with h2_connected(port) as client:
        await client.send(client.headers(1, GOOD))
        assert (await client.over(1)).status == 200
    assert [request.line for request in upstream.requests if b"/good" not in request.line] == []
    assert len(upstream.data) == sum(len(request.head) + len(request.body) for request in upstream.requests)


def refused(client: H2Client, stream: int) -> bool:
    """A 4xx, a stream error, or the end of the connection; never a success."""
    reply = client.streams[stream]
    over = reply.reset is not None or client.goaway is not None or client.client.end != ""
    return 400 <= reply.status < 500 or (reply.status == 0 and over)


@pytest.mark.parametrize("behind", [False, True], ids=["first", "behind a twin"])
@pytest.mark.parametrize("name", HEADS)
async def test_heads(name: str, behind: bool) -> None:
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        async with h2_connected(edge.https_port) as client:
            stream = 1
            if behind:
                for stream in (1, 3):
                    await client.send(client.headers(stream, GOOD))
                    assert (await client.over(stream)).status == 200
                stream = 5
            await client.send(client.headers(stream, HEADS[name]))
            await client.over(stream)
            assert refused(client, stream), client.streams[stream]
        await nothing_of_it(upstream, edge.https_port)


LENGTHS: dict[str, tuple[bytes, list[bytes]]] = {
    "less than said": (b"5", [b"abc"]),
    "more than said": (b"2", [b"abc"]),
    "nothing": (b"5", [b""]),
    "something, though zero was said": (b"0", [b"abc"]),
    "more, in a second frame": (b"3", [b"abc", b"d"]),
}


@pytest.mark.parametrize("behind", [False, True], ids=["first", "behind a twin"])
@pytest.mark.parametrize("name", LENGTHS)
async def test_content_length_against_data_in_the_first_read(name: str, behind: bool) -> None:
    length, parts = LENGTHS[name]
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        async with h2_connected(edge.https_port) as client:
            stream = 1
            if behind:
                twin = but(POST, (b"content-length", b"4"), path=b"/good")
                for stream in (1, 3):
                    await client.send(client.headers(stream, twin, end=False), client.content(stream, b"four"))
                    assert (await client.over(stream)).status == 200
                stream = 5
            fields = but(POST, (b"content-length", length), path=b"/good" if behind else BAD)
            contents = [client.content(stream, part, end=part is parts[-1]) for part in parts]
            await client.send(client.headers(stream, fields, end=False), *contents)
            await client.over(stream)
            assert refused(client, stream), client.streams[stream]
        await until(lambda: len(upstream.requests) == (2 if behind else 0))
        assert [request.body for request in upstream.requests] == ([b"four"] * 2 if behind else [])
        await nothing_of_it(upstream, edge.https_port)


@pytest.mark.parametrize(("length", "first", "second"), [(b"5", b"abc", b"d"), (b"5", b"abc", b"defg"), (b"5", b"abc", b"")])
async def test_content_length_against_later_data(length: bytes, first: bytes, second: bytes) -> None:
    """The upstream has the head by then: it is cut off and never sees an end."""
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        async with h2_connected(edge.https_port) as client:
            fields = but(POST, (b"content-length", length))
            await client.send(client.headers(1, fields, end=False), client.content(1, first, end=False))
            await until(lambda: b"abc" in upstream.data)
            await client.send(client.content(1, second))
            await client.over(1)
            assert refused(client, 1)
        await until(lambda: upstream.cancels == 1)
        assert upstream.data.endswith(b"abc"), "nothing of the second frame"


async def test_a_reset_in_the_middle_of_the_content() -> None:
    async with running_upstream() as upstream, running_edge(upstream.port) as edge, h2_connected(edge.https_port) as client:
        await client.send(client.headers(1, but(POST), end=False), client.content(1, b"abc", end=False))
        await until(lambda: b"abc" in upstream.data)
        await client.send(client.rst(1))
        await until(lambda: upstream.cancels == 1)
        assert not upstream.data.endswith(b"0\r\n\r\n")
        await client.send(client.headers(3, GOOD))
        assert (await client.over(3)).status == 200, "the connection lives"


@pytest.mark.parametrize("fields", [
    [(b":path", b"/x")], [(b"connection", b"close")], [(b"transfer-encoding", b"chunked")], [(b"x", b"a\r\nb")], [(b"X", b"y")],
])  # fmt: skip
async def test_trailers_that_are_not_allowed(fields: Fields) -> None:
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        async with h2_connected(edge.https_port) as client:
            frames = [client.headers(1, but(POST), end=False), client.content(1, b"abc", end=False), client.headers(1, fields)]
            await client.send(*frames)
            await client.over(1)
            assert refused(client, 1)
        assert b"abc" not in upstream.data


@pytest.mark.parametrize("fields", [[(b"x-sum", b"1")], [(b"content-length", b"99"), (b"host", b"evil")]])
async def test_trailers_are_dropped_by_default(fields: Fields) -> None:
    async with running_upstream() as upstream, running_edge(upstream.port) as edge, h2_connected(edge.https_port) as client:
        frames = [client.headers(1, but(POST), end=False), client.content(1, b"abc", end=False), client.headers(1, fields)]
        await client.send(*frames)
        reply = await client.over(1)
        assert reply.status in {200, 400} or reply.reset is not None
        assert b"x-sum" not in upstream.data
        assert b"evil" not in upstream.data
        assert b"99" not in upstream.data.partition(b"\r\n\r\n")[0].replace(b"0123456789ab", b"").split(b"x-ray-id")[0]


@pytest.mark.parametrize("frame", [
    pytest.param((0x0, 1, 0, b"abc"), id="DATA on stream 0"),
    pytest.param((0x1, 5, 0, b""), id="HEADERS on stream 0"),
    pytest.param((0x1, 5, 2, b"\x82"), id="HEADERS on an even stream"),
    pytest.param((0x1, 5, 1, b"\xff\xff\xff\xff\xff"), id="broken HPACK"),
    pytest.param((0x9, 4, 1, b""), id="CONTINUATION alone"),
    pytest.param((0x4, 0, 0, b"\x00" * 5), id="SETTINGS of five bytes"),
    pytest.param((0x4, 0, 1, b""), id="SETTINGS on a stream"),
    pytest.param((0x6, 0, 0, b"short"), id="PING of five bytes"),
    pytest.param((0x5, 4, 1, b"\x00\x00\x00\x02\x82"), id="PUSH_PROMISE"),
    pytest.param((0x8, 0, 0, b"\x00" * 4), id="WINDOW_UPDATE of zero"),
    pytest.param((0x0, 1, 1, b"abc"), id="DATA on an idle stream"),
    pytest.param((0x3, 0, 1, b"\x00" * 4), id="RST_STREAM on an idle stream"),
    pytest.param((0x0, 0, 1, b"x" * 20000), id="frame too large"),
])  # fmt: skip
async def test_frames_that_end_the_connection(frame: tuple[int, int, int, bytes]) -> None:
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        async with h2_connected(edge.https_port) as client:
            await client.send(client.raw(*frame))
            await client.until(lambda: False)
            assert client.goaway not in {None, 0}
            assert client.client.end in {"clean", "reset"}
        await nothing_of_it(upstream, edge.https_port)


async def test_no_preface() -> None:
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        async with connected(edge.https_port, context=client_context(("h2",))) as client:
            await client.send(b"GET /bad HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"HTTP/1.1" not in await client.rest()
        await nothing_of_it(upstream, edge.https_port)


@pytest.mark.parametrize("flood", ["ping", "settings", "empty data", "rapid reset", "window", "priority", "continuation"])
async def test_floods_are_cut(flood: str) -> None:
    """Frames that bring nothing end the connection, and memory does not grow with them."""
    async with running_upstream() as upstream, running_edge(upstream.port) as edge, h2_connected(edge.https_port) as client:
        stream = 1
        if flood in {"empty data", "continuation"}:
            raw = client.headers(1, but(POST), end=False)
            await client.send(raw if flood == "empty data" else client.raw(1, 0, 1, raw[9:]))
        for _ in range(300):
            frames = []
            for _ in range(50):
                if flood == "ping":
                    frames.append(client.raw(6, 0, 0, b"12345678"))
                elif flood == "settings":
                    frames.append(client.raw(4, 0, 0, b""))
                elif flood == "empty data":
                    frames.append(client.raw(0, 0, 1, b""))
                elif flood == "window":
                    frames.append(client.raw(8, 0, 0, b"\x00\x00\x00\x01"))
                elif flood == "priority":
                    frames.append(client.raw(2, 0, 3, b"\x00\x00\x00\x00\x10"))
                elif flood == "continuation":
                    frames.append(client.raw(9, 0, 1, b""))
                else:
                    frames.append(client.headers(stream, GOOD) + client.rst(stream))
                    stream += 2
            await client.send(*frames)
            if client.client.writer.transport.is_closing() or edge.stats.connections_open[1] == 0:
                break
        await until(lambda: edge.stats.connections_open[1] == 0)
        assert upstream.open < 200
