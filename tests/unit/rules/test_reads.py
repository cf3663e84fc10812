# What an expression looks at, and what of it nobody should see in a log.
from __future__ import annotations

import pytest
from hypothesis import given
from support.rules import LISTS, facts, trees

from edgeproxy.rules import reads as r
from edgeproxy.rules.parser import parse
from edgeproxy.rules.syntax import each_in, fields_of, show_value


def names(text: str) -> list[str]:
    return [show_value(read) for read in r.reads(parse(text, LISTS))]


def test_parts_are_as_small_as_they_are_written() -> None:
    text = (
        'lower(http.request.headers["x-a"][0]) eq "1" and (ip.src in $nets or http.user_agent contains "x" or'
        ' http.user_agent eq http.host) and any(http.request.uri.args["a"][*] eq "1") and len(http.request.uri.path) gt 3'
    )
    assert names(text) == ['http.request.headers["x-a"][0]', "ip.src", "http.user_agent", "http.host",
        'http.request.uri.args["a"][*]', "http.request.uri.path"]


@pytest.mark.parametrize(("text", "credential", "private"), [
    ('http.cookie eq "x"', True, True),
    ('any(http.request.cookies["a"][*] eq "x")', True, True),
    ('http.request.headers["authorization"][0] eq "x"', True, True),
    ('http.request.headers["x-goog-api-key"][0] eq "x"', True, True),
    ('http.request.headers["x-amz-security-token"][0] eq "x"', True, True),
    ('any(http.request.headers[*][*] eq "x")', True, True),
    ('any(http.request.headers.values[*] eq "x")', True, True),
    ('http.request.headers["x-tenant"][0] eq "x"', False, False),
    *((f'http.request.headers["{name}"][0] eq "x"', True, True) for name in (
        "cf-access-jwt-assertion", "x-goog-iap-jwt-assertion", "x-amzn-oidc-data", "x-csrf", "x-xsrf-id", "dpop",
        "x-forwarded-client-cert", "x-otp", "x-webhook-pass", "x-bearer", "x-origin-verify", "x-shopify-hmac-sha256",
    )),
    ('any(http.request.headers.names[*] eq "x")', False, False),
    ('raw.http.request.headers["authorization"][0] eq "x"', True, True),
    ('any(raw.http.request.headers.values[*] eq "x")', True, True),
    ('http.request.uri eq "x"', False, True),
    ('http.request.uri.query eq "x"', False, True),
    ('http.request.uri.args["a"][0] eq "x"', False, True),
    ('raw.http.request.full_uri eq "x"', False, True),
    ('http.referer eq "x"', False, True),
    ('http.request.uri.path eq "x"', False, False),
    ('http.user_agent eq "x"', False, False),
])  # fmt: skip
def test_what_is_kept_quiet(text: str, credential: bool, private: bool) -> None:
    (read,) = r.reads(parse(text, LISTS))
    assert (r.credential(read), r.private(read)) == (credential, private)


@given(trees())
def test_every_field_is_read_and_has_its_value(tree: object) -> None:
    found = r.reads(tree)  # type: ignore[arg-type]
    assert {name for read in found for name in fields_of(read)} == fields_of(tree)  # type: ignore[arg-type]
    for read in found:
        value = r.source(read)(facts())
        assert isinstance(value, list) or not each_in(read)
