# What rules may want to know of a client's connection: read from its socket and its first bytes when they do, kept by nobody.
"""The parts of `message.Link` that TCP, TLS and QUIC have in common. Nothing here raises."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio

_CLIENT_HELLO: Final = b"\x01"
_RECORD: Final = 5  # bytes before the message in its TLS record
_TCP_INFO: Final = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None
_RTT_AT: Final = 68  # of tcpi_rtt (microseconds, smoothed) in Linux's struct tcp_info, which only ever grows at its end


def hello_size(message: bytes) -> int:
    """Bytes of a ClientHello message whose beginning this is; 0 when it is none. It may be longer than what is here."""
    return 4 + int.from_bytes(message[1:4], "big") if len(message) >= 4 and message[:1] == _CLIENT_HELLO else 0


def hello_size_tcp(first: bytes) -> int:
    """The same of a client's first bytes on TCP; 0 also for one that is cut into records before its length is known."""
    return hello_size(first[_RECORD:]) if int.from_bytes(first[3:5], "big") >= 4 else 0


def address_of(name: Any) -> tuple[str, int]:
    """Address without zone and port of a socket's name; `("", 0)` for a Unix socket."""
    return (name[0].partition("%")[0], name[1]) if isinstance(name, tuple) and len(name) >= 2 else ("", 0)


def tcp_address(transport: asyncio.Transport | None) -> tuple[str, int]:
    """Address and port that the client came to."""
    return address_of(transport.get_extra_info("sockname")) if transport is not None else ("", 0)


def tcp_rtt(transport: asyncio.Transport | None) -> float | None:
    """The smoothed round-trip time in seconds, as the kernel measures it; None where it does not say."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None or _TCP_INFO is None:
        return None
    try:
        info: bytes = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _RTT_AT + 4)
    except OSError:  # a Unix socket, or closed
        return None
    if len(info) < _RTT_AT + 4:
        return None
    return int.from_bytes(info[_RTT_AT:], sys.byteorder) / 1e6
