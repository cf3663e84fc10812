# What rules do, over every protocol: answers, changes, and that each is counted and logged.
from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from support.upstream import OK, Connection, echo, ok, replies, running_upstream
from support.waiting import until

from .stand import STREAM, Stand, chunk, routed, stand
from .test_tunnel import tunnel

# Asked once for a head, or for each request.
WHEN = ["ssl", "http.request.timestamp.sec gt 0"]
HSTS = [b"max-age=63072000; includeSubDomains"]


def ruled(text: str) -> dict[str, Any]:
    """Rules as they travel to a worker: `stand(…, rules=ruled(…))`."""
    return {"book": {"rules": yaml.safe_load(text)}}


def hits(s: Stand) -> dict[str, int]:
    """How often each rule was hit."""
    return {rule: count for (rule, _), count in s.edge.stats.rule_hits.items()}


BLOCKS = """
- {id: own, expression: 'http.request.uri.path eq "/own"', action: block, status: 451, body: '{"no": 1}'}
- {id: text, expression: 'http.request.uri.path eq "/text"', action: block, body: 'no', content_type: text/x-no}
- {id: ask, expression: 'http.request.uri.path eq "/ask"', action: managed_challenge}
- {id: plain, expression: 'http.request.uri.path contains "blocked"', action: block}
"""


@pytest.mark.parametrize(("path", "status", "kind", "part", "rule"), [
    ("/own", 451, b"application/json", b'{"no": 1}', "own"),
    ("/text", 403, b"text/x-no", b"no", "text"),
    ("/ask", 401, b"application/json", b"has to pass a challenge", "ask"),
    ("/blocked", 403, b"application/json", b"blocked by a rule", "plain"),
])  # fmt: skip
async def test_a_block(protocol: str, path: str, status: int, kind: bytes, part: bytes, rule: str) -> None:
    async with stand(protocol, rules=ruled(BLOCKS)) as s:
        wire = await s.dial()
        for method in ("GET", "GET", "HEAD", "POST"):
            call = wire.call(method, path, body=b"" if method == "POST" else None)
            assert await call.reply() == status
            assert call.values(b"content-type") == [kind]
            assert call.values(b"strict-transport-security") == HSTS
            if method == "HEAD":
                assert call.body == b"" and call.values(b"content-length") != [b"0"]
            else:
                assert part in call.body
            assert call.values(b"connection") == [], "the connection serves on"
        assert s.upstream.connections == []
        assert hits(s) == {rule: 4}
        assert sum(s.edge.faults.values()) == 4
        outcome = "edge: rule_challenge" if rule == "ask" else "client: rule_block"
        lines = [(each["rules"], each["status"], each["outcome"], each["upstream"]) for each in s.records]
        assert lines == [([rule], status, outcome, None)] * 4


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "responses"])
async def test_a_block_where_a_dialect_is_spoken(protocol: str, dialect: str) -> None:
    async with stand(protocol, rules=ruled(BLOCKS), routes=routed(dialect=dialect)) as s:
        call = await (await s.dial()).get("/blocked", [(b"accept", b"text/html")])
        error = json.loads(call.body)["error"]
        assert call.status == 403 and "blocked by a rule" in error["message"]
        assert error["type"] == ("permission_error" if dialect == "anthropic" else error["type"])


async def test_a_block_for_people(protocol: str) -> None:
    async with stand(protocol, rules=ruled(BLOCKS)) as s:
        call = await (await s.dial()).get("/blocked", [(b"accept", b"text/html,*/*;q=0.8")])
        assert call.values(b"content-type") == [b"text/html; charset=utf-8"]
        ray = (await s.record())["ray"].encode()
        assert ray in call.body and b"plain" not in call.body, "who is blocked is not told by which rule"


@pytest.mark.parametrize("when", WHEN)
async def test_a_rewrite(protocol: str, when: str) -> None:
    rules = ruled(f"""
- id: move
  expression: '{when} and starts_with(http.request.uri.path, "/api/")'
  action: rewrite
  path_expression: 'concat("/v1/", substring(http.request.uri.path, 5))'
  query_expression: 'concat("was=", http.request.uri.query)'
  headers: {{set: {{x-tenant: acme, x-host: {{expression: http.host}}}}, add: {{x-more: "2"}}, remove: [x-debug]}}
- {{id: later, expression: 'http.request.uri.path eq "/v1/chat" and raw.http.request.uri.path eq "/api/chat"', action: log}}
""")
    fields = [(b"x-tenant", b"evil"), (b"x-more", b"1"), (b"x-debug", b"1")]
    async with stand(protocol, echo, rules=rules, routes=[{"path": "/v1/", "upstream": "main"}]) as s:
        wire = await s.dial()
        for number in range(2):
            call = wire.call("POST", "/api/chat?a=b", fields, b"content")
            assert await call.reply() == 200 and call.body == b"content"
            seen = s.upstream.requests[number]
            assert seen.line == b"POST /v1/chat?was=a=b HTTP/1.1"
            assert (seen.values(b"x-tenant"), seen.values(b"x-host")) == ([b"acme"], [b"localhost"])
            assert (seen.values(b"x-more"), seen.values(b"x-debug")) == ([b"1", b"2"], [])
            assert seen.values(b"host") == [b"localhost"] and seen.values(b"content-length") == [b"7"]
        assert (await wire.get("/else")).status == 404
        assert [(each.get("rules"), each["path"], each["route"]) for each in s.records] == [
            (["move", "later"], "/api/chat", "*/v1/"), (["move", "later"], "/api/chat", "*/v1/"), (None, "/else", "-"),
        ]  # fmt: skip
        assert hits(s) == {"move": 2, "later": 2}


async def test_redirects(protocol: str) -> None:
    rules = ruled("""
- {id: fixed, expression: 'http.request.uri.path eq "/a"', action: redirect, location: 'https://x.test/', status: 308}
- {id: query, expression: 'http.request.uri.path eq "/b"', action: redirect, location: '/c?d=e', preserve_query: true}
- {id: made, expression: 'http.request.uri.path matches "^/old/"', action: redirect,
   location_expression: 'concat("https://", http.host, "/new/", url_decode(http.request.uri.args["to"][0]))'}
""")
    async with stand(protocol, rules=rules) as s:
        wire = await s.dial()
        for path, status, location in (
            ("/a?x", 308, b"https://x.test/"), ("/b?x=y", 302, b"/c?d=e&x=y"),
            ("/old/?to=%0d%0ax-evil:%201", 302, b"https://localhost/new/%0D%0Ax-evil:%201"),
        ):  # fmt: skip
            call = await wire.get(path)
            assert (call.status, call.values(b"location"), call.body) == (status, [location], b"")
            assert call.values(b"x-evil") == [] and call.values(b"strict-transport-security") == HSTS
        assert (await wire.get("/")).body == b"ok"
        assert [(each.get("rules"), each["outcome"]) for each in s.records] == [
            (["fixed"], "ok"), (["query"], "ok"), (["made"], "ok"), (None, "ok"),
        ]  # fmt: skip


async def test_skip_allow_log_and_tags(protocol: str) -> None:
    rules = ruled("""
- {id: seen, expression: ssl, action: log}
- {id: tag, expression: 'http.request.headers["x-k"][0] eq "skip"', action: set, tags: [partner, beta]}
- {id: pass, expression: 'http.request.headers["x-k"][0] eq "skip"', action: skip, skip: [stop]}
- {id: in, expression: 'http.request.headers["x-k"][0] eq "allow"', action: allow}
- {id: try, expression: ssl, action: block, mode: log}
- {id: stop, expression: 'any(http.request.headers.names[*] eq "x-k")', action: block}
""")
    async with stand(protocol, rules=rules) as s:
        wire = await s.dial()
        statuses = [(await wire.get("/", [(b"x-k", value)])).status for value in (b"skip", b"allow", b"else")]
        assert statuses == [200, 200, 403]
        assert [(each["rules"], each.get("tags")) for each in s.records] == [
            (["seen", "tag", "pass", "try"], ["partner", "beta"]), (["seen", "in"], None), (["seen", "try", "stop"], None),
        ]  # fmt: skip
        assert s.edge.stats.rule_hits == {
            ("seen", "log"): 3, ("tag", "set"): 1, ("pass", "skip"): 1, ("try", "log"): 2, ("in", "allow"): 1,
            ("stop", "block"): 1,
        }  # fmt: skip


@pytest.mark.parametrize("when", WHEN)
async def test_another_upstream(protocol: str, when: str) -> None:
    rules = ruled(f"- {{id: go, expression: '{when} and http.request.uri.path eq \"/x\"', action: route, upstream: other,"
                  " host: api.example}")  # fmt: skip
    async with running_upstream(replies(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother")) as other:
        upstreams = {"other": {"targets": [{"url": f"http://127.0.0.1:{other.port}"}]}}
        async with stand(protocol, rules=rules, upstreams=upstreams) as s:
            wire = await s.dial()
            bodies = [bytes((await wire.get(path)).body) for path in ("/x", "/y", "/x")]
            assert bodies == [b"other", b"ok", b"other"]
            assert [seen.values(b"host") for seen in other.requests] == [[b"api.example"]] * 2
            assert s.upstream.requests[0].values(b"host") == [b"localhost"]
            assert [each["upstream"].rpartition(":")[2] for each in s.records] == [
                str(port) for port in (other.port, s.upstream.port, other.port)
            ]
        await until(lambda: other.open == 0)


RESPONSES = """
- {id: stop, expression: 'http.request.uri.path eq "/no"', action: block}
- id: out
  phase: response
  expression: http.response.code ge 200
  action: rewrite
  headers: {set: {x-frame-options: DENY, x-was: {expression: 'http.response.headers["x-a"][0]'}}, add: {x-n: "1"}, remove: [x-a]}
- {id: bad, phase: response, expression: 'http.response.code in {400..599}', action: log}
"""


async def test_headers_of_replies(protocol: str) -> None:
    async def handler(connection: Connection) -> None:
        while True:
            received = await connection.request()
            if b"/stream" in received.line:
                connection.write(STREAM.replace(b"\r\n\r\n", b"\r\nx-a: s\r\n\r\n") + chunk(b"data: 1\n\n") + b"0\r\n\r\n")
            else:
                connection.write(b"HTTP/1.1 404 No\r\nx-a: b\r\nx-n: 0\r\ncontent-length: 2\r\n\r\nno")

    async with stand(protocol, handler, rules=ruled(RESPONSES)) as s:
        wire = await s.dial()
        for path, status, was, body in (
            ("/", 404, [b"b"], b"no"), ("/stream", 200, [b"s"], b"data: 1\n\n"), ("/no", 403, [], None),
            ("/", 404, [b"b"], b"no"),
        ):  # fmt: skip
            call = await wire.get(path)
            assert (call.status, call.values(b"x-was"), call.values(b"x-a")) == (status, was, [])
            assert call.values(b"x-frame-options") == [b"DENY"] and call.values(b"x-n")[-1] == b"1"
            assert call.values(b"strict-transport-security") == HSTS and len(call.values(b"x-ray-id")) == 1
            assert body is None or call.body == body
        assert [each["rules"] for each in s.records] == [["out", "bad"], ["out"], ["stop", "out", "bad"], ["out", "bad"]]
        assert hits(s) == {"stop": 1, "out": 4, "bad": 3}


async def test_replies_when_the_upstream_is_gone(protocol: str) -> None:
    async def handler(connection: Connection) -> None:
        await connection.request()
        connection.reset()

    async with stand(protocol, handler, rules=ruled(RESPONSES)) as s:
        call = (await s.dial()).call("POST", "/", (), b"x")
        assert await call.reply() == 502
        assert call.values(b"x-frame-options") == [b"DENY"]
        record = await s.record()
        assert record["rules"] == ["out", "bad"] and record["outcome"].startswith("upstream: ")


async def test_other_methods_and_no_content(protocol: str) -> None:
    """A reply without content stays one, whatever rules do to its headers."""
    async def handler(connection: Connection) -> None:
        while True:
            received = await connection.request()
            empty = b"HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n"
            connection.write(OK[:-2] if received.line.startswith(b"HEAD ") else empty)

    async with stand(protocol, handler, rules=ruled(RESPONSES)) as s:
        wire = await s.dial()
        for method, status in (("HEAD", 200), ("DELETE", 204), ("HEAD", 200)):
            call = wire.call(method, "/")
            assert await call.reply() == status
            assert call.body == b"" and call.values(b"x-frame-options") == [b"DENY"]


async def test_many_at_once_are_each_judged_alone(multiplexed: str) -> None:
    rules = ruled("""
- {id: odd, expression: 'http.request.uri.path matches "[13579]$"', action: block, body: odd}
- {id: body, expression: 'http.request.uri.path matches "[48]$" and http.request.body.raw eq "x"', action: block, body: even}
- {id: six, expression: 'http.request.uri.path matches "6$"', action: rewrite, path: /six}
""")
    async with stand(multiplexed, ok, rules=rules) as s:
        wire = await s.dial()
        calls = [wire.call("POST", f"/{number}", (), b"x") for number in range(60)]
        for number, call in enumerate(calls):
            await call.reply()
            assert call.body == (b"odd" if number % 2 else b"even" if number % 10 in (4, 8) else b"ok")
        assert sum(seen.line.startswith(b"POST /six ") for seen in s.upstream.requests) == 6
        assert hits(s) == {"odd": 30, "body": 12, "six": 6}


async def test_a_websocket_is_rewritten_and_tunnelled() -> None:
    rules = ruled("""
- {id: move, expression: 'http.request.uri.path eq "/ws"', action: rewrite, path: /socket, headers: {set: {x-a: b}}}
- {id: out, phase: response, expression: http.response.code eq 101, action: rewrite, headers: {set: {x-seen: "1"}}}
- {id: stop, expression: 'http.request.headers["upgrade"][0] eq "websocket" and http.request.uri.path eq "/none"', action: block}
""")
    async with tunnel(rules=rules) as (s, client):
        assert s.upstream.requests[0].line == b"GET /socket HTTP/1.1" and s.upstream.requests[0].values(b"x-a") == [b"b"]
        await client.send(b"through")
        assert await client.take(7) == b"through"
        await client.leave()
        record = await s.record()
        assert (record["status"], record["rules"], record["path"]) == (101, ["move", "out"], "/ws")


async def test_rules_of_a_reload_hold_on_old_connections(protocol: str) -> None:
    block = ruled("- {id: stop, expression: ssl, action: block}")
    async with stand(protocol) as s:
        wire = await s.dial()
        statuses = []
        for rules in (None, block, None):
            s.reload(**({"rules": rules} if rules else {}))
            statuses += [(await wire.get()).status for _ in range(2)]
        assert statuses == [200, 200, 403, 403, 200, 200]
