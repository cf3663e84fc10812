# Rules in the pipeline: who is answered, what is counted and logged, and that without rules nothing is different.
"""ruling.py, with real listeners' protocols and no sockets."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from support.edge import certificates, configuration
from support.mmdb import database
from support.pipeline import Stand

from edgeproxy.config.load import build
from edgeproxy.config.model import Config
from edgeproxy.observe.metrics import counters_only, merge

GET = b"GET %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n"


def stand(tmp_path: Path, rules: str, **changes: Any) -> Stand:
    (tmp_path / "r.yaml").write_text(f"rules:\n{rules}\n")
    paths = certificates()
    config = build({
        "listen": {"https": "127.0.0.1:8443", "admin": None},
        "tls": {"certificates": [{"cert": str(paths.cert), "key": str(paths.key)}]},
        "upstreams": {"main": {"targets": [{"url": "http://127.0.0.1:1"}]}},
        "routes": [{"upstream": "main"}, {"path": "/v1/", "upstream": "main", "dialect": "openai"}],
        "rules": [str(tmp_path / "r.yaml")],
        **changes,
    })  # fmt: skip
    made = Stand(Config.model_validate_json(config.model_dump_json()))  # as it travels to a worker
    made.gateway.log = cast("Any", SimpleNamespace(lines=[], flush=lambda: None))
    return made


def logged(made: Stand) -> list[dict[str, Any]]:
    return [json.loads(line) for line in made.gateway.log.lines]  # type: ignore[union-attr]


def test_a_block_in_the_routes_dialect(tmp_path: Path) -> None:
    made = stand(tmp_path, "- {id: no-bots, expression: 'http.user_agent contains \"bot\"', action: block, status: 451}")
    for target, code in ((b"/", "rule_block"), (b"/v1/chat", "rule_block")):
        driver = made.h1().feed(GET % (target, b"User-Agent: bot\r\n"))
        assert driver.link.written.startswith(b"HTTP/1.1 451 ")
        error = json.loads(driver.link.written.partition(b"\r\n\r\n")[2])["error"]
        assert error["code"] == code and "no-bots" not in json.dumps(error)
        assert ("param" in error) is (target != b"/"), "OpenAI's shape on its route"
        assert driver.seen() == []
    assert made.stats.rule_hits == {("no-bots", "block"): 2}
    assert made.stats.faults == {("client", "rule_block"): 2}
    assert [(line["rules"], line["status"], line["outcome"]) for line in logged(made)] == [(["no-bots"], 451,
        "client: rule_block")] * 2


def test_the_same_head_again_is_counted_again(tmp_path: Path) -> None:
    made = stand(tmp_path,
        "- {id: a, expression: ssl, action: log}\n- {id: b, expression: 'http.request.timestamp.sec gt 0', action: log}")
    driver = made.h1()
    for _ in range(3):
        driver.feed(GET % (b"/", b""))
    assert len(driver.seen()) == 3
    assert made.stats.rule_hits == {("a", "log"): 3, ("b", "log"): 3}
    assert [line["rules"] for line in logged(made)] == [["a", "b"]] * 3


def test_an_answer_of_its_own_and_a_challenge(tmp_path: Path) -> None:
    made = stand(tmp_path, "- {id: own, expression: 'http.request.uri.path eq \"/a\"', action: block, body: '{\"no\": 1}'}\n"
                           "- {id: ask, expression: 'http.request.uri.path eq \"/b\"', action: managed_challenge}")
    written = made.h1().feed(GET % (b"/a", b"")).link.written
    assert b"HTTP/1.1 403 " in written and b"content-type: application/json\r\n" in written and written.endswith(b'{"no": 1}')
    assert b"has to pass a challenge" in made.h1().feed(GET % (b"/b", b"")).link.written


def test_redirects(tmp_path: Path) -> None:
    made = stand(tmp_path, """\
- id: fixed
  expression: http.request.uri.path eq "/a"
  action: redirect
  location: https://x.test/
  status: 301
  preserve_query: true
- id: made
  expression: starts_with(http.request.uri.path, "/b")
  action: redirect
  location_expression: concat("https://x.test/", url_decode(http.request.uri.args["to"][0]))
""")
    assert b"HTTP/1.1 301 " in (first := made.h1().feed(GET % (b"/a?b=c", b"")).link.written)
    assert b"location: https://x.test/?b=c\r\n" in first
    second = made.h1().feed(GET % (b"/b?to=%0d%0aset-cookie:%20x%e9", b"")).link.written
    assert b"location: https://x.test/%0D%0Aset-cookie:%20x%E9\r\n" in second and b"\r\nset-cookie" not in second
    assert logged(made)[1]["outcome"] == "ok"
    body = made.h1().feed(b"POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nab")
    assert b"HTTP/1.1 301 " in body.link.written and body.seen() == []


def test_allow_skip_and_samples(tmp_path: Path) -> None:
    made = stand(tmp_path, "- {id: in, expression: 'http.request.headers[\"k\"][0] eq \"1\"', action: allow}\n"
                           "- {id: pass, expression: 'http.request.headers[\"k\"][0] eq \"2\"', action: skip, skip: [out]}\n"
                           "- {id: out, expression: ssl, action: block}\n")
    for value, reaches in ((b"1", 1), (b"2", 1), (b"3", 0)):
        assert len(made.h1().feed(GET % (b"/", b"K: %b\r\n" % value)).seen()) == reaches


def test_no_rule_that_matches_is_no_rule(tmp_path: Path) -> None:
    made = stand(tmp_path, "- {id: a, expression: not ssl, action: block}")
    plain = Stand(configuration())
    for each in (made, plain):
        driver = each.h1().feed(GET % (b"/", b""))
        assert len(driver.seen()) == 1
        plan = each.pool.jobs[0].exchange.plan
        assert plan.direct and plan.ruling is None
    assert plain.snapshot.rules is None
    assert "rules" not in logged(made)[0]


def test_a_rule_that_raises_is_counted_and_passed_over(tmp_path: Path) -> None:
    made = stand(tmp_path, "- {id: a, expression: 'cf.ray_id eq \"x\"', action: block}\n- {id: b, expression: ssl, action: log}")
    rules = made.snapshot.rules
    assert rules is not None

    def fails(_facts: object) -> None:
        raise ValueError("no")

    rules.rules[0]._check = fails
    driver = made.h1().feed(GET % (b"/", b"")).feed(GET % (b"/", b""))
    assert len(driver.seen()) == 2
    assert made.stats.rule_errors == {"a": 2} and made.stats.rule_hits == {("b", "log"): 2}


def test_counters_are_merged(tmp_path: Path) -> None:
    made = stand(tmp_path, "- {id: a, expression: ssl, action: log}")
    made.h1().feed(GET % (b"/", b""))
    dump = made.stats.dump()
    total = merge([dump, counters_only(dump)])
    assert total["rule_hits"] == [["a", "log", 2]] and total["rule_errors"] == {}


def test_rules_know_places(tmp_path: Path) -> None:
    path = tmp_path / "a.mmdb"
    path.write_bytes(database({"192.0.2.0/24": {"country": {"iso_code": "DE"}}}))
    rules = """\
- id: a
  expression: ip.src.country eq "DE"
  action: redirect
  location_expression: concat("/", ip.src.country)"""
    made = stand(tmp_path, rules, geo={"files": [str(path)]})
    assert b"\r\nlocation: /DE\r\n" in made.h1().feed(GET % (b"/", b"")).link.written
    made = stand(tmp_path, rules)
    assert b"location" not in made.h1().feed(GET % (b"/", b"")).link.written
