# Packets of our connection: acknowledgments, timers, what goes into them, and how it ends.
"""quic/connection.py."""

from __future__ import annotations

import gc

import pytest
from support.quic_wire import ADDRESS, OTHER_HOST, OUR_ID, Wire, ack_frame, stream_frame

from edgeproxy.quic import protection
from edgeproxy.quic.connection import ACK_EVERY, MAX_BURST, Connection
from edgeproxy.quic.errors import AEAD_LIMIT_REACHED, INTERNAL_ERROR, PROTOCOL_VIOLATION
from edgeproxy.quic.established import Limits

PING = b"\x01"


def kinds(wire: Wire) -> list[int]:
    return [frame.kind for _, frames, _ in wire.sent for frame in frames]


def test_the_first_flight() -> None:
    wire = Wire(tickets=bytes(range(256)) * 5)
    frames = wire.flush()
    assert frames[0].kind == 0x1E
    crypto = [frame.values for frame in frames if frame.kind == 0x06]
    assert b"".join(data for _, data in crypto) == bytes(range(256)) * 5
    assert [offset for offset, _ in crypto] == [0, 1000]
    names = [frame.values for frame in frames if frame.kind == 0x18]
    assert [value[0] for value in names] == [1], "as many as the client wants: two with the one of the handshake"
    assert wire.host.ids == {names[0][2]: wire.connection}
    assert max(wire.sizes) <= 1200
    assert wire.host.woken == 1


@pytest.mark.parametrize(("asked", "given"), [(2, 1), (4, 3), (8, 3), (1 << 40, 3)])
def test_how_many_names(asked: int, given: int) -> None:
    wire = Wire(active_ids=asked)
    assert sum(frame.kind == 0x18 for frame in wire.flush()) == given


def test_the_first_flight_is_repeated() -> None:
    wire = Wire(tickets=b"ticket")
    first = wire.flush()
    again = wire.advance(1.0)
    assert [frame for frame in again if frame.kind != 0x01][: len(first)] == first
    wire.acknowledge()
    assert wire.connection.timer_at() == 0.0
    assert wire.advance(100.0) == []


def test_an_acknowledgment_waits_a_little() -> None:
    wire = Wire().settle()
    assert wire.send(PING) == []
    assert wire.host.promised
    wire.now += 0.02
    assert wire.flush() == []
    [ack] = wire.advance(0.0)
    assert (ack.kind, ack.values[0]) == (0x02, [(0, 1)])
    assert abs((ack.values[1] << 3) - 20000) < 1000
    wire.connection.acknowledge()
    assert wire.flush() == [], "once"


def test_an_acknowledgment_rides_on_data() -> None:
    wire = Wire().settle()
    wire.send(stream_frame(0, 0, b"request", fin=True))
    wire.app.streams[0].send(b"reply", True)
    ack, data = wire.flush()
    assert (ack.kind, data.values) == (0x02, (0, 0, b"reply", True))


def test_many_packets_or_a_gap_are_acknowledged_at_once() -> None:
    wire = Wire().settle()
    for _ in range(ACK_EVERY - 1):
        assert wire.send(PING) == []
    assert [frame.kind for frame in wire.send(PING)] == [0x02]
    assert [frame.kind for frame in wire.send(PING, number=wire.number + 3)] == [0x02], "a gap (RFC 9000 §13.2.1)"
    assert [frame.kind for frame in wire.send(PING, number=wire.number - 2)] == [0x02], "and what fills it"


def test_acknowledgments_are_not_acknowledged() -> None:
    """RFC 9000 §13.2: neither an ACK nor padding asks for one."""
    wire = Wire().settle()
    for _ in range(30):
        assert wire.send(ack_frame([(0, wire.expected - 1)])) == []
        assert wire.send(bytes(5)) == []
    assert not wire.host.promised
    assert wire.advance(1.0) == []


def test_duplicates_and_strangers_change_nothing() -> None:
    wire = Wire().settle()
    wire.send(stream_frame(0, 0, b"x"), number=50)
    heard = wire.connection.heard
    wire.now += 1
    wire.send(stream_frame(0, 1, b"y"), number=50)
    for data in (b"\x40" + OUR_ID + bytes(40), bytes(60), b"\xc0" + bytes(100), b"@", b"\x40" + OUR_ID + bytes(19)):
        wire.connection.receive(data, OTHER_HOST, wire.now)
    good = wire.client.seal(OUR_ID, 51, stream_frame(0, 1, b"y"), 0)
    wire.connection.receive(bytes((good[0] ^ 0x40,)) + good[1:], ADDRESS, wire.now)
    assert wire.app.data == {0: b"x"}
    assert wire.connection.heard == heard
    assert wire.connection.paths.address == ADDRESS
    wire.connection.receive(good, ADDRESS, wire.now)
    assert wire.app.data == {0: b"xy"}


def test_reserved_bits() -> None:
    """RFC 9000 §17.3.1."""
    wire = Wire().settle()
    client = wire.client
    sealed = client._seal((client._seal_iv ^ 9).to_bytes(12, "big"), b"\1\0\0\0", b"\x49" + OUR_ID + b"\0\x09")
    mask = client._mask_out(sealed[2:18])
    data = bytes((0x49 ^ mask[0] & 0x1F,)) + OUR_ID + bytes((mask[1], 9 ^ mask[2])) + sealed
    wire.connection.receive(data, ADDRESS, wire.now)
    assert wire.error == (PROTOCOL_VIOLATION, 0)


def test_the_spin_bit_is_sent_back() -> None:
    wire = Wire().settle()
    wire.connection.spins = 0x20  # not so for one in sixteen
    for spin in (0x20, 0, 0x20):
        wire.connection.receive(wire.client.seal(OUR_ID, wire.number, PING * 3, spin), ADDRESS, wire.now)
        wire.number += 1
        wire.connection.ping()
        [datagram] = wire.connection.transmit(wire.now)
        wire._read(datagram, ADDRESS)
        assert wire.client.open(datagram, wire.expected)[0] & 0x20 == spin  # type: ignore[index]  # it opens


def test_streams_take_turns() -> None:
    wire = Wire(max_stream_data_bidi_local=1 << 20).settle()
    for stream_id in (0, 4, 8):
        wire.send(stream_frame(stream_id, 0, b"x"), flush=False)
        wire.app.streams[stream_id].send(bytes(5000), True)
    order = [frame.values[0] for frame in wire.flush() if frame.kind == 0x08]
    assert order[:6] == [0, 4, 8, 0, 4, 8]


def test_windows_of_the_client() -> None:
    """Nothing beyond MAX_DATA and MAX_STREAM_DATA; both open again."""
    wire = Wire(max_data=3000, max_stream_data_bidi_local=2000).settle()
    for stream_id in (0, 4):
        wire.send(stream_frame(stream_id, 0, b"x"), flush=False)
        wire.app.streams[stream_id].send(bytes(2500), True)
    frames = wire.flush() + wire.acknowledge() + wire.advance(1.0)
    assert sum(len(frame.values[2]) for frame in frames if frame.kind == 0x08) == 3000
    wire.acknowledge()
    frames = wire.send(b"\x10\x80\x01\0\0")  # MAX_DATA 65536
    assert sum(len(frame.values[2]) for frame in frames if frame.kind == 0x08) == 1000
    for stream_id in (0, 4):
        frames += wire.send(b"\x11%c\x80\x01\0\0" % stream_id)
    assert sum(len(frame.values[2]) for frame in frames if frame.kind == 0x08) == 2000
    assert {frame.values[0] for frame in frames if frame.kind == 0x08 and frame.values[3]} == {0, 4}
    assert wire.send(b"\x10\x05\x11\0\x05") == [], "windows do not shrink"
    assert wire.connection.queued == 0


def test_our_windows_follow_consumption_and_loss() -> None:
    wire = Wire(Limits(stream_window=2000, connection_window=4000)).settle()
    wire.app.consumes = False
    wire.send(stream_frame(0, 0, bytes(1100)))
    stream = wire.app.streams[0]
    stream.consume(1001)
    assert [frame.values for frame in wire.flush() if frame.kind == 0x11] == [(0, 3001)]
    stream.consume(99)
    again = wire.advance(1.0)
    assert (0, 3001) in [frame.values for frame in again if frame.kind == 0x11], "not acknowledged: said again"
    wire.acknowledge()
    wire.send(stream_frame(0, 1100, bytes(1100)))
    stream.consume(1100)
    frames = wire.flush()
    assert [frame.values for frame in frames if frame.kind == 0x10] == [(6200,)]
    assert [frame.values for frame in frames if frame.kind == 0x11] == [(0, 4200)]


def test_a_burst_is_bounded_and_paced() -> None:
    wire = Wire(Limits(max_datagram=1200), max_data=1 << 24, max_stream_data_bidi_local=1 << 24).settle()
    wire.send(stream_frame(0, 0, b"x"), flush=False)
    wire.connection.recovery.window = 1 << 22
    wire.connection.recovery._budget = 1e9
    wire.app.streams[0].send(bytes(1 << 20), True)
    wire.sizes.clear()
    woken = wire.host.woken
    wire.flush()
    assert len(wire.sizes) == MAX_BURST
    assert wire.host.woken == woken + 1, "others have their turn, then it goes on"
    wire.connection.recovery._budget = 0.0
    wire.flush()
    assert len(wire.sizes) == MAX_BURST
    wire.advance(0.02)
    assert len(wire.sizes) > MAX_BURST, "the pacer's timer goes on"
    assert wire.connection.recovery.in_flight <= wire.connection.recovery.window


def test_a_probe_when_nothing_is_left_to_say() -> None:
    wire = Wire().settle()
    wire.connection.ping()
    assert [frame.kind for frame in wire.flush()] == [0x01]
    frames = wire.advance(0.5)
    assert {frame.kind for frame in frames} == {0x01}
    wire.acknowledge()
    assert wire.connection.recovery.probes == 0
    assert wire.advance(10.0) == []


def test_a_silent_client_is_probed_ever_more_rarely() -> None:
    wire = Wire().settle()
    wire.send(stream_frame(0, 0, b"x"), flush=False)
    wire.app.streams[0].send(bytes(9000), True)
    wire.flush()
    wire.sizes.clear()
    wire.advance(60.0)
    assert 4 <= len(wire.sizes) <= 2 * 9
    assert len(wire.connection.recovery.sent) <= 40


def test_keys_are_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protection, "UPDATE_AFTER", 20)
    wire = Wire().settle()
    for turn in range(50):
        wire.connection.ping()
        wire.flush()
        wire.send(ack_frame([(0, wire.expected - 1)]) + stream_frame(0, turn, b"x"))
    assert wire.connection.protection.updates >= 2
    assert wire.app.data[0] == b"x" * 50


# -- the end ---------------------------------------------------------------------------------------------------------


def test_closing_answers_ever_more_rarely() -> None:
    wire = Wire().settle()
    wire.connection.close(0x100, "done")
    wire.connection.close(0x101)
    words = wire.connection.last_words()
    assert wire.error == (0x100, -1)
    assert wire.app.reasons == ["done"]
    woken = wire.host.woken
    for _ in range(64):
        wire.connection.receive(wire.client.seal(OUR_ID, 99, PING * 3, 0), ADDRESS, wire.now)
    assert wire.host.woken - woken == 7
    for _ in range(64):
        wire.connection.receive(wire.client.seal(OUR_ID, 99, PING * 3, 0), OTHER_HOST, wire.now)
    assert wire.host.woken - woken == 7, "others get none"
    assert wire.connection.last_words() == words
    assert wire.connection.transmit(wire.now) == []
    wire.connection.on_timer(wire.now)
    wire.connection.ping()


@pytest.mark.parametrize(("frame", "reason"), [
    (b"\x1d\x41\0\0", ""), (b"\x1d\0\0", ""), (b"\x1c\0\0\0", ""), (b"\x1d\x41\x02\x03why", "application error 0x102 why"),
    (b"\x1c\x0a\0\x02\xff\xfe", "transport error 0xa \ufffd\ufffd"),
])  # fmt: skip
def test_draining_says_nothing(frame: bytes, reason: str) -> None:
    """RFC 9000 §10.2.2. The application's codes are its own business; 0 is no error."""
    wire = Wire().settle()
    wire.send(stream_frame(0, 0, b"x"))
    wire.send(frame)
    expected = "application error 0x100" if frame[1:3] == b"\x41\0" else reason
    assert wire.app.reasons == [expected]
    assert [stream.id for stream in wire.app.left] == [0]
    assert wire.app.left[0].connection is None
    assert wire.connection.last_words() == b""
    wire.send(PING)
    assert wire.connection.transmit(wire.now) == []
    assert wire.host.ended == 1
    wire.app.left[0].send(b"late", True)
    wire.app.left[0].consume(1)
    wire.app.left[0].reset(1)
    wire.app.left[0].stop(1)


def test_a_crash_of_ours() -> None:
    wire = Wire().settle()
    wire.connection.crash()
    assert wire.error == (INTERNAL_ERROR, 0)


def test_too_many_forged_packets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeproxy.quic.connection.FORGERY_LIMIT", 5)
    wire = Wire().settle()
    for _ in range(5):
        wire.connection.receive(b"\x40" + OUR_ID + bytes(50), ADDRESS, wire.now)
    assert wire.error == (AEAD_LIMIT_REACHED, 0)


def test_no_cycle_is_left() -> None:
    """A connection that is over goes at once, without the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        for end in (b"\x1d\0\0", b"\x06", None):
            wire = Wire().settle()
            wire.send(stream_frame(0, 0, b"x") + stream_frame(2, 0, b"y"), flush=False)
            wire.app.streams[0].send(bytes(5000), False)
            wire.flush()
            if end is None:
                wire.connection.vanish("idle")
            else:
                wire.send(end)
            wire.host.ids.clear()
            del wire
            left = [thing for thing in gc.get_objects() if type(thing) is Connection]
            assert left == []
    finally:
        gc.enable()
