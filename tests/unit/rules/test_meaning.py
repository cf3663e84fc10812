# What expressions mean, one by one: operators, functions, missing values, both truth values.
"""compiler.py, sources.py and functions.py through the language itself."""

from __future__ import annotations

import base64
import hmac
from urllib.parse import quote

import pytest
from support.rules import CONTAINERS, LISTS, facts

from edgeproxy.rules.compiler import compile_test, compile_value
from edgeproxy.rules.errors import RuleError
from edgeproxy.rules.parser import parse, parse_value

_MAC = base64.b64encode(hmac.digest(b"key", b"/a1749999990", "sha256"))


def holds(text: str, **request: object) -> bool:
    return bool(compile_test(parse(text, LISTS), CONTAINERS)(facts(**request)))  # type: ignore[arg-type]


def value(text: str, **request: object) -> object:
    return compile_value(parse_value(text, LISTS), CONTAINERS)(facts(**request))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [
    'http.host eq "example.org"', 'http.request.uri eq "/Path/to.PHP?a=1&b=2&a=x"', 'http.request.uri.path eq "/Path/to.PHP"',
    'http.request.uri.query eq "a=1&b=2&a=x"', 'http.request.uri.path.extension eq "php"', 'http.request.version eq "HTTP/2"',
    'http.request.full_uri eq "https://example.org/Path/to.PHP?a=1&b=2&a=x"', 'http.request.method in {"GET" "HEAD"}', "ssl",
    'raw.http.request.uri.path eq "/Path/to.PHP"', 'http.cookie contains "c=d"', 'http.request.cookies["a"][1] eq "e"',
    'http.request.uri.args["a"][1] eq "x"', 'any(http.request.uri.args.names[*] eq "b")', 'http.referer eq ""',
    'http.request.headers["x-a"][1] eq "two"', 'any(http.request.headers["host"][*] eq "example.org")',
    'http.request.accepted_languages[0] eq "en-GB"', 'http.request.accepted_languages[2] eq "de"', "cf.threat_score eq 0",
    "http.request.timestamp.sec eq 1750000000", "http.request.timestamp.msec eq 250", 'cf.ray_id eq "0123456789abcdef"',
    "ip.src eq 203.0.113.7", "ip.src in $nets", "ip.src in {203.0.113.0/24}", "ip.src lt ::1", "ip.src gt 10.0.0.0",
    "not ip.src in {10.0.0.0/8 ::/0}", 'http.host wildcard "EXAMPLE.*"', 'http.host strict wildcard "*.org"',
    'not http.host strict wildcard "*.ORG"', 'http.request.uri.path wildcard "/p*.p*"', 'http.host matches "^ex.*g$"',
    'http.user_agent matches "sqlmap|nikto"', 'http.user_agent ~ r"(?i)SQLMAP/\\d"', "cf.threat_score & 1 or ssl",
    "len(http.host) & 8", "len(http.host) & len(http.request.uri.path)",
    'any(len(http.request.headers["x-a"][*])[*] & len(http.host))',
    "http.host eqhttp.host", "len(http.host) gt1", 'http.host containsr"example"',
    'cf.worker.upstream_zone in {"" "example.org"}',
    "len(http.request.headers.names) eq 7", 'len(http.request.headers["x-a"]) eq 2', 'any(len(http.request.headers[*])[*] eq 2)',
    "ssl xor cf.client.bot",
    'all(http.request.headers["none"][*] eq "x")', 'not any(http.request.headers["none"][*] ne "x")',
    'any(not http.request.headers["x-a"][*] eq "1")', 'all(http.request.headers["x-a"][*] in {"1" "two"})',
    'any(lower(http.request.headers[*][0])[*] contains "sqlmap")', 'any(split(http.host, ".", 2)[*] eq "org")',
    'any(split(http.request.headers["x-a"][1], "w", 2)[*] eq "o")', "len(http.host) eq 11",
    "has_key(http.request.headers, \"accept\")",
    'has_value(http.request.headers.names, "accept")', 'cidr(ip.src, 24, 48) eq 203.0.113.0', "cidr6(ip.src, 48) eq 203.0.113.7",
    'starts_with(http.request.uri.path, "/P") and ends_with(http.host, ".org")', "true", "not false",
    'http.host gt "e" and http.host le "f"',
])  # fmt: skip
def test_holds(text: str) -> None:
    assert holds(text)
    assert not holds(f"not ({text})")


@pytest.mark.parametrize("missing", [
    "cf.bot_management.score", "ip.src.asnum", "len(http.request.headers[\"none\"][0])", 'lookup_json_integer(http.cookie, "a")',
])  # fmt: skip
def test_a_comparison_on_a_missing_number_is_false(missing: str) -> None:
    for test in ("eq 0", "ne 0", "lt 9", "le 9", "gt -9", "ge -9", "in {0}", "in $numbers", "& 1", "eq cf.threat_score"):
        assert not holds(f"{missing} {test}")
        assert holds(f"not {missing} {test}")
    assert not holds(f"cf.threat_score ne {missing}")


@pytest.mark.parametrize("missing", [
    "ip.src.country", 'http.request.headers["none"][0]', "http.request.headers[\"x-a\"][9]", "lower(cf.tls_version)",
    'http.request.jwt.claims.aud["a"][0]', 'decode_base64(http.host)', "substring(cf.tls_cipher, 0, 1)",
])  # fmt: skip
def test_a_comparison_on_a_missing_string_is_false(missing: str) -> None:
    tests = ['eq ""', 'ne ""', 'lt "z"', 'contains ""', 'matches ""', 'wildcard "*"', 'strict wildcard "*"', 'in {""}',
        "ne http.host"]
    for test in tests:
        assert not holds(f"{missing} {test}")
    assert not holds(f'starts_with({missing}, "")')


def test_missing_addresses_and_booleans() -> None:
    for test in ("eq ::1", "ne ::1", "lt ::1", "in {0.0.0.0/0 ::/0}", "in $nets"):
        assert not holds(f"ip.src {test}", client="")
    assert not holds("cf.client.bot")
    assert holds("ip.src in {192.0.2.0/24}", client="::ffff:192.0.2.1")


@pytest.mark.parametrize(("text", "expected"), [
    ('concat("https://", http.host, http.request.uri.path)', b"https://example.org/Path/to.PHP"),
    ("upper(http.host)", b"EXAMPLE.ORG"),
    ('concat(ip.src.country, http.host)', b"example.org"), ("substring(http.host, 8)", b"org"),
    ("substring(http.host, 0, -4)", b"example"),
    ('join(http.request.headers["x-a"], "-")', b"1-two"), ("to_string(ip.src)", b"203.0.113.7"), ("to_string(ssl)", b"true"),
    ("to_string(cf.threat_score)", b"0"), ('remove_bytes(http.host, "\\x2e\\x65")', b"xamplorg"),
    ('remove_query_args(http.request.uri.query, "a")', b"b=2"),
    ('regex_replace(http.host, r"^(\\w+)\\.(\\w+)$", "${2}.${1}$$")', b"org.example$"),
    ('regex_replace(http.host, "nothing", "x")', b"example.org"),
    ("wildcard_replace(http.request.uri.path, \"/*/*\", \"/${2}/${1}\")", b"/to.PHP/Path"),
    ("wildcard_replace(http.host, \"EXAMPLE.*\", \"${1}\", \"s\")", b"example.org"),
    ("wildcard_replace(http.request.headers[\"x-a\"][0], \"*\", \"<${1}>\", \"s\")", b"<1>"),
    ("wildcard_replace(http.request.headers[\"none\"][0], \"*\", \"<${1}>\", \"s\")", None),
    ('url_decode(http.request.headers["u"][0])', b"a b%20c"),
    ('url_decode(http.request.headers["u"][0], "r")', b"a b c"), ('decode_base64(http.request.headers["b"][0])', b"hello"),
    ('lookup_json_string(http.request.headers["j"][0], "a", 1)', b"x"),
    ('lookup_json_string(http.request.headers["j"][0], "a", 0)', None),
    ("encode_base64(http.host)", b"ZXhhbXBsZS5vcmc"), ('encode_base64(http.host, "p")', b"ZXhhbXBsZS5vcmc="),
    ('encode_base64("hello world")', b"aGVsbG8gd29ybGQ"), ('encode_base64("hello world", "p")', b"aGVsbG8gd29ybGQ="),
    (r'encode_base64("\xff\xfe", "up")', b"__4="), (r'encode_base64("\xff\xfe", "")', b"//4"),
    ("encode_base64(cf.tls_version)", None), ('encode_base64(sha256("abc"))', b"ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0"),
    ("sha256(cf.tls_version)", None), ("lower(ip.src.city)", None),
])  # fmt: skip
def test_functions(text: str, expected: object) -> None:
    headers = [(b"x-a", b"1"), (b"x-a", b"two"), (b"u", b"a+b%2520c"), (b"b", b"aGVsbG8"), (b"j", b'{"a": [7, "x"]}')]
    assert value(text, headers=headers) == expected


@pytest.mark.parametrize("text", [
    "cf.threat_score & len(http.host)", "len(http.host) & cf.bot_management.score", "cf.bot_management.score & len(http.host)",
    'len(http.request.headers["none"]) eq 0', 'len(http.request.headers["none"]) ne 0',
    "len(cf.bot_management.detection_ids) ge 0",
    "len(http.request.body.multipart.names) ge 0", 'any(http.request.body.multipart.names[*][0] eq "a")',
    'cf.llm.prompt.custom_topic_categories["a"] lt 30', "any(cf.bot_management.detection_ids[*] & cf.threat_score)",
])  # fmt: skip
def test_what_is_missing_makes_it_false(text: str) -> None:
    assert not holds(text)
    assert holds(f"not ({text})")


@pytest.mark.parametrize(("text", "says"), [
    ('encode_base64(http.host, "x") eq "a"', "the flags are"), ("len(http.request.headers) eq 1", "takes String or Array"),
    ('len("a") eq 1', "not on a literal"), ("http.host & 1", "does not work on String"), ('sha256(ssl) eq "a"', "takes String"),
    ("cf.threat_score & http.host", "is compared with String"), ("cf.threat_score & cf.bot_management.detection_ids[*]",
    "each of"),
    ('http.host equals "a"', "expected an operator"), ('http.host eqq "a"', "'eqq' is not an operator"),
    ("cf.response.1xxx_code eq 1", "response phase only"),
])  # fmt: skip
def test_errors(text: str, says: str) -> None:
    with pytest.raises(RuleError) as error:
        parse(text, LISTS)
    assert says in error.value.message


def test_json_numbers_are_no_booleans() -> None:
    headers = [(b"j", b'{"n": 5, "t": true}')]
    assert holds('lookup_json_integer(http.request.headers["j"][0], "n") eq 5', headers=headers)
    assert not holds('lookup_json_integer(http.request.headers["j"][0], "t") eq 1', headers=headers)


@pytest.mark.parametrize(("now", "mac", "valid"), [
    (1749999995.0, _MAC, True), (1750000091.0, _MAC, False), (1749999980.0, _MAC, False), (1749999995.0, b"AAAA", False),
    (1749999995.0, b"", False),
])  # fmt: skip
def test_timed_hmac(now: float, mac: bytes, valid: bool) -> None:
    target = b"/a?verify=1749999990-" + quote(mac, safe="").encode()
    text = 'is_timed_hmac_valid_v0("key", http.request.uri, 100, http.request.timestamp.sec, 8)'
    assert holds(text, target=target, now=now) is valid


def test_each_field_is_computed_once() -> None:
    given = facts()
    assert given.http_request_headers is given.http_request_headers
    assert given.cf_random_seed == given.cf_random_seed and len(given.cf_random_seed) == 32
    with pytest.raises(AttributeError):
        _ = given.no_such_slot


def test_uuids_follow_from_their_seed() -> None:
    text = "uuidv4(cf.random_seed)"
    first, second = value(text), value(text)
    assert isinstance(first, bytes) and len(first) == 36 and first[14:15] == b"4" and first != second
