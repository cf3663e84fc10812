# What an HTTP/1.1 head must be to become a Request; every refusal of framing and target is in this file.
"""From collected head lines to a `Request`, or the fault that refuses them (RFC 9112 §3, §6; RFC 9110 §7.2, §10.1.1)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgeproxy.faults import Fault, client_fault
from edgeproxy.message import Body, Headers, Peer, Request
from edgeproxy.observe.metrics import H1
from edgeproxy.policy.headers import nominated, underscored

if TYPE_CHECKING:
    from edgeproxy.config.model import Client
    from edgeproxy.listen.repeat import Repeat

_MINOR = {"1.1": 1, "1.0": 0}
# llhttp also knows RTSP and ICE and reports their versions like HTTP's. Their own methods give them away here; OPTIONS,
# which they share, is looked at in its request line.
_OTHER_PROTOCOLS = frozenset({
    b"DESCRIBE", b"ANNOUNCE", b"SETUP", b"PLAY", b"PAUSE", b"TEARDOWN", b"GET_PARAMETER", b"SET_PARAMETER", b"REDIRECT",
    b"RECORD", b"FLUSH", b"SOURCE", b"PRI",
})  # fmt: skip
OTHER_PROTOCOL = re.compile(rb"OPTIONS [^\r\n ]+ +(?:RTSP|ICE)/")


class Head:
    """A head as llhttp collected it.

    Attributes:
        fields: end-to-end field lines, names in lower case.
        framing: field lines about the connection and the message's framing, Host and Expect among them.
        version: `"1.1"` as the parser prints it.
        flaw: a fault found while collecting.
        other_protocol: the request line names RTSP or ICE.
        repeat: the raw head, if an equal one may come again (listen/repeat.py).
    """

    __slots__ = (
        "body", "fields", "flaw", "framing", "keep_alive", "method", "minor", "other_protocol", "repeat",
        "target", "upgrade", "version",
    )  # fmt: skip

    def __init__(
        self, method: bytes, target: bytes, fields: Headers, framing: Headers, version: str, keep_alive: bool,
        upgrade: bool, body: Body,
    ) -> None:  # fmt: skip
        self.method = method
        self.target = target
        self.fields = fields
        self.framing = framing
        self.version = version
        self.minor = _MINOR.get(version, -1)
        self.keep_alive = keep_alive
        self.upgrade = upgrade
        self.body = body
        self.flaw: Fault | None = None
        self.other_protocol = False
        self.repeat: Repeat | None = None


def build_request(head: Head, peer: Peer, client: Client) -> Request | Fault:
    """The request, or why it is refused.

    Args:
        head: as collected. Its `fields` become the request's.
        client: the bounds of the configuration.
    """
    fault = head.flaw or _bounds(head, client)
    if fault is not None:
        return fault
    fields = head.fields
    host: bytes | None = None
    length: int | None = 0
    coding: bytes | None = None
    connection: list[bytes] | None = None
    upgrade: bytes | None = None
    expect: bytes | None = None
    for name, value in head.framing:
        if name == b"host":
            if host is not None:
                return client_fault(400, "host", "The request has more than one Host field.")
            host = value
        elif name == b"content-length":
            length = int(value)
        elif name == b"connection":
            connection = [*(connection or ()), value]
        elif name == b"transfer-encoding":
            if coding is not None:
                return client_fault(400, "transfer_encoding", "The request has more than one Transfer-Encoding field.")
            coding = value
        elif name == b"upgrade":
            upgrade = value
        elif name == b"expect" and (expect is None or expect.strip().lower() == b"100-continue"):
            expect = value  # of several the first that is not understood decides
    if coding is not None:
        # RFC 9112 §6.1, §6.3: one coding, chunked, and never beside Content-Length or on HTTP/1.0.
        if head.minor == 0:
            return client_fault(400, "transfer_encoding", "HTTP/1.0 has no Transfer-Encoding.")
        if coding.strip().lower() != b"chunked":
            return client_fault(501, "transfer_encoding", "Only the transfer coding 'chunked' is understood.")
        length = None
    if host is None:
        return client_fault(400, "host", "The request has no Host field.")
    if (fault := underscored(fields)) is not None:
        return fault
    target = _origin_form(head.target, head.method, host)
    if isinstance(target, Fault):
        return target
    if connection is not None and (names := nominated(connection)):
        fields = [field for field in fields if field[0] not in names]
    request = Request(head.method, host, target, fields, length, H1, peer)
    if expect is not None:
        if expect.strip().lower() != b"100-continue":
            return client_fault(417, "expect", "Only 'Expect: 100-continue' is understood.")
        request.expects = head.minor == 1 and not head.body.done
    if head.upgrade or head.method == b"CONNECT":
        if head.method != b"GET" or upgrade is None or upgrade.strip().lower() != b"websocket" or length != 0 or head.minor == 0:
            return client_fault(400, "upgrade", "The only upgrade that is understood is GET with 'Upgrade: websocket'.")
        request.upgrade = True
    return request


def _bounds(head: Head, client: Client) -> Fault | None:
    """The configuration's bounds, and what is not HTTP/1.x at all."""
    if len(head.target) > client.max_url:
        return client_fault(414, "url_too_long", "The request target is too long.")
    if len(head.fields) + len(head.framing) > client.max_headers:
        return client_fault(431, "too_many_fields", "The request has too many header fields.")
    if head.method in _OTHER_PROTOCOLS or head.other_protocol:
        return client_fault(400, "protocol", "This server speaks HTTP.")
    if head.minor < 0:
        return client_fault(505, "version", "This server speaks HTTP/1.1, HTTP/1.0 and HTTP/2.")
    return None


def _origin_form(target: bytes, method: bytes, host: bytes) -> bytes | Fault:
    """Path and query of the request target (RFC 9112 §3.2)."""
    if target.startswith(b"/"):
        return target
    if target == b"*" and method == b"OPTIONS":
        return target
    scheme, separator, rest = target.partition(b"://")
    if separator and scheme.lower() in {b"http", b"https"}:
        end = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
        # RFC 9112 §3.2.2 would replace Host by the target's; two different names are an attempt to be routed twice.
        if rest[:end].lower() != host.lower():
            return client_fault(400, "authority", "The request target and the Host field name different hosts.")
        path = rest[end:]
        return path if path.startswith(b"/") else b"/" + path
    return client_fault(400, "target", "The request target must be a path, or a full http(s) URL.")
