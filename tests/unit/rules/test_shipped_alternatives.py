# Nothing in the shipped rules stands there for nothing: take out any alternative or any member of a set, and a request shows it.
"""Mutants of rules/*.yaml: each pattern without one of its alternatives, each set without one of its members.

A mutant has to be told from the rule by a request of the golden cases or of `shipped_probes.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from support.shipped_probes import PROBES, Probe

from edgeproxy.config import document
from edgeproxy.policy.normalise import path_problem
from edgeproxy.rules import shipped
from edgeproxy.rules.compiler import compile_test
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.files import read_rules
from edgeproxy.rules.golden import FROM_FILE, CaseFile, CaseRequest, facts_of
from edgeproxy.rules.model import RuleModel
from edgeproxy.rules.parser import parse

RULES: Final = {rule.id: rule for name in shipped.NAMES for rule in read_rules((shipped.path(name),)).book.rules}
# What a string of the language is: raw ones are patterns here, plain ones are members of sets or what `contains` looks for.
_STRING: Final = re.compile(r'(?P<raw>r"[^"]*")|"(?:\\.|[^"\\])*"')
_SET: Final = re.compile(r"\{((?:\s*\"[^\"]*\")+)\s*\}")


def without_alternatives(pattern: str) -> Iterator[tuple[str, str]]:
    """Each pattern that lacks one alternative, and which."""
    opened: list[list[int]] = [[0]]  # of each group that is open: where its alternatives begin
    at = 0
    while at <= len(pattern):
        char = pattern[at] if at < len(pattern) else ")"
        if char == "\\":
            at += 2
            continue
        if char == "[":
            at = pattern.index("]", at + 2)
        elif char == "(":
            at += 2 if pattern.startswith("(?:", at) else 0
            opened.append([at + 1])
        elif char == "|":
            opened[-1].append(at + 1)
        elif char == ")":
            starts = opened.pop()
            ends = [*(start - 1 for start in starts[1:]), at]
            if len(starts) > 1:
                for start, end in zip(starts, ends, strict=True):
                    left, right = (start - 1, end) if start > starts[0] else (start, end + 1)
                    yield pattern[:left] + pattern[right:], pattern[start:end]
        at += 1


def mutants(expression: str) -> Iterator[tuple[str, str]]:
    """Each expression that lacks an alternative or a member, and which."""
    for found in _STRING.finditer(expression):
        if found["raw"]:
            for pattern, lost in without_alternatives(found[0][2:-1]):
                yield f'{expression[: found.start()]}r"{pattern}"{expression[found.end() :]}', lost
    for found in _SET.finditer(expression):
        for member in re.finditer(r'"[^"]*"', found[1]):
            start, end = found.start(1) + member.start(), found.start(1) + member.end()
            yield expression[:start] + expression[end:], member[0]


def requests(rule: RuleModel) -> Iterator[tuple[Facts, bool]]:
    """What must hit or must miss the rule, by the golden cases and by the probes."""
    name = rule.id.split("-")[0]
    file = Path(shipped.path(name)).parent / f"{name}.cases.yaml"
    for case in CaseFile.model_validate(document.parse(file.read_bytes(), file.name, rules=True).data, context=FROM_FILE).cases:
        hit = case.expect.rule == rule.id or rule.id in (case.expect.hits or ())
        if hit or rule.id in case.expect.misses:
            yield facts(case.request), hit
    for probe in PROBES.get(rule.id, ()):
        yield facts(asked(probe)), probe.hit


def asked(probe: Probe) -> CaseRequest:
    return CaseRequest(
        url=f"https://a.example{probe.target}", method=probe.method, headers=probe.headers, dialect=probe.dialect,
        length=probe.length,
    )  # fmt: skip


def facts(request: CaseRequest) -> Facts:
    """Raises: AssertionError for a request that no rule would see."""
    made = facts_of(request)
    assert not isinstance(made, str), made
    assert path_problem(made.request.target) is None, request.url
    return made


@pytest.mark.parametrize("name", RULES)
def test_every_alternative_acts(name: str) -> None:
    rule = RULES[name]
    known = list(requests(rule))
    right = compile_test(parse(rule.expression, {}), {})
    assert [bool(right(each)) for each, _ in known] == [hit for _, hit in known], [
        each.request.target for each, hit in known if bool(right(each)) is not hit
    ]
    idle = []
    for expression, lost in mutants(rule.expression):
        check = compile_test(parse(expression, {}), {})
        if all(bool(check(each)) is hit for each, hit in known):
            idle.append(lost)
    assert not idle, f"no request shows what these do in {name}: {idle}"


def test_mutants() -> None:
    assert [each for each, _ in without_alternatives(r"a|(?:b|[|)]\|)c")] == [r"a|(?:[|)]\|)c", "a|(?:b)c", r"(?:b|[|)]\|)c", "a"]
    assert [lost for _, lost in mutants('x in {"a" "b"} or y matches r"c|d" or z eq "|"')] == ["c", "d", '"a"', '"b"']


def test_probes_name_rules() -> None:
    assert set(PROBES) <= set(RULES)
