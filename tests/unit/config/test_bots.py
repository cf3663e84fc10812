"""The section `bots`: bounds, what contradicts itself, names that are not there; and what it looks like when it is right."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgeproxy.config.bots import model_path
from edgeproxy.config.load import load

from .samples import NOW, Writer

LIMITS = [
    {"name": "few", "requests": 5, "named": True}, {"name": "all", "requests": 500},
]  # fmt: skip


def written(files: Writer, bots: dict[str, Any], route: dict[str, Any] | None = None) -> str:
    more = {"bots": bots, "limits": LIMITS}
    if route is not None:
        more["routes"] = [{"upstream": "chat", "bots": route}]
    text = files.text(**({"routes": json.dumps(more.pop("routes"))} if route is not None else {}))
    return text + "\n" + "".join(f"{name}: {json.dumps(value)}\n" for name, value in more.items())


def test_it_is_off_and_on_trial_unless_somebody_says_otherwise(files: Writer) -> None:
    bots = load(files.write(files.text()), now=NOW).bots
    assert (bots.enabled, bots.mode, bots.block, bots.challenge, bots.log, bots.slow) == (False, "log", 0, 0, 29, None)
    assert (bots.verified, bots.keyed, bots.model, model_path(bots)) == ("allow", "allow", "shipped", None)


def test_everything_that_can_be_said(files: Writer) -> None:
    section = {
        "enabled": True, "mode": "act", "block": 1, "challenge": 29, "log": 50, "verified": "score", "keyed": "score",
        "slow": {"score": 40, "limits": ["few"], "upstream": "chat", "priority": "low"}, "model": "own.onnx",
        "session_cookie": False,
        "identity": {"dns": False, "known_agents": False, "agents": ["https://a.example"], "nonces": "reuse"},
    }  # fmt: skip
    own = {"mode": "log", "challenge": 0, "slow": {"score": 9, "limits": ["few"]}}
    config = load(files.write(written(files, section, own)), now=NOW)
    assert model_path(config.bots) is not None and config.bots.slow is not None and config.bots.slow.upstream == "chat"
    assert config.bots.slow.priority == "low"
    route = config.routes[0].bots
    assert route is not None and (route.mode, route.block, route.challenge) == ("log", None, 0)


@pytest.mark.parametrize(("section", "said"), [
    ({"block": 100}, "99"), ({"block": -1}, "0"), ({"challenge": True}, "challenge"), ({"log": "x"}, "log"),
    ({"block": 30, "challenge": 29}, "'block' is above 'challenge'"), ({"mode": "act-not"}, "mode"), ({"enable": 1}, "'enabled'"),
    ({"slow": {}}, "needs the key 'score'"), ({"slow": {"score": 9, "priority": "lwo"}}, "priority"),
    ({"slow": {"score": 9, "limits": ["fwe"]}}, "the limit 'fwe' is not there"),
    ({"slow": {"score": 9, "limits": ["few", "all"]}}, "the limit 'all' is not named"), ({"session_cookie": 1}, "session_cookie"),
    ({"slow": {"score": 9, "upstream": "caht"}}, "unknown upstream 'caht' (did you mean 'chat'?)"),
    ({"identity": {"ranges": "/nowhere/x"}}, "the folder /nowhere/x does not exist"), ({"model": ""}, "or the path of a file"),
    ({"model": 5}, "path of a file, not"), ({"model": None}, "not nothing"),
    ({"identity": {"agents": ["http://a.example"]}}, "is not an agent"), ({"identity": {"dsn": True}}, "'dns'"),
    ({"corporate_proxies": ["10.0.0.1/8"]}, "'10.0.0.0/8' is the network"),
    ({"corporate_proxies": ["proxy.example"]}, "not a network"),
    ([], "bots"), (5, "bots"),
])  # fmt: skip
def test_what_is_wrong_has_its_line(files: Writer, section: Any, said: str) -> None:
    problems = files.problems(written(files, section))
    assert any(said in f"{problem.render()}" for problem in problems), problems
    assert all(problem.line > 0 for problem in problems)


@pytest.mark.parametrize(("route", "said"), [
    ({"slow": {"score": 9, "limits": ["all"]}}, "the limit 'all' is not named (named: true)"), ({"challenge": 200}, "99"),
    ({"slow": {"score": 9, "upstream": "nobody"}}, "unknown upstream 'nobody'"), ({"model": "off"}, "unknown key 'model'"),
    ({"identity": {}}, "unknown key 'identity'"),
])  # fmt: skip
def test_and_on_a_route(files: Writer, route: dict[str, Any], said: str) -> None:
    (problem,) = files.problems(written(files, {"enabled": True}, route))
    assert said in problem.render(), problem


@pytest.mark.parametrize(("section", "route", "said"), [
    ({"challenge": 29}, {"block": 40}, "'block' (40) is above 'challenge' (29 in the section 'bots')"),
    ({"block": 9, "challenge": 29}, {"challenge": 5}, "'challenge' (5) is below 'block' (9 in the section 'bots')"),
    ({}, {"block": 9, "challenge": 5}, "'block' (9) is above 'challenge' (5)"),
    ({"block": 50}, {"challenge": 5}, "'challenge' (5) is below 'block' (50 in the section 'bots')"),
])  # fmt: skip
def test_block_and_challenge_of_a_route_are_compared_with_what_it_inherits(
    files: Writer, section: dict[str, Any], route: dict[str, Any], said: str
) -> None:
    (problem,) = files.problems(written(files, {"enabled": True, **section}, route))
    assert said in problem.message and "on this route nobody is ever challenged" in problem.message, problem
    value = str(next(iter(route.values())))
    assert problem.source.startswith("routes") and problem.source[problem.column - 1 :].startswith(value)


@pytest.mark.parametrize(("section", "route"), [
    ({"block": 9, "challenge": 29}, {"challenge": 0}), ({"challenge": 29}, {"block": 29}), ({"challenge": 29}, {"mode": "act"}),
    ({"challenge": 29}, {"block": 40, "enabled": False}), ({"challenge": 29}, {"block": 40, "challenge": 50}),
])  # fmt: skip
def test_what_a_route_may_say(files: Writer, section: dict[str, Any], route: dict[str, Any]) -> None:
    assert files.problems(written(files, {"enabled": True, **section}, route)) == []


def test_what_the_section_says_wrongly_is_told_once(files: Writer) -> None:
    (problem,) = files.problems(written(files, {"block": 40, "challenge": 29}, {"mode": "log"}))
    assert "'block' is above 'challenge'" in problem.message
