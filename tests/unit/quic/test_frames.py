# Every frame of a client: what it does, and that whatever is wrong with it ends the connection with the right error.
"""quic/frames.py, through packets of a `Connection`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.quic_wire import Wire, ack_frame, stream_frame

from edgeproxy.quic.errors import (
    CONNECTION_ID_LIMIT_ERROR,
    FINAL_SIZE_ERROR,
    FLOW_CONTROL_ERROR,
    FRAME_ENCODING_ERROR,
    PROTOCOL_VIOLATION,
    STREAM_LIMIT_ERROR,
    STREAM_STATE_ERROR,
    UNEXPECTED_MESSAGE,
)  # fmt: skip
from edgeproxy.quic.frames import MAX_NOISE
from edgeproxy.quic.varint import LARGEST, write

HUGE = write(LARGEST)
CHALLENGE = b"\x1a12345678"
GOOD = {
    "PING": b"\x01",
    "ACK": ack_frame([(0, 0)]),
    "ACK_ECN": b"\x03" + ack_frame([(0, 0)])[1:] + b"\x01\x02\x40\x03",
    "RESET_STREAM": b"\x04\0\x41\x0c\x40\x64",
    "STOP_SENDING": b"\x05\0\x41\x0c",
    "STREAM": stream_frame(0, 70, b"content", fin=True),
    "MAX_DATA": b"\x10" + write(1 << 21),
    "MAX_STREAM_DATA": b"\x11\x04" + write(1 << 21),
    "MAX_STREAMS": b"\x12" + write(1000),
    "MAX_STREAMS one way": b"\x13" + write(1000),
    "DATA_BLOCKED": b"\x14" + write(1000),
    "STREAM_DATA_BLOCKED": b"\x15\x04" + write(1000),
    "STREAMS_BLOCKED": b"\x16" + write(1000),
    "STREAMS_BLOCKED one way": b"\x17" + write(1000),
    "NEW_CONNECTION_ID": b"\x18\x01\0\x08newname1" + bytes(16),
    "RETIRE_CONNECTION_ID": b"\x19\x01",
    "PATH_CHALLENGE": CHALLENGE,
    "PATH_RESPONSE": b"\x1b12345678",
    "CONNECTION_CLOSE": b"\x1c\x07\x08\x06reason",
    "CONNECTION_CLOSE application": b"\x1d\x41\0\x06reason",
}
ENDS = {"CONNECTION_CLOSE", "CONNECTION_CLOSE application"}


def ready() -> Wire:
    """A connection that has sent packets."""
    wire = Wire()
    wire.flush()
    return wire


@pytest.mark.parametrize("name", GOOD)
def test_a_good_frame(name: str) -> None:
    wire = ready()
    wire.send(GOOD[name])
    assert wire.error is None
    assert wire.connection.is_open is (name not in ENDS)
    assert len(wire.app.reasons) == (name in ENDS)


@pytest.mark.parametrize("name", GOOD)
def test_a_frame_that_ends_early(name: str) -> None:
    """At every position; what is whole before it counts."""
    frame = GOOD[name]
    for end in range(1, len(frame)):
        wire = ready()
        wire.send(b"\x01" + frame[:end])
        assert wire.error is not None, end
        assert wire.error[0] == FRAME_ENCODING_ERROR, end
        assert wire.host.ended == 1
        assert wire.app.reasons == ["a frame ends early"]


@pytest.mark.parametrize("kind", [0x08, 0x09, 0x0C, 0x0D])
def test_a_stream_frame_without_length_takes_the_rest(kind: int) -> None:
    wire = ready()
    frame = bytes((kind,)) + b"\0" + (b"\0" if kind & 4 else b"") + b"the rest"
    wire.send(frame)
    assert wire.app.data[0] == b"the rest"
    assert wire.app.ends == ([0] if kind & 1 else [])
    for end in range(1, 3 if kind & 4 else 2):
        wire = ready()
        wire.send(frame[:end])
        assert wire.error == (FRAME_ENCODING_ERROR, 0)


BAD = [
    ("ACK below zero", b"\x02\x01\0\0\x02", FRAME_ENCODING_ERROR),
    ("ACK range below zero", b"\x02\0\0\x01\0\0\0", FRAME_ENCODING_ERROR),
    ("ACK with far more ranges than bytes", b"\x02\0\0" + HUGE + b"\0", FRAME_ENCODING_ERROR),
    ("ACK of what was not sent", b"\x02" + write(1000) + b"\0\0\0", PROTOCOL_VIOLATION),
    ("ACK of the largest number", b"\x02" + HUGE + b"\0\0\0", PROTOCOL_VIOLATION),
    ("RESET_STREAM of ours", b"\x04\x03\0\0", STREAM_STATE_ERROR),
    ("RESET_STREAM beyond the limit", b"\x04" + write(400) + b"\0\0", STREAM_LIMIT_ERROR),
    ("RESET_STREAM beyond the window", b"\x04\0\0" + HUGE, FLOW_CONTROL_ERROR),
    ("STOP_SENDING of the client's", b"\x05\x02\0", STREAM_STATE_ERROR),
    ("STOP_SENDING of what is not open", b"\x05\x07\0", STREAM_STATE_ERROR),
    ("STOP_SENDING of a two-way stream of ours", b"\x05\x01\0", STREAM_STATE_ERROR),
    ("CRYPTO", b"\x06\0\x01x", UNEXPECTED_MESSAGE),
    ("NEW_TOKEN", b"\x07\x01x", PROTOCOL_VIOLATION),
    ("HANDSHAKE_DONE", b"\x1e", PROTOCOL_VIOLATION),
    ("STREAM of ours", stream_frame(3, 0, b"x"), STREAM_STATE_ERROR),
    ("STREAM two-way of ours", stream_frame(1, 0, b"x"), STREAM_STATE_ERROR),
    ("STREAM beyond the limit", stream_frame(400, 0, b"x"), STREAM_LIMIT_ERROR),
    ("STREAM one-way beyond the limit", stream_frame(34, 0, b"x"), STREAM_LIMIT_ERROR),
    ("STREAM beyond the numbers", stream_frame(0, LARGEST, b"x"), FRAME_ENCODING_ERROR),
    ("STREAM beyond the window", stream_frame(0, 1 << 18, b"x"), FLOW_CONTROL_ERROR),
    ("STREAM one-way beyond its window", stream_frame(2, 1 << 14, b"x"), FLOW_CONTROL_ERROR),
    ("STREAM beyond its end", stream_frame(0, 0, b"abc", fin=True) + stream_frame(0, 3, b"x"), FINAL_SIZE_ERROR),
    ("RESET_STREAM with another end", stream_frame(0, 0, b"abc", fin=True) + b"\x04\0\0\x04", FINAL_SIZE_ERROR),
    ("MAX_STREAM_DATA of the client's", b"\x11\x02\x05", STREAM_STATE_ERROR),
    ("MAX_STREAM_DATA of what is not open", b"\x11\x07\x05", STREAM_STATE_ERROR),
    ("MAX_STREAMS", b"\x12" + write((1 << 60) + 1), FRAME_ENCODING_ERROR),
    ("MAX_STREAMS one way", b"\x13" + HUGE, FRAME_ENCODING_ERROR),
    ("STREAM_DATA_BLOCKED of ours", b"\x15\x03\x05", STREAM_STATE_ERROR),
    ("STREAMS_BLOCKED", b"\x16" + write((1 << 60) + 1), FRAME_ENCODING_ERROR),
    ("NEW_CONNECTION_ID without name", b"\x18\x01\0\0" + bytes(16), FRAME_ENCODING_ERROR),
    ("NEW_CONNECTION_ID too long", b"\x18\x01\0\x15" + bytes(37), FRAME_ENCODING_ERROR),
    ("NEW_CONNECTION_ID retires the future", b"\x18\x01\x02\x08newname1" + bytes(16), FRAME_ENCODING_ERROR),
    ("NEW_CONNECTION_ID with two names", b"".join(b"\x18\x01\0\x08newname%d" % n + bytes(16) for n in (1, 2)),
     PROTOCOL_VIOLATION),
    ("NEW_CONNECTION_ID renames the first", b"\x18\0\0\x08newname1" + bytes(16), PROTOCOL_VIOLATION),
    ("too many NEW_CONNECTION_ID", b"".join(b"\x18%c\0\x08newname%d" % (n, n) + bytes(16) for n in range(1, 9)),
     CONNECTION_ID_LIMIT_ERROR),
    ("RETIRE_CONNECTION_ID of the future", b"\x19\x20", PROTOCOL_VIOLATION),
    ("unknown", b"\x21", FRAME_ENCODING_ERROR),
    ("unknown, long", b"\x40\x01", FRAME_ENCODING_ERROR),
    ("DATAGRAM", b"\x30x", FRAME_ENCODING_ERROR),
]  # fmt: skip


@pytest.mark.parametrize(("frame", "code"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_frame(frame: bytes, code: int) -> None:
    wire = ready()
    wire.connection.open_one_way()
    wire.send(frame)
    assert wire.error is not None
    assert wire.error[0] == code
    assert wire.host.ended == len(wire.app.reasons) == 1


def test_an_empty_packet() -> None:
    wire = ready()
    client = wire.client
    sealed = client._seal((client._seal_iv ^ 5).to_bytes(12, "big"), b"", b"\x43\0\1ourid0" + (5).to_bytes(4, "big"))
    mask = client._mask_out(sealed[:16])
    number = bytes(a ^ b for a, b in zip((5).to_bytes(4, "big"), mask[1:5], strict=True))
    wire.connection.receive(bytes((0x43 ^ mask[0] & 0x1F,)) + b"\0\1ourid0" + number + sealed, ("192.0.2.7", 4433), wire.now)
    assert wire.error == (PROTOCOL_VIOLATION, 0)


def test_padding_alone_is_no_error() -> None:
    wire = ready()
    assert wire.send(bytes(1100)) == [], "and asks for no acknowledgment"
    assert wire.connection.is_open
    wire.send(bytes(20) + b"\x01" + bytes(20) + stream_frame(0, 0, b"ab") + bytes(3))
    assert wire.app.data == {0: b"ab"}


@pytest.mark.parametrize("tail", [stream_frame(0, 0, b"ab"), b"\x04\0\0\0", b"\x05\0\0", b"\x1d\0\0", b"\x18", b"\x06"])
@pytest.mark.parametrize("head", ["peer", "application"])
def test_nothing_is_handled_behind_the_end(head: str, tail: bytes) -> None:
    wire = ready()
    if head == "peer":
        wire.send(b"\x1d\0\0" + tail)
    else:
        wire.app.on_data = lambda stream, data, fin: wire.connection.close(0x101, "enough")
        wire.send(stream_frame(4, 0, b"x") + tail)
    assert wire.app.reasons == ([""] if head == "peer" else ["enough"])
    assert 0 not in wire.app.data
    assert wire.connection.streams.by_id == {}
    wire.app.on_data = None
    wire.send(tail)
    assert len(wire.app.reasons) == 1


def test_acknowledgments_of_everything_at_once() -> None:
    wire = ready()
    wire.send(ack_frame([(number, number) for number in range(wire.expected - 1, -1, -2)]))
    assert wire.connection.is_open
    assert wire.connection.recovery.in_flight == 0


def test_the_same_bytes_again_are_noise() -> None:
    wire = ready()
    frame = stream_frame(0, 0, b"x")
    for _ in range(MAX_NOISE // 100 + 1):
        wire.send(frame + b"\x01" * 100, flush=False)
    assert wire.error is not None
    assert wire.error[0] == PROTOCOL_VIOLATION


@pytest.mark.parametrize("frame", [CHALLENGE * 100, None])
def test_answers_do_not_pile_up(frame: bytes | None) -> None:
    """A client that asks and asks, sends something useful in between, and acknowledges nothing."""
    wire = ready()
    for turn in range(300):
        asked = frame or b"".join(b"\x19" + write(4 * turn + index) for index in range(4))
        wire.send(stream_frame(0, turn, b"x") + asked)
        if not wire.connection.is_open:
            break
    assert len(wire.connection.control) <= 300
    assert len(wire.host.ids) <= 1300
    if frame is None:
        assert wire.error is not None
        assert wire.error[0] == CONNECTION_ID_LIMIT_ERROR


FRAMES = st.one_of(
    st.sampled_from(sorted(GOOD.values())), st.sampled_from([case[1] for case in BAD]), st.binary(min_size=1, max_size=40),
    st.builds(stream_frame, st.sampled_from([0, 4, 8, 2, 3, 6]), st.integers(0, 60), st.binary(max_size=30), fin=st.booleans()),
    st.builds(lambda *v: b"%c%b" % (v[0], b"".join(map(write, v[1:]))), st.integers(0, 0x1E), *[st.integers(0, 70)] * 4),
)  # fmt: skip


@given(st.lists(st.lists(FRAMES, min_size=1, max_size=5).map(b"".join), min_size=1, max_size=12))
@settings(max_examples=150, deadline=None)
def test_anything_authentic(packets: list[bytes]) -> None:
    """No exception, one end at most, and counters that agree."""
    wire = ready()
    connection = wire.connection
    for packet in packets:
        wire.send(packet)
        wire.advance(0.05)
    assert wire.host.ended == len(wire.app.reasons) <= 1
    assert connection.is_open is (wire.host.ended == 0)
    if connection.is_open:
        assert connection.data_consumed <= connection.data_received <= connection.data_allowed
        assert connection.queued == sum(stream.queued for stream in connection.streams.by_id.values()) == 0
        assert connection.recovery.in_flight == sum(packet[1] for packet in connection.recovery.sent.values())
    else:
        assert not connection.streams.by_id


def test_numbers_that_were_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9000 §21.4: who acknowledges what was never sent wants us to send faster than it can read."""
    monkeypatch.setattr("edgeproxy.quic.connection.SKIP_EVERY", 1)
    for liar in (False, True):
        wire = Wire()
        wire.settle()
        for _ in range(6):
            wire.send(b"\x01")
            wire.now += 0.1
            wire.connection.acknowledge()
            wire.flush()
            wire.connection.ping()
            wire.flush()
        sent = {number for number, _, _ in wire.sent}
        skipped = wire.connection.skipped
        assert skipped > 0 and skipped not in sent
        wire.send(ack_frame([(skipped, skipped)] if liar else [(number, number) for number in sorted(sent, reverse=True)[:1]]))
        assert wire.connection.is_open is not liar
