# A new snapshot under running traffic: who has begun goes on as before, who comes next gets the new one.
from __future__ import annotations

import asyncio

from support.upstream import OK, Connection, Handler, replies, running_upstream
from support.waiting import until

from .stand import STREAM, chunk, routed, stand, upstream_settings


def target(port: int) -> list[dict[str, str]]:
    return [{"url": f"http://127.0.0.1:{port}"}]


def streaming(gate: asyncio.Event) -> Handler:
    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(STREAM + chunk(b"data: 1\n\n"))
        await gate.wait()
        connection.write(chunk(b"data: 2\n\n") + b"0\r\n\r\n")
        await connection.gone()

    return handler


async def test_a_running_stream_finishes_and_the_next_request_is_new(protocol: str) -> None:
    gate = asyncio.Event()
    async with running_upstream() as new, stand(protocol, streaming(gate)) as s:
        wire = await s.dial()
        call = wire.call()
        await call.received(9)
        s.reload(upstreams=upstream_settings(targets=target(new.port)), hsts={"max_age": 1000})
        other = await (await s.dial()).get()
        assert other.body == b"ok"
        assert other.values(b"strict-transport-security") == [b"max-age=1000; includeSubDomains"]
        gate.set()
        assert await call.reply() == 200
        assert call.body == b"data: 1\n\ndata: 2\n\n"
        # The same head on the same connection: nothing of the old plan may be left.
        again = await wire.get()
        assert again.body == b"ok"
        assert again.values(b"strict-transport-security") == [b"max-age=1000; includeSubDomains"]
        assert [record["upstream"] for record in s.records] == [
            f"127.0.0.1:{new.port}", f"127.0.0.1:{s.upstream.port}", f"127.0.0.1:{new.port}",
        ]  # fmt: skip
        # The connection to the target that is gone is not kept.
        await until(lambda: s.upstream.open == 0)


async def test_connections_to_targets_that_stay_are_kept(protocol: str) -> None:
    async with stand(protocol) as s:
        wire = await s.dial()
        for _ in range(3):
            await wire.get()
            s.reload(upstreams=upstream_settings(max_connections=5))
        assert len(s.upstream.connections) == 1
        assert s.target().connects == 1


async def test_idle_connections_to_a_target_that_is_gone_are_closed(protocol: str) -> None:
    async with running_upstream() as new, stand(protocol) as s:
        await (await s.dial()).get()
        s.reload(upstreams=upstream_settings(targets=target(new.port)))
        await until(lambda: s.upstream.open == 0)


async def test_a_removed_upstream_finishes_its_streams(protocol: str) -> None:
    gate = asyncio.Event()
    async with running_upstream() as new, stand(protocol, streaming(gate)) as s:
        call = (await s.dial()).call()
        await call.received(9)
        upstreams = {"other": {"targets": target(new.port)}}
        routes = [{"path": "/", "upstream": "other"}]
        config_upstreams = {"main": {"targets": target(new.port)}, **upstreams}
        s.reload(upstreams=config_upstreams, routes=routes)
        gate.set()
        assert await call.reply() == 200
        await until(lambda: s.upstream.open == 0)
        assert (await (await s.dial()).get()).body == b"ok"


async def test_who_waits_for_an_upstream_that_is_removed_is_told(protocol: str) -> None:
    gate = asyncio.Event()
    async with running_upstream() as new, stand(protocol, streaming(gate), upstreams=upstream_settings(max_connections=1)) as s:
        first = (await s.dial()).call()
        await first.received(9)
        second = (await s.dial()).call()
        await until(lambda: s.target().pending == 1)
        s.edge.data_plane.switch(renamed(new.port))
        assert await second.reply() == 503
        assert (await s.record())["outcome"] == "edge: upstream_gone"
        gate.set()
        assert await first.reply() == 200
        await until(lambda: s.upstream.open == 0)


def renamed(port: int):  # type: ignore[no-untyped-def]
    """A snapshot whose only upstream has another name."""
    from support.edge import configuration, prepared

    from edgeproxy.config.model import Config

    raw = configuration(port).model_dump(mode="json")
    raw["upstreams"] = {"renamed": raw["upstreams"]["main"]}
    raw["routes"] = [{"path": "/", "upstream": "renamed"}]
    return prepared(Config.model_validate(raw))


async def test_a_preview_that_outlives_its_upstream(protocol: str) -> None:
    async with running_upstream() as new, stand(protocol, routes=routed(models={"m": "main"})) as s:
        wire = await s.dial()
        call = wire.call("POST", "/", end=False, length=14)
        call.send(b'{"model"')
        await until(lambda: s.previewed == 8)
        s.edge.data_plane.switch(renamed(new.port))
        call.send(b': "m"}', end=True)
        await until(lambda: call.over)
        # Either it still reaches the old target or it is told; an exception inside the edge is neither.
        assert call.status in {200, 503}
        assert await call.reply()


async def test_a_route_that_disappears(protocol: str) -> None:
    async with stand(protocol) as s:
        wire = await s.dial()
        assert (await wire.get()).status == 200
        s.reload(routes=[{"path": "/only/", "upstream": "main"}])
        call = await wire.get()
        assert call.status == 404
        assert (await wire.get("/only/x")).status == 200
        assert [record["route"] for record in s.records] == ["*/", "-", "*/only/"]


async def test_limits_of_the_new_snapshot_hold_on_old_connections(protocol: str) -> None:
    async with stand(protocol) as s:
        wire = await s.dial()
        assert await wire.call("POST", "/", (), bytes(2048)).reply() == 200
        s.reload(client={"max_body": "1KiB"})
        assert await wire.call("POST", "/", (), bytes(2048)).reply() == 413


async def test_counters_go_on_under_their_names(protocol: str) -> None:
    async with stand(protocol, replies(OK)) as s:
        wire = await s.dial()
        for _ in range(3):
            await wire.get()
            s.reload()
        assert sum(s.edge.stats.routes["*/"].requests) == 3
        assert s.target().connects == 1
        assert s.target().reused == 2


async def test_reloads_during_many_streams(protocol: str) -> None:
    gate = asyncio.Event()
    async with stand(protocol, streaming(gate)) as s:
        calls = []
        for _ in range(10):
            call = (await s.dial()).call()
            await call.received(9)
            calls.append(call)
            s.reload()
        gate.set()
        for call in calls:
            assert await call.reply() == 200
            assert call.body == b"data: 1\n\ndata: 2\n\n"
