# What RE2 is given, what it is kept from, and that time stays linear.
"""regexes.py, wildcards.py and addresses.py."""

from __future__ import annotations

import hashlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.rules.addresses import LAST, V6, Ranges, client_code, network, parse_ip, parse_range, show_ip, show_range
from edgeproxy.rules.errors import RuleError
from edgeproxy.rules.lists import container
from edgeproxy.rules.model import LoadedList
from edgeproxy.rules.regexes import compile_pattern, literals, searcher, whole_words
from edgeproxy.rules.wildcards import Pattern, find, split, template


@pytest.mark.parametrize(("pattern", "text", "found"), [
    ("^/a", b"/ab", True), ("b$", b"ab\n", False), (".", b"\n", False), ("(?s).", b"\n", True), ("^.$", b"\xe9", True),
    (r"\s", b"\x0b", True),
    (r"[\s]", b"\x0b", True), (r"\S", b"\x0b", False), (r"[^\S]", b"\x0b", True), ("é+$", "éé".encode(), True),
    ("^é+$", b"\xc3\xa9\xa9", False),
    (r"\x41\x{42}", b"AB", True), (r"\xe9", b"\xe9", True), ("(?i)aB", b"Ab", True), ("[]a]", b"]", True), ("[^]a]", b"]", False),
    ("[a-]", b"-", True), (r"[\d-]", b"-", True), ("(?P<n>a)(?<m>b)", b"ab", True), (r"\_\-\/\ ", b"_-/ ", True),
    ("[[:alpha:]]", b"1", False),
    ("a{2,3}", b"a", False), (r"\{", b"{", True), ("}", b"}", True), ("", b"", True), (r"\ba\b", b"-a-", True),
    (r"[a\]]", b"]", True),
])  # fmt: skip
def test_found(pattern: str, text: bytes, found: bool) -> None:
    assert searcher(compile_pattern(pattern))(text) is found


@pytest.mark.parametrize(("pattern", "offset"), [
    ("a[b&&c]", 3), ("[a--b]", 2), ("[a~~b]", 2), ("[[a]]", 1), ("[[:foo:]]", 1), (r"\Qa\E", 0), (r"a\C", 1), ("(?x)a", 0),
    ("(?u)a", 0), (r"\u0041", 0),
    (r"\u{41}", 0), (r"\pL", 0), (r"\p{Greek}", 0), ("a{1001}", 1), ("a{x}", 1), ("{", 0), ("a{,3}", 1), (r"\1", 0), (r"\07", 0),
    (r"\Z", 0), ("(?=a)", 0),
    ("(?<=a)", 0), ("(?>a)", 0), ("[é]", 1), (r"\x{e9}", 0), ("(?i)é", 4), (r"(?i)\xe9", 4), (r"\<a", 0), (r"\b{start}", 0),
    (r"[\b]", 1), (r"[\w-a]", 3),
    ("[a", 0), ("a\\", 1), ("*a", 0), ("(", 0), ("a" * 4097, 0), (r"\é", 0), ("((a{100}){100}){100}", 0), ("\\x4", 0),
    ("a(?i)?", 5), ("(?i){2}", 4),
])  # fmt: skip
def test_refused(pattern: str, offset: int) -> None:
    with pytest.raises(RuleError) as caught:
        compile_pattern(pattern)
    assert caught.value.offset == offset


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(.*)*x", "(a*)*b", "^(([a-z])+.)+[A-Z]([a-z])+$"])
def test_time_is_linear(pattern: str) -> None:
    search = searcher(compile_pattern(pattern))
    begun = time.perf_counter()
    assert not search(b"a" * 30_000 + b"!")
    assert time.perf_counter() - begun < 2.0


@given(st.text(max_size=20))
def test_any_pattern_is_refused_or_runs(pattern: str) -> None:
    try:
        searcher(compile_pattern(pattern))(b"abc")
    except RuleError as error:
        assert 0 <= error.offset <= len(pattern)


def test_literals() -> None:
    assert literals("a|bc") == [b"a", b"bc"]
    assert literals(r"\.php|\$\{") == [b".php", b"${"] and literals(r"\\|a") == [b"\\", b"a"]
    assert literals(r"\\.a") is None and literals(r"a\|b") is None and literals(r"\d") is None
    assert literals("a|") is None and literals("a.b") is None and literals("é") is None


@pytest.mark.parametrize(("pattern", "value", "stars"), [
    (b"a*c", b"abc", [(1, 2)]), (b"*", b"", [(0, 0)]), (b"a", b"a", []), (b"a", b"b", None), (b"a*a", b"a", None),
    (b"*b*", b"abb", [(0, 1), (2, 3)]),
    (b"\\*a\\\\", b"*a\\", []), (b"a*b*c", b"axbxbc", [(1, 2), (3, 5)]), (b"", b"", []), (b"", b"a", None),
])  # fmt: skip
def test_wildcards(pattern: bytes, value: bytes, stars: list[tuple[int, int]] | None) -> None:
    pieces = split(pattern)
    assert isinstance(pieces, list) and find(pieces, value) == stars


def test_bad_wildcards_and_templates() -> None:
    for pattern in (b"a**", b"\\a", b"a\\", b"*a" * 11):
        assert isinstance(split(pattern), str)
    for text in (b"$", b"${0}", b"${9}", b"$1", b"${1"):
        assert isinstance(template(text), str)
    assert template(b"a$$${1}") == [b"a", b"$", 1]
    assert Pattern([b"A", b""], strict=False).replace(b"abC", [b"x", 1, 5]) == b"xbC"


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 9)), max_size=12), st.integers(-60, 70))
def test_ranges(parts: list[tuple[int, int]], number: int) -> None:
    ranges = [(first, first + size) for first, size in parts]
    assert (number in Ranges(ranges)) is any(first <= number <= last for first, last in ranges)
    assert None not in Ranges(ranges)


@given(st.one_of(st.integers(0, V6 - 1), st.integers(V6, V6 + (1 << 128) - 1)), st.integers(0, 128))
def test_addresses(code: int, bits: int) -> None:
    assert parse_ip(show_ip(code)) == code
    bits = min(bits, 32) if code < V6 else bits
    first = network(code, bits)
    found = parse_range(f"{show_ip(first)}/{bits}")
    plain = code & (V6 - 1) if first >> 32 == 0x1_0000 else code  # mapped ones are IPv4 addresses
    assert isinstance(found, tuple) and found[0] <= plain <= found[1]
    assert parse_range(show_range(*found)) == found


@pytest.mark.parametrize("text",
    ["", "1.2.3", "01.2.3.4", "1.2.3.4.", "1.2.3.256", "::g", "1.2.3.4/33", "::/129", "1.2.3.4/", "1.2.3.4/a", "::1..1.2.3.4",
                                  "1.2.3.4/8", "5.0.0.0..4.0.0.0", "fe80::1%eth0", "1.2.3.4\0"])  # fmt: skip
def test_no_addresses(text: str) -> None:
    assert isinstance(parse_range(text), str)


@pytest.mark.parametrize(("text", "same"), [
    ("::ffff:203.0.113.0/120", "203.0.113.0/24"), ("::ffff:203.0.113.7", "203.0.113.7"), ("::ffff:0:0/96", "0.0.0.0/0"),
    ("::ffff:cb00:7101..::ffff:203.0.113.9", "203.0.113.1..203.0.113.9"),
])  # fmt: skip
def test_mapped_ranges_are_ipv4(text: str, same: str) -> None:
    assert parse_range(text) == parse_range(same) and isinstance(parse_range(same), tuple)
    held = container(LoadedList(name="l", kind="ip", items=(text,)))
    assert client_code("203.0.113.7") in held and client_code("::ffff:203.0.113.7") in held


def test_ranges_beyond_the_mapped_ones() -> None:
    assert parse_range("::/0") == (V6, LAST) and isinstance(parse_range("::/64"), tuple)
    for text in ("::ffff:1.2.3.4..::1:0:0:0", "::..::ffff:1.2.3.4"):
        found = parse_range(text)
        assert isinstance(found, str) and "IPv4" in found


def test_mapped_clients_are_ipv4() -> None:
    assert client_code("::ffff:192.0.2.1") == parse_ip("192.0.2.1")
    assert client_code("") is None


def test_whole_words() -> None:
    search = whole_words([b"Bot", b"bot-image", b"a.b/4", b"(x"])
    expected = {
        b"a BOT b": (2, 5), b"robot": None, b"bots": None, b"bot-images": (0, 3), b"Bot-Image/1": (0, 9), b"a.b/42": (0, 5),
        b"axb/4": None, b"y(xy": None, b"": None,
    }  # fmt: skip
    assert {text: search(text) for text in expected} == expected
    assert search(b"y(x") == (1, 3)
    with pytest.raises(ValueError, match="too many"):
        whole_words(hashlib.sha256(b"%d" % number).hexdigest().encode() for number in range(20_000))
