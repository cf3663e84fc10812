# The rules of the bench are what its page says, and those it compares with mean the same.
"""bench/rules.py, rule_sets.py, closures.py and cel.py."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from support.rules import LISTS, evaluate, facts, trees

from bench import cel, rules
from bench.children import Failure
from bench.closures import compile_closure
from bench.rule_sets import MATCHING, REQUESTS
from edgeproxy.message import Request
from edgeproxy.rules.compiler import compile_test
from edgeproxy.rules.gates import gate
from edgeproxy.rules.parser import parse
from edgeproxy.rules.syntax import Test, fields_of, show

TESTS = [parse(text, {}) for text in rules.rules(1000)]


def test_no_two_rules_are_the_same_and_none_matches_the_requests_that_are_timed() -> None:
    assert len(set(TESTS)) == 1000
    assert rules.rules(100) == rules.rules(1000)[:100]
    each = rules.one_by_one(TESTS, lambda test: compile_test(test, {}))
    for request in REQUESTS.values():
        assert each(request) == []
    for request in MATCHING.values():
        assert len(each(request)) >= 5


def test_a_fifth_is_decided_by_no_look_up() -> None:
    without = [test for test in TESTS if gate(test) is None]
    assert 150 <= len(without) <= 300
    assert len({name for test in TESTS for name in fields_of(test)}) >= 15


def test_all_engines_find_the_same() -> None:
    each = rules.one_by_one(TESTS, lambda test: compile_test(test, {}))
    asks = {"edge": rules.edge(TESTS), "closures": rules.one_by_one(TESTS, compile_closure)}
    rules.checked(asks, each, requests=[*REQUESTS.values(), *MATCHING.values()])
    with pytest.raises(Failure, match="wrong finds other rules"):
        rules.checked({"wrong": lambda _: [0]}, each, requests=[REQUESTS["SDK"]])


@settings(max_examples=200, deadline=None)
@given(trees())
def test_closures_are_interpreted(tree: Test) -> None:
    if "$" in show(tree):
        return  # the bench has no lists
    request = facts()
    assert bool(compile_closure(tree)(request)) == evaluate(tree, request)


def test_what_is_said_in_cel_means_the_same() -> None:
    engine = pytest.importorskip("cel", reason="common-expression-language is not installed (the extra `bench`)")
    assert engine
    said = {test: text for test in TESTS if (text := cel.translate(test)) is not None}
    assert len(said) > 900
    ask = rules.rust(list(said.values()))
    each = rules.one_by_one(list(said), lambda test: compile_test(test, {}))
    rules.checked({"cel": ask}, each, requests=[*REQUESTS.values(), *MATCHING.values()])


@pytest.mark.parametrize("text", [
    'all(http.request.headers["a"][*] eq "b")', 'concat(http.host, "a") eq "a"', "ip.src in $nets", "cf.threat_score & 4",
    "cidr(ip.src, 24, 48) eq 10.0.0.0", 'http.request.uri.args["a"][1] eq "b"', "ssl xor ssl xor ssl", 'ip.src.country eq "KP"',
])  # fmt: skip
def test_what_cel_has_no_word_for_is_left_out(text: str) -> None:
    assert cel.translate(parse(text, LISTS)) is None


def test_a_window_is_filled_and_both_kinds_are_timed() -> None:
    asked: list[Request] = []

    def ask(request: Request) -> Any:
        asked.append(request)
        return []

    run = rules.timed(ask, 0.002)
    assert set(run.more) == {*(f"{name} µs" for name in REQUESTS), "others %"}
    assert run.value is not None and run.value > 0
    assert {id(request) for request in asked} == {id(request) for request in REQUESTS.values()}
