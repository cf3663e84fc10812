# What each stage says. That it is what happens is test_agrees.py's subject.
from __future__ import annotations

from typing import Any

import pytest
from support.edge import prepared
from support.explaining import Real, asked, config_with, rule
from support.keys import DERIVED, model

from edgeproxy.config.keys import KeyBook, Keys
from edgeproxy.config.secret import Secret
from edgeproxy.explaining.answer import Explanation, Stage
from edgeproxy.explaining.paper import ABSENT, PaperSnapshot
from edgeproxy.explaining.question import Unclear
from edgeproxy.policy.keytext import make


def stage(explanation: Explanation, name: str) -> Stage:
    return next(each for each in explanation.stages if each.name == name)


def names(explanation: Explanation) -> list[str]:
    return [each.name for each in explanation.stages]


def rows(found: Stage) -> dict[str, str]:
    return {row.name: row.value for row in found.details}


def test_a_paper_snapshot_is_a_snapshot_without_certificates() -> None:
    config = config_with({"id": "a", "expression": "ssl"})
    paper, real = PaperSnapshot(config), prepared(config)
    for name in type(real).__slots__:
        assert hasattr(paper, name) is (name not in ABSENT), name
    assert paper.routes[1].pool_for("big-1") == "other" and paper.routes[1].pool_for("x") == "main"


def test_a_request_that_goes_through() -> None:
    found = asked(config_with(), "https://Example.org:8443/x?y=1", headers=[("User-Agent", "x")])
    assert names(found) == ["head", "host", "path", "https", "client", "route", "rules", "body", "upstream", "reply"]
    assert {each.effect for each in found.stages} == {"passes"}
    assert "example.org" in stage(found, "host").says
    assert "*/: upstream main" in stage(found, "route").says
    assert rows(stage(found, "route")) == {
        "*/": "taken: the most specific host, then the longest path", "*/v1/": "another path",
        "*.sub.example/": "another host (*.sub.example)",
    }  # fmt: skip
    assert rows(stage(found, "upstream"))["host"] == "Example.org:8443"
    assert rows(stage(found, "reply"))["strict-transport-security"].startswith("max-age")
    assert (found.outcome.upstream, found.outcome.status, found.outcome.stage) == ("main", None, "upstream")
    assert [row.value for row in found.request[:2]] == ["GET https://Example.org:8443/x?y=1", "HTTP/2 from 192.0.2.1"]


@pytest.mark.parametrize(("url", "about", "status", "where"), [
    ("http://x.example/a?b", {}, 308, "https"),
    ("https://x..example/", {}, 400, "host"),
    ("https://x/a//b", {}, 400, "path"),
    ("https://x/", {"method": "TRACE"}, 405, "route"),
    ("https://x/", {"headers": [("X_A", "1")]}, 400, "head"),
    ("https://x/", {"headers": [(f"x-{n}", "1") for n in range(101)]}, 431, "head"),
    ("https://x/", {"headers": [("x-a", "1" * 40_000)]}, 431, "head"),
    ("https://x/" + "a" * 20_000, {}, 414, "head"),
    ("https://x/", {"headers": [("cdn-loop", ", ".join(f"edgeproxy;id={n}" for n in range(8)))]}, 508, "route"),
    ("https://x/v1/", {"body": b"x" * 101}, 413, "body"),
    ("https://x/v1/", {"body": b"no json"}, 400, "body"),
    ("https://x/v1/", {"headers": [("content-length", "101")], "method": "POST"}, 413, "body"),
])  # fmt: skip
def test_what_ends_it(url: str, about: dict[str, Any], status: int, where: str) -> None:
    found = asked(config_with({"id": "a", "expression": "true"}), url, **about)
    assert (found.outcome.status, found.outcome.stage) == (status, where)
    assert stage(found, where).effect == "answers" and str(status) in stage(found, where).says
    assert names(found)[-2:] == [where, "reply"]
    assert found.outcome.hits == (["a"] if where == "body" else [])


def test_https_and_hsts() -> None:
    plain = asked(config_with(), "http://x.example/a?b")
    assert "308 to https://x.example:8443/a?b" in plain.outcome.says
    assert "strict-transport-security" not in rows(stage(plain, "reply"))
    assert "strict-transport-security" not in rows(stage(asked(config_with(), "https://192.0.2.1/"), "reply"))
    assert "alt-svc" not in rows(stage(asked(config_with(), "https://x/", http="3"), "reply"))


@pytest.mark.parametrize(("client", "forwarded", "address", "why"), [
    ("203.0.113.7", None, "203.0.113.7", "no trusted proxy"),
    ("203.0.113.7", "1.2.3.4", "203.0.113.7", "not believed"),
    ("10.0.0.1", "1.2.3.4, 10.0.0.9", "1.2.3.4", "on the word of 10.0.0.1"),
    ("10.0.0.1", None, "10.0.0.1", "names no client"),
    ("::ffff:10.0.0.1", "1.2.3.4", "1.2.3.4", "rightmost"),
    ("", None, "unknown", "Unix socket"),
])  # fmt: skip
def test_whose_request_it_is(client: str, forwarded: str | None, address: str, why: str) -> None:
    headers = [("X-Forwarded-For", forwarded)] if forwarded else []
    config = config_with({"id": "a", "expression": "ip.src in $nets"}, trusted_proxies=["10.0.0.0/8"])
    said = stage(asked(config, client=client, headers=headers), "client").says
    assert said.startswith(address) and why in said


def test_states_of_rules() -> None:
    config = config_with(
        {"id": "off", "expression": "true", "enabled": False},
        {"id": "no", "expression": 'http.host eq "y"', "action": "block"},
        {"id": "try", "expression": "true", "action": "block", "mode": "log"},
        {"id": "part", "expression": "ssl", "action": "set", "tags": ["t"], "sample": 0.1},
        {"id": "skip", "expression": "ssl", "action": "skip", "skip": {"rules": ["left"], "stages": ["bots"]}},
        {"id": "left", "expression": "true", "action": "block"},
        {"id": "bad", "expression": "true", "action": "rewrite", "path_expression": 'http.request.headers["x-none"][0]'},
        {"id": "end", "expression": "ssl", "action": "block", "status": 451, "description": "No."},
        {"id": "late", "expression": "true"},
    )  # fmt: skip
    found = asked(config)
    states = {each.id: (each.state, each.says) for each in stage(found, "rules").rules}
    assert {name: state for name, (state, _) in states.items()} == {
        "off": "disabled", "no": "no match", "try": "logs", "part": "acts", "skip": "acts", "left": "skipped", "bad": "failed",
        "end": "acts", "late": "not reached",
    }  # fmt: skip
    assert "it would block" in states["try"][1] and "on 10% of such requests" in states["part"][1]
    assert "leaves out left, the stage bots" in states["skip"][1] and "rule 'skip'" in states["left"][1]
    assert "the new path is missing" in states["bad"][1] and "rule 'end' (block)" in states["late"][1]
    assert (found.outcome.status, found.outcome.rule, found.outcome.hits) == (451, "end", ["try", "part", "skip", "end"])
    assert rule(found, "end").description == "No." and rule(found, "part").sample == 0.1
    assert rule(found, "late").expression is None and rule(found, "no").expression is not None


def test_a_rewrite_says_what_it_changed_and_routes_again() -> None:
    config = config_with({
        "id": "a", "expression": 'starts_with(http.request.uri.path, "/old/")', "action": "rewrite", "query": "",
        "path_expression": 'concat("/v1", substring(http.request.uri.path, 4))',
        "headers": {"set": {"x-a": "new", "x-key": "k"}, "remove": ["authorization"]},
    }, {"id": "b", "expression": 'raw.http.request.uri.path eq "/old/chat" and http.request.uri.path eq "/v1/chat"'})  # fmt: skip
    found = asked(config, "https://x/old/chat?a=b", headers=[("X-A", "old"), ("Authorization", "Bearer hush-hush")])
    assert [(row.name, row.value) for row in rule(found, "a").changes] == [
        ("target", "/old/chat?a=b → /v1/chat"), ("- x-a", "old"), ("- authorization", "<hidden, 16 bytes>"), ("+ x-a", "new"),
        ("+ x-key", "<hidden, 1 bytes>"),
    ]  # fmt: skip
    assert rule(found, "b").state == "logs" and stage(found, "rules").effect == "changes"
    assert "*/v1/: upstream main, dialect openai" in stage(found, "routed").says
    assert rows(stage(found, "upstream"))["request"] == "GET /v1/chat HTTP/1.1"


def test_a_rule_that_chooses_the_upstream() -> None:
    config = config_with({"id": "a", "expression": "ssl", "action": "route", "upstream": "other", "host": "h.example"})
    found = asked(config, "https://x/v1/chat", body=b"no json")
    assert found.outcome.upstream == "other" and "chose the upstream other" in stage(found, "routed").says
    assert rows(stage(found, "upstream"))["host"] == "h.example"


def test_requests_without_a_route() -> None:
    routes = [{"path": "/only/", "upstream": "main"}]
    found = asked(config_with(routes=routes), "https://x/a")
    assert (found.outcome.status, found.outcome.stage) == (404, "routed")
    assert "unless a rule" in stage(found, "route").says
    to = {"id": "a", "expression": "true", "action": "redirect", "location": "/only/", "preserve_query": True}
    found = asked(config_with(to, routes=routes), "https://x/a?b=1")
    assert (found.outcome.status, found.outcome.rule) == (302, "a") and "/only/?b=1" in found.outcome.says


def test_what_cannot_be_carried_out_is_no_hit() -> None:
    config = config_with(
        {"id": "to", "expression": "ssl", "action": "redirect", "location_expression": 'http.request.headers["x-to"][0]'},
        {"id": "part", "expression": "ssl", "action": "rewrite", "headers": {"set": {"x-a": "1"}},
         "path_expression": 'http.request.headers["x-to"][0]'},
    )  # fmt: skip
    found = asked(config)
    assert rule(found, "to").state == "failed" and "no value" in rule(found, "to").says
    assert rule(found, "part").state == "acts" and "a part that cannot be done" in rule(found, "part").says
    assert found.outcome.hits == ["part"] and found.outcome.upstream == "main"
    assert asked(config, headers=[("X-To", "/é")]).outcome.says == "rule 'to' redirects: 302 to /%C3%A9"


def test_bodies() -> None:
    reads = {"id": "a", "expression": 'http.request.body.raw contains "bad" and http.request.method eq "POST"', "action": "block"}
    assert stage(asked(config_with()), "body").says == "there is none"
    assert "streams" in stage(asked(config_with(), body=b"x"), "body").says
    assert "streams" in stage(asked(config_with(reads), body=b"x", method="PUT"), "body").says, "it cannot match"
    found = asked(config_with(reads), body=b"not good")
    assert "rule 'a' looks at it; up to 1048576 bytes" in stage(found, "body").says
    assert asked(config_with(reads), body=b"bad").outcome.status == 403
    found = asked(config_with(), "https://x/v1/chat", body=b'{"model": "big-2"}')
    assert found.outcome.upstream == "other" and "by the model: upstream other" in stage(found, "body").says


def test_a_body_that_was_not_given() -> None:
    reads = {"id": "a", "expression": 'http.request.body.raw contains "bad"', "action": "block"}
    about: dict[str, Any] = {"method": "POST", "headers": [("Content-Length", "20")]}
    found = asked(config_with(reads), **about)
    assert rule(found, "a").state == "waits" and stage(found, "rules").effect == "waits"
    assert found.request[-1].value == "20 bytes, not given here"
    found = asked(config_with(), "https://x/v1/chat", **about)
    assert stage(found, "body").effect == "waits" and "one of other, main" in found.outcome.says
    assert found.outcome.upstream is None and "upstream" not in names(found)


def test_a_body_too_large_for_a_rule_to_read() -> None:
    config = config_with(
        {"id": "a", "expression": "ssl"}, {"id": "b", "expression": 'http.request.body.raw contains "x"', "action": "log"},
        {"id": "c", "expression": "ssl", "action": "block"},
    )  # fmt: skip
    found = asked(config, "https://x/v1/chat", body=b"x" * 101)
    assert (found.outcome.status, found.outcome.stage, found.outcome.hits) == (413, "rules", ["a"])
    assert [each.state for each in stage(found, "rules").rules] == ["logs", "not reached", "not reached"]


def test_rules_that_are_asked_together_with_the_body_are_not_before_it() -> None:
    config = config_with(
        {"id": "a", "expression": "ssl"}, {"id": "size", "expression": "http.request.body.size gt 3"},
        {"id": "b", "expression": 'http.request.body.raw contains "x"', "action": "block"},
    )  # fmt: skip
    found = asked(config, "https://x/v1/chat", body=b"x" * 101, http="1.1", status=200, reply_headers=[])
    served = Real(config).served(b"POST /v1/chat HTTP/1.1\r\nhost: x\r\ncontent-length: 101\r\n\r\n" + b"x" * 101)
    assert (served.status, served.hits) == (413, found.outcome.hits)
    hits = [each.id for each in stage(found, "rules").rules if each.state == "logs"]
    assert hits == found.outcome.hits


def test_rules_of_the_response_phase() -> None:
    config = config_with(
        {"id": "head", "phase": "response", "expression": 'http.request.method eq "HEAD"'},
        {"id": "errors", "phase": "response", "expression": "http.response.code ge 500"},
        {"id": "add", "phase": "response", "expression": "http.response.code eq 200", "action": "rewrite",
         "headers": {"set": {"x-b": {"expression": 'http.response.headers["x-a"][0]'}}, "remove": ["x-a"]}},
        {"id": "sees", "phase": "response",
         "expression": 'any(http.response.headers["x-b"][*] eq "1") and any(raw.http.response.headers["x-a"][*] eq "1")'},
    )  # fmt: skip
    unknown = stage(asked(config), "reply")
    assert [each.state for each in unknown.rules] == ["no match", "waits", "waits", "waits"] and unknown.effect == "waits"
    found = asked(config, status=200, reply_headers=[("X-A", "1"), ("Alt-Svc", "own"), ("Connection", "close")])
    assert [each.state for each in stage(found, "reply").rules] == ["no match", "no match", "acts", "logs"]
    assert [(row.name, row.value) for row in rule(found, "add").changes] == [("- x-a", "1"), ("+ x-b", "1")]
    assert found.outcome.hits == ["add", "sees"]
    blocked = asked(config_with({"id": "no", "expression": "ssl", "action": "block"},
                                {"id": "seen", "phase": "response", "expression": "http.response.code eq 403"}))  # fmt: skip
    assert blocked.outcome.hits == ["no", "seen"], "the edge's own replies are replies, too"


def test_secrets_are_hidden_everywhere() -> None:
    headers = [("Authorization", "Bearer hush-hush"), ("Cookie", "a=hush"), ("X-Api-Key", "hush"),
               ("Proxy-Authorization", "hush")]  # fmt: skip
    config = config_with({"id": "a", "expression": 'http.cookie contains "hush"'})
    assert "hush" not in str(asked(config, headers=headers)).replace('contains "hush"', "")
    assert str(asked(config, headers=headers, show_secrets=True)).count("hush") > 5


@pytest.mark.parametrize(("url", "about", "why"), [
    ("ftp://x/", {}, "not a URL"), ("x.example", {}, "not a URL"), ("https:///a", {}, "no host"),
    ("https://x/", {"client": "nowhere"}, "not an IP"), ("https://x/", {"http": "4"}, "version"),
    ("https://x/", {"method": "A B"}, "not a method"), ("https://x/", {"headers": [("a b", "c")]}, "name of a header"),
    ("https://x/", {"headers": [("a", "b\nc")]}, "line break"), ("https://x/", {"headers": [("a", "x" * (1 << 21))]}, "larger"),
    ("https://x/", {"headers": [("a", "b")] * 10_001}, "more than"), ("https://x/", {"body": b"x" * ((16 << 20) + 1)}, "larger"),
    ("https://x/" + "x" * (1 << 21), {}, "longer"),
])  # fmt: skip
def test_what_is_no_request(url: str, about: dict[str, Any], why: str) -> None:
    with pytest.raises(Unclear, match=why):
        asked(config_with(), url, **about)


JA4 = "t13d1517h2_8daaf6152771_cb7bf5808d99"


def test_fingerprints() -> None:
    config = config_with(
        {"id": "chromium", "expression": 'starts_with(cf.bot_management.ja4, "t13d1517h2_")'}, trusted_proxies=["10.0.0.0/8"]
    )
    assert rule(asked(config, ja4=JA4), "chromium").state == "logs"
    assert rule(asked(config), "chromium").state == "no match"
    assert rule(asked(config, ja4=JA4, client="10.0.0.1"), "chromium").state == "no match", "a proxy's"
    with pytest.raises(Unclear, match="'chrome' is not a JA4"):
        asked(config, ja4="chrome")


def test_a_key_that_is_bound_to_a_fingerprint() -> None:
    made = make()
    book = KeyBook(pepper=Secret(DERIVED.hex().encode("ascii")), keys=(model(made, ja4=["t13d1517h2"]),))
    config = config_with()
    keys = Keys(file="keys.yaml", pepper="pepper", book=book)
    config = config.model_copy(update={"keys": keys})
    about: dict[str, Any] = {"headers": [("Authorization", f"Bearer {made.text}")]}
    url = "https://example.org/v1/models"
    assert stage(asked(config, url, ja4=JA4, **about), "key").effect == "passes"
    assert stage(asked(config, url, ja4="t13d3112h2_e8f1e7e78f70_b26ce05bbdd6", **about), "key").effect == "answers"
    assert stage(asked(config, url, **about), "key").effect == "passes", "not known"
