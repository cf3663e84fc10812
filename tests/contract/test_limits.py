# What limits say, over every protocol: allowed and refused answers, what the reply decides, and leases that come back.
from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support.client import connected
from support.limits import watched
from support.upstream import Connection, echo
from support.waiting import until

from .stand import STREAM, chunk, routed, stand, upstream_settings
from .test_rules import ruled
from .test_tunnel import ASK, mirror

ALL = {"key": "http.host", "period": "60s", "algorithm": "fixed-window"}


async def test_allowed_and_refused(protocol: str) -> None:
    async with stand(protocol, limits=[{"name": "all", "requests": 2, "key": "http.host"}]) as s:
        watched(s)
        wire = await s.dial()
        for left, reset in ((1, 30), (0, 60)):
            call = await wire.get()
            assert (call.status, call.body) == (200, b"ok")
            assert call.values(b"ratelimit-policy") == [b'"all";q=2;w=60']
            assert call.values(b"ratelimit") == [b'"all";r=%d;t=%d' % (left, reset)]
            assert call.values(b"retry-after") == call.values(b"x-ratelimit-limit-requests") == []
        for method in ("GET", "HEAD", "POST"):
            call = wire.call(method, "/", body=b"content" if method == "POST" else None)
            assert await call.reply() == 429
            assert call.values(b"retry-after") == [b"30"] and call.values(b"retry-after-ms") == [b"30000"]
            assert call.values(b"x-should-retry") == [b"true"] and call.values(b"cache-control") == [b"no-store"]
            assert call.values(b"ratelimit") == [b'"all";r=0;t=60'] and call.values(b"connection") == []
            assert (b"'all' (2 requests in 1m)" in call.body) == (method != "HEAD")
        assert len(s.upstream.requests) == 2
        assert s.edge.stats.limits == {("all", "allowed"): 2, ("all", "limited"): 3}
        assert [each["outcome"] for each in s.records[2:]] == ["edge: rate_limit_exceeded"] * 3


@pytest.mark.parametrize(("dialect", "kind"), [
    ("openai", "requests"), ("responses", "requests"), ("anthropic", "rate_limit_error"),
])  # fmt: skip
async def test_a_refusal_where_a_dialect_is_spoken(protocol: str, dialect: str, kind: str) -> None:
    limits = [{"name": "all", "requests": 1, "key": "http.host", "period": "90s"}]
    async with stand(protocol, limits=limits, routes=routed(dialect=dialect)) as s:
        watched(s)
        wire = await s.dial()
        allowed, refused = await wire.get(), await wire.get("/", [(b"accept", b"text/html")])
        error = json.loads(refused.body)["error"]
        assert (refused.status, error["type"]) == (429, kind)
        if dialect == "anthropic":
            for call in (allowed, refused):
                assert call.values(b"anthropic-ratelimit-requests-limit") == [b"1"]
                assert call.values(b"anthropic-ratelimit-requests-remaining") == [b"0"]
                (moment,) = call.values(b"anthropic-ratelimit-requests-reset")
                assert moment.endswith(b"Z") and moment[10:11] == b"T"
        else:
            assert error["code"] == "rate_limit_exceeded"
            for call in (allowed, refused):
                assert call.values(b"x-ratelimit-limit-requests") == [b"1"]
                assert call.values(b"x-ratelimit-remaining-requests") == [b"0"]
                assert call.values(b"x-ratelimit-reset-requests") == [b"1m30s"]
        # Nobody shall wait for more than a minute by itself.
        assert refused.values(b"retry-after") == [b"90"] and refused.values(b"retry-after-ms") == []
        assert refused.values(b"x-should-retry") == [b"false"]


async def test_a_refusal_of_its_own(protocol: str) -> None:
    limit = {"name": "a", "requests": 1, "status": 420, "body": "calm", "content_type": "text/x-calm"}
    async with stand(protocol, limits=[limit], routes=routed(dialect="openai")) as s:
        wire = await s.dial()
        await wire.get()
        call = await wire.get()
        assert (call.status, call.body, call.values(b"content-type")) == (420, b"calm", [b"text/x-calm"])
        assert call.values(b"retry-after") == [b"60"] and call.values(b"ratelimit-policy") == [b'"a";q=1;w=60']


async def test_a_refused_upload_is_not_read_to_its_end(protocol: str) -> None:
    async with stand(protocol, limits=[{"name": "a", "requests": 1}]) as s:
        wire = await s.dial()
        await wire.get()
        call = wire.call("POST", "/", end=False, length=1 << 20)
        call.send(b"x" * 1000)
        assert await call.head() == 429
        await until(lambda: s.records)
        await s.record(2)


async def test_what_only_the_reply_tells(protocol: str) -> None:
    async def handler(connection: Connection) -> None:
        while True:
            received = await connection.request()
            status = b"404 no" if b"/missing" in received.line else b"200 OK"
            head = b"HTTP/1.1 %b\r\nx-score: 7\r\ncontent-length: 10\r\n\r\n" % status
            connection.write(head + b"0123456789")

    limits = [
        {"name": "bytes", "bytes": 1000, **ALL},
        {"name": "score", "score": 100, "score_header": "x-score", **ALL},
        {"name": "errors", "requests": 2, "counting_expression": "http.response.code eq 404", **ALL},
    ]
    async with stand(protocol, handler, limits=limits) as s:
        store = watched(s)
        wire = await s.dial()
        for _ in range(3):
            assert await wire.call("POST", "/", body=b"12345").reply() == 200
        assert (store.used("bytes"), store.used("score"), store.used("errors")) == (45, 21, 0)
        for _ in range(2):
            assert (await wire.get("/missing")).status == 404
        assert (store.used("bytes"), store.used("score"), store.used("errors")) == (65, 35, 2)
        assert (await wire.get("/")).status == 429
        assert (store.used("bytes"), store.used("score")) == (65, 35), "refused costs nothing"
        assert set(store.settled.values()) == {1}


async def test_what_is_too_much_is_owed(protocol: str) -> None:
    limits = [{"name": "bytes", "bytes": 1000, "key": "http.host", "period": "10s"}]
    async with stand(protocol, echo, limits=limits) as s:
        store = watched(s)
        wire = await s.dial()
        assert await wire.call("POST", "/", body=bytes(2500)).reply() == 200  # 5000 both ways: 40 s more than there is
        assert (await wire.get()).status == 429
        store.now += 39_000_000
        assert (await wire.get()).status == 429
        store.now += 1_100_000
        assert (await wire.get()).status == 200


async def test_at_once(protocol: str) -> None:
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        while True:
            await connection.request()
            connection.write(STREAM + chunk(b"data: 1\n\n"))
            await gate.wait()
            connection.write(b"0\r\n\r\n")

    async with stand(protocol, handler, limits=[{"name": "two", "concurrent": 2, "key": "http.host"}]) as s:
        store = watched(s)
        wires = [await s.dial() for _ in range(4)]
        first, second = [wire.call() for wire in wires[:2]]
        await first.received(9)
        await second.received(9)
        third = await wires[2].get()
        assert third.status == 429 and third.values(b"ratelimit-policy") == [b'"two";q=2;qu="concurrent-requests"']
        # A place may be free at any time: nobody shall wait until it would be taken away from who has it.
        assert third.values(b"retry-after") == [b"1"] and third.values(b"x-should-retry") == [b"true"]
        assert store.used("two") == 2
        first.cancel()
        await until(lambda: store.used("two") == 1)
        fourth = wires[3].call()
        assert await fourth.head() == 200
        gate.set()
        assert await second.reply() == await fourth.reply() == 200
        await until(lambda: store.used("two") == 0)


async def test_on_trial(protocol: str) -> None:
    """Nobody is refused, nobody waits for the answer, and it is settled all the same when it comes late."""
    limits: list[dict[str, Any]] = [
        {"name": "try", "requests": 1, "mode": "log", **ALL},
        {"name": "places", "concurrent": 5, "mode": "log", "key": "http.host"},
    ]  # fmt: skip
    async with stand(protocol, limits=limits) as s:
        store = watched(s)
        store.waits = True
        wire = await s.dial()
        for _ in range(3):
            call = await wire.get()
            assert call.status == 200 and call.values(b"ratelimit") == []
        assert len(store.waiting) == 6, "each by itself"
        store.answer()
        assert (store.used("try"), store.used("places")) == (1, 0), "the first was counted, though its answer was late"
        assert s.edge.stats.limits[("try", "limited")] == 2


async def test_the_store_answers_late(protocol: str) -> None:
    async with stand(protocol, limits=[{"name": "a", "requests": 1}]) as s:
        store = watched(s)
        store.waits = True
        wires = [await s.dial() for _ in range(2)]
        calls = [wire.call("POST", "/", body=b"content") for wire in wires]
        await until(lambda: len(store.waiting) == 2)
        assert s.upstream.connections == [] and not any(call.over for call in calls)
        store.answer()
        assert sorted([await call.reply() for call in calls]) == [200, 429]
        assert len(s.upstream.requests) == 1 and s.upstream.requests[0].body == b"content"


async def test_a_place_is_kept_for_as_long_as_it_takes(protocol: str) -> None:
    gate = asyncio.Event()

    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(STREAM + chunk(b"data: 1\n\n"))
        await gate.wait()
        connection.write(b"0\r\n\r\n")
        await connection.gone()

    limits = [{"name": "one", "concurrent": 1, "key": "http.host"}]
    settings = upstream_settings(timeouts={"idle": "1h"})
    async with stand(protocol, handler, limits=limits, upstreams=settings) as s:
        store = watched(s)
        call = (await s.dial()).call()
        await call.received(9)
        for minute in range(1, 4):
            for part in range(3):
                store.now += 20_000_000
                s.edge.after(60 * minute + 21 * part)
        assert (await (await s.dial()).get()).status == 429, "three minutes later it is still there"
        gate.set()
        assert await call.reply() == 200
        await until(lambda: store.used("one") == 0)


@pytest.mark.parametrize("end", ["client", "upstream"])
async def test_a_tunnel_holds_its_place_and_counts_its_bytes(end: str) -> None:
    one = {"name": "one", "concurrent": 1, "key": "http.host"}
    limits: list[dict[str, Any]] = [one, {"name": "bytes", "bytes": 100_000, **ALL}]
    async with stand("h1", mirror, limits=limits) as s:
        store = watched(s)
        async with connected(s.edge.https_port) as client:
            await client.send(ASK)
            head = await client.take_until(b"\r\n\r\n")
            assert head is not None and head.startswith(b"HTTP/1.1 101 ") and b"\r\nratelimit: " in head
            await client.send(b"x" * 1000)
            assert await client.take(1000) == b"x" * 1000
            assert (await (await s.dial()).get()).status == 429
            assert (store.used("one"), store.used("bytes")) == (1, 0)
            if end == "upstream":
                s.upstream.connections[0].close()
        await until(lambda: store.used("one") == 0)
        assert store.used("bytes") == 2000


async def test_a_tunnel_where_a_dialect_is_spoken_counts_all_but_tokens() -> None:
    limits: list[dict[str, Any]] = [
        {"name": "requests", "requests": 10, **ALL}, {"name": "tokens", "tokens": 1000, **ALL},
        {"name": "bytes", "bytes": 100_000, **ALL}, {"name": "one", "concurrent": 1, "key": "http.host"},
    ]  # fmt: skip
    async with stand("h1", mirror, limits=limits, routes=routed(dialect="openai")) as s:
        store = watched(s)
        async with connected(s.edge.https_port) as client:
            await client.send(ASK)
            head = await client.take_until(b"\r\n\r\n")
            assert head is not None and head.startswith(b"HTTP/1.1 101 ") and b"\r\nx-ratelimit-remaining-requests: 9" in head
            assert b"tokens" not in head and "tokens" not in store.charges, "events of a socket are not read"
            await client.send(b"x" * 1000)
            assert await client.take(1000) == b"x" * 1000
            refused = await (await s.dial()).get()
            assert refused.status == 429 and json.loads(refused.body)["error"]["code"] == "rate_limit_exceeded"
        await until(lambda: store.used("one") == 0)
        assert (store.used("bytes"), store.used("requests")) == (2000, 1) and set(store.settled.values()) == {1}


async def test_a_request_that_is_repeated_is_charged_once(protocol: str) -> None:
    """The upstream's connection was kept, and is gone when the next request is written to it."""
    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await connection.head()
        connection.close()

    limits: list[dict[str, Any]] = [{"name": "all", "requests": 100, **ALL}, {"name": "one", "concurrent": 1, "key": "http.host"}]
    async with stand(protocol, handler, limits=limits) as s:
        store = watched(s)
        wire = await s.dial()
        for _ in range(2):
            assert (await wire.get()).body == b"ok"
        assert len(s.upstream.connections) == 2 and len(s.upstream.requests) == 3
        assert (store.used("all"), store.used("one")) == (2, 0) and set(store.settled.values()) == {1}


@pytest.mark.parametrize("size", [10, 3000])
async def test_rules_limits_and_routes_read_the_same_body(protocol: str, size: int) -> None:
    rules = ruled("- {id: bad, expression: 'http.request.body.raw contains \"bad\"', action: block}")
    routes = routed(dialect="openai", preview="1KiB", models={"m": "main"})
    limits = [{"name": "tokens", "tokens": 100_000, **ALL}, {"name": "all", "requests": 100, **ALL}]
    body = b'{"model":"m","messages":[{"role":"user","content":"%b"}],"max_tokens":5}' % (b"x" * size)
    async with stand(protocol, echo, rules=rules, routes=routes, limits=limits) as s:
        store = watched(s)
        for _ in range(2):
            wire = await s.dial()
            call = wire.call("POST", "/", end=False)
            call.send(body[:20])
            await until(lambda: s.previewed == 20)
            call.send(body[20:], end=True)
            assert await call.head() == (200 if size == 10 else 413)
            if size == 10:
                assert await call.reply() == 200 and call.body == body
        if size == 10:
            assert 0 < store.used("tokens") < 100 and store.used("all") == 2
            bad = wire.call("POST", "/", body=b'{"bad":1}')
            assert await bad.reply() == 403 and store.used("all") == 2, "rules come before limits"
        else:
            assert store.used("tokens") == 0 and s.upstream.connections == []
