# A reply whose head is known must come to exactly what the parser would have made of it.
"""upstream/known.py, alone and behind a real UpstreamConnection."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.replying import Exchange, Pool, begin, begun

from edgeproxy.upstream.known import KnownHead, KnownHeads

LINE = b"HTTP/1.1 200 OK\r\n"
BASES = [
    LINE + b"Server: s\r\nDate: Sun, 22 Nov 2026 08:19:39 GMT\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello",
    LINE + b"content-length: 5\r\ncontent-type: text/event-stream\r\n\r\nhello",
    LINE + b"Content-Length: 0\r\n\r\n",
    LINE + b"Content-Length:5\r\n\r\nhello",
    LINE + b"Content-Length: 05\r\n\r\nhello",
    LINE + b"Content-Length: 5 \r\nX: y\r\n\r\nhello",
    LINE + b"CONTENT-LENGTH: 5\r\n\r\nhello",
    LINE + b"X: Content-Length: 9\r\nContent-Length: 5\r\n\r\nhello",
    LINE + b"X-Content-Length: 9\r\nContent-Length: 5\r\n\r\nhello",
    LINE + b"Content-Length: 5\r\nKeep-Alive: timeout=5\r\n\r\nhello",
    LINE + b"Content-Length: 5\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\nX-End: 2\r\n\r\nhello",
    LINE + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello",
    LINE + b"Content-Length: 5\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nhello",
    LINE + b"Content-Length: 27\r\n\r\nHTTP/1.1 200 OK\r\nX: hello\r\n",
    LINE + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-t: u\r\n\r\n",
    LINE + b"Set-Cookie: a=b\r\nSet-Cookie: c=d\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello",
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 103 Hints\r\nContent-Length: 5\r\n\r\n" + LINE + b"Content-Length: 5\r\n\r\nhello",
]
OTHER = LINE + b"X-Other: reply\r\nContent-Length: 2\r\n\r\nok"
NUMBERS = [
    b"", b"0", b"4", b"5", b"6", b"05", b"005", b"0000000005", b"00000000005", b"+5", b"-5", b" 5", b"5 ", b"5\t", b"5,5",
    b"5, 5", b"0x5", b"5_", b"5.", b"\xb2", b"999999999", b"9999999999", b"5\r\nContent-Length: 5",
    b"5\r\nTransfer-Encoding: chunked", b"5\r\n x", b"5\rX", b"5\nX: y", b"5\x00",
]  # fmt: skip


def result(pool: Pool, raw: bytes, method: bytes = b"GET", length: int | None = 0, cut: int = 0) -> tuple[object, ...]:
    """What `raw` comes to, in one read or cut in two, on a connection of its own to a target."""
    exchange = Exchange(method, length)
    connection, _, wire = begun(exchange, pool)
    for piece in (raw[:cut], raw[cut:]):
        if piece and not wire.aborted:
            connection.data_received(piece)
    reply = exchange.head
    head = reply and (reply.status, reply.headers, reply.length, reply.bodiless, reply.stream)
    reused = pool.returned == [connection] and not wire.aborted
    found = head, exchange.content, exchange.ended, exchange.fields, [fault.reason for fault, _ in pool.faults]
    seen = (*found, wire.aborted, connection.exchange is None, connection.deadline, connection.idle_timeout, reused)
    pool.returned, pool.faults = [], []
    if reused:
        # Whatever was read, the next reply on the same connection is its own.
        exchange = Exchange()
        begin(connection, exchange)
        connection.data_received(OTHER)
        assert (exchange.content, exchange.ended) == (b"ok", 1)
        pool.returned = []
    return seen


def taught(*bases: bytes) -> Pool:
    """A target that has sent these replies."""
    pool = Pool()
    for base in bases:
        result(pool, base)
    return pool


def compare(raw: bytes, *bases: bytes, method: bytes = b"GET", length: int | None = 0, cut: int = 0) -> None:
    assert result(taught(*bases), raw, method, length, cut) == result(Pool(), raw, method, length, cut), raw


@pytest.mark.parametrize("base", BASES)
def test_the_same_again(base: bytes) -> None:
    compare(base, base)
    compare(base, *BASES)
    compare(base, *reversed(BASES))


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("base", BASES)
def test_another_number(base: bytes, number: bytes) -> None:
    for old in (b"5", b"0"):
        raw = base.replace(b"ength: " + old, b"ength: " + number)
        for body in (b"", b"X", b"X" * 6, OTHER):
            compare(raw + body, base)


@pytest.mark.parametrize("base", BASES)
def test_every_byte_changed_left_out_or_doubled(base: bytes) -> None:
    for at in range(len(base)):
        for raw in (
            base[:at] + base[at + 1 :],
            base[:at] + base[at : at + 1] * 2 + base[at + 1 :],
            base[:at] + b"\r" + base[at + 1 :],
            base[:at] + b"\n" + base[at:],
            base[:at] + b" " + base[at:],
            base[:at] + b"\x00" + base[at + 1 :],
        ):
            compare(raw, base)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("extra", [b"\r\n", b"X", OTHER, b"\x00", b"0\r\n\r\n"])
def test_more_behind_or_before(base: bytes, extra: bytes) -> None:
    for raw in (base + extra, extra + base, base + base, base + extra + base):
        compare(raw, base, OTHER)


@pytest.mark.parametrize("base", BASES)
def test_split_everywhere(base: bytes) -> None:
    for at in range(1, len(base)):
        compare(base, base, cut=at)
        compare(base + OTHER, base, OTHER, cut=at)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(("method", "length"), [(b"HEAD", 0), (b"POST", 3), (b"POST", None)])
def test_other_requests(base: bytes, method: bytes, length: int | None) -> None:
    """To HEAD a reply ends with its head; one that comes before the request is out ends the connection."""
    compare(base, base, method=method, length=length)
    compare(base.partition(b"\r\n\r\n")[0] + b"\r\n\r\n", base, method=method, length=length)


def test_a_reply_to_head_teaches_nothing() -> None:
    raw = LINE + b"Content-Length: 0\r\n\r\n"
    pool = Pool()
    result(pool, raw, b"HEAD")
    assert pool.heads.match(raw) is None


@settings(max_examples=300, deadline=None)
@example(base=BASES[0], at=len(BASES[0]), gone=0, new=b"H")  # the first byte of a reply that nobody asked for
@example(base=BASES[0], at=40, gone=1, new=b"\r\nTransfer-Encoding: chunked")
@given(
    base=st.sampled_from(BASES), at=st.integers(0, 200), gone=st.integers(0, 5),
    new=st.one_of(st.binary(max_size=5), st.sampled_from(NUMBERS), st.sampled_from([b"\r\n", b"\r\n\r\n", b": ", OTHER])),
)  # fmt: skip
def test_anything_else(base: bytes, at: int, gone: int, new: bytes) -> None:
    compare(base[:at] + new + base[at + gone :], base, *BASES[:4])


def test_a_known_head_is_recognised_whatever_its_length() -> None:
    pool = taught(BASES[0])
    for content in (b"", b"x", b"x" * 4000):
        raw = BASES[0].replace(b"Length: 5", b"Length: %d" % len(content)).replace(b"hello", content)
        found = pool.heads.match(raw)
        assert found is not None
        assert found[1] == content


def test_heads_in_turn() -> None:
    """They begin or end alike, and the one that came last is looked at first."""
    heads = [
        LINE + b"X: 1\r\nContent-Length: 5\r\nY: 1\r\n\r\n",
        LINE + b"X: 1\r\nContent-Length: 5\r\nY: 2\r\n\r\n",
        LINE + b"X: 1\r\nContent-Length: 5\r\n\r\n",
        LINE + b"X: 2\r\nContent-Length: 5\r\nY: 1\r\n\r\n",
    ]
    pool = taught(*[head + b"hello" for head in heads])
    for first in heads:
        for second in heads:
            for head in (first, second, second, first):
                raw = head.replace(b": 5", b": 10") + b"helloworld"
                found = pool.heads.match(raw)
                assert found is not None
                assert found[1] == b"helloworld"
                assert result(pool, raw) == result(Pool(), raw)


def test_fields_of_a_known_head_are_not_shared() -> None:
    """The gateway adds its own to each reply."""
    pool = taught(BASES[0])
    for _ in range(2):
        exchange = Exchange()
        connection, _, _ = begun(exchange, pool)
        connection.data_received(BASES[0])
        assert exchange.head is not None
        assert [name for name, _ in exchange.head.headers] == [b"server", b"date"]
        exchange.head.headers.append((b"x", b"y"))


def unique(number: int) -> bytes:
    return LINE + b"X-Id: %d\r\nContent-Length: 0\r\n\r\n" % number


def test_it_is_bounded_and_rests_when_no_head_comes_again() -> None:
    heads = KnownHeads()
    for number in range(16):
        heads.learn(unique(number), 0, KnownHead(200, [], False, None))
    assert all(heads.match(unique(number)) for number in range(16))
    for number in range(100, 117):
        assert heads.match(unique(number)) is None
        heads.learn(unique(number), 0, KnownHead(200, [], False, None))
    assert heads.match(unique(0)) is None, "it rests"
    for _ in range(600):
        heads.match(b"")
    heads.learn(unique(0), 0, KnownHead(200, [], False, None))
    assert heads.match(unique(0)) is not None, "and tries again"
    for number in range(200):
        heads.learn(unique(number), 0, KnownHead(200, [], False, None))
        assert heads.match(unique(number)) is not None
    assert sum(heads.match(unique(each)) is not None for each in range(200)) <= 32


@pytest.mark.parametrize(
    ("raw", "length"),
    [
        (LINE + b"Content-Length: 5\r\n", 5),
        (LINE + b"Content-Length: 5\r\n\r\nhell", 5),
        (LINE + b"Content-Length: 5\r\n\r\nhellos", 5),
        (LINE + b"Content-Length: 5\r\n\r\nhello", 4),
        (LINE + b"Content-Length: 0000000005\r\n\r\nhello", 5),
        (LINE + b"X: y\r\n\r\nhello", 5),
        (LINE + b"X: " + b"y" * 5000 + b"\r\nContent-Length: 5\r\n\r\nhello", 5),
    ],
)  # fmt: skip
def test_what_does_not_look_as_it_was_parsed_is_not_kept(raw: bytes, length: int) -> None:
    heads = KnownHeads()
    heads.learn(raw, length, KnownHead(200, [], False, None))
    assert heads.match(raw) is None
