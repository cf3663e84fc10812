# What each frame does (RFC 9000 §19). One function per frame: it reads the frame and acts.
"""Frames of 1-RTT packets.

A handler gets the connection, the packet's frames, the position behind the frame's type and the time, and returns where the
frame ends. A frame that ends early raises IndexError, one that breaks a rule TransportError; the caller closes the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.quic.errors import (
    FRAME_ENCODING_ERROR,
    PROTOCOL_VIOLATION,
    UNEXPECTED_MESSAGE,
    TransportError,
)  # fmt: skip
from edgeproxy.quic.recovery import MAX_HOLES
from edgeproxy.quic.varint import LARGEST, read

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.quic.connection import Connection

    Handler = Callable[[Connection, bytes, int, float], int]

_MAX_STREAM_COUNT = 1 << 60
_MAX_ACK_RANGES = 256
MAX_NOISE = 4000  # frames in a row that carry nothing and answer nothing


def read_stream(connection: Connection, kind: int, data: bytes, at: int) -> int:
    """STREAM (§19.8)."""
    stream_id, at = read(data, at)
    offset = 0
    if kind & 0x04:
        offset, at = read(data, at)
    if kind & 0x02:
        size, at = read(data, at)
        end = at + size
        if end > len(data):
            raise IndexError
    else:
        end = len(data)
    if offset + end - at > LARGEST:
        raise TransportError(FRAME_ENCODING_ERROR, "a stream offset is too large", kind)
    stream = connection.streams.by_id.get(stream_id)
    if stream is None or stream_id & 1:
        stream = connection.streams.receiving(connection, stream_id, kind)
    before = connection.data_received
    if stream is not None:
        stream.accept(offset, data[at:end], kind & 0x01 != 0)
    if connection.data_received != before:
        connection.noise = 0
    else:
        _noise(connection, kind)  # the same bytes once more, or none
    return end


def _noise(connection: Connection, kind: int) -> None:
    connection.noise += 1
    if connection.noise > MAX_NOISE:
        raise TransportError(PROTOCOL_VIOLATION, "too many frames that lead to nothing", kind)


def read_ack(connection: Connection, data: bytes, at: int, now: float) -> int:
    """ACK (§19.3)."""
    largest, at = read(data, at)
    delay, at = read(data, at)
    count, at = read(data, at)
    first, at = read(data, at)
    low = largest - first
    if low < 0 or count > len(data):
        raise TransportError(FRAME_ENCODING_ERROR, "an ACK range ends below zero", 0x02)
    skipped = connection.skipped
    if largest >= connection.next_number or low <= skipped <= largest:
        raise TransportError(PROTOCOL_VIOLATION, "an acknowledgment of what was never sent", 0x02)
    ranges = [(low, largest)]
    for _ in range(count):
        gap, at = read(data, at)
        size, at = read(data, at)
        high = low - gap - 2
        low = high - size
        if low < 0:
            raise TransportError(FRAME_ENCODING_ERROR, "an ACK range ends below zero", 0x02)
        if low <= skipped <= high:
            raise TransportError(PROTOCOL_VIOLATION, "an acknowledgment of what was never sent", 0x02)
        if len(ranges) < _MAX_ACK_RANGES:
            ranges.append((low, high))
    recovery = connection.recovery
    before = recovery.in_flight
    recovery.on_ack(ranges, (delay << recovery.ack_delay_exponent) / 1000000, now)
    if recovery.in_flight != before:
        connection.noise = 0
    if recovery.holes >= MAX_HOLES:
        connection.paths.shrink()
    if recovery.loss_at or connection.watched or connection.has_frames():
        connection.mark()
    return at


def _ack_ecn(connection: Connection, data: bytes, at: int, now: float) -> int:
    at = read_ack(connection, data, at, now)
    for _ in range(3):
        _, at = read(data, at)  # we do not mark packets, so there is nothing to learn from the counts
    return at


def _ping(connection: Connection, data: bytes, at: int, now: float) -> int:
    del connection, data, now
    return at


def _reset_stream(connection: Connection, data: bytes, at: int, now: float) -> int:
    del now
    stream_id, at = read(data, at)
    code, at = read(data, at)
    final, at = read(data, at)
    stream = connection.streams.receiving(connection, stream_id, 0x04)
    if stream is not None:
        stream.accept_reset(code, final)
    return at


def _stop_sending(connection: Connection, data: bytes, at: int, now: float) -> int:
    del now
    stream_id, at = read(data, at)
    code, at = read(data, at)
    stream = connection.streams.sending(connection, stream_id, 0x05)
    if stream is not None and stream.send_open:
        # §3.5: the answer is a reset with the same code.
        stream.reset(code)
        connection.application.stop_sending(stream, code)
    return at


def _crypto(connection: Connection, data: bytes, at: int, now: float) -> int:
    del connection, data, at, now
    # A client has nothing to say in TLS after its Finished: no key updates there (RFC 9001 §6), no client certificates here.
    raise TransportError(UNEXPECTED_MESSAGE, "an unexpected TLS message", 0x06)


def _max_data(connection: Connection, data: bytes, at: int, now: float) -> int:
    del now
    value, at = read(data, at)
    if value > connection.data_limit:
        connection.data_limit = value
        if connection.starved:
            starved, connection.starved = connection.starved, {}
            for stream in starved.values():
                if not stream.ready and stream.has_frames():
                    connection.wake(stream)
    return at


def _max_stream_data(connection: Connection, data: bytes, at: int, now: float) -> int:
    del now
    stream_id, at = read(data, at)
    value, at = read(data, at)
    stream = connection.streams.sending(connection, stream_id, 0x11)
    if stream is not None and value > stream.limit:
        stream.limit = value
        if not stream.ready and stream.has_frames():
            connection.wake(stream)
    return at


def _max_streams(connection: Connection, data: bytes, at: int, now: float) -> int:
    del connection, now
    value, at = read(data, at)
    if value > _MAX_STREAM_COUNT:
        raise TransportError(FRAME_ENCODING_ERROR, "more streams than there are numbers", 0x12)
    return at  # we open no more than the first few


def _data_blocked(connection: Connection, data: bytes, at: int, now: float) -> int:
    del connection, now
    return read(data, at)[1]


def _stream_data_blocked(connection: Connection, data: bytes, at: int, now: float) -> int:
    del now
    stream_id, at = read(data, at)
    connection.streams.receiving(connection, stream_id, 0x15)
    return read(data, at)[1]


def _streams_blocked(connection: Connection, data: bytes, at: int, now: float) -> int:
    return _max_streams(connection, data, at, now)


def _new_connection_id(connection: Connection, data: bytes, at: int, now: float) -> int:
    del now
    sequence, at = read(data, at)
    retire, at = read(data, at)
    size = data[at]
    at += 1
    end = at + size + 16
    if not 1 <= size <= 20 or retire > sequence:
        raise TransportError(FRAME_ENCODING_ERROR, "a connection id of an impossible length or order", 0x18)
    if end > len(data):
        raise IndexError
    connection.paths.offered(sequence, retire, data[at : at + size])
    return end


def _retire_connection_id(connection: Connection, data: bytes, at: int, now: float) -> int:
    del now
    sequence, at = read(data, at)
    connection.paths.retired(sequence)
    return at


def _path_challenge(connection: Connection, data: bytes, at: int, now: float) -> int:
    del now
    if at + 8 > len(data):
        raise IndexError
    connection.paths.challenged(data[at : at + 8])
    return at + 8


def _path_response(connection: Connection, data: bytes, at: int, now: float) -> int:
    del now
    if at + 8 > len(data):
        raise IndexError
    connection.paths.answered(data[at : at + 8])
    return at + 8


def _close(connection: Connection, data: bytes, at: int, *, transport: bool) -> int:
    code, at = read(data, at)
    if transport:
        _, at = read(data, at)
    size, at = read(data, at)
    end = at + size
    if end > len(data):
        raise IndexError
    text = data[at : min(end, at + 100)].decode("ascii", "replace")
    connection.closed_by_peer(code, transport=transport, reason=text)
    return end


def _close_transport(connection: Connection, data: bytes, at: int, now: float) -> int:
    del now
    return _close(connection, data, at, transport=True)


def _close_application(connection: Connection, data: bytes, at: int, now: float) -> int:
    del now
    return _close(connection, data, at, transport=False)


HANDLERS: dict[int, tuple[Handler, bool, bool]] = {
    0x01: (_ping, True, False),
    0x03: (_ack_ecn, False, False),
    0x04: (_reset_stream, True, False),
    0x05: (_stop_sending, True, False),
    0x06: (_crypto, True, False),
    0x10: (_max_data, True, False),
    0x11: (_max_stream_data, True, False),
    0x12: (_max_streams, True, False),
    0x13: (_max_streams, True, False),
    0x14: (_data_blocked, True, False),
    0x15: (_stream_data_blocked, True, False),
    0x16: (_streams_blocked, True, False),
    0x17: (_streams_blocked, True, False),
    0x18: (_new_connection_id, True, True),
    0x19: (_retire_connection_id, True, False),
    0x1A: (_path_challenge, True, True),
    0x1B: (_path_response, True, True),
    0x1C: (_close_transport, False, False),
    0x1D: (_close_application, False, False),
}
"""Type → handler, whether it asks for an acknowledgment (§13.2), whether it is a probing frame (§9.1). NEW_TOKEN (0x07) and
HANDSHAKE_DONE (0x1e) are a server's: they are missing like the ones nobody knows."""


def read_frames(connection: Connection, data: bytes, now: float) -> tuple[bool, bool]:
    """Handle the frames of a packet. Returns: it asks for an acknowledgment; it only probes a path.

    Raises: TransportError, IndexError for a frame that ends early.
    """
    at, end = 0, len(data)
    if not end:
        raise TransportError(PROTOCOL_VIOLATION, "a packet without frames")
    eliciting = False
    probing = True
    while at < end and not connection.state:  # a frame may have ended the connection
        kind = data[at]
        if 0x08 <= kind <= 0x0F:
            at = read_stream(connection, kind, data, at + 1)
            eliciting, probing = True, False
        elif kind == 0x02:
            at = read_ack(connection, data, at + 1, now)
            probing = False
        elif not kind:
            at += 1
            if data[at : at + 8] == b"\0\0\0\0\0\0\0\0":
                at = end - len(data[at:].lstrip(b"\0"))
        else:
            found = HANDLERS.get(kind)
            if found is None:
                # RFC 9000 §19.7, §19.20: NEW_TOKEN and HANDSHAKE_DONE are a server's.
                code = PROTOCOL_VIOLATION if kind in {0x07, 0x1E} else FRAME_ENCODING_ERROR
                raise TransportError(code, "an unknown or forbidden frame", kind)
            handler, asks, probes = found
            at = handler(connection, data, at + 1, now)
            if at > end:
                raise IndexError
            if asks:
                eliciting = True
                _noise(connection, kind)
            if not probes:
                probing = False
    return eliciting, probing
