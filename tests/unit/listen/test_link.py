# Lengths of ClientHellos from their first bytes, names of sockets, and round-trip times that nobody knows.
"""listen/link.py; real connections are in tests/contract/test_connection_fields.py."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.listen.link import address_of, hello_size, hello_size_tcp, tcp_address, tcp_rtt
from edgeproxy.quic.udp import UdpSocket

IP_PKTINFO = 8  # Python 3.11 has no name for it


def transport(**info: Any) -> Any:
    return SimpleNamespace(get_extra_info=info.get)


@pytest.mark.parametrize(("first", "size"), [
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 512), (b"\x16\x03\x01\x00\x04\x01\x00\x00\x00", 4),
    (b"\x16\x03\x01\x00\x03\x01\x00\x00\x16\x03", 0), (b"\x16\x03\x01\x02\x00\x02\x00\x01\xfc", 0),
    (b"\x16\x03\x01\x02\x00\x01\x00", 0),
    (b"GET / HTTP/1.1", 0), (b"", 0),
])  # fmt: skip
def test_hellos(first: bytes, size: int) -> None:
    assert hello_size_tcp(first) == size


@given(st.binary(max_size=20))
def test_any_bytes_have_a_size(first: bytes) -> None:
    assert hello_size(first) >= 0
    assert hello_size_tcp(first) >= 0


def test_names() -> None:
    assert address_of(("fe80::1%eth0", 443, 0, 2)) == ("fe80::1", 443)
    assert address_of("/run/x") == address_of(b"") == address_of(None) == ("", 0)
    assert tcp_address(None) == ("", 0)
    assert tcp_address(transport(sockname=("192.0.2.1", 8443))) == ("192.0.2.1", 8443)


def test_round_trips_that_nobody_knows() -> None:
    assert tcp_rtt(None) is None
    assert tcp_rtt(transport()) is None
    one, other = socket.socketpair()
    with one, other:
        assert tcp_rtt(transport(socket=one)) is None, "a Unix socket"
    assert tcp_rtt(transport(socket=one)) is None, "closed"
    assert tcp_rtt(transport(socket=SimpleNamespace(getsockopt=lambda *_: bytes(20)))) is None, "an old kernel"


def test_the_name_that_an_answer_has() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        udp = UdpSocket(sock, None)  # type: ignore[arg-type]  # nothing is counted
        port = sock.getsockname()[1]
        assert udp.name(None) == ("127.0.0.1", port)
        packed = bytes(4) + socket.inet_aton("192.0.2.7") + bytes(4)
        assert udp.name((socket.IPPROTO_IP, IP_PKTINFO, packed)) == ("192.0.2.7", port)
        packed = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + bytes(4)
        assert udp.name((socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, packed)) == ("2001:db8::7", port)
    assert udp.name(None) == ("", 0)
