# The client side of HTTP/1.1, fed with bytes: what comes of a reply never depends on how it was cut into reads.
from __future__ import annotations

import pytest
from support.replying import Exchange, begin, begun

from edgeproxy.deadlines import NEVER
from edgeproxy.message import Headers

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"transfer-encoding: chunked\r\nx-a: b\r\n\r\n"
HINTS = b"HTTP/1.1 103 Hints\r\nlink: x\r\n\r\n"
REPLIES: dict[str, tuple[bytes, bytes, Headers]] = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello", b"hello", []),
    "chunked": (OK + CHUNKED + b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n", b"hello", []),
    "trailers": (OK + CHUNKED + b"5\r\nhello\r\n0\r\nx-t: u\r\n\r\n", b"hello", [(b"x-t", b"u")]),
    "interim": (HINTS + OK + b"content-length: 5\r\nx-a: b\r\n\r\nhello", b"hello", []),
    "nothing": (b"HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n", b"", []),
}


@pytest.mark.parametrize("name", REPLIES)
def test_replies_cut_everywhere(name: str) -> None:
    raw, content, trailers = REPLIES[name]
    for at in range(len(raw) + 1):
        exchange = Exchange()
        connection, pool, wire = begun(exchange)
        for piece in (raw[:at], raw[at:]):
            if piece:
                connection.data_received(piece)
        assert exchange.ended == 1, at
        assert exchange.content == content, at
        assert exchange.head is not None
        assert exchange.head.headers == [(b"x-a", b"b")], at
        assert exchange.fields == trailers
        assert pool.faults == []
        assert pool.returned == [connection], at
        assert not wire.aborted


@pytest.mark.parametrize("name", REPLIES)
def test_replies_byte_by_byte(name: str) -> None:
    raw, content, _ = REPLIES[name]
    exchange = Exchange()
    connection, pool, _ = begun(exchange)
    for at in range(len(raw)):
        connection.data_received(raw[at : at + 1])
    assert (exchange.ended, exchange.content) == (1, content)
    assert pool.returned == [connection]


BROKEN = {
    "two framings": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n",
    "unknown coding": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
    "not HTTP": b"ICY 200 OK\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n",
    "a negative length": b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\n",
    "a bad field": b"HTTP/1.1 200 OK\r\nx y: z\r\n\r\n",
    "status 999": b"HTTP/1.1 999 X\r\ncontent-length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_heads_cut_everywhere(name: str) -> None:
    raw = BROKEN[name]
    for at in range(len(raw)):
        exchange = Exchange()
        connection, pool, wire = begun(exchange)
        for piece in (raw[:at], raw[at:]):
            if piece and not wire.aborted:
                connection.data_received(piece)
        assert exchange.head is None, at
        assert [fault.status for fault, _ in pool.faults] == [502], at
        assert wire.aborted
        assert pool.returned == []


def test_a_request_without_content_says_so_only_where_it_must() -> None:
    for method, expected in ((b"GET", b"\r\n\r\n"), (b"DELETE", b"\r\n\r\n"), (b"POST", b"\r\ncontent-length: 0\r\n\r\n")):
        _, _, wire = begun(Exchange(method))
        assert wire.data == b"GET / HTTP/1.1\r\nhost: a\r\nx-ray-id: 0123456789abcdef" + expected


def test_an_unknown_length_goes_out_in_chunks() -> None:
    exchange = Exchange(b"POST", None)
    exchange.body.push(b"first")
    _, _, wire = begun(exchange)
    exchange.body.push(b"second")
    exchange.body.finish()
    assert wire.data.partition(b"\r\n\r\n")[2] == b"5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n"
    assert wire.data.count(b"transfer-encoding: chunked\r\n") == 1


def test_a_whole_body_is_kept_for_a_repetition() -> None:
    exchange = Exchange(b"PUT", 5)
    exchange.body.push(b"hello")
    exchange.body.finish()
    for _ in range(2):
        _, _, wire = begun(exchange)
        assert wire.data.endswith(b"content-length: 5\r\n\r\nhello")
        assert exchange.body.whole


@pytest.mark.parametrize(
    ("reused", "sent", "retry"),
    [(False, b"", False), (True, b"", True), (True, b"H", False), (True, b"HTTP/1.1 100 C\r\n\r\n", False)],
)
def test_only_a_reused_connection_that_died_without_a_byte_may_be_repeated(reused: bool, sent: bytes, retry: bool) -> None:
    connection, pool, _ = begun(Exchange())
    connection.reused = reused
    if sent:
        connection.data_received(sent)
    connection.connection_lost(None)
    ((fault, _),) = pool.faults
    assert fault.retry is retry
    assert pool.gone == [connection]


def test_timers() -> None:
    exchange = Exchange()
    connection, pool, _ = begun(exchange)
    assert connection.deadline == 1000 + 120
    connection.data_received(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    assert connection.deadline == 1000 + 60
    connection.pause()
    assert connection.deadline == NEVER  # the client's time runs, not the upstream's
    connection.resume()
    assert connection.deadline == 1000 + 60
    pool.deadlines.now = 1050.0
    connection.data_received(b"1\r\nx\r\n")
    assert connection.deadline == 1050 + 60
    connection.data_received(b"0\r\n\r\n")
    assert connection.deadline == 1050 + 60  # keepalive
    assert connection.exchange is None


@pytest.mark.parametrize(
    ("hint", "kept"),
    [
        (b"timeout=5", 4.0), (b"timeout=1", 0.0), (b"timeout=0", 0.0), (b"timeout=600", 60.0), (b"max=5", 60.0),
        (b"timeout=x", 60.0),
    ],
)
def test_keep_alive_hints(hint: bytes, kept: float) -> None:
    connection, _, _ = begun(Exchange())
    connection.data_received(b"HTTP/1.1 200 OK\r\nkeep-alive: " + hint + b"\r\ncontent-length: 0\r\n\r\n")
    assert connection.deadline == 1000 + kept


def test_bytes_while_idle_close_it() -> None:
    connection, _, wire = begun(Exchange())
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    assert wire.aborted


def test_head_ends_with_its_head() -> None:
    exchange = Exchange(b"HEAD")
    connection, pool, _ = begun(exchange)
    connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n")
    assert exchange.ended == 1
    assert exchange.head is not None
    assert (exchange.head.length, exchange.head.bodiless) == (500, True)
    assert pool.returned == [connection]


def test_fields_that_only_the_edge_may_set_are_left_out() -> None:
    exchange = Exchange()
    connection, _, _ = begun(exchange)
    own = b"Strict-Transport-Security: max-age=0\r\nAlt-Svc: x\r\nX-Ray-ID: y\r\nproxy-authenticate: z\r\n"
    named = b"connection: keep-alive, x-hop\r\nx-hop: 1\r\nx-end: 2\r\n"
    connection.data_received(b"HTTP/1.1 200 OK\r\n" + own + named + b"content-length: 0\r\n\r\n")
    assert exchange.head is not None
    assert exchange.head.headers == [(b"x-end", b"2")]


@pytest.mark.parametrize("first", [b"GET", b"HEAD"])
@pytest.mark.parametrize("second", [b"GET", b"HEAD"])
@pytest.mark.parametrize("times", [1, 3])
def test_a_connection_that_is_taken_again_while_its_reply_ends(first: bytes, second: bytes, times: int) -> None:
    """The pool begins the next exchange from inside `released`: that one gets its own reply, the first one its own."""
    content = {b"GET": b"hello", b"HEAD": b""}
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    exchange, following = Exchange(first), Exchange(second)
    connection, pool, wire = begun(exchange)
    for _ in range(times - 1):  # so that the head is known
        connection.data_received(raw + content[first])
        exchange = Exchange(first)
        begin(connection, exchange)
    pool.released = lambda again: begin(again, following) if following.attempt is None else None  # type: ignore[method-assign]
    connection.data_received(raw + content[first])
    assert (exchange.content, exchange.ended, following.ended) == (content[first], 1, 0)
    connection.data_received(raw + content[second])
    assert (following.content, following.ended) == (content[second], 1)
    assert not wire.aborted
