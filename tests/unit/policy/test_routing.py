# Hosts and prefixes: what is understood, and who gets it.
"""policy/routing.py."""

from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.config.model import Client
from edgeproxy.config.model import Route as RouteModel
from edgeproxy.config.snapshot import Route
from edgeproxy.policy.routing import Router, find_route, parse_authority


@pytest.mark.parametrize(("raw", "expected"), [
    (b"localhost", ("localhost", None, False)), (b"LocalHost:8443", ("localhost", 8443, False)),
    (b"example.org.", ("example.org", None, False)), (b"example.org.:80", ("example.org", 80, False)),
    (b"example.org:", ("example.org", None, False)), (b"127.0.0.1", ("127.0.0.1", None, True)),
    (b"127.0.0.1:443", ("127.0.0.1", 443, True)), (b"[::1]", ("::1", None, True)), (b"[::1]:443", ("::1", 443, True)),
    (b"[0:0:0:0:0:0:0:1]", ("::1", None, True)), (b"xn--bcher-kva.example", ("xn--bcher-kva.example", None, False)),
    (b"_dmarc.example.org", None), (b"a_b.example.org", ("a_b.example.org", None, False)), (b"1.2.3", ("1.2.3", None, False)),
    (b"", None), (b":80", None), (b".", None), (b"-a", None), (b"a-", None), (b"a..b", None), (b"a b", None), (b"a/b", None),
    (b"a@b", None), (b"a:0", None), (b"a:65536", None), (b"a:65535", ("a", 65535, False)), (b"a:+1", None), (b"a: 1", None),
    (b"a:1:2", None), (b"::1", None), (b"[::1", None), (b"[::1]x", None), (b"[::1]:x", None), (b"[]", None), (b"[::1%1]", None),
    (b"[v1.x]", None), (b"a\x00", None), (b"a\r\n", None), (b"a\n", None), (b"\xe4.org", None), (b"a,b", None),
    (b"a:\xb2", None), ("a:٣".encode(), None), (b"a" * 300, None),
])  # fmt: skip
def test_authorities(raw: bytes, expected: tuple[str, int | None, bool] | None) -> None:
    assert parse_authority(raw) == expected


pieces = st.sampled_from([
    b"a", b"B", b"9", b"-", b"_", b".", b":", b"[", b"]", b"::1", b"%", b"@", b"/", b" ", b"\n", b"443", b'"', b"example",
])  # fmt: skip


@settings(max_examples=1500)
@given(st.lists(pieces, max_size=10).map(b"".join) | st.binary(max_size=20))
def test_what_is_understood_is_harmless(raw: bytes) -> None:
    """It goes into Host, Forwarded (in quotes) and Location as it is."""
    parsed = parse_authority(raw)
    if parsed is None:
        return
    host, port, is_ip = parsed
    assert re.fullmatch(rb"[A-Za-z0-9._:\[\]-]+", raw)
    assert host == host.lower() and not host.endswith(".")
    assert port is None or 0 < port < 65536
    if is_ip:
        ipaddress.ip_address(host)
    else:
        with pytest.raises(ValueError, match="address"):
            ipaddress.ip_address(host)
    again = f"[{host}]" if ":" in host else host
    assert parse_authority((again + (f":{port}" if port else "")).encode()) == parsed


def router(*routes: tuple[str, str]) -> Router:
    return Router(Route(RouteModel(host=host, path=path, upstream="x"), Client()) for host, path in routes)


def found(router: Router, host: bytes, target: bytes) -> str | None:
    authority = router.authority(host)
    assert authority is not None
    route = find_route(authority, target)
    return None if route is None else route.name


@pytest.mark.parametrize(("host", "target", "name"), [
    (b"example.org", b"/", "example.org/"), (b"EXAMPLE.org:8443", b"/", "example.org/"), (b"example.org.", b"/x", "example.org/"),
    (b"www.example.org", b"/", "*.example.org/"), (b"a.b.example.org", b"/", "*.b.example.org/"),
    (b"b.example.org", b"/", "*.example.org/"), (b"xexample.org", b"/", "*/"), (b"other", b"/", "*/"),
    (b"other", b"/v1", "*/v1/"), (b"other", b"/v1/", "*/v1/"), (b"other", b"/v1?x", "*/v1/"), (b"other", b"/v10", "*/"),
    (b"other", b"/v1/chat", "*/v1/chat"), (b"other", b"/v1/chat/x", "*/v1/chat"), (b"other", b"/v1/chat?x", "*/v1/chat"),
    (b"other", b"/v1/chats", "*/v1/"), (b"example.org", b"/v1/chat", "example.org/"),
])  # fmt: skip
def test_routes(host: bytes, target: bytes, name: str) -> None:
    table = router(
        ("*", "/"), ("*", "/v1/"), ("*", "/v1/chat"), ("*.example.org", "/"), ("*.b.example.org", "/"), ("example.org", "/")
    )
    assert found(table, host, target) == name


def test_no_route() -> None:
    table = router(("example.org", "/v1/"))
    assert found(table, b"example.org", b"/v2") is None
    assert found(table, b"example.com", b"/v1/") is None
    assert found(table, b"example.org", b"*") is None


paths = st.lists(st.sampled_from(["v1", "v10", "v", "chat", "a"]), max_size=3).map(lambda parts: "/" + "/".join(parts))


@given(st.lists(paths | paths.map(lambda p: p.rstrip("/") + "/"), min_size=1, max_size=5, unique=True), paths)
def test_the_longest_prefix_in_whole_segments_wins(prefixes: list[str], path: str) -> None:
    table = router(*(("*", prefix) for prefix in prefixes))
    segments = [part for part in path.split("/") if part]

    def fits(prefix: str) -> bool:
        parts = [part for part in prefix.split("/") if part]
        return segments[: len(parts)] == parts

    right = [prefix for prefix in prefixes if fits(prefix)]
    got = found(table, b"h", path.encode())
    if got is None:
        assert not right
    else:
        assert fits(got[1:])
        assert len(got[1:].rstrip("/")) == max(len(prefix.rstrip("/")) for prefix in right)


def test_the_memory_of_authorities_is_bounded() -> None:
    table = router(("*", "/"))
    for at in range(10_000):
        table.authority(b"h%d" % at)
        table.authority(b"bad name %d" % at)
    assert len(table._cache) <= 4096
