# HTTP/3 over a network as it is: datagrams that are lost, swapped, doubled and late, and a client whose port moves.
from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.lossy import Lossy, lossy
from support.upstream import Connection, Handler, echo
from support.waiting import until

from .h3_wire import H3Wire
from .stand import STREAM, Stand, chunk, stand

SIZE = 400_000
CONTENT = random.Random(3).randbytes(SIZE)  # what is doubled, swapped or missing does not hash to the same


def digest(content: bytes | bytearray) -> str:
    return hashlib.sha256(content).hexdigest()


@asynccontextmanager
async def networked(handler: Handler, **settings: float) -> AsyncIterator[tuple[Stand, Lossy, H3Wire]]:
    """A client whose network is as `settings` say; at the end it works well, so that the edge hears of the client's leaving."""
    async with stand("h3", handler) as s, lossy(s.edge.https_port, **settings) as network:
        wire = await H3Wire.open(network.port)
        s.wires.append(wire)
        yield s, network, wire
        network.perfect()
        await s.leave()
        await until(lambda: s.edge.data_plane.connections == 0)


BAD_NETWORKS = {
    "loss": {"loss": 0.1},
    "swapped": {"reorder": 0.2},
    "doubled": {"duplicate": 0.3},
    "everything": {"loss": 0.05, "reorder": 0.05, "duplicate": 0.05, "delay": 0.005},
}


@pytest.mark.parametrize("name", BAD_NETWORKS)
async def test_transfers_are_byte_identical(name: str) -> None:
    """Handshake, upload and download at the same time."""
    async with networked(echo, **BAD_NETWORKS[name]) as (s, network, wire):
        call = wire.call("POST", "/", (), CONTENT)
        assert await call.reply(30) == 200
        assert digest(call.body) == digest(CONTENT)
        network.perfect()
        await s.leave()
        if "loss" in BAD_NETWORKS[name]:
            assert network.up.lost and network.down.lost
            await until(lambda: s.edge.stats.quic.packets_lost)  # counted at the end of a connection


async def test_many_small_requests_under_loss() -> None:
    async with networked(echo, seed=5, loss=0.1) as (_, _, wire):
        calls = [wire.call("POST", f"/{number}", (), b"%d" % number) for number in range(60)]
        for number, call in enumerate(calls):
            assert await call.reply(20) == 200
            assert call.body == b"%d" % number


async def test_a_stream_under_loss_is_whole_and_in_order() -> None:
    events = [b"data: %d\n\n" % number for number in range(200)]

    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(STREAM)
        for event in events:
            connection.write(chunk(event))
            await asyncio.sleep(0)
        connection.write(b"0\r\n\r\n")
        await connection.gone()

    async with networked(handler, seed=7, loss=0.1) as (_, _, wire):
        call = wire.call()
        assert await call.reply(20) == 200
        assert call.body == b"".join(events)


async def test_a_line_that_goes_dead_for_a_while() -> None:
    """Nothing comes through for some probe timeouts; then everything goes on."""
    async with networked(echo) as (_, network, wire):
        await wire.get()
        lost = 0

        def dead(_: bytes) -> bool:
            nonlocal lost
            lost += 1
            return False

        network.pass_up = dead
        call = wire.call("POST", "/", (), CONTENT[:100_000])
        await until(lambda: lost > 15, 10)
        network.pass_up = lambda _: True
        assert await call.reply(20) == 200
        assert digest(call.body) == digest(CONTENT[:100_000])


# -- what is counted ---------------------------------------------------------------------------------------------


async def test_a_connection_that_lives_is_counted_while_it_does() -> None:
    """Losses, probes, moves and the round trip: whenever its idle time would be over if it were idle, and at its end."""

    async def handler(connection: Connection) -> None:
        received = await connection.request()
        connection.write(STREAM + chunk(bytes(300_000)))
        assert b"GET" in received.line
        await connection.gone()

    async with networked(handler, loss=0.1) as (s, network, wire):
        stats = s.edge.stats.quic
        call = wire.call()
        await call.received(300_000, 20)
        network.perfect()
        network.rebind()
        await wire.client.ping()
        (quic,) = s._quic
        recovery = quic.recovery
        assert (stats.packets_lost, stats.migrations, stats.rtt_count) == (0, 0, 0)
        s.edge.after(61)
        assert (stats.packets_lost, stats.probes, stats.migrations) == (recovery.lost, recovery.probed, 1)
        assert stats.packets_lost
        assert stats.rtt_count == sum(stats.rtt_buckets) == 1
        s.edge.after(61)
        assert (stats.migrations, stats.rtt_count) == (1, 1), "not before the next interval is over"
        network.rebind()
        await wire.client.ping()
        s.edge.after(122)
        assert (stats.packets_lost, stats.migrations, stats.rtt_count) == (recovery.lost, 2, 2)
        await s.leave()
        await until(lambda: s.edge.data_plane.connections == 0)
        assert (stats.packets_lost, stats.probes, stats.migrations) == (recovery.lost, recovery.probed, 2)


# -- a port that moves -------------------------------------------------------------------------------------------


async def test_a_moved_port_keeps_its_connection() -> None:
    """NAT rebinding (RFC 9000 §9): the client does not know of it."""
    async with networked(echo) as (s, network, wire):
        for _ in range(4):
            call = wire.call("POST", "/", (), CONTENT[:50_000])
            assert await call.reply() == 200
            network.rebind()
        assert (await wire.get()).status == 200
        assert len({leg.port for leg in network.legs}) == 5
        assert s.edge.stats.connections_total[2] == 1
        await s.leave()
        await until(lambda: s.edge.stats.quic.migrations == 4)  # counted at the end of a connection


async def test_a_port_that_moves_in_the_middle_of_transfers() -> None:
    size = 8 * SIZE

    async def handler(connection: Connection) -> None:
        received = await connection.request()
        content = CONTENT * 8 if received.line.startswith(b"GET") else received.body
        connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(content) + content)
        await connection.gone()

    async with networked(handler, delay=0.002) as (_, network, wire):
        down, up = wire.call(), wire.call("POST", "/", (), CONTENT)
        for at in (size // 8, size // 3, size // 2):
            await down.received(at, 20)
            network.rebind()
        assert await down.reply(20) == await up.reply(20) == 200
        assert digest(down.body) == digest(CONTENT * 8)
        assert digest(up.body) == digest(CONTENT)


async def test_an_address_that_does_not_answer_gets_three_times_what_came_from_it() -> None:
    """Somebody sends a copy of one of our packets from the victim's address: the victim must not be flooded."""

    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(STREAM)
        while not connection.closed:
            if connection.transport.get_write_buffer_size() < 64 * 1024:
                connection.write(chunk(bytes(16384)))
            await asyncio.sleep(0)

    async with networked(handler, delay=0.001) as (_, network, wire):
        call = wire.call()
        await call.received(500_000)
        let = 3

        def few(_: bytes) -> bool:
            nonlocal let
            let -= 1
            return let >= 0

        network.rebind()
        network.pass_up, network.pass_down = few, lambda _: False
        await until(lambda: network.legs[-1].from_edge > 0)
        await asyncio.sleep(1)  # what must not happen would happen now
        leg = network.legs[-1]
        assert leg.from_edge <= 3 * leg.to_edge
        network.perfect()
        await wire.client.ping(10)  # the edge has gone back to the address it knew: it must hear of the new one again
        had = len(call.body)
        await call.received(had + 500_000, 10)


async def test_a_probe_from_another_address_moves_nothing() -> None:
    """RFC 9000 §9.1: a PATH_CHALLENGE alone is a question, not a migration."""
    async with networked(echo) as (s, _, wire):
        await wire.get()
        probe = wire.quic.packet(b"\x1a" + b"question" + bytes(1150))
        other = wire.client._bind()
        wire.client.loop.remove_reader(other.fileno())
        other.connect(("127.0.0.1", s.edge.https_port))
        other.send(probe)
        await until(lambda: readable(other))
        other.close()
        assert (await wire.get()).status == 200
        await s.leave()
        await until(lambda: s.edge.data_plane.connections == 0)
        assert s.edge.stats.quic.migrations == 0


def readable(sock: object) -> bool:
    import select

    return bool(select.select([sock], [], [], 0)[0])
