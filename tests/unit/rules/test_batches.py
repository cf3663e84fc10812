# Asking many rules at once finds what asking each of them finds, in order, whatever stands in them.
"""batches.py, gates.py, required.py and compile_batch."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from support.rules import CONTAINERS, LISTS, evaluate, facts, trees

from edgeproxy.rules import batches as batches_module
from edgeproxy.rules import probes
from edgeproxy.rules.batches import batches
from edgeproxy.rules.compiler import Batched, compile_batch
from edgeproxy.rules.errors import RuleError
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.gates import NEVER, Equal, Found, Gate, Member, Within, Word, gate
from edgeproxy.rules.parser import parse
from edgeproxy.rules.regexes import any_pattern, any_word, compile_pattern, searcher
from edgeproxy.rules.required import required
from edgeproxy.rules.sources import ENTRIES
from edgeproxy.rules.syntax import Test

_TWICE = [(b"user-agent", b"a"), (b"user-agent", b"sqlmap"), (b"host", b"x"), (b"cookie", b"a=x"), (b"cookie", b"b=example.org")]


def requests() -> list[Facts]:
    return [
        facts(), facts(b"*", headers=[], host="", client=""), facts(b"/a?a=example.org&x", headers=_TWICE, client="10.0.0.1"),
        facts(b"/PATH/%C3\xff.x?sqlmap=a", host="a", client="2001:db8::1"),
    ]  # fmt: skip


def asked(tests: list[Test], given: Facts, *, whole: bool = True) -> tuple[list[int], list[int]]:
    """Which rules are found and which are broken, by their place."""
    made = [Batched(test, place) for place, test in enumerate(tests)]
    found: list[int] = []
    broken: list[int] = []
    for batch in batches(made, CONTAINERS) if whole else (compile_batch(made, CONTAINERS),):
        batch(given, found.append, lambda rule, _: broken.append(rule))
    return found, broken


def read(*texts: str) -> list[Test]:
    return [parse(text, LISTS) for text in texts]


@settings(max_examples=120, deadline=None)
@given(st.lists(trees(), min_size=1, max_size=20))
def test_a_batch_finds_what_the_rules_say(tests: list[Test]) -> None:
    for request in requests():
        expected = [place for place, test in enumerate(tests) if evaluate(test, request)]
        assert asked(tests, request) == asked(tests, request, whole=False) == (expected, [])


@settings(max_examples=300, deadline=None)
@given(trees())
def test_a_closed_gate_is_a_rule_that_does_not_hold(tree: Test) -> None:
    found = gate(tree)
    for request in requests():
        if found is not None and not any(is_open(atom, request) for atom in found):
            assert not evaluate(tree, request)


def is_open(atom: Any, given: Facts) -> bool:
    """The meaning of an atom, written down a second time."""
    value = getattr(given, atom.slot)
    match atom:
        case Word(_, word):
            return value is not None and word in value
        case Found(_, pattern):
            return value is not None and searcher(compile_pattern(pattern))(value)
        case Equal(_, wanted):
            return bool(value == wanted)
        case Within(_, (first, last)):
            return value is not None and first <= value <= last
        case Member(_, wanted):
            return value is not None and wanted in value
    raise AssertionError(atom)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_many_rules_of_one_kind_share_their_look_ups(data: st.DataObject) -> None:
    """Words one of which begins or contains another, ranges over one another, values, keys and patterns."""
    few = st.text("ab/.", min_size=3, max_size=5)
    forms = [
        'http.request.uri.path contains "{}"', 'http.user_agent contains "{}"', 'http.request.uri.path eq "/{}"',
        'any(http.request.uri.args["{}"][*] eq "x")', 'any(http.request.headers["{}"][*] contains "x")',
        'http.request.uri.path matches "[ab]+{}"', 'http.request.uri.path matches "^.[ab]{{2}}.(?:{}|a.)$"',
        'any(http.request.headers.values[*] contains "{}")', "ip.src in {{10.0.0.0/2{} 10.0.0.{}}}",
        'http.request.uri.path wildcard "*{}*"', 'not http.host contains "{}"',
    ]  # fmt: skip
    tests: list[Test] = []
    for form in data.draw(st.lists(st.sampled_from(forms), min_size=4, max_size=60)):
        words = [data.draw(st.integers(0, 9)) for _ in range(2)] if form.startswith("ip") else [data.draw(few).replace(".", "x")]
        tests += read(form.format(*words))
    path = data.draw(st.text("abx/", max_size=12))
    agent = data.draw(st.text("abx/ ", max_size=200)).encode()
    headers = [(b"user-agent", agent), (data.draw(few).encode(), b"x"), (b"abab", b"xx" + agent)]
    client = f"10.0.0.{data.draw(st.integers(0, 12))}"
    request = facts(f"/{path}?{data.draw(few)}=x".encode(), headers=headers, client=client)
    expected = [place for place, test in enumerate(tests) if evaluate(test, request)]
    assert asked(tests, request) == (expected, [])


@pytest.mark.parametrize("most", [3, 100])
def test_more_words_than_one_by_one(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(batches_module, "MANY_WORDS", most)
    words = [f"w{number:03d}" for number in range(90)] + ["w00", "001", "w001w"]
    tests = read(*(f'http.user_agent contains "{word}"' for word in words))
    for agent in (b"", b"w0", b"xxw001w002", b"W001", " ".join(words).encode(), b"w001w w089"):
        request = facts(headers=[(b"user-agent", agent)])
        expected = [place for place, word in enumerate(words) if word.encode() in agent]
        assert asked(tests, request) == (expected, [])


def test_rules_that_raise_are_told_of_once_and_the_others_still_asked() -> None:
    tests = read(
        'http.user_agent contains "sqlmap"', "http.request.timestamp.sec gt 5", "http.request.timestamp.sec lt 5",
        'http.user_agent contains "nothing"', *(f'http.request.uri.path contains "{word}"' for word in ("Path", "nix", "to.PHP")),
        "http.request.timestamp.sec in {5}", "http.request.timestamp.sec in {6}", "http.request.timestamp.sec in {7}",
        *(f'http.user_agent contains "{word}"' for word in ("map/1", "lmap")), "ssl",
    )  # fmt: skip

    def failing() -> float:
        raise RuntimeError

    for whole in (True, False):
        request = facts()
        request.clock = failing
        found, broken = asked(tests, request, whole=whole)
        assert found == [0, 4, 6, 10, 11, 12]
        assert sorted(broken) == [1, 2, 7, 8, 9]


def test_what_no_request_can_match_is_not_asked() -> None:
    assert gate(parse('cf.tls_client_random eq "KP" and ssl', LISTS)) == NEVER
    assert gate(parse('any(http.request.jwt.claims.aud["a"][*] eq "x")', LISTS)) == NEVER
    assert gate(parse('concat(cf.tls_client_random, "x") eq "x"', LISTS)) is None
    assert gate(parse('cf.tls_client_random eq "KP" or ssl', LISTS)) is None
    assert gate(parse('not cf.tls_client_random eq "KP"', LISTS)) is None
    assert asked(read('cf.tls_client_random eq "KP"', 'concat(cf.tls_client_random, "x") eq "x"'), facts()) == ([1], [])


_UA, _PATH, _QUERY = "lower_http_user_agent", "lower_http_request_uri_path", "lower_http_request_uri_query"


@pytest.mark.parametrize(("text", "expected"), [
    ('http.user_agent contains "SQLmap" and ssl', {Word(_UA, b"sqlmap")}),
    ('http.user_agent matches "(?i)Nik[t]o|sqlmap"', {Word(_UA, b"nik"), Word(_UA, b"sqlmap")}),
    ('http.request.uri.path matches "^/[a-z]+$"', {Found("http_request_uri_path", "^/[a-z]+$")}),
    ('http.request.uri.path matches "[a-z]{300}"', None),
    ('http.user_agent contains "Mozilla" and http.request.uri.path wildcard "/a*/Admin*"', {Word(_PATH, b"/admin")}),
    ('http.request.method eq "POST" and http.request.uri.path eq "/A"', {Equal("http_request_uri_path", b"/A")}),
    ("ip.src in {192.0.2.1 10.0.0.0/8}", {Within("ip_src", (0xC0000201,) * 2), Within("ip_src", (0x0A000000, 0x0AFFFFFF))}),
    ('http.request.headers["x-a"][0] eq "b" or has_key(http.request.headers, "x-c")',
        {Member("header_lines", b"x-a"), Member("header_lines", b"x-c")}),
    ('any(http.request.uri.args["cmd"][*] contains "x")', {Word(_QUERY, b"cmd")}),
    ('any(http.request.uri.args["q"][*] contains "x")', {Member("http_request_uri_args", b"q")}),
    ('any(lower(http.request.uri.args.values[*])[*] contains "xyz")', {Word(_QUERY, b"xyz")}),
    ('any(http.request.cookies["sess"][*] contains "x")', {Member("http_request_cookies", b"sess")}),  # its name is decoded
    ('any(http.request.cookies[*][*] contains "xyz")', {Word("lower_http_cookie", b"xyz")}),
    ("len(http.host) & 4", None), ("cf.threat_score & cf.waf.score", NEVER),
    ('has_key(http.request.headers, "host")', None), ('not http.user_agent contains "sqlmap"', None),
    ('http.user_agent contains "sqlmap" or ssl', None), ('http.user_agent contains "sqlmap" xor ssl', None),
    ('all(http.request.headers["x-a"][*] eq "b")', None), ('http.user_agent contains ""', None), ("len(http.host) gt 5", None),
])  # fmt: skip
def test_gates(text: str, expected: Gate | None) -> None:
    assert gate(parse(text, LISTS)) == expected


@pytest.mark.parametrize(("pattern", "words"), [
    ("sqlmap|nikto", (b"sqlmap", b"nikto")), (r"(?i)SQLmap/\d", (b"sqlmap/",)), ("a?bcd*ef", (b"bc",)), ("(abc)+d", (b"abc",)),
    ("(abc)?d", (b"d",)), ("(?:x|)", None), ("", None), (r"\x41\.b{2}c", (b"a.b",)), ("[]a]xyz", (b"xyz",)), ("[^]]q", (b"q",)),
    (r"[\]]qr", (b"qr",)), ("[[:alpha:]]ab", (b"ab",)), ("(?P<n>ab)c", (b"ab",)), ("a{0}b", (b"b",)), ("a{0,2}b", (b"b",)),
    ("abc*?", (b"ab",)), (r"ab\b", (b"ab",)), ("é+x", "é".encode()), (r"\d+", None), ("(?:a|b(?:cd|e))", (b"a", b"cd", b"b")),
])  # fmt: skip
def test_required(pattern: str, words: Any) -> None:
    found = required(pattern)
    if pattern == "(?:a|b(?:cd|e))":  # the group's words, or the letter before it: either is right
        assert found in [(b"a", b"b"), (b"a", b"cd", b"e")]
        return
    assert found == ((words,) if isinstance(words, bytes) else words)


_ATOMS = ["a", "B", "c", "/", r"\.", ".", "[ab]", "[^a]", r"\d", r"\b", "^", "$", "(?i)", r"\x41", "é", r"[\]x]", "[]a]"]
_TIMES = ["", "", "", "?", "*", "+", "{2}", "{0,1}", "{0}", "+?", "??", "{1,}"]


def patterns() -> st.SearchStrategy[str]:
    piece = st.tuples(st.sampled_from(_ATOMS), st.sampled_from(_TIMES)).map("".join)
    return st.recursive(
        st.lists(piece, max_size=4).map("".join),
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3).map("|".join),
            st.tuples(st.sampled_from(["(", "(?:", "(?i:", "(?P<n>", "(?s)("]), inner, st.sampled_from(_TIMES)).map(
                lambda parts: f"{parts[0]}{parts[1]}){parts[2]}"
            ),
            st.tuples(inner, inner).map("".join),
        ),
        max_leaves=6,
    )


@settings(max_examples=600, deadline=None)
@given(patterns(), st.lists(st.text("abBcA/.1x]\xe9 \n", max_size=8), min_size=1, max_size=8))
@example("(?i)a|Bc", ["x", "bC"])
def test_a_pattern_never_matches_without_its_words(pattern: str, texts: list[str]) -> None:
    try:
        search = searcher(compile_pattern(pattern))
    except RuleError:
        assume(False)
    words = required(pattern)
    together = any_pattern(["nothing", pattern])
    assert together is not None
    for text in texts:
        value = text.encode()
        assert (together(value) >= 0) is (search(value) or b"nothing" in value)
        if search(value) and words is not None:
            assert any(word in value.lower() for word in words)


@given(st.lists(st.binary(min_size=1, max_size=3), min_size=1, max_size=6), st.binary(max_size=12), st.integers(0, 12))
def test_any_word(words: list[bytes], text: bytes, start: int) -> None:
    find = any_word(words)
    assert find is not None
    start = min(start, len(text))
    places = [at for word in words if (at := text.find(word, start)) >= 0]
    assert find(text, start) == min(places, default=-1)


def test_values_that_are_not_where_a_look_up_expects_them() -> None:
    """A header that is there twice, Host among the lines, an empty value, a word that is one of another field's text."""
    texts = (
        'any(http.request.headers["user-agent"][*] eq "sqlmap")', 'any(http.request.headers["host"][*] eq "x")',
        'any(http.request.headers["host"][*] eq "example.org")', 'http.request.headers["cookie"][1] eq "b=example.org"',
        'any(http.request.headers.values[*] contains "qlma")',
        'any(http.request.headers.values[*] contains "a=x")', 'any(http.request.headers.names[*] eq "host")',
        'any(http.request.headers.values[*] eq "example.org")', 'has_value(http.request.headers.names, "cookie")',
        'any(http.request.uri.args.names[*] eq "abc")', 'any(http.request.uri.args["abc"][*] eq "")',
        'any(http.request.uri.args.values[*] in {"xyz" "1=2"})', 'any(http.request.cookies["abcd"][*] eq "1")',
        'http.cookie eq ""', 'http.request.uri.query eq ""', 'lower(http.user_agent) eq "a, sqlmap"',
        'starts_with(http.user_agent, "a, SQL")', 'ends_with(http.user_agent, "sqlmap")',
        'any(starts_with(http.request.headers.values[*], "sqlm"))',
        'any(upper(http.request.headers.values[*])[*] eq "SQLMAP")',
    )  # fmt: skip
    tests = read(*texts)
    tests *= 3  # enough of each kind for a look-up
    for target in (b"/a?abc&d=1=2", b"/a?ABC=XYZ&=xyz", b"/"):
        for headers in (_TWICE, [(b"user-agent", b"A, sqlmap"), (b"cookie", b" abcd=1;abcd")], []):
            request = facts(target, headers=headers)
            expected = [place for place, test in enumerate(tests) if evaluate(test, request)]
            assert asked(tests, request) == (expected, [])


def test_ranges_over_one_another_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_MOST_PARTS", 20)
    tests = read(*(f"ip.src in {{10.0.{low}.0..10.0.{255 - low}.0}}" for low in range(40)))
    for last in (0, 3, 200, 255):
        assert asked(tests, facts(client=f"10.0.{last}.0"))[0] == [low for low in range(40) if low <= last <= 255 - low]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)), min_size=1, max_size=9), st.integers(0, 80))
def test_ranges_are_open_where_they_are(parts: list[tuple[int, int]], number: int) -> None:
    places: dict[Any, tuple[int, ...]] = {}
    for place, (first, size) in enumerate(parts):
        places[first, first + size] = (*places.get((first, first + size), ()), place)
    request = facts()
    request.cf_threat_score = number
    opened = probes.together([probes.within("cf_threat_score", places)])(request)
    assert sorted(opened) == [place for place, (first, size) in enumerate(parts) if first <= number <= first + size]


def test_a_field_that_no_rule_comes_to_is_not_computed() -> None:
    tests = read(*(f"not ssl and len(http.cookie) gt {size}" for size in range(8)))
    for whole in (True, False):
        request = facts()
        assert asked(tests, request, whole=whole) == ([], [])
        assert "ssl" in vars(request) and "http_cookie" not in vars(request)


_ENCODED = st.lists(st.sampled_from([b"a=1", b"b%3d=2", b"%61=3", b"a", b" b=", b"=x", b"ab=1;a=2", b"%", b"b%3d"]), max_size=4)


@given(_ENCODED, st.sampled_from([b"a", b"b=", b"b", b"ab", b"%61", b"", b"b%3d", b"c"]))
def test_one_cookie_is_what_the_map_of_all_has(cookies: list[bytes], name: bytes) -> None:
    headers = [(b"cookie", each) for each in cookies]
    assert ENTRIES["http.request.cookies"](facts(headers=headers), name) == facts(headers=headers).http_request_cookies.get(name)


@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b", b"host"]), st.sampled_from([b"", b"1", b"2"])), max_size=4),
    st.sampled_from([b"a", b"b", b"host", b"c"]),
)
def test_one_header_is_what_the_map_of_all_has(headers: list[tuple[bytes, bytes]], name: bytes) -> None:
    assert ENTRIES["http.request.headers"](facts(headers=headers), name) == facts(headers=headers).http_request_headers.get(name)
