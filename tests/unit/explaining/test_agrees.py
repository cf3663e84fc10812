# What is explained is what happens: random rules and requests through an explanation and through a real gateway.
from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.explaining import CLIENT, Real, asked, config_with
from support.rules import trees

from edgeproxy.explaining.answer import Explanation
from edgeproxy.rules.syntax import show

IDS = "abcdefg"
_SIMPLE = st.sampled_from([
    'http.request.uri.path eq "/"', 'starts_with(http.request.uri.path, "/v1/")', 'http.request.uri.path eq "/gone"',
    'any(http.request.headers["x-a"][*] eq "1")', 'any(http.request.headers["x-a"][*] eq "2")', "true", "false",
    'edge.route.dialect eq "openai"', 'raw.http.request.uri.path eq "/"', 'http.host eq "a.sub.example"', "ip.src in $nets",
    'http.request.body.raw contains "bad"', 'http.request.body.raw contains "x"',
    "http.request.body.size gt 3", 'http.request.method eq "POST"',
])  # fmt: skip
_JOINED = st.builds("({}) {} ({})".format, _SIMPLE, st.sampled_from(["and", "or", "xor"]), _SIMPLE)
_TESTS = st.one_of(_SIMPLE, st.just("true"), _SIMPLE, _JOINED, trees().map(show).filter(lambda text: len(text) < 4000))
_HEADERS = st.sampled_from([
    {"set": {"x-a": "2"}}, {"set": {"x-new": {"expression": "http.user_agent"}}, "remove": ["accept"]}, {"add": {"x-a": "1"}},
    {"set": {"true-client-ip": {"expression": "http.host"}}},
])  # fmt: skip
_ACTIONS = st.one_of(
    st.sampled_from([
        {"action": "block"}, {"action": "block", "status": 451, "body": "<p>no"}, {"action": "allow"}, {"action": "log"},
        {"action": "skip"}, {"action": "challenge"}, {"action": "set", "tags": ("t",)},
        {"action": "route", "upstream": "other", "host": "h.example"}, {"action": "route", "upstream": "main"},
        {"action": "redirect", "location": "https://x.example/", "preserve_query": True, "status": 301},
        {"action": "redirect", "location_expression": 'http.request.headers["x-to"][0]'},
        {"action": "rewrite", "path_expression": 'http.request.headers["x-to"][0]'}, {"action": "rewrite", "query": "q=1"},
        {"action": "rewrite", "path": "/v1/chat"}, {"action": "rewrite", "path": "/"},
    ]),
    _HEADERS.map(lambda headers: {"action": "rewrite", "headers": headers}),
    st.lists(st.sampled_from(IDS), min_size=1, max_size=2).map(lambda ids: {"action": "skip", "skip": ids}),
)  # fmt: skip
_RESPONSES = st.sampled_from([
    {"expression": "http.response.code ge 400", "action": "log"},
    {"expression": 'http.response.code eq 200 and http.request.method eq "GET"', "action": "rewrite",
     "headers": {"set": {"x-b": "1"}}},
    {"expression": 'any(http.response.headers["x-b"][*] eq "1")', "action": "log"},
    {"expression": 'http.response.content_type.media_type eq "application/json"', "action": "log"},
])  # fmt: skip


@st.composite
def rules(draw: st.DrawFn) -> list[dict[str, Any]]:
    made = []
    for name in IDS[: draw(st.integers(3, len(IDS)))]:
        made.append({"id": name, "enabled": draw(st.sampled_from([True] * 9 + [False])),
                     "mode": draw(st.sampled_from(["act", "act", "act", "log"])), "sample": draw(st.sampled_from([1, 1, 0.5]))}
                    | draw(st.one_of(st.builds(lambda text, action: {"expression": text, **action}, _TESTS, _ACTIONS),
                                     _RESPONSES.map(lambda rule: {"phase": "response", **rule}))))  # fmt: skip
    return made


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, str, list[tuple[str, str]], bytes | None]:
    host = draw(st.sampled_from(["example.org", "a.sub.example", "EXAMPLE.org:8443", "192.0.2.9"]))
    target = draw(st.sampled_from(["/", "/v1/chat", "/v1", "/gone?a=x&b=2", "/Path/to.PHP?a=1", "/v1/chat?a=b", "/a//b"]))
    names = st.sampled_from(["user-agent", "x-a", "accept", "x-to", "cookie", "via", "x-forwarded-for", "authorization"])
    values = st.sampled_from(["1", "2", "1", "2", "sqlmap", "/v1/chat", "/", "/no way", "https://y.example/?é", "a=b; c=d",
                              "text/html", "x"])  # fmt: skip
    headers = draw(st.lists(st.tuples(names, values), max_size=4))
    body = draw(st.sampled_from([None, b"", b"bad", b'{"model": "big-1"}', b'{"model": "small"}', b"x" * 60, b"x" * 120]))
    return draw(st.sampled_from(["POST"] * 6 + ["GET"] * 6 + ["TRACE"])), host, target, headers, body


def said(explanation: Explanation) -> tuple[Any, ...]:
    outcome = explanation.outcome
    return outcome.status or 200, outcome.upstream, outcome.hits


@given(rules(), requests(), st.sampled_from([True] * 15 + [False]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a whole gateway each time
def test_explanation_and_gateway_agree(given_rules: list[dict[str, Any]], request: Any, secure: bool) -> None:
    method, host, target, headers, body = request
    config = config_with(*given_rules, routes=[
        {"path": "/", "upstream": "main", "host": "*.example"}, {"path": "/", "host": "example.org", "upstream": "main"},
        {"path": "/v1/", "upstream": "main", "dialect": "openai", "models": {"big*": "other"}, "max_body": "100B"},
        {"host": "*.sub.example", "path": "/", "upstream": "other", "preview": "20B"},
    ])  # fmt: skip
    explanation = asked(
        config, f"http{'s' if secure else ''}://{host}{target}", method=method, headers=headers, body=body, client=CLIENT,
        http="1.1", status=200, reply_headers=[], show_secrets=True,
    )  # fmt: skip
    lines = [f"{method} {target} HTTP/1.1", f"host: {host}", *(f"{name}: {value}" for name, value in headers)]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    raw = "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random, "random", lambda: 0.0)  # a sampled rule is shown as if it acted
        served = Real(config).served(raw, secure=secure)
    assert said(explanation) == (served.status, served.upstream, served.hits)
    if served.upstream is not None:
        stage = next(each for each in explanation.stages if each.name == "upstream")
        # The recording pool sends the client's Host unless a rule chose one.
        head = [line.split(b": ", 1)[0].decode("latin-1") for line in served.head.split(b"\r\n")[1:] if line]
        assert [row.name for row in stage.details[1:]] == head
        assert stage.details[0].value.encode() == served.head.split(b"\r\n")[0]
    reply = next(each for each in explanation.stages if each.name == "reply")
    names = {line.split(b": ", 1)[0].decode() for line in served.reply.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]}
    assert {row.name for row in reply.details} <= names


@given(trees())
@settings(max_examples=120, deadline=None)
def test_each_part_is_what_the_whole_is_made_of(tree: Any) -> None:
    """Answers of parts join to the answer of the whole: no part is asked differently than the engine asks it."""
    from support.rules import CONTAINERS, facts

    from edgeproxy.explaining.answer import Node
    from edgeproxy.explaining.trace import Veil, trace

    def check(node: Node) -> None:
        assert not node.error
        parts = [part.answer for part in node.parts]
        if node.join in ("any", "all"):
            assert node.answer == {"any": any, "all": all}[node.join](parts[0])
        elif node.join == "not":
            assert node.answer == ([not each for each in parts[0]] if isinstance(parts[0], list) else not parts[0])
        elif node.join:
            rows = list(zip(*parts, strict=False)) if isinstance(parts[0], list) else [parts]
            joined = [{"and": all, "or": any, "xor": lambda row: sum(row) % 2 == 1}[node.join](row) for row in rows]
            assert node.answer == (joined if isinstance(parts[0], list) else joined[0])
        for part in node.parts:
            check(part)

    check(trace(tree, facts(), CONTAINERS, Veil(True)))
