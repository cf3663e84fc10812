# What crosses the edge, seen as the upstream's head and the client's fields.
"""policy/headers.py, hsts.py, altsvc.py and pages.py, behind a plan."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from support.pipeline import Stand

from edgeproxy.config.model import Hsts, Listen
from edgeproxy.faults import Fault, client_fault
from edgeproxy.message import Headers, Peer, Request
from edgeproxy.observe.metrics import H1, H2, H3
from edgeproxy.policy.altsvc import compile_alt_svc
from edgeproxy.policy.headers import REPLY_FIELDS, client_address, mark_stream, nominated
from edgeproxy.policy.hsts import compile_hsts
from edgeproxy.policy.pages import error_page, wants_html

LIES: Headers = [
    (name, b"203.0.113.9") for name in (
        b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-server", b"forwarded",
        b"x-real-ip", b"true-client-ip", b"cf-connecting-ip", b"x-client-ip", b"x-cluster-client-ip", b"fastly-client-ip",
        b"x-original-url", b"x-rewrite-url", b"x-original-host", b"x-ray-id",
    )
]  # fmt: skip


@pytest.fixture(scope="module")
def stand() -> Stand:
    return Stand()


def plan(stand: Stand, headers: Headers, *, trusted: bool = False, address: str = "192.0.2.1", authority: bytes = b"localhost"):  # type: ignore[no-untyped-def]
    request = Request(b"GET", authority, b"/x", headers, 0, 0, Peer(address, trusted=trusted, secure=True))
    made = stand.gateway.plan(request)
    return made, made.upstream_head(request, authority).decode().split("\r\n")


def test_what_clients_say_about_addresses_is_not_believed(stand: Stand) -> None:
    _, lines = plan(stand, LIES)
    assert not any("203.0.113.9" in line for line in lines)
    assert "x-forwarded-for: 192.0.2.1" in lines
    assert "x-forwarded-proto: https" in lines
    assert "x-forwarded-host: localhost" in lines
    assert 'forwarded: for=192.0.2.1;host="localhost";proto=https' in lines
    names = [line.partition(":")[0] for line in lines[1:]]
    assert len(names) == len(set(names)), "each once"


def test_what_a_trusted_proxy_says_is_kept(stand: Stand) -> None:
    headers = [
        (b"x-forwarded-for", b"203.0.113.9"), (b"x-forwarded-proto", b"http"), (b"x-forwarded-host", b"public.example"),
        (b"forwarded", b"for=203.0.113.9"), (b"x-real-ip", b"203.0.113.9"),
    ]  # fmt: skip
    _, lines = plan(stand, headers, trusted=True)
    assert "x-forwarded-for: 203.0.113.9, 192.0.2.1" in lines
    assert "x-forwarded-proto: http" in lines
    assert "x-forwarded-host: public.example" in lines
    assert 'forwarded: for=203.0.113.9, for=192.0.2.1;host="localhost";proto=https' in lines


def test_an_ipv6_client_in_forwarded(stand: Stand) -> None:
    _, lines = plan(stand, [], address="2001:db8::1", authority=b"[::1]:8443")
    assert 'forwarded: for="[2001:db8::1]";host="[::1]:8443";proto=https' in lines
    assert "x-forwarded-for: 2001:db8::1" in lines


@pytest.mark.parametrize(("values", "trusted", "expected"), [
    ([], True, "10.0.0.1"), ([b"203.0.113.9"], False, "10.0.0.1"), ([b"203.0.113.9"], True, "203.0.113.9"),
    ([b"203.0.113.9, 198.51.100.7"], True, "198.51.100.7"), ([b"203.0.113.9, 10.0.0.2"], True, "203.0.113.9"),
    ([b"203.0.113.9", b"10.0.0.2, 10.0.0.3"], True, "203.0.113.9"), ([b"10.0.0.2"], True, "10.0.0.2"),
    ([b"evil, 10.0.0.2"], True, "10.0.0.2"), ([b"203.0.113.9, junk"], True, "10.0.0.1"), ([b""], True, "10.0.0.1"),
    ([b"203.0.113.9, 2001:db8::5"], True, "2001:db8::5"), ([b"\xff, 10.0.0.2"], True, "10.0.0.2"),
])  # fmt: skip
def test_the_client_s_address(values: list[bytes], trusted: bool, expected: str) -> None:
    """The rightmost address outside the trusted networks; what stands left of it can be anybody's invention."""
    peer = Peer("10.0.0.1", trusted=trusted, secure=True)
    request = Request(b"GET", b"h", b"/", [(b"x-forwarded-for", value) for value in values], 0, 0, peer)
    assert client_address(request, (ip_network("10.0.0.0/8"),)) == expected


def test_loops_are_found(stand: Stand) -> None:
    assert plan(stand, [(b"cdn-loop", b"other")])[0].fault is None
    assert plan(stand, [(b"cdn-loop", b"edgeproxy;id=ffffffffffff")])[0].fault is None
    for value in (b"edgeproxy;id=0123456789ab", b"other, edgeproxy;id=0123456789ab", b"edgeproxy;id=1, " * 8):
        fault = plan(stand, [(b"cdn-loop", value)])[0].fault
        assert isinstance(fault, Fault) and fault.status == 508
    fault = plan(stand, [(b"via", b"1.1 edgeproxy, " * 8)])[0].fault
    assert isinstance(fault, Fault) and fault.status == 508
    _, lines = plan(stand, [(b"cdn-loop", b"other"), (b"via", b"1.0 x")])
    assert "cdn-loop: other, edgeproxy;id=0123456789ab" in lines
    assert "via: 1.0 x" in lines and "via: 1.1 edgeproxy" in lines


def test_nominated() -> None:
    assert nominated([b"close, X-A", b"keep-alive,\tx-b ,, Upgrade"]) == {b"x-a", b"x-b"}


def test_reply_fields_that_stay_here() -> None:
    for name in (b"strict-transport-security", b"x-ray-id", b"alt-svc", b"connection", b"keep-alive", b"transfer-encoding"):
        assert name in REPLY_FIELDS


def test_streams_are_kept_from_caches() -> None:
    fields: Headers = []
    mark_stream(fields)
    assert dict(fields) == {b"cache-control": b"no-cache, no-transform", b"x-accel-buffering": b"no"}
    fields = [(b"cache-control", b"private")]
    mark_stream(fields)
    assert fields == [(b"cache-control", b"private"), (b"x-accel-buffering", b"no")]


@pytest.mark.parametrize(("settings", "value"), [
    (Hsts(), b"max-age=63072000; includeSubDomains"), (Hsts(enabled=False), None),
    (Hsts(max_age=0, include_subdomains=False), b"max-age=0"),
    (Hsts(preload=True), b"max-age=63072000; includeSubDomains; preload"),
])  # fmt: skip
def test_hsts(settings: Hsts, value: bytes | None) -> None:
    assert compile_hsts(settings) == (None if value is None else (b"strict-transport-security", value))


def test_hsts_is_for_names_only(stand: Stand) -> None:
    field = compile_hsts(Hsts())
    assert field in plan(stand, [])[0].reply_fields
    assert field not in plan(stand, [], authority=b"127.0.0.1")[0].reply_fields
    assert field not in plan(stand, [], authority=b"[::1]:443")[0].reply_fields


@pytest.mark.parametrize(("settings", "value"), [
    ({}, b'h3=":8443"; ma=86400'), ({"public_port": 443}, b'h3=":443"; ma=86400'),
    ({"alt_svc_max_age": "0s"}, b'h3=":8443"; ma=0'), ({"https": ["unix:/x", ":1", ":2"]}, b'h3=":1"; ma=86400'),
    ({"alt_svc": False}, None), ({"protocols": ["h1", "h2"]}, None), ({"https": ":0"}, None),
    ({"https": ":0", "public_port": 443}, b'h3=":443"; ma=86400'), ({"https": "unix:/x", "public_port": 443}, None),
])  # fmt: skip
def test_alt_svc(settings: dict[str, Any], value: bytes | None) -> None:
    listen = Listen.model_validate({"https": "127.0.0.1:8443", **settings})
    assert compile_alt_svc(listen) == (None if value is None else (b"alt-svc", value))


def test_alt_svc_is_for_clients_that_are_not_there_yet(stand: Stand) -> None:
    def fields(protocol: int, *, secure: bool = True) -> set[bytes]:
        peer = Peer("192.0.2.1", trusted=False, secure=secure)
        request = Request(b"GET", b"localhost", b"/", [], 0, protocol, peer)
        return {name for name, _ in stand.gateway.plan(request).reply_fields}

    assert fields(H1) == fields(H2) == {b"alt-svc", b"strict-transport-security"}
    assert fields(H3) == {b"strict-transport-security"}
    assert fields(H1, secure=False) == set()


def test_pages_escape_what_they_show() -> None:
    fault = client_fault(400, "x", "<script>alert(1)</script>")
    kind, page = error_page(fault, "<ray>", b"text/html,application/json")
    assert kind.startswith(b"text/html")
    assert b"<script>" not in page and b"<ray>" not in page
    kind, page = error_page(client_fault(499, "x", 'a "quote"'), "r", None)
    assert kind == b"application/json" and b'\\"quote\\"' in page
    assert b"499 Error" in error_page(client_fault(499, "x", "y"), "r", b"text/html")[1]
    assert not wants_html(b"application/json")
