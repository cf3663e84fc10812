# What a head means is decided once: these are the decisions, and that nothing of one client leaks into another's.
"""plan.py."""

from __future__ import annotations

import json

import pytest
from support.edge import configuration
from support.pipeline import Stand

from edgeproxy.message import Headers, Peer, Request
from edgeproxy.plan import Plan


@pytest.fixture(scope="module")
def stand() -> Stand:
    routes = [{"path": "/v1/", "upstream": "main", "dialect": "openai"}, {"path": "/x", "upstream": "main"}]
    return Stand(configuration(routes=routes))


def plan(
    stand: Stand, target: bytes = b"/x", *, method: bytes = b"GET", authority: bytes = b"localhost",
    headers: Headers | None = None, secure: bool = True, names: frozenset[str] | None = None,
) -> Plan:  # fmt: skip
    peer = Peer("192.0.2.1", trusted=False, secure=secure)
    peer.names = names
    return stand.gateway.plan(Request(method, authority, target, headers or [], 0, 0, peer))


@pytest.mark.parametrize(("changes", "status"), [
    ({}, None), ({"target": b"/none"}, 404), ({"target": b"/a/../x"}, 400), ({"authority": b"a b"}, 400),
    ({"method": b"TRACE"}, 405), ({"method": b"CONNECT"}, 405),
    ({"target": b"*", "method": b"OPTIONS"}, 404), ({"names": frozenset({"localhost"})}, None),
    ({"names": frozenset({"other"})}, 421), ({"names": frozenset({"*.test"}), "authority": b"a.test"}, None),
    ({"names": frozenset({"*.test"}), "authority": b"a.b.test"}, 421),
    ({"names": frozenset({"localhost"}), "authority": b"LOCALHOST:1"}, None),
    ({"names": frozenset()}, 421), ({"names": frozenset({"localhost"}), "authority": b"localhost."}, None),
])  # fmt: skip
def test_who_is_refused(stand: Stand, changes: dict[str, object], status: int | None) -> None:
    fault = plan(stand, **changes).fault  # type: ignore[arg-type]
    assert (fault.status if fault else None) == status


@pytest.mark.parametrize(("authority", "target", "location"), [
    (b"localhost", b"/a?b=c", b"https://localhost:8443/a?b=c"), (b"LOCALHOST:80", b"/", b"https://localhost:8443/"),
    (b"[::1]:80", b"/", b"https://[::1]:8443/"), (b"example.org.", b"/none", b"https://example.org:8443/none"),
])  # fmt: skip
def test_plain_connections_are_only_redirected(stand: Stand, authority: bytes, target: bytes, location: bytes) -> None:
    made = plan(stand, target, authority=authority, secure=False)
    assert (made.fault, made.route, made.location) == (None, None, location)
    assert made.reply_fields == [], "no HSTS over plain HTTP"


def test_a_bad_request_is_not_redirected(stand: Stand) -> None:
    for changes in ({"target": b"//evil.example/"}, {"authority": b"a/b"}, {"target": b"/%0d%0aset-cookie:x"}):
        made = plan(stand, secure=False, **changes)  # type: ignore[arg-type]
        assert made.fault is not None and made.fault.status == 400


def test_the_head_for_the_upstream(stand: Stand) -> None:
    peer = Peer("::1", trusted=False, secure=True)
    fields = [(b"accept-encoding", b"gzip"), (b"a", b"b")]
    request = Request(b"POST", b"Localhost:1", b"/v1/x?key=1", fields, 5, 0, peer)
    made = stand.gateway.plan(request)
    head = made.upstream_head(request, b"Localhost:1")
    assert head.startswith(b"POST /v1/x?key=1 HTTP/1.1\r\nhost: Localhost:1\r\na: b\r\n")
    assert head.endswith(b"\r\nx-ray-id: ")
    assert head.count(b"accept-encoding") == 1 and b"accept-encoding: identity" in head
    assert made.upstream_head(request, b"other").startswith(b"POST /v1/x?key=1 HTTP/1.1\r\nhost: other\r\n")
    assert made.upstream_head(request, b"Localhost:1") == head


def test_secrets_stay_out_of_the_log(stand: Stand) -> None:
    headers = [(name, b"s3cret") for name in (b"authorization", b"cookie", b"x-api-key", b"proxy-authorization")]
    headers.append((b"user-agent", b"curl\r\n\x1b[1m"))
    made = plan(stand, b"/x?api_key=s3cret", headers=headers)
    assert b"s3cret" not in made.log
    assert made.log.count(b"\n") == 1 and b"\r" not in made.log and b"\x1b" not in made.log
    assert json.loads(b"{" + made.log)["user_agent"] == "curl\r\n\x1b[1m"
