# What a score means for a request: the table of verdicts, and what a route says otherwise.
"""policy/bots.py."""

from __future__ import annotations

from typing import Any

import pytest

from edgeproxy.bots.catalogue import Bot
from edgeproxy.bots.identity import NOBODY
from edgeproxy.bots.score import Score
from edgeproxy.config.bots import Bots, RouteBots
from edgeproxy.policy.bots import Policy

BOT = Bot("Goodbot", "Good Inc.", "Search Engine Crawler")
GOOD = NOBODY._replace(bot=BOT, verified=True, claimed=BOT, how="range")
ALL: dict[str, Any] = {"block": 5, "challenge": 20, "slow": {"score": 30, "upstream": "x"}, "log": 40}


def policy(whole: dict[str, Any], route: dict[str, Any] | None = None) -> Policy:
    return Policy(Bots.model_validate(whole), RouteBots.model_validate(route) if route is not None else None)


def verdict(made: Policy, value: int, *, keyed: bool = False, verified: bool = False, passed: bool = False) -> str:
    score = Score(value, "Machine Learning", identity=GOOD if verified else None)
    score.passed = passed
    return made.verdict(score, keyed=keyed)


@pytest.mark.parametrize(("value", "act"), [
    (0, ""), (1, "block"), (5, "block"), (6, "challenge"), (20, "challenge"), (21, "slow"), (30, "slow"), (31, "log"),
    (40, "log"), (41, ""), (99, ""),
])  # fmt: skip
def test_bounds(value: int, act: str) -> None:
    assert verdict(policy(ALL), value) == act
    assert verdict(policy(ALL), value, keyed=True) == verdict(policy(ALL), value, verified=True) == ""
    strict = policy(ALL | {"keyed": "score", "verified": "score"})
    assert verdict(strict, value, keyed=True, verified=True) == act


def test_who_has_passed_a_challenge_gets_what_is_below_it() -> None:
    made = policy(ALL)
    assert verdict(made, 3, passed=True) == "block", "no sum of a browser undoes what blocks"
    assert verdict(made, 15, passed=True) == "slow"
    assert verdict(policy({"challenge": 20}), 15, passed=True) == "log"
    assert verdict(policy({"challenge": 20, "log": 0}), 15, passed=True) == ""


def test_what_is_told_alone() -> None:
    made = policy({})
    assert (made.acts, made.idle, verdict(made, 29), verdict(made, 30)) == (False, False, "log", "")
    assert policy({"log": 0}).idle and policy({"mode": "act"}).acts


@pytest.mark.parametrize(("route", "acts"), [
    ({}, ["block", "challenge", "slow", "log"]), ({"enabled": False}, ["", "", "", ""]),
    ({"block": 0, "challenge": 0}, ["slow", "slow", "slow", "log"]), ({"block": 40}, ["block"] * 4),
    ({"slow": {"score": 25}, "log": 0}, ["block", "challenge", "slow", ""]), ({"challenge": 40}, ["block", *["challenge"] * 3]),
])  # fmt: skip
def test_a_route_says_otherwise(route: dict[str, Any], acts: list[str]) -> None:
    made = policy(ALL | {"mode": "act"}, route)
    assert [verdict(made, value) for value in (5, 20, 25, 40)] == acts
    assert made.acts and made.idle == (acts == [""] * 4)


def test_modes_and_exceptions_of_a_route() -> None:
    assert not policy({"mode": "act"}, {"mode": "log"}).acts and policy({}, {"mode": "act"}).acts
    assert verdict(policy(ALL, {"keyed": "score"}), 1, keyed=True) == "block"
    assert verdict(policy(ALL | {"verified": "score"}, {"verified": "allow"}), 1, verified=True) == ""
    slow = policy(ALL, {"slow": {"score": 9, "limits": ["few"]}}).slow
    assert slow is not None and (slow.limits, slow.upstream) == (("few",), None)
