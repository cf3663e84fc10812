# What a wait for a connection costs an exchange: `timeouts.total` runs from the request, not from the connection.
from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest
from support.upstream import OK, Connection
from support.waiting import until

from .stand import STREAM, Stand, chunk, stand, upstream_settings


def full(**timeouts: str) -> dict[str, Any]:
    """One connection for everybody."""
    return upstream_settings(max_connections=1, timeouts=timeouts)


async def silent(connection: Connection) -> None:
    await connection.request()
    await connection.gone()


def later(s: Stand, seconds: float) -> None:
    """Requests that have begun are `seconds` older from now on."""
    s.edge.data_plane._gateway.time = lambda: time.monotonic() + seconds


async def test_total_ends_the_wait_for_a_connection(protocol: str) -> None:
    async with stand(protocol, silent, upstreams=full(connect="100s", total="10s")) as s:
        (await s.dial()).call()
        await until(lambda: s.upstream.requests)
        call = (await s.dial()).call()
        await until(lambda: s.target().pending == 1)
        s.edge.after(9)
        assert not call.over
        s.edge.after(11)
        assert await call.reply() == 504
        # The first one, too: it has waited as long.
        await until(lambda: len(s.log.lines) == 2)
        assert [record["outcome"] for record in s.records] == ["upstream: total_timeout"] * 2
        assert s.target().timeouts == {"total": 2}
        assert s.target().pending == 0


async def test_who_waits_behind_somebody_with_more_time_is_not_late(protocol: str) -> None:
    async with stand(protocol, silent, upstreams=full(connect="100s", total="20s")) as s:
        (await s.dial()).call()
        await until(lambda: s.upstream.requests)
        young = (await s.dial()).call()
        await until(lambda: s.target().pending == 1)
        old = (await s.dial()).call()
        await until(lambda: s.target().pending == 2)
        pool = s.edge.data_plane._gateway.pools["main"]
        pool.pending[1].due -= 10  # as after ten seconds of an upload that was looked into
        pool.deadline = pool.pending[1].due
        s.edge.after(11)
        assert await old.reply() == 504
        assert not young.over


@pytest.mark.parametrize("begun", [False, True])
async def test_total_counts_the_wait_when_the_connection_came(protocol: str, begun: bool) -> None:
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        await gate.wait()
        connection.write(OK)
        await connection.request()
        if begun:
            connection.write(STREAM + chunk(b"data: 1\n\n"))
        await connection.gone()

    async with stand(protocol, handler, upstreams=full(connect="100s", total="10s")) as s:
        first = (await s.dial()).call()
        await until(lambda: s.upstream.requests)
        call = (await s.dial()).call()
        await until(lambda: s.target().pending == 1)
        later(s, 6)
        gate.set()
        assert await first.reply() == 200
        await until(lambda: len(s.upstream.requests) == 2)
        if begun:
            await call.received(9)
        s.edge.after(3)
        assert not call.over
        s.edge.after(5)
        await until(lambda: call.over)
        await until(lambda: len(s.log.lines) == 2)
        assert s.records[1]["outcome"] == "upstream: total_timeout"


async def test_total_ends_a_connect(protocol: str) -> None:
    """A TLS handshake that never ends; `connect` alone would wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        targets = [{"url": f"https://127.0.0.1:{mute.getsockname()[1]}"}] * 1
        settings = upstream_settings(targets=targets, timeouts={"connect": "100s", "total": "100ms"})
        async with stand(protocol, upstreams=settings) as s:
            call = (await s.dial()).call("POST", "/", (), b"x")
            assert await call.reply(5) == 504
            assert (await s.record())["outcome"] == "upstream: total_timeout"
            assert s.target().timeouts == {"total": 1}
            assert s.target().open == 0
