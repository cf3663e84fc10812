# What golden cases can say, each key both ways: met, and missed with the difference in the message.
"""golden.py: requests, replies and expectations."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeproxy.rules.golden import run

RULES = """\
rules:
  - {id: stop, expression: 'http.request.uri.path eq "/stop"', action: block, status: 451}
  - {id: go, expression: 'http.request.uri.path eq "/go"', action: redirect, location: "/there?x=1", preserve_query: true}
  - {id: move, expression: 'starts_with(http.request.uri.path, "/old/")', action: rewrite, query: a=b,
     path_expression: 'concat("/new", substring(http.request.uri.path, 4))',
     headers: {set: {x-a: b, x-host: {expression: http.host}}, remove: [cookie]}}
  - {id: moved, expression: 'http.request.uri.path eq "/new/1" and raw.http.request.uri.path eq "/old/1"', action: log}
  - {id: there, expression: 'http.request.uri.path eq "/r"', action: route, upstream: other, host: api.example}
  - {id: words, expression: 'http.request.uri.path eq "/r"', action: set, tags: [one, two], priority: low}
  - {id: lifted, expression: 'http.request.uri.query eq "high"', action: set, priority: normal}
  - {id: less, expression: 'http.request.uri.path eq "/less"', action: skip,
     skip: {rules: [dialect, reply], stages: [limits, bots]}}
  - {id: dialect, expression: 'edge.route.dialect eq "openai"', action: log}
  - {id: text, expression: 'http.request.body.raw contains "needle"', action: block}
  - {id: big, expression: 'http.request.body.size gt 1000', action: block, status: 413}
  - {id: reply, phase: response, expression: 'http.response.code eq 200', action: rewrite,
     headers: {set: {x-r: "1"}, add: {vary: origin}, remove: [server]}}
  - {id: replied, phase: response, expression: 'any(http.response.headers["x-r"][*] eq "1")', action: log}
"""


def failures(tmp_path: Path, *cases: str) -> list[str]:
    (tmp_path / "r.yaml").write_text(RULES)
    path = tmp_path / "r.cases.yaml"
    path.write_text("cases:\n" + "".join(f"  - {case}\n" for case in cases))
    return [problem.message for problem in run(path).problems]


def case(path: str, expect: str, request: str = "", response: str = "") -> str:
    answer = f", response: {{{response}}}" if response else ""
    return f"{{request: {{url: \"https://example.org{path}\"{request}}}{answer}, expect: {{{expect}}}}}"


FULL = "status: 200, headers: {Server: x, Vary: accept}"


@pytest.mark.parametrize(("given", "expect"), [
    (("/stop",), "action: block, rule: stop, status: 451, hits: [stop], misses: [move]"),
    (("/go?q=1",), "action: redirect, status: 302, location: '/there?x=1&q=1'"),
    (("/old/1?c", "", ", headers: {Cookie: a, X-B: c}"),
     "action: pass, path: /new/1, query: a=b, hits: [move, moved], headers: {X-A: b, x-host: example.org, cookie: null, x-b: c}"),
    (("/r",), "upstream: other, host: api.example, tags: [one, two], priority: low"),
    (("/r?high",), "hits: [there, words, lifted], priority: normal"),
    (("/x",), "action: pass, path: /x, query: '', hits: [], tags: [], stages: []"),
    (("/less", "", ", dialect: openai", FULL), "stages: [bots, limits], misses: [dialect, reply], response_headers: {server: x}"),
    (("/x", "", ", dialect: openai"), "hits: [dialect]"),
    (("/x", "", ", method: POST, body: 'a needle'"), "action: block, rule: text"),
    (("/x", "", ", method: POST, body: \"{400 of 'abc'}\""), "rule: big"),
    (("/x", "", ", method: POST, length: 1001"), "rule: big"),
    (("/x", "", ", method: POST, length: 1000"), "action: pass"),
    (("/x", "", "", FULL), "hits: [reply, replied], response_headers: {X-R: '1', vary: 'accept, origin', server: null}"),
    (("/x", "", "", "status: 404"), "hits: [], response_headers: {x-r: null}"),
    (("/stop", "", "", FULL), "hits: [stop], response_headers: {server: null, x-r: null}"),
    (("/a/../b",), "action: refused"),
])  # fmt: skip
def test_what_is_met(tmp_path: Path, given: tuple[str, ...], expect: str) -> None:
    path, _, request, response = (*given, "", "", "")[:4]
    assert failures(tmp_path, case(path, expect, request, response)) == []


@pytest.mark.parametrize(("path", "expect", "response", "message"), [
    ("/stop", "action: pass", "", "expected action pass, not block"),
    ("/stop", "misses: [stop]", "", "expected a miss of stop, which matched"),
    ("/stop", "action: refused", "", "expected action refused, not block"),
    ("/stop", "rule: stopp", "", "there is no rule 'stopp'"),
    ("/stop", "misses: [stopp]", "", "there is no rule 'stopp'"),
    ("/old/1", "path: /old/1", "", "expected path /old/1, not /new/1"),
    ("/old/1", "query: ''", "", "expected query , not a=b"),
    ("/old/1", "headers: {x-a: null}", "", "expected headers.x-a none, not b"),
    ("/old/1", "headers: {x-z: y}", "", "expected headers.x-z y, not none"),
    ("/r", "upstream: main", "", "expected upstream main, not other"),
    ("/r", "host: a.example", "", "expected host a.example, not api.example"),
    ("/r", "tags: [one]", "", "expected tags [one], not [one, two]"),
    ("/less", "stages: []", "", "expected stages [], not [bots, limits]"),
    ("/x", "response_headers: {x-r: null}", FULL, "expected response_headers.x-r none, not 1"),
    ("/x", "response_headers: {server: x}", FULL, "expected response_headers.server x, not none"),
    ("/a/../b", "action: pass", "",
     "the edge refuses this request before any rule: the path has a dot segment ('/./' or '/../')"),
])  # fmt: skip
def test_what_is_missed(tmp_path: Path, path: str, expect: str, response: str, message: str) -> None:
    assert failures(tmp_path, case(path, expect, "", response)) == [f"case 1: {message}"]


def test_an_empty_expectation_is_none(tmp_path: Path) -> None:
    assert len(failures(tmp_path, case("/x", ""))) == 1


def test_a_rule_that_fails_fails_its_case(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("rules: [{id: r, expression: ssl, action: rewrite, path_expression: http.host}]\n")
    (tmp_path / "r.cases.yaml").write_text('cases: [{request: {url: "https://example.org/"}, expect: {action: pass}}]\n')
    problems = run(tmp_path / "r.cases.yaml").problems
    assert len(problems) == 1 and "rule 'r' failed" in problems[0].message


def test_a_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("rules: [{id: a, expression: 'cf.bot_management.ja4 eq \"t13\"', action: block}]\n")
    path = tmp_path / "r.cases.yaml"
    path.write_text(
        "cases:\n  - {request: {url: 'https://x/', ja4: t13}, expect: {rule: a}}\n"
        "  - {request: {url: 'https://x/', ja4: t12}, expect: {misses: [a]}}\n"
        "  - {request: {url: 'https://x/'}, expect: {misses: [a]}}\n"
    )
    assert not run(path).problems
