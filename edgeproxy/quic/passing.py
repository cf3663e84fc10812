# Datagrams between workers: a client's packets may reach a worker that does not own its connection.
"""The message in which a datagram is passed on, from one worker of this machine to another."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeproxy.quic.udp import Address, Local

_HEAD = struct.Struct("=BHBiiB")  # socket index, port, bytes of host, control message's level, type and size


def pack(index: int, data: bytes, address: Address, local: Local) -> bytes:
    """A message. `index`: which of the worker's UDP sockets the datagram came by."""
    host = address[0].encode()
    level, kind, content = local or (0, 0, b"")
    return _HEAD.pack(index, address[1], len(host), level, kind, len(content)) + host + content + data


def unpack(message: bytes) -> tuple[int, bytes, Address, Local]:
    """The other way: (index, datagram, address, local)."""
    index, port, length, level, kind, size = _HEAD.unpack_from(message)
    at = _HEAD.size
    host = message[at : at + length].decode()
    at += length
    local = (level, kind, message[at : at + size]) if size else None
    return index, message[at + size :], (host, port), local
