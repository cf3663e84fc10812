# Rules that change a request, where it goes, or its reply: what is sent to the upstream and to the client.
"""ruling.py with plan.py and gateway.py, with real listeners' protocols and no sockets."""

from __future__ import annotations

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
        b"x-debug": [], b"x-tenant": [b"acme"], b"x-real-ip": [b"192.0.2.1"], b"x-more": [b"1", b"2"], b"x-none": [b"kept"],
        b"x-forwarded-user": [b"us"],
    }.items():  # fmt: skip
        assert [line.partition(b": ")[2] for line in lines if line.startswith(name + b":")] == values, name
    assert made.stats.rule_hits[("seen", "log")] == 1


def test_what_cannot_be_sent_is_not_done_at_all(tmp_path: Path) -> None:
    made = stand(tmp_path, """\
- id: gone
  expression: ssl
  action: rewrite
  path_expression: http.request.uri.args["p"][0]
  headers: {set: {x-a: b}}
- {id: split, expression: ssl, action: rewrite, headers: {set: {x-b: {expression: 'url_decode(http.request.uri.args["h"][0])'}}}}
""")
    for query in (b"", b"?p=nothing", b"?p=/a/../b", b"?p=/a%2fb"):
        made.h1().feed(GET % (b"/keep" + query, b""))
    made.h1().feed(GET % (b"/keep?h=a%0d%0ax-c:%20d", b""))
    assert {head.split(b" ")[1].partition(b"?")[0] for head in pools(made)["main"]} == {b"/keep"}
    assert not any(b"x-a" in head or b"x-b" in head or b"x-c" in head.partition(b"\r\n")[2] for head in pools(made)["main"])
    assert made.stats.rule_errors == {"gone": 5, "split": 1} and made.stats.rule_hits == {("split", "rewrite"): 4}
    made.h1().feed(GET % (b"/keep?p=/new%20path%3f", b""))
    assert pools(made)["main"][-1].startswith(b"GET /new%20path%3f?p=/new%20path%3f HTTP/1.1"), "encoded as it came"


@pytest.mark.parametrize("when", ["ssl", LATE])
def test_a_rule_chooses_the_upstream(tmp_path: Path, when: str) -> None:
    made = stand(tmp_path, f"""\
- {{id: go, expression: '{when} and http.request.uri.path ne "/"', action: route, upstream: other, host: api.example}}
- {{id: move, expression: '{when} and http.request.uri.path eq "/x"', action: rewrite, path: /v1/x}}
""", {"upstream": "main", "models": {"m": "chat"}}, {"path": "/v1/", "upstream": "chat", "dialect": "openai"})  # fmt: skip
    made.h1().feed(b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n{")
    (head,) = pools(made)["other"]
    assert head.startswith(b"POST /v1/x HTTP/1.1\r\nhost: api.example\r\n"), "neither model nor path matter"
    assert logged(made)[0]["route"] == "*/" and pools(made).keys() == {"other"}
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
    assert b"HTTP/1.1 403 " in made.h1().feed(post(b"/first", b"bad")[:-1]).link.written
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
