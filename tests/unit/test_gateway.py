# The pipeline without a socket: what becomes of a request, and that every exchange is recorded exactly once.
from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.edge import RecordedLog, configuration, prepared

from edgeproxy.deadlines import Deadlines
from edgeproxy.exchange import Exchange
from edgeproxy.faults import Fault, client_fault, upstream_fault
from edgeproxy.gateway import Gateway
from edgeproxy.message import Body, Headers, Peer, Reply, Request
from edgeproxy.observe.metrics import H1, H2, H3, WorkerStats

HSTS = b"strict-transport-security"


class Pool:
    """Takes exchanges and does nothing with them."""

    def __init__(self) -> None:
        self.taken: list[Exchange] = []

    def submit(self, exchange: Exchange) -> None:
        self.taken.append(exchange)


class Attempt:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")

    def cancel(self) -> None:
        self.calls.append("cancel")


class Sink:
    """Remembers what a client would have got."""

    def __init__(self) -> None:
        self.head: Reply | None = None
        self.content = b""
        self.ended = False
        self.aborted: Fault | None = None

    def start(self, reply: Reply, data: bytes, end: bool) -> None:
        assert self.head is None
        self.head = reply
        self.write(data, end)

    def write(self, data: bytes, end: bool) -> None:
        assert not self.ended
        assert self.aborted is None
        self.content += data
        self.ended = end

    def abort(self, fault: Fault) -> None:
        assert not self.ended
        self.aborted = fault

    def proceed(self) -> None: ...

    def trailers(self, fields: Headers) -> None: ...

    def values(self, name: bytes) -> list[bytes]:
        assert self.head is not None
        return [value for key, value in self.head.headers if key == name]


class Stage:
    """A gateway with one route (`/`, and `/chat/` in a dialect, `/small/` with a tiny limit)."""

    def __init__(self, **changes: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.stats = WorkerStats()
        self.log = RecordedLog()
        self.gateway = Gateway(self.loop, Deadlines(self.loop), self.stats, self.log)  # type: ignore[arg-type]
        routes = [
            {"path": "/v1/", "upstream": "main"},
            {"path": "/chat/", "upstream": "main", "dialect": "openai"},
            {"path": "/small/", "upstream": "main", "max_body": "10B"},
            {"path": "/models/", "upstream": "main", "models": {"m": "main"}, "preview": "100B"},
        ]
        snapshot = prepared(configuration(**{"routes": routes, **changes}))
        self.pool = Pool()
        for route in snapshot.routes:
            route.stats = self.stats.route(route.name)
            route.pool = self.pool  # type: ignore[assignment]
            route.pools = {"main": self.pool}  # type: ignore[dict-item]
        self.gateway.snapshot = snapshot

    def open(
        self, target: bytes = b"/v1/x", method: bytes = b"GET", *, headers: Headers | None = None, length: int | None = 0,
        secure: bool = True, host: bytes = b"localhost",
    ) -> tuple[Exchange, Sink]:  # fmt: skip
        peer = Peer("192.0.2.1", trusted=False, secure=secure)
        request = Request(method, host, target, headers or [], length, H1, peer)
        body = Body(None)
        body.done = length == 0
        sink = Sink()
        return self.gateway.open(request, self.gateway.plan(request), body, sink), sink

    def run(self, *args: Any, **kwargs: Any) -> tuple[Exchange, Sink]:
        exchange, sink = self.open(*args, **kwargs)
        self.gateway.run(exchange)
        return exchange, sink

    @property
    def record(self) -> dict[str, Any]:
        """The one line of the log."""
        (line,) = self.log.lines
        record: dict[str, Any] = json.loads(line)
        return record


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.loop.close()


def test_a_request_goes_to_its_routes_pool(stage: Stage) -> None:
    exchange, sink = stage.run()
    assert stage.pool.taken == [exchange]
    assert sink.head is None
    assert stage.log.lines == []


@pytest.mark.parametrize(
    ("target", "method", "host", "status", "outcome"),
    [
        (b"/", b"GET", b"localhost", 404, "edge: no_route"),
        (b"/v1/../x", b"GET", b"localhost", 400, "client: path"),
        (b"/v1/%2e%2e/x", b"GET", b"localhost", 400, "client: path"),
        (b"/v1/x", b"TRACE", b"localhost", 405, "client: method"),
        (b"/v1/x", b"GET", b"a b", 400, "client: host"),
    ],
)
def test_refusals(stage: Stage, target: bytes, method: bytes, host: bytes, status: int, outcome: str) -> None:
    _, sink = stage.run(target, method, host=host)
    assert sink.head is not None
    assert (sink.head.status, sink.ended) == (status, True)
    assert sink.head.length == len(sink.content) > 0
    assert stage.pool.taken == []
    record = stage.record
    assert (record["status"], record["outcome"], record["bytes_out"]) == (status, outcome, len(sink.content))
    assert len(sink.values(HSTS)) == 1


def test_an_answer_to_head_has_no_content(stage: Stage) -> None:
    _, sink = stage.run(b"/", b"HEAD")
    assert sink.head is not None
    assert (sink.head.bodiless, sink.content) == (True, b"")
    assert (sink.head.length or 0) > 0
    assert stage.record["bytes_out"] == 0


@pytest.mark.parametrize(("length", "refused"), [(10, False), (11, True), (None, False)])
def test_a_declared_length_over_the_routes_limit(stage: Stage, length: int | None, refused: bool) -> None:
    exchange, sink = stage.run(b"/small/", b"POST", length=length)
    assert bool(stage.pool.taken) is not refused
    assert (sink.head is not None) is refused
    if not refused:
        assert exchange.body.limit == 10


def test_plain_http_is_redirected_without_hsts(stage: Stage) -> None:
    _, sink = stage.run(b"/v1/x?y", secure=False)
    assert sink.head is not None
    assert sink.head.status == 308
    assert sink.values(b"location") == [b"https://localhost:8443/v1/x?y"]
    assert sink.values(HSTS) == []
    assert stage.stats.redirects == 1


@pytest.mark.parametrize("host", [b"127.0.0.1", b"[::1]:8443"])
def test_no_hsts_for_addresses(stage: Stage, host: bytes) -> None:
    _, sink = stage.run(b"/", host=host)
    assert sink.values(HSTS) == []


def test_a_reply_is_passed_with_the_edges_own_fields(stage: Stage) -> None:
    exchange, sink = stage.run()
    # Fields that only the edge may set were left out by the upstream connection (tests/unit/upstream).
    fields = [(b"content-type", b"text/plain"), (b"x-a", b"b")]
    stage.gateway.reply(exchange, Reply(200, fields, 2), b"ok", True)
    assert sink.values(HSTS) == [b"max-age=63072000; includeSubDomains"]
    assert sink.values(b"x-ray-id") == [exchange.ray]
    assert sink.values(b"x-a") == [b"b"]
    assert sink.values(b"x-accel-buffering") == []
    assert stage.record["outcome"] == "ok"


def test_an_event_stream_is_marked(stage: Stage) -> None:
    exchange, sink = stage.run()
    stage.gateway.reply(exchange, Reply(200, [(b"content-type", b"text/event-stream")], None, stream=True), b"", False)
    assert sink.values(b"cache-control") == [b"no-cache, no-transform"]
    assert sink.values(b"x-accel-buffering") == [b"no"]


def test_a_failure_before_the_head_is_an_answer(stage: Stage) -> None:
    exchange, sink = stage.run(b"/chat/x", b"POST")
    exchange.attempt = attempt = Attempt()
    exchange.fail(upstream_fault(502, "closed", "It went away."))
    assert sink.head is not None
    assert sink.head.status == 502
    assert json.loads(sink.content)["error"]["code"] == "closed"
    assert attempt.calls == ["cancel"]
    assert exchange.body.unwanted
    assert stage.stats.faults == {("upstream", "closed"): 1}
    assert stage.record["outcome"] == "upstream: closed"


@pytest.mark.parametrize(
    ("target", "tail", "event"),
    [
        (b"/chat/x", b"data: 1\n\n", True),
        (b"/chat/x", b"data", False),
        (b"/chat/x", b"", False),
        (b"/v1/x", b"data: 1\n\n", False),
    ],
)
def test_a_failure_behind_the_head_is_a_reset(stage: Stage, target: bytes, tail: bytes, event: bool) -> None:
    exchange, sink = stage.run(target)
    stage.gateway.reply(exchange, Reply(200, [], None), b"begun", False)
    fault = upstream_fault(502, "truncated", "It broke off.")
    exchange.fail(fault, tail)
    assert sink.aborted is fault
    assert not sink.ended
    assert (sink.content != b"begun") is event
    assert (stage.record["status"], stage.record["outcome"]) == (200, "upstream: truncated")


def test_whatever_comes_behind_the_end_is_ignored(stage: Stage) -> None:
    """Every exchange is recorded once, and a sink never hears of it again."""
    exchange, sink = stage.run()
    stage.gateway.reply(exchange, Reply(200, [], 2), b"ok", True)
    exchange.write(b"more", False)
    exchange.fail(upstream_fault(502, "closed", "m"))
    exchange.cancel()
    stage.gateway.reply(exchange, Reply(200, [], 2), b"ok", True)
    stage.gateway.end(exchange, "again")
    assert sink.content == b"ok"
    assert stage.record["outcome"] == "ok"
    assert sum(stage.stats.routes["*/v1/"].requests) == 1
    assert stage.stats.faults == {}


def test_a_client_that_leaves_stops_the_work(stage: Stage) -> None:
    exchange, sink = stage.run()
    exchange.attempt = attempt = Attempt()
    exchange.cancel()
    exchange.cancel()
    assert attempt.calls == ["cancel"]
    assert sink.head is None
    assert sink.aborted is None
    record = stage.record
    assert (record["status"], record["outcome"], record["first_byte_ms"]) == (0, "client_gone", None)
    assert stage.stats.routes["*/v1/"].requests[0] == 1


def test_back_pressure_goes_through(stage: Stage) -> None:
    exchange, _ = stage.run()
    exchange.pause()  # nobody works on it yet
    exchange.attempt = attempt = Attempt()
    exchange.pause()
    exchange.resume()
    assert attempt.calls == ["pause", "resume"]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b'{"model": "m"}', 0), (b'{"model": "other"}', 0), (b"{}", 0), (b"[]", 400), (b'{"model": 1}', 400),
        (b"\xff", 400), (b"x" * 101, 413),
    ],
)
def test_a_preview_decides_when_all_is_here(stage: Stage, content: bytes, status: int) -> None:
    exchange, sink = stage.run(b"/models/x", b"POST", length=None)
    for at in range(len(content)):
        assert stage.pool.taken == []
        if sink.head is None:
            exchange.body.push(content[at : at + 1])
    exchange.body.finish()
    assert (sink.head.status if sink.head else 0) == status
    if not status:
        assert stage.pool.taken == [exchange]
        assert exchange.body.take() == content
        assert exchange.body.whole


@pytest.mark.parametrize(("host", "hsts"), [(b"localhost", 1), (b"192.0.2.9", 0), (None, 1)])
def test_bytes_that_are_no_request_are_recorded_too(stage: Stage, host: bytes | None, hsts: int) -> None:
    peer = Peer("192.0.2.1", trusted=False, secure=True)
    reply, content = stage.gateway.refusal(client_fault(400, "malformed", "m"), peer, H1, host)
    assert [name for name, _ in reply.headers].count(HSTS) == hsts
    assert reply.status == 400
    assert reply.length == len(content)
    record = stage.record
    assert (record["status"], record["outcome"], record["client"]) == (400, "client: malformed", "192.0.2.1")
    assert record["bytes_out"] == len(content)
    assert stage.stats.routes["-"].requests[4] == 1


@pytest.mark.parametrize(("protocol", "secure", "told"), [(H1, True, 1), (H2, True, 1), (H3, True, 0), (H1, False, 0)])
def test_refusals_tell_of_h3_like_any_answer(stage: Stage, protocol: int, secure: bool, told: int) -> None:
    peer = Peer("192.0.2.1", trusted=False, secure=secure)
    reply, _ = stage.gateway.refusal(client_fault(400, "malformed", "m"), peer, protocol, b"localhost")
    assert [name for name, _ in reply.headers].count(b"alt-svc") == told
