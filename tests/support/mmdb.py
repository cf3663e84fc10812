# Small files in MaxMind's format, written by its specification (https://maxmind.github.io/MaxMind-DB/), not by a library.
"""`database`: the bytes of a .mmdb with records for networks."""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

_MARK = b"\xab\xcd\xefMaxMind.com"


def database(records: dict[str, Any], *, kind: str = "Test-City", version: int = 6, **metadata: Any) -> bytes:
    """A file with a record for each network (`192.0.2.0/24`); longer networks must follow shorter ones that hold them.

    Args:
        version: 4 or 6; in a file for 6, IPv4 networks stand below ::/96.
        metadata: changes of its metadata.
    """
    nodes: list[list[Any]] = [[None, None]]
    for text, record in records.items():
        network = ipaddress.ip_network(text)
        lead = 96 if version == 6 and network.version == 4 else 0
        bits = (int(network.network_address) >> (network.max_prefixlen - network.prefixlen)) if network.prefixlen else 0
        path = [0] * lead + [bits >> at & 1 for at in reversed(range(network.prefixlen))]
        node = 0
        for bit in path[:-1]:
            below = nodes[node][bit]
            if not isinstance(below, int):
                nodes.append([below, below])  # what was said of the whole is said of both halves
                below = nodes[node][bit] = len(nodes) - 1
            node = below
        nodes[node][path[-1]] = (record,)
    data = b""
    places: dict[int, int] = {}
    for node_ in nodes:
        for leaf in node_:
            if isinstance(leaf, tuple) and id(leaf[0]) not in places:
                places[id(leaf[0])] = len(data)
                data += _encoded(leaf[0])
    count = len(nodes)

    def pointer(leaf: Any) -> int:
        return count if leaf is None else leaf if isinstance(leaf, int) else count + 16 + places[id(leaf[0])]

    tree = b"".join(pointer(leaf).to_bytes(4, "big") for node_ in nodes for leaf in node_)
    described = {
        "node_count": count, "record_size": _Short(32), "ip_version": _Short(version), "database_type": kind,
        "languages": ["en"], "binary_format_major_version": _Short(2), "binary_format_minor_version": _Short(0),
        "build_epoch": _Long(1_700_000_000),
        "description": {"en": "test"}, **metadata,
    }  # fmt: skip
    return tree + bytes(16) + data + _MARK + _encoded(described)


class _Short(int):
    """An integer of 16 bits: the C library wants each number of the metadata in its own type."""


class _Long(int):
    """An integer of 64 bits."""


def _encoded(value: Any) -> bytes:
    if isinstance(value, bool):
        return _control(14, int(value))
    if isinstance(value, str):
        text = value.encode()
        return _control(2, len(text)) + text
    if isinstance(value, int):
        packed = value.to_bytes((value.bit_length() + 7) // 8, "big")
        return _control({_Short: 5, _Long: 9}.get(type(value), 6), len(packed)) + packed
    if isinstance(value, float):
        return _control(3, 8) + struct.pack(">d", value)
    if isinstance(value, dict):
        return _control(7, len(value)) + b"".join(_encoded(key) + _encoded(each) for key, each in value.items())
    assert isinstance(value, list)
    return _control(11, len(value)) + b"".join(map(_encoded, value))


def _control(kind: int, size: int) -> bytes:
    """Type and size; sizes up to 284 are enough here."""
    assert size < 285
    small, rest = (size, b"") if size < 29 else (29, bytes((size - 29,)))
    return (bytes((kind << 5 | small,)) if kind < 8 else bytes((small, kind - 7))) + rest
