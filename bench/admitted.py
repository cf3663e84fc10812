# What limits add to an exchange in the pipeline: the gateway between a listener and a pool that only pretend. No network.
"""`python -m bench.admitted [--rounds N] [--seconds S]`: CPU µs an exchange, with and without limits, and what lies between.

The plan is made once, as for the repeated heads of a client; the sink renders the reply's head as HTTP/1.1 does. A streamed
chat is `CHUNKS` chunks with one event each, then the usage and `[DONE]`. Cases take turns; the figure is the least of all
rounds, since a busy machine only adds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from edgeproxy.certs import CertificatePaths, make_development
from edgeproxy.config.load import build
from edgeproxy.config.model import Config
from edgeproxy.dataplane import DataPlane
from edgeproxy.deadlines import Deadlines
from edgeproxy.exchange import Exchange
from edgeproxy.faults import Fault
from edgeproxy.gateway import Gateway
from edgeproxy.listen.h1_reply import reply_head
from edgeproxy.message import Body, Headers, Peer, Reply, Request
from edgeproxy.observe.metrics import H1, WorkerStats

CHUNKS = 50
EVENT = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}\n\n'  # noqa: E501
END = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":50,"total_tokens":62}}\n\n'  # noqa: E501
DONE = b"data: [DONE]\n\n"
HEADERS: Headers = [
    (b"user-agent", b"OpenAI/Python 1.50.0"), (b"accept", b"application/json"), (b"content-type", b"application/json"),
    (b"authorization", b"Bearer sk-0123456789"), (b"x-team", b"red"),
]  # fmt: skip
BODY = (
    b'{"model":"m","max_tokens":100,"messages":[{"role":"system","content":"You are a helpful assistant."},'
    b'{"role":"user","content":"Tell me something about the weather in the mountains, in a few words."}]%b}'
)
STREAM = b',"stream":true,"stream_options":{"include_usage":true}'
PLAIN = b'{"id":"x","choices":[{"message":{"content":"It is cold up there."}}],"usage":{"prompt_tokens":30,"completion_tokens":8,"total_tokens":38}}'  # noqa: E501
STABLE = {"name": "per-ip", "key": ["ip.src"], "requests": 1_000_000, "period": "60s"}
VOLATILE = {"name": "per-ray", "key": ["ip.src", "http.request.timestamp.sec"], "requests": 1_000_000, "period": "60s"}
TOKENS = {"name": "tokens", "key": ["ip.src"], "tokens": 1_000_000_000, "period": "60s"}
PATHS: CertificatePaths
PLACES = {"name": "places", "key": ["ip.src"], "concurrent": 100}


class Pool:
    """Answers at once, with what it was given."""

    quoted = b'"http://127.0.0.1:1"'  # as a target has it, for the log

    def __init__(self) -> None:
        self.head: Headers = []
        self.stream = False
        self.parts: list[bytes] = []

    def submit(self, exchange: Exchange, _tries: int = 0) -> None:
        exchange.served_by = cast("Any", self)
        body = exchange.body
        body.take()
        parts = self.parts
        if len(parts) == 1:
            exchange.gateway.reply(exchange, Reply(200, self.head.copy(), len(parts[0])), parts[0], True)
            return
        exchange.gateway.reply(exchange, Reply(200, self.head.copy(), None, stream=True), parts[0], False)
        write = exchange.write
        for part in parts[1:]:
            write(part, False)
        write(b"", True)


class Sink:
    """Renders the head, and forgets it."""

    def start(self, reply: Reply, _data: bytes, _end: bool) -> None:
        reply_head(reply, reply.length, close=False, minor=1)

    def write(self, data: bytes, end: bool) -> None:
        """Nothing."""

    def abort(self, fault: Fault) -> None:
        raise RuntimeError(fault.reason)

    def proceed(self) -> None:
        """Nothing."""

    def trailers(self, fields: Headers) -> None:
        """Nothing."""


def gateway_of(pool: Pool, paths: CertificatePaths, **sections: Any) -> Gateway:
    """A gateway whose upstream is that pool.

    Args:
        sections: further ones of the configuration.
    """
    config = build({
        "listen": {"https": "127.0.0.1:8443", "admin": None}, "shipped": {"baseline": False, "chat": False},
        "tls": {"certificates": [{"cert": str(paths.cert), "key": str(paths.key)}]},
        "upstreams": {"main": {"targets": [{"url": "http://127.0.0.1:1"}]}},
        "routes": [{"upstream": "main"}, {"path": "/v1/", "upstream": "main", "dialect": "openai"}],
        **sections,
    })  # fmt: skip
    gateway = Gateway(cast("Any", None), cast("Any", Deadlines)(cast("Any", Clock())), WorkerStats(), None)
    snapshot = DataPlane.prepare(Config.model_validate(config), bytes(80), instance="0123456789ab")
    for route in snapshot.routes:
        route.stats = gateway.stats.route(route.name)
        route.pools = cast("Any", {"main": pool})
        route.pool = cast("Any", pool)
    gateway.snapshot = snapshot
    return gateway


class Case:
    """A gateway of its own, and one request that comes again and again."""

    def __init__(self, name: str, limits: list[dict[str, Any]], path: bytes, parts: list[bytes], body: bytes = b"") -> None:
        self.name = name
        self.best = float("inf")
        pool = Pool()
        pool.parts, pool.stream = parts, len(parts) > 1
        kind = b"text/event-stream" if pool.stream else b"application/json"
        pool.head = [(b"content-type", kind), (b"server", b"x"), (b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")]
        gateway = self.gateway = gateway_of(pool, PATHS, limits=limits)
        self.peer = Peer("192.0.2.1", trusted=False, secure=True)
        self.body, self.path, self.sink = body, path, cast("Any", Sink())
        self.request = self._request()
        self.plan = gateway.plan(self.request)

    def _request(self) -> Request:
        return Request(b"POST" if self.body else b"GET", b"localhost", self.path, HEADERS, len(self.body), H1, self.peer)

    def once(self) -> None:
        """As a listener does with a head that it knows."""
        gateway, content = self.gateway, self.body
        body = Body(None)
        if content:
            body.chunks.append(content)
            body.received = len(content)
        body.done = True
        exchange = gateway.open(self._request(), self.plan, body, self.sink)
        gateway.run(exchange)
        if exchange.sink is not None:
            raise RuntimeError("it did not end")

    def measure(self, seconds: float) -> None:
        once, count = self.once, 0
        for _ in range(20):
            once()
        began = time.process_time()
        while (used := time.process_time() - began) < seconds:
            for _ in range(50):
                once()
            count += 50
        self.best = min(self.best, used / count * 1e6)


class Clock:
    """A loop's, for deadlines that nobody sweeps."""

    def time(self) -> float:
        return 1000.0

    def call_later(self, *_: Any) -> Any:
        return None


def cases() -> list[tuple[Case, list[Case]]]:
    """Each without limits, and with them."""
    small, events = [PLAIN], [EVENT] * CHUNKS + [END, DONE]
    chat, streamed, silent = BODY % b"", BODY % STREAM, BODY % b',"stream":true'
    make: Callable[..., Case] = Case
    return [
        (make("a GET", [], b"/x", small), [
            make("+ one limit", [STABLE], b"/x", small),
            make("+ two limits", [STABLE, {**STABLE, "name": "more"}], b"/x", small),
            make("+ a limit whose key is asked for", [VOLATILE], b"/x", small),
            make("+ a limit of concurrency", [PLACES], b"/x", small),
        ]),
        (make("a chat, whole", [], b"/v1/chat/completions", small, chat), [
            make("+ requests", [STABLE], b"/v1/chat/completions", small, chat),
            make("+ tokens", [TOKENS], b"/v1/chat/completions", small, chat),
        ]),
        (make(f"a chat, streamed ({CHUNKS} chunks)", [], b"/v1/chat/completions", events, streamed), [
            make("+ requests", [STABLE], b"/v1/chat/completions", events, streamed),
            make("+ tokens", [TOKENS], b"/v1/chat/completions", events, streamed),
            make("+ requests, tokens and concurrency", [STABLE, TOKENS, PLACES], b"/v1/chat/completions", events, streamed),
        ]),
        (make("the same, whose client asks for no usage", [], b"/v1/chat/completions", events, silent), [
            make("+ tokens", [TOKENS], b"/v1/chat/completions", events, silent),
        ]),
    ]  # fmt: skip


def main() -> None:
    global PATHS  # noqa: PLW0603
    parser = argparse.ArgumentParser(prog="python -m bench.admitted", description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.15)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        PATHS = make_development(Path(folder), ("localhost",))
        known = cases()
    for _ in range(options.rounds):
        for without, limited in known:
            for case in (without, *limited):
                case.measure(options.seconds)
    print(f"{'':46} {'CPU µs':>8} {'added':>8}")
    for without, limited in known:
        print(f"{without.name:46} {without.best:8.2f}")
        for case in limited:
            print(f"  {case.name:44} {case.best:8.2f} {case.best - without.best:8.2f}")


if __name__ == "__main__":
    main()
