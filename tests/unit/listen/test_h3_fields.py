# Field sections both ways: aioquic's QPACK and ours understand each other, and malformed requests are refused.
"""listen/h3_fields.py."""

from __future__ import annotations

import contextlib

import pylsqpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.listen import h3_codes as h3
from edgeproxy.listen.h3_codes import H3Error, StreamError
from edgeproxy.listen.h3_fields import _NEVER_REPEATED, MAX_LINES, Decoder, Encoder, check_request, check_trailers

GET = ((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"edge.test"), (b":path", b"/"))
NAMES = st.one_of(
    st.sampled_from(sorted(_NEVER_REPEATED)),
    st.sampled_from([b":status", b"content-type", b"date", b"etag", b"link", b"vary", b"x-a", b"location", b"alt-svc"]),
    st.from_regex(rb"[a-z][a-z0-9-]{0,20}", fullmatch=True),
)
VALUES = st.one_of(st.binary(max_size=300), st.sampled_from([b"", b"0", b"200", b"text/html", b"x" * 126, b"x" * 127]))
SECTIONS = st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=12)


def decoded(block: bytes) -> list[tuple[bytes, bytes]]:
    _, fields = pylsqpack.Decoder(0, 0).feed_header(0, block)
    return [(bytes(name), bytes(value)) for name, value in fields]


@given(st.lists(SECTIONS, min_size=1, max_size=4))
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read(sections: list[list[tuple[bytes, bytes]]]) -> None:
    """By a decoder without a table, in any order, twice over: nothing refers to what was said before."""
    encoder = Encoder()
    for section in sections + sections[::-1]:
        assert decoded(encoder.section(section)) == section


@pytest.mark.parametrize("name", sorted(_NEVER_REPEATED))
@pytest.mark.parametrize("value", [b"", b"x", b"\xff" * 126, b"y" * 127, b"z" * 5000])
def test_names_whose_values_differ(name: bytes, value: bytes) -> None:
    """Some of these stand in the static table with an empty value."""
    encoder = Encoder()
    for _ in range(2):
        assert decoded(encoder.section([(name, value)])) == [(name, value)]
    assert encoder._lines == {}, "not remembered"


def test_what_is_remembered_is_bounded() -> None:
    encoder = Encoder()
    for index in range(3 * MAX_LINES):
        encoder.section([(b"x-a", b"%d" % index), (b"x-b", b"z" * 2000)])
        assert len(encoder._lines) <= MAX_LINES
    assert encoder.section([(b"x-a", b"7")]) == encoder.section([(b"x-a", b"7")])


def test_requests_are_read() -> None:
    _, block = pylsqpack.Encoder().encode(0, list(GET))
    assert Decoder().section(0, block) == GET


def test_a_section_may_be_empty() -> None:
    assert Decoder().section(0, b"\0\0") == ()
    assert check_trailers(()) == []


@pytest.mark.parametrize("block", [
    b"", b"\0", b"\x02\0\x80", b"\0\0\x80", b"\0\0\xff\xff\xff\xff\xff", b"\0\0\x10", b"\0\0\x51\x05a",
])  # fmt: skip
def test_what_can_not_be_read(block: bytes) -> None:
    """RFC 9204 §2.2.3, §6: dynamic references and what ends early."""
    with pytest.raises(H3Error) as caught:
        Decoder().section(0, block)
    assert caught.value.code == h3.QPACK_DECOMPRESSION_FAILED


@given(st.lists(st.binary(max_size=60), max_size=4))
@settings(max_examples=250, deadline=None)
def test_any_block_is_read_or_refused(blocks: list[bytes]) -> None:
    decoder = Decoder()
    for index, block in enumerate(blocks):
        try:
            section = decoder.section(4 * index, block)
        except H3Error:
            continue
        assert sum(len(name) + len(value) for name, value in section) <= 200 * (len(block) + 1), "bounded"
        with contextlib.suppress(StreamError):
            check_request(section)


def without(name: bytes) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(field for field in GET if field[0] != name)


def with_value(name: bytes, value: bytes) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((key, value if key == name else old) for key, old in GET)


@pytest.mark.parametrize("section", [
    without(b":method"), without(b":path"), without(b":scheme"), (),
    (*GET, (b":path", b"/")), (*GET, (b":status", b"200")), (*GET, (b":protocol", b"websocket")),
    ((b"accept", b"*/*"), *GET), (*GET[:3], (b"a", b"b"), GET[3]),
    with_value(b":path", b""), with_value(b":method", b""), with_value(b":authority", b""), with_value(b":scheme", b""),
    *(with_value(b":method", method) for method in (b"G(T", b"G\x80T", b"GET/x", b"g:t", b'"', b"GET,")),
    with_value(b":path", b"/a b"), with_value(b":method", b"GET "), with_value(b":path", b"/\r\nx"),
    with_value(b":authority", b"a\0"),
    *((*GET, (name, b"x")) for name in (b"", b"Upper", b"a b", b"a:b", b"\xe9", b"a\n", b":")),
    *((*GET, (b"a", value)) for value in (b"\0", b"a\rb", b"a\nb", b"\x7f", b" a", b"a ", b"\ta", b"\x1b")),
    *((*GET, (name, b"x")) for name in (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")),
    (*GET, (b"te", b"gzip")), (*GET, (b"te", b"trailers, gzip")),
    (*GET, (b"content-length", b"1"), (b"content-length", b"1")), (*GET, (b"content-length", b"1"), (b"content-length", b"2")),
])  # fmt: skip
def test_malformed_requests(section: tuple[tuple[bytes, bytes], ...]) -> None:
    """RFC 9114 §4.1.2, §4.2, §4.3.1."""
    with pytest.raises(StreamError) as caught:
        check_request(section)
    assert caught.value.code == h3.MESSAGE_ERROR


@pytest.mark.parametrize("section", [
    GET, without(b":authority"), (*GET, (b"te", b"trailers")), (*GET, (b"a", b"")), (*GET, (b"a", b"b c\td")),
    (*GET, (b"a", b"\xff\x80")), (*GET, (b"cookie", b"a=b"), (b"cookie", b"c=d")), (*GET, (b"!#$%&'*+-.^_`|~0a", b"x")),
    (*GET, (b"content-length", b"7")),
])  # fmt: skip
def test_good_requests(section: tuple[tuple[bytes, bytes], ...]) -> None:
    check_request(section)


def test_trailers() -> None:
    assert check_trailers(((b"x-sum", b"1"),)) == [(b"x-sum", b"1")]
    for bad in ((b":status", b"200"), (b":path", b"/"), (b"X", b"1"), (b"a", b"\n"), (b"connection", b"x"), (b"te", b"gzip")):
        with pytest.raises(StreamError):
            check_trailers((bad,))
