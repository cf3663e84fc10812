# Which fields cross the edge, in both directions; hop-by-hop, forwarding and tracing fields are decided only here.
"""Request heads for upstreams and reply fields for clients (RFC 9110 §7.6, RFC 7239, RFC 8586)."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from edgeproxy.faults import Fault, client_fault, edge_fault
from edgeproxy.message import Headers

if TYPE_CHECKING:
    from edgeproxy.config.snapshot import Route
    from edgeproxy.message import Peer, Request
    from edgeproxy.policy.routing import Authority

RAY = b"x-ray-id"
_LOOP_NAME = b"edgeproxy"
_MAX_HOPS = 8  # edgeproxies in a row before it is called a loop

# Fields about the connection and the message's framing (RFC 9110 §7.6.1, RFC 9112 §6). Listeners and upstream
# connections set these aside while they parse, so that `Request.headers` and `Reply.headers` never hold one.
CONNECTION_FIELDS = frozenset({
    b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    b"content-length", b"http2-settings", b"proxy-authenticate", b"proxy-authorization",
})  # fmt: skip
REQUEST_FIELDS = CONNECTION_FIELDS | {b"host", b"expect"}

# Fields of a request that the edge writes itself. What a client sends there is believed only from trusted networks.
_OWNED = frozenset({
    b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-server",
    b"forwarded", b"x-real-ip", b"true-client-ip", b"cf-connecting-ip", b"x-client-ip", b"x-cluster-client-ip",
    b"fastly-client-ip", b"client-ip", b"x-originating-ip", b"x-remote-ip", b"x-remote-addr",
    b"x-envoy-external-address", b"x-original-url", b"x-rewrite-url", b"x-original-host", RAY, b"via", b"cdn-loop",
})  # fmt: skip
_OWNED_OR_ENCODING = _OWNED | {b"accept-encoding"}

_NO_TRAILERS = REQUEST_FIELDS | _OWNED | {
    b"authorization", b"x-api-key", b"api-key", b"cookie", b"set-cookie", b"cache-control", b"expires", b"date", b"age",
    b"vary", b"location",
    b"strict-transport-security", b"alt-svc", b"range", b"if-match", b"if-none-match", b"www-authenticate", b"retry-after",
}  # fmt: skip

# Fields of a reply that never reach the client as the upstream sent them: those about its connection, and those that
# only the edge may set. Content-Type is passed on, and looked at.
REPLY_FIELDS = CONNECTION_FIELDS | {b"strict-transport-security", b"alt-svc", RAY, b"content-type"}

# What no rule may write: framing, the edge's own words, and what others believe of the edge.
_WRITTEN = frozenset({
    b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded", b"via", b"cdn-loop", RAY,
})  # fmt: skip
REQUEST_FIXED = REQUEST_FIELDS | _WRITTEN
REPLY_FIXED = CONNECTION_FIELDS | {b"strict-transport-security", b"alt-svc", b"date", RAY}


def nominated(values: list[bytes]) -> set[bytes]:
    """Lower-case field names that the given Connection values nominate (RFC 9110 §7.6.1)."""
    names: set[bytes] = set()
    for value in values:
        for token in value.split(b","):
            name = token.strip(b" \t").lower()
            if name not in {b"", b"close", b"keep-alive", b"upgrade"}:
                names.add(name)
    return names


def underscored(fields: Headers) -> Fault | None:
    """CGI-style upstreams read `x_a` and `x-a` as the same field: one would pass for the other."""
    for name, _ in fields:
        if b"_" in name:
            return client_fault(400, "underscore", f"The field name {name.decode('latin-1')!r} has an underscore.")
    return None


def client_address(request: Request, networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]) -> str:
    """The rightmost address in X-Forwarded-For that is not a trusted proxy; the peer's own when it is not trusted."""
    peer = request.peer
    if not peer.trusted:
        return peer.address
    hops = [hop.strip() for key, value in request.headers if key == b"x-forwarded-for" for hop in value.split(b",")]
    address = peer.address
    for hop in reversed(hops):
        try:
            parsed = ipaddress.ip_address(hop.decode("ascii"))
        except (ValueError, UnicodeDecodeError):
            break
        address = str(parsed)
        if not any(parsed in network for network in networks):
            break
    return address


def request_fields(
    request: Request, route: Route, authority: Authority, instance: bytes, written: Headers | None = None
) -> bytes | Fault:
    """The field lines for the upstream: everything but request line, Host, the ray id's value and framing.

    Args:
        authority: of the request, understood.
        instance: this edge's own CDN-Loop id (RFC 8586), a whole field line.
        written: those of the request's field lines that rules wrote: they are sent, whatever a client may not say.

    Returns: lines behind Host, ending in `x-ray-id: `; or the fault when the request runs in a circle.
    """
    headers = request.headers
    owned = _OWNED_OR_ENCODING if route.dialect is not None else _OWNED
    trusted = request.peer.trusted
    # X-Forwarded-User, -Client-Cert, -Prefix and whatever comes next: backends believe them, so only trusted proxies may.
    if written:
        ours = {id(line) for line in written}  # lines that are equal need not be from the same hand
        passed = [
            line for line in headers
            if (line[0] not in owned and (trusted or line[0][:12] != b"x-forwarded-"))
            or (id(line) in ours and line[0] != b"accept-encoding")
        ]  # fmt: skip
        lines = [name + b": " + value for name, value in passed]
    else:
        lines = [
            name + b": " + value
            for name, value in headers
            if name not in owned and (trusted or name[:12] != b"x-forwarded-")
        ]
    special = len(lines) < len(headers)
    if special and (fault := _append_special(lines, request, instance)) is not None:
        return fault
    if not special or not any(name == b"cdn-loop" for name, _ in headers):
        lines.append(instance)
    if route.dialect is not None:
        # A compressed event stream cannot be watched for its end and would be held back by the compressor.
        lines.append(b"accept-encoding: identity")
    if trusted and special:
        lines.append(_forwarded_by_trusted(request, authority))
    else:
        lines.append(_forwarded(request.peer, authority))
    lines.append(b"x-ray-id: ")
    return b"\r\n".join(lines)


def _append_special(lines: list[bytes], request: Request, instance: bytes) -> Fault | None:
    """Fields the edge extends instead of replacing: Via and CDN-Loop. Everything else owned is left out."""
    loops: list[bytes] = []
    vias: list[bytes] = []
    for name, value in request.headers:
        if name == b"cdn-loop":
            loops += [part.strip() for part in value.split(b",") if part.strip()]
        elif name == b"via":
            vias.append(value)
    if loops:
        mine = instance.partition(b": ")[2]
        ours = [part for part in loops if part.partition(b";")[0].strip() == _LOOP_NAME]
        if mine in ours or len(ours) >= _MAX_HOPS:
            return edge_fault(508, "loop", "The request came back to an edge it has passed: check the upstream's address.")
        lines.append(b"cdn-loop: " + b", ".join([*loops, mine]))
    if vias:
        if sum(value.count(b"edgeproxy") for value in vias) >= _MAX_HOPS:
            return edge_fault(508, "loop", "The request passed too many edges (Via): check the upstream's address.")
        lines.append(b"via: " + b", ".join(vias))
    return None


def _for_node(address: str) -> str:
    """RFC 7239 §6: IPv6 addresses are bracketed and quoted."""
    if ":" in address:
        return f'"[{address}]"'
    return address or "unknown"


def _forwarded(peer: Peer, authority: Authority) -> bytes:
    """The forwarding fields for a client that is not a trusted proxy; the same for a whole connection and host."""
    proto = "https" if peer.secure else "http"
    raw = authority.raw.decode("ascii")
    return (
        f"x-forwarded-for: {peer.address}\r\nx-forwarded-proto: {proto}\r\nx-forwarded-host: {raw}\r\n"
        f'forwarded: for={_for_node(peer.address)};host="{raw}";proto={proto}\r\nvia: 1.1 edgeproxy'
    ).encode("ascii")


def _forwarded_by_trusted(request: Request, authority: Authority) -> bytes:
    """The forwarding fields behind a trusted proxy: its values are kept and the proxy's own address is added."""
    peer = request.peer
    proto = "https" if peer.secure else "http"
    host = authority.raw
    chain: list[bytes] = []
    forwarded: list[bytes] = []
    scheme = proto.encode("ascii")
    for name, value in request.headers:
        if name == b"x-forwarded-for":
            chain.append(value)
        elif name == b"forwarded":
            forwarded.append(value)
        elif name == b"x-forwarded-proto" and value in {b"http", b"https"}:
            scheme = value
        elif name == b"x-forwarded-host":
            host = value
    address = peer.address.encode("ascii")
    chain.append(address)
    forwarded.append(f'for={_for_node(peer.address)};host="{authority.raw.decode("ascii")}";proto={proto}'.encode("ascii"))
    return (
        b"x-forwarded-for: " + b", ".join(chain) + b"\r\nx-forwarded-proto: " + scheme
        + b"\r\nx-forwarded-host: " + host + b"\r\nforwarded: " + b", ".join(forwarded) + b"\r\nvia: 1.1 edgeproxy"
    )  # fmt: skip


def clean_trailers(fields: Headers, removed: frozenset[bytes] = frozenset()) -> Headers:
    """What may be passed on as trailers: nothing about framing, routing, the client's identity or content (RFC 9110 §6.5.1).

    Args:
        removed: names that rules take out or write: they shall not come in by this door.
    """
    return [
        (name, value)
        for name, value in fields
        if name not in _NO_TRAILERS and name not in removed
        and name[:12] != b"x-forwarded-" and name[:8] != b"content-" and b"_" not in name
    ]  # fmt: skip


def mark_stream(headers: Headers) -> None:
    """Add what keeps caches and buffering proxies away from an event stream, unless the upstream said it."""
    present = {name for name, _ in headers}
    if b"cache-control" not in present:
        headers.append((b"cache-control", b"no-cache, no-transform"))
    if b"x-accel-buffering" not in present:
        headers.append((b"x-accel-buffering", b"no"))
