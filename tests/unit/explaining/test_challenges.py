# Challenges in explanations: what is answered to people and to scripts, and the edge's own path.
from __future__ import annotations

import pytest
from support.explaining import asked, config_with, rule

ASK = {"id": "ask", "expression": "ssl", "action": "challenge"}
OUT = {"id": "out", "expression": "true", "action": "log", "phase": "response"}


@pytest.mark.parametrize(("headers", "status"), [([], 401), ([("accept", "text/html")], 403)])
def test_a_rule_that_challenges(headers: list[tuple[str, str]], status: int) -> None:
    found = asked(config_with(ASK, {"id": "later", "expression": "ssl", "action": "block"}, OUT), headers=headers)
    assert (found.outcome.status, found.outcome.rule, found.outcome.hits) == (status, "ask", ["ask"])
    assert "unless the client has a clearance" in found.outcome.says
    assert rule(found, "ask").says == "holds; challenges a client that has no clearance"
    assert rule(found, "later").state == "not reached"


@pytest.mark.parametrize(("path", "status"), [("/.edge/challenge?x", 403), ("/.edge/challenge.js", 200), ("/.edge/other", 401)])
def test_the_path_of_the_edge(path: str, status: int) -> None:
    found = asked(config_with(ASK), f"https://example.org{path}")
    assert found.outcome.status == status
    assert ("own" in [stage.name for stage in found.stages]) is (status != 401)
