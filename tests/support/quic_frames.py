# QUIC's frames and codes by name, and builders for frames that are long to write out.
"""For packets of a test's own making (RFC 9000 §19 and §20)."""

from __future__ import annotations

from support.quic import varint

INTERNAL, REFUSED, FLOW, STREAM_LIMIT, STREAM_STATE, FINAL_SIZE, ENCODING = 1, 2, 3, 4, 5, 6, 7
PARAMETER, ID_LIMIT, PROTOCOL, TOKEN, APPLICATION, CRYPTO_BUFFER = 8, 9, 10, 11, 12, 13
RESET, STOP, CRYPTO, NEW_TOKEN, STREAM, MAX_DATA, MAX_STREAM_DATA = 4, 5, 6, 7, 0x0E, 0x10, 0x11
MAX_STREAMS, STREAMS_BLOCKED, NEW_ID, RETIRE_ID, PATH_RESPONSE, CLOSE, DONE = 0x12, 0x16, 0x18, 0x19, 0x1B, 0x1C, 0x1E
MOST = (1 << 62) - 1


def stream(number: int, offset: int, content: bytes, *, end: bool = False) -> bytes:
    """A STREAM frame with offset and length."""
    return varint(STREAM | end, number, offset, len(content)) + content


def new_id(sequence: int, retire: int, identity: bytes, token: bytes = bytes(16)) -> bytes:
    """A NEW_CONNECTION_ID frame."""
    return varint(NEW_ID, sequence, retire) + bytes([len(identity)]) + identity + token
