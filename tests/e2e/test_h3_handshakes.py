# Before a connection: versions, Retry, the limit on what an unproven address gets, resumption without early data, and what
# is said to packets of connections that nobody knows.
"""RFC 9000 §6, §8, §10.3; RFC 9001 §4.6; RFC 9369."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.packet import QuicPacketType, QuicProtocolVersion, pull_quic_header
from support.edge import running_edge
from support.h3 import CONTROL, RawH3, h3_connected, headers, settings
from support.heads import GOOD
from support.quic import Connection, configuration, varint
from support.upstream import running_upstream
from support.waiting import until

from edgeproxy.quic.ids import Seat

MAX_EARLY_DATA = 0xFFFFFFFF
NO_APPLICATION_PROTOCOL = 0x178
INVALID_TOKEN = 0xB


class Mailbox:
    """An address of its own: a socket, what came to it, and what went out."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.received: list[bytes] = []
        self.sent = 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.connect(("127.0.0.1", port))
        asyncio.get_running_loop().add_reader(self.socket.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            while True:
                self.received.append(self.socket.recv(65536))
        except (BlockingIOError, ConnectionRefusedError):
            pass

    def send(self, data: bytes) -> None:
        self.sent += len(data)
        self.socket.send(data)

    @property
    def size(self) -> int:
        return sum(map(len, self.received))

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.socket.fileno())
        self.socket.close()

    def __enter__(self) -> Mailbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def first_flight(**settings: Any) -> list[bytes]:
    """What a client sends first."""
    quic = Connection(configuration=configuration(**settings))
    now = asyncio.get_running_loop().time()
    quic.connect(("127.0.0.1", 1), now)
    return [data for data, _ in quic.datagrams_to_send(now)]


def long_packet(version: int, size: int = 1200, destination: bytes = b"destined", source: bytes = b"from us!") -> bytes:
    """The part of a long header that no version changes (RFC 8999), and zeros."""
    head = b"\xc3" + version.to_bytes(4, "big") + bytes([len(destination)]) + destination + bytes([len(source)]) + source
    return head.ljust(size, b"\0")


def kind(data: bytes) -> QuicPacketType:
    """What a datagram begins with."""
    return pull_quic_header(Buffer(data=data), host_cid_length=8).packet_type


# -- versions ----------------------------------------------------------------------------------------------------


async def test_version_negotiation() -> None:
    async with running_edge() as edge:
        with Mailbox(edge.https_port) as box:
            box.send(long_packet(0x1A2A3A4A, 1199))  # RFC 9000 §6.1: too small to be answered
            box.send(long_packet(0))  # itself a Version Negotiation packet: never answered
            box.send(long_packet(0x1A2A3A4A))
            await until(lambda: box.received)
            header = pull_quic_header(Buffer(data=box.received[0]), host_cid_length=8)
            assert header.packet_type is QuicPacketType.VERSION_NEGOTIATION
            assert (header.destination_cid, header.source_cid) == (b"from us!", b"destined")
            assert QuicProtocolVersion.VERSION_1 in header.supported_versions
            assert 0x1A2A3A4A not in header.supported_versions
            assert len(box.received) == 1
        assert edge.stats.quic.version_negotiations == 1
        assert edge.data_plane.connections == 0


@pytest.mark.parametrize("length", [0, 20, 21, 255])
async def test_ids_of_other_versions_may_be_longer(length: int) -> None:
    """RFC 8999 §5.1: up to 255 bytes; what comes back has them the other way round."""
    async with running_edge() as edge:
        with Mailbox(edge.https_port) as box:
            box.send(long_packet(0x1A2A3A4A, 1300, b"d" * length, b"s" * length))
            await until(lambda: box.received)
            size = bytes([length])
            assert box.received[0][1:].startswith(bytes(4) + size + b"s" * length + size + b"d" * length)


@pytest.mark.parametrize("versions", [[1], [0x6B3343CF], [0x6B3343CF, 1], [1, 0x6B3343CF]])
async def test_versions_1_and_2(versions: list[int]) -> None:
    async with (
        running_upstream() as upstream, running_edge(upstream.port) as edge,
        h3_connected(edge.https_port, supported_versions=versions) as client,
    ):  # fmt: skip
        await client.fine(GOOD)


async def test_a_client_of_another_version_finds_a_common_one() -> None:
    versions = [0x1A2A3A4A, 1]
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        async with h3_connected(edge.https_port, supported_versions=versions, original_version=0x1A2A3A4A) as client:
            await client.fine(GOOD)
        assert edge.stats.quic.version_negotiations == 1


async def test_another_application_protocol() -> None:
    async with running_edge() as edge:
        client = RawH3(edge.https_port, alpn=("hq-interop",))
        with pytest.raises(ConnectionRefusedError):
            await client.connect()
        assert client.code == NO_APPLICATION_PROTOCOL
        await until(lambda: edge.data_plane.connections == 0)
        assert sum(edge.stats.quic.handshake_failures.values()) == 1


# -- addresses that prove nothing --------------------------------------------------------------------------------


async def test_an_initial_that_is_too_small_is_dropped() -> None:
    """RFC 9000 §14.1."""
    async with running_edge() as edge:
        (data, *_) = first_flight()
        with Mailbox(edge.https_port) as box, Mailbox(edge.https_port) as other:
            box.send(data[:1199])
            other.send(long_packet(0x1A2A3A4A))
            await until(lambda: other.received)
            assert box.received == []
        assert edge.data_plane.connections == 0
        assert edge.stats.quic.half_open == 0


async def test_an_unproven_address_gets_three_times_what_it_sent() -> None:
    """A ClientHello and then silence; the edge repeats its flight for a while, but never beyond that."""
    async with running_edge() as edge:
        with Mailbox(edge.https_port) as box:
            for data in first_flight():
                box.send(data)
            await until(lambda: box.received)
            await asyncio.sleep(1.5)  # several probe timeouts: what must not happen would happen now
            assert box.size <= 3 * box.sent
        edge.after(11)
        await until(lambda: edge.stats.quic.half_open == 0)
        assert sum(edge.stats.quic.handshake_failures.values()) == 1


async def test_retry_switches_on_under_a_flood_and_off_again() -> None:
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        stats = edge.stats.quic
        boxes = [Mailbox(edge.https_port) for _ in range(130)]
        for box in boxes:
            for data in first_flight():
                box.send(data)
            await until(lambda box=box: box.received)
        assert stats.retries == 30
        assert [kind(box.received[0]) is QuicPacketType.RETRY for box in boxes] == [False] * 100 + [True] * 30
        assert stats.half_open == 100
        async with h3_connected(edge.https_port) as client:
            assert client.quic._retry_count == 1
            await client.fine(GOOD)
        edge.after(11)
        await until(lambda: stats.half_open == 0)
        async with h3_connected(edge.https_port) as client:
            assert client.quic._retry_count == 0
            await client.fine(GOOD)
        for box in boxes:
            assert box.size <= 3 * box.sent
            box.close()
        assert stats.handshakes == 2


ALWAYS = {"h3": {"retry_at": 0}}


async def test_retry_always() -> None:
    async with running_upstream() as upstream, running_edge(upstream.port, client=ALWAYS) as edge:
        for count in (1, 2):
            async with h3_connected(edge.https_port) as client:
                assert client.quic._retry_count == 1
                await client.fine(GOOD)
            assert edge.stats.quic.retries == count


@pytest.mark.parametrize("change", ["another port", "a byte", "shorter", "another id"])
async def test_a_token_is_good_for_its_address_and_its_handshake_only(change: str) -> None:
    """Who brings somebody else's token must prove its own address, or is turned away."""
    async with running_upstream() as upstream, running_edge(upstream.port, client=ALWAYS) as edge:
        (data, *_) = first_flight()
        with Mailbox(edge.https_port) as box:
            box.send(data)
            await until(lambda: box.received)
            retry = pull_quic_header(Buffer(data=box.received[0]), host_cid_length=8)
            token = retry.token
            if change == "a byte":
                token = token[:-1] + bytes([token[-1] ^ 1])
            elif change == "shorter":
                token = token[: len(token) // 2]
            quic = Connection(configuration=configuration(token=token))
            if change != "another id":
                quic._peer_cid.cid = retry.source_cid
            now = asyncio.get_running_loop().time()
            quic.connect(("127.0.0.1", 1), now)
            half_open = edge.stats.quic.half_open
            with Mailbox(edge.https_port) as other:
                sender = other if change == "another port" else box
                seen = len(sender.received)
                for each, _ in quic.datagrams_to_send(now):
                    sender.send(each)
                await until(lambda: len(sender.received) > seen)
                assert kind(sender.received[-1]) in {QuicPacketType.RETRY, QuicPacketType.INITIAL}
                assert edge.stats.quic.half_open == half_open == 0
                quic.receive_datagram(sender.received[-1], ("127.0.0.1", 1), now)
                assert quic.ending is None or quic.ending.error_code == INVALID_TOKEN


# -- resumption --------------------------------------------------------------------------------------------------


async def test_sessions_are_resumed_and_early_data_is_never_offered() -> None:
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        async with h3_connected(edge.https_port) as client:
            await client.fine(GOOD)
            await until(lambda: client.tickets)
            assert all(not ticket.max_early_data_size for ticket in client.tickets)
            ticket = client.tickets[0]
        async with h3_connected(edge.https_port, session_ticket=ticket) as client:
            assert client.resumed
            assert not client.early
            await client.fine(GOOD)
        assert edge.stats.quic.handshakes_resumed == 1


async def test_early_data_is_refused() -> None:
    """A client that says its ticket allows it: the handshake is done, the early request never reaches an upstream."""
    async with running_upstream() as upstream, running_edge(upstream.port) as edge:
        async with h3_connected(edge.https_port) as client:
            await until(lambda: client.tickets)
            ticket = client.tickets[0]
        ticket.max_early_data_size = MAX_EARLY_DATA
        client = RawH3(edge.https_port, session_ticket=ticket)
        try:
            client.quic.connect(("127.0.0.1", edge.https_port), client.loop.time())
            client.quic.send_stream_data(CONTROL, varint(0) + settings())
            client.quic.send_stream_data(0, headers(GOOD), True)
            flight = [data for data, _ in client.quic.datagrams_to_send(client.loop.time())]
            assert any(QuicPacketType.ZERO_RTT in kinds(data) for data in flight)
            # Only what was sent before the handshake counts: no early frame may come again behind it.
            client.quic._streams.clear()
            client.quic._streams_queue.clear()
            for data in flight:
                client.send(data)
            await until(lambda: client.connected or client.ended)
            assert client.connected, client.reason
            assert not client.early
            async with h3_connected(edge.https_port) as other:
                await other.fine(GOOD)
            assert len(upstream.requests) == 1, "the other client's"
        finally:
            client.close()


def kinds(data: bytes) -> list[QuicPacketType]:
    """The packets of a datagram."""
    found, buffer = [], Buffer(data=data)
    while not buffer.eof() and data[buffer.tell()]:
        start = buffer.tell()
        header = pull_quic_header(buffer, host_cid_length=8)
        found.append(header.packet_type)
        buffer.seek(start + header.packet_length)
    return found


# -- packets of connections that nobody knows --------------------------------------------------------------------


async def test_a_stateless_reset_is_smaller_than_what_asked_for_it() -> None:
    """RFC 9000 §10.3.3: or two of us would reset each other for ever."""
    seat = Seat.single()
    async with running_edge(seat=seat) as edge:
        with Mailbox(edge.https_port) as box:
            identity = seat.new_id()
            box.send(b"\x40" + identity + os.urandom(12))  # 21 bytes: nothing smaller is a reset
            box.send(b"\x40" + identity + os.urandom(91))
            await until(lambda: box.received)
            (answer,) = box.received
            assert 21 <= len(answer) < 100
            assert answer[0] & 0xC0 == 0x40
            assert answer.endswith(seat.reset_token(identity))
        assert edge.stats.quic.resets_sent == 1


async def test_a_worker_that_lost_its_state_resets_its_connections() -> None:
    secret = os.urandom(32)
    async with running_upstream() as upstream:
        async with running_edge(upstream.port, seat=Seat(0, 1, secret, None, [])) as edge:
            client = RawH3(edge.https_port)
            await client.connect()
            client.start()
            await client.fine(GOOD)
            client.silent = True  # what the edge says at its end is lost
        async with running_edge(upstream.port, seat=Seat(0, 2, secret, None, []), port=client.port) as edge:
            client.silent = False
            await client.ping()
            assert client.was_reset
            async with h3_connected(edge.https_port) as again:
                await again.fine(GOOD)
