# The one packet for clients that are not let in: CONNECTION_CLOSE in an Initial, without any state.
"""Refusing a connection so that the client knows at once and goes to TCP (RFC 9000 §5.2.2)."""

from __future__ import annotations

from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicPacketType, encode_long_header_first_byte

from edgeproxy.quic import varint


def refusal(version: int, destination: bytes, source: bytes, code: int) -> bytes:
    """An Initial packet with CONNECTION_CLOSE.

    Args:
        version: of the client's Initial.
        destination: its Destination Connection ID, from which the keys follow (RFC 9001 §5.2).
        source: its Source Connection ID.
        code: a transport error.
    """
    crypto = CryptoPair()
    crypto.setup_initial(cid=destination, is_client=False, version=version)
    frame = b"\x1c%b\0\0" % varint.write(code)
    number = b"\0\0"
    size = len(number) + len(frame) + crypto.aead_tag_size
    header = b"%c%b%c%b%c%b\0%b%b" % (
        encode_long_header_first_byte(version, QuicPacketType.INITIAL, 1), version.to_bytes(4, "big"),
        len(source), source, len(destination), destination, (size | 0x4000).to_bytes(2, "big"), number,
    )  # fmt: skip
    return crypto.encrypt_packet(header, frame, 0)
