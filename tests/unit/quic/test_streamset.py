# Which streams may come, in any order, and when the client may open more.
"""quic/streamset.py."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.quic_wire import Wire, stream_frame

from edgeproxy.quic.errors import STREAM_LIMIT_ERROR, STREAM_STATE_ERROR, TransportError
from edgeproxy.quic.established import Limits
from edgeproxy.quic.streams import Stream

LIMITS = Limits(max_streams=10, one_way=4)


def finish(wire: Wire, stream: Stream) -> None:
    """Both sides are over."""
    stream.accept(stream.highest, b"", True)
    if stream.send_open:
        stream.send(b"", True)
        assert stream.take(100, 0) is not None
        stream.on_acked(0, b"", True)


@given(st.permutations(range(10)), st.sampled_from([0, 2]))
@settings(max_examples=60, deadline=None)
def test_any_order_of_opening(order: list[int], kind: int) -> None:
    wire = Wire(Limits(max_streams=10, one_way=10))
    connection = wire.connection
    streams = connection.streams
    seen = []
    for index in order:
        stream = streams.receiving(connection, 4 * index + kind, 8)
        assert stream is not None
        assert stream is streams.receiving(connection, 4 * index + kind, 8)
        assert stream.send_open is (kind == 0)
        seen.append(stream)
        if kind == 0:
            assert streams.requests == max(order[: len(seen)]) + 1
    for stream in seen:
        finish(wire, stream)
        assert streams.receiving(connection, stream.id, 8) is None, "what is over stays over"
    assert streams.by_id == {}


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 11)), max_size=120))
@settings(max_examples=100, deadline=None)
def test_never_more_than_allowed_and_never_stuck(steps: list[tuple[bool, int]]) -> None:
    """Steps: open the next stream, or end one of the open ones. A client that may not open waits for MAX_STREAMS."""
    wire = Wire(LIMITS)
    connection = wire.connection
    streams = connection.streams
    allowed, opened, live = 10, 0, []
    for opens, which in steps:
        if streams.raised:
            frame, kind = streams.frame()
            assert (frame[0], kind) == (0x12, 0)
            allowed = frame[1]
        if opens:
            if opened == allowed:
                with pytest.raises(TransportError) as caught:
                    streams.receiving(connection, 4 * opened, 8)
                assert caught.value.code == STREAM_LIMIT_ERROR
            else:
                stream = streams.receiving(connection, 4 * opened, 8)
                assert stream is not None
                live.append(stream)
                opened += 1
        elif live:
            finish(wire, live.pop(which % len(live)))
        assert len(streams.by_id) == len(live) <= 10
        assert streams.busy is bool(live)
    if not live:
        assert streams.raised or allowed - opened > 5, "credit comes before it runs out"


def test_lost_credit_is_given_again() -> None:
    wire = Wire(LIMITS).settle()
    for index in range(6):
        wire.send(stream_frame(4 * index, 0, b"", fin=True))
        wire.app.streams[4 * index].send(b"", True)
    wire.flush()
    frames = wire.acknowledge()
    assert [frame.values for frame in frames if frame.kind == 0x12] == [(16,)]
    assert [frame.values for frame in wire.advance(1.0) if frame.kind == 0x12], "not acknowledged: once more"
    wire.acknowledge()
    assert not wire.connection.streams.raised


def test_streams_that_are_skipped_may_come_later() -> None:
    """RFC 9000 §2.1: opening a stream opens all below it."""
    wire = Wire(LIMITS)
    connection = wire.connection
    assert connection.streams.receiving(connection, 36, 8) is not None
    with pytest.raises(TransportError):
        connection.streams.receiving(connection, 40, 8)
    assert sorted(connection.streams.by_id) == [36]
    for index in (8, 0, 3):
        assert connection.streams.receiving(connection, 4 * index, 8) is not None


@pytest.mark.parametrize("stream_id", [1, 5, 3, 7])
def test_a_servers_streams_are_not_the_clients(stream_id: int) -> None:
    wire = Wire(LIMITS)
    connection = wire.connection
    ours = connection.open_one_way()
    assert ours.id == 3
    with pytest.raises(TransportError) as caught:
        connection.streams.receiving(connection, stream_id, 8)
    assert caught.value.code == STREAM_STATE_ERROR
    if stream_id == 3:
        assert connection.streams.sending(connection, 3, 5) is ours
    else:
        with pytest.raises(TransportError) as caught:
            connection.streams.sending(connection, stream_id, 5)
        assert caught.value.code == STREAM_STATE_ERROR


def test_a_one_way_stream_of_the_client_is_not_ours_to_send_on() -> None:
    wire = Wire(LIMITS)
    with pytest.raises(TransportError) as caught:
        wire.connection.streams.sending(wire.connection, 2, 5)
    assert caught.value.code == STREAM_STATE_ERROR
    assert wire.connection.streams.sending(wire.connection, 4, 5) is not None, "the client may stop what it has not begun"


def test_a_stream_of_ours_ends() -> None:
    wire = Wire(LIMITS)
    stream = wire.connection.open_one_way()
    assert wire.connection.open_one_way().id == 7
    stream.send(b"x", True)
    assert stream.take(100, 100) is not None
    stream.on_acked(0, b"x", True)
    assert 3 not in wire.connection.streams.by_id
    assert wire.connection.streams.sending(wire.connection, 3, 5) is None
    assert not wire.connection.streams.busy
