# Rules that change a request, where it goes, or its reply: what is sent to the upstream and to the client.
"""ruling.py with plan.py and gateway.py, with real listeners' protocols and no sockets."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.edge import certificates
from support.pipeline import RecordingPool, Stand
from unit.test_ruling import GET, logged

from edgeproxy.config.load import build
from edgeproxy.config.model import Config
from edgeproxy.config.problems import ConfigError
from edgeproxy.observe.events import Events

LATE = "http.request.timestamp.sec gt 0"  # asked for each request


def stand(tmp_path: Path, rules: str, *routes: dict[str, Any]) -> Stand:
    (tmp_path / "r.yaml").write_text(f"rules:\n{rules}\n")
    paths = certificates()
    config = build({
        "listen": {"https": "127.0.0.1:8443", "admin": None},
        "tls": {"certificates": [{"cert": str(paths.cert), "key": str(paths.key)}]},
        "upstreams": {name: {"targets": [{"url": "http://127.0.0.1:1"}]} for name in ("main", "chat", "other")},
        "routes": routes or ({"upstream": "main"}, {"path": "/v1/", "upstream": "chat", "dialect": "openai"}),
        "rules": [str(tmp_path / "r.yaml")],
        "shipped": {"baseline": False, "chat": False},
    })  # fmt: skip
    made = Stand(Config.model_validate_json(config.model_dump_json()))  # as it travels to a worker
    pools = {name: RecordingPool() for name in ("main", "chat", "other")}
    for route in made.snapshot.routes:
        route.pools = cast("Any", pools)
        route.pool = cast("Any", pools[route.upstream])
    made.gateway.log = cast("Any", SimpleNamespace(lines=[], flush=lambda: None))
    return made


def pools(made: Stand) -> dict[str, list[bytes]]:
    """The heads that went to each upstream."""
    found = cast("dict[str, RecordingPool]", made.snapshot.routes[0].pools)
    return {name: [job.head for job in pool.jobs] for name, pool in found.items() if pool.jobs}


@pytest.mark.parametrize("when", ["ssl", LATE])
def test_a_rewrite_is_seen_by_later_rules_and_by_routing(tmp_path: Path, when: str) -> None:
    made = stand(tmp_path, f"""\
- {{id: before, expression: 'http.request.uri.path eq "/v1/x"', action: block}}
- {{id: move, expression: '{when} and starts_with(http.request.uri.path, "/api/")', action: rewrite,
   path_expression: 'concat("/v1/", substring(http.request.uri.path, 5))', query: a=b}}
- {{id: seen, expression: 'http.request.uri.path eq "/v1/x" and raw.http.request.uri.path eq "/api/x"
     and http.request.uri eq "/v1/x?a=b" and raw.http.request.uri.query eq "q" and edge.route.dialect eq "openai"', action: log}}
- {{id: stop, expression: 'http.request.uri.path eq "/v1/stop"', action: block}}
""")
    driver = made.h1()
    for _ in range(2):
        driver.feed(GET % (b"/api/x?q", b""))
    heads = pools(made)
    assert list(heads) == ["chat"] and len(heads["chat"]) == 2
    assert all(head.startswith(b"GET /v1/x?a=b HTTP/1.1\r\nhost: localhost\r\n") for head in heads["chat"])
    assert [(line["rules"], line["route"], line["path"]) for line in logged(made)] == [(["move", "seen"], "*/v1/", "/api/x")] * 2
    assert made.stats.rule_hits == {("move", "rewrite"): 2, ("seen", "log"): 2}
    assert b" 403 " in driver.feed(GET % (b"/api/stop", b"")).link.written
    assert b'"type"' in driver.link.written, "the refusal has the dialect of the new route"


@pytest.mark.parametrize("when", ["ssl", LATE])
def test_headers_of_the_request(tmp_path: Path, when: str) -> None:
    made = stand(tmp_path, f"""\
- id: heads
  expression: {when}
  action: rewrite
  headers:
    remove: [x-debug]
    set: {{X-Tenant: acme, x-real-ip: {{expression: to_string(ip.src)}}, x-none: {{expression: ip.src.country}},
           x-forwarded-user: us}}
    add: {{x-more: "2"}}
- id: seen
  expression: http.request.headers["x-tenant"][0] eq "acme" and http.request.headers["x-more"][1] eq "2"
  action: log
""")
    made.h1().feed(GET % (b"/", b"X-Debug: 1\r\nX-Tenant: evil\r\nX-Tenant: worse\r\nX-More: 1\r\nX-Real-IP: 6.6.6.6\r\n"
                          b"X-None: kept\r\nX-Forwarded-User: root\r\n"))  # fmt: skip
    (head,) = pools(made)["main"]
    lines = head.split(b"\r\n")
    for name, values in {
        b"x-debug": [], b"x-tenant": [b"acme"], b"x-real-ip": [b"192.0.2.1"], b"x-more": [b"1", b"2"], b"x-none": [],
        b"x-forwarded-user": [b"us"],
    }.items():  # fmt: skip
        assert [line.partition(b": ")[2] for line in lines if line.startswith(name + b":")] == values, name
    assert made.stats.rule_hits[("seen", "log")] == 1


def lines_of(head: bytes, name: bytes) -> list[bytes]:
    """The values of a header that went to the upstream."""
    return [line.partition(b": ")[2] for line in head.split(b"\r\n")[1:] if line.startswith(name + b":")]


def test_a_target_that_cannot_be_sent_is_not(tmp_path: Path) -> None:
    made = stand(tmp_path, """\
- {id: gone, expression: ssl, action: rewrite, path_expression: 'http.request.uri.args["p"][0]'}
- {id: both, expression: ssl, action: rewrite, path_expression: 'http.request.uri.args["p"][0]', headers: {remove: [x-admin]}}
""")
    for query in (b"", b"?p=nothing", b"?p=/a/../b", b"?p=/a%2fb"):
        made.h1().feed(GET % (b"/keep" + query, b"X-Admin: 1\r\n"))
    heads = pools(made)["main"]
    assert {head.split(b" ")[1].partition(b"?")[0] for head in heads} == {b"/keep"}
    assert not any(lines_of(head, b"x-admin") for head in heads), "what a client sends does not undo the other half"
    assert made.stats.rule_errors == {"gone": 4, "both": 4} and made.stats.rule_hits == {("both", "rewrite"): 4}
    made.h1().feed(GET % (b"/keep?p=/new%20path%3f", b""))
    assert pools(made)["main"][-1].startswith(b"GET /new%20path%3f?p=/new%20path%3f HTTP/1.1"), "encoded as it came"


@pytest.mark.parametrize("when", ["ssl", LATE])
def test_a_client_cannot_choose_what_a_rule_sets(tmp_path: Path, when: str) -> None:
    made = stand(tmp_path, f"""\
- id: a
  expression: {when}
  action: rewrite
  headers:
    remove: [x-admin]
    set: {{x-country: {{expression: ip.src.country}}, x-lang: {{expression: 'url_decode(http.request.uri.args["l"][0])'}}}}
""")
    for query in (b"", b"?l=", b"?l=%0d%0ax-evil:%201"):
        made.h1().feed(GET % (b"/" + query, b"X-Country: evil\r\nX-Lang: evil\r\nX-Admin: 1\r\n"))
    assert not any(b"evil" in head.partition(b"\r\n")[2] or b"x-admin" in head for head in pools(made)["main"])
    assert made.stats.rule_errors == {"a": 1}


def test_headers_that_only_the_edge_may_say(tmp_path: Path) -> None:
    made = stand(tmp_path, """\
- {id: guest, expression: ssl, action: rewrite, headers: {set: {x-forwarded-user: guest, x-real-ip: 192.0.2.9}}}
- {id: admin, expression: ssl, action: rewrite, headers: {set: {x-forwarded-user: admin}, remove: [x-real-ip]}}
- {id: more, expression: ssl, action: rewrite, headers: {add: {true-client-ip: 192.0.2.8}}}
""")
    made.h1().feed(GET % (b"/", b"X-Forwarded-User: root\r\nX-Real-IP: 192.0.2.9\r\nTrue-Client-IP: 192.0.2.8\r\n"))
    (head,) = pools(made)["main"]
    assert [lines_of(head, name) for name in (b"x-forwarded-user", b"x-real-ip", b"true-client-ip")] == [
        [b"admin"], [], [b"192.0.2.8"],
    ]  # fmt: skip


@pytest.mark.parametrize("when", ["ssl", LATE])
def test_a_redirect_without_a_target_does_not_end_the_matter(tmp_path: Path, when: str) -> None:
    made = stand(tmp_path, f"""\
- {{id: go, expression: '{when}', action: redirect, location_expression: 'http.request.uri.args["to"][0]'}}
- {{id: stop, expression: 'http.request.uri.path eq "/go"', action: block}}
""")
    assert b"HTTP/1.1 403 " in made.h1().feed(GET % (b"/go", b"")).link.written
    assert b"HTTP/1.1 302 " in made.h1().feed(GET % (b"/go?to=/x", b"")).link.written
    assert made.stats.rule_errors == {"go": 1} and made.stats.rule_hits == {("stop", "block"): 1, ("go", "redirect"): 1}


def test_a_redirect_by_the_body(tmp_path: Path) -> None:
    made = stand(tmp_path, """\
- {id: go, expression: 'http.request.uri.path eq "/f"', action: redirect, preserve_query: true,
   location_expression: 'concat("https://x.test/", http.request.body.form["to"][0], "#top")'}
""")
    sent = post(b"/f?q=1", b"to=there").replace(b"\r\n\r\n", b"\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n")
    assert b"location: https://x.test/there?q=1#top\r\n" in made.h1().feed(sent, step=9).link.written


def test_failures_are_counted_for_each_request_and_say_no_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = stand(tmp_path, """\
- {id: t, expression: ssl, action: rewrite, path_expression: 'http.request.uri.args["p"][0]'}
- {id: h, expression: ssl, action: rewrite, headers: {set: {x-b: {expression: 'url_decode(http.request.headers["x-key"][0])'}}}}
""")
    driver = made.h1()
    for _ in range(3):
        driver.feed(GET % (b"/?p=sk-SECRET", b"X-Key: sk-SECRET%0a\r\n"))
    assert made.stats.rule_errors == {"t": 3, "h": 3}
    assert len(caplog.messages) == 2 and "SECRET" not in caplog.text


def test_null_is_no_value(tmp_path: Path) -> None:
    actions = ("redirect, location", "rewrite, path", "rewrite, headers", "route, upstream", "set, tags")
    for rule in (f"{action}: null" for action in actions):
        with pytest.raises(ConfigError, match="needs"):
            stand(tmp_path, f"- {{id: a, expression: ssl, action: {rule}}}")


def test_the_length_of_each_request(tmp_path: Path) -> None:
    made = stand(tmp_path, """\
- {id: w, expression: ssl, action: rewrite, headers: {set: {x-a: b}}}
- {id: big, phase: response, expression: http.request.body.size gt 10, action: log}
""")
    driver = made.h1()
    for size in (3, 20, 20, 2):
        driver.feed(post(b"/", b"x" * size))
    assert [line["rules"] for line in logged(made)] == [["w"], ["w", "big"], ["w", "big"], ["w"]]


def test_a_body_is_held_for_the_route_it_goes_to(tmp_path: Path) -> None:
    made = stand(tmp_path, """\
- {id: s, expression: 'http.request.uri.path eq "/s"', action: rewrite, path: /v/s}
- {id: bad, expression: 'http.request.body.raw contains "bad"', action: block}
""", {"upstream": "main", "preview": "2B", "max_body": "4B"}, {"path": "/v/", "upstream": "main", "preview": "1KiB"})  # fmt: skip
    assert b"HTTP/1.1 403 " in made.h1().feed(post(b"/s", b"very bad"), step=7).link.written
    assert b"HTTP/1.1 200 " in made.h1().feed(post(b"/s", b"very good"), step=7).link.written


def test_what_is_left_out_is_not_waited_for(tmp_path: Path) -> None:
    made = stand(tmp_path, """\
- {id: pass, expression: 'http.request.uri.path eq "/up"', action: skip, skip: [bad]}
- {id: bad, expression: 'http.request.body.raw contains "bad"', action: block}
- {id: few, expression: 'http.request.body.raw contains "bad"', action: block, sample: 0.000000001}
""")
    made.h1().feed(post(b"/up", b"bad")[:-1])
    assert len(pools(made)["main"]) == 1


def test_what_previews_hold_is_bounded(tmp_path: Path) -> None:
    made = stand(tmp_path, BODY)
    made.gateway.held = made.snapshot.client.previews - 2
    assert b"HTTP/1.1 503 " in made.h1().feed(post(b"/b", b"12345")[:-2]).link.written
    assert made.gateway.held == made.snapshot.client.previews - 2, "given back"
    made.gateway.held = 0
    driver = made.h1().feed(post(b"/b", b"12345")[:-2])
    assert made.gateway.held == 3
    driver.h1.connection_lost(None)
    assert made.gateway.held == 0 and not made.gateway.previews and not made.deadlines.members


def test_a_body_that_drips_in_has_its_time(tmp_path: Path) -> None:
    made = stand(tmp_path, BODY)
    driver = made.h1().feed(post(b"/b", b"12345")[:-2])
    made.deadlines.sweep(made.deadlines.now + 59)
    driver.feed(b"4")
    assert driver.link.written == b""
    made.deadlines.sweep(made.deadlines.now + 3)
    assert b"HTTP/1.1 408 " in driver.link.written and made.gateway.held == 0 and not made.deadlines.members


def test_a_rewritten_and_routed_request_is_of_the_route_it_seems_to_be(tmp_path: Path) -> None:
    made = stand(tmp_path, """\
- {id: move, expression: 'http.request.uri.path eq "/a"', action: rewrite, path: /v1/a}
- {id: go, expression: 'http.request.uri.path eq "/v1/a"', action: route, upstream: other}
- {id: stop, expression: 'edge.route.dialect eq "openai" and http.request.headers["x"][0] eq "1"', action: block}
""", {"path": "/v1/", "upstream": "chat", "dialect": "openai"})  # fmt: skip
    assert b'"code":"rule_block"' in made.h1().feed(GET % (b"/a", b"X: 1\r\n")).link.written
    made.h1().feed(GET % (b"/a", b""))
    (head,) = pools(made)["other"]
    assert lines_of(head, b"accept-encoding") == [b"identity"] and logged(made)[1]["route"] == "*/v1/"


@pytest.mark.parametrize("when", ["ssl", LATE])
def test_a_rule_chooses_the_upstream(tmp_path: Path, when: str) -> None:
    made = stand(tmp_path, f"""\
- {{id: go, expression: '{when} and http.request.uri.path ne "/"', action: route, upstream: other, host: api.example}}
- {{id: move, expression: '{when} and http.request.uri.path eq "/x"', action: rewrite, path: /v1/x}}
""", {"upstream": "main", "models": {"m": "chat"}}, {"path": "/v1/", "upstream": "chat", "dialect": "openai"})  # fmt: skip
    made.h1().feed(b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n{")
    (head,) = pools(made)["other"]
    assert head.startswith(b"POST /v1/x HTTP/1.1\r\nhost: api.example\r\n"), "neither model nor path matter"
    assert logged(made)[0]["route"] == "*/v1/" and pools(made).keys() == {"other"}
    made.h1().feed(GET % (b"/", b""))
    assert pools(made).keys() == {"other", "main"}


def test_tags_and_skipped_stages(tmp_path: Path) -> None:
    made = stand(tmp_path, """\
- {id: a, expression: ssl, action: set, tags: [partner, beta]}
- {id: b, expression: ssl, action: skip, skip: {stages: [limits], rules: [c]}}
- {id: c, expression: ssl, action: block}
- {id: d, expression: ssl, action: set, tags: [beta, gamma]}
""")
    made.h1().feed(GET % (b"/", b""))
    assert (logged(made)[0]["rules"], logged(made)[0]["tags"]) == (["a", "b", "d"], ["partner", "beta", "gamma"])


def test_requests_without_a_route(tmp_path: Path) -> None:
    made = stand(tmp_path, """\
- {id: old, expression: 'http.host eq "old.test"', action: redirect, location: https://new.test/}
- {id: move, expression: 'http.request.uri.path eq "/a"', action: rewrite, path: /in/a}
- {id: lost, expression: 'http.request.uri.path eq "/in/b"', action: rewrite, path: /b}
- {id: route, expression: 'http.request.uri.path eq "/c"', action: route, upstream: other}
""", {"path": "/in/", "upstream": "main"})  # fmt: skip
    assert b"HTTP/1.1 302 " in made.h1().feed(b"GET / HTTP/1.1\r\nHost: old.test\r\n\r\n").link.written
    made.h1().feed(GET % (b"/a", b""))
    assert pools(made)["main"][0].startswith(b"GET /in/a ")
    for path in (b"/in/b", b"/c", b"/d"):
        assert b"HTTP/1.1 404 " in made.h1().feed(GET % (path, b"")).link.written
    assert [line["route"] for line in logged(made)] == ["-", "*/in/", "-", "-", "-"]


@pytest.mark.parametrize("when", ["true", LATE, "http.response.code ge 200"])
def test_headers_of_the_reply(tmp_path: Path, when: str) -> None:
    made = stand(tmp_path, f"""\
- id: out
  phase: response
  expression: '{when}'
  action: rewrite
  headers: {{set: {{x-frame-options: DENY, x-seen: {{expression: raw.http.request.uri.path}}}}, remove: [server]}}
- {{id: after, phase: response, expression: 'http.response.headers["x-frame-options"][0] eq "DENY"
     and not any(raw.http.response.headers.names[*] eq "x-frame-options")', action: log}}
- {{id: own, phase: response, expression: 'http.response.code in {{400..499}}', action: log}}
- {{id: no, expression: 'http.request.uri.path eq "/no"', action: block}}
""")
    written = made.h1().feed(GET % (b"/p?q", b"")).link.written
    assert b"\r\nx-frame-options: DENY\r\n" in written and b"\r\nx-seen: /p\r\n" in written
    assert b"strict-transport-security" in written, "the edge's own fields stay"
    assert logged(made)[0]["rules"] == ["out", "after"]
    written = made.h1().feed(GET % (b"/no", b"")).link.written
    assert b"HTTP/1.1 403 " in written and b"\r\nx-frame-options: DENY\r\n" in written, "also on the edge's own answers"
    assert logged(made)[1]["rules"] == ["no", "out", "after", "own"]


def test_a_response_rule_can_be_skipped_and_be_of_a_path(tmp_path: Path) -> None:
    made = stand(tmp_path, """\
- {id: skip, expression: 'http.request.uri.path eq "/s"', action: skip, skip: [out]}
- {id: out, phase: response, expression: 'http.request.uri.path ne "/t" and http.response.code eq 200', action: log}
""")
    for path in (b"/s", b"/t", b"/u"):
        made.h1().feed(GET % (path, b""))
    assert [line.get("rules") for line in logged(made)] == [["skip"], None, ["out"]]
    plan = cast("Any", made.snapshot.routes[0].pools)["main"].jobs[1].exchange.plan
    assert plan.answering is None and plan.direct, "nothing is asked where nothing can hold"


BODY = """\
- {id: first, expression: 'http.request.uri.path eq "/first"', action: block}
- {id: soon, expression: 'http.request.uri.path eq "/b/soon" and http.request.timestamp.sec gt 0', action: block}
- {id: body, expression: 'starts_with(http.request.uri.path, "/b") and http.request.body.raw contains "bad"', action: block}
- {id: tail, expression: 'http.request.uri.path eq "/b/tail"', action: rewrite, path: /tail}
"""


def post(path: bytes, body: bytes) -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (path, len(body), body)


@pytest.mark.parametrize("step", [0, 1])
def test_rules_about_the_body(tmp_path: Path, step: int) -> None:
    made = stand(tmp_path, BODY, {"upstream": "main", "preview": "1KiB"})
    assert b"HTTP/1.1 403 " in made.h1().feed(post(b"/b", b"so bad"), step=step).link.written
    assert pools(made) == {}
    driver = made.h1().feed(post(b"/b/tail", b"fine"), step=step)
    assert driver.link.written.endswith(b"\r\n\r\nfine")
    assert pools(made)["main"][0].startswith(b"POST /tail ")
    made.h1().feed(post(b"/b", b"x" * 3000), step=step * 500)
    job = cast("Any", made.snapshot.routes[0].pools)["main"].jobs[1]
    assert job.body == b"x" * 3000, "what is more than the preview streams on"


def test_only_where_a_rule_can_match_is_a_body_waited_for(tmp_path: Path) -> None:
    made = stand(tmp_path, BODY)
    made.h1().feed(post(b"/x", b"bad")[:-1])
    assert len(pools(made)["main"]) == 1, "not waited for"
    for path in (b"/first", b"/b/soon"):
        assert b"HTTP/1.1 403 " in made.h1().feed(post(path, b"bad")[:-1]).link.written
    made.h1().feed(post(b"/b", b"bad")[:-1])
    assert len(pools(made)["main"]) == 1
    made.h1().feed(GET % (b"/b", b""))
    assert len(pools(made)["main"]) == 2, "no body, nothing to wait for"


def test_the_client_leaves_while_rules_wait(tmp_path: Path) -> None:
    made = stand(tmp_path, BODY)
    driver = made.h1().feed(post(b"/b", b"bad")[:-1])
    driver.h1.connection_lost(None)
    assert pools(made) == {} and logged(made)[0]["outcome"] == "client_gone"


def test_rules_and_models_read_the_same_body(tmp_path: Path) -> None:
    made = stand(tmp_path, BODY, {"upstream": "main", "preview": "1KiB", "models": {"m": "chat"}})
    made.h1().feed(post(b"/b", b'{"model":"m"}'), step=5)
    assert pools(made).keys() == {"chat"}
    assert b"HTTP/1.1 413 " in made.h1().feed(post(b"/b", b"x" * 2000), step=100).link.written


def test_a_body_over_the_bound_of_the_route(tmp_path: Path) -> None:
    made = stand(tmp_path, BODY + "- {id: small, expression: 'http.request.uri.path eq \"/s\"', action: rewrite, path: /v/s}\n",
                 {"upstream": "main"}, {"path": "/v/", "upstream": "main", "max_body": "4B"})  # fmt: skip
    assert b"HTTP/1.1 413 " in made.h1().feed(post(b"/s", b"12345")).link.written, "the bound is that of the route it goes to"
    assert b"HTTP/1.1 200 " in made.h1().feed(post(b"/s", b"1234")).link.written


def test_an_unknown_upstream_is_refused_at_load(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"r\.yaml:2:\d+ unknown upstream 'mian' \(did you mean 'main'"):
        stand(tmp_path, "- {id: a, expression: ssl, action: route, upstream: mian}")


def test_events_say_what_each_rule_saw(tmp_path: Path) -> None:
    made = stand(tmp_path, """\
- {id: log, expression: 'http.request.uri.path contains "/a"', action: log}
- {id: move, expression: 'starts_with(http.request.uri.path, "/a")', action: rewrite, path: /b}
- {id: stop, expression: 'http.request.uri.path eq "/b" and http.request.headers["x"][0] eq "1"', action: block, status: 418}
- {id: try, expression: 'http.request.headers["cookie"][0] contains "k"', action: block, mode: log}
- {id: out, phase: response, expression: 'http.response.code eq 418', action: log}
""")
    events = Events(str(tmp_path / "events.jsonl"), made.stats)
    made.gateway.events = events
    made.h1().feed(GET % (b"/a?key=sk-SECRET", b"X: 1\r\nCookie: k=sk-SECRET\r\n"))
    made.h1().feed(GET % (b"/c", b"X: 1\r\nCookie: k=sk-SECRET\r\n"))
    told = [json.loads(line) for line in events.writer.lines]
    assert [(each["rule"], each["action"], each["path"], each["fields"].get("http.request.uri.path")) for each in told] == [
        ("log", "log", "/a", "/a"), ("move", "rewrite", "/a", "/a"), ("stop", "block", "/b", "/b"), ("out", "log", "/b", None),
        ("try", "log", "/c", None),
    ]  # fmt: skip
    assert told[2]["status"] == 418 and told[3]["fields"] == {"http.response.code": 418}
    assert "SECRET" not in json.dumps(told) and told[4]["mode"] == "log"
    events.writer.close()
