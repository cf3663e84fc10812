# Datagrams in batches: as few system calls as the kernel allows. Nothing here knows what is in a datagram.
"""`UdpSocket`: a bound, non-blocking UDP socket with receive and segmentation offload where there is such a thing.

Linux gathers datagrams of one sender that come in a row into one read (UDP_GRO) and cuts one write into datagrams of equal
size (UDP_SEGMENT). Where the kernel refuses, each datagram has its own call. What the socket does not take (EAGAIN) waits here,
in order, until it is writable again.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeproxy.observe.quic_stats import QuicStats

Address = tuple[str, int]
Local = tuple[int, int, bytes] | None
"""The control message that makes an answer leave from the address that was asked (RFC 9000 §9.6 forbids another); None when
the socket is bound to one address."""

READS = 16  # system calls for reading in one wake-up
MAX_SEGMENTS = 44  # 44 · 1452 bytes fit into the 64 KiB of one write
MAX_BACKLOG = 4096  # datagrams that wait for the socket; more are dropped, as the network would

_SOL_UDP = 17
_UDP_SEGMENT = 103
_UDP_GRO = 104
_IP_PKTINFO = getattr(socket, "IP_PKTINFO", 8)
_IP_MTU_DISCOVER, _PMTUDISC_PROBE = 10, 3
_IPV6_MTU_DISCOVER = 23
_LINUX = sys.platform == "linux"
_NO_OFFLOAD = {errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP}

_buffer = bytearray(65536)
_view = memoryview(_buffer)


class UdpSocket:
    """See the module.

    Attributes:
        sock: the socket.
        blocked: datagrams wait for the socket.
    """

    __slots__ = ("_ancillary", "_backlog", "_gro", "_segment", "_stats", "_waiting", "_wildcard", "sock")

    def __init__(self, sock: socket.socket, stats: QuicStats) -> None:
        self.sock = sock
        self._stats = stats
        self._backlog: deque[tuple[list[bytes], Address, Local]] = deque()
        self._wildcard = sock.getsockname()[0] in {"0.0.0.0", "::"}
        self._gro = _LINUX and _try(sock, _SOL_UDP, _UDP_GRO, 1)
        self._segment = _LINUX
        self._waiting = 0  # datagrams in the backlog
        self._ancillary = 0
        if self._gro:
            self._ancillary += socket.CMSG_SPACE(4)
        if self._wildcard:
            self._ancillary += socket.CMSG_SPACE(20)
        if _LINUX:
            # Datagrams must not be fragmented: ours are of a size that was proven (RFC 9000 §14).
            if sock.family == socket.AF_INET6:
                _try(sock, socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
            _try(sock, socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)

    def receive(self) -> list[tuple[bytes, Address, Local]]:
        """What has arrived, at most some READS · 64 datagrams. The socket polls as readable while there is more."""
        got: list[tuple[bytes, Address, Local]] = []
        receive, stats = self.sock.recvmsg_into, self._stats
        for _ in range(READS):
            try:
                size, ancillary, _, address = receive((_view,), self._ancillary)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                continue  # an ICMP error of an earlier datagram: nothing to read with it
            stats.reads += 1
            if not size:
                continue  # an empty datagram holds no packet
            stats.bytes_in += size
            segment, local = size, None
            for message in ancillary:
                if message[0] == _SOL_UDP and message[1] == _UDP_GRO:
                    segment = int.from_bytes(message[2][:4], sys.byteorder)
                elif self._wildcard:
                    local = _answer_from(message)
            if len(address) > 2:
                address = (address[0], address[1])
            if size <= segment:
                stats.datagrams_in += 1
                got.append((bytes(_view[:size]), address, local))
            else:
                stats.datagrams_in += (size + segment - 1) // segment
                got += [(bytes(_view[at : min(at + segment, size)]), address, local) for at in range(0, size, segment)]
        return got

    def send(self, datagrams: list[bytes], address: Address, local: Local) -> None:
        """Send datagrams to one address, in order. Never blocks; see `blocked`."""
        if self._backlog:
            if self._waiting < MAX_BACKLOG:
                self._backlog.append((datagrams, address, local))
                self._waiting += len(datagrams)
            else:
                self._stats.drop("send_backlog", len(datagrams))
            return
        rest = self._send(datagrams, address, local)
        if rest:
            self._backlog.append((rest, address, local))
            self._waiting += len(rest)

    def name(self, local: Local) -> Address:
        """Address and port that a datagram came to whose answer leaves from `local`; `("", 0)` when the socket is closed."""
        try:
            host, port = self.sock.getsockname()[:2]
        except OSError:
            return "", 0
        if local is not None:
            v4 = local[0] == socket.IPPROTO_IP
            host = socket.inet_ntop(socket.AF_INET, local[2][4:8]) if v4 else socket.inet_ntop(socket.AF_INET6, local[2][:16])
        return host, port

    @property
    def blocked(self) -> bool:
        """Datagrams wait: call `flush` when the socket is writable."""
        return bool(self._backlog)

    def flush(self) -> None:
        """The socket is writable again."""
        backlog = self._backlog
        while backlog:
            datagrams, address, local = backlog.popleft()
            rest = self._send(datagrams, address, local)
            self._waiting -= len(datagrams) - len(rest)
            if rest:
                backlog.appendleft((rest, address, local))
                return

    def _send(self, datagrams: list[bytes], address: Address, local: Local) -> list[bytes]:
        """Returns: what the socket does not take now."""
        at, count = 0, len(datagrams)
        while at < count:
            size = len(datagrams[at])
            end = at + 1
            if self._segment:
                # Equal sizes in a row, and a shorter one as the last.
                most = min(count, at + MAX_SEGMENTS)
                while end < most and len(datagrams[end]) == size:
                    end += 1
                if end < most and len(datagrams[end]) < size:
                    end += 1
            try:
                self._write(datagrams[at:end], size, address, local)
            except (BlockingIOError, InterruptedError):
                return datagrams[at:]
            except OSError as error:
                if end - at > 1 and error.errno in _NO_OFFLOAD:
                    self._segment = False  # this kernel or this device can't: one by one from now on
                    continue
                # No route, a firewall's verdict, too large for the path: gone, as if the network had lost them.
                self._stats.drop("send_" + errno.errorcode.get(error.errno or 0, "error").lower(), end - at)
            at = end
        return []

    def _write(self, datagrams: list[bytes], size: int, address: Address, local: Local) -> None:
        stats = self._stats
        stats.writes += 1
        if len(datagrams) == 1:
            if local is None:
                sent = self.sock.sendto(datagrams[0], address)
            else:
                sent = self.sock.sendmsg(datagrams, (local,), 0, address)
        else:
            segment = (_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", size))
            sent = self.sock.sendmsg(datagrams, (segment,) if local is None else (segment, local), 0, address)
        stats.datagrams_out += len(datagrams)
        stats.bytes_out += sent


def _answer_from(message: tuple[int, int, bytes]) -> Local:
    """From IP_PKTINFO of a received datagram to that of its answer."""
    level, kind, data = message
    if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
        # in_pktinfo: interface, local address, destination address. The kernel chooses the interface.
        return level, kind, bytes(4) + data[8:12] + bytes(4)
    if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
        link_local = data[:2] == b"\xfe\x80"
        return level, kind, data if link_local else data[:16] + bytes(4)
    return None


def _try(sock: socket.socket, level: int, option: int, value: Any) -> bool:
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True
