# Nothing of ours stays behind over HTTP/3 either. Fewer rounds than in test_leaks.py: the client is written in Python, too.
"""Census of our own objects over QUIC connections and exchanges on one, with the garbage collector off."""

from __future__ import annotations

from collections import Counter

import pytest
from contract.stand import stand
from support.census import census, collector_off, grown
from support.upstream import OK, Connection
from support.waiting import until

CONNECTIONS = 60
EXCHANGES = 1500
WARM = 20


def ours(before: Counter[str], after: Counter[str]) -> dict[str, int]:
    """What has grown of the edge's. The client's own objects are cycles."""
    return {name: more for name, more in grown(before, after).items() if name.startswith("edgeproxy")}


async def handler(connection: Connection) -> None:
    while True:
        await connection.request()
        connection.write(OK)


@pytest.mark.timeout(120)
async def test_connections() -> None:
    """Opened, used once and closed; every third one has never asked."""
    async with stand("h3", handler) as s:
        quic = s.edge.data_plane._quic
        assert quic is not None

        async def once(number: int) -> None:
            wire = await s.dial()
            if number % 3:
                await wire.get()
            await wire.leave()
            s.wires.remove(wire)

        for number in range(WARM):
            await once(number)
        await until(lambda: not quic.sessions)
        async with collector_off():
            before = census()
            for number in range(CONNECTIONS):
                await once(number)
            await until(lambda: not quic.sessions)
            assert ours(before, census()) == {}
        assert (quic.stats.half_open, quic.stats.connections_open, quic.bodies) == (0, 0, 0)


@pytest.mark.timeout(120)
async def test_exchanges() -> None:
    async with stand("h3", handler) as s:
        wire = await s.dial()

        async def ask(number: int) -> None:
            call = wire.call("POST", f"/{number % 7}", (), b"x" * (number % 3000)) if number % 2 else wire.call()
            assert await call.reply() == 200
            wire.calls.clear()

        for number in range(WARM):
            await ask(number)
        async with collector_off():
            before = census()
            for number in range(EXCHANGES):
                await ask(number)
            assert ours(before, census()) == {}
        assert s.edge.stats.streams_open == 0
