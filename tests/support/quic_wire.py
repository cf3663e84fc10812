# Our 1-RTT connection on one end of a wire without sockets, and a test that speaks frames on the other end.
"""`Wire`: a `Connection` with known keys, a clock that is moved by hand, and a client made of bytes."""

from __future__ import annotations

from typing import Any, NamedTuple

from aioquic.tls import CipherSuite

from edgeproxy.quic import varint
from edgeproxy.quic.connection import Connection
from edgeproxy.quic.established import Established, Limits
from edgeproxy.quic.protection import Protection
from edgeproxy.quic.streams import Stream

ADDRESS = ("192.0.2.7", 4433)
OTHER_PORT = ("192.0.2.7", 5544)
OTHER_HOST = ("198.51.100.9", 4433)
OUR_ID = b"\0\1ourid0"
PEER_ID = b"clientid"
VERSION = 1
SUITE = CipherSuite.AES_128_GCM_SHA256


class Frame(NamedTuple):
    """A frame of ours, as the client reads it."""

    kind: int
    values: tuple[Any, ...]


def parse(payload: bytes) -> list[Frame]:
    """The frames of a packet of a server; padding is left out."""
    frames: list[Frame] = []
    at = 0
    while at < len(payload):
        kind = payload[at]
        at += 1
        if not kind:
            continue
        if 0x08 <= kind <= 0x0F:
            stream_id, at = varint.read(payload, at)
            offset = 0
            if kind & 4:
                offset, at = varint.read(payload, at)
            size, at = varint.read(payload, at) if kind & 2 else (len(payload) - at, at)
            assert at + size <= len(payload)
            frames.append(Frame(0x08, (stream_id, offset, payload[at : at + size], bool(kind & 1))))
            at += size
        elif kind == 0x02:
            values = []
            for _ in range(4):
                value, at = varint.read(payload, at)
                values.append(value)
            largest, delay, count, first = values
            ranges = [(largest - first, largest)]
            for _ in range(count):
                gap, at = varint.read(payload, at)
                size, at = varint.read(payload, at)
                high = ranges[-1][0] - gap - 2
                ranges.append((high - size, high))
            frames.append(Frame(kind, (ranges, delay)))
        elif kind in {0x1A, 0x1B}:
            frames.append(Frame(kind, (payload[at : at + 8],)))
            at += 8
        elif kind == 0x18:
            sequence, at = varint.read(payload, at)
            retire, at = varint.read(payload, at)
            end = at + 1 + payload[at]
            frames.append(Frame(kind, (sequence, retire, payload[at + 1 : end], payload[end : end + 16])))
            at = end + 16
        elif kind in {0x06, 0x1C, 0x1D}:
            count = {0x06: 1, 0x1C: 2, 0x1D: 1}[kind]
            values = []
            for _ in range(count):
                value, at = varint.read(payload, at)
                values.append(value)
            size, at = varint.read(payload, at)
            frames.append(Frame(kind, (*values, payload[at : at + size])))
            at += size
        else:
            count = {0x01: 0, 0x04: 3, 0x05: 2, 0x10: 1, 0x11: 2, 0x12: 1, 0x13: 1, 0x14: 1, 0x15: 2, 0x19: 1, 0x1E: 0}[kind]
            values = []
            for _ in range(count):
                value, at = varint.read(payload, at)
                values.append(value)
            frames.append(Frame(kind, tuple(values)))
    return frames


def stream_frame(stream_id: int, offset: int, data: bytes, *, fin: bool = False) -> bytes:
    """A STREAM frame with offset and length."""
    write = varint.write
    return b"%c%b%b%b%b" % (0x0E | fin, write(stream_id), write(offset), write(len(data)), data)


def ack_frame(ranges: list[tuple[int, int]], delay: int = 0) -> bytes:
    """An ACK frame; `ranges` as (lowest, highest), the highest first."""
    write = varint.write
    low, largest = ranges[0]
    parts = [b"\x02", write(largest), write(delay), write(len(ranges) - 1), write(largest - low)]
    for first, last in ranges[1:]:
        parts += [write(low - last - 2), write(last - first)]
        low = first
    return b"".join(parts)


class Host:
    """Remembers what a connection asked of its socket."""

    def __init__(self) -> None:
        self.woken = 0
        self.ids: dict[bytes, Connection] = {}
        self.gone: list[bytes] = []
        self.ended = 0
        self.promised = False
        self._next = 0

    def wake(self, connection: Connection) -> None:
        """See `connection.Host`."""
        self.woken += 1

    def acknowledge_later(self, connection: Connection) -> None:
        """See `connection.Host`."""
        self.promised = True

    def new_id(self) -> tuple[bytes, bytes]:
        """See `connection.Host`."""
        self._next += 1
        return b"own%05d" % self._next, b"token-%010d" % self._next

    def issued(self, connection: Connection, connection_id: bytes) -> None:
        """See `connection.Host`."""
        self.ids[connection_id] = connection

    def retired(self, connection_id: bytes) -> None:
        """See `connection.Host`."""
        self.gone.append(connection_id)

    def over(self, connection: Connection) -> None:
        """See `connection.Host`."""
        self.ended += 1


class Application:
    """Remembers what it was told; consumes at once unless told not to."""

    def __init__(self) -> None:
        self.data: dict[int, bytes] = {}
        self.ends: list[int] = []
        self.resets: list[tuple[int, int]] = []
        self.stops: list[tuple[int, int]] = []
        self.writables: list[int] = []
        self.reasons: list[str] = []
        self.left: list[Stream] = []
        self.streams: dict[int, Stream] = {}
        self.consumes = True
        self.on_data: Any = None

    def stream_data(self, stream: Stream, data: bytes, fin: bool) -> None:
        """See `connection.Application`."""
        assert stream.id not in self.ends
        self.streams[stream.id] = stream
        self.data[stream.id] = self.data.get(stream.id, b"") + data
        if fin:
            self.ends.append(stream.id)
        if self.consumes:
            stream.consume(len(data))
        if self.on_data is not None:
            self.on_data(stream, data, fin)

    def stream_reset(self, stream: Stream, code: int) -> None:
        """See `connection.Application`."""
        self.resets.append((stream.id, code))

    def stop_sending(self, stream: Stream, code: int) -> None:
        """See `connection.Application`."""
        self.stops.append((stream.id, code))

    def writable(self, stream: Stream) -> None:
        """See `connection.Application`."""
        self.writables.append(stream.id)

    def closed(self, reason: str, streams: list[Stream]) -> None:
        """See `connection.Application`."""
        self.reasons.append(reason)
        self.left = streams


def established(protection: Protection, **changes: Any) -> Established:
    """A handshake's outcome with generous limits of the client."""
    given: dict[str, Any] = {
        "protection": protection, "address": ADDRESS, "ids": {0: OUR_ID}, "peer_id": PEER_ID, "next_number": 0, "resumed": False,
        "server_name": "edge.test", "hello": b"", "parameters": b"", "max_data": 1 << 20, "max_stream_data_bidi_local": 1 << 18,
        "max_stream_data_uni": 1 << 16, "max_streams_uni": 3, "rtt": 0.05,
    }  # fmt: skip
    return Established(**{**given, **changes})


class Wire:
    """See the module.

    Attributes:
        now: the clock, in seconds.
        sent: (number, frames, address) of what the connection sent, as far as `flush` took it.
    """

    def __init__(self, limits: Limits | None = None, **changes: Any) -> None:
        secrets = bytes(range(32)), bytes(range(32, 64))
        self.client = Protection(SUITE, secrets[1], secrets[0], VERSION)
        self.host = Host()
        self.app = Application()
        self.now = 100.0
        made = established(Protection(SUITE, secrets[0], secrets[1], VERSION), **changes)
        self.connection = Connection(self.host, made, limits or Limits(), self.now)
        self.connection.application = self.app
        self.number = 0  # of the client's next packet
        self.expected = 0  # one more than the highest of ours
        self.sent: list[tuple[int, list[Frame], tuple[str, int]]] = []
        self.sizes: list[int] = []

    def send(
        self, frames: bytes, *, address: tuple[str, int] = ADDRESS, number: int | None = None, destination: bytes = OUR_ID,
        flush: bool = True,
    ) -> list[Frame]:  # fmt: skip
        """A packet of the client. Returns: the frames of what the connection sends then."""
        if number is None:
            number = self.number
        self.number = max(self.number, number + 1)
        # Padded in front, so that there is always a sample and frames may end early.
        datagram = self.client.seal(destination, number, frames.rjust(4, b"\0"), 0)
        self.connection.receive(datagram, address, self.now)
        return self.flush() if flush else []

    def flush(self) -> list[Frame]:
        """What the connection has to send now."""
        frames: list[Frame] = []
        connection = self.connection
        if not connection.is_open:
            words = connection.last_words()
            return self._read(words, ADDRESS) if words else []
        datagrams = connection.transmit(self.now)
        if connection.paths.probe:
            frames += self._read(connection.paths.probe, connection.paths.address)
            connection.paths.probe = b""
        for datagram in datagrams:
            frames += self._read(datagram, connection.paths.address)
        for datagram, address in connection.paths.take_outgoing():
            frames += self._read(datagram, address)
        return frames

    def _read(self, datagram: bytes, address: tuple[str, int]) -> list[Frame]:
        if len(self.connection.paths.peer_id) != len(OUR_ID):
            return []  # it calls us by a name we gave it, of a length that `Protection` does not read
        opened = self.client.open(datagram, self.expected)
        assert opened is not None
        _, number, payload = opened
        self.expected = max(self.expected, number + 1)
        frames = parse(payload)
        self.sent.append((number, frames, address))
        self.sizes.append(len(datagram))
        return frames

    def acknowledge(self) -> list[Frame]:
        """The client has everything."""
        return self.send(ack_frame([(0, self.expected - 1)]))

    def settle(self) -> Wire:
        """After the first flight was sent and acknowledged."""
        self.flush()
        self.acknowledge()
        self.sent.clear()
        self.sizes.clear()
        return self

    def advance(self, seconds: float) -> list[Frame]:
        """Time passes; the timer fires as often as it wants to, which must not be without end.

        Acknowledgments that were promised are due at its start: as late as they may be, seen from the packet.
        """
        end = self.now + seconds
        frames: list[Frame] = []
        if self.host.promised:
            self.host.promised = False
            self.connection.acknowledge()
            frames += self.flush()
        for _ in range(1000):
            at = self.connection.timer_at() if self.connection.is_open else 0.0
            if not at or at > end:
                self.now = end
                return frames
            self.now = max(self.now, at)
            self.connection.on_timer(self.now)
            frames += self.flush()
        raise AssertionError("the timer spins")

    @property
    def error(self) -> tuple[int, int] | None:
        """Code and frame type of the CONNECTION_CLOSE we sent, None without; -1 as the type for the application's."""
        if self.connection.is_open or not self.connection.last_words():
            return None
        for frame in self.flush():
            if frame.kind == 0x1C:
                return frame.values[0], frame.values[1]
            if frame.kind == 0x1D:
                return frame.values[0], -1
        raise AssertionError
