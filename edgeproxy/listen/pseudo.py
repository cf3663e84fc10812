# The one mapping between HTTP/2 or HTTP/3 field sections and our messages; framing engines have checked their syntax.
"""Pseudo-header fields (RFC 9113 §8.3, RFC 9114 §4.3).

The engine below has refused uppercase names, CR, LF and NUL, connection-specific fields, late and doubled
pseudo-headers, and a Content-Length that DATA does not match. What it cannot know is refused here.
"""

from __future__ import annotations

import http
from typing import TYPE_CHECKING

from edgeproxy.faults import Fault, client_fault
from edgeproxy.message import Headers, Peer, Reply, Request
from edgeproxy.policy.headers import REQUEST_FIELDS, underscored

if TYPE_CHECKING:
    from edgeproxy.config.model import Client

Section = tuple[tuple[bytes, bytes], ...]

_STATUS = {status.value: (b":status", str(status.value).encode("ascii")) for status in http.HTTPStatus}


def build_request(section: Section, peer: Peer, client: Client, protocol: int, *, ended: bool) -> Request | Fault:
    """The request of a header section, or why it is refused.

    Args:
        section: as decoded, pseudo-headers first.
        protocol: index into `observe.metrics.PROTOCOLS`.
        ended: no content follows.
    """
    method = authority = path = scheme = host = None
    length: int | None = 0 if ended else None
    fields: Headers = []
    cookies: list[bytes] = []
    expect: bytes | None = None
    size = 0
    for name, value in section:
        size += len(name) + len(value) + 4
        if name in REQUEST_FIELDS:
            if name == b"content-length":
                if not value.isdigit() or len(value) > 18:
                    return client_fault(400, "content_length", "Content-Length is not a number.")
                length = int(value)
            elif name == b"host":
                if host is not None:
                    return client_fault(400, "host", "The request has more than one Host field.")
                host = value
            elif name == b"expect" and (expect is None or expect.lower() == b"100-continue"):
                expect = value  # of several the first that is not understood decides
        elif name[0] != 58:  # ":"
            if name == b"cookie":
                cookies.append(value)
            else:
                fields.append((name, value))
        elif name == b":method":
            method = value
        elif name == b":path":
            path = value
        elif name == b":authority":
            authority = value
        elif name == b":scheme":
            scheme = value
        else:
            return client_fault(400, "pseudo_header", "The request has an unknown pseudo-header field.")
    if cookies:
        # RFC 9113 §8.2.3: crumbs are one field again for everything that is not HTTP/2.
        fields.append((b"cookie", b"; ".join(cookies)))
    if method == b"CONNECT":
        return client_fault(405, "method", "This method is not available here.")
    if method is None or path is None or scheme is None:
        return client_fault(400, "pseudo_header", "The request lacks a pseudo-header field.")
    named = _authority(authority, host)
    if isinstance(named, Fault):
        return named
    fault = _refusal(method, path, scheme, client) or _bounds(size, len(fields), client) or underscored(fields)
    if fault is not None:
        return fault
    request = Request(method, named, path, fields, length, protocol, peer)
    if expect is not None:
        if expect.lower() != b"100-continue":
            return client_fault(417, "expect", "Only 'Expect: 100-continue' is understood.")
        request.expects = not ended
    return request


def _authority(authority: bytes | None, host: bytes | None) -> bytes | Fault:
    """The host that is asked for."""
    if authority is None:
        return client_fault(400, "host", "The request has neither :authority nor Host.") if host is None else host
    if host is not None and host.lower() != authority.lower():
        # RFC 9113 §8.3.1: two names for one request are an attempt to be routed twice.
        return client_fault(400, "authority", "The fields :authority and Host name different hosts.")
    return authority


def _refusal(method: bytes, path: bytes, scheme: bytes, client: Client) -> Fault | None:
    """What is wrong with the other pseudo-header fields."""
    if scheme.lower() not in {b"https", b"http"}:
        return client_fault(400, "scheme", "The request's scheme is not https.")
    if len(path) > client.max_url:
        return client_fault(414, "url_too_long", "The request target is too long.")
    if not path.startswith(b"/") and not (path == b"*" and method == b"OPTIONS"):
        return client_fault(400, "target", "The request target must be a path.")
    return None


def _bounds(size: int, count: int, client: Client) -> Fault | None:
    """Bytes and number of fields."""
    if size > client.max_head or count > client.max_headers:
        return client_fault(431, "head_too_large", "The request has too many or too long header fields.")
    return None


def content_length_at(section: Section) -> int:
    """Where Content-Length stands in a section, -1 when there is none."""
    for index, (name, _) in enumerate(section):
        if name == b"content-length":
            return index
    return -1


def similar(section: Section, last: Section, at: int, known: Request) -> Request | None:
    """The request of a section that differs from the last one in nothing but Content-Length, else None (see plan.py).

    Args:
        at: where Content-Length stands in the last one, -1 for nowhere.
        known: the last one's request.
    """
    if at < 0 or len(section) != len(last) or section[at][0] != b"content-length":
        return None
    if section[:at] != last[:at] or section[at + 1 :] != last[at + 1 :]:
        return None
    digits = section[at][1]
    if not digits.isdigit() or len(digits) > 18:
        return None
    return Request(known.method, known.authority, known.target, known.headers, int(digits), known.protocol, known.peer)


def reply_section(reply: Reply, length: int | None) -> Headers:
    """The field section of a reply.

    Args:
        length: value for Content-Length, None to leave it away.
    """
    status = reply.status
    section = [_STATUS.get(status) or (b":status", b"%d" % status), *reply.headers]
    if length is not None and status != 204:
        section.append((b"content-length", b"%d" % length))
    return section
