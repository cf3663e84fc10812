# The seam to aioquic: its private names are used in this file and nowhere else, pinned by version and by a contract test.
"""`Handshake`: a server's connection until the handshake is confirmed.

aioquic runs TLS 1.3, Initial and Handshake packets, their recovery and the amplification limit. When the client's Finished is
in, keys and parameters are taken over (`Established`) and the engine is dropped: 1-RTT packets are ours (connection.py).
So aioquic never sees one: what a datagram brings behind its long headers is cut off before, and kept.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection, QuicConnectionError, QuicConnectionState
from aioquic.tls import CipherSuite, Context, Epoch, ExtensionType, Group, SessionTicket
from cryptography.hazmat.primitives.serialization import Encoding

from edgeproxy.quic.errors import CRYPTO_BUFFER_EXCEEDED
from edgeproxy.quic.established import Established, Limits
from edgeproxy.quic.headers import VERSIONS, long_headers
from edgeproxy.quic.hello import offers_early_data, parameters, server_name
from edgeproxy.quic.protection import Protection

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

    from edgeproxy.quic.certificates import Identity, QuicCertificates
    from edgeproxy.quic.ids import Seat

MAX_CRYPTO = 32 * 1024  # bytes of a client's TLS messages: a ClientHello with post-quantum shares has two
MAX_EARLY = 10  # 1-RTT datagrams that overtook the end of the handshake, and…
MAX_EARLY_SIZE = 2048  # … bytes of the largest: anybody may send them, and nothing is proven yet
# Transport parameters (RFC 9000 §18.2)
_IDLE, _MAX_DATA, _MAX_STREAM_DATA_BIDI_LOCAL, _MAX_STREAM_DATA_UNI, _MAX_STREAMS_UNI = 0x01, 0x04, 0x05, 0x07, 0x09
_ACK_DELAY_EXPONENT, _MAX_ACK_DELAY, _ACTIVE_IDS = 0x0A, 0x0B, 0x0E
MAX_TICKETS = 10_000  # sessions a worker remembers, some 300 bytes each

logging.getLogger("quic").disabled = True  # what goes wrong is counted; a peer's mistakes are not our log's business



class Tickets:
    """The sessions this worker can resume: bounded, the oldest goes first."""

    __slots__ = ("_tickets", "most")

    def __init__(self, most: int = MAX_TICKETS) -> None:
        self._tickets: OrderedDict[bytes, tuple[SessionTicket, str]] = OrderedDict()
        self.most = most

    def add(self, ticket: SessionTicket, name: str) -> None:
        """Remember a session. `name`: the server name it was made for (RFC 8446 §4.2.11: it is good for that one only)."""
        self._tickets[ticket.ticket] = (ticket, name)
        if len(self._tickets) > self.most:
            self._tickets.popitem(last=False)

    def get(self, ticket: bytes, name: str) -> SessionTicket | None:
        """A session, None when it is unknown or was for another name."""
        found = self._tickets.get(ticket)
        return found[0] if found is not None and found[1] == name else None

    def __len__(self) -> int:
        return len(self._tickets)


class _Encoded:
    """A certificate as aioquic asks for it, encoded once and not for each client."""

    __slots__ = ("_der",)

    def __init__(self, certificate: Certificate) -> None:
        self._der = certificate.public_bytes(Encoding.DER)

    def public_bytes(self, encoding: Encoding) -> bytes:
        """DER, whatever is asked for: nothing else goes over the wire."""
        del encoding
        return self._der


class Terms:
    """What all handshakes of a listener have in common; made anew when the configuration changes."""

    __slots__ = ("_shown", "certificates", "configurations", "limits", "tickets")

    def __init__(self, certificates: QuicCertificates, limits: Limits, tickets: Tickets) -> None:
        self.certificates = certificates
        self.limits = limits
        self.tickets = tickets
        self._shown: dict[int, list[Any]] = {}
        default = certificates.choose(None)
        # One per version: aioquic derives the first keys for each version of a configuration, and a client speaks one.
        self.configurations = {version: self._configuration(version, default) for version in VERSIONS}

    def shown(self, identity: Identity) -> list[Any]:
        """The certificate of an identity and its chain."""
        found = self._shown.get(id(identity))  # the certificates keep them, so their ids stay theirs
        if found is None:
            found = self._shown[id(identity)] = [_Encoded(each) for each in (identity.certificate, *identity.chain)]
        return found

    def _configuration(self, version: int, default: Identity) -> QuicConfiguration:
        limits = self.limits
        return QuicConfiguration(
            is_client=False,
            alpn_protocols=["h3"],
            idle_timeout=limits.idle,
            max_data=limits.connection_window,
            max_stream_data=limits.stream_window,
            cipher_suites=[
                CipherSuite.AES_128_GCM_SHA256, CipherSuite.AES_256_GCM_SHA384, CipherSuite.CHACHA20_POLY1305_SHA256,
            ],
            certificate=default.certificate,
            certificate_chain=list(default.chain),
            private_key=default.key,
            supported_versions=[version],
        )  # fmt: skip


class _Engine(QuicConnection):
    """aioquic's connection with our ids, certificates by SNI, bounds, and without early data."""

    def __init__(
        self, terms: Terms, version: int, seat: Seat, own_id: bytes, original: bytes, retry_source: bytes | None
    ) -> None:
        self.terms = terms
        self.hello = b""
        self.server_name = ""
        self.names: frozenset[str] | None = None
        super().__init__(
            configuration=terms.configurations[version],
            original_destination_connection_id=original,
            retry_source_connection_id=retry_source,
            session_ticket_fetcher=self._find_ticket,
            session_ticket_handler=self._keep_ticket,
        )
        mine: Any = self._host_cids[0]
        mine.cid = self.host_cid = self._local_initial_source_connection_id = own_id
        mine.stateless_reset_token = seat.reset_token(own_id)
        limits = terms.limits
        self._local_max_streams_bidi.value = self._local_max_streams_bidi.sent = limits.max_streams
        self._local_max_streams_uni.value = self._local_max_streams_uni.sent = limits.one_way
        self._local_max_stream_data_uni = limits.one_way_window

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self.tls._max_early_data = None
        # X25519 first, as everywhere (contexts.py); curves that no browser offers are left out.
        self.tls._supported_groups = [Group.X25519, Group.SECP256R1, Group.SECP384R1]
        self.tls._server_handle_hello = self._handle_hello  # type: ignore[assignment, method-assign]  # names of arguments

    def _handle_hello(self, message: Buffer, initial: Buffer, handshake: Buffer) -> None:
        """The ClientHello is whole: keep it, choose the certificate, let aioquic go on."""
        tls = self.tls
        self.hello = hello = message.data_slice(0, message.capacity)
        self.server_name = name = server_name(hello)
        identity = self.terms.certificates.choose(name or None)
        tls.certificate, *tls.certificate_chain = self.terms.shown(identity)
        tls.certificate_private_key = identity.key  # type: ignore[assignment]  # `check` admits only kinds that can sign here
        self.names = identity.names if name else None
        if offers_early_data(hello):
            # We never offered it. aioquic would take it from whoever resumes: so nobody who sends it resumes.
            tls.get_session_ticket_cb = None
        Context._server_handle_hello(tls, message, initial, handshake)

    def _handle_crypto_frame(self, context: Any, frame_type: int, buf: Buffer) -> None:
        super()._handle_crypto_frame(context, frame_type, buf)
        stream = self._crypto_streams[context.epoch]
        if stream.receiver.highest_offset > MAX_CRYPTO:
            raise QuicConnectionError(CRYPTO_BUFFER_EXCEEDED, frame_type, "too many bytes of TLS messages")

    def _find_ticket(self, ticket: bytes) -> SessionTicket | None:
        return self.terms.tickets.get(ticket, self.server_name)

    def _keep_ticket(self, ticket: SessionTicket) -> None:
        self.terms.tickets.add(ticket, self.server_name)


class Handshake:
    """See the module.

    Attributes:
        ids: the ids packets for it may have: ours, and the one the client chose.
        established: set once, when the handshake is confirmed.
        failure: why it failed, "" while it has not.
        early: 1-RTT datagrams that came too soon.
        marked: it is on its host's list of those who have something to send.
    """

    __slots__ = ("_engine", "_own_id", "address", "early", "established", "failure", "ids", "marked",
                 "names")  # fmt: skip

    def __init__(
        self, terms: Terms, seat: Seat, address: tuple[str, int], destination: bytes,
        version: int = VERSIONS[0], original: bytes | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            version: of the client's Initial, one of VERSIONS.
            destination: Destination Connection ID of the client's Initial.
            original: after a Retry, that of its first one.
        """
        own_id = seat.new_id()
        self._own_id = own_id
        retry_source = destination if original is not None else None
        self._engine: _Engine | None = _Engine(terms, version, seat, own_id, original or destination, retry_source)
        self.ids = [own_id, destination]
        self.address = address
        self.established: Established | None = None
        self.failure = ""
        self.early: list[bytes] = []
        self.marked = False
        self.names: frozenset[str] | None = None

    def receive(self, data: bytes, address: tuple[str, int], now: float) -> None:
        """A datagram."""
        engine = self._engine
        if engine is None or address != self.address:
            return  # RFC 9000 §9: no migration before the handshake is confirmed
        end = long_headers(data)
        if end < len(data):
            if len(self.early) < MAX_EARLY and len(data) - end <= MAX_EARLY_SIZE:
                self.early.append(data[end:])
            # Zeros are no packet: the datagram keeps its size, which counts for amplification and for RFC 9000 §14.1.
            data = data[:end] + bytes(len(data) - end)
        if end:
            engine.receive_datagram(data, address, now)
            self._look(engine)

    def transmit(self, now: float) -> list[bytes]:
        """Datagrams to send."""
        self.marked = False
        engine = self._engine
        if engine is None or not engine._network_paths:
            return []
        out = [data for data, _ in engine.datagrams_to_send(now)]
        self._look(engine)
        return out

    def timer_at(self) -> float:
        """When `on_timer` wants to be called, 0.0 for never."""
        engine = self._engine
        return 0.0 if engine is None or not engine._network_paths else engine.get_timer() or 0.0

    def on_timer(self, now: float) -> None:
        """The time has come. `transmit` must follow."""
        engine = self._engine
        if engine is not None:
            engine.handle_timer(now)
            self._look(engine)

    def _look(self, engine: _Engine) -> None:
        if engine._close_event is not None:
            event = engine._close_event
            self.failure = self.failure or f"{event.error_code:#x} {event.reason_phrase}".strip()
        elif engine._handshake_confirmed and self.established is None:
            self.names = engine.names
            self.established = self._take_over(engine)
            self.drop()

    def _take_over(self, engine: _Engine) -> Established:
        crypto = engine._cryptos[Epoch.ONE_RTT]
        receive, send = crypto.recv, crypto.send
        assert receive.cipher_suite is not None
        assert receive.secret is not None
        assert send.secret is not None
        assert engine._version is not None
        assert engine.tls.received_extensions is not None
        raw = next(data for kind, data in engine.tls.received_extensions if kind == ExtensionType.QUIC_TRANSPORT_PARAMETERS)
        theirs = parameters(raw)
        loss = engine._loss
        return Established(
            protection=Protection(receive.cipher_suite, receive.secret, send.secret, engine._version),
            address=self.address,
            ids={0: self._own_id},
            peer_id=engine._peer_cid.cid,
            next_number=engine._packet_number,
            resumed=engine.tls.session_resumed,
            server_name=engine.server_name,
            hello=engine.hello,
            parameters=raw,
            tickets=bytes(engine._crypto_streams[Epoch.ONE_RTT].sender._buffer),
            rtt=loss._rtt_smoothed if loss._rtt_initialized else 0.0,
            max_data=theirs.get(_MAX_DATA, 0),
            max_stream_data_bidi_local=theirs.get(_MAX_STREAM_DATA_BIDI_LOCAL, 0),
            max_stream_data_uni=theirs.get(_MAX_STREAM_DATA_UNI, 0),
            max_streams_uni=theirs.get(_MAX_STREAMS_UNI, 0),
            max_ack_delay=theirs.get(_MAX_ACK_DELAY, 25) / 1000,
            ack_delay_exponent=theirs.get(_ACK_DELAY_EXPONENT, 3),
            active_ids=theirs.get(_ACTIVE_IDS, 2),
            idle=theirs.get(_IDLE, 0) / 1000,
            limits=engine.terms.limits,
        )

    def drop(self) -> None:
        """Let go of the engine, and cut the cycles through its callbacks and handlers."""
        engine, self._engine = self._engine, None
        if engine is not None:
            tls = getattr(engine, "tls", None)
            if tls is not None:
                tls.__dict__.clear()
            engine.__dict__.clear()

    @property
    def is_unheard(self) -> bool:
        """Nothing that came could be read: it was no handshake, or not for us."""
        return self._engine is not None and self._engine._state is QuicConnectionState.FIRSTFLIGHT

    @property
    def is_over(self) -> bool:
        """There is nothing left to do."""
        return self._engine is None or (self._engine._close_at is None and bool(self.failure))
