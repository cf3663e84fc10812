# The rule files that come with the edge: found wherever it runs, on unless told otherwise, and every rule with cases both ways.
"""rules/*.yaml, shipped.py, and what `shipped` of a configuration makes of them."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.edge import certificates

from edgeproxy.config.load import build
from edgeproxy.config.model import Config
from edgeproxy.config.problems import ConfigError
from edgeproxy.rules import shipped
from edgeproxy.rules.files import read_rules
from edgeproxy.rules.golden import run
from edgeproxy.rules.model import RuleModel

ROOT = Path(__file__).parents[3]
RULES = ROOT / "rules"


@pytest.fixture
def base() -> dict[str, Any]:
    """A configuration with a route for chat."""
    made = certificates()
    return {
        "listen": {"https": "127.0.0.1:8443"},
        "tls": {"certificates": [{"cert": str(made.cert), "key": str(made.key)}]},
        "upstreams": {"chat": {"targets": [{"url": "http://127.0.0.1:9000"}]}},
        "routes": [{"upstream": "chat", "dialect": "openai"}],
    }


def ids(config: Config) -> list[str]:
    return [rule.id for rule in config.rules.book.rules]


def own(tmp_path: Path, text: str) -> str:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", shipped.NAMES)
def test_golden_cases(name: str) -> None:
    outcome = run(RULES / f"{name}.cases.yaml")
    assert outcome.cases
    assert not outcome.problems, "\n".join(problem.render() for problem in outcome.problems)


@pytest.mark.parametrize("name", shipped.NAMES)
def test_every_rule_has_a_hit_and_a_near_miss(name: str) -> None:
    expected = [case["expect"] for case in yaml.safe_load((RULES / f"{name}.cases.yaml").read_text("utf-8"))["cases"]]
    hit = {expect.get("rule") for expect in expected} | {each for expect in expected for each in expect.get("hits", ())}
    missed = {each for expect in expected for each in expect.get("misses", ())}
    for rule in read_rules((shipped.path(name),)).book.rules:
        assert rule.id.startswith(f"{name}-") and rule.description
        assert rule.id in hit, f"no case hits {rule.id}"
        assert rule.id in missed, f"no case nearly hits {rule.id}"


def test_no_rule_reads_a_body() -> None:
    """Code and attacks are what people talk about in chats."""
    for name in shipped.NAMES:
        text = Path(shipped.path(name)).read_text("utf-8")
        fields = {word.strip("(") for word in text.split() if word.strip("(").startswith("http.request.body")}
        assert {field.split(",")[0].strip(")") for field in fields} <= {"http.request.body.mime", "http.request.body.size"}


def test_the_files_belong_to_the_package() -> None:
    """A link in the repository (PYTHONPATH, editable), files in a wheel."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert "shipped/*.yaml" in project["tool"]["setuptools"]["package-data"]["edgeproxy"]
    assert shipped.DIRECTORY.resolve() == RULES
    assert sorted(path.name for path in RULES.glob("*.yaml")) == sorted(
        f"{name}{end}" for name in shipped.NAMES for end in (".yaml", ".cases.yaml")
    )


def test_on_by_default_behind_own_rules(base: dict[str, Any], tmp_path: Path) -> None:
    path = own(tmp_path, "rules: [{id: mine, expression: ssl, action: skip, skip: [baseline-wordpress]}]")
    config = build(base | {"rules": [path]})
    assert ids(config)[:2] == ["mine", "baseline-scanner-agents"]
    assert ids(config)[-1].startswith("chat-")
    assert ids(build(base)) == ids(config)[1:]


def test_turned_off_and_tried(base: dict[str, Any], tmp_path: Path) -> None:
    assert ids(build(base | {"shipped": {"baseline": False, "chat": False}})) == []
    config = build(base | {"shipped": {"baseline": "log", "chat": False}})
    assert {rule.mode for rule in config.rules.book.rules} == {"log"}
    path = own(tmp_path, "rules: [{id: mine, expression: ssl, action: skip, skip: [baseline-wordpress]}]")
    assert ids(build(base | {"shipped": {"baseline": False, "chat": False}, "rules": [path]})) == ["mine"]
    with pytest.raises(ConfigError, match="expected true, false or 'log'"):
        build(base | {"shipped": {"chat": "maybe"}})


def test_patterns_that_find_the_shipped_files(base: dict[str, Any], tmp_path: Path) -> None:
    plain = ids(build(base))
    assert ids(build(base | {"rules": [str(RULES / "*.yaml")]})) == plain
    for name in shipped.NAMES:  # as when rules/ of a checkout is given to an installed edge
        shutil.copy(RULES / f"{name}.yaml", tmp_path)
    assert ids(build(base | {"rules": [str(tmp_path / "*.yaml")]})) == plain
    named = build(base | {"rules": [str(RULES / "chat.yaml"), own(tmp_path, "rules: [{id: m, expression: ssl, action: log}]")]})
    assert ids(named)[0] == "chat-methods" and ids(named).index("m") < ids(named).index("baseline-vcs")
    assert len(set(ids(named))) == len(ids(named)) == len(plain) + 1
    with pytest.raises(ConfigError, match="'shipped' turns it off"):
        build(base | {"rules": [str(RULES / "chat.yaml")], "shipped": {"chat": False}})


def test_an_own_version(base: dict[str, Any], tmp_path: Path) -> None:
    path = own(tmp_path, "rules: [{id: baseline-vcs, expression: ssl, action: log}]")
    with pytest.raises(ConfigError, match=r"own\.yaml.*comes with the edge") as caught:
        build(base | {"rules": [path]})
    assert "baseline: false" in str(caught.value)
    assert "baseline-vcs" in ids(build(base | {"rules": [path], "shipped": {"baseline": False}}))


@pytest.mark.parametrize(("limit", "there"), [("64MiB", False), ("65MiB", True)])
def test_a_bound_that_cannot_be_reached_costs_nothing(base: dict[str, Any], limit: str, there: bool) -> None:
    config = build(base | {"client": {"max_body": limit}})
    assert ("chat-body-size" in ids(config)) is there


def test_own_bounds_stay(base: dict[str, Any], tmp_path: Path) -> None:
    path = own(tmp_path, "rules: [{id: big, expression: http.request.body.size gt 999999999, action: log}]")
    assert ids(build(base | {"rules": [path]}))[0] == "big"
    model = RuleModel(id="x", expression="http.request.body.size gt 10 and ssl", action="log")
    assert not shipped.can_hold(model, 10) and shipped.can_hold(model, 11)
    either = model.model_copy(update={"expression": "http.request.body.size gt 10 or ssl"})
    assert shipped.can_hold(either, 1)


def test_what_travels_to_the_workers(base: dict[str, Any]) -> None:
    config = build(base)
    again = Config.model_validate(json.loads(config.model_dump_json()))
    assert again.rules == config.rules
