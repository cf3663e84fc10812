# UDP sockets and mailboxes: options, sharing, and what stays open in which process.
from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from edgeproxy import datagrams
from edgeproxy.datagrams import Seats, bind


@pytest.fixture
def port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
        return found


def test_sockets_of_an_address_share_it_and_never_block(port: int) -> None:
    made = bind(socket.AF_INET, ("127.0.0.1", port), 3, both_families=False)
    try:
        assert {sock.getsockname() for sock in made} == {("127.0.0.1", port)}
        assert not any(sock.getblocking() or sock.get_inheritable() for sock in made)
        assert all(sock.getsockopt(socket.IPPROTO_IP, datagrams._IP_PKTINFO) for sock in made)
        assert all(sock.getsockopt(socket.IPPROTO_IP, datagrams._IP_MTU_DISCOVER) == 3 for sock in made)
        default = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with default:
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                before = default.getsockopt(socket.SOL_SOCKET, option)
                assert made[0].getsockopt(socket.SOL_SOCKET, option) >= min(before, 2 * datagrams.BUFFER)
        # Another edge, which would set SO_REUSEPORT too, is told instead of getting half of the clients.
        with pytest.raises(OSError, match="in use"):
            bind(socket.AF_INET, ("127.0.0.1", port), 1, both_families=False)
    finally:
        for sock in made:
            sock.close()
    bind(socket.AF_INET, ("127.0.0.1", port), 1, both_families=False)[0].close()  # nothing was left


@pytest.mark.parametrize(("where", "both", "client"), [
    ("0.0.0.0", False, "127.0.0.1"), ("0.0.0.0", False, "127.0.0.2"), ("::", True, "127.0.0.2"), ("::", True, "::1"),
])  # fmt: skip
def test_a_socket_on_all_interfaces_is_told_where_it_was_asked(port: int, where: str, both: bool, client: str) -> None:
    family = socket.AF_INET6 if ":" in where else socket.AF_INET
    try:
        (sock,) = bind(family, (where, port), 1, both_families=both)
    except OSError as e:
        if family == socket.AF_INET6 and e.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
            pytest.skip("no IPv6 here")
        raise
    sock.settimeout(5)
    with sock, socket.socket(socket.AF_INET6 if ":" in client else socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.sendto(b"x", (client, port))
        data, marks, _, _ = sock.recvmsg(10, 200)
        assert data == b"x"
        (content,) = [content for level, kind, content in marks if (level, kind) in {(0, 8), (41, 50)}]
        asked = content[8:12] if family == socket.AF_INET else content[:16]
        wanted = client if ":" in client or family == socket.AF_INET else f"::ffff:{client}"
        assert asked == socket.inet_pton(family, wanted)


@pytest.fixture
def seats() -> Iterator[Seats]:
    made = Seats(3)
    yield made
    made.close()


def test_each_start_of_a_slot_is_a_generation_of_its_own(seats: Seats) -> None:
    assert [seats.next(1).generation for _ in range(258)][-3:] == [255, 0, 1]
    first, second = seats.next(0), seats.next(2)
    assert (first.index, first.generation, second.index, second.generation) == (0, 0, 2, 0)
    assert first.secret == second.secret == seats.next(1).secret
    assert len(first.secret) == 32
    assert Seats(1).next(0).secret != first.secret


def test_mail_reaches_the_slot_it_is_for(seats: Seats) -> None:
    for slot in range(3):
        seats.next((slot + 1) % 3).outboxes[slot].send(b"for %d" % slot)
    for slot in range(3):
        inbox = seats.next(slot).inbox
        assert inbox is not None
        assert inbox.recv(10) == b"for %d" % slot
        with pytest.raises(BlockingIOError):
            inbox.recv(10)


def test_a_mailbox_holds_bursts_and_then_refuses_instead_of_blocking(seats: Seats) -> None:
    sent = 0
    with suppress(BlockingIOError):
        while sent < 100_000:
            seats.outboxes[0].send(bytes(1350))
            sent += 1
    assert 64 <= sent < 100_000
    inbox = seats.inboxes[0]
    assert [len(inbox.recv(2000)) for _ in range(sent)] == [1350] * sent


def test_a_child_keeps_its_inbox_and_all_ways_out(seats: Seats) -> None:
    seats.keep(1)
    assert [inbox.fileno() >= 0 for inbox in seats.inboxes] == [False, True, False]
    assert all(outbox.fileno() >= 0 for outbox in seats.outboxes)
    seats.keep(None)
    assert not [end for end in (*seats.inboxes, *seats.outboxes) if end.fileno() >= 0]


def test_a_single_worker_has_no_mailbox() -> None:
    seat = Seats(1).next(0)
    assert (seat.inbox, seat.outboxes) == (None, [])
