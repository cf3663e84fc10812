# Nothing of ours stays behind over HTTP/3 either. Fewer rounds than in test_leaks.py: the client is written in Python, too.
"""Census of our own objects over QUIC connections and exchanges on one, with the garbage collector off."""

from __future__ import annotations

import pytest
from contract.stand import stand
from support.upstream import OK, Connection
from support.waiting import until

from .test_leaks import census, collector_off, grown

CONNECTIONS = 60
EXCHANGES = 1500
WARM = 20


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
            s.log.lines.clear()
            s.upstream.requests.clear()
            assert grown(before, census()) == {}
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
            s.log.lines.clear()
            s.upstream.requests.clear()
            assert grown(before, census()) == {}
        assert s.edge.stats.streams_open == 0
