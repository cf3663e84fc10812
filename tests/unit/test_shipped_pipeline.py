# The shipped rule files in the pipeline: attacks are refused in the caller's dialect, and a chat pays nothing.
"""Rules of rules/*.yaml through gateway and plan, with a real listener's protocol and no sockets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.edge import certificates
from support.pipeline import RecordingPool, Stand

from edgeproxy.config.load import build
from edgeproxy.config.model import Config

CHAT = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b"user-agent: OpenAI/Python 1.99\r\n"
)


def stand(**shipped: Any) -> Stand:
    paths = certificates()
    config = build({
        "listen": {"https": "127.0.0.1:8443", "admin": None},
        "tls": {"certificates": [{"cert": str(paths.cert), "key": str(paths.key)}]},
        "upstreams": {"main": {"targets": [{"url": "http://127.0.0.1:1"}]}},
        "routes": [{"path": "/v1/", "upstream": "main", "dialect": "openai"}, {"upstream": "main"}],
        "shipped": shipped,
    })  # fmt: skip
    made = Stand(Config.model_validate_json(config.model_dump_json()))  # as it travels to a worker
    pool = RecordingPool()
    for route in made.snapshot.routes:
        route.pools = cast("Any", {"main": pool})
        route.pool = cast("Any", pool)
    made.gateway.log = cast("Any", SimpleNamespace(lines=[], flush=lambda: None))
    return made


def test_a_chat_goes_straight_to_its_pool() -> None:
    made = stand()
    driver = made.h1()
    driver.feed(CHAT + b"content-length: 2\r\n\r\n{}")
    pool = cast("RecordingPool", made.snapshot.routes[0].pool)
    assert len(pool.jobs) == 1
    plan = cast("Any", pool.jobs[0]).exchange.plan
    assert plan.direct and plan.ruling is None and plan.answering is None
    assert not made.stats.rule_hits


@pytest.mark.parametrize(("head", "status", "rule"), [
    (b"GET /.git/config HTTP/1.1\r\nhost: localhost\r\n", b"403", "baseline-vcs"),
    (b"GET /v1/.env HTTP/1.1\r\nhost: localhost\r\n", b"403", "baseline-dotfiles"),
    (CHAT.replace(b"OpenAI/Python 1.99", b"sqlmap/1.8"), b"403", "baseline-scanner-agents"),
    (CHAT.replace(b"application/json", b"text/html"), b"415", "chat-content-types"),
    (CHAT.replace(b"POST", b"PROPFIND"), b"405", "chat-methods"),
])  # fmt: skip
def test_attacks_are_refused(head: bytes, status: bytes, rule: str) -> None:
    made = stand()
    driver = made.h1()
    driver.feed(head + b"content-length: 0\r\n\r\n")
    assert driver.link.written.startswith(b"HTTP/1.1 %b " % status)
    assert (b'"param"' in driver.link.written) is head.split()[1].startswith(b"/v1/"), "in the dialect of the route"
    assert made.stats.rule_hits[rule, "block"] == 1


def test_tried_and_turned_off() -> None:
    made = stand(baseline="log")
    made.h1().feed(b"GET /.git/config HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert made.stats.rule_hits == {("baseline-vcs", "log"): 1}
    assert len(cast("RecordingPool", made.snapshot.routes[0].pool).jobs) == 1
    made = stand(baseline=False)
    made.h1().feed(b"GET /.git/config HTTP/1.1\r\nhost: localhost\r\n\r\n")
    assert not made.stats.rule_hits
