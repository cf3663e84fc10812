# Rules asked in pieces (once per head, then per request, with a wait for the body) mean what rules asked one by one mean.
"""ruleset.py and walk.py against the plainest way to run rules: in order, each alone, on what the last one left."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.rules import facts

from edgeproxy.rules.body import HeldBody
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.model import HeaderChanges, RuleBook, RuleModel
from edgeproxy.rules.rule import Rule
from edgeproxy.rules.ruleset import Asking, Ruleset
from edgeproxy.rules.walk import Decision, Walk

IDS = "abcdef"
TESTS = st.recursive(
    st.sampled_from([
        'http.request.uri.path eq "/"', 'http.request.uri.path eq "/a"', 'http.request.uri.path eq "/b"',
        'any(http.request.headers["x"][*] eq "1")', 'any(http.request.headers["x"][*] eq "2")',
        'raw.http.request.uri.path eq "/a"', "http.request.timestamp.sec gt 1000", "http.request.timestamp.sec gt 3000000000",
        'http.request.body.raw contains "bad"', "http.request.body.size gt 3", "true", "false",
    ]),
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("({} xor {})".format, inner, inner),
        st.builds("not ({})".format, inner),
    ),
    max_leaves=4,
)  # fmt: skip
ACTIONS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.sampled_from([
        {"action": "block"}, {"action": "allow"}, {"action": "log"}, {"action": "skip"},
        {"action": "route", "upstream": "u"}, {"action": "set", "tags": ("t",)},
        {"action": "rewrite", "path_expression": 'url_decode(http.request.headers["x"][0])'},
        {"action": "rewrite", "query_expression": "to_string(http.request.timestamp.sec)"},
    ]),
    st.sampled_from(["/", "/a", "/b"]).map(lambda path: {"action": "rewrite", "path": path}),
    st.sampled_from("12").map(lambda value: {
        "action": "rewrite", "headers": HeaderChanges.model_validate({"set": {"x": value}}),
    }),
    st.lists(st.sampled_from(IDS), min_size=1, max_size=2).map(lambda ids: {"action": "skip", "skip": ids}),
)  # fmt: skip


@st.composite
def rulesets(draw: st.DrawFn) -> Ruleset:
    models = [
        RuleModel(id=name, expression=draw(TESTS), mode=draw(st.sampled_from(["act", "act", "log"])),
                  sample=draw(st.sampled_from([1.0, 1.0, 1.0, 0.5])), **draw(ACTIONS))
        for name in IDS[: draw(st.integers(1, len(IDS)))]
    ]  # fmt: skip
    return Ruleset(RuleBook(rules=tuple(models)))


def naive(rules: Ruleset, given: Facts, drawn: dict[str, float], broken: list[str]) -> Decision:
    """One by one. A number is drawn for a rule by its id, since the order of drawing is nobody's business."""
    current = ""
    walk = Walk(given.request, lambda: drawn[current], lambda rule, _error: broken.append(rule.id))
    for rule in rules.rules:
        current = rule.id
        if rule.check(given):
            given = walk.take(rule, given)
        if walk.over:
            break
    return walk.decision()


def shown(decision: Decision) -> tuple[Any, ...]:
    request = decision.request
    return (*(rule.id for rule in decision.hits), decision.final and decision.final.id, request.target, request.headers,
            decision.upstream, decision.tags, decision.left_out)  # fmt: skip


@given(rulesets(), st.sampled_from([b"/", b"/a", b"/b"]), st.sampled_from([b"1", b"2", b"/a", b"/b"]),
       st.sampled_from([b"", b"bad", b"other"]), st.booleans(), st.floats(0, 1))
def test_in_pieces_as_one_by_one(
    rules: Ruleset, path: bytes, header: bytes, body: bytes, declared: bool, number: float
) -> None:
    def made(ray: bytes | None) -> Facts:
        one = facts(path, headers=[(b"x", header)])
        one.request.length = len(body) if declared else None
        one.ray = ray
        return one

    held = HeldBody(body, False)
    plain = made(b"0" * 16)
    plain.body = held
    wanted_broken: list[str] = []
    wanted = naive(rules, plain, dict.fromkeys(IDS, number), wanted_broken)

    broken: list[str] = []

    def told(rule: Rule, _error: Exception) -> None:
        broken.append(rule.id)

    prepared = rules.prepare(made(None))
    broken += [rule.id for rule, _ in prepared.failed]
    if prepared.decision is not None:
        assert shown(prepared.decision) == shown(wanted)
    for _ in range(2):  # two requests of one plan
        asking = Asking(rules, prepared, made(b"0" * 16), lambda: number, told)
        if not asking.go():
            assert asking.facts.body is None and "http.request.body" in "".join(rule.model.expression for rule in rules.rules)
            asking.facts.body = held
            assert asking.go()
        assert shown(asking.walk.decision()) == shown(wanted)
    assert set(wanted_broken) <= set(broken)
