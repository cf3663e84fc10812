# What we read of a ClientHello ourselves, beside TLS. Never raises: what is malformed, TLS refuses.
"""Server name, early data and transport parameters of a ClientHello (RFC 8446 §4.1.2, RFC 9000 §18)."""

from __future__ import annotations

from collections.abc import Iterator

from edgeproxy.quic import varint

_SERVER_NAME, _EARLY_DATA = 0, 42


def extensions(hello: bytes) -> Iterator[tuple[int, bytes]]:
    """The extensions of a ClientHello message in order: (type, content). Ends where they stop making sense."""
    at = 4 + 2 + 32
    if len(hello) < at + 1:
        return
    at += 1 + hello[at]
    at += 2 + int.from_bytes(hello[at : at + 2], "big")
    if at >= len(hello):
        return
    at += 1 + hello[at]
    end = min(at + 2 + int.from_bytes(hello[at : at + 2], "big"), len(hello))
    at += 2
    while at + 4 <= end:
        kind = int.from_bytes(hello[at : at + 2], "big")
        size = int.from_bytes(hello[at + 2 : at + 4], "big")
        at += 4
        if at + size > end:
            return
        yield kind, hello[at : at + size]
        at += size


def server_name(hello: bytes) -> str:
    """The host name of SNI in lower case, "" without (RFC 6066 §3)."""
    for kind, content in extensions(hello):
        if kind == _SERVER_NAME:
            if len(content) < 5 or content[2] != 0:
                return ""
            size = int.from_bytes(content[3:5], "big")
            try:
                return content[5 : 5 + size].decode("ascii").lower()
            except UnicodeDecodeError:
                return ""
    return ""


def offers_early_data(hello: bytes) -> bool:
    """The client sends, or would send, 0-RTT data."""
    return any(kind == _EARLY_DATA for kind, _ in extensions(hello))


def parameters(raw: bytes) -> dict[int, int]:
    """Transport parameters that are integers, by id; ends where they stop making sense. `raw`: content of the extension."""
    found: dict[int, int] = {}
    at, end = 0, len(raw)
    try:
        while at < end:
            name, at = varint.read(raw, at)
            size, at = varint.read(raw, at)
            if 0 < size <= 8 and varint.read(raw, at)[1] == at + size:
                found[name] = varint.read(raw, at)[0]
            at += size
    except IndexError:
        pass
    return found
