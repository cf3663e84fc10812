# Limits of tokens over every protocol: what is charged is what the model reports, and nobody sees that it was asked to.
from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest
from support.limits import WatchedStore, watched
from support.upstream import OK, Connection, Handler
from support.waiting import until

from edgeproxy.chat.asking import read_ask

from .stand import STREAM, chunk, routed, stand
from .wires import WIRES

LIMIT: dict[str, Any] = {
    "name": "tokens", "tokens": 100_000, "reserve": 3000, "key": "http.host", "algorithm": "fixed-window", "period": "10h",
}  # fmt: skip
MESSAGES = b'"model":"m","messages":[{"role":"user","content":"how are you?"}]'
ASKS = {
    "openai": b"{%b,%%b}" % MESSAGES, "anthropic": b'{%b,"max_tokens":3000,%%b}' % MESSAGES,
    "responses": b'{"model":"m","input":"how are you?",%b}',
}  # fmt: skip
WHOLE = {
    "openai": b'{"choices":[{"message":{"content":"well"}}],"usage":{"prompt_tokens":40,"completion_tokens":2}}',
    "anthropic": b'{"type":"message","content":[{"type":"text","text":"well"}],"usage":{"input_tokens":40,"output_tokens":2}}',
    "responses": b'{"object":"response","output":[],"usage":{"input_tokens":40,"output_tokens":2,"total_tokens":42}}',
}  # fmt: skip
DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"\xc3\xa4 well"}}]}\n\n'
LAST = b'data: {"choices":[],"usage":{"prompt_tokens":40,"completion_tokens":2,"total_tokens":42}}\n\n'
DONE = b"data: [DONE]\n\n"
EVENTS = {
    "openai": [DELTA, DELTA, LAST, DONE],
    "anthropic": [
        b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":40,"output_tokens":1}}}\n\n',
        b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"well"}}\n\n',
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"x"},"usage":{"output_tokens":2}}\n\n',
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    ],
    "responses": [
        b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"well"}\n\n',
        b'event: response.completed\ndata: {"type":"response.completed","response":{"usage":{"input_tokens":40,'
        b'"output_tokens":2,"total_tokens":42}}}\n\n',
    ],
}  # fmt: skip
STREAMED = ASKS["openai"] % b'"stream":true'


def wants_usage(body: bytes) -> bool:
    options = json.loads(body).get("stream_options")
    return bool(options and options.get("include_usage"))


def model(dialect: str, cut: int = 0) -> Handler:
    """Answers as a service does: whole or streamed, with the usage of a stream only where it is asked for.

    Args:
        cut: bytes of a write; 0: each event is one.
    """

    async def handler(connection: Connection) -> None:
        while True:
            body = (await connection.request()).body
            if not body:
                connection.write(OK)
                continue
            if not json.loads(body).get("stream"):
                whole = WHOLE[dialect]
                head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                connection.write(head % len(whole) + whole)
                continue
            events = EVENTS[dialect]
            if dialect == "openai" and not wants_usage(body):
                events = [DELTA, DELTA, DONE]
            text = b"".join(events)
            parts = [text[at : at + cut] for at in range(0, len(text), cut)] if cut else events
            connection.write(STREAM)
            for part in parts:
                connection.write(chunk(part))
                await asyncio.sleep(0.001)
            connection.write(b"0\r\n\r\n")

    return handler


@pytest.mark.parametrize("dialect", list(ASKS))
async def test_whole_answers(protocol: str, dialect: str) -> None:
    async with stand(protocol, model(dialect), limits=[LIMIT], routes=routed(dialect=dialect)) as s:
        store = watched(s)
        wire = await s.dial()
        body = ASKS[dialect] % b'"stream":false'
        for number in (1, 2, 3):
            call = wire.call("POST", "/", body=body, end=number != 2, length=None)
            if number == 2:  # in pieces, and nobody says how many
                call.send(b"", end=True)
            assert await call.reply() == 200 and call.body == WHOLE[dialect]
            assert s.upstream.requests[-1].body == body
            assert store.used("tokens") == 42 * number
        name = b"anthropic-ratelimit-tokens-limit" if dialect == "anthropic" else b"x-ratelimit-limit-tokens"
        assert call.values(name) == [b"100000"]
        assert store.charges["tokens"].cost > 3000, "set aside until it is known"


@pytest.mark.parametrize("streamed", [b"false", b"true"])
@pytest.mark.parametrize(
    ("dialect", "path"),
    [("responses", "/v1/responses"), ("responses", "/v1/responses/?a=/b"), ("anthropic", "/v1/messages"),
     ("openai", "/v1/chat/completions")],
)  # fmt: skip
async def test_one_route_to_services_that_speak_several(protocol: str, dialect: str, path: str, streamed: bytes) -> None:
    """What the path says is how it is read: as something else it would be next to free."""
    spoken = "openai" if dialect != "openai" else "anthropic"
    async with stand(protocol, model(dialect), limits=[LIMIT], routes=routed(dialect=spoken)) as s:
        store = watched(s)
        wire = await s.dial()
        assert await wire.call("POST", path, body=ASKS[dialect] % (b'"stream":' + streamed)).reply() == 200
        assert store.used("tokens") == 42 and store.charges["tokens"].cost > 3000


@pytest.mark.parametrize("cut", [0, 7, 1000])
@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("dialect", list(ASKS))
async def test_streams(protocol: str, dialect: str, asked: bool, cut: int) -> None:
    async with stand(protocol, model(dialect, cut), limits=[LIMIT], routes=routed(dialect=dialect)) as s:
        store = watched(s)
        more = b'"stream":true' + (b',"stream_options":{"include_usage":true}' if asked else b"")
        body = ASKS[dialect] % more
        events = EVENTS[dialect]
        seen = b"".join(events if asked or dialect != "openai" else [DELTA, DELTA, DONE])
        wire = await s.dial()
        for number in (1, 2):
            call = wire.call("POST", "/", body=body)
            assert await call.reply() == 200 and bytes(call.body) == seen
            assert store.used("tokens") == 42 * number
            record = await s.record(number)
            assert (record["bytes_in"], record["bytes_out"]) == (len(body), len(seen))
        sent = s.upstream.requests[-1]
        if asked or dialect != "openai":
            assert sent.body == body
        else:
            assert wants_usage(sent.body) and sent.body.endswith(body[1:])


async def test_a_route_that_leaves_streams_as_they_are(protocol: str) -> None:
    async with stand(protocol, model("openai"), limits=[LIMIT], routes=routed(dialect="openai", stream_usage="leave")) as s:
        store = watched(s)
        call = (await s.dial()).call("POST", "/", body=STREAMED)
        assert await call.reply() == 200 and call.body == DELTA + DELTA + DONE
        assert s.upstream.requests[0].body == STREAMED
        assert 5 < store.used("tokens") < 30, "estimated"


@pytest.mark.parametrize("length", [True, False])
async def test_a_request_in_small_pieces_for_a_slow_store(protocol: str, length: bool) -> None:
    async with stand(protocol, model("openai"), limits=[LIMIT], routes=routed(dialect="openai")) as s:
        store = watched(s)
        store.waits = True
        call = (await s.dial()).call("POST", "/", end=False, length=len(STREAMED) if length else None)
        for at in range(len(STREAMED) - 1):
            call.send(STREAMED[at : at + 1])
            if at % 16 == 0:
                await asyncio.sleep(0)
        await until(lambda: s.previewed == len(STREAMED) - 1)
        call.send(STREAMED[-1:], end=True)
        await until(lambda: store.waiting)
        assert s.upstream.connections == []
        store.answer()
        assert await call.reply() == 200 and call.body == DELTA + DELTA + DONE
        (sent,) = s.upstream.requests
        assert sent.body.endswith(STREAMED[1:]) and wants_usage(sent.body)
        assert store.used("tokens") == 42


@pytest.mark.parametrize("framing", ["length", "close", "one write"])
async def test_streams_that_are_framed_otherwise(protocol: str, framing: str) -> None:
    text = b"".join(EVENTS["openai"])
    kind = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"

    async def handler(connection: Connection) -> None:
        while True:
            await connection.request()
            if framing == "length":
                connection.write(kind + b"content-length: %d\r\n\r\n%b" % (len(text), text))
            elif framing == "one write":
                connection.write(STREAM + chunk(text) + b"0\r\n\r\n")
            else:
                connection.write(kind + b"\r\n" + text)
                connection.close()
                return

    async with stand(protocol, handler, limits=[LIMIT], routes=routed(dialect="openai")) as s:
        store = watched(s)
        wire = await s.dial()
        for number in (1, 2, 3):
            call = wire.call("POST", "/", body=STREAMED)
            assert await call.reply() == 200 and call.body == DELTA + DELTA + DONE
            assert call.values(b"content-length") in ([], [b"%d" % len(call.body)])
            assert store.used("tokens") == 42 * number


async def test_a_coded_stream_passes_as_it_is(protocol: str) -> None:
    coded = gzip.compress(b"".join(EVENTS["openai"]))
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"

    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(head + chunk(coded) + b"0\r\n\r\n")
        await connection.gone()

    async with stand(protocol, handler, limits=[LIMIT], routes=routed(dialect="openai")) as s:
        store = watched(s)
        call = (await s.dial()).call("POST", "/", [(b"accept-encoding", b"gzip")], STREAMED)
        assert await call.reply() == 200 and call.body == coded
        assert store.used("tokens") > 3000, "nobody can read it: what was set aside counts"


async def test_a_slow_reader(protocol: str) -> None:
    """It gets every byte, and the edge holds no more for it than it would without limits."""
    count = WIRES[protocol].huge // len(DELTA) // 100 * 100

    async def handler(connection: Connection) -> None:
        body = (await connection.request()).body
        assert wants_usage(body)
        connection.write(STREAM)
        for _ in range(count // 100):
            connection.write(chunk(DELTA * 100))
        connection.write(chunk(LAST + DONE) + b"0\r\n\r\n")
        await connection.gone()

    async with stand(protocol, handler, limits=[LIMIT], routes=routed(dialect="openai")) as s:
        store = watched(s)
        wire = await s.dial(receive_buffer=64 * 1024)
        call = wire.call("POST", "/", body=STREAMED)
        await call.head()
        wire.pause()
        await asyncio.sleep(0.1)
        assert s.queued < 1 << 20 and store.used("tokens") > 3000
        wire.resume()
        assert await call.reply(30) == 200 and call.body == DELTA * count + DONE
        assert store.used("tokens") == 42


@pytest.mark.parametrize("inside", [False, True])
async def test_a_stream_that_breaks_off(protocol: str, inside: bool) -> None:
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(STREAM + chunk(DELTA * 20) + (chunk(DELTA[:30]) if inside else b""))
        await gate.wait()
        connection.reset()

    async with stand(protocol, handler, limits=[LIMIT], routes=routed(dialect="openai")) as s:
        store = watched(s)
        call = (await s.dial()).call("POST", "/", body=STREAMED)
        await call.received(len(DELTA) * 20)
        gate.set()
        await call.failed()
        assert call.body.startswith(DELTA * 20)
        rest = bytes(call.body[len(DELTA) * 20 :])
        if rest:
            assert (b'"error"' in rest) != inside, "only where an event can stand"
        ask = read_ask("openai", STREAMED)
        assert ask is not None
        assert ask.prompt + 20 <= store.used("tokens") <= ask.prompt + 80
        assert set(store.settled.values()) == {1}


@pytest.mark.parametrize("status", [b"400 no", b"429 later", b"500 broken"])
async def test_errors_cost_no_tokens(protocol: str, status: bytes) -> None:
    async def handler(connection: Connection) -> None:
        while True:
            await connection.request()
            connection.write(b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}" % status)

    async with stand(protocol, handler, limits=[LIMIT], routes=routed(dialect="openai")) as s:
        store = watched(s)
        call = (await s.dial()).call("POST", "/", body=STREAMED)
        assert await call.reply() == int(status[:3]) and call.body == b"{}"
        assert store.used("tokens") == 0


async def test_no_upstream_costs_no_tokens_but_a_request(protocol: str) -> None:
    nowhere = {"main": {"targets": [{"url": "http://127.0.0.1:1"}]}}
    limits = [LIMIT, {**LIMIT, "name": "requests", "tokens": None, "requests": 10}]
    async with stand(protocol, limits=limits, routes=routed(dialect="openai"), upstreams=nowhere) as s:
        store = watched(s)
        call = (await s.dial()).call("POST", "/", body=STREAMED)
        assert await call.reply() == 502
        assert (store.used("tokens"), store.used("requests")) == (0, 1)


@pytest.mark.parametrize("coding", [b"gzip", b"br"])
async def test_a_coded_request_passes_as_it_is_and_is_set_aside_by_what_it_holds(protocol: str, coding: bytes) -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        whole = WHOLE["openai"]
        connection.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(whole) + whole)
        await connection.gone()

    plain = LONG % b'"stream":false'
    body = gzip.compress(plain) if coding == b"gzip" else bytes(range(256)) * 4
    async with stand(protocol, handler, limits=[LIMIT], routes=routed(dialect="openai")) as s:
        store = watched(s)
        call = (await s.dial()).call("POST", "/", [(b"content-encoding", coding)], body)
        assert await call.reply() == 200
        assert s.upstream.requests[0].body == body
        ask = read_ask("openai", plain)
        assert ask is not None and ask.prompt > 10 * len(gzip.compress(plain)) // 4
        assert store.charges["tokens"].cost == (ask.prompt if coding == b"gzip" else 8 * len(body) // 4) + 3000
        assert store.used("tokens") == 42


async def test_over_the_limit(protocol: str) -> None:
    async with stand(protocol, model("openai"), limits=[{**LIMIT, "tokens": 3080}], routes=routed(dialect="openai")) as s:
        store = watched(s)
        wire = await s.dial()
        for number in range(4):
            call = wire.call("POST", "/", body=STREAMED)
            assert await call.reply() == (200 if number < 2 else 429), store.used("tokens")
        error = json.loads(call.body)["error"]
        assert (error["type"], error["code"]) == ("tokens", "rate_limit_exceeded")
        assert store.used("tokens") == 84 and len(s.upstream.requests) == 2
        assert (await wire.get()).status == 200, "no body, no tokens"


LONG = b"{%b,%%b}" % MESSAGES.replace(b"how are you?", b"why? " * 8000)  # 40 kB: 10,000 tokens by its size


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("reports", [False, True])
async def test_a_body_longer_than_the_preview_is_charged_by_its_size(protocol: str, reports: bool, known: bool) -> None:
    async def handler(connection: Connection) -> None:
        while True:
            await connection.request()
            events = EVENTS["openai"] if reports else [DELTA, DELTA, DONE]
            connection.write(STREAM + chunk(b"".join(events)) + b"0\r\n\r\n")

    body = LONG % b'"stream":true'
    async with stand(protocol, handler, limits=[LIMIT], routes=routed(dialect="openai", preview="4KiB")) as s:
        store = watched(s)
        wire = await s.dial()
        call = wire.call("POST", "/", end=False, length=len(body) if known else None)
        call.send(body, end=True)
        assert await call.reply() == 200
        assert s.upstream.requests[0].body == body
        if known:
            assert store.charges["tokens"].cost == len(body) // 4 + 3000
        if reports:
            assert call.body == b"".join(EVENTS["openai"]), "nobody asked for it on the client's behalf"
            assert store.used("tokens") == 42
        else:
            assert len(body) // 4 < store.used("tokens") < len(body) // 4 + 50


async def test_a_long_body_is_refused_by_its_size(protocol: str) -> None:
    body = LONG % b'"stream":true'
    async with stand(protocol, limits=[{**LIMIT, "tokens": 9000}], routes=routed(dialect="openai", preview="4KiB")) as s:
        watched(s)
        call = (await s.dial()).call("POST", "/", body=body)
        assert await call.head() == 429 and s.upstream.connections == []


async def test_what_is_added_does_not_count_as_the_clients(protocol: str) -> None:
    settings = routed(dialect="openai", max_body=str(len(STREAMED)), preview="1KiB")
    async with stand(protocol, model("openai"), limits=[LIMIT], routes=settings) as s:
        store: WatchedStore = watched(s)
        call = (await s.dial()).call("POST", "/", [(b"expect", b"100-continue")], end=False, length=len(STREAMED))
        await until(lambda: call.interim or call.over)
        call.send(STREAMED, end=True)
        assert await call.reply() == 200 and call.body == DELTA + DELTA + DONE
        assert (await s.record())["bytes_in"] == len(STREAMED) and store.used("tokens") == 42
