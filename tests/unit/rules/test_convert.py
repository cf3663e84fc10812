# Exports of Cloudflare's API: what is carried loads and means the same, what is not is named with its reason.
"""convert.py and converted.py, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeproxy.cli import app
from edgeproxy.rules.convert import Unfit, convert
from edgeproxy.rules.converted import Converted, summary, text
from edgeproxy.rules.files import read_rules
from edgeproxy.rules.model import RuleModel

CUSTOM = "http_request_firewall_custom"
LATE = "http_request_late_transform"
NO_A = {"headers": {"a": {"operation": "remove"}}}


def ruleset(phase: str, *rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    """As the API answers it."""
    return {"id": f"of-{phase}", "name": "default", "kind": "zone", "version": "3", "phase": phase, "rules": list(rules), **more}


def rule(name: str, action: str, expression: str = "ssl", **more: Any) -> dict[str, Any]:
    return {"id": name, "version": "1", "action": action, "expression": expression, "enabled": True, **more}


def one(phase: str, action: str, parameters: dict[str, Any], expression: str = "ssl") -> dict[str, Any]:
    """What one rule becomes, without its id."""
    made = convert({"result": ruleset(phase, rule("a", action, expression, action_parameters=parameters))})
    assert not made.left, made.left
    assert made.rules[0].pop("id") == "a"
    return made.rules[0]


def left(made: Converted) -> list[str]:
    return [line for each in made.left for line in each.lines()]


def loaded(made: Converted, tmp_path: Path) -> tuple[RuleModel, ...]:
    """The rules as the edge reads them from the file."""
    path = tmp_path / "out.yaml"
    path.write_text(text("in.json", made.rules, summary(made)), "utf-8")
    read = read_rules((str(path),))
    assert not read.problems, "\n".join(problem.render() for problem in read.problems)
    return read.book.rules


@pytest.mark.parametrize(("phase", "action", "parameters", "expected"), [
    (CUSTOM, "block", {}, {"action": "block"}),
    (CUSTOM, "block", {"response": {"status_code": 451, "content": "no", "content_type": "text/plain"}},
     {"action": "block", "status": 451, "body": "no", "content_type": "text/plain"}),
    (CUSTOM, "block", {"response": {"status_code": 403, "content": "", "content_type": "text/html"}},
     {"action": "block", "status": 403}),
    ("http_request_dynamic_redirect", "redirect", {"from_value": {"target_url": {"value": "https://b.example/"}}},
     {"action": "redirect", "location": "https://b.example/", "status": 301}),
    ("http_request_dynamic_redirect", "redirect",
     {"from_value": {"status_code": 307, "preserve_query_string": True,
                     "target_url": {"expression": 'concat("/", ip.geoip.country)'}}},
     {"action": "redirect", "location_expression": 'concat("/", ip.src.country)', "status": 307, "preserve_query": True}),
    ("http_request_transform", "rewrite", {"uri": {"path": {"value": "/new"}, "query": {"expression": "http.request.uri.query"}}},
     {"action": "rewrite", "path": "/new", "query_expression": "http.request.uri.query"}),
    ("http_request_transform", "rewrite", {"uri": {"query": {"value": ""}}}, {"action": "rewrite", "query": ""}),
    ("http_request_late_transform", "rewrite", {"headers": {
        "X-A": {"operation": "set", "value": "b"}, "X-B": {"operation": "set", "expression": "http.host"},
        "X-C": {"operation": "remove"}}},
     {"action": "rewrite", "headers": {"set": {"X-A": "b", "X-B": {"expression": "http.host"}}, "remove": ["X-C"]}}),
    ("http_response_headers_transform", "rewrite", {"headers": {"X-A": {"operation": "add", "value": "1"}}},
     {"action": "rewrite", "phase": "response", "headers": {"add": {"X-A": "1"}}}),
    ("http_request_origin", "route", {"host_header": "h.example", "origin": {"host": "o.example", "port": 8000}},
     {"action": "route", "upstream": "o.example-8000", "host": "h.example"}),
])  # fmt: skip
def test_actions(phase: str, action: str, parameters: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    assert one(phase, action, parameters) == {"expression": "ssl", **expected}
    made = convert(ruleset(phase, rule("a", action, action_parameters=parameters)))
    assert loaded(made, tmp_path)[0].action == action


@pytest.mark.parametrize("action", ["challenge", "managed_challenge", "js_challenge", "log", "allow"])
def test_plain_actions(action: str) -> None:
    assert one(CUSTOM, action, {}) == {"expression": "ssl", "action": action}


def test_phases_are_put_into_their_order() -> None:
    target = {"from_value": {"target_url": {"value": "/"}}}
    made = convert({"result": [
        ruleset("http_response_headers_transform", rule("r", "rewrite", action_parameters=NO_A)),
        ruleset(CUSTOM, rule("c", "block")),
        ruleset("http_request_dynamic_redirect", rule("d", "redirect", action_parameters=target)),
    ]})  # fmt: skip
    assert [each["id"] for each in made.rules] == ["d", "c", "r"]


def test_ids_descriptions_and_switches(tmp_path: Path) -> None:
    made = convert([ruleset(
        CUSTOM,
        rule("0f8a", "log", ref="my rule/1", description="first\n line"),
        rule("0f8b", "log", ref="my rule 1", enabled=False),
        {"action": "log", "expression": "ssl", "description": "Only für this: yes"},
        {"action": "log", "expression": "ssl"},
        rule("x" * 90, "log"),
    )])  # fmt: skip
    rules = loaded(made, tmp_path)
    assert [each.id for each in rules] == ["my-rule-1", "my-rule-1-2", "Only-f-r-this-yes", "rule", "x" * 56]
    assert rules[0].description == "first line" and [each.enabled for each in rules] == [True, False, True, True, True]


def test_skips(tmp_path: Path) -> None:
    everything = {
        "ruleset": "current", "phases": ["http_ratelimit", "http_request_firewall_managed"], "products": ["bic", "rateLimit"],
    }  # fmt: skip
    made = convert([
        ruleset(CUSTOM, rule("before", "block"), rule("s", "skip", action_parameters=everything), rule("a", "block"),
                rule("refused", "block", "ip.scr eq 1"), rule("last", "skip", action_parameters={"ruleset": "current"})),
        ruleset("http_request_late_transform", rule("t", "rewrite", action_parameters=NO_A)),
    ])  # fmt: skip
    assert made.rules[1]["skip"] == {"rules": ["a"], "stages": ["limits"]}
    assert [line for line in left(made) if not line.startswith(" ")] == [
        "s: carried, but without skipping 'http_request_firewall_managed'",
        "s: carried, but without skipping 'bic'",
        "refused: expression:1:1 unknown field 'ip.scr' (did you mean 'ip.src'?)",
        "last: nothing of what it skips is here",
    ]
    assert [each.id for each in loaded(made, tmp_path)] == ["before", "s", "a", "t"]


def test_skips_of_named_rules_and_phases(tmp_path: Path) -> None:
    made = convert([
        ruleset(CUSTOM, rule("s", "skip", action_parameters={"rules": {"of-x": ["b", "gone"]}, "rulesets": ["whole"]}),
                rule("p", "skip", action_parameters={"phase": "current"}), rule("a", "block"), rule("b", "block")),
        ruleset(CUSTOM, rule("c", "log"), id="whole"),
    ])  # fmt: skip
    assert [each.get("skip") for each in made.rules[:2]] == [{"rules": ["b", "c"]}, {"rules": ["a", "b", "c"]}]
    assert left(made) == ["s: carried, but without skipping 'gone'"]
    assert len(loaded(made, tmp_path)) == 5


def test_a_custom_ruleset_runs_under_its_condition(tmp_path: Path) -> None:
    inner = ruleset(CUSTOM, rule("i", "block", "http.host eq \"a\" or ssl"), kind="custom", id="team")
    root = ruleset(CUSTOM, rule("e", "execute", 'http.host eq "b"', action_parameters={"id": "team"}), kind="root")
    always = ruleset(CUSTOM, rule("e", "execute", "true", action_parameters={"id": "team"}), kind="root")
    assert convert([inner, root]).rules[0]["expression"] == '(http.host eq "b") and (http.host eq "a" or ssl)'
    made = convert([inner, always])
    assert made.rules[0]["expression"] == 'http.host eq "a" or ssl'
    assert len(loaded(made, tmp_path)) == made.total == 1


def executed(overrides: Any, expression: str = 'http.host eq "b"', **more: Any) -> Converted:
    """What an executed ruleset of two rules becomes."""
    inner = ruleset(CUSTOM, rule("i", "block"), rule("j", "log", enabled=False), kind="custom", id="team")
    parameters = {"id": "team", **({"overrides": overrides} if overrides is not None else {})}
    return convert([inner, ruleset(CUSTOM, rule("e", "execute", expression, action_parameters=parameters, **more), kind="root")])


@pytest.mark.parametrize(("overrides", "expected"), [
    (None, [("block", None, True), ("log", None, False)]),
    ({"action": "log"}, [("block", "log", True), ("log", None, False)]),
    ({"enabled": False}, [("block", None, False), ("log", None, False)]),
    ({"enabled": True}, [("block", None, True), ("log", None, True)]),
    ({"action": "block", "enabled": True}, [("block", None, True), ("block", None, True)]),
    ({"rules": [{"id": "i", "action": "log"}, {"id": "j", "enabled": True}]}, [("block", "log", True), ("log", None, True)]),
    ({"enabled": False, "rules": [{"id": "i", "enabled": True}]}, [("block", None, True), ("log", None, False)]),
])  # fmt: skip
def test_overrides_of_an_executed_ruleset(overrides: Any, expected: list[tuple[str, str | None, bool]], tmp_path: Path) -> None:
    made = executed(overrides)
    assert [(each["action"], each.get("mode"), each.get("enabled", True)) for each in made.rules] == expected
    assert not made.left and len(loaded(made, tmp_path)) == 2


def test_a_rule_that_is_off_executes_nothing() -> None:
    made = executed({"enabled": True}, enabled=False)
    assert [each["enabled"] for each in made.rules] == [False, False]


@pytest.mark.parametrize(("overrides", "lost"), [
    ({"sensitivity_level": "low"}, "sensitivity_level"), ({"categories": [{"category": "x"}]}, "categories"),
    ({"rules": [{"id": "i", "score_threshold": 3}]}, "score_threshold"), ({"rules": 3}, "rules"), (3, "overrides"),
])  # fmt: skip
def test_overrides_that_cannot_be_carried_are_said(overrides: Any, lost: str) -> None:
    made = executed(overrides)
    assert len(made.rules) == 2 and left(made) and all(f"without the override '{lost}'" in line for line in left(made))


@pytest.mark.parametrize(("outer", "inner"), [
    ('http.host eq "a") or (ssl', "ssl"), ("ssl", "ssl) or (ssl"), ("ssl and (", "ssl"), ("ssl", ""),
])  # fmt: skip
def test_expressions_are_read_alone_before_they_are_joined(outer: str, inner: str) -> None:
    team = ruleset(CUSTOM, rule("i", "block", inner), kind="custom", id="team")
    made = convert([team, ruleset(CUSTOM, rule("e", "execute", outer, action_parameters={"id": "team"}), kind="root")])
    assert not made.rules and len(made.left) == made.total == 1


@pytest.mark.parametrize("odd", [3, 1.5, True, "x", {"a": 3}, [3], [None]])
def test_lists_that_are_none(odd: Any, tmp_path: Path) -> None:
    limit = {"characteristics": odd, "period": odd, "requests_per_period": odd}
    parameters = {"ruleset": "current", "rulesets": odd, "phases": odd, "products": odd, "rules": odd}
    made = convert(ruleset(
        CUSTOM, rule("l", "block", ratelimit=limit), rule("s", "skip", action_parameters=parameters), rule("a", "log"),
    ))  # fmt: skip
    assert [each.id for each in loaded(made, tmp_path)] == ["s", "a"]
    assert any("a rate limit" in line for line in left(made))


@pytest.mark.parametrize(("phase", "given", "reason"), [
    (CUSTOM, rule("a", "execute", action_parameters={"id": "efb7"}), "managed rulesets"),
    ("http_config_settings", rule("a", "set_config"), "settings of"),
    ("http_request_cache_settings", rule("a", "set_cache_settings"), "caching by rules"),
    ("http_ratelimit", rule("a", "block", ratelimit={"characteristics": ["ip.src"], "period": 60, "requests_per_period": 9}),
     r"a rate limit \(9 requests in 60 s by ip.src\)"),
    ("http_request_redirect", rule("a", "redirect", action_parameters={"from_list": {"name": "l", "key": "k"}}), "bulk"),
    ("http_request_origin", rule("a", "route", action_parameters={"host_header": "a.example"}), "only the Host"),
    (CUSTOM, rule("a", "block", action_parameters={"response": {"status_code": 500}}), "400 to 499"),
    (CUSTOM, rule("a", "log", "ip.src in $mine"), "unknown list"),
    (CUSTOM, rule("a", "log", 'http.host matches "[a&&b]"'), "to Rust"),
    (CUSTOM, rule("a", "log", ""), "expression"),
    (CUSTOM, rule("a", "block", action_parameters={"response": {"content": "a\x00b"}}), "control character"),
    (CUSTOM, rule("a", "block", action_parameters={"response": {"content": "\ud800"}}), "control character"),
    (CUSTOM, rule("a", "blok"), "not known here"),
    (CUSTOM, rule("a", "log", exposed_credential_check={}), "exposed"),
    (LATE, rule("a", "rewrite", action_parameters={"headers": {"X": {"operation": "bend"}}}), "operation"),
    (LATE, rule("a", "rewrite", action_parameters={"headers": {"Host": {"operation": "remove"}}}), "host"),
    (CUSTOM, rule("a", "log", "http.response.code eq 200"), "response"),
])  # fmt: skip
def test_what_is_left_out(phase: str, given: dict[str, Any], reason: str) -> None:
    made = convert(ruleset(phase, given))
    assert not made.rules and len(made.left) == made.total == 1
    with pytest.raises(AssertionError, match=f"(?si){reason}"):
        raise AssertionError("\n".join(left(made)))


def test_the_caret_stands_in_its_line() -> None:
    made = convert(ruleset(CUSTOM, rule("a", "block", 'ssl and\n  http.hots eq "a"')))
    assert left(made) == [
        "a: expression:2:3 unknown field 'http.hots' (did you mean 'http.host'?)",
        '      http.hots eq "a"',
        "      ^",
    ]


def test_texts_survive_the_yaml(tmp_path: Path) -> None:
    hard = 'http.host eq "a: b # c" and\n\thttp.user_agent contains r#"\\d"x"#\nor ssl'
    body = '<p>\u2028 null: ~\ttab\n\u00e9 \U0001f600 {{ "x" }}</p>\n'
    made = convert(ruleset(
        CUSTOM, rule("1e3", "log", hard, description="yes"), rule("null", "log"),
        rule("123", "block", action_parameters={"response": {"content": body}}),
    ))  # fmt: skip
    rules = loaded(made, tmp_path)
    assert [each.id for each in rules] == ["1e3", "null", "123"]
    assert rules[0].expression == hard and rules[0].description == "yes" and rules[2].body == body


@pytest.mark.parametrize("data", [None, 3, "x", {}, [], {"result": None}, {"result": [{"a": 1}]}, {"errors": [{"code": 1}]}])
def test_not_an_export(data: Any) -> None:
    with pytest.raises(Unfit):
        convert(data)


@pytest.mark.parametrize("odd", [None, 3, "x", [], [3], {"a": 3}, {"response": 3}, {"uri": {"path": 3}}, {"headers": {"a": 3}}])
@pytest.mark.parametrize("action", ["block", "redirect", "rewrite", "route", "skip", "log", "execute"])
def test_odd_shapes_are_left_out_or_load(action: str, odd: Any, tmp_path: Path) -> None:
    loaded(convert(ruleset(CUSTOM, rule("a", action, action_parameters=odd), {"action": odd}, rule("b", "log", odd))), tmp_path)


def test_the_command(tmp_path: Path) -> None:
    source, out = tmp_path / "in.json", tmp_path / "out.yaml"
    source.write_text(json.dumps({"result": ruleset(CUSTOM, rule("a", "block"), rule("b", "execute"))}))
    run = CliRunner().invoke
    result = run(app, ["rules", "convert", str(source), "-o", str(out)])
    assert result.exit_code == 0 and "1 of 2 rules carried" in result.stderr and "#   b: 'execute'" in out.read_text("utf-8")
    assert not result.stdout
    result = run(app, ["rules", "convert", "-", "--strict"], input=source.read_text())
    assert result.exit_code == 1 and "- id: a" in result.stdout
    for broken in ("{", "[]", "[" * 100_000):
        source.write_text(broken)
        result = run(app, ["rules", "convert", str(source)])
        assert result.exit_code == 1 and "in.json" in result.stderr and not result.stdout
    assert run(app, ["rules", "convert", str(tmp_path / "none.json")]).exit_code == 1
