# The seam to aioquic: what we assume of it holds for the release that is pinned, and nothing a client sends gets through it.
"""quic/handshake.py."""

from __future__ import annotations

import ast
import gc
import inspect
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted
from aioquic.quic.packet import encode_quic_retry
from aioquic.tls import Context, SessionTicket
from hypothesis import given, settings
from hypothesis import strategies as st
from support.quic_pair import CLIENT, Network, Pair, client_configuration, terms

from edgeproxy.quic import handshake as module
from edgeproxy.quic.established import Limits
from edgeproxy.quic.handshake import MAX_CRYPTO, MAX_EARLY, Handshake, Tickets, _Engine
from edgeproxy.quic.headers import VERSIONS, long_headers
from edgeproxy.quic.ids import Seat
from edgeproxy.quic.varint import LARGEST, write

NAME = b"original"


def initial(payload: bytes, *, number: int = 0, version: int = VERSIONS[0], name: bytes = NAME, size: int = 1200) -> bytes:
    """A client's Initial packet with any frames, padded to `size`."""
    crypto = CryptoPair()
    crypto.setup_initial(cid=name, is_client=True, version=version)
    room = size - (7 + len(name) + 8 + 1 + 2 + 2 + 16)
    payload = payload.ljust(room, b"\0")
    kind = 0xC1 if version == VERSIONS[0] else 0xD1
    header = b"%c%b%c%b\x08clientid\0%b%b" % (
        kind, version.to_bytes(4, "big"), len(name), name, (len(payload) + 18 | 0x4000).to_bytes(2, "big"),
        number.to_bytes(2, "big"),
    )  # fmt: skip
    return crypto.encrypt_packet(header, payload, number)


def begun(**changes: Any) -> Handshake:
    return Handshake(terms(), Seat.single(), CLIENT, NAME, **changes)


def completed(pair: Pair) -> HandshakeCompleted:
    [event] = [event for event in pair.events if isinstance(event, HandshakeCompleted)]
    return event


# -- the contract with aioquic ---------------------------------------------------------------------------------------


def test_the_release_is_the_pinned_one() -> None:
    pinned = re.search(r'"aioquic==([^"]+)"', (Path(__file__).parents[3] / "pyproject.toml").read_text())
    assert pinned is not None
    assert version("aioquic") == pinned[1]


def test_every_private_name_exists() -> None:
    """Names with an underscore, and those of `tls`, as they stand in the source."""
    pair = Pair(Network())
    pair.run(lambda: pair.state is not None and pair.state._engine._crypto_streams)  # type: ignore[union-attr]  # a Handshake
    assert isinstance(pair.state, Handshake)
    engine = pair.state._engine
    assert engine is not None
    stream = next(iter(engine._crypto_streams.values()))
    objects: dict[str, Any] = {
        "engine": engine, "self": engine, "tls": engine.tls, "loss": engine._loss, "stream": stream, "Context": Context,
        "receiver": stream.receiver, "sender": stream.sender,
    }  # fmt: skip
    seen = set()
    tree = ast.parse(inspect.getsource(module))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    for name in ("_Engine", "Handshake"):
        for node in ast.walk(classes[name]):
            if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name | ast.Attribute):
                continue
            holder = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if holder not in objects or (holder == "self" and name == "Handshake"):
                continue
            assert hasattr(objects[holder], node.attr), f"{holder}.{node.attr}"
            seen.add(node.attr)
    assert {"_host_cids", "_cryptos", "_packet_number", "_peer_cid", "_close_event", "_rtt_smoothed"} <= seen
    assert {"_max_early_data", "highest_offset", "_local_max_stream_data_uni"} <= seen
    base = set(dir(QuicConnection))
    assert {"_initialize", "_handle_crypto_frame"} <= base, "what _Engine overrides"
    assert len(inspect.signature(Context._server_handle_hello).parameters) == 4
    assert engine.tls._supported_groups[0].name == "X25519"


@pytest.mark.parametrize("number", VERSIONS)
def test_what_is_taken_over(number: int) -> None:
    made = client_configuration(max_data=123_456, max_stream_data=65_432, idle_timeout=17.0)
    made.original_version = number
    made.supported_versions = [number]
    limits = Limits(max_streams=7, one_way=5, stream_window=11_111, connection_window=22_222, one_way_window=3_333)
    pair = Pair(offer=terms(limits), configuration=made)
    pair.run(lambda: isinstance(pair.state, Handshake))
    handshake = pair.state
    assert isinstance(handshake, Handshake)
    pair.handshake()
    established = handshake.established
    assert established is not None
    client = pair.client
    assert established.server_name == "edge.test"
    assert handshake.names is not None
    assert "edge.test" in handshake.names
    assert established.hello[:1] == b"\x01"
    assert len(established.hello) == 4 + int.from_bytes(established.hello[1:4], "big")
    assert b"\x04" in established.parameters
    assert established.peer_id == client.host_cid
    assert established.ids[0] == client._peer_cid.cid == handshake.ids[0]
    assert (established.max_data, established.max_stream_data_bidi_local, established.idle) == (123_456, 65_432, 17.0)
    assert (established.max_streams_uni, established.max_ack_delay, established.ack_delay_exponent) == (128, 0.025, 3)
    assert established.active_ids == 8
    assert 0.015 < established.rtt < 0.2
    assert not established.resumed
    # What the client was told is what we keep to.
    assert (client._remote_max_streams_bidi, client._remote_max_streams_uni) == (7, 5)
    assert (client._remote_max_stream_data_bidi_remote, client._remote_max_stream_data_uni) == (11_111, 3_333)
    assert client._remote_max_data == 22_222
    assert client._peer_cid.stateless_reset_token == pair.seat.reset_token(established.ids[0])
    assert client._remote_active_connection_id_limit == 8
    assert handshake._engine is None
    assert completed(pair).alpn_protocol == "h3"


@pytest.mark.parametrize("seed", range(4))
def test_loss_in_the_handshake(seed: int) -> None:
    pair = Pair(Network(seed, loss=0.3, repeat=0.2, jitter=0.03))
    pair.handshake()
    assert pair.connection.is_open


def test_a_client_of_another_protocol() -> None:
    made = client_configuration(alpn_protocols=["hq-interop"])
    refused = Pair(configuration=made)
    refused.rest(2.0)
    assert isinstance(refused.state, Handshake)
    assert refused.state.failure.startswith("0x178"), "no_application_protocol"
    assert any(isinstance(event, ConnectionTerminated) and event.error_code == 0x178 for event in refused.events)
    assert refused.state.established is None


# -- resumption and early data ---------------------------------------------------------------------------------------


def first_visit() -> tuple[Pair, list[SessionTicket]]:
    tickets: list[SessionTicket] = []
    pair = Pair(keep=tickets.append).handshake()
    pair.rest(0.5)
    assert len(tickets) == 1
    return pair, tickets


def again(pair: Pair, ticket: SessionTicket, **changes: Any) -> Pair:
    made = client_configuration(**changes)
    made.session_ticket = ticket
    return Pair(offer=pair.terms, configuration=made)


def test_a_session_is_resumed_for_its_name_only() -> None:
    pair, [ticket] = first_visit()
    assert len(pair.terms.tickets) == 1
    assert not ticket.max_early_data_size, "early data is never offered"
    resumed = again(pair, ticket).handshake()
    assert completed(resumed).session_resumed
    other = again(pair, ticket, server_name="other.edge.test").handshake()
    assert not completed(other).session_resumed
    forgetful = terms(most=0)
    made = client_configuration()
    made.session_ticket = ticket
    stranger = Pair(offer=forgetful, configuration=made).handshake()
    assert not completed(stranger).session_resumed


def test_early_data_is_refused() -> None:
    """A client that sends 0-RTT data all the same gets a whole handshake, and its data counts only when sent again."""
    pair, [ticket] = first_visit()
    ticket.max_early_data_size = 0xFFFFFFFF
    made = client_configuration()
    made.session_ticket = ticket
    eager = Pair.__new__(Pair)
    connect = QuicConnection.connect

    def connect_and_send(self: QuicConnection, *given: Any, **named: Any) -> None:
        connect(self, *given, **named)
        self.send_stream_data(0, b"early", end_stream=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QuicConnection, "connect", connect_and_send)
        eager.__init__(offer=pair.terms, configuration=made)  # type: ignore[misc]  # the usual one, under the patch
    assert any(first & 0xF0 == 0xD0 for first in long_types(eager)), "0-RTT packets are on their way"
    eager.handshake()
    event = completed(eager)
    assert (event.early_data_accepted, event.session_resumed) == (False, False)
    eager.rest(3.0)
    assert eager.connection.is_open
    assert eager.app.data.get(0, b"early") == b"early"


def long_types(pair: Pair) -> list[int]:
    """First bytes of the long-header packets that are flying."""
    found = []
    for _, _, _, data, _ in pair.flying:
        rest = data
        while rest and rest[0] & 0x80:
            found.append(rest[0])
            at = 6 + rest[5]
            at += 1 + rest[at]
            if not rest[0] & 0x30:
                at += 1
            size = int.from_bytes(rest[at : at + 2], "big") & 0x3FFF
            rest = rest[at + 2 + size :]
    return found


def test_tickets_are_bounded() -> None:
    tickets = Tickets(3)
    _, [ticket] = first_visit()
    for index in range(10):
        copied = SessionTicket(**{**ticket.__dict__, "ticket": b"%d" % index})
        tickets.add(copied, "edge.test")
    assert len(tickets) == 3
    assert tickets.get(b"6", "edge.test") is None
    assert tickets.get(b"9", "edge.test") is not None
    assert tickets.get(b"9", "other.test") is None


# -- bounds ----------------------------------------------------------------------------------------------------------


def test_amplification() -> None:
    """RFC 9000 §8.1: three times what came, however long the client is silent."""
    pair = Pair()
    [(_, _, _, data, _), *_] = pair.flying
    handshake = Handshake(pair.terms, pair.seat, CLIENT, data[6 : 6 + data[5]])
    handshake.receive(data, CLIENT, 1000.0)
    sent = sum(map(len, handshake.transmit(1000.0)))
    assert sent >= 1200
    for _ in range(100):
        at = handshake.timer_at()
        if not at:
            break
        handshake.on_timer(at)
        sent += sum(map(len, handshake.transmit(at)))
    assert 2 * len(data) < sent <= 3 * len(data)


def test_after_a_retry() -> None:
    pair = Pair()
    [(_, _, _, data, _), *_] = pair.flying
    pair.flying.clear()
    original = data[6 : 6 + data[5]]
    source = pair.seat.new_id()
    retry = encode_quic_retry(
        version=VERSIONS[0], source_cid=source, destination_cid=pair.client.host_cid, original_destination_cid=original,
        retry_token=b"token",
    )  # fmt: skip
    pair.client.receive_datagram(retry, ("192.0.2.1", 443), now=pair.now)
    pair.original = original
    pair.handshake()
    assert pair.connection.is_open, "the client checked both ids (RFC 9000 §7.3)"


def test_packets_that_overtake_the_end_of_the_handshake() -> None:
    pair = Pair()
    pair.client.send_stream_data(0, b"early bird", end_stream=True)
    receive = pair.receive

    def tails_first(data: bytes, address: tuple[str, int]) -> None:
        end = long_headers(data)
        if isinstance(pair.state, Handshake) and 0 < end < len(data):
            for _ in range(2 * MAX_EARLY):
                receive(data[end:], address)
            assert len(pair.state.early) == MAX_EARLY
            data = data[:end]
        receive(data, address)

    pair.receive = tails_first  # type: ignore[method-assign]  # a detour
    pair.handshake()
    pair.rest(0.2)
    assert pair.app.data == {0: b"early bird"}
    assert pair.connection.recovery.probed == 0


def test_another_address_says_nothing() -> None:
    """RFC 9000 §9: no migration before the handshake is confirmed."""
    handshake = begun()
    handshake.receive(initial(b"\x01"), ("192.0.2.99", 1), 1000.0)
    assert handshake.transmit(1000.0) == []
    assert handshake.timer_at() == 0.0


def test_too_much_of_a_hello() -> None:
    handshake = begun()
    frame = b"\x06" + write(MAX_CRYPTO) + write(10) + bytes(10)
    handshake.receive(initial(frame), CLIENT, 1000.0)
    assert handshake.transmit(1000.0)
    assert handshake.failure.startswith("0xd")


FRAMES = st.one_of(
    st.binary(max_size=300),
    st.builds(
        lambda kind, numbers, tail: bytes((kind,)) + b"".join(map(write, numbers)) + tail,
        st.integers(0, 0x31), st.lists(st.integers(0, LARGEST), max_size=5), st.binary(max_size=90),
    ),
)  # fmt: skip


@given(st.lists(FRAMES, min_size=1, max_size=3), st.sampled_from(VERSIONS))
@settings(max_examples=100, deadline=None)
def test_any_frames_in_an_initial(payloads: list[bytes], number: int) -> None:
    """Keys of Initials are known to everybody: whatever stands in them must not raise."""
    handshake = _cheap(number)
    for index, payload in enumerate(payloads):
        handshake.receive(initial(payload, number=index, version=number), CLIENT, 1000.0)
        sent = handshake.transmit(1000.0)
        assert sum(map(len, sent)) <= 3600
        at = handshake.timer_at()
        if at:
            handshake.on_timer(at)
    handshake.drop()
    assert handshake.transmit(1001.0) == []
    handshake.receive(initial(b"\x01"), CLIENT, 1000.0)


_terms: list[Any] = []


def _cheap(number: int = VERSIONS[0]) -> Handshake:
    """One set of terms for all examples."""
    if not _terms:
        _terms.append(terms())
    return Handshake(_terms[0], Seat.single(), CLIENT, NAME, number)


@given(st.binary(max_size=1400), st.integers(0, 60), st.integers(0, 255))
@settings(max_examples=100, deadline=None)
def test_garbage_datagrams(noise: bytes, position: int, value: int) -> None:
    handshake = _cheap()
    packet = bytearray(initial(b"\x01"))
    packet[position] = value
    for data in (bytes(packet), bytes(packet[: position + 1]), noise or b"x", bytes(packet[:30]) + noise):
        handshake.receive(data, CLIENT, 1000.0)
        handshake.transmit(1000.0)
    assert handshake.established is None


def test_nothing_is_left_when_it_is_over() -> None:
    gc.collect()
    gc.disable()
    try:
        pair = Pair().handshake()
        assert pair.connection.is_open
        dropped = _cheap()
        dropped.receive(initial(b"\x01"), CLIENT, 1000.0)
        dropped.drop()
        assert dropped.is_over
        assert [thing for thing in gc.get_objects() if type(thing) is _Engine] == []
    finally:
        gc.enable()
