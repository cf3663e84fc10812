# wirefilter's own parser decides what the language is: both accept the same expressions, but for what is listed here.
"""parser.py against the package octorules-wirefilter (development only)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rules import LISTS, trees

from edgeproxy.rules.errors import RuleError
from edgeproxy.rules.parser import MAX_LENGTH, parse
from edgeproxy.rules.syntax import Test, show

wirefilter = pytest.importorskip("octorules_wirefilter", reason="octorules-wirefilter has no wheel for this platform")

# Words of ours that wirefilter does not have (parser.py), and functions whose arity its copy of the reference differs in.
_OURS = ("true", "false", "to_string", "substring", "\t", "encode_base64", "sha256")
_PIECES = [
    "http.host", "ip.src", "ssl", "cf.threat_score", "http.request.headers.names", 'http.request.headers["a"]', "[*]", "[0]",
    "any(", "all(", "(", ")",
    " eq ", " ne ", " in ", " contains ", " matches ", " wildcard ", " and ", " or ", " xor ", "not ", "!", "&&", "||", "^^",
    '"a"', 'r"a"', '"*a"', "1",
    "0x1f", "-3", "{1 2..3}", '{"a" "b"}', "{10.0.0.0/8 ::1}", "10.0.0.1", "lower(", "len(", "concat(", ", ", " & ", " ", "5..6",
]  # fmt: skip


# Values by type, literals, and what makes comparisons of them: for expressions that are nearly right.
_VALUES = {
    "String": ["http.host", "cf.tls_version", 'http.request.headers["a"][0]', "lower(http.host)", 'concat(http.host, "a")',
        "url_decode(http.host)", "http.request.headers.names[0]", "uuidv4(cf.random_seed)", 'remove_bytes(http.host, "a")',
        'join(http.request.headers.names, ",")', 'split(http.host, ".", 2)[0]', 'lookup_json_string(http.host, "a")',
        'regex_replace(http.host, "a", "b")', 'wildcard_replace(http.host, "a*", "${1}")', "decode_base64(http.host)",
        'remove_query_args(http.request.uri.query, "a")', "ip.geoip.country", "cf.zone.name"],
    "Integer": ["cf.threat_score", "len(http.host)", 'lookup_json_integer(http.host, "a")', "cf.bot_management.detection_ids[0]",
        'cf.llm.prompt.custom_topic_categories["a"]', "cf.waf.score", "ip.geoip.asnum"],
    "IP": ["ip.src", "cidr(ip.src, 24, 48)", "cidr6(ip.src, 64)", "cf.edge.server_ip"],
    "Boolean": ["ssl", 'starts_with(http.host, "a")', 'ends_with(http.host, "a")', 'has_key(http.request.headers, "a")',
        'has_value(http.request.headers.names, "a")', "cf.waf.auth_detected"],
    "each": ["http.request.headers.names[*]", 'http.request.headers["a"][*]', "http.request.headers[*][0]",
        "http.request.headers[*][*]",
        "lower(http.request.headers.names[*])[*]", "cf.bot_management.detection_ids[*]", "len(http.request.headers.names[*])[*]",
        "http.request.body.multipart.names[*][0]"],
    "whole": ["http.request.headers.names", "cf.bot_management.detection_ids", 'http.request.headers["a"]',
        "http.request.headers",
        'split(http.host, ".", 3)', "concat(http.request.headers.names, http.request.headers.names)"],
}  # fmt: skip
_LITERALS = [
    '"a"', 'r"a"', 'r#"a"#', '""', '"\\x41"', '"*"', '"**"', '"(?i)a"', "1", "-3", "0x1f", "017", "0", "9223372036854775807",
    "10.0.0.1",
    "::1", "10.0.0.0/8", "10.0.0.1..10.0.0.9", "::ffff:1.2.3.4", '{"a" "b"}', "{1 2..3}", "{10.0.0.0/8 ::1}", "{}", "{-3..5}",
    "61:62",
]  # fmt: skip
_COMPARISONS = [
    "eq", "==", "ne", "!=", "lt", "<", "le", "<=", "gt", ">", "ge", ">=", "contains", "matches", "~", "wildcard",
    "strict wildcard",
    "in", "&", "bitwise_and",
]  # fmt: skip
_JOINS = ["and", "or", "xor", "&&", "||", "^^"]
_TOKEN = re.compile(r'"[^"]*"|[A-Za-z_0-9.$:/]+|\s+|.', re.DOTALL)
_INSERTED = ["(", ")", " ", "\n", "[*]", "[0]", ",", "not ", '"a"', "{", "}", "&", "r"]


def _tests() -> st.SearchStrategy[str]:
    """Expressions that are right or nearly so, as text."""
    value = st.sampled_from([each for some in _VALUES.values() for each in some])
    right = st.one_of(st.sampled_from(_LITERALS), value)
    comparison = st.tuples(value, st.sampled_from(_COMPARISONS), right).map(" ".join)
    over = st.tuples(st.sampled_from(["any", "all"]), st.sampled_from(_VALUES["each"]), st.sampled_from(_COMPARISONS), right)
    quantified = over.map(lambda parts: f"{parts[0]}({' '.join(parts[1:])})")
    single = st.one_of(comparison, quantified, st.sampled_from(_VALUES["Boolean"]))
    return st.recursive(single, lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(_JOINS), inner).map(" ".join),
        st.tuples(st.sampled_from(["not ", "!", "not"]), inner).map("".join),
        inner.map("({})".format),
        inner.map("any(({}))".format),
    ), max_leaves=4)  # fmt: skip


@st.composite
def _damaged(draw: st.DrawFn) -> str:
    """One of these with up to two tokens dropped, doubled, exchanged or put in."""
    tokens = _TOKEN.findall(draw(_tests()))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(tokens) - 1))
        kind = draw(st.sampled_from(["drop", "swap", "insert", "glue"]))
        if kind == "insert":
            tokens.insert(at, draw(st.sampled_from(_INSERTED)))
        elif kind == "swap":
            other = draw(st.integers(0, len(tokens) - 1))
            tokens[at], tokens[other] = tokens[other], tokens[at]
        elif kind == "drop" and len(tokens) > 1:
            del tokens[at]
        elif kind == "glue":
            tokens = [each for each in tokens if not each.isspace()] or tokens
    return "".join(tokens)


# What ours takes or refuses alone, by decision (docs/decisions.md): the words of wirefilter's errors, and of ours.
_THEY_REFUSE = ("argument of kind Literal, but got Field", "invalid type of argument", "invalid number of arguments")
_WE_REFUSE = ("a prefix length is 0 to 32", "the separator is empty", "the limit is 1 to 128", "unknown function")


def _reasons(text: str) -> tuple[str, str]:
    """Why ours and why wirefilter refuses; empty: it does not."""
    try:
        parse(text, LISTS)
    except RuleError as error:
        ours = error.message
    else:
        ours = ""
    return ours, wirefilter.parse_expression(text).get("error", "")


def _both(text: str) -> tuple[bool, bool]:
    try:
        parse(text, LISTS)
    except RuleError:
        ours = False
    else:
        ours = True
    return ours, "error" not in wirefilter.parse_expression(text)


@settings(max_examples=300, deadline=None)
@given(trees())
def test_what_we_write_wirefilter_reads(tree: Test) -> None:
    text = show(tree)
    if len(text) <= MAX_LENGTH and not any(word in text for word in _OURS):
        assert _both(text) == (True, True), text


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.sampled_from(_PIECES), min_size=1, max_size=9).map("".join))
def test_both_accept_the_same(text: str) -> None:
    ours, theirs = _both(text)
    if text.strip():
        assert ours == theirs, text


@settings(max_examples=1500, deadline=None)
@given(_damaged())
def test_both_accept_the_same_of_what_is_nearly_right(text: str) -> None:
    ours, theirs = _reasons(text)
    if not text.strip() or any(each in ours for each in _WE_REFUSE) or any(each in theirs for each in _THEY_REFUSE):
        return
    assert bool(ours) == bool(theirs), f"{text}\nours: {ours}\nwirefilter: {theirs}"


@pytest.mark.parametrize("text", [
    'http.host eq "a\\x41\\101\\"\\\\"', "http.host eq 61", "http.host in {}", 'http.host strict  wildcard "a"',
    "cf.threat_score eq 08", "cf.threat_score eq 00",
    "cf.threat_score eq -0x5", "ip.src eq 01.2.3.4", "ip.src eq ::ffff:1.2.3.4", 'http.host matches "["]"',
    'http.request.headers[ "a" ][ 0 ] eq "b"',
    'http.request.headers ["a"][0] eq "b"', "http.host eq http.host", "http.host contains http.host",
    'lower ( http.host ) eq "a"', "notssl", "ssl AND ssl",
    'concat(http.host) eq "a"', "not not ssl", 'http.host eq "\\400"', "cf.threat_score in {1 .. 5}", 'http.host matches "[[]"',
    r'http.host matches "\d\."', "cf.threat_score & cf.threat_score", "cf.threat_score & -1", "cf.threat_score &&1",
    "ip.src gtip.src",
    "http.host eqhttp.host", 'http.host eqr"a"', "cf.threat_score gt1", "http.host eqab:cd", "http.host inx", "ip.src eqfe80::1",
    'http.host equals "a"', 'http.host eqq "a"', "cf.threat_score ltlen(http.host)", "cf.threat_score bitwise_and0",
])  # fmt: skip
def test_corners(text: str) -> None:
    ours, theirs = _both(text)
    assert ours == theirs
