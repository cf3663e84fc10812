# The client moves, is challenged and answers, or does not; both sides hand out names and take them back.
"""quic/paths.py."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.quic_wire import ADDRESS, OTHER_HOST, OTHER_PORT, PEER_ID, Wire, stream_frame

from edgeproxy.quic.errors import CONNECTION_ID_LIMIT_ERROR, PROTOCOL_VIOLATION
from edgeproxy.quic.paths import MAX_OWN_IDS, MAX_PEER_IDS
from edgeproxy.quic.recovery import INITIAL_RTT
from edgeproxy.quic.varint import write

PING = b"\x01"
LARGE = bytes(1000) + PING


def new_id(sequence: int, retire: int = 0) -> bytes:
    return b"\x18%b%b\x08name%04d%b" % (write(sequence), write(retire), sequence, bytes(16))


def moving(address: tuple[str, int] = OTHER_PORT, packet: bytes = LARGE) -> tuple[Wire, bytes]:
    """A connection whose client has just moved, and what it was challenged with."""
    wire = Wire().settle()
    frames = wire.send(packet, address=address)
    [challenge] = [frame.values[0] for frame in frames if frame.kind == 0x1A]
    return wire, challenge


def test_a_new_port_is_challenged_and_validated() -> None:
    wire, challenge = moving()
    paths = wire.connection.paths
    assert paths.address == OTHER_PORT
    assert paths.moves == 1
    assert {address for _, _, address in wire.sent} == {OTHER_PORT}
    assert 0 < paths.allowance() < 3 * 1100
    wire.send(b"\x1bwrong!!!", address=OTHER_PORT)
    assert paths.allowance() < 1 << 30
    wire.send(b"\x1b" + challenge, address=OTHER_PORT)
    assert paths.allowance() > 1 << 30
    assert paths.until == 0.0
    wire.advance(10.0)
    assert wire.connection.is_open
    assert paths.address == OTHER_PORT


def test_what_may_be_sent_before_it_is_validated() -> None:
    """RFC 9000 §8.1, §9.3: three times what came from there."""
    wire = Wire(max_data=1 << 22, max_stream_data_bidi_local=1 << 22).settle()
    wire.send(stream_frame(0, 0, b"x"))
    wire.app.streams[0].send(bytes(100_000), True)
    wire.sizes.clear()
    datagram = wire.client.seal(b"\0\1ourid0", wire.number, bytes(300) + PING, 0)
    wire.connection.receive(datagram, OTHER_HOST, wire.now)
    wire.flush()
    wire.advance(0.5)
    assert sum(wire.sizes) <= 3 * len(datagram)
    assert {address for _, _, address in wire.sent[-1:]} == {OTHER_HOST}


def test_nothing_spins_while_nothing_may_be_sent() -> None:
    wire = Wire().settle()
    wire.send(stream_frame(0, 0, b"x"))
    wire.app.streams[0].send(bytes(100_000), True)
    wire.send(PING, address=OTHER_PORT)
    wire.send(PING, address=OTHER_PORT)
    wire.advance(0.4)  # raises when the timer spins
    assert wire.connection.recovery.pto_count <= 3
    assert wire.connection.paths.address == OTHER_PORT
    wire.advance(60.0)
    assert wire.connection.paths.address == ADDRESS, "it was given up"


def test_no_answer_leads_back() -> None:
    """RFC 9000 §9.3.2."""
    wire, _ = moving(OTHER_HOST)
    paths = wire.connection.paths
    assert paths.until == pytest.approx(wire.now + 3 * max(wire.connection.recovery.pto(), 2 * INITIAL_RTT), rel=0.2)
    wire.advance(10.0)
    assert wire.connection.is_open
    assert paths.address == ADDRESS
    assert paths.allowance() > 1 << 30
    assert paths.until == 0.0
    wire.sent.clear()
    wire.connection.ping()
    wire.flush()
    assert {address for _, _, address in wire.sent} == {ADDRESS}


def test_a_client_that_never_rests_keeps_the_first_path() -> None:
    """Path after path, none validated: the last validated one is where it ends."""
    wire = Wire().settle()
    for port in range(1, 30):
        wire.send(LARGE, address=("203.0.113.5", port))
    assert wire.connection.paths.moves == 29
    wire.advance(30.0)
    assert wire.connection.paths.address == ADDRESS
    assert wire.connection.is_open
    assert len(wire.connection.control) <= 60


def test_back_on_a_validated_path_nothing_is_challenged() -> None:
    wire, _ = moving()
    frames = wire.send(PING)
    assert wire.connection.paths.address == ADDRESS
    assert wire.connection.paths.until == 0.0
    assert wire.connection.paths.allowance() > 1 << 30
    assert not [frame for frame in frames if frame.kind == 0x1A and wire.sent[-1][2] == ADDRESS]
    wire.advance(5.0)
    assert wire.connection.is_open


def test_late_packets_move_nothing() -> None:
    """RFC 9000 §9.3: only the packet with the highest number does."""
    wire = Wire().settle()
    wire.send(PING, number=50)
    wire.send(PING, number=40, address=OTHER_HOST)
    assert wire.connection.paths.address == ADDRESS
    assert wire.connection.paths.moves == 0


@pytest.mark.parametrize("probe", [b"\x1a12345678", b"\x1b12345678", new_id(1), bytes(1200)])
def test_probes_move_nothing(probe: bytes) -> None:
    """RFC 9000 §9.1."""
    wire = Wire().settle()
    wire.send(bytes(max(0, 1150 - len(probe))) + probe, address=OTHER_HOST)
    assert wire.connection.paths.address == ADDRESS
    assert wire.connection.paths.moves == 0
    wire.send(probe + PING, address=OTHER_HOST)
    assert wire.connection.paths.address == OTHER_HOST


def test_congestion_begins_anew_for_another_host_only() -> None:
    """RFC 9000 §9.4."""
    for address, fresh in ((OTHER_PORT, False), (OTHER_HOST, True)):
        wire = Wire().settle()
        wire.connection.recovery.window = 99_999
        wire.send(LARGE, address=address)
        assert (wire.connection.recovery.window == 99_999) is not fresh


# -- PATH_CHALLENGE of the client ------------------------------------------------------------------------------------


def test_a_challenge_on_the_path_is_answered() -> None:
    wire = Wire().settle()
    frames = wire.send(b"\x1a12345678") + wire.advance(1.0)
    assert [frame.values for frame in frames if frame.kind == 0x1B] == [(b"12345678",)]


@pytest.mark.parametrize("size", [0, 200, 380, 1150])
@pytest.mark.parametrize("count", [1, 4])
def test_a_challenge_from_elsewhere_is_answered_there(size: int, count: int) -> None:
    """Expanded to 1200 bytes (RFC 9000 §8.2.2), and at most three times what came (§8.1)."""
    wire = Wire().settle()
    payload = bytes(max(0, size - 9 * count)) + b"\x1a12345678" * count
    datagram = wire.client.seal(b"\0\1ourid0", wire.number, payload, 0)
    wire.connection.receive(datagram, OTHER_HOST, wire.now)
    wire.sizes.clear()
    wire.flush()
    there = [frame for _, frames, address in wire.sent for frame in frames if address == OTHER_HOST]
    assert all(frame.values == (b"12345678",) and frame.kind == 0x1B for frame in there)
    assert len(there) == min(count, 3 * len(datagram) // 1200)
    assert wire.sizes == [1200] * len(there)
    assert wire.connection.paths.address == ADDRESS


# -- names of ours ---------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 12), max_size=25))
@settings(max_examples=100, deadline=None)
def test_retired_names_are_replaced(order: list[int]) -> None:
    wire = Wire(active_ids=8)
    names = {0: b"\0\1ourid0"}
    names.update({frame.values[0]: frame.values[2] for frame in wire.flush() if frame.kind == 0x18})
    wire.acknowledge()
    live = set(names)
    for sequence in order:
        frames = wire.send(b"\x19" + write(sequence)) + wire.advance(0.05)
        if sequence > max(names):
            assert wire.error == (PROTOCOL_VIOLATION, 0x19)
            return
        fresh = {frame.values[0]: frame.values[2] for frame in frames if frame.kind == 0x18}
        if sequence in live:
            live.discard(sequence)
            assert names[sequence] in wire.host.gone
            assert min(fresh) == max(names) + 1, "another one for it"
        else:
            assert set(fresh) <= set(names), "the same again, at most"
        live |= set(fresh) - set(names)
        names.update(fresh)
        assert len(wire.connection.paths.names) == MAX_OWN_IDS
        wire.acknowledge()
    assert len(set(wire.connection.paths.names)) == MAX_OWN_IDS


# -- names of the client's -------------------------------------------------------------------------------------------


@given(st.permutations(range(1, MAX_PEER_IDS)), st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_names_offered_in_any_order(order: list[int], repeats: int) -> None:
    wire = Wire().settle()
    for sequence in order * (1 + repeats):
        wire.send(new_id(sequence))
    assert wire.error is None
    assert wire.connection.paths.peer_id == PEER_ID
    assert len(wire.connection.paths._peer) == MAX_PEER_IDS - 1


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=20))
@settings(max_examples=150, deadline=None)
def test_names_are_retired_as_the_client_wants(offers: list[tuple[int, int]]) -> None:
    """Against a model: after each offer the name in use is live, and what is retired is said once or again, never another."""
    wire = Wire().settle()
    offered = {0}
    floor = 0
    retired: set[int] = set()
    for sequence, wanted in offers:
        retire = min(wanted, sequence)
        if sequence == 0:
            continue
        frames = wire.send(new_id(sequence, retire)) + wire.advance(0.03)
        if not wire.connection.is_open:
            assert wire.error == (CONNECTION_ID_LIMIT_ERROR, 0x18)
            live = {number for number in offered | {sequence} if number >= max(floor, retire)}
            assert len(live) > MAX_PEER_IDS
            return
        offered.add(sequence)
        floor = max(floor, retire)
        retired |= {frame.values[0] for frame in frames if frame.kind == 0x19}
        assert retired == {number for number in offered if number < floor}
        current = wire.connection.paths._peer_sequence
        assert current in offered
        assert current >= floor
        assert wire.connection.paths.peer_id == (b"name%04d" % current if current else PEER_ID)
        wire.acknowledge()


def test_another_name_for_us_is_answered_with_another_name() -> None:
    """RFC 9000 §9.5: so that the client's addresses can't be linked."""
    wire = Wire(active_ids=3)
    ours = [frame.values[2] for frame in wire.flush() if frame.kind == 0x18]
    wire.send(new_id(1) + new_id(2))
    wire.acknowledge()
    wire.send(LARGE, address=OTHER_PORT, destination=ours[0])
    assert wire.connection.paths.peer_id == b"name0001"
    wire.send(LARGE, address=OTHER_HOST, destination=ours[1])
    assert wire.connection.paths.peer_id == b"name0002"
    wire.send(LARGE, address=ADDRESS, destination=ours[1])
    assert wire.connection.paths.peer_id == b"name0002", "a rebinding keeps it"
    retired = [frame.values[0] for _, frames, _ in wire.sent for frame in frames if frame.kind == 0x19]
    assert set(retired) == {0, 1}


def test_a_client_without_names_offers_none() -> None:
    """RFC 9000 §19.15."""
    wire = Wire(peer_id=b"")
    for datagram in wire.connection.transmit(wire.now):
        assert len(datagram) > 3
    wire.connection.receive(wire.client.seal(b"\0\1ourid0", 0, new_id(1), 0), ADDRESS, wire.now)
    assert not wire.connection.is_open
    assert wire.app.reasons == ["connection ids of a client that uses none"]
