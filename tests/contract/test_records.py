# Every exchange leaves exactly one line and is counted once, with what the client really got. `Stand.settled` checks
# after each test of the suite that lines and counters agree; here are the cases that need a look of their own.
from __future__ import annotations

import asyncio

import pytest
from support.upstream import Connection, replies
from support.waiting import until

from .stand import STREAM, chunk, routed, stand
from .wires import H1Wire


@pytest.mark.parametrize(
    ("fields", "path", "host", "status", "outcome"),
    [
        ([], "//x", "localhost", 400, "client: path"),
        ([], "/", "bad.host:99999", 400, "client: host"),
        ([], "/", "other.example", 421, "client: misdirected"),
        ([(b"x_y", b"z")], "/", "localhost", 400, "client: underscore"),
        ([], "/" + "x" * 20_000, "localhost", 414, "client: url_too_long"),
        ([(b"cdn-loop", b"edgeproxy;id=0123456789ab")], "/", "localhost", 508, "edge: loop"),
    ],
)
async def test_refusals(
    protocol: str, fields: list[tuple[bytes, bytes]], path: str, host: str, status: int, outcome: str
) -> None:
    async with stand(protocol) as s:
        wire = await s.dial()
        call = wire.call("GET", path, fields, host=host)
        assert await call.reply() == status
        record = await s.record()
        assert (record["status"], record["outcome"]) == (status, outcome)
        assert record["protocol"] == protocol
        assert record["client"] == "127.0.0.1"
        assert record["upstream"] is None
        assert record["ray"].encode() == call.values(b"x-ray-id")[0]
        assert record["bytes_out"] == len(call.body)
        source, _, reason = outcome.partition(": ")
        assert s.edge.faults == {(source, reason): 1}
        assert s.upstream.connections == []


async def test_no_route(protocol: str) -> None:
    async with stand(protocol, routes=[{"path": "/v1/", "upstream": "main"}]) as s:
        call = await (await s.dial()).get("/v2/?key=secret")
        assert call.status == 404
        record = await s.record()
        assert (record["outcome"], record["route"], record["path"]) == ("edge: no_route", "-", "/v2/")
        assert b"secret" not in s.log.lines[0]


async def test_bytes_are_those_of_content_both_ways(protocol: str) -> None:
    async with stand(protocol, replies(STREAM + chunk(b"x" * 100) + chunk(b"y" * 23) + b"0\r\n\r\n")) as s:
        call = (await s.dial()).call("POST", "/", end=False)
        for _ in range(3):
            call.send(b"z" * 50)
        call.send(b"", end=True)
        await call.reply()
        record = await s.record()
        assert (record["bytes_in"], record["bytes_out"]) == (150, 123)


async def test_durations(protocol: str) -> None:
    clock = [100.0]
    rest = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        clock[0] += 0.25
        connection.write(STREAM + chunk(b"x"))
        await rest.wait()
        clock[0] += 0.5
        connection.write(b"0\r\n\r\n")
        await connection.gone()

    async with stand(protocol, handler) as s:
        s.edge.data_plane._gateway.time = lambda: clock[0]
        call = (await s.dial()).call()
        await call.received(1)
        rest.set()
        await call.reply()
        record = await s.record()
        assert (record["first_byte_ms"], record["duration_ms"]) == (250, 750)


async def test_gauges_while_something_is_going_on(protocol: str) -> None:
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        while True:
            await connection.request()
            connection.write(STREAM + chunk(b"x"))
            await gate.wait()
            connection.write(b"0\r\n\r\n")

    async with stand(protocol, handler) as s:
        stats = s.edge.stats
        wires = [await s.dial() for _ in range(3)]
        index = wires[0].index
        calls = [wire.call() for wire in wires]
        for call in calls:
            await call.received(1)
        assert stats.connections_open[index] == 3
        assert sum(stats.connections_open) == 3
        assert stats.streams_open == (3 if wires[0].streams_counted else stats.streams_open)
        assert s.target().active == s.target().open == 3
        gate.set()
        for call in calls:
            await call.reply()
        await until(lambda: s.target().active == 0)
        assert s.target().open == 3
        assert stats.streams_open == 0
        assert stats.connections_open[index] == 3
        requests = stats.routes["*/"].requests
        assert requests[index * 6 + 2] == sum(requests) == 3


async def test_faults_are_counted_by_who_failed(protocol: str) -> None:
    async with stand(protocol, replies(b"", then="close"), routes=routed(dialect="openai")) as s:
        wire = await s.dial()
        for _ in range(5):
            await wire.get()
        assert s.edge.faults == {("upstream", "closed"): 5}
        assert s.target().resets == 5


async def test_pipelined_garbage_is_one_line_behind_the_good_ones() -> None:
    async with stand("h1") as s:
        wire = await s.dial()
        assert isinstance(wire, H1Wire)
        call = wire.call()
        await call.reply()
        wire.transport.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n\x00garbage\r\n\r\n")
        await until(lambda: wire.closed)
        assert s.records[0]["status"] == 200
        assert s.records[-1]["status"] == 400
        assert s.records[-1]["outcome"] == "client: malformed"
