# wirefilter's own parser decides what the language is: both accept the same expressions, but for what is listed here.
"""parser.py against the package octorules-wirefilter (development only)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.rules import LISTS, trees

from edgeproxy.rules.errors import RuleError
from edgeproxy.rules.parser import MAX_LENGTH, parse
from edgeproxy.rules.syntax import Test, show

wirefilter = pytest.importorskip("octorules_wirefilter", reason="octorules-wirefilter has no wheel for this platform")

# Words of ours that wirefilter does not have (parser.py), and functions whose arity its copy of the reference differs in.
_OURS = ("true", "false", "to_string", "substring", "\t")
_PIECES = [
    "http.host", "ip.src", "ssl", "cf.threat_score", "http.request.headers.names", 'http.request.headers["a"]', "[*]", "[0]",
    "any(", "all(", "(", ")",
    " eq ", " ne ", " in ", " contains ", " matches ", " wildcard ", " and ", " or ", " xor ", "not ", "!", "&&", "||", "^^",
    '"a"', 'r"a"', '"*a"', "1",
    "0x1f", "-3", "{1 2..3}", '{"a" "b"}', "{10.0.0.0/8 ::1}", "10.0.0.1", "lower(", "len(", "concat(", ", ", " & ", " ", "5..6",
]  # fmt: skip


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


@pytest.mark.parametrize("text", [
    'http.host eq "a\\x41\\101\\"\\\\"', "http.host eq 61", "http.host in {}", 'http.host strict  wildcard "a"',
    "cf.threat_score eq 08", "cf.threat_score eq 00",
    "cf.threat_score eq -0x5", "ip.src eq 01.2.3.4", "ip.src eq ::ffff:1.2.3.4", 'http.host matches "["]"',
    'http.request.headers[ "a" ][ 0 ] eq "b"',
    'http.request.headers ["a"][0] eq "b"', "http.host eq http.host", "http.host contains http.host",
    'lower ( http.host ) eq "a"', "notssl", "ssl AND ssl",
    'concat(http.host) eq "a"', "not not ssl", 'http.host eq "\\400"', "cf.threat_score in {1 .. 5}", 'http.host matches "[[]"',
    r'http.host matches "\d\."',
])  # fmt: skip
def test_corners(text: str) -> None:
    ours, theirs = _both(text)
    assert ours == theirs
