# The UDP side of the https addresses: datagrams to connections and back. Whom nobody knows is the business of quic_door.py.
"""`QuicListener`: all QUIC connections of one worker (RFC 9000 §5.2).

Datagrams are read in batches, given to their connections, and only then each touched connection sends, once. What a reply
brings later is sent once per turn of the loop in the same way.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING

from edgeproxy.listen.h3_fields import Decoder, Encoder
from edgeproxy.listen.quic_door import Arrival, Door
from edgeproxy.listen.quic_session import Session
from edgeproxy.message import Peer
from edgeproxy.quic.established import Limits
from edgeproxy.quic.handshake import Terms, Tickets
from edgeproxy.quic.ids import Seat
from edgeproxy.quic.passing import pack, unpack
from edgeproxy.quic.udp import UdpSocket

if TYPE_CHECKING:
    from edgeproxy.gateway import Gateway
    from edgeproxy.listen.h3 import H3Connection
    from edgeproxy.quic.connection import Connection
    from edgeproxy.quic.handshake import Handshake
    from edgeproxy.quic.udp import Address, Local

ACK_DELAY = 0.02  # seconds an acknowledgment waits for something to ride on; we promise 0.025


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
        encoder, decoder: of field sections, shared by all connections.
        beginning: connections with requests that begin when all has been read.
        bodies: bytes of request content held.
    """

    __slots__ = (
        "_door", "_postponed", "_reading", "_scheduled", "_snapshot", "_terms", "_unacknowledged", "_wanting",
        "accepting", "beginning", "bodies", "deadlines", "decoder", "draining", "encoder", "endpoints", "gateway", "open",
        "seat", "sessions", "stats",
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
        self.decoder = Decoder()
        self.accepting = True
        self.draining = False
        self.bodies = 0
        self.beginning: list[H3Connection] = []
        self._door = Door(self, self.seat.secret)
        self._terms: Terms | None = None
        self._snapshot: object = None
        self._wanting: list[Session] = []
        self._reading = False
        self._scheduled = False
        self._postponed = False  # for the turn of the loop that is scheduled
        self._unacknowledged: list[Connection] = []

    def listen(self, sockets: list[socket.socket], seat: Seat) -> None:
        """Serve bound, non-blocking UDP sockets; in the same order in every worker."""
        loop = self.gateway.loop
        self.seat = seat
        self._door = Door(self, seat.secret)
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
            # As over TCP, where a reload brings new keys: a certificate that was taken away must not live on in tickets.
            self._terms = Terms(snapshot.quic_certificates, limits, Tickets())
            self._snapshot = snapshot
        return self._terms

    # -- datagrams in --------------------------------------------------------------------------------------------

    def _readable(self, endpoint: Endpoint) -> None:
        got = endpoint.udp.receive()
        now = self.gateway.loop.time()
        self._reading = True
        self._give(endpoint, got, now, passed=False)
        self._read(now)

    def _give(self, endpoint: Endpoint, got: list[tuple[bytes, Address, Local]], now: float, *, passed: bool) -> None:
        """Datagrams to their connections. `passed`: another worker gave them to us."""
        sessions = self.sessions
        for data, address, local in got:
            name = data[1:9] if data[0] < 0x80 else data[6 : 6 + data[5]] if len(data) > 6 else b""
            session = sessions.get(name)
            try:
                if session is not None:
                    session.receive(data, address, local, now)
                else:
                    self._door.knock(Arrival(data, name, endpoint, address, local), now, passed=passed)
            except Exception as error:
                self._broken(session, error)

    def _broken(self, session: Session | None, error: Exception) -> None:
        """A bug of ours: whoever else has datagrams here must not notice."""
        if session is not None:
            session.crash(error)
        else:
            self.gateway.loop.call_exception_handler({"message": "QUIC datagram", "exception": error})

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
        if not self._postponed and self.gateway.stats.streams_open:
            # Others are still being worked on: one more turn of the loop, and their replies share packets and system calls.
            # On an idle loop that turn takes microseconds, on a busy one it halves the number of writes (as in h2.py).
            self._postponed = True
            self.gateway.loop.call_soon(self._transmit_scheduled)
            return
        self._scheduled = self._postponed = False
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

    def admit(self, endpoint: Endpoint, handshake: Handshake, local: Local, source: str) -> Session:
        """A new client, as the door let it in."""
        session = Session(self, endpoint, handshake, local, source)
        self.open.add(session)
        self.stats.half_open += 1
        for own in handshake.ids:
            self.sessions[own] = session
        session.deadline = self.deadlines.now + self.gateway.snapshot.client.timeouts.handshake
        self.deadlines.members.add(session)
        return session

    # -- other workers -------------------------------------------------------------------------------------------

    def pass_on(self, owner: socket.socket, arrival: Arrival) -> None:
        """Give a datagram to the worker that owns its connection."""
        try:
            owner.send(pack(arrival.endpoint.index, arrival.data, arrival.address, arrival.local))
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
            self._give(self.endpoints[index], [(data, address, local)], now, passed=True)
        self._read(now)

    # -- accounts ------------------------------------------------------------------------------------------------

    def peer(self, address: Address, session: Session) -> Peer:
        """The client of a session at an address, as the pipeline needs it."""
        host = address[0].partition("%")[0]
        if host.startswith("::ffff:"):
            host = host[7:]  # an IPv4 client of a dual-stack socket
        networks = self.gateway.snapshot.trusted
        trusted = bool(networks) and any(ipaddress.ip_address(host) in network for network in networks)
        peer = Peer(host, trusted=trusted, secure=True)
        peer.link = session
        return peer

    def held(self, size: int) -> bool:
        """Request content is held, or (negative) not any more. Returns: it is too much."""
        self.bodies += size
        return self.bodies > self.gateway.snapshot.client.h3.max_bodies

    def closed(self, session: Session) -> None:
        """A session is over: it counts no more."""
        self.deadlines.members.discard(session)
        if session in self.open:
            self.open.discard(session)
            self._door.left(session)

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
