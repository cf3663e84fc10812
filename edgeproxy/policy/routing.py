# Which route an authority and a path get; nothing here reads a header or touches a connection.
"""Hosts (exact, then the longest wildcard, then `*`) and, within a host, the longest path prefix."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeproxy.config.snapshot import Route

_REG_NAME = re.compile(rb"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9])?)*\.?")
_CACHE = 4096  # authorities remembered; the cache is emptied when clients bring more


class Authority:
    """A Host or `:authority` that was understood, with what depends on it alone.

    Attributes:
        raw: as received.
        host: lower case, without port, brackets or trailing dot.
        port: the port given, None when absent.
        is_ip: the host is an IP literal (RFC 6797 §8.1.1: no HSTS for those).
        routes: routes that can match, in the order to try: exact host before wildcards, longer prefixes first.
    """

    __slots__ = ("host", "is_ip", "port", "raw", "routes")

    def __init__(self, raw: bytes, host: str, port: int | None, *, is_ip: bool, routes: tuple[Route, ...]) -> None:
        self.raw = raw
        self.host = host
        self.port = port
        self.is_ip = is_ip
        self.routes = routes


def parse_authority(raw: bytes) -> tuple[str, int | None, bool] | None:
    """Split `host[:port]` into (host, port, is an IP literal); None when it is not valid (RFC 9110 §7.2)."""
    if raw.startswith(b"["):
        literal, bracket, rest = raw[1:].partition(b"]")
        if not bracket or (rest and not rest.startswith(b":")):
            return None
        try:
            address = ipaddress.IPv6Address(literal.decode("ascii"))
            if address.scope_id is not None:
                return None  # a zone means something on one machine only, and takes any text (RFC 6874)
            host = address.compressed
        except (ValueError, UnicodeDecodeError):
            return None
        port_text, is_ip = rest[1:], True
        has_port = bool(rest)
    else:
        name, colon, port_text = raw.partition(b":")
        if len(name) > 254 or _REG_NAME.fullmatch(name) is None:
            return None
        host = name.decode("ascii").lower().rstrip(".")
        has_port = bool(colon)
        is_ip = _is_ipv4(host)
    port: int | None = None
    if has_port and port_text:
        if not port_text.isdigit() or len(port_text) > 5:
            return None
        port = int(port_text)
        if not 0 < port < 65536:
            return None
    return host, port, is_ip


def _is_ipv4(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


class Router:
    """The compiled routes of a snapshot."""

    __slots__ = ("_cache", "_routes")

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = tuple(routes)
        self._cache: dict[bytes, Authority] = {}

    def authority(self, raw: bytes) -> Authority | None:
        """The understood authority, None when it is malformed. Remembered, bounded."""
        try:
            return self._cache[raw]
        except KeyError:
            pass
        if len(self._cache) >= _CACHE:
            self._cache.clear()
        parsed = parse_authority(raw)
        if parsed is None:
            return None  # not remembered: it may be as long as a head
        host, port, is_ip = parsed
        found = self._cache[raw] = Authority(raw, host, port, is_ip=is_ip, routes=self._for_host(host))
        return found

    def find(self, raw: bytes, target: bytes) -> Route | None:
        """The route that an authority and an origin-form target get; None for none."""
        authority = self.authority(raw)
        return find_route(authority, target) if authority is not None else None

    def dialect(self, raw: bytes, target: bytes) -> str | None:
        """The dialect of that route."""
        route = self.find(raw, target)
        return route.dialect if route is not None else None

    def _for_host(self, host: str) -> tuple[Route, ...]:
        ranked = []
        for route in self._routes:
            rank = _host_rank(route.host, host)
            if rank is not None:
                ranked.append((rank, -len(route.prefix), route))
        ranked.sort(key=lambda item: item[:2])
        return tuple(route for _, _, route in ranked)


def _host_rank(pattern: str, host: str) -> int | None:
    """How specific a match is, smaller first; None for no match. `*.example.org` does not match `example.org`."""
    if pattern == host:
        return -1_000
    if pattern == "*":
        return 0
    if pattern.startswith("*.") and host.endswith(pattern[1:]) and len(host) > len(pattern) - 1:
        return -len(pattern)
    return None


def find_route(authority: Authority, target: bytes) -> Route | None:
    """The route for an origin-form target, None when none matches.

    A prefix that ends in `/` also matches the path without that slash (`/v1/` matches `/v1`), a prefix that does not
    matches whole segments only (`/v1` does not match `/v10`).
    """
    for route in authority.routes:
        prefix = route.prefix
        if target.startswith(prefix):
            if prefix.endswith(b"/") or len(target) == len(prefix) or target[len(prefix)] in b"/?":
                return route
        elif prefix.endswith(b"/") and target.partition(b"?")[0] == prefix[:-1]:
            return route
    return None
