# What the pipeline tells facts of: the original request, the body that is held, the route, the reply.
"""facts.py, body.py and the contract in fields.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rules import facts

from edgeproxy.message import Headers, Reply, Request
from edgeproxy.rules.body import MAX_PAIRS, HeldBody, must_hold, pairs
from edgeproxy.rules.compiler import compile_test
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.fields import FIELDS, Phase
from edgeproxy.rules.parser import parse

FORM = [(b"content-type", b"Application/X-WWW-Form-Urlencoded; charset=utf-8")]


def holds(text: str, given: Facts) -> bool:
    phase: Phase = "response" if "http.response" in text else "request"
    return bool(compile_test(parse(text, {}, phase), {})(given))


def posted(headers: Headers, body: HeldBody | None = None, length: int | None = None) -> Facts:
    made = facts(method=b"POST", headers=headers)
    made.request.length = length
    if body is not None:
        made.body = body
    return made


# -- the contract ----------------------------------------------------------------------------------------------------


def test_what_needs_the_body() -> None:
    assert {name for name, info in FIELDS.items() if info.needs_body} == {
        "http.request.body.raw", "http.request.body.size", "http.request.body.truncated", "http.request.body.form",
        "http.request.body.form.names", "http.request.body.form.values", "edge.model",
    }  # fmt: skip
    assert not any(info.stable or info.always for info in FIELDS.values() if info.needs_body)
    assert FIELDS["http.request.body.mime"].stable


@pytest.mark.parametrize(("length", "raw", "size"), [(None, True, True), (5, True, False), (0, False, False)])
def test_of_which_requests_the_body_must_be_held(length: int | None, raw: bool, size: bool) -> None:
    request = posted([], length=length).request
    assert must_hold(FIELDS["http.request.body.raw"], request) is raw
    assert must_hold(FIELDS["http.request.body.size"], request) is size
    assert not must_hold(FIELDS["http.request.body.mime"], request)
    assert not must_hold(FIELDS["http.host"], request)


def test_response_fields_are_never_stable() -> None:
    response = {name for name, info in FIELDS.items() if info.phase == "response"}
    assert response == {name for name in FIELDS if name.startswith(("cf.response.", "http.response.", "raw.http.response."))}
    assert not any(FIELDS[name].stable or FIELDS[name].always for name in response)


# -- Cloudflare's small print ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "extension"), [
    (b"/foo", b""), (b"/foo.mp3", b"mp3"), (b"/.mp3", b""), (b"/.foo.mp3", b"mp3"), (b"/foo.tar.bz2", b"bz2"), (b"/foo.", b""),
    (b"/foo.MP3?a=b.c", b"mp3"), (b"/a.b/c", b""), (b"/a.b/", b""), (b"/", b""), (b"/a.b%20c", b"b%20c"),
])  # fmt: skip
def test_extensions(path: bytes, extension: bytes) -> None:
    assert facts(path).http_request_uri_path_extension == extension
    assert facts(path).raw_http_request_uri_path_extension == extension


def test_an_extension_that_is_not_there_is_empty() -> None:
    assert holds('http.request.uri.path.extension eq "" and http.request.uri.path.extension ne "php"', facts(b"/"))
    assert not holds('http.request.uri.path.extension in {"php" "asp"}', facts(b"/"))


def test_names_of_cookies_are_decoded_and_their_values_are_not() -> None:
    made = facts(headers=[(b"cookie", b"a%20b=%41; c=1; a b=2; %63=3; +=4; %zz=5")])
    assert made.http_request_cookies == {b"a b": [b"%41", b"2"], b"c": [b"1", b"3"], b"+": [b"4"], b"%zz": [b"5"]}
    assert facts(headers=[]).http_request_cookies == {}


@pytest.mark.parametrize(("header", "languages"), [
    (b"fr-CH, fr;q=0.8, en;q=0.9, de;q=0.7, *;q=0.5", [b"fr-CH", b"en", b"fr", b"de"]), (b"*", []), (b"", []), (b",,", []),
])  # fmt: skip
def test_languages(header: bytes, languages: list[bytes]) -> None:
    assert facts(headers=[(b"accept-language", header)]).http_request_accepted_languages == languages


def test_the_time_is_one_moment() -> None:
    made = facts(now=1_750_000_000.9996)
    ticks = iter([1_750_000_000.9996, 1_750_000_001.5])
    made.clock = lambda: next(ticks)
    assert (made.http_request_timestamp_msec, made.http_request_timestamp_sec) == (999, 1_750_000_000)


# -- the original request --------------------------------------------------------------------------------------------


def test_raw_is_the_request_as_it_came() -> None:
    made = facts(b"/old.php?a=1")
    before = made.request
    assert made.raw_http_request_uri is made.http_request_uri
    after = Request(before.method, before.authority, b"/new?b=2", [(b"x-new", b"1")], 0, before.protocol, before.peer)
    rewritten = Facts(after, made.host, made.client, made.ray, made.clock)
    rewritten.original = before
    assert holds('http.request.uri eq "/new?b=2" and raw.http.request.uri eq "/old.php?a=1"', rewritten)
    assert holds('http.request.uri.path.extension eq "php"', made)
    assert not holds('http.request.uri.path.extension eq "php"', rewritten)
    assert holds('raw.http.request.uri.path.extension eq "php"', rewritten)
    assert holds('raw.http.request.uri.args["a"][0] eq "1" and not has_key(raw.http.request.uri.args, "b")', rewritten)
    assert holds('raw.http.request.headers["x-a"][1] eq "two" and not has_key(http.request.headers, "x-a")', rewritten)
    assert holds('any(http.request.headers.names[*] eq "x-new")', rewritten)
    assert not holds('any(raw.http.request.headers.names[*] eq "x-new")', rewritten)
    assert holds('raw.http.request.full_uri eq "https://example.org/old.php?a=1"', rewritten)


# -- the route -------------------------------------------------------------------------------------------------------


def test_dialect() -> None:
    assert FIELDS["edge.route.dialect"].stable
    made = facts()
    assert not holds('edge.route.dialect ne "openai"', made)
    made = facts()
    made.dialect = "openai"
    assert holds('edge.route.dialect eq "openai"', made)
    assert not holds('edge.route.dialect eq "anthropic"', made)


# -- the reply -------------------------------------------------------------------------------------------------------


def test_replies() -> None:
    made = facts()
    assert not holds("http.response.code ne 200", made)
    assert not holds('http.response.content_type.media_type ne ""', made)
    headers = [(b"content-type", b"Text/HTML; charset=utf-8"), (b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3")]
    made.reply = Reply(503, headers, None)
    assert holds("http.response.code ge 500", made)
    assert not holds("http.response.code eq 200", made)
    assert holds('http.response.content_type.media_type eq "text/html"', made)
    assert holds('http.response.headers["x-a"][1] eq "3"', made)
    assert made.http_response_headers_names == [b"content-type", b"x-a", b"x-b", b"x-a"]
    assert made.http_response_headers_values[1:] == [b"1", b"2", b"3"]
    assert made.raw_http_response_headers == made.http_response_headers
    made = facts()
    made.reply, made.original_reply = Reply(200, [], None), Reply(200, [(b"server", b"x")], None)
    assert holds('has_key(raw.http.response.headers, "server") and not has_key(http.response.headers, "server")', made)
    assert not holds('http.response.content_type.media_type ne ""', made)


# -- the body --------------------------------------------------------------------------------------------------------


def test_a_body_that_nobody_held_is_missing() -> None:
    made = posted(FORM)
    for name in ("raw", "form.names[0]", "form.values[0]", 'form["a"][0]'):
        assert not holds(f'http.request.body.{name} ne "a"', made)
    assert not holds("http.request.body.truncated or http.request.body.size ge 0", made)
    made.body = HeldBody(b"a=1", False)  # that they were missing was not kept
    assert holds('http.request.body.raw eq "a=1" and lower(http.request.body.raw) contains "a="', made)
    assert holds('http.request.body.form["a"][0] eq "1" and http.request.body.size eq 3', made)
    assert not holds("http.request.body.truncated", made)


def test_a_request_without_a_body_has_an_empty_one() -> None:
    made = posted(FORM, length=0)
    assert holds('http.request.body.raw eq "" and http.request.body.size eq 0 and not http.request.body.truncated', made)
    assert (made.http_request_body_truncated, made.http_request_body_form) == (False, {})


@pytest.mark.parametrize(("length", "truncated", "size"), [(10, False, 10), (10, True, 10), (None, False, 3), (None, True, 4)])
def test_size(length: int | None, truncated: bool, size: int | None) -> None:
    made = posted([], HeldBody(b"abc", truncated), length)
    assert made.http_request_body_size == size, "where it is not known, what is sure"
    assert made.http_request_body_truncated is truncated


@pytest.mark.parametrize(("headers", "mime"), [
    (FORM, b"application/x-www-form-urlencoded"), ([(b"content-type", b"text/plain")], b"text/plain"), ([], None),
    ([(b"content-type", b"")], None), ([(b"content-type", b" ;x")], None), ([(b"content-type", b"JSON")], b"json"),
])  # fmt: skip
def test_mime(headers: Headers, mime: bytes | None) -> None:
    assert posted(headers).http_request_body_mime == mime


def test_a_form_that_is_padded_is_truncated() -> None:
    for content, cut in ((b"a&" * 999 + b"cmd=evil", False), (b"&" * 1000 + b"cmd=evil", True)):
        made = posted([(b"content-type", b"text/plain"), *FORM], HeldBody(content, False))
        assert made.http_request_body_truncated is cut and holds('http.request.body.form["cmd"][0] eq "evil"', made) is not cut


def test_forms() -> None:
    made = posted(FORM, HeldBody(b"a=%41+b&&b&a=c=d&=x&%61=1", False))
    assert made.http_request_body_form == {b"a": [b"%41+b", b"c=d"], b"b": [b""], b"": [b"x"], b"%61": [b"1"]}
    assert made.http_request_body_form_names == [b"a", b"b", b"a", b"", b"%61"]
    assert made.http_request_body_form_values == [b"%41+b", b"", b"c=d", b"x", b"1"]
    assert holds('any(url_decode(http.request.body.form.values[*])[*] eq "A b")', made)
    for kind in (b"multipart/form-data; boundary=a", b"application/json"):
        assert posted([(b"content-type", kind)], HeldBody(b"a=1", False)).http_request_body_form is None


@given(st.lists(st.tuples(st.binary(max_size=5), st.binary(max_size=5)), max_size=20))
def test_what_was_written_as_a_form_is_read_back(fields: list[tuple[bytes, bytes]]) -> None:
    kept = [
        (name.replace(b"&", b"").replace(b"=", b""), value.replace(b"&", b"")) for name, value in fields
    ]
    assert pairs(b"&".join(name + b"=" + value for name, value in kept)) == kept


@given(st.binary(max_size=50) | st.lists(st.sampled_from([b"a", b"&", b"="]), max_size=3000).map(b"".join))
def test_any_content_has_pairs(content: bytes) -> None:
    found = pairs(content)
    assert len(found) <= MAX_PAIRS
    assert all(b"&" not in name + value and b"=" not in name for name, value in found)


def test_a_form_is_read_so_far_and_no_further() -> None:
    assert pairs(b"a=1&" * (MAX_PAIRS + 5) + b"b=2") == [(b"a", b"1")] * MAX_PAIRS
    assert pairs(b"&" * 100_000) == []
