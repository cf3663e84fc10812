# What scores do over every protocol alike: a policy that acts and one on trial, rules, keys, logs, events and metrics.
from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.bots import FIREFOX, PAGE
from support.keys import DERIVED, model
from support.upstream import Connection, ok, running_upstream

from edgeproxy.config.keys import KeyBook
from edgeproxy.config.secret import Secret
from edgeproxy.observe.events import Events
from edgeproxy.policy.keytext import make

from .stand import Stand, routed, stand
from .test_rules import hits, ruled

CURL = [(b"user-agent", b"curl/8.14.1"), (b"accept", b"*/*")]
OWN = [(b"user-agent", b"an-app/1.0"), (b"accept", b"*/*"), (b"accept-encoding", b"gzip")]
"""Of a program that no heuristic knows."""


def bots(**changes: Any) -> dict[str, Any]:
    """The section; without a model, so that what no heuristic catches is 0."""
    return {"enabled": True, "model": "off", "identity": {"dns": False, "known_agents": False}, **changes}


def bot_events(s: Stand, path: Path) -> list[dict[str, Any]]:
    events = s.edge.data_plane._gateway.events
    assert events is not None
    events.writer.close()
    return [each for each in map(json.loads, path.read_text().splitlines()) if each["event"] == "bot"]


async def test_block(protocol: str, tmp_path: Path) -> None:
    async with stand(protocol, bots=bots(mode="act", block=1)) as s:
        path = tmp_path / "events.jsonl"
        s.edge.data_plane.tell(Events(str(path), s.edge.stats))
        wire = await s.dial()
        for method in ("GET", "HEAD", "POST"):
            call = wire.call(method, "/a", CURL, b"content" if method == "POST" else None)
            assert await call.reply() == 403
            assert call.values(b"cache-control") == [b"no-store"] and call.values(b"set-cookie") == []
            assert (b"automated" in call.body) == (method != "HEAD")
        assert (await wire.get("/b", OWN)).status == 200
        assert [each.line for each in s.upstream.requests] == [b"GET /b HTTP/1.1"]
        lines = s.records
        assert [(line["bot_score"], line.get("bot_detections"), line["outcome"]) for line in lines] == [
            (1, [1003], "client: bot_block")] * 3 + [(0, None, "ok")]  # fmt: skip
        assert [(line["bot_source"], line.get("bot_reasons")) for line in lines] == [
            ("Heuristics", ["declared_library"])] * 3 + [("Not Computed", None)]  # fmt: skip
        assert all(line["ja4"].startswith("q13d" if protocol == "h3" else "t13d") for line in lines)
        assert s.edge.stats.bots.acts == {("block", "act"): 3} and s.edge.faults == {("client", "bot_block"): 3}
        assert s.edge.stats.bots.scores[:2] == [1, 3] and s.edge.stats.bots.detections == {"declared_library": 3}
        events = bot_events(s, path)
        for event in events:
            assert (event["action"], event["mode"], event["score"], event["source"]) == ("block", "act", 1, "Heuristics")
            assert event["detections"] == [1003] and event["reasons"] == ["The User-Agent is that of a program or a library."]
            assert event["ja4"] == lines[0]["ja4"] and event["path"] == "/a"
        assert len(events) == 3


@pytest.mark.parametrize("act", [{"block": 1}, {"challenge": 1}, {"slow": {"score": 1, "upstream": "main"}}])
async def test_a_policy_on_trial_refuses_nobody(protocol: str, act: dict[str, Any], tmp_path: Path) -> None:
    (name,) = act
    async with stand(protocol, bots=bots(**act)) as s:
        path = tmp_path / "events.jsonl"
        s.edge.data_plane.tell(Events(str(path), s.edge.stats))
        wire = await s.dial()
        for _ in range(2):
            assert (await wire.get("/", CURL)).status == 200
        assert s.edge.stats.bots.acts == {(name, "log"): 2} and s.edge.faults == {}
        assert [(each["action"], each["mode"]) for each in bot_events(s, path)] == [(name, "log")] * 2


async def test_a_challenge(protocol: str) -> None:
    async with stand(protocol, bots=bots(mode="act", challenge=29)) as s:
        wire = await s.dial()
        call = await wire.get("/", CURL)
        assert call.status == 401 and call.values(b"edge-mitigated") == [b"challenge"]
        page = await wire.get("/", [CURL[0], (b"accept", b"text/html"), (b"sec-fetch-mode", b"navigate")])
        assert page.status == 403 and b"<html" in page.body.lower()
        assert (await wire.get("/", OWN)).status == 200
        assert s.edge.stats.bots.acts == {("challenge", "act"): 2}
        assert (await wire.get("/.edge/challenge.js", CURL)).status == 200, "its own script has to come"
        assert len(s.upstream.requests) == 1


async def test_slower_with_limits_and_another_upstream(protocol: str) -> None:
    def other(connection: Connection) -> None:
        connection.answer(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nsmall")

    limits = [
        {"name": "few", "requests": 2, "key": "http.host", "period": "60s", "algorithm": "fixed-window", "named": True},
        {"name": "ruled", "requests": 5, "key": "http.host", "period": "60s", "algorithm": "fixed-window", "named": True},
    ]  # fmt: skip
    rules = ruled("- {id: name, expression: 'true', action: set, limits: [ruled]}")
    async with running_upstream(ok) as small:
        settings = {"small": {"targets": [{"url": f"http://127.0.0.1:{small.port}"}]}}
        slow = {"score": 1, "limits": ["few"], "upstream": "small"}
        async with stand(protocol, bots=bots(mode="act", slow=slow), limits=limits, rules=rules, upstreams=settings) as s:
            wire = await s.dial()
            assert [(await wire.get("/", CURL)).status for _ in range(3)] == [200, 200, 429]
            assert [(await wire.get("/", OWN)).status for _ in range(2)] == [200, 200]
            assert (len(small.requests), len(s.upstream.requests)) == (2, 2)
            assert s.edge.stats.limits[("few", "limited")] == 1
            assert s.edge.stats.limits[("ruled", "allowed")] == 4, "what a rule asks for is asked of those who are slowed, too"
            assert s.edge.stats.bots.acts == {("slow", "act"): 3}


async def test_rules_read_scores(protocol: str) -> None:
    rules = ruled("""
- {id: score, expression: 'cf.bot_management.score eq 1 and http.request.uri.path eq "/score"', action: block}
- {id: none, expression: 'cf.bot_management.score eq 0', action: log}
- {id: source, expression: 'edge.bot.score_source eq "Heuristics"', action: log}
- {id: ids, expression: 'any(cf.bot_management.detection_ids[*] eq 1003)', action: log}
- {id: verified, expression: 'cf.bot_management.verified_bot or cf.client.bot', action: block}
- {id: passed, expression: 'cf.bot_management.js_detection.passed', action: block}
""")
    async with stand(protocol, bots=bots(log=0), rules=rules) as s:
        wire = await s.dial()
        assert (await wire.get("/score", CURL)).status == 403
        assert (await wire.get("/", CURL)).status == 200
        assert (await wire.get("/score", OWN)).status == 200
        assert hits(s) == {"score": 1, "source": 1, "ids": 1, "none": 1}
        assert s.edge.stats.bots.acts == {} and s.edge.stats.rule_errors == {}


async def test_a_rule_skips_the_stage(protocol: str) -> None:
    rules = ruled("""
- {id: a, expression: 'http.request.uri.path eq "/in"', action: skip, skip: {stages: [bots]}}
""")
    async with stand(protocol, bots=bots(mode="act", block=1), rules=rules) as s:
        wire = await s.dial()
        assert [(await wire.get(path, CURL)).status for path in ("/in", "/out", "/in")] == [200, 403, 200]
        assert [line["bot_score"] for line in s.records] == [1, 1, 1], "it is scored all the same"


async def test_routes_say_otherwise(protocol: str) -> None:
    routes = [
        {"path": "/", "upstream": "main"}, {"path": "/off", "upstream": "main", "bots": {"enabled": False}},
        {"path": "/trial", "upstream": "main", "bots": {"mode": "log"}},
        {"path": "/zero", "upstream": "main", "bots": {"block": 0}},
        {"host": "edge.test", "path": "/", "upstream": "main", "bots": {"block": 0, "challenge": 1}},
    ]  # fmt: skip
    async with stand(protocol, bots=bots(mode="act", block=1), routes=routes) as s:
        wire = await s.dial()
        found = [(await wire.get(path, CURL)).status for path in ("/", "/off", "/trial", "/zero")]
        assert found == [403, 200, 200, 200]
        assert s.edge.stats.bots.acts == {("block", "act"): 1, ("block", "log"): 1, ("log", "act"): 1}
        other = await s.dial(name="edge.test")
        assert (await other.call("GET", "/", CURL, host="edge.test").reply()) == 401


@pytest.mark.parametrize("keyed", ["allow", "score"])
async def test_keys(protocol: str, keyed: str) -> None:
    made = make()
    book = KeyBook(pepper=Secret(DERIVED.hex().encode("ascii")), keys=(model(made),))
    section, routes = bots(mode="act", block=1, keyed=keyed), routed(keys="optional")
    async with stand(protocol, bots=section, keys={"book": book}, routes=routes) as s:
        wire = await s.dial()
        right = (b"authorization", b"Bearer " + made.text.encode())
        assert (await wire.get("/", [*CURL, right])).status == (200 if keyed == "allow" else 403)
        assert (await wire.get("/", CURL)).status == 403
        wrong = (b"authorization", b"Bearer " + make().text.encode())
        assert (await wire.get("/", [*CURL, wrong])).status in {401, 403}, "a key that is not right opens nothing"


async def test_behind_a_trusted_proxy(protocol: str) -> None:
    async with stand(protocol, bots=bots(mode="act", block=1), trusted_proxies=["127.0.0.0/8"]) as s:
        wire = await s.dial()
        assert (await wire.get("/", [*PAGE, (b"x-forwarded-for", b"203.0.113.7")])).status == 200
        assert (await wire.get("/", [*CURL, (b"x-forwarded-for", b"203.0.113.7")])).status == 403
        first, second = s.records
        assert "bot_detections" not in first and first.get("ja4", "") == "" and second["bot_detections"] == [1003]


async def test_what_the_connection_gives_away(protocol: str) -> None:
    """The wires of the suite are Python's ssl, and aioquic: no browser's."""
    async with stand(protocol, bots=bots()) as s:
        wire = await s.dial()
        await wire.get("/", PAGE)
        await wire.get("/", [(name, FIREFOX if name == b"user-agent" else value) for name, value in PAGE if b"ch-ua" not in name])
        for line in s.records:
            assert line["bot_score"] == 1
            assert 3001 in line["bot_detections"] and (5001 in line["bot_detections"]) == (protocol == "h3")
            assert (4001 in line["bot_detections"]) == (protocol == "h2")


@pytest.mark.parametrize(("networks", "known"), [
    (["127.0.0.0/8"], True), (["::ffff:127.0.0.1/128"], True), (["192.0.2.0/24"], False), ([], False),
])  # fmt: skip
async def test_behind_a_corporate_proxy(protocol: str, networks: list[str], known: bool) -> None:
    """The handshake is that of Python's ssl, or of aioquic."""
    rules = ruled("""
- {id: proxied, expression: 'cf.bot_management.corporate_proxy', action: log}
- {id: direct, expression: 'not cf.bot_management.corporate_proxy', action: log}
""")
    async with stand(protocol, bots=bots(corporate_proxies=networks), rules=rules) as s:
        wire = await s.dial()
        for _ in range(2):
            await wire.get("/", PAGE)
        await wire.get("/", CURL)
        assert hits(s) == {"proxied" if known else "direct": 3}
        first, _, other = s.records
        assert other["bot_detections"] == [1003], "what it says itself counts as ever"
        assert (first["bot_score"], "bot_detections" in first) == ((0, False) if known else (1, True))
        assert first["ja4"].startswith("q13d" if protocol == "h3" else "t13d"), "the log tells what there was"


async def test_nobody_is_behind_one_where_nobody_scores(protocol: str) -> None:
    rules = ruled("- {id: missing, expression: 'not cf.bot_management.corporate_proxy', action: log}")
    async with stand(protocol, rules=rules) as s:
        await (await s.dial()).get("/", PAGE)
        assert hits(s) == {"missing": 1}, "a missing value is false, and not false is true"


async def test_browsers_get_a_session(protocol: str) -> None:
    async with stand(protocol, bots=bots(log=0)) as s:
        wire = await s.dial()
        (cookie,) = (await wire.get("/", PAGE)).values(b"set-cookie")
        assert cookie.startswith(b"__Host-edge_session=") and b"; Secure; HttpOnly; SameSite=Lax" in cookie
        assert (await wire.get("/", [*PAGE, (b"cookie", cookie.partition(b";")[0])])).values(b"set-cookie") == []
        assert (await wire.get("/", CURL)).values(b"set-cookie") == []


async def test_a_session_draws_scores_towards_what_they_were(protocol: str) -> None:
    """With a model that is told what to say: our clients' handshakes are those of a library, which is certain."""
    async with stand(protocol, bots=bots(log=0, behaviour={"rate": 0})) as s:
        settings = s.edge.data_plane._gateway.snapshot.bots
        assert settings is not None and settings.sessions is not None
        says = SimpleNamespace(chance=0.9, manifest=SimpleNamespace(knots=((0.0, 2.0), (1.0, 98.0))))
        says.predict = lambda _: says.chance
        settings.scorer.model = cast("Any", says)
        now = time.time()
        text = settings.sessions.write(settings.sessions.begin(now)._replace(requests=1), now).partition(b";")[0]
        wire, other = await s.dial(), await s.dial()
        own = [*OWN, (b"cookie", text)]
        for number in range(10):
            await wire.get("/", [*own, (b"x-number", b"%d" % number)])
        says.chance = 0.2
        await other.get("/", [*own, (b"x-number", b"odd")])
        await other.get("/", [(b"user-agent", b"another/1"), *own[1:]])
        await other.get("/", [*OWN, (b"x-number", b"alone")])
        assert [line["bot_score"] for line in s.records] == [88] * 10 + [30, 21, 21]


async def test_a_reload_turns_it_on_and_off(protocol: str) -> None:
    async with stand(protocol) as s:
        wire = await s.dial()
        assert (await wire.get("/", CURL)).status == 200
        s.reload(bots=bots(mode="act", block=1))
        assert (await wire.get("/", CURL)).status == 403
        s.reload()
        assert (await wire.get("/", CURL)).status == 200
        assert [line.get("bot_score") for line in s.records] == [None, 1, None]
