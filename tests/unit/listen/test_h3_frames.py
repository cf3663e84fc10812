# Frames of a request stream, in whatever pieces they come: one meaning, and each rule with its own error.
"""listen/h3_frames.py."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.listen import h3_codes as h3
from edgeproxy.listen.h3_codes import H3Error
from edgeproxy.listen.h3_frames import FrameReader
from edgeproxy.quic.varint import LARGEST, write

MOST = 300


def frame(kind: int, payload: bytes) -> bytes:
    return write(kind) + write(len(payload)) + payload


HEAD = frame(h3.HEADERS, b"head")
BODY = frame(h3.DATA, b"some content")
EMPTY = frame(h3.DATA, b"")
TRAILERS = frame(h3.HEADERS, b"trailers")
UNKNOWN = frame(0x21, b"grease" * 3)
LONG_FORM = b"\xc0\0\0\0\0\0\0\0\x80\0\0\x03abc"  # DATA with 8 bytes of type and 4 of length

GOOD = [
    (HEAD, ([b"head"], b"")),
    (HEAD + BODY, ([b"head"], b"some content")),
    (UNKNOWN + HEAD + UNKNOWN + BODY + EMPTY + BODY + UNKNOWN, ([b"head"], b"some content" * 2)),
    (HEAD + TRAILERS, ([b"head", b"trailers"], b"")),
    (HEAD + BODY + TRAILERS + UNKNOWN, ([b"head", b"trailers"], b"some content")),
    (HEAD + LONG_FORM + frame(0x1F * (1 << 20) + 0x21, b""), ([b"head"], b"abc")),
    (frame(h3.HEADERS, b"x" * MOST) + frame(h3.DATA, b"y" * 2000), ([b"x" * MOST], b"y" * 2000)),
]  # fmt: skip

BAD = [
    (BODY, h3.FRAME_UNEXPECTED),
    (EMPTY, h3.FRAME_UNEXPECTED),
    (UNKNOWN + BODY, h3.FRAME_UNEXPECTED),
    (HEAD + TRAILERS + BODY, h3.FRAME_UNEXPECTED),
    (HEAD + TRAILERS + TRAILERS, h3.FRAME_UNEXPECTED),
    (frame(h3.HEADERS, b"x" * (MOST + 1)), h3.EXCESSIVE_LOAD),
    (HEAD + b"\x01" + write(LARGEST), h3.EXCESSIVE_LOAD),
    *((HEAD + frame(kind, b"x"), h3.FRAME_UNEXPECTED) for kind in (
        h3.CANCEL_PUSH, h3.SETTINGS, h3.PUSH_PROMISE, h3.GOAWAY, h3.MAX_PUSH_ID, 0x02, 0x06, 0x08, 0x09,
    )),
]  # fmt: skip


class Receiver:
    """Remembers."""

    def __init__(self) -> None:
        self.sections: list[bytes] = []
        self.content = b""

    def on_section(self, block: bytes) -> None:
        """See `h3_frames.Receiver`."""
        self.sections.append(block)

    def on_content(self, data: bytes) -> None:
        """See `h3_frames.Receiver`."""
        assert data
        self.content += data


def read(*pieces: bytes, end: bool = True) -> tuple[tuple[list[bytes], bytes], int, bool | None]:
    """(sections and content, overhead, whether there was a head)."""
    reader, receiver = FrameReader(MOST), Receiver()
    overhead = 0
    for piece in pieces:
        reader.feed(piece, receiver)
        overhead += reader.overhead
        reader.overhead = 0
    return (receiver.sections, receiver.content), overhead, reader.end() if end else None


@pytest.mark.parametrize(("data", "expected"), GOOD)
def test_whole_split_everywhere_and_byte_by_byte(data: bytes, expected: tuple[list[bytes], bytes]) -> None:
    overhead = len(data) - len(expected[1])
    assert read(data) == (expected, overhead, True)
    for at in range(1, min(len(data), 400)):
        assert read(data[:at], data[at:]) == (expected, overhead, True), at
    assert read(*(data[at : at + 1] for at in range(len(data)))) == (expected, overhead, True)


@pytest.mark.parametrize(("data", "code"), BAD)
def test_bad_frames(data: bytes, code: int) -> None:
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        with pytest.raises(H3Error) as caught:
            read(*pieces)
        assert caught.value.code == code


@pytest.mark.parametrize("data", [case[0] for case in GOOD[:5]])
def test_ends_inside_a_frame(data: bytes) -> None:
    """RFC 9114 §7.1."""
    ends = {0}
    at = 0
    while at < len(data):
        at += 2 + data[at + 1]
        ends.add(at)
    for at in range(len(data)):
        if at in ends:
            assert read(data[:at])[2] is (at > data.index(HEAD))
        else:
            with pytest.raises(H3Error) as caught:
                read(data[:at])
            assert caught.value.code == h3.FRAME_ERROR


def test_nothing_at_all_is_no_head() -> None:
    assert read() == (([], b""), 0, False)
    assert read(UNKNOWN)[2] is False


def test_noise_is_what_leads_to_nothing() -> None:
    reader = FrameReader(MOST)
    reader.feed(HEAD + BODY, Receiver())
    assert reader.noise == 0
    reader.feed(UNKNOWN + EMPTY, Receiver())
    assert reader.noise == len(UNKNOWN + EMPTY)
    reader.feed(frame(0x21, bytes(5000))[:100], Receiver())
    assert reader.noise == len(UNKNOWN + EMPTY) + 100


FRAMES = st.one_of(
    st.sampled_from([HEAD, BODY, TRAILERS, UNKNOWN, EMPTY, LONG_FORM]),
    st.builds(frame, st.integers(0, 0x40), st.binary(max_size=30)), st.binary(max_size=20),
)  # fmt: skip


@given(st.lists(FRAMES, max_size=6).map(b"".join), st.lists(st.integers(1, 20), max_size=20))
@settings(max_examples=200, deadline=None)
def test_pieces_make_no_difference(data: bytes, sizes: list[int]) -> None:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    pieces.append(data[at:])

    def outcome(parts: list[bytes]) -> object:
        try:
            return read(*parts)
        except H3Error as error:
            return error.code

    assert outcome(pieces) == outcome([data])
