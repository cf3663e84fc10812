# Real sockets on loopback: batches both ways, fallbacks where the kernel refuses, order behind a full socket.
"""quic/udp.py."""

from __future__ import annotations

import errno
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from edgeproxy.observe.quic_stats import QuicStats
from edgeproxy.quic import udp
from edgeproxy.quic.udp import MAX_BACKLOG, MAX_SEGMENTS, UdpSocket

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's offloads")


def bound(host: str = "127.0.0.1") -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    sock.setblocking(False)
    if host == "0.0.0.0":
        sock.setsockopt(socket.IPPROTO_IP, 8, 1)
    if host == "::":
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    return sock


@pytest.fixture
def ends() -> Iterator[tuple[UdpSocket, UdpSocket]]:
    """Two sockets with counters of their own."""
    one, other = bound(), bound()
    yield UdpSocket(one, QuicStats()), UdpSocket(other, QuicStats())
    one.close()
    other.close()


def address_of(end: UdpSocket) -> tuple[str, int]:
    return end.sock.getsockname()[:2]


def collect(end: UdpSocket, count: int) -> list[bytes]:
    """Datagrams, in order, until there are as many."""
    got: list[bytes] = []
    deadline = time.monotonic() + 5
    while len(got) < count and time.monotonic() < deadline:
        got += [data for data, _, _ in end.receive()]
    return got


class Reluctant:
    """A socket that takes no more than it is allowed to."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.family = sock.family
        self.allowed = 0
        self.error: OSError = BlockingIOError(errno.EAGAIN, "full")
        self.calls: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def _take(self, count: int) -> None:
        if not self.allowed:
            raise self.error
        self.allowed -= 1
        self.calls.append(count)

    def sendto(self, data: bytes, address: Any) -> int:
        """As a socket's."""
        self._take(1)
        return self._sock.sendto(data, address)

    def sendmsg(self, buffers: list[bytes], ancillary: Any = (), flags: int = 0, address: Any = None) -> int:
        """As a socket's."""
        self._take(len(buffers))
        return self._sock.sendmsg(buffers, ancillary, flags, address)


def test_a_batch_there_and_back(ends: tuple[UdpSocket, UdpSocket]) -> None:
    one, other = ends
    datagrams = [bytes((index,)) * 1200 for index in range(100)] + [b"tail", b"larger than the tail", b"x" * 1300]
    one.send(datagrams, address_of(other), None)
    assert not one.blocked
    assert collect(other, len(datagrams)) == datagrams
    other.send([b"answer"], address_of(one), None)
    assert collect(one, 1) == [b"answer"]
    assert one._stats.datagrams_out == other._stats.datagrams_in == len(datagrams)
    assert one._stats.bytes_out == other._stats.bytes_in == sum(map(len, datagrams))


@LINUX
def test_few_calls_for_many_datagrams(ends: tuple[UdpSocket, UdpSocket]) -> None:
    one, other = ends
    if not other._gro:
        pytest.skip("no GRO in this kernel")
    one.send([b"x" * 1200] * (2 * MAX_SEGMENTS), address_of(other), None)
    assert collect(other, 2 * MAX_SEGMENTS) == [b"x" * 1200] * (2 * MAX_SEGMENTS)
    assert one._stats.writes == 2
    assert other._stats.reads < MAX_SEGMENTS


def test_runs_of_one_size_with_a_shorter_end(ends: tuple[UdpSocket, UdpSocket]) -> None:
    """What one write may hold: equal sizes, and one that is shorter as the last."""
    one, other = ends
    sizes = [100, 100, 50, 100, 200, 200, 200, 10, 10, 10, 9, 8, 300]
    datagrams = [bytes((index,)) * size for index, size in enumerate(sizes)]
    one.send(datagrams, address_of(other), None)
    assert collect(other, len(datagrams)) == datagrams


def test_without_any_offload(ends: tuple[UdpSocket, UdpSocket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp, "_LINUX", False)
    one, other = UdpSocket(ends[0].sock, QuicStats()), UdpSocket(bound(), QuicStats())
    assert not other._gro
    one.send([b"a" * 1200] * 20 + [b"b"], address_of(other), None)
    assert collect(other, 21) == [b"a" * 1200] * 20 + [b"b"]
    assert one._stats.writes == 21
    other.sock.close()


@pytest.mark.parametrize("code", [errno.EIO, errno.EINVAL, errno.EOPNOTSUPP])
def test_a_device_without_segmentation(ends: tuple[UdpSocket, UdpSocket], code: int) -> None:
    one, other = ends

    class Refusing(Reluctant):
        def sendmsg(self, buffers: list[bytes], ancillary: Any = (), flags: int = 0, address: Any = None) -> int:
            if any(kind == 103 for _, kind, _ in ancillary):
                raise OSError(code, "no")
            return super().sendmsg(buffers, ancillary, flags, address)

    sock = Refusing(one.sock)
    sock.allowed = 1000
    one.sock = sock  # type: ignore[assignment]  # as good as one
    one._segment = True
    one.send([b"a" * 1200] * 10, address_of(other), None)
    one.send([b"b" * 1200] * 3, address_of(other), None)
    assert collect(other, 13) == [b"a" * 1200] * 10 + [b"b" * 1200] * 3
    assert sock.calls == [1] * 13
    assert one._stats.drops == {}


def test_a_full_socket_keeps_the_order(ends: tuple[UdpSocket, UdpSocket]) -> None:
    one, other = ends
    sock = Reluctant(one.sock)
    one.sock = sock  # type: ignore[assignment]  # as good as one
    sock.allowed = 1
    address = address_of(other)
    datagrams = [b"%04d" % index + b"x" * (index % 3) for index in range(60)]
    one.send(datagrams[:30], address, None)
    assert one.blocked
    one.send(datagrams[30:31], address, None)
    one.send(datagrams[31:], address, None)
    for _ in range(100):
        if not one.blocked:
            break
        sock.allowed = 2
        one.flush()
    sock.allowed = 9
    one.send([b"last"], address, None)
    assert collect(other, 61) == [*datagrams, b"last"]
    assert one._stats.drops == {}


def test_the_backlog_is_bounded(ends: tuple[UdpSocket, UdpSocket]) -> None:
    one, other = ends
    sock = Reluctant(one.sock)
    one.sock = sock  # type: ignore[assignment]  # as good as one
    for _ in range(MAX_BACKLOG + 10):
        one.send([b"x"], address_of(other), None)
    assert len(one._backlog) <= MAX_BACKLOG
    assert one._stats.drops == {"send_backlog": 10}


@pytest.mark.parametrize("code", [errno.ENETUNREACH, errno.EPERM, errno.EMSGSIZE])
def test_what_can_not_be_sent_is_lost(ends: tuple[UdpSocket, UdpSocket], code: int) -> None:
    one, other = ends
    sock = Reluctant(one.sock)
    sock.error = OSError(code, "no")
    one.sock = sock  # type: ignore[assignment]  # as good as one
    one.send([b"x"], address_of(other), None)
    assert not one.blocked
    assert one._stats.drops == {f"send_{errno.errorcode[code].lower()}": 1}
    sock.allowed = 1
    one.send([b"y"], address_of(other), None)
    assert collect(other, 1) == [b"y"]


def test_empty_datagrams_are_left_out(ends: tuple[UdpSocket, UdpSocket]) -> None:
    one, other = ends
    for data in (b"", b"a", b"", b"", b"b"):
        one.sock.sendto(data, address_of(other))
    assert collect(other, 2) == [b"a", b"b"]


def test_errors_of_the_network_are_no_datagrams(ends: tuple[UdpSocket, UdpSocket]) -> None:
    one, other = ends
    gone = address_of(other)
    closed = bound()
    closed_at = closed.getsockname()
    closed.close()
    one.send([b"to nobody"], closed_at, None)
    time.sleep(0.01)
    assert one.receive() == []
    one.send([b"to somebody"], gone, None)
    assert collect(other, 1) == [b"to somebody"]


@LINUX
@pytest.mark.parametrize(("wildcard", "asked"), [("0.0.0.0", "127.0.0.2"), ("::", "::1"), ("::", "127.0.0.3")])
def test_answers_leave_from_where_they_were_asked(wildcard: str, asked: str) -> None:
    """RFC 9000 §9.6 forbids a server another address."""
    server = UdpSocket(bound(wildcard), QuicStats())
    client = UdpSocket(bound("::1" if ":" in asked else "127.0.0.1"), QuicStats())
    port = server.sock.getsockname()[1]
    client.send([b"question"] * 2, (asked, port), None)
    got: list[Any] = []
    deadline = time.monotonic() + 5
    while len(got) < 2 and time.monotonic() < deadline:
        got += server.receive()
    for data, address, local in got:
        assert data == b"question"
        assert len(address) == 2
        assert local is not None
        server.send([b"one", b"two"], address, local)
        server.send([b"three"], address, local)
    answers: list[Any] = []
    while len(answers) < 6 and time.monotonic() < deadline:
        answers += client.receive()
    assert sorted(data for data, _, _ in answers) == sorted([b"one", b"two", b"three"] * 2)
    assert {address for _, address, _ in answers} == {(asked, port)}
    server.sock.close()
    client.sock.close()


def test_one_address_needs_no_hint(ends: tuple[UdpSocket, UdpSocket]) -> None:
    one, other = ends
    one.send([b"x"], address_of(other), None)
    [(_, address, local)] = other.receive() or other.receive()
    assert (address, local) == (address_of(one), None)


def test_control_messages_of_no_use() -> None:
    assert udp._answer_from((socket.IPPROTO_IP, 1, b"abcd")) is None
    link_local = b"\xfe\x80" + bytes(14) + b"\1\0\0\0"
    assert udp._answer_from((socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, link_local)) == (
        socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, link_local,
    )  # fmt: skip
