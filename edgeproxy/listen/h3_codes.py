# Numbers of HTTP/3 and QPACK on the wire (RFC 9114 §7.2, §8.1; RFC 9204 §6), and the one exception that ends a connection.
"""Frame types, stream types, settings and error codes."""

from __future__ import annotations

DATA, HEADERS, CANCEL_PUSH, SETTINGS, PUSH_PROMISE, GOAWAY, MAX_PUSH_ID = 0x00, 0x01, 0x03, 0x04, 0x05, 0x07, 0x0D
HTTP2_FRAMES = frozenset({0x02, 0x06, 0x08, 0x09})  # §7.2.8: reserved because HTTP/2 has them

CONTROL_STREAM, PUSH_STREAM, ENCODER_STREAM, DECODER_STREAM = 0x00, 0x01, 0x02, 0x03

QPACK_MAX_TABLE_CAPACITY, MAX_FIELD_SECTION_SIZE, QPACK_BLOCKED_STREAMS = 0x01, 0x06, 0x07
HTTP2_SETTINGS = frozenset({0x00, 0x02, 0x03, 0x04, 0x05})  # §7.2.4.1

NO_ERROR = 0x100
GENERAL_PROTOCOL_ERROR = 0x101
INTERNAL_ERROR = 0x102
STREAM_CREATION_ERROR = 0x103
CLOSED_CRITICAL_STREAM = 0x104
FRAME_UNEXPECTED = 0x105
FRAME_ERROR = 0x106
EXCESSIVE_LOAD = 0x107
ID_ERROR = 0x108
SETTINGS_ERROR = 0x109
MISSING_SETTINGS = 0x10A
REQUEST_REJECTED = 0x10B
REQUEST_CANCELLED = 0x10C
REQUEST_INCOMPLETE = 0x10D
MESSAGE_ERROR = 0x10E
QPACK_DECOMPRESSION_FAILED = 0x200
QPACK_ENCODER_STREAM_ERROR = 0x201
QPACK_DECODER_STREAM_ERROR = 0x202


class H3Error(Exception):
    """The client broke HTTP/3 in a way that ends the connection (RFC 9114 §8)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class StreamError(Exception):
    """A malformed message: it ends its stream only (RFC 9114 §4.1.2)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
