# Counters of targets that a reload takes away: they stay while a connection is left and go with the last one.
from __future__ import annotations

import asyncio

from support.upstream import Connection, running_upstream
from support.waiting import until

from .stand import STREAM, Stand, chunk, stand, upstream_settings
from .test_reload import renamed, streaming, target


def names(s: Stand) -> set[tuple[str, str]]:
    return set(s.edge.stats.upstreams)


def label(port: int) -> str:
    return f"127.0.0.1:{port}"


async def test_counters_of_an_idle_target_go_with_its_connections(protocol: str) -> None:
    async with running_upstream() as new, stand(protocol) as s:
        wire = await s.dial()
        await wire.get()
        assert names(s) == {("main", label(s.upstream.port))}
        s.reload(upstreams=upstream_settings(targets=target(new.port)))
        await until(lambda: names(s) == {("main", label(new.port))})
        assert s.edge.stats.dump()["upstreams"][0]["target"] == label(new.port)


async def test_counters_of_a_target_that_never_served_go_at_once(protocol: str) -> None:
    async with stand(protocol) as s:
        both = [*target(s.upstream.port), *target(1)]
        s.reload(upstreams=upstream_settings(targets=both))
        assert len(names(s)) == 2
        s.reload()
        assert names(s) == {("main", label(s.upstream.port))}


async def test_they_stay_while_a_stream_runs(protocol: str) -> None:
    gate = asyncio.Event()
    async with running_upstream() as new, stand(protocol, streaming(gate)) as s:
        call = (await s.dial()).call()
        await call.received(9)
        s.reload(upstreams=upstream_settings(targets=target(new.port)))
        old = s.edge.stats.upstreams["main", label(s.upstream.port)]
        assert (old.open, old.active, old.connects) == (1, 1, 1)
        gate.set()
        assert await call.reply() == 200
        await until(lambda: names(s) == {("main", label(new.port))})


async def test_a_target_that_comes_back_while_it_drains_goes_on_counting(protocol: str) -> None:
    gate = asyncio.Event()
    async with running_upstream() as new, stand(protocol, streaming(gate)) as s:
        call = (await s.dial()).call()
        await call.received(9)
        s.reload(upstreams=upstream_settings(targets=target(new.port)))
        s.reload()
        gate.set()
        assert await call.reply() == 200
        await until(lambda: s.upstream.open == 0)
        assert names(s) == {("main", label(s.upstream.port))}
        assert (await (await s.dial()).get()).status == 200
        assert s.target().connects == 2
        assert s.target().open == s.upstream.open == 1


async def test_an_upstream_that_is_renamed_takes_its_counters_along(protocol: str) -> None:
    gate = asyncio.Event()
    async with running_upstream() as new, stand(protocol, streaming(gate)) as s:
        call = (await s.dial()).call()
        await call.received(9)
        s.edge.data_plane.switch(renamed(new.port))
        assert ("main", label(s.upstream.port)) in names(s)
        s.reload()  # and back, while the old pool still has a connection
        gate.set()
        assert await call.reply() == 200
        await until(lambda: s.upstream.open == 0)
        assert names(s) == {("main", label(s.upstream.port))}
        assert (await (await s.dial()).get()).status == 200


async def test_a_connect_that_is_given_up_is_the_last_one_too(protocol: str) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        targets = [{"url": f"https://127.0.0.1:{port}"}]
        async with stand(protocol, upstreams=upstream_settings(targets=targets, timeouts={"connect": "100s"})) as s:
            wire = await s.dial()
            call = wire.call()
            await until(lambda: s.edge.stats.upstreams["main", label(port)].open == 1)
            s.reload()
            assert ("main", label(port)) in names(s)
            await wire.leave()
            await until(lambda: names(s) == {("main", label(s.upstream.port))})
            assert not call.status


async def test_a_failure_on_a_target_that_is_gone_makes_no_new_counters(protocol: str) -> None:
    """The retry is for another target; the one it would be counted at has no counters any more."""
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(STREAM + chunk(b"data: 1\n\n") + b"0\r\n\r\n")
        await connection.request()
        await gate.wait()
        connection.reset()

    async with running_upstream() as new, stand(protocol, handler) as s:
        wire = await s.dial()
        await wire.get()
        call = wire.call("GET", "/again")
        await until(lambda: len(s.upstream.requests) == 2)
        s.reload(upstreams=upstream_settings(targets=target(new.port)))
        gate.set()
        assert await call.reply() == 200
        await until(lambda: names(s) == {("main", label(new.port))})
