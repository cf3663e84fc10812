# How clients begin HTTP/2 and HTTP/3: their first frames, read a second time beside the engines. Bounded, and never raises.
"""`h2_print` reads the bytes before the first request (RFC 9113 §4.1), `h3_print` what a ClientHello and SETTINGS said.

An engine forgets the order of what it takes. So the first bytes of a connection are kept until its first request, and read
once, only where somebody wants to know. What the engine refuses is refused there: here it is what can be read of it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from edgeproxy.prints import H2Print, H3Print
from edgeproxy.quic import varint

if TYPE_CHECKING:
    from edgeproxy.listen.pseudo import Section
    from edgeproxy.prints import Prints

MAX_FIRST: Final = 1024  # bytes kept of HTTP/2: preface, SETTINGS, WINDOW_UPDATE, some PRIORITY, the first HEADERS' start
MAX_PRIORITIES: Final = 16  # PRIORITY frames that are looked at: Firefox sent five, once
MAX_PARAMETERS: Final = 64  # transport parameters that are looked at: some fifteen are in use
_PREFACE: Final = 24
_HEAD: Final = 9  # bytes before a frame's payload
_HEADERS, _PRIORITY, _SETTINGS, _WINDOW_UPDATE = 0x01, 0x02, 0x04, 0x08
_ACK: Final = 0x01
_PADDED: Final = 0x08
_WITH_PRIORITY: Final = 0x20
_LETTERS: Final = {b":method": "m", b":authority": "a", b":scheme": "s", b":path": "p"}
_SETTING: Final = struct.Struct(">HI")


def pseudo_order(section: Section) -> str:
    """`m,a,s,p`; `?` for a pseudo-header field that is none of the four."""
    found = []
    for name, _ in section[:8]:
        if name[:1] != b":":
            break
        found.append(_LETTERS.get(name, "?"))
    return ",".join(found)


def h2_print(first: bytes, section: Section) -> H2Print:
    """How a client begins HTTP/2.

    Args:
        first: the connection's first bytes, from the preface on; cut anywhere.
        section: of the first request.
    """
    settings: tuple[tuple[int, int], ...] | None = None
    priorities: list[tuple[int, int, int, int]] = []
    priority = None
    window = 0
    at, end = _PREFACE, len(first)
    while at + _HEAD <= end:
        size, kind, flags = int.from_bytes(first[at : at + 3], "big"), first[at + 3], first[at + 4]
        stream = int.from_bytes(first[at + 5 : at + 9], "big") & 0x7FFFFFFF
        payload = first[at + _HEAD : at + _HEAD + size]
        at += _HEAD + size
        if kind == _HEADERS:
            if flags & _WITH_PRIORITY:
                priority = _priority(payload[1:] if flags & _PADDED else payload)
            break
        if kind == _SETTINGS:
            if settings is None and not flags & _ACK:
                whole = len(payload) // _SETTING.size * _SETTING.size
                settings = tuple(_SETTING.iter_unpack(payload[:whole]))
        elif kind == _WINDOW_UPDATE:
            if not stream and not window:
                window = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
        elif kind == _PRIORITY and len(priorities) < MAX_PRIORITIES:
            found = _priority(payload)
            if found is not None:
                priorities.append((stream, *found))
    return H2Print(settings or (), window, tuple(priorities), pseudo_order(section), priority)


def _priority(payload: bytes) -> tuple[int, int, int] | None:
    """Exclusive, dependency, weight (RFC 7540 §6.3); None where it is cut off."""
    if len(payload) < 5:
        return None
    word = int.from_bytes(payload[:4], "big")
    return word >> 31, word & 0x7FFFFFFF, payload[4] + 1


def h3_print(prints: Prints, settings: list[tuple[int, int]] | None, section: Section) -> H3Print:
    """How a client begins HTTP/3.

    Args:
        prints: of the connection, which has the ClientHello with the transport's parameters.
        settings: None while they have not come.
        section: of the first request.
    """
    hello = prints.hello
    kept = tuple((name, value) for name, value in settings or () if name < 0x21 or (name - 0x21) % 0x1F)
    return H3Print(transport_parameters(hello.parameters if hello is not None else b""), kept, pseudo_order(section))


def transport_parameters(raw: bytes) -> tuple[tuple[int, bytes], ...]:
    """Ids and values, by id and without GREASE (RFC 9000 §18.1: 31 n + 27); what can be read of a content that is broken."""
    found: list[tuple[int, bytes]] = []
    at, end = 0, len(raw)
    try:
        while at < end and len(found) < MAX_PARAMETERS:
            name, at = varint.read(raw, at)
            size, at = varint.read(raw, at)
            if at + size > end:
                break
            if name < 27 or (name - 27) % 31:
                found.append((name, raw[at : at + size]))
            at += size
    except IndexError:
        pass
    found.sort()
    return tuple(found)
