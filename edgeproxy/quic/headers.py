# Long headers (RFC 9000 §17.2), as far as somebody must know them who does not open them.
"""Where the packets with long headers in a datagram end."""

from __future__ import annotations

from edgeproxy.quic import varint

VERSIONS = (0x00000001, 0x6B3343CF)
"""What we speak: version 1 (RFC 9000) and 2 (RFC 9369)."""


def long_headers(data: bytes) -> int:
    """Where the long-header packets at the start of a datagram end. What can't be read counts as one of them."""
    at, size = 0, len(data)
    try:
        while at < size and data[at] & 0x80:
            first = data[at]
            version = int.from_bytes(data[at + 1 : at + 5], "big")
            kind = (first >> 4) & 3
            at += 6 + data[at + 5]
            at += 1 + data[at]
            if version == VERSIONS[1]:
                kind = (kind - 1) & 3  # RFC 9369 §3.2
            if kind == 0:
                length, at = varint.read(data, at)
                at += length
            elif kind == 3 or version not in VERSIONS:
                return size
            length, at = varint.read(data, at)
            at += length
    except IndexError:
        return size
    # Padding behind the last packet is part of no packet (RFC 9000 §12.2): let aioquic ignore it.
    return at if at < size and data[at] & 0x40 else size
