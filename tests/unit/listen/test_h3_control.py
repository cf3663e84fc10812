# One-way streams of the client: each kind, each rule, byte by byte.
"""listen/h3_control.py."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.listen import h3_codes as h3
from edgeproxy.listen.h3_codes import H3Error
from edgeproxy.listen.h3_control import MAX_FRAME, MAX_SETTINGS, Control, OneWay
from edgeproxy.quic.varint import LARGEST, write


def frame(kind: int, payload: bytes) -> bytes:
    return write(kind) + write(len(payload)) + payload


def settings_of(*pairs: tuple[int, int]) -> bytes:
    return frame(h3.SETTINGS, b"".join(write(name) + write(value) for name, value in pairs))


PLAIN = settings_of((1, 4096), (7, 16), (0x33, 1), (0x1F * 7 + 0x21, LARGEST))
CONTROL = b"\0" + PLAIN


def feed(data: bytes, control: Control | None = None, *, step: int = 0) -> OneWay:
    stream = OneWay(control or Control())
    for at in range(0, len(data), step or len(data) or 1):
        stream.feed(data[at : at + (step or len(data))])
    return stream


def code_of(data: bytes, control: Control | None = None) -> int:
    """The error, which must be the same however the bytes come."""
    codes = []
    for step in (0, 1, 3):
        own = Control()
        own.types = set(control.types) if control is not None else set()
        with pytest.raises(H3Error) as caught:
            feed(data, own, step=step)
        codes.append(caught.value.code)
    assert len(set(codes)) == 1
    return codes[0]


@pytest.mark.parametrize("step", [0, 1, 2, 3, 5])
def test_settings_are_kept_in_order(step: int) -> None:
    control = Control()
    stream = feed(CONTROL, control, step=step)
    assert control.settings == [(1, 4096), (7, 16), (0x33, 1), (0x1F * 7 + 0x21, LARGEST)]
    assert stream.is_critical
    assert not stream.unwanted


@pytest.mark.parametrize(("frames", "code"), [
    (frame(h3.GOAWAY, b"\0"), h3.MISSING_SETTINGS),
    (frame(0x21, b"grease"), h3.MISSING_SETTINGS),
    (frame(h3.DATA, b""), h3.MISSING_SETTINGS),
    (PLAIN + PLAIN, h3.FRAME_UNEXPECTED),
    *((PLAIN + frame(kind, b"x"), h3.FRAME_UNEXPECTED) for kind in (h3.DATA, h3.HEADERS, h3.PUSH_PROMISE, 2, 6, 8, 9)),
    (settings_of((1, 0), (1, 0)), h3.SETTINGS_ERROR),
    *((settings_of((name, 0)), h3.SETTINGS_ERROR) for name in (0, 2, 3, 4, 5)),
    (frame(h3.SETTINGS, b"\x01"), h3.FRAME_ERROR),
    (frame(h3.SETTINGS, b"\x01\x40"), h3.FRAME_ERROR),
    (settings_of(*((100 + index, 0) for index in range(MAX_SETTINGS + 1))), h3.EXCESSIVE_LOAD),
    (write(h3.SETTINGS) + write(MAX_FRAME + 1), h3.EXCESSIVE_LOAD),
    (PLAIN + frame(h3.GOAWAY, b"\x04") + frame(h3.GOAWAY, b"\x08"), h3.ID_ERROR),
    (PLAIN + frame(h3.GOAWAY, b""), h3.FRAME_ERROR),
    (PLAIN + frame(h3.GOAWAY, b"\x04\0"), h3.FRAME_ERROR),
    (PLAIN + frame(h3.GOAWAY, b"\x40"), h3.FRAME_ERROR),
    (PLAIN + frame(h3.MAX_PUSH_ID, b"\x04") + frame(h3.MAX_PUSH_ID, b"\x03"), h3.ID_ERROR),
    (PLAIN + frame(h3.CANCEL_PUSH, b"\0"), h3.ID_ERROR),
])  # fmt: skip
def test_rules_of_the_control_stream(frames: bytes, code: int) -> None:
    assert code_of(b"\0" + frames) == code


@pytest.mark.parametrize("step", [0, 1])
def test_what_a_control_stream_may_say(step: int) -> None:
    control = Control()
    feed(
        CONTROL + frame(0x21, bytes(9000)) + frame(h3.MAX_PUSH_ID, b"\x05") + frame(h3.CANCEL_PUSH, b"\x05")
        + frame(h3.GOAWAY, b"\x08") + frame(h3.GOAWAY, b"\x08") + frame(h3.GOAWAY, b"\0") + frame(0xF0700, b""),
        control, step=step,
    )  # fmt: skip
    assert (control.goaway, control.max_push) == (0, 5)


@pytest.mark.parametrize("kind", [h3.CONTROL_STREAM, h3.ENCODER_STREAM, h3.DECODER_STREAM])
def test_one_of_each(kind: int) -> None:
    """RFC 9114 §6.2.1, RFC 9204 §4.2."""
    control = Control()
    assert feed(bytes((kind,)), control).is_critical
    assert code_of(bytes((kind,)), control) == h3.STREAM_CREATION_ERROR


def test_a_client_can_not_push() -> None:
    assert code_of(b"\x01") == h3.STREAM_CREATION_ERROR


@pytest.mark.parametrize("start", [b"\x21", b"\x40\x54", b"\xff" + bytes(7)])
@pytest.mark.parametrize("step", [0, 1])
def test_unknown_kinds_are_unwanted(start: bytes, step: int) -> None:
    stream = feed(start + b"anything" * 100, step=step)
    assert stream.unwanted
    assert not stream.is_critical


def test_a_type_that_never_comes() -> None:
    stream = feed(b"\xc0\0\0")
    assert not stream.unwanted
    assert not stream.is_critical


def test_the_encoder_stream() -> None:
    """Only a capacity of 0 fits a table of size 0."""
    assert feed(b"\x02\x20\x20").is_critical
    for instruction in (b"\x21", b"\x3f\x01", b"\xc0\x01x", b"\x41x\x01y", b"\x00"):
        assert code_of(b"\x02" + instruction) == h3.QPACK_ENCODER_STREAM_ERROR


@pytest.mark.parametrize("step", [0, 1])
def test_the_decoder_stream(step: int) -> None:
    """Stream cancellations, of any number."""
    feed(b"\x03\x40\x7e\x7f\x00\x7f\xff\xff\x01\x41", step=step)
    for instruction in (b"\x80", b"\xff\x01", b"\x01", b"\x00", b"\x7f" + b"\xff" * 12):
        assert code_of(b"\x03" + instruction) == h3.QPACK_DECODER_STREAM_ERROR


@given(st.binary(max_size=80), st.sampled_from([b"", CONTROL, b"\x02", b"\x03", b"\x00"]), st.integers(1, 7))
@settings(max_examples=250, deadline=None)
def test_anything_in_any_pieces(noise: bytes, start: bytes, step: int) -> None:
    def outcome(size: int) -> object:
        control = Control()
        try:
            stream = feed(start + noise, control, step=size)
        except H3Error as error:
            return error.code
        return control.settings, control.goaway, control.max_push, control.types, stream.unwanted, stream.is_critical

    assert outcome(step) == outcome(0)
