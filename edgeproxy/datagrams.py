# UDP sockets of the slots, and the mailboxes in which workers pass datagrams on to each other: made before anything forks.
"""`bind()` for one address, `Seats` for the places of the workers. Errors are OSErrors; sockets.py says what to do about them.

All sockets of an address form one SO_REUSEPORT group: the kernel gives a client's packets to the same socket for as long
as the group does not change and the client does not move. The supervisor holds every socket open, so that a worker's
death does not move the clients of the others; its replacement reads what was queued meanwhile.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from typing import Any, Final

from edgeproxy.quic.ids import Seat

BUFFER: Final = 4 << 20  # bytes, each way; without CAP_NET_ADMIN the kernel cuts it to net.core.rmem_max and wmem_max
MAIL_BUFFER: Final = 1 << 20  # bytes; a full mailbox is packet loss, which QUIC repairs
MAX_SEATS: Final = 256  # a connection id has one byte for the slot
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h
_IP_PKTINFO, _IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE = 8, 10, 23, 3  # linux/in.h, linux/in6.h


def bind(family: int, where: tuple[Any, ...], count: int, *, both_families: bool) -> list[socket.socket]:
    """Non-blocking UDP sockets that share an address, with a port that is not 0. Raises OSError.

    Args:
        both_families: an IPv6 socket takes IPv4 too.
    """
    # As with TCP: SO_REUSEPORT would share the port with another edge of the same user in silence.
    _udp(family, where, both_families, reuse_port=False).close()
    made: list[socket.socket] = []
    try:
        for _ in range(count):
            made.append(_udp(family, where, both_families, reuse_port=True))
    except OSError:
        for sock in made:
            sock.close()
        raise
    return made


def _udp(family: int, where: tuple[Any, ...], both_families: bool, *, reuse_port: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _size_buffers(sock, BUFFER)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both_families else 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)  # of IPv4 packets, too
        if sys.platform.startswith("linux"):
            _linux_options(sock, family)
        sock.bind(where)
    except OSError:
        sock.close()
        raise
    return sock


def _linux_options(sock: socket.socket, family: int) -> None:
    # A socket on all interfaces answers from the address it was asked at: the packet says which.
    if family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    # RFC 9000 §14: never fragmented. Nor does an ICMP message, which anybody can forge, make packets fail to be sent.
    sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)


def _size_buffers(sock: socket.socket, size: int) -> None:
    """As much of `size` as this process is allowed."""
    for plain, force in ((socket.SO_RCVBUF, _SO_RCVBUFFORCE), (socket.SO_SNDBUF, _SO_SNDBUFFORCE)):
        with suppress(OSError):  # some systems refuse what is over their limit instead of cutting it
            sock.setsockopt(socket.SOL_SOCKET, plain, size)
        if sys.platform.startswith("linux"):
            with suppress(OSError):  # needs CAP_NET_ADMIN
                sock.setsockopt(socket.SOL_SOCKET, force, size)


class Seats:
    """The places of all workers: what the supervisor keeps for them while they come and go.

    Attributes:
        inboxes, outboxes: the receiving and the sending end of each slot's mailbox; empty for a single worker.
    """

    __slots__ = ("_secret", "_starts", "inboxes", "outboxes")

    def __init__(self, count: int) -> None:
        self._secret = os.urandom(32)
        self._starts = [0] * count
        self.inboxes: list[socket.socket] = []
        self.outboxes: list[socket.socket] = []
        for _ in range(count if count > 1 else 0):
            # The two ends of a pair: between those the kernel bounds a queue by its bytes, and not to a few datagrams
            # (net.unix.max_dgram_qlen).
            inbox, outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            for end in (inbox, outbox):
                end.setblocking(False)
                _size_buffers(end, MAIL_BUFFER)
            self.inboxes.append(inbox)
            self.outboxes.append(outbox)

    def next(self, slot: int) -> Seat:
        """The seat of a worker that is about to be started: each start of a slot is a generation of its own."""
        generation = self._starts[slot] & 0xFF
        self._starts[slot] += 1
        inbox = self.inboxes[slot] if self.inboxes else None
        return Seat(slot, generation, self._secret, inbox, self.outboxes)

    def keep(self, slot: int | None) -> None:
        """In a child: closes what is not for this slot; for None everything."""
        for index, inbox in enumerate(self.inboxes):
            if index != slot:
                inbox.close()
        if slot is None:
            for outbox in self.outboxes:
                outbox.close()

    def close(self) -> None:
        """Closes this process's copies."""
        self.keep(None)
