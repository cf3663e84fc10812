# The UDP side of the https addresses: whose datagram is this? Who is new, who has to prove an address, who is a colleague's.
"""`QuicListener`: all QUIC connections of one worker (RFC 9000 §5.2, §8, §10.3, §14).

Datagrams are read in batches, given to their connections, and only then each touched connection sends, once. What a reply
brings later is sent once per turn of the loop in the same way.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import TYPE_CHECKING

from aioquic.quic.packet import encode_quic_retry, encode_quic_version_negotiation

from edgeproxy.listen.h3_fields import Encoder
from edgeproxy.listen.quic_session import Session
from edgeproxy.message import Peer
from edgeproxy.quic import varint
from edgeproxy.quic.established import Limits
from edgeproxy.quic.handshake import VERSIONS, Handshake, Terms, Tickets
from edgeproxy.quic.ids import ID_LENGTH, RetryTokens, Seat
from edgeproxy.quic.passing import pack, unpack
from edgeproxy.quic.refusal import refusal
from edgeproxy.quic.udp import UdpSocket

if TYPE_CHECKING:
    from edgeproxy.config.model import Client
    from edgeproxy.gateway import Gateway
    from edgeproxy.listen.h3 import H3Connection
    from edgeproxy.quic.connection import Connection
    from edgeproxy.quic.udp import Address, Local

SMALLEST_INITIAL = 1200  # bytes of a datagram with an Initial packet (RFC 9000 §14.1)
ANSWERS_PER_SECOND = 100  # stateless resets and refusals
ACK_DELAY = 0.02  # seconds an acknowledgment waits for something to ride on; we promise 0.025
_RESET_SIZE = 42  # bytes of a stateless reset: looks like a small packet (RFC 9000 §10.3)
_MIN_RESET = 22
_MAX_TOKEN = 200


class Endpoint:
    """One UDP socket."""

    __slots__ = ("index", "udp", "waiting")

    def __init__(self, index: int, udp: UdpSocket) -> None:
        self.index = index
        self.udp = udp
        self.waiting = False  # for the socket to be writable


class QuicListener:
    """See the module.

    Attributes:
        sessions: by every connection id that is ours or was chosen by a client for its first packets.
        open: the sessions that are not over.
        encoder: encoded field lines, shared by all connections.
        beginning: connections with requests that begin when all has been read.
        bodies: bytes of request content held.
    """

    __slots__ = (
        "_answers", "_answers_at", "_reading", "_retrying", "_scheduled", "_snapshot", "_sources", "_terms", "_tickets",
        "_tokens", "_unacknowledged", "_wanting", "accepting", "beginning", "bodies", "deadlines", "draining", "encoder",
        "endpoints", "gateway", "open", "seat", "sessions", "stats",
    )  # fmt: skip

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.deadlines = gateway.deadlines
        self.stats = gateway.stats.quic
        self.seat = Seat.single()
        self.sessions: dict[bytes, Session] = {}
        self.open: set[Session] = set()
        self.endpoints: list[Endpoint] = []
        self.encoder = Encoder()
        self.accepting = True
        self.draining = False
        self.bodies = 0
        self.beginning: list[H3Connection] = []
        self._tokens = RetryTokens(self.seat.secret)
        self._tickets = Tickets()
        self._terms: Terms | None = None
        self._snapshot: object = None
        self._sources: dict[str, int] = {}
        self._wanting: list[Session] = []
        self._reading = False
        self._scheduled = False
        self._retrying = False
        self._unacknowledged: list[Connection] = []
        self._answers = ANSWERS_PER_SECOND
        self._answers_at = 0.0

    def listen(self, sockets: list[socket.socket], seat: Seat) -> None:
        """Serve bound, non-blocking UDP sockets; in the same order in every worker."""
        loop = self.gateway.loop
        self.seat = seat
        self._tokens = RetryTokens(seat.secret)
        for sock in sockets:
            endpoint = Endpoint(len(self.endpoints), UdpSocket(sock, self.stats))
            self.endpoints.append(endpoint)
            loop.add_reader(sock, self._readable, endpoint)
        if seat.inbox is not None:
            loop.add_reader(seat.inbox, self._passed_in)

    def terms(self) -> Terms:
        """What handshakes of the current snapshot have in common."""
        snapshot = self.gateway.snapshot
        if self._terms is None or self._snapshot is not snapshot:
            client = snapshot.client
            limits = Limits(
                max_streams=client.h3.max_streams,
                stream_window=client.h3.stream_window,
                connection_window=client.h3.connection_window,
                idle=client.timeouts.idle,
                max_datagram=client.h3.max_datagram,
            )
            assert snapshot.quic_certificates is not None
            self._terms = Terms(snapshot.quic_certificates, limits, self._tickets)
            self._snapshot = snapshot
        return self._terms

    # -- datagrams in --------------------------------------------------------------------------------------------

    def _readable(self, endpoint: Endpoint) -> None:
        got = endpoint.udp.receive()
        now = self.gateway.loop.time()
        self._reading = True
        sessions = self.sessions
        for data, address, local in got:
            name = data[1:9] if data[0] < 0x80 else data[6 : 6 + data[5]] if len(data) > 6 else b""
            session = sessions.get(name)
            if session is None:
                self._unknown(endpoint, data, name, address, local, now, passed=False)
                continue
            try:
                session.receive(data, address, local, now)
            except Exception as error:
                session.crash(error)
        self._read(now)

    def _read(self, now: float) -> None:
        """Everything that was there to read has been read: requests begin, and who has something to say says it."""
        beginning, self.beginning = self.beginning, []
        for app in beginning:
            try:
                app.begin()
            except Exception as error:
                self.gateway.loop.call_exception_handler({"message": "HTTP/3 request", "exception": error})
                if app.quic is not None:
                    app.quic.crash()
        self._reading = False
        if self._wanting:
            self._transmit(now)

    def want(self, session: Session) -> None:
        """A session has something to send: it has its turn when everybody has said what there is."""
        if not session.wants_out:
            session.wants_out = True
            self._wanting.append(session)
            if not self._reading and not self._scheduled:
                self._scheduled = True
                self.gateway.loop.call_soon(self._transmit_scheduled)

    def _transmit_scheduled(self) -> None:
        self._scheduled = False
        self._transmit(self.gateway.loop.time())

    def _transmit(self, now: float) -> None:
        wanting, self._wanting = self._wanting, []
        for session in wanting:
            if session.endpoint.udp.blocked:
                self._wait(session.endpoint)
                self._wanting.append(session)
                continue
            try:
                session.transmit(now)
            except Exception as error:
                session.crash(error)
            if session.endpoint.udp.blocked:
                self._wait(session.endpoint)

    def acknowledge_later(self, connection: Connection) -> None:
        """One timer for all: most acknowledgments have gone out with something else before it fires."""
        if not self._unacknowledged:
            self.gateway.loop.call_later(ACK_DELAY, self._acknowledge)
        self._unacknowledged.append(connection)

    def _acknowledge(self) -> None:
        unacknowledged, self._unacknowledged = self._unacknowledged, []
        for connection in unacknowledged:
            connection.acknowledge()

    def _wait(self, endpoint: Endpoint) -> None:
        if not endpoint.waiting:
            endpoint.waiting = True
            self.gateway.loop.add_writer(endpoint.udp.sock, self._writable, endpoint)

    def _writable(self, endpoint: Endpoint) -> None:
        endpoint.udp.flush()
        if not endpoint.udp.blocked:
            endpoint.waiting = False
            self.gateway.loop.remove_writer(endpoint.udp.sock)
            self._transmit(self.gateway.loop.time())

    # -- datagrams of nobody we know -----------------------------------------------------------------------------

    def _unknown(
        self, endpoint: Endpoint, data: bytes, name: bytes, address: Address, local: Local, now: float, *, passed: bool
    ) -> None:
        if not data or len(name) > 20 or address[1] == 0:
            self.stats.drop("malformed")
            return
        if data[0] & 0x80:
            version = int.from_bytes(data[1:5], "big")
            if version not in VERSIONS:
                self._negotiate(endpoint, data, name, version, address, local)
                return
            kind = (data[0] >> 4) & 3 if version == VERSIONS[0] else ((data[0] >> 4) - 1) & 3
            if kind == 0:
                self._initial(endpoint, data, name, address, local, now)
                return
        elif len(data) < ID_LENGTH + 1 or not data[0] & 0x40:
            self.stats.drop("malformed")
            return
        owner = self.seat.owner(name) if len(name) == ID_LENGTH and not passed else None
        if owner is not None:
            self._pass_on(owner, endpoint, data, address, local)
        elif not data[0] & 0x80:
            self._reset(endpoint, data, name, address, local)
        else:
            self.stats.drop("unknown_connection")

    def _negotiate(
        self, endpoint: Endpoint, data: bytes, name: bytes, version: int, address: Address, local: Local
    ) -> None:
        """RFC 9000 §6. Version 0 is somebody's negotiation packet: no answer to an answer."""
        at = 6 + len(name)
        if not version or len(data) < SMALLEST_INITIAL or len(data) < at + 1 or len(data) < at + 1 + data[at]:
            self.stats.drop("version")
            return
        source = data[at + 1 : at + 1 + data[at]]
        self.stats.version_negotiations += 1
        answer = encode_quic_version_negotiation(source_cid=name, destination_cid=source, supported_versions=list(VERSIONS))
        endpoint.udp.send([answer], address, local)

    def _initial(self, endpoint: Endpoint, data: bytes, name: bytes, address: Address, local: Local, now: float) -> None:
        """Somebody new, if all is well."""
        stats = self.stats
        if len(data) < SMALLEST_INITIAL or len(name) < ID_LENGTH:
            stats.drop("initial_too_small")
            return
        try:
            at = 6 + len(name)
            source, at = data[at + 1 : at + 1 + data[at]], at + 1 + data[at]
            size, at = varint.read(data, at)
            token = data[at : at + size]
        except IndexError:
            stats.drop("malformed")
            return
        if size > _MAX_TOKEN or len(token) != size:
            token = b""
        original = self._tokens.read(token, address, name, now) if token else None
        if original is None and self._demands_proof():
            stats.retries += 1
            ours = self.seat.new_id()
            answer = encode_quic_retry(
                version=int.from_bytes(data[1:5], "big"), source_cid=ours, destination_cid=source,
                original_destination_cid=name, retry_token=self._tokens.make(address, name, ours, now),
            )  # fmt: skip
            endpoint.udp.send([answer], address, local)
            return
        client = self.gateway.snapshot.client
        key = _source(address[0])
        reason = self._full(key, client)
        if reason:
            self._refuse(endpoint, data, name, source, address, local, reason)
            return
        handshake = Handshake(self.terms(), self.seat, address, name, now, original)
        session = Session(self, endpoint, handshake, local, key)
        self._sources[key] = self._sources.get(key, 0) + 1
        self.open.add(session)
        stats.half_open += 1
        for own in handshake.ids:
            self.sessions[own] = session
        session.deadline = self.deadlines.now + client.timeouts.handshake
        self.deadlines.members.add(session)
        try:
            session.receive(data, address, local, now)
        except Exception as error:
            session.crash(error)

    def _full(self, key: str, client: Client) -> str:
        """Why nobody new from a source is let in, "" when that is not so."""
        if not self.accepting:
            return "not_accepting"
        if len(self.open) >= client.max_connections:
            return "max_connections"
        if self._sources.get(key, 0) >= client.h3.max_per_source:
            return "max_per_source"
        return ""

    def _refuse(
        self, endpoint: Endpoint, data: bytes, name: bytes, source: bytes, address: Address, local: Local, reason: str
    ) -> None:
        """Tell the client at once, as long as they are not too many: the answer needs keys."""
        if not self._may_answer():
            self.stats.drop(reason)
            return
        self.gateway.stats.fault("edge", reason)
        endpoint.udp.send([refusal(int.from_bytes(data[1:5], "big"), name, source)], address, local)

    def _may_answer(self) -> bool:
        """Answers to strangers are bounded in number."""
        now = self.gateway.loop.time()
        if now - self._answers_at >= 1.0:
            self._answers, self._answers_at = ANSWERS_PER_SECOND, now
        if not self._answers:
            return False
        self._answers -= 1
        return True

    def _demands_proof(self) -> bool:
        """Too many handshakes are half open to believe every address; on at the limit, off at half of it."""
        limit = self.gateway.snapshot.client.h3.retry_at
        half_open = self.stats.half_open
        if half_open >= limit:
            self._retrying = True
        elif half_open < (limit + 1) // 2:
            self._retrying = False
        return self._retrying

    def _reset(self, endpoint: Endpoint, data: bytes, name: bytes, address: Address, local: Local) -> None:
        """RFC 9000 §10.3: a client talks to a connection that is lost. Shorter than what came: so it can't go on for ever."""
        size = min(len(data) - 1, _RESET_SIZE)
        if size < _MIN_RESET or not self._may_answer():
            self.stats.drop("unknown_connection")
            return
        self.stats.resets_sent += 1
        noise = os.urandom(size - 16)
        endpoint.udp.send([b"%c%b%b" % (0x40 | noise[0] & 0x3F, noise[1:], self.seat.reset_token(name))], address, local)

    # -- other workers -------------------------------------------------------------------------------------------

    def _pass_on(self, owner: socket.socket, endpoint: Endpoint, data: bytes, address: Address, local: Local) -> None:
        try:
            owner.send(pack(endpoint.index, data, address, local))
        except OSError:
            self.stats.drop("not_passed_on")
        else:
            self.stats.passed_on += 1

    def _passed_in(self) -> None:
        """Datagrams that other workers got for connections of ours."""
        inbox = self.seat.inbox
        assert inbox is not None
        now = self.gateway.loop.time()
        self._reading = True
        for _ in range(64):
            try:
                message = inbox.recv(65535)
            except OSError:
                break
            index, data, address, local = unpack(message)
            self.stats.passed_in += 1
            if index >= len(self.endpoints) or not data:
                continue
            endpoint = self.endpoints[index]
            name = data[1:9] if data[0] < 0x80 else data[6 : 6 + data[5]] if len(data) > 6 else b""
            session = self.sessions.get(name)
            if session is None:
                self._unknown(endpoint, data, name, address, local, now, passed=True)
                continue
            try:
                session.receive(data, address, local, now)
            except Exception as error:
                session.crash(error)
        self._read(now)

    # -- accounts ------------------------------------------------------------------------------------------------

    def peer(self, address: Address) -> Peer:
        """The client at an address, as the pipeline needs it."""
        host = address[0].partition("%")[0]
        if host.startswith("::ffff:"):
            host = host[7:]  # an IPv4 client of a dual-stack socket
        networks = self.gateway.snapshot.trusted
        trusted = bool(networks) and any(ipaddress.ip_address(host) in network for network in networks)
        return Peer(host, trusted=trusted, secure=True)

    def held(self, size: int) -> bool:
        """Request content is held, or (negative) not any more. Returns: it is too much."""
        self.bodies += size
        return self.bodies > self.gateway.snapshot.client.h3.max_bodies

    def closed(self, session: Session) -> None:
        """A session is over: it counts no more."""
        self.deadlines.members.discard(session)
        if session in self.open:
            self.open.discard(session)
            left = self._sources[session.source] - 1
            if left:
                self._sources[session.source] = left
            else:
                del self._sources[session.source]

    # -- the end -------------------------------------------------------------------------------------------------

    def stop_accepting(self) -> None:
        """Nobody new; what is open goes on."""
        self.accepting = False

    def drain(self) -> None:
        """Tell every client that this is the end."""
        self.draining = True
        for session in list(self.open):
            if session.app is not None:
                session.app.drain()

    def abort(self) -> None:
        """End everything that is left, and stop reading."""
        for session in list({*self.open, *self.sessions.values()}):
            session.abort()
        loop = self.gateway.loop
        for endpoint in self.endpoints:
            loop.remove_reader(endpoint.udp.sock)
            if endpoint.waiting:
                loop.remove_writer(endpoint.udp.sock)
            endpoint.udp.sock.close()
        self.endpoints.clear()
        if self.seat.inbox is not None:
            loop.remove_reader(self.seat.inbox)
        self._wanting.clear()


def _source(host: str) -> str:
    """Who is counted together: an IPv4 address, an IPv6 network of 64 bits."""
    if ":" not in host or host.startswith("::ffff:"):
        return host
    return ipaddress.ip_address(host.partition("%")[0]).exploded[:19]
