# A head that is taken for a known one must mean exactly what the parser would have made of it.
"""listen/repeat.py, alone and behind a real H1Connection."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.pipeline import Stand

from edgeproxy.listen.repeat import Repeat

POST = b"POST /v1/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nX: y\r\n\r\n"
BASES = [
    POST + b"hello",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length:5\r\nHost: localhost\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: localhost\r\ncontent-length: \t5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5 \r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\t\r\nX: y\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 05\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
    b"POST / HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nX: Content-Length: 9\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: x-hop\r\nX-Hop: 1\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"POST http://localhost/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
    b"\r\nPOST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
]
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
NUMBERS = [
    b"", b"0", b"4", b"5", b"6", b"05", b"005", b"0000000005", b"00000000005", b"+5", b"-5", b" 5", b"5 ", b"5\t", b"5,5",
    b"5, 5", b"0x5", b"5_", b"5.", b"\xb2", b"999999999", b"9999999999", b"5\r\nContent-Length: 5",
    b"5\r\nTransfer-Encoding: chunked", b"5\r\n x", b"5\rX", b"5\nX: y", b"5\x00",
]  # fmt: skip


def twice_then(stand: Stand, base: bytes, raw: bytes, step: int = 0) -> tuple[object, ...]:
    """What `raw` comes to behind two equal requests."""
    driver = stand.h1()
    driver.feed(base).feed(base)
    if driver.h1.exchange is not None or driver.link.is_closing():
        pytest.fail("the base is no whole request")
    stand.pool.jobs = []
    driver.link.written = b""
    driver.feed(raw, step=step)
    return driver.result()


def alone(stand: Stand, raw: bytes) -> tuple[object, ...]:
    """What `raw` comes to on a new connection."""
    return stand.h1().feed(raw).result()


@pytest.fixture(scope="module")
def stand() -> Stand:
    return Stand()


@pytest.mark.parametrize("base", BASES)
def test_the_same_again(stand: Stand, base: bytes) -> None:
    assert twice_then(stand, base, base) == alone(stand, base)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("base", BASES)
def test_another_number(stand: Stand, base: bytes, number: bytes) -> None:
    for old in (b"5", b"0"):
        raw = base.replace(b"ength: " + old, b"ength: " + number)
        for body in (b"", b"X", b"X" * 6, SMUGGLED):
            assert twice_then(stand, base, raw + body) == alone(stand, raw + body)


TARGETS = [
    b"/", b"/other", b"/v1/chat?x=1", b"/v1?x=1?y=%20&z=a+b", b"/a/../b", b"/%2e%2e/a", b"//a", b"/a//b", b"/a;b=c,d'(e)*!@:",
    b"*", b"", b"a", b"http://localhost/a", b"http://other/a", b"localhost:80", b"/a#b", b"/a b", b"/a\tb", b"/a\x00", b'/"',
    b"/<x>", b"/\xc3\xa9", b"/a HTTP/1.1\r\nX: y", b"/a HTTP/1.0", b"/a  ", b" /a", b"/a HTTP/1.1 ", b"/" + b"a" * 9000,
    b"/" + b"a" * 8100, b"/a\nX: y", b"/a\rX: y",
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("base", BASES)
def test_another_target(stand: Stand, base: bytes, target: bytes) -> None:
    """Also where the first one comes again behind it, and with other bodies."""
    method, _, rest = base.lstrip(b"\r\n").partition(b" ")
    raw = method + b" " + target + rest[rest.index(b" HTTP/1.") :]
    for more in (b"", b"X", SMUGGLED):
        assert twice_then(stand, base, raw + more) == alone(stand, raw + more)
    if not alone(stand, raw)[2] and alone(stand, raw)[0]:
        assert twice_then(stand, raw, base) == alone(stand, base)
    for other in (b"GET ", b"HEAD ", b"OPTIONS ", b"CONNECT ", b"post ", b"PROPFIND ", b"PRI ", b"DESCRIBE "):
        assert twice_then(stand, base, other + raw.partition(b" ")[2]) == alone(stand, other + raw.partition(b" ")[2])


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(BASES), st.binary(max_size=12) | st.text("/ab.%2e;?#=&\\ ", max_size=12).map(str.encode), st.booleans())
def test_any_target(base: bytes, target: bytes, slash: bool) -> None:
    method, _, rest = base.lstrip(b"\r\n").partition(b" ")
    raw = method + b" " + b"/" * slash + target + rest[rest.index(b" HTTP/1.") :]
    assert twice_then(_shared(), base, raw) == alone(_shared(), raw)


def test_the_parser_is_not_asked_for_another_target(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = stand.h1()
    driver.feed(POST + b"hello")

    def fail(*_: object) -> None:
        pytest.fail("the head was parsed")

    monkeypatch.setattr("edgeproxy.listen.h1.build_request", fail)
    for target, body in ((b"/v1/models?a=b", b"hello"), (b"/v1/chat", b"hello, hello"), (b"/v1/chat", b"hello"), (b"/", b"")):
        raw = POST.replace(b"/v1/chat", target).replace(b": 5", b": %d" % len(body)) + body
        driver.feed(raw)
        job = stand.pool.jobs[-1]
        assert (job.exchange.request.target, job.body, job.exchange.request.length) == (target, body, len(body))
    assert len(stand.pool.jobs) == 5


@pytest.mark.parametrize("base", BASES)
def test_every_byte_changed_left_out_or_doubled(stand: Stand, base: bytes) -> None:
    for at in range(len(base)):
        for raw in (
            base[:at] + base[at + 1 :],
            base[:at] + base[at : at + 1] * 2 + base[at + 1 :],
            base[:at] + b"\r" + base[at + 1 :],
            base[:at] + b"\n" + base[at:],
            base[:at] + b" " + base[at:],
            base[:at] + b"\x00" + base[at + 1 :],
        ):
            assert twice_then(stand, base, raw) == alone(stand, raw), raw


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("extra", [b"\r\n", b"X", SMUGGLED, b"\x00", b"0\r\n\r\n"])
def test_more_behind_or_before(stand: Stand, base: bytes, extra: bytes) -> None:
    for raw in (base + extra, extra + base, base + base, b"\r\n" + base + base):
        assert twice_then(stand, base, raw) == alone(stand, raw)


@pytest.mark.parametrize("base", BASES)
def test_split_everywhere(stand: Stand, base: bytes) -> None:
    """A repeated request in two reads: above all with its head alone in the first."""
    whole = alone(stand, base + SMUGGLED)
    for at in range(1, len(base)):
        driver = stand.h1()
        driver.feed(base).feed(base)
        stand.pool.jobs = []
        driver.link.written = b""
        driver.feed(base[:at]).feed(base[at:] + SMUGGLED)
        if b"Expect" in base:
            driver.link.written = driver.link.written.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
        assert driver.result() == whole, at


@pytest.mark.parametrize("base", BASES)
def test_content_is_no_request(stand: Stand, base: bytes) -> None:
    """The content behind a repeated head, in a read of its own, looks like a request and must not become one."""
    head, blank, body = base.lstrip(b"\r\n").partition(b"\r\n\r\n")
    if not body or b"chunked" in base:
        return
    length = len(SMUGGLED)
    raw = head.replace(b"5", b"%d" % length)
    driver = stand.h1()
    first = raw + blank + b"x" * length
    driver.feed(first).feed(first)
    stand.pool.jobs = []
    driver.feed(raw + blank).feed(SMUGGLED)
    assert [job.body for job in stand.pool.jobs] == [SMUGGLED]




@st.composite
def variations(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A base, and bytes that are nearly it."""
    base = draw(st.sampled_from(BASES))
    raw = bytearray(base)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(raw)))
        kind = draw(st.integers(0, 3))
        piece = draw(
            st.sampled_from([b"\r\n", b"\n", b"\r", b" ", b"\t", b"0", b"5", b"9", b":", b"Content-Length: 3\r\n", b"\x00"])
            | st.binary(max_size=3)
        )
        if kind == 0:
            raw[at:at] = piece
        elif kind == 1:
            del raw[at : at + draw(st.integers(1, 3))]
        elif kind == 2:
            raw[at : at + len(piece)] = piece
        else:
            raw += piece
    return base, bytes(raw)


@settings(max_examples=400, deadline=None)
@given(variations())
@example((BASES[4], BASES[4][:-5]))
def test_any_variation(pair: tuple[bytes, bytes]) -> None:
    base, raw = pair
    stand = _shared()
    assert twice_then(stand, base, raw) == alone(stand, raw)


_stands: list[Stand] = []


def _shared() -> Stand:
    """Hypothesis wants no function fixtures; one stand serves all examples (it holds no state between connections)."""
    if not _stands:
        _stands.append(Stand())
    return _stands[0]


@given(st.binary(max_size=80))
def test_match_takes_only_whole_messages(raw: bytes) -> None:
    known = Repeat.of(POST)
    assert known is not None
    assert known.match(raw) == -1
    length = len(raw)
    assert known.match(POST.replace(b": 5", b": %d" % length) + raw) == length
    assert known.match(POST.replace(b": 5", b": %d" % (length + 1)) + raw) == -1


@pytest.mark.parametrize("raw", [
    b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n", b"\r\n\r\n", b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    b"\nGET / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\ntransfer-encoding:chunked\r\n\r\n", b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n",
])  # fmt: skip
def test_what_is_not_kept(raw: bytes) -> None:
    assert Repeat.of(raw) is None


def test_a_new_snapshot_is_noticed(stand: Stand) -> None:
    driver = stand.h1()
    driver.feed(BASES[0]).feed(BASES[0])
    other = Stand()
    stand_snapshot = stand.gateway.snapshot
    stand.gateway.snapshot = other.snapshot
    try:
        driver.feed(BASES[0])
        assert len(other.pool.jobs) == 1
        assert len(stand.pool.jobs) == 2
    finally:
        stand.gateway.snapshot = stand_snapshot


def test_the_fast_path_is_taken(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else every test here would compare the parser with itself."""
    matched: list[int] = []
    real = Repeat.match

    def match(self: Repeat, raw: bytes) -> int:
        matched.append(real(self, raw))
        return matched[-1]

    monkeypatch.setattr(Repeat, "match", match)
    driver = stand.h1()
    for number in (5, 6, 0, 123):
        driver.feed(POST.replace(b": 5", b": %d" % number) + b"x" * number)
    assert matched == [6, 0, 123]
    assert [job.body for job in stand.pool.jobs] == [b"x" * number for number in (5, 6, 0, 123)]
    assert [job.exchange.request.length for job in stand.pool.jobs] == [5, 6, 0, 123]
