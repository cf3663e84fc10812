# Parts of an expression with their values, and what is kept quiet.
from __future__ import annotations

from typing import Any

import pytest
from support.rules import CONTAINERS, LISTS, facts

from edgeproxy.explaining.answer import Node
from edgeproxy.explaining.trace import MAX_ITEMS, MAX_TEXT, Sheet, Veil, clean, shown, trace
from edgeproxy.rules.parser import parse

SECRETS: Any = [
    (b"authorization", b"Bearer sk-very"), (b"cookie", b"sid=very; b=very"), (b"x-api-key", b"very"), (b"api-key", b"very"),
    (b"proxy-authorization", b"very"), (b"x-a", b"1"), (b"x-a", b"two"), (b"user-agent", b"curl/8.5"),
]  # fmt: skip


def traced(text: str, *, show: bool = False) -> Node:
    return trace(parse(text, LISTS), facts(headers=SECRETS), CONTAINERS, Veil(show))


def values(node: Node) -> dict[str, str]:
    found = {each.name: each.value for each in node.values}
    for part in node.parts:
        found |= values(part)
    return found


def test_a_tree_with_values() -> None:
    node = traced('lower(http.user_agent) contains "sqlmap" or not (ip.src in $nets and cf.tls_version eq "x")')
    assert (node.join, node.answer, node.values) == ("or", True, [])
    agent, negation = node.parts
    assert (agent.text, agent.answer) == ('lower(http.user_agent) contains "sqlmap"', False)
    assert values(agent) == {"lower(http.user_agent)": '"curl/8.5"', "http.user_agent": '"curl/8.5"'}
    assert (negation.join, negation.answer, negation.parts[0].join) == ("not", True, "and")
    assert values(negation) == {"ip.src": "203.0.113.7", "cf.tls_version": "missing"}
    assert [part.answer for part in negation.parts[0].parts] == [True, False]


def test_fields_that_the_edge_does_not_know_are_missing() -> None:
    node = traced('ip.geoip.country eq "DE" or cf.waf.score lt 20 or len(http.user_agent) & cf.bot_management.score')
    assert node.answer is False
    assert values(node) == {
        "ip.geoip.country": "missing", "cf.waf.score": "missing", "cf.bot_management.score": "missing",
        "len(http.user_agent)": "8", "http.user_agent": '"curl/8.5"',
    }  # fmt: skip


def test_elements_have_their_own_answers() -> None:
    node = traced('any((http.request.headers["x-a"][*] eq "1" and http.request.headers["x-a"][*] ne "3"))')
    assert (node.join, node.answer, node.parts[0].answer) == ("any", True, [True, False])
    assert [part.answer for part in node.parts[0].parts] == [[True, False], [True, True]]
    assert values(node) == {'http.request.headers["x-a"][*]': '["1", "two"]'}
    mapped = traced('all(lower(http.request.headers.names[*])[*] contains "a")')
    assert mapped.parts[0].answer is not None and len(mapped.parts[0].answer) == len(SECRETS) + 1  # type: ignore[arg-type]


def test_a_value_is_not_said_twice() -> None:
    assert traced("ssl").values == []
    assert values(traced('starts_with(http.user_agent, "curl")')) == {"http.user_agent": '"curl/8.5"'}


def test_what_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgeproxy.rules.facts import Facts

    monkeypatch.setattr(Facts, "http_user_agent", property(lambda _self: 1 // 0), raising=False)
    node = trace(parse('http.user_agent eq "x" or ssl', LISTS), facts(), CONTAINERS, Veil(False))
    assert node.parts[1].answer is True
    assert node.parts[0].error.startswith("ZeroDivisionError") and node.parts[0].answer is None
    assert "failed" in node.parts[0].values[0].value


@pytest.mark.parametrize("text", [
    'http.cookie contains "x"', 'lower(http.cookie) contains "x"', 'any(http.request.cookies["sid"][*] eq "x")',
    'any(http.request.headers["authorization"][*] eq "x")', 'http.request.headers["x-api-key"][0] eq "x"',
    'http.request.headers["api-key"][0] eq "x"', 'http.request.headers["proxy-authorization"][0] eq "x"',
    'any(http.request.headers.values[*] eq "x")', 'any(http.request.headers[*][*] eq "x")',
    'substring(http.request.headers["authorization"][0], 7) eq "x"', 'any(lower(http.request.headers.values[*])[*] eq "x")',
    'any(http.request.headers[*][0] eq "x")', 'len(concat("a", http.cookie)) gt 500',
])  # fmt: skip
def test_credentials_are_hidden_and_can_be_shown(text: str) -> None:
    hidden = values(traced(text))
    assert "very" not in str(hidden) and "hidden" in str(hidden)
    assert "very" in str(values(traced(text, show=True)))


def test_a_whole_map_of_headers_hides_only_what_is_secret() -> None:
    from edgeproxy.explaining.trace import value_of
    from edgeproxy.rules.fields import FIELDS
    from edgeproxy.rules.syntax import Field

    field = Field("http.request.headers", FIELDS["http.request.headers"].type)
    said = value_of(field, facts(headers=SECRETS), CONTAINERS, Veil(False)).value
    assert '"x-a": ["1", "two"]' in said and '"x-api-key": [<hidden, 4 bytes>]' in said and "very" not in said


def test_numbers_about_credentials_are_not_hidden() -> None:
    assert values(traced("len(http.cookie) gt 500"))["len(http.cookie)"] == "16"


def test_values_are_bounded_and_move_no_cursor() -> None:
    assert shown(b"x" * 1000) == '"' + "x" * MAX_TEXT + '"…'
    assert shown([b"x"] * 20).endswith(f"… {20 - MAX_ITEMS} more]")
    assert shown({b"a": [b"1"], b"\x1b": []}) == '{"a": ["1"], "\\x1b": []}'
    assert (shown(None), shown(False), shown(7), shown(0x0A000001, address=True)) == ("missing", "false", "7", "10.0.0.1")
    assert clean("a\x1b[2Jé\n".encode() + b"\xff") == "a\\x1b[2Jé\\x0a\ufffd"


@pytest.mark.parametrize("text", [
    'is_timed_hmac_valid_v0("HUSH", http.request.uri, 100, http.request.timestamp.sec, 8)',
    'is_timed_hmac_valid_v0(concat("HUSH", http.host), http.request.uri, 100, http.request.timestamp.sec, 8)',
    'http.request.headers["x-api-key"][0] eq "HUSH"', 'any(http.request.headers["x-api-key"][*] in {"HUSH" "b"})',
    'http.request.headers["authorization"][0] contains "HUSH"', 'http.cookie matches "sid=HUSH"',
    'any(http.request.cookies["sid"][*] wildcard "HUSH*")', 'starts_with(http.request.headers["x-jwt"][0], "a HUSH")',
    'http.request.headers["x-origin-verify"][0] ne "HUSH"', 'any(http.request.headers.values[*] eq "HUSH")',
    'concat("HUSH", http.host) eq http.request.headers["x-token"][0]',
    'not (ssl and http.request.uri.args["token"][0] eq "HUSH")',
    'raw.http.request.headers["x-jwt"][0] eq "HUSH"', 'any(http.request.headers[*][*] in {"HUSH"})',
])  # fmt: skip
def test_secrets_that_a_rule_names_are_hidden(text: str) -> None:
    hidden = str(traced(text))
    assert "HUSH" not in hidden and "<hidden" in hidden
    assert "HUSH" in str(traced(text, show=True))


def test_what_is_no_secret_in_a_rule_is_shown() -> None:
    for text in ('http.request.headers["x-tenant"][0] eq "acme"', 'any(http.request.headers.values[*] contains "acme")',
                 'http.request.uri.args["q"][0] eq "acme"', 'len(http.cookie) gt 500 or http.host eq "acme"'):  # fmt: skip
        assert "acme" in traced(text).text


def test_a_sheet_answers_for_many_requests() -> None:
    sheet = Sheet(parse('http.request.uri.path eq "/a" and lower(http.host) contains "example"', LISTS), CONTAINERS, Veil(False))
    assert [sheet.ask(facts(path)).answer for path in (b"/a", b"/b", b"/a")] == [True, False, True]
    assert sheet.ask(facts(b"/c")).parts[0].values[0].value == '"/c"'
