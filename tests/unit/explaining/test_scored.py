# The score in explanations: what a head alone comes to, what the policy makes of it, and what paper cannot know.
"""explaining/scored.py."""

from __future__ import annotations

from typing import Any

import pytest
from support.bots import PAGE
from support.explaining import asked, config_with, rule

from edgeproxy.explaining.answer import Explanation, Stage

CURL = [("User-Agent", "curl/8.14.1"), ("Accept", "*/*")]
WORN = [(name.decode(), value.decode()) for name, value in PAGE]
SKIP = {"id": "skip", "expression": "ssl", "action": "skip", "skip": {"stages": ["bots"]}}
SLOW = {"score": 1, "limits": ["few"], "upstream": "other", "priority": "low"}
NAMED = [{"name": "few", "requests": 5, "key": "http.host", "named": True}]


def bots(**changes: Any) -> dict[str, Any]:
    return {"enabled": True, "model": "off", "identity": {"dns": False, "known_agents": False}, **changes}


def stage(found: Explanation) -> Stage | None:
    return next((each for each in found.stages if each.name == "bots"), None)


@pytest.mark.parametrize(("section", "headers", "effect", "said"), [
    (bots(), CURL, "passes", "score 1 (Heuristics): told in an event"), (bots(log=0), CURL, "passes", "nothing is done"),
    (bots(), WORN, "passes", "score 0 (Not Computed): nothing is done"),
    (bots(block=1), CURL, "passes", "block on trial (mode: log)"),
    (bots(mode="act", block=1), CURL, "answers", "403: score 1 (Heuristics): block"),
    (bots(mode="act", challenge=5), CURL, "waits", "a challenge has to be passed first"),
    (bots(mode="act", slow=SLOW), CURL, "changes", "it gets less"),
    (bots(mode="act", block=1), WORN, "passes", "score 0"),
])  # fmt: skip
def test_what_is_done(section: dict[str, Any], headers: list[tuple[str, str]], effect: str, said: str) -> None:
    found = asked(config_with(bots=section, limits=NAMED), headers=headers)
    shown = stage(found)
    assert shown is not None and (shown.effect, said in shown.says) == (effect, True), shown
    rows = {row.name: row.value for row in shown.details}
    assert ("1003 declared_library" in rows) == (headers is CURL) and "a connection" in rows["without"]
    assert (found.outcome.status == 403) == (effect == "answers")
    if effect == "changes":
        assert (rows["limits"], rows["upstream"], found.outcome.upstream) == ("few", "other", "other")
        assert rows["priority"] == "low: others go first to the upstream"
        assert "few" in str(next(each for each in found.stages if each.name == "limits"))


def test_a_rule_that_skips_it() -> None:
    shown = stage(asked(config_with(SKIP, bots=bots(mode="act", block=1)), headers=CURL))
    assert shown is not None and shown.effect == "passes" and "a rule skips" in shown.says


def test_a_route_of_its_own() -> None:
    routes = [{"path": "/", "upstream": "main"}, {"path": "/free", "upstream": "main", "bots": {"block": 0}}]
    config = config_with(bots=bots(mode="act", block=1), routes=routes)
    assert asked(config, headers=CURL).outcome.status == 403
    assert asked(config, "https://example.org/free", headers=CURL).outcome.status is None


def test_where_nobody_scores_there_is_no_stage() -> None:
    assert stage(asked(config_with(), headers=CURL)) is None
    assert stage(asked(config_with({"id": "a", "expression": "ssl", "action": "block"}, bots=bots()), headers=CURL)) is None


def test_a_rule_sees_the_score_on_paper() -> None:
    low = {"id": "low", "expression": "cf.bot_management.score eq 1", "action": "block"}
    late = {"id": "late", "expression": "cf.bot_management.score eq 1", "action": "log", "phase": "response"}
    assert asked(config_with(low, bots=bots()), headers=CURL).outcome.rule == "low"
    assert asked(config_with(low, bots=bots()), headers=WORN).outcome.rule is None
    for headers, state in ((CURL, "logs"), (WORN, "no match")):
        assert rule(asked(config_with(late, bots=bots()), headers=headers, status=200, reply_headers=[]), "late").state == state


def test_a_limit_sees_the_score_on_paper() -> None:
    limit = {"name": "low", "requests": 5, "key": "http.host", "expression": "cf.bot_management.score eq 1"}
    for headers, said in ((CURL, True), (WORN, False)):
        found = asked(config_with(bots=bots(), limits=[limit]), headers=headers)
        (limits,) = [each for each in found.stages if each.name == "limits"]
        assert ("low" in limits.says + str(limits.details)) is said, limits
