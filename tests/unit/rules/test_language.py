# The language as a whole, by properties: reading and writing are inverse, compiled is interpreted, garbage is an error.
"""lexer.py, parser.py, syntax.py, optimise.py and compiler.py on random input."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rules import CONTAINERS, LISTS, evaluate, facts, trees

from edgeproxy.rules.compiler import compile_test, compile_value
from edgeproxy.rules.errors import RuleError
from edgeproxy.rules.optimise import simplify
from edgeproxy.rules.parser import MAX_LENGTH, parse, parse_value
from edgeproxy.rules.syntax import Test, fields_of, show

_BITS = [
    "http.host", "http.request.headers", "ip.src", "ssl", "cf.threat_score", "eq", "in", "{", "}", "(", ")", "[", "]", "*", "[*]",
    "any(", "all(", "lower(", "concat(", "not", "!", "and", "or", "xor", "&&", "||", "^^", '"', '"a"', 'r#"', '"#', "$nets",
    "1", "0x", "..", "10.0.0.0/8", "::1", "61:62", ",", "\\", "matches", "wildcard", "strict wildcard", "~", "&", "\x00", "é",
    "\ud800",
    "true", " ", "\n", "{2,1}", "[^]", "(?i)", "-", "0", "99999999999999999999999999999999",
]  # fmt: skip
_REQUESTS = [facts(), facts(b"/", headers=[], client="2001:db8::1"),
    facts(b"/a?x", headers=[(b"x-a", b"")], client="", protocol=0)]


@settings(max_examples=300, deadline=None)
@given(trees())
def test_what_is_shown_reads_back_to_the_same(tree: Test) -> None:
    text = show(tree)
    if len(text) <= MAX_LENGTH:
        assert parse(text, LISTS) == tree


@settings(max_examples=400, deadline=None)
@given(trees())
def test_compiled_is_interpreted(tree: Test) -> None:
    check = compile_test(tree, CONTAINERS)
    for request in _REQUESTS:
        assert bool(check(request)) == evaluate(tree, request)


@settings(max_examples=200, deadline=None)
@given(trees())
def test_simpler_is_the_same(tree: Test) -> None:
    simple = simplify(tree)
    assert fields_of(simple) == fields_of(tree)
    for request in _REQUESTS:
        assert evaluate(simple, request) == evaluate(tree, request)


PATTERNS = ["^/a", "b|c", "(?i)PATH", "[.]php$", r"\.PHP", "(?:a|)", "x{2,3}", "/(a)", "(?P<n>t)", "a+" * 300]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PATTERNS), min_size=2, max_size=6), st.sampled_from(["http.host", "lower(http.user_agent)"]))
def test_alternatives_become_one_pattern(patterns: list[str], value: str) -> None:
    tree = parse(" or ".join(f'{value} matches r"{pattern}"' for pattern in patterns), LISTS)
    simple = simplify(tree)
    for request in _REQUESTS:
        assert bool(compile_test(tree, CONTAINERS)(request)) == evaluate(tree, request) == evaluate(simple, request)


def test_how_many_patterns_are_left() -> None:
    tree = parse('lower(http.host) matches "a.c" or ssl or lower(http.host) matches "d|e" or http.host matches "f"', LISTS)
    simple = simplify(tree)
    assert show(simple) == 'lower(http.host) matches r"(?:a.c)|d|e" or ssl or http.host matches r"f"'


@settings(max_examples=600, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(_BITS), max_size=14).map(" ".join),
    st.lists(st.sampled_from(_BITS), max_size=14).map("".join)))
def test_garbage_is_a_rule_error_or_compiles(text: str) -> None:
    for reader, compiler in ((parse, compile_test), (parse_value, compile_value)):
        try:
            tree = reader(text, LISTS)
        except RuleError as error:
            placed = 0 <= error.offset <= len(text) and error.message
            assert placed
        else:
            compiler(tree, CONTAINERS)(facts())  # type: ignore[operator]


@settings(max_examples=200, deadline=None)
@given(trees(), st.data())
def test_a_damaged_expression_is_a_rule_error_or_compiles(tree: Test, data: st.DataObject) -> None:
    text = show(tree)[:MAX_LENGTH]
    at = data.draw(st.integers(0, len(text)))
    damaged = text[:at] + data.draw(st.sampled_from(["", "(", '"', "[*]", " ", "\\", "}",
        "é"])) + text[at + data.draw(st.integers(0, 3)) :]
    try:
        compile_test(parse(damaged, LISTS), CONTAINERS)(facts())
    except RuleError as error:
        assert 0 <= error.offset <= len(damaged)


@pytest.mark.parametrize("text",
    ["(" * 5000, "not " * 1000 + "ssl", "!" * 4000, "any(" * 900, "lower(" * 600, '"' * 4096, "[" * 4096])
def test_depth_and_length_are_bounded(text: str) -> None:
    with pytest.raises(RuleError):
        parse(text, LISTS)
