# First frames of HTTP/2 and transport parameters: what is read of them, in which order, and up to where.
"""listen/first.py."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hellos import made

from edgeproxy.listen.first import MAX_PARAMETERS, MAX_PRIORITIES, h2_print, h3_print, pseudo_order, transport_parameters
from edgeproxy.prints import H2Print, H3Print, Prints
from edgeproxy.quic import varint

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SECTION = ((b":method", b"GET"), (b":authority", b"a"), (b":scheme", b"https"), (b":path", b"/"), (b"accept", b"*/*"))
CHROMIUM = "1:65536;2:0;4:6291456;6:262144|15663105|0|m,a,s,p"


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(4, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def window(size: int, stream: int = 0) -> bytes:
    return frame(8, size.to_bytes(4, "big"), stream=stream)


def priority(stream: int, depends: int, weight: int, exclusive: int = 0) -> bytes:
    return frame(2, (exclusive << 31 | depends).to_bytes(4, "big") + bytes([weight - 1]), stream=stream)


LIKE_CHROMIUM = PREFACE + settings((1, 65536), (2, 0), (4, 6291456), (6, 262144)) + window(15663105)
HEAD = frame(1, b"\x80\0\0\0\xff" + bytes(20), flags=0x25, stream=1)
OLD_FIREFOX = PREFACE + settings((1, 65536), (4, 131072), (5, 16384)) + window(12517377) + b"".join(
    priority(stream, depends, weight) for stream, depends, weight in ((3, 0, 201), (5, 0, 101), (7, 0, 1), (9, 7, 1), (11, 3, 1))
)  # fmt: skip


def test_chromium() -> None:
    found = h2_print(LIKE_CHROMIUM + HEAD, SECTION)
    assert found.text() == CHROMIUM
    assert found.priority == (1, 0, 256)
    padded = frame(1, b"\x05\0\0\0\x03\x10" + bytes(20), flags=0x2D, stream=1)
    assert h2_print(LIKE_CHROMIUM + padded, SECTION).priority == (0, 3, 17)


def test_priority_frames() -> None:
    """The example of the white paper that the form comes from."""
    order = tuple(SECTION[at] for at in (0, 3, 1, 2))
    tree = "3:0:0:201,5:0:0:101,7:0:0:1,9:0:7:1,11:0:3:1"
    assert h2_print(OLD_FIREFOX + HEAD, order).text() == f"1:65536;4:131072;5:16384|12517377|{tree}|m,p,a,s"
    many = h2_print(PREFACE + priority(3, 0, 1, 1) * 40, SECTION)
    assert many.priorities == ((3, 1, 0, 1),) * MAX_PRIORITIES


def test_what_does_not_count() -> None:
    more = frame(4, flags=1) + settings((3, 7)) + window(5, stream=1) + frame(6, bytes(8)) + window(9) + frame(0xBA, b"grease")
    behind = HEAD + window(77) + priority(5, 0, 9)
    assert h2_print(LIKE_CHROMIUM + more + behind, SECTION).text() == CHROMIUM
    assert h2_print(PREFACE + settings() + HEAD, SECTION) == H2Print((), 0, (), "m,a,s,p", (1, 0, 256))
    assert h2_print(PREFACE + settings(), ()).text() == "|00|0|"


@given(st.integers(0, 200), st.binary(max_size=80))
def test_any_bytes(size: int, data: bytes) -> None:
    whole = OLD_FIREFOX + HEAD
    cut = h2_print(whole[:size], SECTION)
    full = h2_print(whole, SECTION)
    assert cut.settings == full.settings[: len(cut.settings)]
    assert cut.priorities == full.priorities[: len(cut.priorities)]
    h2_print(data, SECTION)
    h2_print(whole[:size] + data, SECTION)


def test_pseudo_order() -> None:
    assert pseudo_order(((b":path", b"/"), (b":method", b"GET"), (b"x", b""), (b":scheme", b"s"))) == "p,m"
    assert pseudo_order(((b":method", b"CONNECT"), (b":protocol", b"websocket"))) == "m,?"
    assert pseudo_order(()) == ""


# -- HTTP/3 ----------------------------------------------------------------------------------------------------------


def parameters(*pairs: tuple[int, bytes]) -> bytes:
    return b"".join(varint.write(name) + varint.write(len(value)) + value for name, value in pairs)


def test_transport_parameters() -> None:
    grease = (27, b"x"), (27 + 31 * 7, b"")
    raw = parameters((0x20, b"\x80\x01\0\0"), *grease, (0x04, b"\x80\xf0\0\0"), (0x0F, b""), (0x3128, b"abcd"))
    assert transport_parameters(raw) == ((4, b"\x80\xf0\0\0"), (15, b""), (0x20, b"\x80\x01\0\0"), (0x3128, b"abcd"))
    assert transport_parameters(parameters((1, b"a")) + b"\x04\x09abc") == ((1, b"a"),), "what comes before the broken one"
    assert len(transport_parameters(parameters((1, b"a")) * 200)) == MAX_PARAMETERS


@given(st.binary(max_size=100))
def test_any_parameters(raw: bytes) -> None:
    found = transport_parameters(raw)
    assert list(found) == sorted(found)


def test_h3() -> None:
    raw = parameters((4, b"\x80\xf0\0\0"), (1, b"\x80\0\x75\x30"), (15, b""))
    prints = Prints(made(extensions=[(0x39, raw)]), "q")
    found = h3_print(prints, [(1, 65536), (0x21 + 0x1F * 9, 4), (6, 262144), (0x21, 0), (51, 1)], SECTION)
    assert found.settings == ((1, 65536), (6, 262144), (51, 1))
    assert found.text() == "1:30000;4:15728640;15#0|1:65536;6:262144;51:1|m,a,s,p"
    assert h3_print(prints, None, SECTION).settings == ()
    assert h3_print(Prints(b"no hello", "q"), None, SECTION) == H3Print((), (), "m,a,s,p")


@pytest.mark.parametrize(("value", "shown"), [(b"\x05", "1:5"), (b"\x40\x05", "1:5"), (b"", "1#0"), (b"\x05\x05\x05", "1#3")])
def test_integers_of_parameters(value: bytes, shown: str) -> None:
    assert H3Print(((1, value),), (), "").text() == f"{shown}||"
