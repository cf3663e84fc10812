# The sending half of a stream: everything arrives whatever is lost, a reset ends it, and who writes too much is told.
"""quic/streams.py."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.quic_wire import Wire, parse

from edgeproxy.quic import varint
from edgeproxy.quic.streams import CONNECTION_HIGH, HIGH, LOW, Stream


def stream_of(wire: Wire, stream_id: int = 0) -> Stream:
    connection = wire.connection
    stream = connection.streams.receiving(connection, stream_id, 8)
    assert stream is not None
    return stream


def test_take_fits_the_room_and_the_credit() -> None:
    wire = Wire(max_stream_data_bidi_local=70)
    stream = stream_of(wire)
    stream.send(b"a" * 30, False)
    stream.send(b"b" * 60, True)
    for room in range(4):
        assert stream.take(room, 100) is None
    taken = stream.take(14, 1000)
    assert taken is not None
    header, content, offset, fin = taken
    assert (len(header) + len(content), content, offset, fin) == (14, b"a" * 10, 0, False)
    taken = stream.take(1000, 5)
    assert taken is not None
    assert taken[1:] == (b"a" * 5, 10, False)
    assert stream.take(1000, 0) is None
    taken = stream.take(1000, 1000)
    assert taken is not None
    assert taken[1:] == (b"a" * 15 + b"b" * 40, 15, False), "the stream's window is used up"
    assert stream.blocked_frame()
    assert not stream.blocked_frame(), "once for each limit"
    assert not stream.has_frames()
    assert stream.take(1000, 1000) is None
    stream.limit = 1000
    assert stream.has_frames()
    assert not stream.blocked_frame()
    taken = stream.take(1000, 1000)
    assert taken is not None
    assert taken[1:] == (b"b" * 20, 70, True)
    assert (stream.queued, wire.connection.queued, wire.connection.data_sent) == (0, 0, 90)


@given(
    st.lists(st.binary(max_size=300), max_size=8), st.lists(st.tuples(st.integers(5, 120), st.integers(0, 9)), max_size=150),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_loss_at_any_packet(writes: list[bytes], steps: list[tuple[int, int]]) -> None:
    """Steps: room of a packet, and what then becomes of the oldest one: 0..2 lost, 3..5 acknowledged, else it waits."""
    wire = Wire()
    stream = stream_of(wire)
    stream.accept(0, b"", True)
    content = b"".join(writes)
    pending = list(writes)
    flying: list[tuple[int, bytes, bool]] = []
    client = bytearray(len(content))
    seen: set[int] = set()
    finals: set[int] = set()

    def arrive(record: tuple[int, bytes, bool]) -> None:
        offset, data, fin = record
        client[offset : offset + len(data)] = data
        seen.update(range(offset, offset + len(data)))
        if fin:
            finals.add(offset + len(data))
        stream.on_acked(*record)

    def step(room: int, fate: int) -> None:
        if pending:
            data = pending.pop(0)
            stream.send(data, not pending)
        taken = stream.take(room, 1 << 20)
        if taken is not None:
            header, data, offset, fin = taken
            assert len(header) + len(data) <= room
            [frame] = parse(header + bytes(data))
            assert frame.values == (0, offset, bytes(data), fin)
            flying.append((offset, bytes(data), fin))
        if flying and fate < 6:
            record = flying.pop(0)
            if fate < 3:
                stream.on_lost(*record)
            else:
                arrive(record)

    if not pending:
        stream.send(b"", True)
    for room, fate in steps:
        step(room, fate)
    for _ in range(2000):
        if not stream.send_open:
            break
        step(100, 5)
    assert not stream.send_open
    assert bytes(client) == content
    assert seen == set(range(len(content)))
    assert finals == {len(content)}
    assert stream.outstanding == 0
    assert wire.connection.streams.by_id == {}


@pytest.mark.parametrize("order", ["reset first", "frames first", "frames lost", "reset lost"])
def test_a_reset_ends_the_stream_when_it_is_acknowledged(order: str) -> None:
    """RFC 9000 §3.1: whatever becomes of the frames before it."""
    wire = Wire()
    stream = stream_of(wire)
    stream.accept(0, b"", True)
    stream.send(b"x" * 500, False)
    assert stream.take(100, 1000) is not None
    assert stream.take(100, 1000) is not None
    wire.connection.control.clear()
    stream.reset(0x10C)
    stream.reset(0x10C)
    assert (stream.queued, wire.connection.queued) == (0, 0)
    assert not stream.has_frames()
    assert stream.take(1000, 1000) is None
    [(frame, owner, a)] = wire.connection.control
    assert (frame, owner, a) == (b"\x04\0" + varint.write(0x10C) + varint.write(stream.offset), stream, -1)
    if order == "frames first":
        stream.on_acked(0, b"x", False)
        stream.on_acked(94, b"x", False)
        assert stream.send_open
        stream.on_acked(-1, frame, False)
    elif order == "reset lost":
        stream.on_lost(-1, frame, False)
        assert [entry[0] for entry in wire.connection.control] == [frame, frame]
        stream.on_acked(-1, frame, False)
    else:
        stream.on_acked(-1, frame, False)
        if order == "frames lost":
            stream.on_lost(0, b"x", False)
    assert not stream.send_open
    assert wire.connection.streams.by_id == {}


def test_nothing_is_queued_behind_a_reset_or_an_end() -> None:
    wire = Wire()
    stream = stream_of(wire)
    stream.send(b"abc", True)
    stream.send(b"behind", False)
    assert stream.queued == 3
    other = stream_of(wire, 4)
    other.reset(1)
    other.send(b"behind", True)
    assert (other.queued, wire.connection.queued) == (0, 3)


# -- the watermark: is_full, waiting, writable -----------------------------------------------------------------------


def test_a_full_stream_says_so_and_is_writable_again() -> None:
    wire = Wire().settle()
    stream = stream_of(wire)
    stream.send(bytes(HIGH), False)
    assert not stream.is_full()
    stream.send(b"x", False)
    assert stream.is_full()
    stream.waiting = True
    for _ in range(400):
        wire.flush()
        assert bool(wire.app.writables) is (stream.queued <= LOW)
        if wire.app.writables:
            break
        wire.now += 0.01
        wire.acknowledge()
    assert wire.app.writables == [0]
    assert not stream.waiting
    wire.acknowledge()
    assert wire.app.writables == [0], "once"


def test_a_full_connection_makes_every_stream_full() -> None:
    wire = Wire()
    streams = [stream_of(wire, 4 * index) for index in range(10)]
    for stream in streams[:9]:
        assert not stream.is_full()
        stream.send(bytes(HIGH - 1000), False)
    assert wire.connection.queued > CONNECTION_HIGH
    streams[9].send(b"x", False)
    assert streams[9].is_full()
    for stream in streams[:9]:
        stream.reset(1)
    assert wire.connection.queued == 1
    assert not streams[9].is_full()


def test_a_writer_that_waits_for_the_connection_is_told() -> None:
    """Its own queue is short, the others' are long: it goes on when its own bytes went."""
    wire = Wire(max_data=1 << 22, max_stream_data_bidi_local=1 << 20).settle()
    for index in range(9):
        stream_of(wire, 4 * index).send(bytes(HIGH), False)
    small = stream_of(wire, 36)
    small.send(b"x", False)
    assert small.is_full()
    small.waiting = True
    for _ in range(30):
        wire.now += 0.02
        wire.flush()
        wire.acknowledge()
    assert 36 in wire.app.writables
