# What the handshake leaves behind, and what we allow. Plain data; where it comes from is in handshake.py.
"""`Established` and `Limits`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgeproxy.quic.streamset import Streams

if TYPE_CHECKING:
    from edgeproxy.quic.protection import Protection



@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may do on a connection.

    Attributes:
        max_streams: requests at a time.
        stream_window: bytes of a request that may be on their way to us or wait for the upstream.
        connection_window: the same for all requests of a connection.
        idle: seconds without a packet after which the connection is forgotten.
        max_datagram: bytes of our largest datagrams, once the path is known to take them.
        one_way: one-way streams at a time: control, two of QPACK, and some of kinds we do not know (GREASE).
        one_way_window: bytes on one of them.
    """

    max_streams: int = 100
    stream_window: int = 256 * 1024
    connection_window: int = 1024 * 1024
    idle: float = 30.0
    max_datagram: int = 1350
    one_way: int = 8
    one_way_window: int = 16 * 1024

    def streams(self, made: Established) -> Streams:
        """The stream table of a new connection."""
        return Streams(made, (self.max_streams, self.one_way), (self.stream_window, self.one_way_window))


@dataclass(slots=True)
class Established:
    """A finished handshake.

    Attributes:
        protection: 1-RTT keys.
        address: where the client is; `local` as the socket layer gave it.
        ids: our connection ids by sequence number, the handshake's one.
        peer_id: the client's connection id.
        next_number: first packet number of ours.
        rtt: seconds, 0.0 when it was not measured.
        tickets: CRYPTO stream of the 1-RTT epoch (session tickets).
        server_name: SNI, "" without.
        hello: the ClientHello message, for fingerprints.
        parameters: the client's transport parameters, raw and in order.
        limits: what the client was told in the handshake, whatever was configured since.
        idle: the client's idle timeout in seconds, 0.0 for none.
    """

    protection: Protection
    address: tuple[str, int]
    ids: dict[int, bytes]
    peer_id: bytes
    next_number: int
    resumed: bool
    server_name: str
    hello: bytes
    parameters: bytes
    tickets: bytes = b""
    rtt: float = 0.0
    max_data: int = 0
    max_stream_data_bidi_local: int = 0
    max_stream_data_uni: int = 0
    max_streams_uni: int = 0
    max_ack_delay: float = 0.025
    ack_delay_exponent: int = 3
    active_ids: int = 2
    limits: Limits = field(default_factory=Limits)
    idle: float = 0.0
