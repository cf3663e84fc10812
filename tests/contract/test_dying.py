# An upstream that fails: before its answer begins the client gets a proper error, afterwards never a clean end.
from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from support.upstream import Connection, replies, running_upstream
from support.waiting import until

from .clients import Call
from .stand import STREAM, chunk, routed, stand, upstream_settings

DIALECTS = ("openai", "anthropic", "responses")
REPLY = b"HTTP/1.1 200 OK\r\n"


def event_of(call: Call) -> dict[str, Any]:
    """The last event of a stream, which must be whole."""
    assert call.body.endswith(b"\n\n")
    lines = bytes(call.body).replace(b"\r\n", b"\n").rstrip(b"\n").rpartition(b"\n\n")[2].split(b"\n")
    (data,) = [line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: ")]
    event: dict[str, Any] = json.loads(data)
    return event


async def test_nobody_listens(protocol: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = upstream_settings(targets=[{"url": f"http://127.0.0.1:{port}"}])
    async with stand(protocol, upstreams=settings) as s:
        call = await (await s.dial()).get()
        assert call.status == 502
        record = await s.record()
        assert record["outcome"] == "upstream: connect"
        assert s.target().connect_failures == 1
        assert s.target().up == 0
        assert s.edge.faults == {("upstream", "connect"): 1}


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_it_dies_before_its_head(protocol: str, then: str) -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        getattr(connection, then)()

    async with stand(protocol, handler) as s:
        wire = await s.dial()
        call = wire.call("POST", "/", (), b"x")
        assert await call.reply() == 502
        assert call.values(b"content-type") == [b"application/json"]
        error = json.loads(call.body)["error"]
        assert error["code"] == "closed"
        assert error["ray"].encode() == call.values(b"x-ray-id")[0]
        record = await s.record()
        assert (record["outcome"], record["bytes_out"]) == ("upstream: closed", len(call.body))
        assert len(s.upstream.requests) == 1


async def test_it_dies_in_the_middle_of_its_head(protocol: str) -> None:
    async with stand(protocol, replies(REPLY + b"content-ty", then="close")) as s:
        assert (await (await s.dial()).get()).status == 502


@pytest.mark.parametrize("accept", [b"text/html,*/*", b"application/json", None])
async def test_errors_without_a_dialect_look_as_the_client_accepts(protocol: str, accept: bytes | None) -> None:
    async with stand(protocol, replies(b"", then="close")) as s:
        call = await (await s.dial()).get(fields=[(b"accept", accept)] if accept else [])
        assert call.status == 502
        html = accept is not None and b"html" in accept
        assert call.values(b"content-type") == [b"text/html; charset=utf-8" if html else b"application/json"]
        assert call.values(b"cache-control") == [b"no-store"]
        assert call.body.startswith(b"<!doctype html>" if html else b'{"error":')


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_errors_before_the_head_in_each_dialect(protocol: str, dialect: str) -> None:
    async with stand(protocol, replies(b"", then="close"), routes=routed(dialect=dialect)) as s:
        call = (await s.dial()).call("POST", "/", [(b"accept", b"text/html")], b"{}")
        assert await call.reply() == 502
        content = json.loads(call.body)
        if dialect == "anthropic":
            assert content["type"] == "error"
            assert content["error"]["type"] == "api_error"
            assert content["request_id"].encode() == call.values(b"x-ray-id")[0]
        else:
            assert content["error"]["type"] == "server_error"
            assert content["error"]["code"] == "closed"


@pytest.mark.parametrize("framing", [b"content-length: 100", b"transfer-encoding: chunked"])
@pytest.mark.parametrize("then", ["close", "reset"])
async def test_content_that_breaks_off_is_no_clean_end(protocol: str, framing: bytes, then: str) -> None:
    content = chunk(b'{"half":') if b"chunked" in framing else b'{"half":'
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(REPLY + b"content-type: application/json\r\n" + framing + b"\r\n\r\n" + content)
        await gate.wait()
        getattr(connection, then)()

    async with stand(protocol, handler, routes=routed(dialect="openai")) as s:
        wire = await s.dial()
        call = wire.call()
        await call.received(8)
        gate.set()
        await call.failed()
        assert call.body == b'{"half":'  # nothing is put into a JSON document
        record = await s.record()
        assert (record["outcome"], record["status"], record["bytes_out"]) == ("upstream: truncated", 200, 8)
        # The upstream's failure is not the client's fault, whatever the protocol's frames look like.
        assert s.edge.faults == {("upstream", "truncated"): 1}
        if wire.multiplexed:
            assert not wire.closed


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("then", ["close", "reset"])
async def test_an_event_stream_that_breaks_off_says_so_in_its_dialect(protocol: str, dialect: str, then: str) -> None:
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(STREAM + chunk(b'event: x\ndata: {"type":"x","sequence_number":7}\n\n'))
        await gate.wait()
        getattr(connection, then)()

    async with stand(protocol, handler, routes=routed(dialect=dialect)) as s:
        call = (await s.dial()).call()
        await call.received(40)
        gate.set()
        await call.failed()
        event = event_of(call)
        if dialect == "anthropic":
            assert call.body.count(b"event: error\n") == 1
            assert event["type"] == "error"
            assert event["error"]["type"] == "api_error"
        elif dialect == "responses":
            assert event["type"] == "error"
            assert event["sequence_number"] == 8
            assert event["code"] == "truncated"
        else:
            assert event["error"]["code"] == "truncated"
        assert b"[DONE]" not in call.body
        assert (await s.record())["outcome"] == "upstream: truncated"


@pytest.mark.parametrize("tail", [b"data: {", b"data: {}\n", b"data: {}\r\n"])
async def test_no_event_is_put_into_another_one(protocol: str, tail: bytes) -> None:
    gate = asyncio.Event()
    begun = b"data: 1\n\n" + tail

    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(STREAM + chunk(begun))
        await gate.wait()
        connection.close()

    async with stand(protocol, handler, routes=routed(dialect="openai")) as s:
        call = (await s.dial()).call()
        await call.received(len(begun))
        gate.set()
        await call.failed()
        assert bytes(call.body) == begun


@pytest.mark.parametrize("pieces", [(b"data: 1\n", b"\n"), (b"data: 1\r\n", b"\r\n"), (b"data: 1\r\n\r", b"\n")])
async def test_an_event_boundary_may_come_in_two_reads(protocol: str, pieces: tuple[bytes, bytes]) -> None:
    gates = [asyncio.Event(), asyncio.Event()]

    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(STREAM + chunk(pieces[0]))
        await gates[0].wait()
        connection.write(chunk(pieces[1]))
        await gates[1].wait()
        connection.close()

    async with stand(protocol, handler, routes=routed(dialect="openai")) as s:
        call = (await s.dial()).call()
        await call.received(len(pieces[0]))
        gates[0].set()
        await call.received(len(b"".join(pieces)))
        gates[1].set()
        await call.failed()
        assert call.body != b"".join(pieces), "the boundary was not seen"
        assert event_of(call)["error"]["code"] == "truncated"


async def test_a_stream_that_broke_before_its_first_event(protocol: str) -> None:
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(STREAM)
        await gate.wait()
        connection.close()

    async with stand(protocol, handler, routes=routed(dialect="openai")) as s:
        call = (await s.dial()).call()
        await call.head()
        gate.set()
        await call.failed()
        assert call.body == b"" or event_of(call)["error"]["code"] == "truncated"


async def test_no_dialect_no_event(protocol: str) -> None:
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(STREAM + chunk(b"data: 1\n\n"))
        await gate.wait()
        connection.close()

    async with stand(protocol, handler) as s:
        call = (await s.dial()).call()
        await call.received(9)
        gate.set()
        await call.failed()
        assert call.body == b"data: 1\n\n"


MALFORMED = {
    "no HTTP": b"hello\r\n\r\n",
    "two framings": REPLY + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "an unknown coding": REPLY + b"transfer-encoding: gzip\r\n\r\nxx",
    "two lengths": REPLY + b"content-length: 2\r\ncontent-length: 3\r\n\r\nok",
    "status 600": b"HTTP/1.1 600 X\r\ncontent-length: 0\r\n\r\n",
    "an unasked switch": b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    "a huge head": REPLY + b"x: " + b"y" * 70_000 + b"\r\ncontent-length: 0\r\n\r\n",
    "endless interim heads": b"HTTP/1.1 102 Processing\r\n\r\n" * 20,
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_malformed_answers_are_refused(protocol: str, name: str) -> None:
    async with stand(protocol, replies(MALFORMED[name])) as s:
        wire = await s.dial()
        call = await wire.get()
        assert call.status == 502, bytes(call.body)
        await until(lambda: s.upstream.cancels == 1)  # such a connection is never used again
        assert (await s.record())["outcome"].startswith("upstream: ")


async def test_a_bad_chunk_in_mid_stream(protocol: str) -> None:
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(STREAM + chunk(b"data: 1\n\n"))
        await gate.wait()
        connection.write(b"zz\r\nfoo\r\n")
        await connection.gone()

    async with stand(protocol, handler, routes=routed(dialect="openai")) as s:
        call = (await s.dial()).call()
        await call.received(9)
        gate.set()
        await call.failed()
        assert event_of(call)["error"]["code"] == "malformed_reply"
        assert s.upstream.cancels == 1


async def test_bytes_behind_a_reply_poison_the_connection(protocol: str) -> None:
    """Response splitting: what was not asked for must never answer the next request."""
    split = REPLY + b"content-length: 2\r\n\r\nok" + REPLY + b"content-length: 4\r\n\r\nevil"
    async with stand(protocol, replies(split)) as s:
        wire = await s.dial()
        for _ in range(3):
            assert (await wire.get()).body == b"ok"
        assert len(s.upstream.connections) == 3


async def test_bytes_on_an_idle_connection_poison_it(protocol: str) -> None:
    async with stand(protocol, replies(REPLY + b"content-length: 2\r\n\r\nok")) as s:
        wire = await s.dial()
        await wire.get()
        s.upstream.connections[0].write(REPLY + b"content-length: 4\r\n\r\nevil")
        await until(lambda: s.upstream.cancels == 1)
        assert (await wire.get()).body == b"ok"
        assert len(s.upstream.connections) == 2


async def test_one_upstream_down_leaves_the_other_routes_alone(protocol: str) -> None:
    async with running_upstream() as other:
        upstreams = {"main": {}, "other": {"targets": [{"url": f"http://127.0.0.1:{other.port}"}]}}
        routes = [{"path": "/", "upstream": "main"}, {"path": "/other/", "upstream": "other"}]
        async with stand(protocol, replies(b"", then="reset"), upstreams=upstreams, routes=routes) as s:
            wire = await s.dial()
            assert (await wire.get()).status == 502
            assert (await wire.get("/other/x")).status == 200
            assert (await wire.get()).status == 502
