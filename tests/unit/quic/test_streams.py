# The receiving half of a stream against a model: what goes in comes out once and in order.
"""quic/streams.py."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.quic_wire import Wire

from edgeproxy.quic.errors import FINAL_SIZE_ERROR, FLOW_CONTROL_ERROR, PROTOCOL_VIOLATION, TransportError
from edgeproxy.quic.established import Limits
from edgeproxy.quic.streams import MAX_EARLY, Stream

WINDOW = 4096


def stream_of(wire: Wire, stream_id: int = 0) -> Stream:
    connection = wire.connection
    stream = connection.streams.receiving(connection, stream_id, 8)
    assert stream is not None
    return stream


def receiver(window: int = WINDOW, connection_window: int = 1 << 20) -> tuple[Wire, Stream]:
    wire = Wire(Limits(stream_window=window, connection_window=connection_window))
    return wire, stream_of(wire)


def code_of(stream: Stream, offset: int, data: bytes, *, fin: bool = False) -> int:
    with pytest.raises(TransportError) as caught:
        stream.accept(offset, data, fin)
    return caught.value.code


# -- receiving -------------------------------------------------------------------------------------------------------

CONTENT = bytes(random.Random(1).randrange(256) for _ in range(200))


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 60)), max_size=60), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_pieces_in_any_order(pieces: list[tuple[int, int]], order: random.Random) -> None:
    """Random pieces that overlap and repeat, and enough to make it whole, in any order."""
    wire, stream = receiver()
    everything = [*pieces, *((at, 25) for at in range(0, 200, 25))]
    order.shuffle(everything)
    for offset, size in everything:
        data = CONTENT[offset : offset + size]
        stream.accept(min(offset, 200), data, offset + size >= 200)
        got = wire.app.data.get(0, b"")
        assert got == CONTENT[: len(got)]
        assert sum(len(held) for _, held in stream.early) < 64 * 60 + 200
    assert wire.app.data[0] == CONTENT
    assert wire.app.ends == [0], "the end comes once"
    assert stream.received == stream.highest == stream.consumed == 200
    assert wire.connection.data_received == wire.connection.data_consumed == 200


@given(st.integers(0, 12), st.booleans())
def test_an_empty_end(size: int, late: bool) -> None:
    wire, stream = receiver()
    if late:
        stream.accept(size, b"", True)
        assert wire.app.ends == ([] if size else [0])
        stream.accept(0, CONTENT[:size], False)
    else:
        stream.accept(0, CONTENT[:size], False)
        stream.accept(size, b"", True)
    assert (wire.app.data[0], wire.app.ends) == (CONTENT[:size], [0])


def test_an_empty_frame_says_nothing() -> None:
    wire, stream = receiver()
    stream.accept(0, b"", False)
    stream.accept(7, b"", False)
    assert wire.app.data == {}


def test_final_size() -> None:
    """RFC 9000 §4.5."""
    _, stream = receiver()
    stream.accept(0, b"12345", False)
    assert code_of(stream, 0, b"1234", fin=True) == FINAL_SIZE_ERROR
    stream.accept(8, b"90", True)
    assert code_of(stream, 10, b"x") == FINAL_SIZE_ERROR
    assert code_of(stream, 9, b"", fin=True) == FINAL_SIZE_ERROR
    assert code_of(stream, 10, b"1", fin=True) == FINAL_SIZE_ERROR
    stream.accept(8, b"90", True)
    with pytest.raises(TransportError) as caught:
        stream.accept_reset(1, 9)
    assert caught.value.code == FINAL_SIZE_ERROR
    stream.accept(5, b"678", False)
    assert stream.fin_received
    assert code_of(stream, 10, b"x") == FINAL_SIZE_ERROR, "also behind the end"


def test_windows_of_stream_and_connection() -> None:
    wire, stream = receiver(window=100, connection_window=150)
    wire.app.consumes = False
    assert code_of(stream, 100, b"x") == FLOW_CONTROL_ERROR
    assert code_of(stream, 1 << 61, b"x") == FLOW_CONTROL_ERROR
    stream.accept(0, bytes(100), False)
    other = stream_of(wire, 4)
    other.accept(0, bytes(50), False)
    assert code_of(other, 50, b"x") == FLOW_CONTROL_ERROR
    stream.accept(0, bytes(100), False)  # what came before takes no window
    stream.consume(51)
    assert stream.window_end == 151
    assert wire.connection.data_allowed == 201
    assert wire.connection.windows == [stream]
    stream.accept(100, bytes(51), False)
    stream.consume(1 << 30)
    assert stream.consumed == 151, "no more than what came"
    assert wire.connection.windows == [stream]


def test_no_window_for_what_is_complete() -> None:
    wire, stream = receiver(window=100)
    stream.accept(0, bytes(90), True)
    assert wire.connection.windows == []
    assert wire.connection.data_consumed == 90


def test_a_client_that_resets() -> None:
    wire, stream = receiver()
    wire.app.consumes = False
    stream.accept(0, bytes(10), False)
    stream.accept(20, bytes(10), False)
    stream.accept_reset(7, 40)
    assert wire.app.resets == [(0, 7)]
    assert stream.early == []
    assert wire.connection.data_consumed == wire.connection.data_received == 40, "its bytes are given back"
    stream.accept_reset(7, 40)
    stream.accept(10, bytes(10), False)
    assert wire.app.resets == [(0, 7)]
    assert len(wire.app.data[0]) == 10
    stream.consume(10)
    assert wire.connection.data_consumed == 40


def test_after_stop_nothing_is_delivered_and_everything_given_back() -> None:
    wire, stream = receiver()
    wire.app.consumes = False
    stream.accept(0, bytes(10), False)
    stream.stop(9)
    stream.stop(9)
    assert [frame for frame, _, _ in wire.connection.control if frame[0] == 5] == [b"\x05\0\x09"]
    stream.accept(20, bytes(5), True)
    stream.accept(10, bytes(10), False)
    assert len(wire.app.data[0]) == 10
    assert wire.connection.data_consumed == wire.connection.data_received == 25
    assert stream.fin_received
    stream.stop(9)


def test_one_way_streams_end_after_they_were_delivered() -> None:
    """The application must still know the stream when its end comes (control streams may not end)."""
    wire = Wire()
    for kind in ("fin", "reset"):
        stream = stream_of(wire, 2 if kind == "fin" else 6)
        stream.app = kind
        seen: list[object] = []
        wire.app.on_data = lambda stream, data, fin, seen=seen: seen.append(stream.app)
        wire.app.stream_reset = lambda stream, code, seen=seen: seen.append(stream.app)  # type: ignore[method-assign]
        stream.accept(0, b"abc", False)
        if kind == "fin":
            stream.accept(3, b"d", True)
        else:
            stream.accept_reset(1, 9)
        assert seen == [kind, kind]
        assert stream.id not in wire.connection.streams.by_id
        assert stream.connection is None
    assert wire.connection.data_consumed == wire.connection.data_received


def test_unread_bytes_of_a_closed_stream_are_given_back() -> None:
    wire, stream = receiver()
    wire.app.consumes = False
    stream.send(b"", True)
    stream.accept(0, bytes(30), False)
    assert stream.take(100, 100) is not None
    stream.on_acked(0, b"", True)
    assert not stream.send_open
    stream.accept(30, bytes(20), True)
    assert wire.app.ends == [0]
    assert stream.connection is None
    assert wire.connection.data_consumed == 50


def test_what_comes_early_again_is_held_once() -> None:
    _, stream = receiver(window=1 << 18)
    for _ in range(3000):
        stream.accept(1, bytes(1200), False)
    assert sum(len(data) for _, data in stream.early) <= 64 * 1200
    for at in range(5000, 1, -1):
        stream.accept(at, b"x", False)
    assert len(stream.early) <= 64
    stream.accept(0, b"y", False)
    assert stream.received == 5001


def test_gaps_are_bounded() -> None:
    _, stream = receiver(window=1 << 18)
    for at in range(1, 2 * MAX_EARLY - 1, 2):
        stream.accept(at, b"x", False)
    assert code_of(stream, 3 * MAX_EARLY, b"x") == PROTOCOL_VIOLATION
