# What a client may cost: packets that are cheap to make must not be dear to read, nor leave anything behind.
"""quic/streams.py, frames.py, recovery.py and paths.py against clients that look for the dearest frame."""

from __future__ import annotations

import pytest
from support.quic_wire import ADDRESS, OUR_ID, Wire, ack_frame, stream_frame

from edgeproxy.quic.errors import CONNECTION_ID_LIMIT_ERROR, PROTOCOL_VIOLATION
from edgeproxy.quic.frames import MAX_NOISE
from edgeproxy.quic.paths import MAX_WAITING
from edgeproxy.quic.streams import MAX_EARLY, Stream

PING = b"\x01"


def loaded(packets: int) -> Wire:
    """A connection with many packets in flight and a window that is used up."""
    wire = Wire(max_data=1 << 30, max_stream_data_bidi_local=1 << 30).settle()
    wire.send(stream_frame(0, 0, b"x", fin=True))
    wire.connection.recovery.window = packets * 1200
    wire.app.streams[0].send(bytes(packets * 1300), True)
    while wire.connection.recovery.window - wire.connection.recovery.in_flight >= 1200:
        wire.now += 0.01
        wire.flush()
    return wire


def test_pieces_sent_again_are_not_sorted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire().settle()
    for at in range(1, MAX_EARLY):
        wire.send(stream_frame(0, 2 * at, b"x"), flush=False)
    joined: list[int] = []
    join = Stream._join

    def counted(stream: Stream) -> None:
        joined.append(len(stream.early))
        join(stream)

    monkeypatch.setattr(Stream, "_join", counted)
    for _ in range(10):
        wire.send(stream_frame(0, 2, b"x") * 200, flush=False)
    assert wire.connection.is_open
    assert sum(joined) <= 4 * 2000, "a few steps for each piece"


@pytest.mark.parametrize("frame", [stream_frame(0, 0, b"x"), stream_frame(0, 1, b""), stream_frame(0, 1, b"", fin=True)])
def test_the_same_bytes_again_and_again(frame: bytes) -> None:
    wire = Wire().settle()
    wire.send(stream_frame(0, 0, b"x"))
    for _ in range(MAX_NOISE // 100 + 1):
        wire.send(frame * 100, flush=False)
    assert wire.error is not None
    assert wire.error[0] == PROTOCOL_VIOLATION


def test_an_acknowledgment_of_acknowledgments_tells_what_is_lost() -> None:
    """RFC 9002 §6.1: and what is in flight is not looked through for each ACK that acknowledges nothing."""
    wire = loaded(1000)
    recovery = wire.connection.recovery
    assert len(recovery.sent) >= 999
    wire.number += 1  # a gap, which is acknowledged at once, in a packet that nobody keeps
    wire.send(PING)
    number = wire.connection.next_number - 1
    assert number not in recovery.sent
    wire.send(ack_frame([(number, number)]), flush=False)
    assert len(recovery.sent) <= 2
    assert recovery.lost >= 998


def test_who_moves_with_each_packet_fills_no_memory() -> None:
    wire = loaded(100)
    for index in range(500):
        wire.send(ack_frame([(0, 0)]), address=(ADDRESS[0], 6000 + index % 2))
        assert len(wire.connection.control) <= 1
    assert wire.connection.is_open
    assert wire.connection.paths.moves == 500


def test_only_the_challenge_of_the_path_in_use_is_repeated() -> None:
    wire = Wire().settle()
    first = wire.send(PING * 1000, address=(ADDRESS[0], 1))
    second = wire.send(PING * 1000, address=(ADDRESS[0], 2))
    tokens = [frame.values[0] for frames in (first, second) for frame in frames if frame.kind == 0x1A]
    assert len(tokens) == 2
    again = [frame.values[0] for frame in wire.advance(0.5) if frame.kind == 0x1A]
    assert again
    assert set(again) == {tokens[1]}


def test_a_move_that_breaks_a_rule_is_the_clients_fault() -> None:
    wire = Wire().settle()
    wire.send(b"\x18\x01\x00\x08" + b"peerid01" + bytes(16))
    wire.connection.control.extend([(PING, wire.connection, 3)] * (MAX_WAITING + 1))
    name = next(iter(wire.host.ids))
    wire.send(PING, address=(ADDRESS[0], 1), destination=name, flush=False)
    assert wire.error == (CONNECTION_ID_LIMIT_ERROR, 0x18)


def test_a_stream_that_is_stopped_gets_no_more_window() -> None:
    wire = Wire().settle()
    wire.send(stream_frame(0, 0, b"x"))
    stream = wire.app.streams[0]
    stream.stop(0x100)
    end = stream.window_end
    at = 1
    while at < end:
        size = min(1000, end - at)
        frames = wire.send(stream_frame(0, at, bytes(size)))
        assert not [frame for frame in frames if frame.kind == 0x11]
        at += size
    assert stream.window_end == end
    assert wire.connection.data_consumed == end, "other streams do not lack it"


def test_a_stream_that_was_reset_waits_for_no_window() -> None:
    wire = Wire(max_data=0).settle()
    wire.send(stream_frame(0, 0, b"x", fin=True))
    wire.app.streams[0].send(b"y", True)
    wire.flush()
    assert wire.connection.starved
    wire.send(b"\x05\x00\x00")
    wire.acknowledge()
    assert not wire.connection.starved
    assert not wire.connection.streams.by_id


def test_one_client_in_sixteen_sees_no_spin() -> None:
    """RFC 9000 §17.4."""
    wire = Wire().settle()
    wire.connection.spins = 0
    wire.connection.receive(wire.client.seal(OUR_ID, wire.number, PING * 4, 0x20), ADDRESS, wire.now)
    wire.connection.ping()
    [datagram] = wire.connection.transmit(wire.now)
    assert wire.client.open(datagram, wire.expected)[0] & 0x20 == 0  # type: ignore[index]  # it opens
    masks = {Wire().connection.spins for _ in range(400)}
    assert masks == {0, 0x20}
