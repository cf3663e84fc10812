# What is accepted and what is refused, with the message, the place and the suggestion.
"""parser.py, operands.py and lexer.py."""

from __future__ import annotations

import pytest
from support.rules import LISTS

from edgeproxy.rules.errors import RuleError
from edgeproxy.rules.parser import parse, parse_value
from edgeproxy.rules.syntax import show


@pytest.mark.parametrize(("text", "shown"), [
    ('http.host eq "a"', 'http.host eq "a"'), ('http.host=="a"&&ssl', 'http.host eq "a" and ssl'),
    ('http.host eq r#"a"b\\"#', 'http.host eq "a\\"b\\\\"'), ('http.host eq "\\x41\\102\\"\\\\"', 'http.host eq "AB\\"\\\\"'),
    ("http.host eq 61:62:63", 'http.host eq "abc"'), ("http.host contains 61-62", 'http.host contains "ab"'),
    ("cf.threat_score in {1..5 0x10 010 -3}", "cf.threat_score in {1..5 16 8 -3}"),
    ("cf.threat_score & 4", "cf.threat_score & 4"),
    ("ip.src in {10.0.0.0/8 ::1 192.0.2.1..192.0.2.5}", "ip.src in {10.0.0.0/8 ::1 192.0.2.1..192.0.2.5}"),
    ("ip.src in $nets", "ip.src in $nets"), ("not ssl or ssl and ssl xor ssl", "not ssl or ssl and ssl xor ssl"),
    ("!(ssl||ssl)", "not (ssl or ssl)"), ("(ssl or ssl) and ssl", "(ssl or ssl) and ssl"), ("notssl", "not ssl"),
    ("true", "true"),
    ('any(http.request.headers["a"][*]~"x")', 'any(http.request.headers["a"][*] matches r"x")'),
    ('http.host strict wildcard "*.Org"', 'http.host strict wildcard "*.Org"'),
    ('http.host matches "[\\"]"', 'http.host matches r#"[\\"]"#'),
    ('any((http.request.headers.names[*] eq "a" or http.request.headers.values[*] eq "b"))',
     'any((http.request.headers.names[*] eq "a" or http.request.headers.values[*] eq "b"))'),
    ("http.host ne http.referer", "http.host ne http.referer"),
    ("len(http.host) gt cf.threat_score", "len(http.host) gt cf.threat_score"),
    ("any(starts_with(http.request.uri.args.values[*], \"a\"))", 'any(starts_with(http.request.uri.args.values[*], "a"))'),
    (" \n\tssl\r\n", "ssl"), ('http.host in {"a""b" r"c"}', 'http.host in {"a" "b" "c"}'), ("http.host in {}", "http.host in {}"),
    ('cidr(ip.src, 24, 48) eq 192.0.2.0', "cidr(ip.src, 24, 48) eq 192.0.2.0"),
    ('lookup_json_string(http.cookie, "a", 0) eq "x"', 'lookup_json_string(http.cookie, "a", 0) eq "x"'),
])  # fmt: skip
def test_accepted(text: str, shown: str) -> None:
    assert show(parse(text, LISTS)) == shown


@pytest.mark.parametrize(("text", "offset", "words"), [
    ("ip.scr eq 1.2.3.4", 0, "unknown field 'ip.scr'|did you mean 'ip.src'?"),
    ("lowr(http.host) eq \"a\"", 0, "unknown function|'lower'"),
    ("http.host eqq \"a\"", 10, "'eqq' is not an operator|'eq'"), ("http.host = \"a\"", 10, "write eq or =="),
    ("http.host eq", 12, "expected a string in quotes, not the end"), ("http.host eq 5", 13, "expected a string"),
    ("http.host eq \"a", 13, "closing quote"), ('http.host eq "a\\n"', 15, "not an escape"),
    ("cf.threat_score eq 08", 19, "not a number"),
    ("cf.threat_score eq 99999999999999999999", 19, "64 bits"), ("cf.threat_score in {5..1}", 20, "ends before"),
    ("ip.src in {10.0.0.1/8}", 11, "'10.0.0.0/8' is the network"), ("ip.src in {1.2.3.4..::1}", 11, "one family"),
    ("ip.src eq 10.0.0.0/8", 10, "more than one address|write: in {10.0.0.0/8}"), ("ip.src in {1.2.3.256}", 11, "not an IP"),
    ("ip.src in $net", 10, "unknown list '$net'|'nets'"), ("ip.src in $words", 10, "items of type String, not IP"),
    ("ip.src contains \"a\"", 7, "'contains' does not work on IP"),
    ("http.request.headers eq \"a\"", 21, "does not work on Map|[\"name\"]"),
    ("http.request.headers[0] eq \"a\"", 20, "no numbered elements|by a name"), ("http.host[0] eq \"a\"", 9, "no numbered"),
    ("http.request.headers.names[-1] eq \"a\"", 26, "counts from 0"),
    ("http.request.headers.names[*] eq \"a\"", 0, "wrap it: any("),
    ("any(ssl)", 4, "needs one answer for each"), ("any(http.request.headers.names[*] eq \"a\" or ssl)", 41, "brackets"),
    ("ssl eq true", 4, "a Boolean stands alone"), ("ssl)", 3, "nothing opened"), ("(ssl", 4, "close the bracket"),
    ("ssl ssl", 4, "expected 'and'"),
    ("", 0, "always holds is: true"), ('http.host in {"a","b"}', 17, "not commas"), ("\"a\" eq http.host", 0, "swap the sides"),
    ("lower(\"A\") eq \"a\"", 6, "not on a literal"), ("substring(http.host) eq \"a\"", 19, "2 to 3 arguments"),
    ("len(http.host, http.host) eq 1", 15, "takes 1 argument"),
    ("concat(http.host, cf.threat_score) eq \"a\"", 18, "takes String"),
    ("split(http.host, \".\", 200)[0] eq \"a\"", 22, "1 to 128"), ("http.host wildcard \"a**\"", 19, "two stars"),
    ("http.host matches \"[a&&b]\"", 21, "operation on sets"), ("http.host matches r\"a{x}\"", 21, "repeats nothing"),
    ("http.response.code eq 200", 0, "in the response phase only|set phase: response"),
    ("http.host eq ip.src", 13, "is compared with IP"),
    ("concat(\"x\", http.request.headers.names[*])[0] eq \"a\"", 12, "only the first"),
    ("any(http.request.headers.names[*])", 33, "expected an operator"), ("x" * 4097, 4096, "at most 4096"),
])  # fmt: skip
def test_refused(text: str, offset: int, words: str) -> None:
    with pytest.raises(RuleError) as caught:
        parse(text, LISTS)
    error = caught.value
    said = f"{error.message} {error.hint}"
    assert all(word in said for word in words.split("|")), said
    assert error.offset == offset, said


def test_what_is_known_of_a_reply_is_for_the_response_phase() -> None:
    text = 'http.response.code eq 200 and raw.http.response.headers["a"][0] eq http.host'
    assert show(parse(text, LISTS, "response")) == text
    for name in ("http.response.headers.names[0]", "raw.http.response.headers.values[0]"):
        assert parse_value(name, {}, "response").type.kind.value == "String"
        with pytest.raises(RuleError, match="in the response phase only"):
            parse_value(name, {})


def test_values() -> None:
    assert parse_value('concat("https://", http.host)', {}).type.kind.value == "String"
    for text in ("ip.src", "http.request.headers.names[*]", "ssl", '"a"', "http.host eq", ""):
        with pytest.raises(RuleError):
            parse_value(text, {})
