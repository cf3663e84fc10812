# Addresses: sockets on all interfaces answer from the one they were asked at, and IPv6 is as good as IPv4.
"""RFC 9000 §9.6: a client drops what comes from another address, as a connected socket does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.edge import configuration, prepared
from support.h3 import RawH3, data, headers
from support.heads import GET, POST, but
from support.lossy import Lossy
from support.upstream import Upstream, echo, running_upstream
from support.waiting import until

from edgeproxy import datagrams
from edgeproxy.dataplane import DataPlane
from edgeproxy.observe.metrics import WorkerStats
from edgeproxy.quic.ids import Seat


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


IPV6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
CONTENT = bytes(range(256)) * 800


@pytest.fixture
def bound() -> Iterator[Any]:
    """Binds a UDP socket as the supervisor does."""
    made: list[socket.socket] = []

    def bind(host: str, *, both: bool = False) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as free:
            free.bind((host, 0))
            port = free.getsockname()[1]
        made.extend(datagrams.bind(family, (host, port), 1, both_families=both))
        return made[-1]

    yield bind
    for sock in made:
        sock.close()


@asynccontextmanager
async def serving(sock: socket.socket, upstream: Upstream) -> AsyncIterator[DataPlane]:
    """A data plane on one UDP socket alone."""
    plane = DataPlane(asyncio.get_running_loop(), WorkerStats(), None)
    plane.switch(prepared(configuration(upstream.port)))
    plane.listen_quic([sock], Seat.single())
    try:
        yield plane
    finally:
        plane.abort()
        await until(lambda: plane.connections == 0)
        for pool in plane._gateway.pools.values():
            pool.close()


async def exchange(client: RawH3, content: bytes = CONTENT) -> None:
    """Something larger than what goes out in one write."""
    number = client.request(headers(POST), data(content))
    reply = await client.over(number)
    assert (reply.status, bytes(reply.body)) == (200, content), client.reason


CASES = [
    ("0.0.0.0", False, "127.0.0.1"), ("0.0.0.0", False, "127.0.0.2"), ("0.0.0.0", False, "127.9.8.7"),
    pytest.param("::", False, "::1", marks=IPV6), pytest.param("::", True, "::1", marks=IPV6),
    pytest.param("::", True, "127.0.0.2", marks=IPV6), pytest.param("::1", False, "::1", marks=IPV6),
    ("127.0.0.3", False, "127.0.0.3"),
]  # fmt: skip


@pytest.mark.parametrize(("host", "both", "asked"), CASES)
async def test_the_answer_comes_from_the_address_that_was_asked(bound: Any, host: str, both: bool, asked: str) -> None:
    async with running_upstream(echo) as upstream:
        sock = bound(host, both=both)
        async with serving(sock, upstream) as plane:
            seen = "::1" if asked == "::1" else "127.0.0.1"
            async with RawH3(sock.getsockname()[1], host=asked) as client:
                client.start()
                await exchange(client)
                # Another port: what proves the new path has to come from the same address, too.
                client.rebind()
                await exchange(client)
                await client.fine(GET)
                (session,) = plane._quic.open  # type: ignore[union-attr]
                assert session.app is not None
                assert session.app.peer.address in {seen, asked}
                assert session.state.paths.moves == 1  # type: ignore[union-attr]
            await until(lambda: plane.connections == 0)
            assert all(b"for: ::ffff" not in request.head.lower() for request in upstream.requests)


@pytest.mark.parametrize(("host", "both", "asked"), CASES)
async def test_who_is_turned_away_hears_it_from_the_address_that_was_asked(bound: Any, host: str, both: bool, asked: str) -> None:
    async with running_upstream() as upstream:
        sock = bound(host, both=both)
        async with serving(sock, upstream) as plane:
            plane._quic.stop_accepting()  # type: ignore[union-attr]
            client = RawH3(sock.getsockname()[1], host=asked)
            with pytest.raises(ConnectionRefusedError):
                await client.connect()
            assert client.code == 2  # CONNECTION_REFUSED


async def test_a_probe_of_another_path_is_answered_from_the_address_it_asked(bound: Any) -> None:
    """RFC 9000 §8.2.2: the client looks at a path before it moves; the edge's own is not the kernel's choice."""
    async with running_upstream() as upstream:
        sock = bound("0.0.0.0")
        async with serving(sock, upstream), RawH3(sock.getsockname()[1], host="127.0.0.2") as client:
            client.start()
            await client.fine(GET)
            other = client._bind()
            client.loop.remove_reader(other.fileno())
            heard = asyncio.get_running_loop().create_future()
            client.loop.add_reader(other.fileno(), lambda: heard.done() or heard.set_result(other.recv(65536)))
            other.send(client.quic.packet(b"\x1a" + b"question" + bytes(1150)))
            plain = client.quic.opened(await asyncio.wait_for(heard, 2))
            client.loop.remove_reader(other.fileno())
            other.close()
            assert plain is not None
            assert b"\x1bquestion" in plain
            await client.fine(GET)


async def test_a_client_that_comes_over_another_address_of_the_edge(bound: Any) -> None:
    """Behind a balancer that changes its mind: answers follow the packets."""
    async with running_upstream() as upstream:
        sock = bound("0.0.0.0")
        async with serving(sock, upstream):
            network = Lossy(sock.getsockname()[1])
            try:
                async with RawH3(network.port) as client:
                    client.start()
                    await client.fine(GET)
                    network.target = ("127.0.0.5", network.target[1])
                    network.rebind()
                    await client.fine(but(GET, path=b"/again"))
            finally:
                network.close()
