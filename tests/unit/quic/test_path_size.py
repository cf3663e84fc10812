# Larger datagrams where the path takes them, small ones again where it does not (RFC 8899, RFC 9000 §14).
"""The size of datagrams in quic/connection.py and quic/paths.py."""

from __future__ import annotations

from support.quic_wire import OTHER_PORT, Wire, ack_frame, stream_frame

from edgeproxy.quic.established import Limits
from edgeproxy.quic.paths import MAX_PROBES, PROBE_AFTER, SMALLEST


def downloading(size: int = 1 << 20, most: int = 1350) -> Wire:
    wire = Wire(Limits(max_datagram=most), max_data=1 << 24, max_stream_data_bidi_local=1 << 24).settle()
    wire.send(stream_frame(0, 0, b"x"), flush=False)
    wire.app.streams[0].send(bytes(size), True)
    return wire


def go_on(wire: Wire, turns: int, *, lose_large: bool = False) -> None:
    """The client acknowledges what it gets."""
    for _ in range(turns):
        wire.now += 0.05
        wire.flush()
        sent = zip(wire.sent, wire.sizes, strict=True)
        got = sorted(number for (number, _, _), size in sent if not (lose_large and size > SMALLEST))
        ranges: list[tuple[int, int]] = []
        for number in reversed(got[-60:]):
            if ranges and ranges[-1][0] == number + 1:
                ranges[-1] = (number, ranges[-1][1])
            else:
                ranges.append((number, number))
        if ranges:
            wire.send(ack_frame(ranges), flush=False)


def test_a_path_that_takes_more() -> None:
    wire = downloading()
    go_on(wire, 20)
    assert 1350 in wire.sizes
    assert wire.connection.paths.size == 1350
    assert wire.sizes.count(1350) > 100
    at = wire.sizes.index(1350)
    assert sum(wire.sizes[:at]) >= PROBE_AFTER, "not for a small answer"
    assert max(wire.sizes) == 1350


def test_a_path_that_does_not() -> None:
    wire = downloading()
    window = wire.connection.recovery.window
    go_on(wire, 40, lose_large=True)
    assert wire.sizes.count(1350) == MAX_PROBES
    assert wire.connection.paths.size == SMALLEST
    assert wire.connection.recovery.window > window, "a lost probe is no congestion (RFC 9000 §14.4)"


def test_a_path_becomes_smaller() -> None:
    """RFC 8899 §4.3."""
    wire = downloading()
    go_on(wire, 10)
    assert wire.connection.paths.size == 1350
    wire.sizes.clear()
    wire.sent.clear()
    wire.flush()
    wire.advance(20.0)
    assert wire.connection.paths.size == SMALLEST
    assert wire.sizes[-1] <= SMALLEST, "small probes come through"
    go_on(wire, 60, lose_large=True)
    assert wire.connection.queued == 0


def test_no_probes_when_they_are_not_wanted() -> None:
    wire = downloading(most=SMALLEST)
    go_on(wire, 20)
    assert max(wire.sizes) == SMALLEST


def test_another_path_begins_small() -> None:
    wire = downloading()
    go_on(wire, 10)
    wire.sizes.clear()
    wire.send(bytes(1000) + b"\x01", address=OTHER_PORT)
    assert wire.connection.paths.size == SMALLEST
    assert max(wire.sizes, default=0) <= SMALLEST


def test_a_probe_is_numbered_as_it_is_sent() -> None:
    """With the packets of its turn: a client that acknowledges some of those first must not make it count as lost."""
    wire = Wire(Limits(max_datagram=1350), max_data=1 << 30, max_stream_data_bidi_local=1 << 30).settle()
    wire.send(stream_frame(0, 0, b"x", fin=True), flush=False)
    connection = wire.connection
    connection.recovery.window = 1 << 20
    connection.recovery._budget = 1e9
    wire.app.streams[0].send(bytes(1 << 20), True)
    connection.paths.probe_at = 0
    wire.flush()
    numbers = [number for number, _, _ in wire.sent]
    assert numbers == sorted(numbers)
    assert 1350 in wire.sizes
    for number in numbers:
        wire.send(ack_frame([(numbers[0], number)]), flush=False)
    assert connection.paths.size == 1350
    assert connection.recovery.lost == 0
