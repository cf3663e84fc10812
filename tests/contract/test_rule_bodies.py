# Rules about bodies, and rules' answers to requests whose bodies are still coming, over every protocol.
from __future__ import annotations

import asyncio
import hashlib
import random

import pytest
from support import h3
from support.client import connected
from support.h2 import h2_connected
from support.h3 import h3_connected
from support.heads import GET, POST
from support.upstream import OK, Connection, echo
from support.waiting import until

from .stand import Stand, routed, stand, stuck
from .test_pressure import EDGE, KERNEL, steady
from .test_rules import hits, ruled
from .wires import WIRES

PREVIEW = 64 * 1024
RULES = ruled("""
- {id: first, expression: 'http.request.uri.path eq "/first"', action: block}
- {id: bad, expression: 'starts_with(http.request.uri.path, "/b") and http.request.body.raw contains "bad"', action: block}
- {id: long, expression: 'http.request.uri.path eq "/b/long" and http.request.body.truncated', action: block}
- {id: tail, expression: 'http.request.uri.path eq "/b/tail"', action: rewrite, path: /tail}
- {id: away, expression: 'http.request.uri.path eq "/away"', action: redirect, location: /}
""")


def noise(size: int) -> bytes:
    """Content in which nothing repeats."""
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("length", [None, 9])
async def test_a_body_in_pieces_is_judged_whole(protocol: str, length: int | None) -> None:
    async with stand(protocol, rules=RULES, routes=routed(preview=PREVIEW)) as s:
        wire = await s.dial()
        call = wire.call("POST", "/b", end=False, length=length)
        for piece in (b"so b", b"ad"):
            call.send(piece)
        await until(lambda: s.previewed == 6)
        assert not call.over and s.upstream.connections == []
        call.send(b"...", end=True)
        assert await call.reply() == 403
        assert s.upstream.connections == []
        record = await s.record()
        assert (record["rules"], record["bytes_in"], record["outcome"]) == (["bad"], 9, "client: rule_block")
        assert (await wire.get()).body == b"ok", "the connection serves on"


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("size", [0, 1, PREVIEW - 1, PREVIEW, PREVIEW + 1, 1 << 20, 5 << 20])
async def test_what_was_held_arrives_unchanged(protocol: str, size: int, known: bool) -> None:
    """Also what is larger than the preview, than every window and than every buffer."""
    content = noise(size)
    async with stand(protocol, echo, rules=RULES, routes=routed(preview=PREVIEW), client={"max_body": "10MiB"}) as s:
        wire = await s.dial()
        for number in (1, 2):
            call = wire.call("POST", "/b/tail", end=False, length=size if known else None)
            call.send(content, end=True)
            assert await call.reply(20) == 200
            assert hashlib.sha256(call.body).digest() == hashlib.sha256(content).digest()
            seen = s.upstream.requests[-1]
            assert seen.line == b"POST /tail HTTP/1.1" and seen.body == content
            record = await s.record(number)
            assert (record["bytes_in"], record["bytes_out"], record["rules"]) == (size, size, ["tail"])
        assert hits(s) == {"tail": 2} and s.edge.faults == {}


async def test_what_is_behind_the_preview_goes_to_an_upstream_that_is_slow(protocol: str) -> None:
    gate = asyncio.Event()
    huge = WIRES[protocol].huge

    async def handler(connection: Connection) -> None:
        await connection.head()
        stuck(connection)
        await gate.wait()
        connection.transport.resume_reading()
        await connection.take(huge)
        connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await connection.gone()

    async with stand(protocol, handler, rules=RULES, routes=routed(preview=PREVIEW), client={"max_body": "100MiB"}) as s:
        call = (await s.dial()).call("POST", "/b/tail", end=False, length=huge)
        call.send(bytes(huge), end=True)
        await until(lambda: s.upstream.requests)
        await steady(lambda: call.unsent)
        assert huge - call.unsent < KERNEL
        assert s.queued_up <= EDGE + PREVIEW
        gate.set()
        assert await call.reply(30) == 200
        record = await s.record()
        assert (record["bytes_in"], record["rules"]) == (huge, ["tail"])


async def test_no_more_is_held_than_the_preview(protocol: str) -> None:
    async with stand(protocol, rules=RULES, routes=routed(preview=PREVIEW), client={"max_body": "100MiB"}) as s:
        call = (await s.dial()).call("POST", "/b/long", end=False)
        call.send(bytes(PREVIEW))
        await until(lambda: s.previewed == PREVIEW)
        assert not call.over
        call.send(b"x" * 1000)
        await call.head()
        assert call.status == 403 and s.upstream.connections == []
        assert (await s.record())["rules"] == ["long"]


@pytest.mark.parametrize("how", ["cancel", "reset", "close"])
async def test_the_client_leaves_while_its_body_is_held(protocol: str, how: str) -> None:
    async with stand(protocol, rules=RULES) as s:
        wire = await s.dial()
        call = wire.call("POST", "/b", end=False, length=100)
        call.send(b"bad")
        await until(lambda: s.previewed == 3)
        {"cancel": call.cancel, "reset": wire.reset, "close": wire.close}[how]()
        record = await s.record()
        assert (record["outcome"], record["upstream"], record["bytes_in"]) == ("client_gone", None, 3)
        assert "rules" not in record and hits(s) == {} and s.upstream.connections == []


async def test_a_body_that_stops_coming(protocol: str) -> None:
    async with stand(protocol, rules=RULES) as s:
        call = (await s.dial()).call("POST", "/b", end=False, length=100)
        call.send(b"bad")
        await until(lambda: s.previewed == 3)
        s.edge.after(61)
        assert await call.reply() == 408
        assert hits(s) == {} and s.upstream.connections == []


@pytest.mark.parametrize(("path", "status", "asked"), [("/b", 200, True), ("/first", 403, False), ("/away", 302, False)])
async def test_who_waits_for_100_continue(protocol: str, path: str, status: int, asked: bool) -> None:
    """It is asked for its body when a rule wants to see it, and not when the head was enough."""
    async with stand(protocol, echo, rules=RULES) as s:
        call = (await s.dial()).call("POST", path, [(b"expect", b"100-continue")], end=False, length=4)
        if asked:
            await until(lambda: call.interim or call.over)
            assert call.interim == [100] and s.upstream.connections == []
            call.send(b"body", end=True)
        assert await call.reply() == status
        assert call.interim == ([100] if asked else [])
        assert len(s.upstream.connections) == asked


async def test_a_route_for_what_a_body_says(protocol: str) -> None:
    """A body that rules have looked into can still choose its upstream by model."""
    rules = ruled("- {id: no, expression: 'http.request.body.raw contains \"bad\"', action: block}".replace("no,", "stop,"))
    async with stand(protocol, echo, rules=rules, routes=routed(models={"m": "main"}, dialect="openai")) as s:
        wire = await s.dial()
        for content, status in ((b'{"model": "m"}', 200), (b'{"model": "m", "x": "bad"}', 403), (b'{"model": "else"}', 200)):
            call = wire.call("POST", "/", end=False)
            for at in range(len(content)):
                call.send(content[at : at + 1], end=at + 1 == len(content))
            assert await call.reply() == status
            assert status == 403 or call.body == content


async def answer_serves_on(s: Stand, path: str, status: int) -> None:
    """The client's upload is answered at once, and its connection is of use, or says that it is not."""
    wire = await s.dial()
    for number in range(1, 4):
        call = wire.call("POST", path, end=False, length=1 << 20)
        call.send(bytes(100_000))
        await call.head()
        assert call.status == status
        await until(lambda call=call: call.complete)
        if not wire.multiplexed:
            assert call.values(b"connection") == [b"close"]
            await until(lambda: wire.closed)
            break
        assert (await wire.get()).body == b"ok"
        assert len(s.log.lines) == 2 * number


@pytest.mark.parametrize(("path", "status"), [("/first", 403), ("/away", 302)])
async def test_an_answer_while_the_body_is_coming(protocol: str, path: str, status: int) -> None:
    async with stand(protocol, rules=RULES) as s:
        await answer_serves_on(s, path, status)
        assert s.upstream.requests == [] or s.protocol != "h1"
        lines = [each for each in s.records if each["path"] == path]
        assert {(each["status"], each["upstream"]) for each in lines} == {(status, None)}


@pytest.mark.parametrize("size", [128 * 1024, 900 * 1024])
@pytest.mark.parametrize("path", ["/first", "/b/long"])
async def test_a_client_that_sends_on_reads_the_answer(protocol: str, path: str, size: int) -> None:
    """By head, or behind the preview with more still coming: it must read 403, not a reset."""
    async with stand(protocol, rules=RULES, routes=routed(preview=PREVIEW)) as s:
        call = (await s.dial()).call("POST", path, end=False)
        call.send(bytes(size))
        await call.head()
        assert call.status == 403
        await until(lambda: call.complete)
        assert b"blocked by a rule" in call.body and s.upstream.connections == []


@pytest.mark.parametrize("more", [16 * 1024, 512 * 1024])
async def test_a_client_that_reads_late_still_gets_the_answer(more: int) -> None:
    """HTTP/1.1: closing a socket with unread bytes would reset it, and the answer with it (RFC 9112 §9.6)."""
    async with stand("h1", rules=RULES) as s, connected(s.edge.https_port) as client:
        await client.send(b"POST /first HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n" + bytes(1000))
        await s.record()
        await client.send(bytes(more))
        response = await client.response()
        assert response is not None
        assert (response.status, response.complete, response.closes) == (403, True, True)


@pytest.mark.parametrize("path", ["/first", "/away", "/b/long"])
async def test_windows_come_back_from_blocked_uploads(path: str) -> None:
    """HTTP/2: content that nobody takes is given back as connection window; else the connection would stand still."""
    async def handler(connection: Connection) -> None:
        while True:
            await connection.request()
            connection.write(OK)

    routes = routed(preview=4096)
    async with stand("h2", handler, rules=RULES, routes=routes, client={"max_body": "10MiB"}) as s:
        wire = await s.dial()
        await until(lambda: wire.engine.remote_window_size > 65535)  # type: ignore[attr-defined]
        full = wire.engine.remote_window_size  # type: ignore[attr-defined]
        for _ in range(40):
            call = wire.call("POST", path, end=False)
            call.send(bytes(60_000))
            await until(lambda call=call: call.over)
            assert call.status in {302, 403}, call.error
        await until(lambda: wire.engine.remote_window_size >= full // 2, 2)  # type: ignore[attr-defined]
        assert await wire.call("POST", "/take", (), bytes(2 << 20)).reply() == 200


BEHIND = ["/first", "/away", "/b/long"]


@pytest.mark.parametrize("path", BEHIND)
async def test_h2_is_told_to_stop_without_an_error(path: str) -> None:
    """RFC 9113 §8.1: RST_STREAM with NO_ERROR behind a complete answer."""
    async with stand("h2", rules=RULES, routes=routed(preview=100)) as s, h2_connected(s.edge.https_port) as client:
        fields = [*POST[:-1], (b":path", path.encode())]
        await client.send(client.headers(1, fields, end=False), client.content(1, bytes(1000), end=False))
        stream = await client.over(1)
        assert stream.status in {302, 403} and stream.ended
        await client.until(lambda: stream.reset is not None)
        assert stream.reset == 0
        await client.send(client.content(1, bytes(1000)), client.headers(3, GET))  # what was on its way does no harm
        assert (await client.over(3)).status == 200 and client.goaway is None
        await client.client.leave()


@pytest.mark.parametrize("path", BEHIND)
async def test_h3_is_told_to_stop_without_an_error(path: str) -> None:
    """RFC 9114 §4.1: STOP_SENDING with H3_NO_ERROR; the answer itself is never reset."""
    async with stand("h3", rules=RULES, routes=routed(preview=100)) as s, h3_connected(s.edge.https_port) as client:
        fields = [*POST[:-1], (b":path", path.encode())]
        reply = await client.over(client.request(h3.headers(fields), h3.data(bytes(1000)), end=False))
        assert reply.status in {302, 403} and reply.reset is None
        await until(lambda: reply.stopped is not None)
        assert reply.stopped == h3.NO_ERROR
        await client.fine(GET)


async def test_a_reload_while_a_body_is_held(protocol: str) -> None:
    """The request is judged by the rules it began with, the next one by the new ones."""
    async with stand(protocol, echo, rules=RULES) as s:
        wire = await s.dial()
        call = wire.call("POST", "/b", end=False, length=6)
        call.send(b"so ")
        await until(lambda: s.previewed == 3)
        s.reload()
        call.send(b"bad", end=True)
        assert await call.reply() == 403
        again = wire.call("POST", "/b", (), b"so bad")
        assert await again.reply() == 200 and again.body == b"so bad"
