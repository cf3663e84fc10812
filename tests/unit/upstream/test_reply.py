# The reader alone: what it says of a reply is known as soon as the bytes are, and does not outlive the reply.
"""upstream/reply.py; how a connection acts on it is in test_upstream_h1.py."""

from __future__ import annotations

import httptools
import pytest

from edgeproxy.faults import Fault
from edgeproxy.message import Reply
from edgeproxy.upstream.reply import ReplyReader, Switched

OK = b"HTTP/1.1 200 OK\r\n"
FULL = OK + b"Content-Type: text/event-stream; x\r\nKeep-Alive: timeout=9\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok"


def read(reader: ReplyReader, raw: bytes, step: int) -> Reply | Fault | None:
    """Feeds `raw` in pieces; the head as it was when it was ready."""
    head = None
    for at in range(0, len(raw), step):
        reader.feed(raw[at : at + step])
        if reader.head_ready:
            reader.head_ready = False
            head = reader.head(step)
        elif head is None:
            assert not reader.endless(step)
    return head


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_a_reply_leaves_nothing_behind(step: int) -> None:
    reader = ReplyReader()
    for _ in range(2):
        head = read(reader, FULL, step)
        assert isinstance(head, Reply)
        assert (head.status, head.length, head.stream, head.bodiless) == (200, 2, True, False)
        assert head.headers == [(b"content-type", b"text/event-stream; x")]
        assert (b"".join(reader.chunks), reader.kept, reader.upgrade) == (b"ok", 8.0, b"h2c")
        assert reader.complete and reader.keep_alive and reader.delimited() and not reader.overrun
        reader.chunks = []
        reader.renew()
        assert (reader.fed, reader.complete, reader.kept, reader.upgrade, reader.length) == (0, False, None, b"", None)
        head = read(reader, OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nx-t: u\r\n\r\n", step)
        assert isinstance(head, Reply)
        assert (head.length, head.stream, head.headers, reader.trailers) == (None, False, [], [(b"x-t", b"u")])
        reader.renew()


@pytest.mark.parametrize("step", [1, 1000])
def test_what_an_interim_head_says_is_not_of_the_final_one(step: int) -> None:
    reader = ReplyReader()
    raw = b"HTTP/1.1 103 Hints\r\nContent-Type: text/event-stream\r\nKeep-Alive: timeout=2\r\nLink: x\r\n\r\n" + OK
    head = read(reader, raw + b"Content-Length: 0\r\n\r\n", step)
    assert isinstance(head, Reply)
    assert (head.headers, head.stream, head.length, reader.kept) == ([], False, 0, None)


@pytest.mark.parametrize("step", [1, 1000])
def test_a_reply_to_head_has_no_content_whatever_it_says(step: int) -> None:
    reader = ReplyReader()
    for _ in range(2):
        reader.head_only = True
        head = read(reader, OK + b"Content-Length: 5\r\n\r\n", step)
        assert isinstance(head, Reply)
        assert (head.length, head.bodiless, reader.complete) == (5, True, True)
        reader.renew()


def test_bytes_behind_the_reply_are_noticed_and_change_nothing() -> None:
    for more in (OK + b"X: y\r\nContent-Length: 9\r\n\r\n123456789", OK + b"Content-Length: 0\r\n\r\n"):
        reader = ReplyReader()
        head = read(reader, FULL + more, 1000)
        assert isinstance(head, Reply)
        assert (head.length, reader.chunks, reader.trailers, reader.overrun) == (2, [b"ok"], [], True)


@pytest.mark.parametrize(
    "fields", [b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"X: y\r\n" * 201]
)
def test_heads_that_are_not_believed(fields: bytes) -> None:
    reader = ReplyReader()
    try:
        assert isinstance(read(reader, OK + fields + b"\r\n", 10_000), Fault)
    except httptools.HttpParserError:
        assert b"Content-Length" in fields


@pytest.mark.parametrize("raw", [b"HTTP/1.1 ", b"ICY 200 OK", b"HTTP/2.0 200 OK", b"RTSP/1.0 200"])
def test_other_protocols(raw: bytes) -> None:
    for step in (1, 3, 100):
        reader = ReplyReader()
        for at in range(0, 7, step):
            if not reader.is_http(raw[at : at + step]):
                break
            reader.fed += step
        else:
            assert raw.startswith(b"HTTP/1.")
            continue
        assert not raw.startswith(b"HTTP/1.")


def test_a_switch_of_protocols() -> None:
    reader = ReplyReader()
    with pytest.raises(Switched) as switch:
        reader.feed(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\nX: y\r\n\r\nbytes")
    assert switch.value.args[0] == len(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\nX: y\r\n\r\n")
    reply = reader.switched()
    assert (reply.status, reply.headers, reader.upgrade, reader.head_ready) == (101, [(b"x", b"y")], b"websocket", False)


def test_endless_heads() -> None:
    reader = ReplyReader()
    reader.feed(OK)
    assert not reader.endless(64 * 1024)
    assert reader.endless(1)
    reader = ReplyReader()
    reader.feed(b"HTTP/1.1 100 Continue\r\n\r\n" * 9)
    assert reader.endless(1)
