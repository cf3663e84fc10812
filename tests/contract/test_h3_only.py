# HTTP/3 alone: how streams are ended and refused in both directions, credit, GOAWAY, and a client that is simply gone.
from __future__ import annotations

import asyncio

import pytest
from support import h3
from support.h3 import data, h3_connected, headers
from support.heads import GET, POST
from support.upstream import OK, Connection, Handler, ok
from support.waiting import until

from .h3_wire import H3Wire
from .stand import STREAM, Stand, chunk, routed, stand, upstream_settings
from .test_pressure import EDGE, KERNEL, Source, steady

SOON = 1.0  # seconds
LAST = (1 << 62) - 4  # the last request stream there can be


async def dial(s: Stand, **settings: int) -> H3Wire:
    wire = await s.dial(**settings)
    assert isinstance(wire, H3Wire)
    return wire


async def one_event(connection: Connection) -> None:
    await connection.request()
    connection.write(STREAM + chunk(b"data: 1\n\n"))
    await connection.gone()


# -- ends --------------------------------------------------------------------------------------------------------


async def test_a_client_that_dies_is_missed_after_the_idle_timeout() -> None:
    async with stand("h3", one_event, upstreams=upstream_settings(timeouts={"idle": "1000s"})) as s:
        wire = await dial(s)
        call = wire.call()
        await call.received(9)
        wire.die()
        s.edge.after(29, answered=False)
        assert s.log.lines == []
        for seconds in (31, 62, 93):  # signs of life are asked for before it is given up
            s.edge.after(seconds, answered=False)
        await until(lambda: s.upstream.cancels == 1)
        assert (await s.record())["outcome"] == "client_gone"
        await until(lambda: s.edge.data_plane.connections == 0)


@pytest.mark.parametrize("how", ["stop", "reset", "both"])
async def test_either_half_of_a_cancelled_stream_stops_the_upstream(how: str) -> None:
    async with stand("h3", one_event) as s, h3_connected(s.edge.https_port) as client:
        open_ended = how != "stop"
        number = client.request(headers(POST if open_ended else GET), end=not open_ended)
        if open_ended:
            await until(lambda: s.upstream.data)
        else:
            await until(lambda: client.stream(number).body)
        if how != "stop":
            client.quic.reset_stream(number, h3.CANCELLED)
        if how != "reset":
            client.quic.stop_stream(number, h3.CANCELLED)
        client.transmit()
        await until(lambda: s.upstream.cancels == 1, SOON)
        assert (await s.record())["outcome"] == "client_gone"
        await client.ping()
        assert not client.ended


async def test_an_answer_that_breaks_off_is_reset_with_an_internal_error() -> None:
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(STREAM + chunk(b"x"))
        await gate.wait()
        connection.reset()

    async with stand("h3", handler) as s, h3_connected(s.edge.https_port) as client:
        number = client.request(headers(GET))
        await until(lambda: client.stream(number).body == b"x")
        gate.set()
        reply = await client.over(number)
        assert reply.reset == h3.INTERNAL
        assert not reply.ended


@pytest.mark.parametrize("status", [403, 413])
async def test_an_early_answer_is_whole_and_tells_the_client_to_stop(status: int) -> None:
    """RFC 9114 §4.1: STOP_SENDING with H3_NO_ERROR; the answer itself is never reset."""

    async def handler(connection: Connection) -> None:
        received = await connection.head()
        if status == 403 or received.line.startswith(b"GET"):
            connection.write(b"HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno")
        await connection.gone()

    async with stand("h3", handler, client={"max_body": "64KiB"}) as s, h3_connected(s.edge.https_port) as client:
        number = client.request(headers(POST), data(bytes(1000 if status == 403 else 100_000)), end=False)
        reply = await client.over(number)
        assert (reply.status, reply.reset) == (status, None)
        await until(lambda: reply.stopped is not None)
        assert reply.stopped == h3.NO_ERROR
        again = await client.over(client.request(headers(GET)))
        assert again.status == 403


async def test_content_that_comes_after_the_edge_wanted_no_more_is_no_fault() -> None:
    """STOP_SENDING and the rest of the upload cross on the way."""

    async def handler(connection: Connection) -> None:
        await connection.head()
        connection.write(b"HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno")
        await connection.gone()

    async with stand("h3", handler) as s, h3_connected(s.edge.https_port) as client:
        number = client.request(headers(POST), data(bytes(200_000)), end=False)
        reply = await client.over(number)
        assert reply.status == 403
        await client.ping()
        assert not client.ended
        assert s.edge.faults == {}


# -- credit ------------------------------------------------------------------------------------------------------


async def test_a_stream_without_credit_stops_its_upstream_only() -> None:
    """The connection is read, but one stream gets no more credit."""
    source = Source(H3Wire.huge)

    async def handler(connection: Connection) -> None:
        if not s.upstream.requests:
            await source(connection)
            return
        await connection.request()
        connection.write(OK)
        await connection.gone()

    async with stand("h3", handler) as s:
        wire = await dial(s)
        call = wire.call()
        wire.hold(call)
        await call.head()
        await steady(lambda: source.sent)
        assert len(call.body) <= wire.quic.window
        assert source.sent < KERNEL
        assert s.queued <= EDGE
        other = await wire.get()
        assert other.body == b"ok"
        wire.resume()
        assert await call.reply(30) == 200
        assert len(call.body) == source.size


async def test_credit_is_given_for_what_the_upstream_took() -> None:
    """An upload that nobody reads is stopped by its own window, not by that of the connection."""

    async def handler(connection: Connection) -> None:
        received = await connection.head()
        if b"/slow" in received.line:
            connection.transport.pause_reading()
            await connection.gone()
        await connection.body(received)
        connection.write(OK)
        connection.close()

    async with stand("h3", handler, client={"max_body": "100MiB"}) as s:
        wire = await dial(s)
        slow = [wire.call("POST", "/slow", end=False) for _ in range(3)]
        for call in slow:
            call.send(bytes(16 << 20))
        await until(lambda: len(s.upstream.requests) == 3)
        await steady(lambda: sum(call.unsent for call in slow))
        call = wire.call("POST", "/", (), bytes(1 << 20))
        assert await call.reply(10) == 200


async def test_stream_limits_come_back() -> None:
    """A client may open as many as were closed, for as long as it likes."""
    async with stand("h3", ok, client={"h3": {"max_streams": 5}}) as s:
        wire = await dial(s)
        for _ in range(10):
            calls = [wire.call() for _ in range(12)]
            for call in calls:
                assert await call.reply() == 200


async def test_never_more_streams_than_allowed() -> None:
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        while True:
            await connection.request()
            await gate.wait()
            connection.write(OK)

    async with stand("h3", handler, client={"h3": {"max_streams": 5}}) as s:
        wire = await dial(s)
        calls = [wire.call() for _ in range(12)]
        await until(lambda: len(s.upstream.requests) == 5)
        await asyncio.sleep(0.05)
        assert len(s.upstream.requests) == s.edge.stats.streams_open == 5
        gate.set()
        for call in calls:
            assert await call.reply() == 200


# -- the end of a worker -----------------------------------------------------------------------------------------


def streaming(gate: asyncio.Event) -> Handler:
    async def handler(connection: Connection) -> None:
        received = await connection.request()
        if b"/quick" in received.line:
            connection.write(OK)
            await connection.gone()
        connection.write(STREAM + chunk(b"one"))
        await gate.wait()
        connection.write(chunk(b"two") + b"0\r\n\r\n")
        await connection.gone()

    return handler


async def test_a_request_in_the_grace_period_is_served() -> None:
    """RFC 9114 §5.2: the announcement comes first, so that what the client had on the way is not lost."""
    gate = asyncio.Event()
    async with stand("h3", streaming(gate)) as s:
        wire = await dial(s)
        long = wire.call()
        await long.received(3)
        s.edge.data_plane.drain()
        late = wire.call("GET", "/quick")
        assert await late.reply() == 200
        await until(lambda: wire.control.goaway)
        assert wire.control.goaway[0] == LAST
        s.edge.after(2)
        await until(lambda: len(wire.control.goaway) == 2)
        assert wire.control.goaway[1] == late.id + 4
        assert not long.over
        later = wire.call("GET", "/quick")
        assert await later.failed() == f"reset {h3.REJECTED:#x}", "nothing of it went upstream"
        gate.set()
        assert await long.reply() == 200
        assert long.body == b"onetwo"
        await until(lambda: s.edge.data_plane.connections == 0)
        await until(lambda: wire.closed)
        assert wire.client.code == h3.NO_ERROR


# -- what the edge says of itself --------------------------------------------------------------------------------


async def test_the_edges_settings() -> None:
    async with stand("h3", client={"max_head": "20KiB"}) as s:
        wire = await dial(s)
        await wire.get()
        settings = wire.control.settings
        assert settings[6] == 20 << 10  # MAX_FIELD_SECTION_SIZE
        assert settings.get(1, 0) == 0  # no dynamic table
        assert settings.get(7, 0) == 0
        assert settings.get(8, 0) == 0  # no extended CONNECT


async def test_alt_svc_is_for_those_who_are_not_here_yet() -> None:
    async with stand("h3") as s:
        assert (await (await s.dial()).get()).values(b"alt-svc") == []


async def test_dialects_and_errors_are_those_of_the_other_protocols() -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.close()

    async with stand("h3", handler, routes=routed(dialect="openai")) as s:
        call = (await s.dial()).call("POST", "/", (), b"{}")
        assert await call.reply() == 502
        assert call.values(b"content-type") == [b"application/json"]
