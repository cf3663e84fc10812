# Who gets in, who has to prove an address, who is turned away; and that nothing is left of anybody who is gone.
"""listen/quic.py, listen/quic_door.py and listen/quic_session.py, without sockets."""

from __future__ import annotations

import os

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from hypothesis import given, settings
from hypothesis import strategies as st
from support.edge import configuration
from support.h3_stand import GET, Answer, head
from support.quic_listener import SECRET, Client, Listening, packet_socket
from support.quic_pair import CLIENT, SERVER, client_configuration

from edgeproxy.listen.quic_door import ANSWERS_PER_SECOND, _source
from edgeproxy.quic.ids import Seat


def kind_of(data: bytes) -> QuicPacketType:
    return pull_quic_header(Buffer(data=data), host_cid_length=8).packet_type


def closed_with(client: Client) -> int | None:
    event = client.quic._close_event
    return None if event is None else event.error_code


def test_a_request_from_the_first_to_the_last_datagram() -> None:
    listening = Listening()
    client = Client(listening).talk()
    assert (listening.stats.half_open, listening.stats.handshakes, listening.stats.connections_open) == (0, 1, 1)
    client.quic.send_stream_data(0, head(((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"edge.test"),
                                          (b":path", b"/"))), end_stream=True)  # fmt: skip
    client.talk()
    raw = b""
    event = client.quic.next_event()
    while event is not None:
        if getattr(event, "stream_id", None) == 0:
            raw += event.data  # type: ignore[attr-defined]  # StreamDataReceived
        event = client.quic.next_event()
    assert Answer(raw).statuses == [200]
    client.quic.close()
    client.talk()
    listening.sweep(5.0)
    assert listening.is_empty
    assert listening.loop.complaints == []


def test_settings_are_kept_in_order() -> None:
    """Bot scoring reads them; the ClientHello is kept where somebody asks: tests/contract/test_prints.py."""
    listening = Listening()
    client = Client(listening).talk()
    client.quic.send_stream_data(2, b"\0\x04\x04\x06\x10\x21\x01")  # control stream: SETTINGS 6 = 16, 0x21 = 1
    client.talk()
    (session,) = listening.listener.open
    assert 100 < session.hello_size < 1000
    assert session.app is not None
    assert session.app.peer.prints is None
    assert session.app.control.settings == [(6, 16), (0x21, 1)]


def test_an_idle_client_is_forgotten() -> None:
    listening = Listening()
    Client(listening).talk()
    listening.sweep(300.0)
    listening.sweep(300.0)
    assert listening.is_empty
    assert listening.loop.complaints == []


def test_half_a_handshake_is_forgotten() -> None:
    listening = Listening()
    for port in range(1, 20):
        client = Client(listening, address=("192.0.2.7", port))
        assert listening.feed(*client.first(), address=client.address)
    assert listening.stats.half_open == 19
    listening.sweep(60.0)
    listening.sweep(5.0)
    assert listening.is_empty
    assert listening.stats.handshake_failures == {"timeout": 19}


@pytest.mark.parametrize("alpn", [["h3"], ["nothing"]])
def test_failures_are_counted_once(alpn: list[str]) -> None:
    listening = Listening()
    client = Client(listening, client_configuration(alpn_protocols=alpn)).talk()
    if alpn == ["h3"]:
        client.quic.close()
        client.talk()
    else:
        assert closed_with(client) == 0x178
        assert sum(listening.stats.handshake_failures.values()) == 1
    listening.sweep(5.0)
    listening.sweep(60.0)
    assert listening.is_empty


def test_a_client_that_allows_no_control_stream() -> None:
    """RFC 9114 §6.2. It must leave nothing behind."""
    listening = Listening()
    client = Client(listening, one_way=0).talk()
    assert closed_with(client) == 0x103
    listening.sweep(5.0)
    assert listening.loop.complaints == []
    assert listening.is_empty


# -- who has to prove an address -------------------------------------------------------------------------------------


def test_retry_always() -> None:
    listening = Listening(configuration(client={"h3": {"retry_at": 0}}))
    client = Client(listening)
    [answer] = listening.feed(*client.first())
    assert kind_of(answer) is QuicPacketType.RETRY
    assert listening.is_empty, "no state before the proof"
    client.quic.receive_datagram(answer, ("192.0.2.1", 443), now=listening.loop.now)
    second = client.first()
    elsewhere = listening.feed(*second, address=("198.51.100.1", 1))
    assert kind_of(elsewhere[0]) is QuicPacketType.RETRY, "the token is for another address"
    for data in listening.feed(*second):
        client.quic.receive_datagram(data, ("192.0.2.1", 443), now=listening.loop.now)
    client.talk()
    assert listening.stats.handshakes == 1
    assert listening.stats.retries == 2
    assert closed_with(client) is None


def test_an_old_token_is_told_so() -> None:
    """RFC 9000 §8.1.3."""
    listening = Listening(configuration(client={"h3": {"retry_at": 0}}))
    client = Client(listening)
    [answer] = listening.feed(*client.first())
    client.quic.receive_datagram(answer, ("192.0.2.1", 443), now=listening.loop.now)
    second = client.first()
    listening.loop.now += 60
    for data in listening.feed(*second):
        client.quic.receive_datagram(data, ("192.0.2.1", 443), now=listening.loop.now)
    assert closed_with(client) == 0x0B
    assert listening.is_empty


def test_retry_engages_and_ends() -> None:
    listening = Listening(configuration(client={"h3": {"retry_at": 4}}))
    answers = []
    for port in range(1, 9):
        client = Client(listening, address=("192.0.2.7", port))
        answers.append(kind_of(listening.feed(*client.first(), address=client.address)[0]))
    assert answers == [QuicPacketType.INITIAL] * 4 + [QuicPacketType.RETRY] * 4
    assert listening.stats.half_open == 4
    listening.sweep(60.0)
    client = Client(listening, address=("192.0.2.7", 99))
    assert kind_of(listening.feed(*client.first(), address=client.address)[0]) is QuicPacketType.INITIAL


# -- who is turned away ----------------------------------------------------------------------------------------------


def test_too_many_of_one_source() -> None:
    listening = Listening(configuration(client={"h3": {"max_per_source": 2}}))
    clients = [Client(listening, address=(f"2001:db8::{port}", port)).talk() for port in range(1, 4)]
    assert [closed_with(client) for client in clients] == [None, None, 0x02]
    other = Client(listening, address=("2001:db8:0:1::1", 5)).talk()
    assert closed_with(other) is None
    clients[0].quic.close()
    clients[0].talk()
    assert closed_with(Client(listening, address=("2001:db8::9", 9)).talk()) is None


@pytest.mark.parametrize(("host", "source"), [
    ("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "::ffff:192.0.2.1"), ("2001:db8::1", "2001:0db8:0000:0000"),
    ("fe80::1%eth0", "fe80:0000:0000:0000"), ("2001:db8:1:2:3::", "2001:0db8:0001:0002"),
])  # fmt: skip
def test_sources(host: str, source: str) -> None:
    assert _source(host) == source


def test_nobody_new_while_draining() -> None:
    listening = Listening()
    old = Client(listening).talk()
    listening.listener.stop_accepting()
    assert closed_with(Client(listening, address=("192.0.2.8", 1)).talk()) == 0x02
    listening.listener.drain()
    old.talk()
    listening.sweep(2.0)
    old.talk()
    assert closed_with(old) == 0x100
    listening.sweep(5.0)
    assert listening.is_empty


@pytest.mark.parametrize("lengths", [(8, 8), (0, 0), (20, 20), (255, 200)])
def test_version_negotiation(lengths: tuple[int, int]) -> None:
    """RFC 9000 §6; ids of other versions may be longer than ours (RFC 8999)."""
    destination, source = os.urandom(lengths[0]), os.urandom(lengths[1])
    data = b"\xc0\x1a\x2a\x3a\x4a%c%b%c%b" % (len(destination), destination, len(source), source)
    listening = Listening()
    [answer] = listening.feed(data.ljust(1200, b"x"))
    assert answer[1:5] == bytes(4)
    assert answer[5:] == b"%c%b%c%b\0\0\0\x01\x6b\x33\x43\xcf" % (len(source), source, len(destination), destination)
    assert listening.feed(data.ljust(1199, b"x")) == [], "too small"
    assert listening.feed((data[:1] + bytes(4) + data[5:]).ljust(1200, b"x")) == [], "an answer is not answered"
    assert listening.is_empty


def test_small_initials_are_dropped() -> None:
    listening = Listening()
    [data] = Client(listening).first()
    assert listening.feed(data[:1199]) == []
    assert listening.is_empty


# -- nobody's packets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("retrying", [False, True])
@pytest.mark.parametrize("length", [21, 100, 255])
def test_ids_that_are_too_long(length: int, retrying: bool) -> None:
    """RFC 9000 §17.2: dropped, and not answered with a Retry either."""
    listening = Listening(configuration(client={"h3": {"retry_at": 0}}) if retrying else None)
    packet = b"\xc0\0\0\0\1\x08%b%c%b\0\x43\0" % (os.urandom(8), length, os.urandom(length))
    assert listening.feed(packet.ljust(1200, b"\1")) == []
    assert listening.stats.drops == {"malformed": 1}
    assert listening.is_empty


@pytest.mark.parametrize("size", [1, 9, 22, 23, 40, 43, 44, 1200])
def test_stateless_reset(size: int) -> None:
    """RFC 9000 §10.3: shorter than what came, and with the token of the id."""
    seat = Seat(0, 1, SECRET, None, [])
    name = seat.new_id()
    listening = Listening(seat=seat)
    data = (b"\x41" + name + os.urandom(1200))[:size]
    answers = listening.feed(data)
    if size < 23:
        assert answers == []
        return
    [answer] = answers
    assert 22 <= len(answer) < size
    assert len(answer) <= 42
    assert answer[-16:] == seat.reset_token(name)
    assert answer[0] & 0xC0 == 0x40
    assert len(listening.feed(*[data] * 500)) <= ANSWERS_PER_SECOND, "bounded"


def test_two_workers_share_the_clients() -> None:
    ends = packet_socket(), packet_socket()
    outboxes = [pair[0] for pair in ends]
    workers = [Listening(seat=Seat(slot, 1, SECRET, None, outboxes)) for slot in (0, 1)]
    workers[0].listener.seat.inbox, workers[1].listener.seat.inbox = ends[0][1], ends[1][1]
    client = Client(workers[0]).talk()
    client.quic.send_stream_data(2, b"\x21" + bytes(1000))
    out = client.first()
    assert workers[1].feed(*out, address=("192.0.2.7", 9999)) == [], "another worker gets it"
    assert workers[1].stats.passed_on == len(out)
    workers[0].listener._passed_in()
    workers[0].loop.run(0.05)
    answers = workers[0].udp.take()
    assert answers
    assert {address for _, address in answers} == {("192.0.2.7", 9999)}
    assert workers[0].stats.passed_in == len(out)
    stranger = b"\x41" + workers[1].listener.seat.new_id() + bytes(100)
    workers[0].feed(stranger)
    workers[1].listener._passed_in()
    assert workers[1].stats.resets_sent == 1
    workers[1].listener._passed_in()
    for pair in ends:
        pair[0].close()
        pair[1].close()


_shared: list[Listening] = []


NOISE = st.binary(min_size=1, max_size=1300)


@given(st.lists(NOISE, min_size=1, max_size=5), st.integers(0, 1199), st.binary(min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_garbage(noise: list[bytes], position: int, patch: bytes) -> None:
    """Fuzzed datagrams: no exception, and nobody is known for longer than a handshake may take."""
    if not _shared:
        _shared.append(Listening())
    listening = _shared[0]
    [first] = Client(listening).first()
    patched = (first[:position] + patch + first[position + len(patch) :])[:1200]
    sent = listening.feed(*noise, patched, first[: max(position, 1)], *noise)
    assert sum(map(len, sent)) <= 3 * (sum(map(len, noise)) * 2 + 2400)
    listening.sweep(60.0)
    listening.sweep(5.0)
    assert listening.is_empty
    assert listening.loop.complaints == []


def test_a_crash_ends_one_client_only(monkeypatch: pytest.MonkeyPatch) -> None:
    listening = Listening()
    one = Client(listening).talk()
    other = Client(listening, address=("192.0.2.9", 9)).talk()
    [session] = [session for session in listening.listener.open if session.address == CLIENT]
    monkeypatch.setattr(type(session.app), "stream_data", lambda *given: {}[1])
    one.quic.send_stream_data(0, b"x")
    one.talk()
    assert closed_with(one) == 0x01
    assert closed_with(other) is None
    assert len(listening.listener.open) == 1
    assert len(listening.loop.complaints) == 1


def test_a_crash_while_crashing_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    listening = Listening()
    one = Client(listening).talk()
    other = Client(listening, address=("192.0.2.9", 9)).talk()
    [session] = [session for session in listening.listener.open if session.address == CLIENT]
    monkeypatch.setattr(type(session), "transmit", lambda session, now: {}[1])
    monkeypatch.setattr(type(session.app), "closed", lambda *given: {}[1])
    for client in (one, other):
        client.quic.send_ping(1)
        client.first()
    for session in list(listening.listener.open):
        listening.listener.want(session)
    listening.loop.run()
    assert not listening.listener.open
    assert len(listening.loop.complaints) >= 4


def test_nonsense_makes_clients_prove_their_address() -> None:
    """An Initial that nobody can read costs as much as a good one, and leaves nothing behind that could be counted."""
    listening = Listening()
    limit = listening.stand.snapshot.client.h3.retry_at

    def nonsense() -> bytes:
        return b"\xc0\0\0\0\1\x08%b\x08%b\0\x44\x9e%b" % (os.urandom(8), os.urandom(8), os.urandom(1174))

    for _ in range(limit):
        listening.feed(nonsense())
    assert listening.stats.retries == 0
    for _ in range(50):
        listening.feed(nonsense())
    assert listening.stats.retries == 50
    client = Client(listening).talk()
    assert listening.stats.handshakes == 1
    assert closed_with(client) is None
    listening.loop.run(1.0)
    Client(listening, address=("192.0.2.9", 9)).talk()
    assert (listening.stats.handshakes, listening.stats.retries) == (2, 51), "it is over"


def test_a_crash_at_the_door_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those behind it in the same read have their turn, and what is sent later is sent."""
    listening = Listening()
    client = Client(listening).talk()
    monkeypatch.setattr("edgeproxy.listen.quic.Door.knock", lambda *given, **named: {}[1])
    client.quic.send_ping(1)
    listening.feed(b"\x40" + bytes(50), *client.first())
    assert not listening.listener._reading
    listening.loop.run(0.03)
    assert listening.udp.take(), "the acknowledgment"
    assert len(listening.loop.complaints) == 1


def test_a_full_socket_is_waited_for() -> None:
    listening = Listening()
    client = Client(listening).talk()
    listening.udp.blocked = True
    client.quic.send_stream_data(2, b"\x02\x21")  # ends the connection
    assert listening.feed(*client.first()) == []
    assert listening.loop.writers == 1
    listening.loop.run(1.0)
    assert listening.udp.take() == []
    listening.udp.blocked = False
    listening.listener._writable(listening.endpoint)
    assert listening.loop.writers == 0
    client.talk()
    assert closed_with(client) == 0x201


@pytest.mark.parametrize("after", [0.0, 3.0, 9.75, 17.0])
def test_neither_side_gives_up_while_an_upstream_thinks(after: float) -> None:
    """A sign of life comes in time whenever the request began, at first right behind the handshake."""
    idle = 30.0
    listening = Listening()
    listening.stand.pool.answers = False
    client = Client(listening, client_configuration(idle_timeout=idle)).talk()

    def rest(seconds: float) -> None:
        end = listening.loop.now + seconds
        while listening.loop.now < end:
            listening.sweep(0.25)
            for data, _ in listening.udp.take():
                client.quic.receive_datagram(data, SERVER, now=listening.loop.now)
            client.talk(1)

    rest(after)
    client.quic.send_stream_data(0, head(GET), end_stream=True)
    rest(4 * idle)
    assert closed_with(client) is None
    assert len(listening.listener.open) == 1
    listening.listener.abort()
