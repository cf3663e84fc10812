# What was said of one request is said of the next one with the same path or User-Agent, and of no other.
"""remembered.py."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rules import CONTAINERS, LISTS, evaluate, facts, trees

from edgeproxy.rules import remembered
from edgeproxy.rules.batches import Batch
from edgeproxy.rules.compiler import Batched
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.model import RuleBook, RuleModel
from edgeproxy.rules.parser import parse
from edgeproxy.rules.remembered import LONGEST, Remembering, remembering
from edgeproxy.rules.ruleset import Ruleset, judge
from edgeproxy.rules.syntax import Test

PATHS = ['http.request.uri.path matches "^/a+$"', 'http.request.uri.path.extension eq "php"', 'http.request.uri.path eq "/a"']
AGENTS = ['http.user_agent contains "sqlmap"', 'not http.user_agent matches "^M.z"']
QUERIES = ['http.request.uri.query contains "x=1"', 'len(http.request.uri.query) eq 0']
MIXED = [
    'http.request.uri.path eq "/a" and http.request.uri.query eq ""', "ip.src eq 10.0.0.1", "true",
    'http.user_agent eq "x" or http.request.uri.path eq "/aa" or http.request.method eq "POST" and http.request.uri.query ne ""',
    'any(http.request.headers.values[*] contains "plain") or http.request.uri.query contains "x=1" or ip.src eq 10.0.0.2',
    'http.request.timestamp.msec ge 0 or http.request.uri.path eq "/a"',
]
KINDS = [
    'http.request.method eq "POST" and http.request.body.mime eq "text/plain"',
    'edge.route.dialect eq "openai" and http.request.uri.path eq "/a"',
]
ALL = [*MIXED, *PATHS, *AGENTS, *QUERIES, *KINDS]


@pytest.fixture(autouse=True)
def cheap_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_WORTH", 0)


def made(texts: list[str]) -> tuple[Batch, ...]:
    return remembering([Batched(parse(text, LISTS), place) for place, text in enumerate(texts)], CONTAINERS)


def ask(batches: tuple[Batch, ...], given: Facts) -> tuple[list[Any], list[Any]]:
    found: list[Any] = []
    broken: list[Any] = []
    for batch in batches:
        batch(given, found.append, lambda rule, _: broken.append(rule))
    return found, broken


def kept(batches: tuple[Batch, ...]) -> list[dict[bytes, Any]]:
    (batch,) = batches
    assert isinstance(batch, Remembering)
    return [known for _, key, known in batch._parts if key is not None and key is not remembered._fields]


REQUESTS = st.tuples(
    st.sampled_from([b"/a", b"/aa", b"/b.php", b"/a?x=1", b"/b.php?", b"*", b"/" + b"a" * LONGEST]),
    st.sampled_from([b"GET", b"POST"]),
    st.lists(st.sampled_from([(b"user-agent", b"sqlmap"), (b"user-agent", b"Mozilla"), (b"content-type", b"Text/plain; a=b")]),
             max_size=3),
    st.sampled_from(["10.0.0.1", "10.0.0.2"]),
    st.sampled_from([None, "openai"]),
)  # fmt: skip


def request(target: bytes, method: bytes, headers: list[tuple[bytes, bytes]], client: str, dialect: str | None) -> Facts:
    asked = facts(target, method=method, headers=headers, client=client)
    asked.dialect = dialect
    return asked


@settings(max_examples=200, deadline=None)
@given(st.permutations(ALL), st.lists(REQUESTS, min_size=2, max_size=12))
def test_the_same_as_asking_again(texts: list[str], requests: list[Any]) -> None:
    batches = made(texts)
    tests = [parse(text, LISTS) for text in texts]
    for each in [*requests, *requests]:
        expected = [place for place, test in enumerate(tests) if evaluate(test, request(*each))]
        assert ask(batches, request(*each)) == (expected, [])


@settings(max_examples=100, deadline=None)
@given(st.lists(trees(), min_size=1, max_size=12))
def test_whatever_the_rules_are(tests: list[Test]) -> None:
    batches = remembering([Batched(test, place) for place, test in enumerate(tests)], CONTAINERS)
    asked = [facts(), facts(b"/a"), facts(), facts(b"/a?a=example.org", headers=[(b"user-agent", b"a")]), facts(b"/a")]
    for each in asked:
        assert ask(batches, each) == ([place for place, test in enumerate(tests) if evaluate(test, each)], [])


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many families were asked, for each request."""
    asked: list[int] = []
    original = remembered._asked

    def counting(*args: Any) -> Any:
        asked.append(len(args[0]))
        return original(*args)

    monkeypatch.setattr(remembered, "_asked", counting)
    return asked


def test_an_answer_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    batches, asked = made([*PATHS, *AGENTS, *QUERIES, *KINDS]), counted(monkeypatch)
    for number, new in enumerate([4, 0, 0]):
        asked.clear()
        ask(batches, facts(b"/a", headers=[(b"user-agent", b"Mozilla"), (b"x-number", b"%d" % number)]))
        assert len(asked) == new
    for target, agent, new in ((b"/a", b"curl", 1), (b"/b", b"curl", 2), (b"/b?x", b"curl", 0), (b"/b", b"Mozilla", 0)):
        asked.clear()
        ask(batches, facts(target, headers=[(b"user-agent", agent)]))
        assert len(asked) == new, (target, agent)


def test_what_is_said_of_field_lines_goes_with_the_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ['any(http.request.headers.values[*] contains "evil") or http.request.uri.path eq "/evil"', 'ip.src eq 10.0.0.1']
    batches, asked = made(texts), counted(monkeypatch)
    first = facts(b"/", headers=[(b"x-a", b"evil")], client="10.0.0.1")
    assert ask(batches, first) == ([0, 1], [])
    again = facts(b"/other", headers=[(b"x-a", b"evil")], client="10.0.0.1")
    again.said = first.said
    asked.clear()
    assert ask(batches, again) == ([0, 1], []) and len(asked) == 1, "the path alone"
    other = facts(b"/evil", headers=[(b"x-a", b"good")])
    assert ask(batches, other) == ([0], []), "each rule once, whichever of its alternatives hold"
    following = first.following(first.request.altered(b"/", [(b"x-a", b"good")]))
    assert ask(batches, following) == ([1], []), "what a rewrite made of a request is asked about anew"


def test_nothing_is_kept_of_queries() -> None:
    batches = made(ALL)
    for _ in range(2):
        ask(batches, facts(b"/secret?key=sk-123", headers=[(b"authorization", b"Bearer sk-123"), (b"cookie", b"a=sk-123")]))
    assert not any(b"sk-123" in value for known in kept(batches) for value in known)
    assert {value for known in kept(batches) for value in known} == {b"", b"\nGET\n\n/secret"}, "no agent, and a path"


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MOST", 8)
    batches = made(ALL)
    for number in range(100):
        target = b"/%d" % number
        assert ask(batches, facts(target, headers=[(b"user-agent", b"sqlmap %d" % number)]))[0]
        assert all(len(known) <= 8 for known in kept(batches))
    before = [dict(known) for known in kept(batches)]
    ask(batches, facts(b"/" + b"b" * LONGEST, headers=[(b"user-agent", b"c" * (LONGEST + 1))]))
    assert kept(batches) == before


@pytest.mark.parametrize(("rewrites", "families"), [(3, 2), (40, 2), (400, 0)])
def test_what_all_groups_of_rules_keep_is_bounded(monkeypatch: pytest.MonkeyPatch, rewrites: int, families: int) -> None:
    """Each rewrite begins another group, and a list of redirections may have thousands of them."""
    monkeypatch.setattr(remembered, "ALL", 6400)
    expressions = ('http.request.uri.path eq "/old%d" and http.request.method eq "GET"', 'http.request.uri.path eq "/old%d"')
    book = [
        RuleModel.model_validate({"id": f"r{n}-{at}", "expression": each % n, **({"action": "rewrite", "path": "/"} if at else
                                  {"action": "set", "tags": ["old"]})})
        for n in range(rewrites) for at, each in enumerate(expressions)
    ]  # fmt: skip
    rules = Ruleset(RuleBook(rules=tuple(book)))
    for number in range(160):
        rules.prepare(facts(b"/%d" % number))
    batches = [batch for segment in rules.segments for batch in segment.stable]
    memories = [known for batch in batches if isinstance(batch, Remembering) for _, _, known in batch._parts]
    assert len(memories) == rewrites * families and sum(map(len, memories)) <= 2 * 6400
    assert judge(rules, facts(b"/old2"), lambda *_: None).request.target == b"/"


def test_a_failure_is_told_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rules whose field cannot be read, and what the others say beside it."""
    batches = made(['http.user_agent contains "a"', "true", 'http.user_agent eq "b"'])

    def fail(_: Facts) -> bytes:
        raise ValueError("no")

    broken = facts(b"/a")
    monkeypatch.setattr(Facts.__dict__["http_user_agent"], "source", fail)
    monkeypatch.setattr(Facts.__dict__["text_http_user_agent"], "source", fail)
    for _ in range(2):
        assert ask(batches, broken) == ([1], [0, 2])
    monkeypatch.undo()
    assert ask(batches, facts(b"/a", headers=[(b"user-agent", b"b")])) == ([1, 2], [])


def test_rules_about_something_else_are_asked_as_ever() -> None:
    assert not any(isinstance(batch, Remembering) for batch in made(["http.request.timestamp.msec ge 0", "true"]))
    assert made([]) == ()


def test_cheap_rules_are_asked_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_WORTH", 1000)
    assert not any(isinstance(batch, Remembering) for batch in made(ALL))
