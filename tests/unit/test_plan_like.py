# A head that differs in its target alone comes to what it would come to on a connection of its own.
"""plan.py (`like`), with listen/repeat.py, rules, keys, dialects and the log: whole requests in, everything out."""

from __future__ import annotations

import gc
import json
import re
import tracemalloc
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.edge import certificates
from support.pipeline import Stand

from edgeproxy.config.keys import HASH
from edgeproxy.config.load import build
from edgeproxy.config.model import Config
from edgeproxy.config.secret import TO_WORKERS
from edgeproxy.message import Peer, Request
from edgeproxy.plan import Plan, akin
from edgeproxy.policy.keytext import derive, hashed, make
from edgeproxy.prints import Prints
from edgeproxy.rules.facts import OF_FIELD_LINES, Facts

if TYPE_CHECKING:
    from pathlib import Path

PEPPER = derive(b"p" * 64)
KEYS = {name: make() for name in ("plain", "bound")}
RULES = """
- {id: agent, expression: 'http.user_agent contains "bad" and not http.request.uri.path eq "/spared"', action: block}
- {id: names, expression: 'has_key(http.request.headers, "x-old") and starts_with(http.request.uri.path, "/old")',
   action: redirect, status: 301, location_expression: 'concat("https://localhost/new?", http.request.uri.query)'}
- {id: write, expression: 'http.request.uri.path eq "/write" and any(http.request.headers.values[*] contains "one")',
   action: rewrite, path: /v1/written, headers: {set: {x-made: {expression: 'http.cookie'}, user-agent: bad}}}
- {id: after, expression: 'http.user_agent contains "bad" and http.request.uri.path eq "/v1/written"', action: set, tags: [after]}
- {id: way, expression: 'http.request.uri.query contains "other" and http.cookie contains "a=b"', action: route, upstream: other}
- {id: body, expression: 'http.request.uri.path eq "/body" and http.request.body.raw contains "evil"', action: block}
- {id: shown, expression: 'http.request.uri.path contains "x" and http.response.code ge 200', phase: response, action: rewrite,
   headers: {set: {x-shown: {expression: 'http.user_agent'}}}}
- {id: dialect, expression: 'edge.route.dialect eq "openai" and http.request.accepted_languages[0] eq "de"',
   action: set, tags: [de]}
"""
TARGETS = [
    b"/", b"/x", b"/spared", b"/old?a=b", b"/write", b"/v1/chat/completions", b"/v1/written", b"/body", b"/may/x", b"/x?other",
    b"/a/../b", b"/none/", b"/.git/config", b"/?q=union", b"/v1/models",
]  # fmt: skip
HEADS = [
    b"", b"User-Agent: bad\r\n", b"X-Old: 1\r\nCookie: a=b\r\n", b"X-A: one\r\nCookie: a=b\r\nUser-Agent: ok\r\nX-A: two\r\n",
    b"Authorization: Bearer %b\r\n" % KEYS["plain"].text.encode(), b"Authorization: Bearer sk-wrong\r\nAccept-Language: de\r\n",
    b"Authorization: Bearer %b\r\n" % KEYS["bound"].text.encode(), b"X-Stainless-Retry-Count: 2\r\nAccept: text/html\r\n",
]  # fmt: skip
FIELDS = [
    *((name.lower(), value) for each in HEADS for name, value in [line.split(b": ", 1) for line in each.split(b"\r\n") if line]),
    (b"x-forwarded-for", b"203.0.113.9"), (b"x-forwarded-for", b"198.51.100.1, 203.0.113.7"), (b"cdn-loop", b"edgeproxy; x=1"),
    (b"via", b"1.1 edgeproxy"), (b"content-type", b"text/html"), (b"x-forwarded-host", b"other"),
]  # fmt: skip
_RAY = re.compile(rb"\b[0-9a-f]{16}\b")
_TIMES = re.compile(rb'"(time|ray|duration_ms|first_byte_ms)":[^,]*')


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Stand:
    folder: Path = tmp_path_factory.mktemp("like")
    (folder / "r.yaml").write_text(f"rules:{RULES}")
    (folder / "pepper").write_bytes(b"p" * 64)
    keys = [
        {"id": KEYS[name].id, "name": name, "hash": HASH + hashed(KEYS[name].text.encode(), PEPPER).hex(), **more}
        for name, more in (("plain", {}), ("bound", {"networks": ["203.0.113.0/24"]}))
    ]
    (folder / "keys.yaml").write_text(yaml.safe_dump({"keys": keys}))
    (folder / "own").write_text("sk-upstream\n")
    paths, target = certificates(), {"url": "http://127.0.0.1:1"}
    config = build({
        "listen": {"https": "127.0.0.1:8443", "admin": None},
        "tls": {"certificates": [{"cert": str(paths.cert), "key": str(paths.key)}]},
        "upstreams": {"main": {"targets": [target]}, "other": {"targets": [target], "key": {"file": str(folder / "own")}}},
        "routes": [
            {"path": "/v1/", "upstream": "main", "dialect": "openai"}, {"path": "/may/", "upstream": "other", "keys": "optional"},
            {"path": "/", "upstream": "main", "keys": "off"},
        ],
        "keys": {"file": str(folder / "keys.yaml"), "pepper": str(folder / "pepper")},
        "rules": [str(folder / "r.yaml")], "bots": {"enabled": True, "model": "off"},
    })  # fmt: skip
    made = Stand(Config.model_validate_json(config.model_dump_json(context=TO_WORKERS)))  # as it travels to a worker
    made.gateway.log = cast("Any", SimpleNamespace(lines=[], flush=lambda: None))
    return made


def asked(stand: Stand, heads: list[bytes]) -> list[tuple[Any, ...]]:
    """What each request comes to, on one connection; all answers are whole before the next one."""
    driver, found = stand.h1(), []
    lines: list[bytes] = stand.gateway.log.lines  # type: ignore[union-attr]  # the list above
    for head in heads:
        stand.pool.jobs = []
        driver.link.written = b""
        lines.clear()
        driver.feed(head)
        assert driver.h1.exchange is None, "whole requests have whole answers"
        found.append((driver.seen(), _RAY.sub(b"", driver.link.text), [_TIMES.sub(rb'"\1":0', line) for line in lines]))
        if driver.link.is_closing():
            driver = stand.h1()
    return found


def head(target: bytes, fields: bytes, body: bytes) -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: localhost\r\n%bContent-Length: %d\r\n\r\n%b" % (target, fields, len(body), body)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(HEADS),
    st.lists(st.tuples(st.sampled_from(TARGETS), st.sampled_from([b"", b"{}", b"evil", b"evil"])), min_size=2, max_size=8),
)
def test_the_same_as_alone(stand: Stand, fields: bytes, asks: list[tuple[bytes, bytes]]) -> None:
    heads = [head(target, fields, body) for target, body in asks]
    assert asked(stand, heads) == [asked(stand, [each])[0] for each in heads]


def test_what_the_cases_come_to(stand: Stand) -> None:
    """That the property above is about something: each rule and each key has its effect behind another target."""
    def outcome(fields: bytes, target: bytes, body: bytes = b"{}") -> tuple[int, list[str], str]:
        before = [head(b"/", fields, b""), head(b"/v1/models", fields, b"")]
        _, written, lines = asked(stand, [*before, head(target, fields, body)])[2]
        line = json.loads(lines[0])
        return line["status"], line.get("rules", []), "x-shown" if b"x-shown: " in written else ""

    assert outcome(HEADS[1], b"/x") == (403, ["agent", "shown"], "x-shown")
    assert outcome(HEADS[1], b"/spared") == (200, [], "")
    assert outcome(HEADS[2], b"/old?a=b") == (301, ["names"], "")
    assert outcome(HEADS[3], b"/write")[:2] == (401, ["write", "after", "chat-paths"])
    assert outcome(HEADS[3], b"/x?other") == (200, ["way", "shown"], "x-shown")
    assert outcome(HEADS[3], b"/body", b"evil")[:2] == (403, ["body"])
    assert outcome(HEADS[4], b"/v1/chat/completions") == (200, [], "")
    assert outcome(HEADS[6], b"/v1/chat/completions")[0] == 403
    assert outcome(HEADS[5], b"/v1/chat/completions")[:2] == (401, ["dialect"])
    assert outcome(HEADS[0], b"/.git/config")[:2] == (403, ["baseline-vcs"])


def told(plan: Plan, request: Request) -> tuple[Any, ...]:
    """What a plan comes to, and what rules and limits of its exchanges read."""
    prepared, keyed, forward, scored = getattr(plan.ruling, "_prepared", None), plan.keyed, plan.forward, plan.scored
    assert scored is not None
    facts = plan.facts(request, b"0" * 16)
    return (
        plan.route and plan.route.name, plan.fault and plan.fault.reason, plan.location, plan.fields, plan.reply_fields,
        plan.direct, plan.client, plan.host, plan.retry, plan.log, forward and (forward.target, forward.headers),
        keyed and (keyed.key, keyed.problem and keyed.problem.kind), plan.answering and plan.answering._rules,
        prepared and ([(part.found, part.candidates) for part in prepared.parts], prepared.closed, prepared.failed),
        prepared and prepared.decision and prepared.decision.hits, scored.current().value, scored.marks().path,
        facts.http_cookie, facts.http_request_headers, facts.http_user_agent, facts.http_request_uri, facts.ip_src,
        facts.text_lower_header_text, facts.raw_http_request_headers, facts.edge_key_id, facts.dialect,
    )  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([0, 1, 2]), st.booleans(), st.sampled_from(["", "t13d1516h2_8daaf6152771_b186095e22b6"]),
    st.lists(st.sampled_from(FIELDS), max_size=5),
    st.lists(st.tuples(
        st.sampled_from(TARGETS), st.sampled_from([b"GET", b"GET", b"GET", b"POST", b"TRACE"]),
        st.sampled_from([b"localhost"] * 4 + [b"LOCALHOST:1", b"127.0.0.1", b"a..b"]), st.sampled_from([0, None, 5]),
        st.booleans(),
    ), min_size=2, max_size=9),
)  # fmt: skip
def test_a_plan_made_from_another_is_the_same(
    stand: Stand, protocol: int, trusted: bool, ja4: str, fields: list[tuple[bytes, bytes]], asks: list[tuple[Any, ...]]
) -> None:
    """For all protocols, and proxies that are trusted; whoever moves to another address is somebody else."""
    def peer(address: str) -> Peer:
        made = Peer(address, trusted=trusted, secure=True)
        if not trusted:
            made.prints = Prints(b"")
            made.prints.ja4 = made.prints.ja4n = ja4
        return made

    gateway, last, known, at = stand.gateway, None, None, "192.0.2.1"
    connection = peer(at)
    for target, method, host, length, moves in asks:
        if moves:
            at = "203.0.113.9" if at == "192.0.2.1" else "192.0.2.1"
            connection = peer(at)
        request = Request(method, host, target, list(fields), length, protocol, connection)
        alone = Request(method, host, target, list(fields), length, protocol, peer(at))
        plan = gateway.plan(request, akin(last, known, request, gateway.snapshot))
        assert told(plan, request) == told(gateway.plan(alone), alone)
        last, known = plan, request


def test_what_a_connection_keeps_of_its_field_lines_is_no_multiple_of_them(tmp_path: Path) -> None:
    """Rules take cookies to pieces, each of which costs thirty times what it cost to send; idle connections are many."""
    expressions = [
        'http.request.cookies["000"][0] eq "x"', 'lower(http.cookie) contains "zzz"', 'http.cookie matches "(?i)z[a-z]+y"',
        'any(lower(http.request.headers.values[*])[*] contains "zzz")', 'any(http.request.headers.values[*] contains "zzz")',
        'http.request.accepted_languages[0] eq "de"', 'http.user_agent contains "zzz"', 'http.request.headers["x-a"][0] eq "b"',
    ]  # fmt: skip
    rules = [{"id": f"r{number}", "expression": each, "action": "block"} for number, each in enumerate(expressions)]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"rules": rules}))
    paths = certificates()
    stand = Stand(build({
        "listen": {"https": "127.0.0.1:8443", "admin": None},
        "tls": {"certificates": [{"cert": str(paths.cert), "key": str(paths.key)}]},
        "upstreams": {"main": {"targets": [{"url": "http://127.0.0.1:1"}]}}, "routes": [{"path": "/", "upstream": "main"}],
        "rules": [str(tmp_path / "r.yaml")],
    }))  # fmt: skip
    fields = b"Cookie: " + b";".join(b"%03x" % number for number in range(1500)) + b"\r\n"

    def kept(*targets: bytes) -> int:
        """Bytes of one idle connection that has asked for these."""
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        driver = stand.h1()
        for target in targets:
            driver.feed(head(target, fields, b""))
            assert driver.h1.exchange is None
            driver.link.written = b""
        stand.pool.jobs = []
        gc.collect()
        assert driver.h1._repeat is not None
        return tracemalloc.get_traced_memory()[0] - before

    targets = (b"/", b"/a", b"/b", b"/c")
    kept(*targets)
    tracemalloc.start()
    try:
        alone, after = kept(b"/"), kept(*targets)
    finally:
        tracemalloc.stop()
    assert after - alone < 8192, "a few containers beside the lines themselves"
    assert Facts.__dict__.keys() >= OF_FIELD_LINES
