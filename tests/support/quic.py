# A QUIC client of the tests: aioquic's connection on a real UDP socket, with windows that the test holds in its hands and
# packets of any content. Nothing here is shared with the edge's own transport.
"""`QuicClient`: one connection over one socket; `Connection`: aioquic's `QuicConnection` that grants credit when told to."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Any

from aioquic.buffer import Buffer, encode_uint_var
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoError
from aioquic.quic.packet import QuicFrameType
from aioquic.tls import Epoch, SessionTicket

from support.edge import certificates
from support.waiting import until

WINDOW = 1 << 20
BATCH = 256


class Connection(QuicConnection):
    """A client's connection. aioquic grants credit for whatever arrives; this one while nobody holds it.

    Attributes:
        paused: no credit for anything. Packets are acknowledged all the same.
        held: streams that get no credit.
        window: bytes that may be on their way to us, for each stream and (times `share`) for all of them.
    """

    def __init__(self, window: int = WINDOW, share: int = 4, **more: Any) -> None:
        super().__init__(**more)
        self.window = window
        self.share = share
        self.paused = False
        self.held: set[int] = set()

    def _write_connection_limits(self, builder: Any, space: Any) -> None:
        limit = self._local_max_data
        window = self.window * self.share
        if not self.paused and limit.used + window - limit.value >= window // 2:
            limit.value = limit.used + window
        if limit.value != limit.sent:
            frame = builder.start_frame(
                limit.frame_type, capacity=9, handler=self._on_connection_limit_delivery, handler_args=(limit,)
            )
            frame.push_uint_var(limit.value)
            limit.sent = limit.value

    def _write_stream_limits(self, builder: Any, space: Any, stream: Any) -> None:
        allowed = stream.max_stream_data_local
        if not allowed or stream.receiver.is_finished:
            return
        granted = stream.receiver.highest_offset + self.window
        if not self.paused and stream.stream_id not in self.held and granted - allowed >= self.window // 2:
            stream.max_stream_data_local = allowed = granted
        if allowed != stream.max_stream_data_local_sent:
            frame = builder.start_frame(
                QuicFrameType.MAX_STREAM_DATA, capacity=17, handler=self._on_max_stream_data_delivery, handler_args=(stream,)
            )
            frame.push_uint_var(stream.stream_id)
            frame.push_uint_var(allowed)
            stream.max_stream_data_local_sent = allowed

    def _payload_received(self, context: Any, plain: bytes, crypto_frame_required: bool = False) -> Any:
        self.payload(plain)
        return super()._payload_received(context, plain, crypto_frame_required)

    # what aioquic knows and does not tell

    def payload(self, plain: bytes) -> None:
        """A packet's frames, as they arrived; for tests that look at them."""

    @property
    def ending(self) -> events.ConnectionTerminated | None:
        """How the connection ended, as soon as that is known (aioquic tells it after three probe timeouts)."""
        return self._close_event

    @property
    def rtt(self) -> float:
        return self._loss._rtt_smoothed

    def skip(self) -> None:
        """Leaves a packet number out."""
        self._packet_number += 1

    def opened(self, data: bytes) -> bytes | None:
        """The payload of a 1-RTT packet, without taking it; None when it is none for us."""
        context = self._cryptos[Epoch.ONE_RTT].recv
        try:
            return context.decrypt_packet(data, 1 + len(self.host_cid), self._spaces[Epoch.ONE_RTT].expected_packet_number)[1]
        except CryptoError:
            return None

    def is_reset(self, data: bytes) -> bool:
        """A datagram is a stateless reset for an id of the peer's (which aioquic does not look for)."""
        ids = [self._peer_cid, *self._peer_cid_available]
        return any(data.endswith(each.stateless_reset_token) for each in ids if each.stateless_reset_token)

    def waiting(self, stream_id: int) -> int:
        """Bytes of a stream that were not sent for the first time yet."""
        stream = self._streams.get(stream_id)
        return stream.sender._buffer_stop - stream.sender.highest_offset if stream is not None else 0

    def can_send(self, stream_id: int) -> bool:
        """The stream takes data: it was neither ended nor reset."""
        stream = self._streams.get(stream_id)
        return stream is None or (stream.sender._reset_error_code is None and stream.sender._buffer_fin is None)

    def packet(self, payload: bytes, *, first: int = 0x40, number: int | None = None) -> bytes:
        """A protected 1-RTT packet with this payload.

        Args:
            first: first byte without key phase and number length; 0x18 are the reserved bits.
            number: packet number; the next one by default.
        """
        if number is None:
            number = self._packet_number
            self._packet_number += 1
        crypto = self._cryptos[Epoch.ONE_RTT]
        head = bytes([first | crypto.key_phase << 2 | 3]) + self._peer_cid.cid + (number & 0xFFFFFFFF).to_bytes(4, "big")
        return crypto.encrypt_packet(head, payload, number)


def configuration(
    *, name: str = "localhost", alpn: tuple[str, ...] = ("h3",), window: int = WINDOW, share: int = 4, **more: Any
) -> QuicConfiguration:
    """A client's configuration that trusts the development CA alone."""
    return QuicConfiguration(
        is_client=True, alpn_protocols=list(alpn), server_name=name, cafile=str(certificates().ca), max_stream_data=window,
        max_data=window * share, max_datagram_size=more.pop("max_datagram_size", 1350), **more,
    )  # fmt: skip


@dataclass
class Heard:
    """What arrived at a client that does not listen: bytes, and whether the edge closed the connection."""

    size: int = 0
    closed: bool = False


class QuicClient:
    """One connection over one connected UDP socket.

    Attributes:
        ended: the connection is over; `code`, `application` and `reason` say how, as the peer (or aioquic) put it.
        was_reset: it ended with a stateless reset.
        silent: nothing is read or sent any more: as if the machine had lost its power.
        tickets: for resumption, as they came.
        sent, received: bytes of UDP payload.
    """

    def __init__(self, port: int, *, host: str = "127.0.0.1", window: int = WINDOW, share: int = 4, source: str = "",
                 **settings: Any) -> None:  # fmt: skip
        self.loop = asyncio.get_running_loop()
        self.port = port
        self.host = host
        self.source = source
        self.tickets: list[SessionTicket] = []
        self.tokens: list[bytes] = []
        self.quic = Connection(
            window, share, configuration=configuration(window=window, share=share, **settings),
            session_ticket_handler=self.tickets.append, token_handler=self.tokens.append,
        )  # fmt: skip
        self.ended = False
        self.code: int | None = None
        self.application = False
        self.reason = ""
        self.silent = False
        self.connected = False
        self.resumed = False
        self.was_reset = False
        self.early = False
        self.deaf: Heard | None = None
        self.sent = 0
        self.received = 0
        self.pongs: set[int] = set()
        self._pings = 0
        self._timer: asyncio.TimerHandle | None = None
        self._refused = False
        self.socket = self._bind()

    def _bind(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
        if self.source:
            sock.bind((self.source, 0))
        sock.connect((self.host, self.port))
        self.loop.add_reader(sock.fileno(), self._readable)
        return sock

    def rebind(self) -> None:
        """Goes on from another port, as behind a NAT that has forgotten us; the connection does not know."""
        self._drop()
        self.socket = self._bind()

    def _drop(self) -> None:
        self.loop.remove_reader(self.socket.fileno())
        self.socket.close()

    async def connect(self, within: float = 3.0) -> None:
        """The handshake. Raises ConnectionError when the edge refuses, or says nothing for so many seconds."""
        self.quic.connect((self.host, self.port), self.loop.time())
        self.transmit()
        ends = self.loop.time() + within
        try:
            await until(lambda: self.connected or self.ended or self._refused or self.loop.time() > ends, within + 5)
        except BaseException:
            self.drop()
            raise
        if not self.connected:
            self.drop()
            raise ConnectionRefusedError(f"no connection: code {self.code} {self.reason}")

    # -- driving -------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        now = self.loop.time()
        for _ in range(BATCH):
            try:
                data = self.socket.recv(65536)
            except BlockingIOError:
                break
            except ConnectionRefusedError:
                self._refused = True
                break
            if self.silent:
                continue
            if self.deaf is not None:
                self._overhear(self.deaf, data, now)
                continue
            self.received += len(data)
            self.datagram(data)
            if self.connected and self.quic.is_reset(data):
                self.was_reset = True
                self.drop()
                return
            self.quic.receive_datagram(data, (self.host, self.port), now)
        self.process()

    def _overhear(self, heard: Heard, data: bytes, now: float) -> None:
        """Counts a datagram and looks for CONNECTION_CLOSE in it, on a copy of nothing: the connection never sees it."""
        heard.size += len(data)
        if heard.closed:
            return
        # aioquic's state is not touched but for a close, behind which it says nothing any more.
        plain = self.quic.opened(data)
        if plain is not None and plain.lstrip(b"\0")[:1] in {b"\x1c", b"\x1d"}:
            heard.closed = True
            self.quic.receive_datagram(data, (self.host, self.port), now)

    def deafen(self) -> Heard:
        """From now on nothing that comes is taken or acknowledged; what came is counted."""
        self.deaf = Heard()
        if self._timer is not None:
            self._timer.cancel()
        return self.deaf

    def datagram(self, data: bytes) -> None:
        """A datagram as it arrived; for tests that look at it."""

    def process(self) -> None:
        """Events, then what there is to send."""
        if self.silent or self.ended:
            return
        while (event := self.quic.next_event()) is not None:
            if isinstance(event, events.HandshakeCompleted):
                self.connected, self.resumed, self.early = True, event.session_resumed, event.early_data_accepted
            elif isinstance(event, events.PingAcknowledged):
                self.pongs.add(event.uid)
            self.event(event)
        self.transmit()
        ending = self.quic.ending
        if ending is not None:
            self.terminated(ending)

    def event(self, event: events.QuicEvent) -> None:
        """Something happened on the connection."""

    def lost(self) -> None:
        """The connection is over; see `code` and `reason`."""

    def terminated(self, ending: events.ConnectionTerminated) -> None:
        self.code, self.reason, self.application = ending.error_code, ending.reason_phrase, ending.frame_type is None
        self.drop()

    def drop(self) -> None:
        """No more of this connection, and not a word about it."""
        if self.ended:
            return
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._drop()
        self.lost()

    def transmit(self) -> None:
        """Sends what is due and sets the timer."""
        if self.silent or self.ended:
            return
        for data, _ in self.quic.datagrams_to_send(self.loop.time()):
            self.send(data)
        if self._timer is not None:
            self._timer.cancel()
        at = self.quic.get_timer()
        self._timer = self.loop.call_at(at, self._fire) if at is not None else None

    def send(self, data: bytes) -> None:
        """One datagram, of any content."""
        assert not self.ended, f"the connection is over: {self.code} {self.reason} reset: {self.was_reset}"
        self.sent += len(data)
        try:
            self.socket.send(data)
        except BlockingIOError:
            pass  # lost, like others
        except ConnectionRefusedError:
            self._refused = True

    def _fire(self) -> None:
        self._timer = None
        self.quic.handle_timer(self.loop.time())
        self.process()

    # -- what a test does ----------------------------------------------------------------------------------------

    def frames(self, payload: bytes, *, first: int = 0x40) -> None:
        """A 1-RTT packet with frames of the test's own making."""
        self.send(self.quic.packet(payload, first=first))

    def catch(self, part: bytes) -> list[bytes]:
        """Payloads of packets in which some bytes occur, as they will arrive from now on."""
        caught: list[bytes] = []

        def look(plain: bytes) -> None:
            if part in plain:
                caught.append(plain)

        self.quic.payload = look  # type: ignore[method-assign]
        return caught

    def write(self, stream_id: int, data: bytes, end: bool = False) -> None:
        """Bytes on a stream."""
        self.quic.send_stream_data(stream_id, data, end)
        self.transmit()

    async def ping(self, within: float = 5.0) -> None:
        """There and back: the edge has dealt with everything sent before."""
        self._pings += 1
        uid = self._pings
        self.quic.send_ping(uid)
        self.transmit()
        self.quic.skip()
        self.frames(b"\x01")  # what comes behind a gap is acknowledged without delay (RFC 9000 §13.2.1)
        await until(lambda: uid in self.pongs or self.ended, within)

    async def gone(self, within: float = 5.0) -> int:
        """Waits until the edge has closed the connection; its error code."""
        await until(lambda: self.ended, within)
        assert self.code is not None
        return self.code

    def close(self, code: int = 0x100, *, frame_type: int | None = None) -> None:
        """CONNECTION_CLOSE (by default the application's, H3_NO_ERROR), and away."""
        if not self.ended:
            self.quic.close(code, frame_type)
            self.transmit()
            self.process()
            self.drop()

    async def __aenter__(self) -> Any:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def varint(*values: int) -> bytes:
    """Variable-length integers one behind the other (RFC 9000 §16)."""
    return b"".join(encode_uint_var(value) for value in values)


def read_varint(data: bytes | bytearray, at: int = 0) -> tuple[int, int] | None:
    """The integer at `at` and where it ends; None when it is not all there."""
    if at >= len(data) or len(data) - at < 1 << (data[at] >> 6):
        return None
    buffer = Buffer(data=bytes(data[at : at + 8]))
    value = buffer.pull_uint_var()
    return value, at + buffer.tell()
