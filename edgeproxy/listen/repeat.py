# A request head that was parsed, found valid and planned, so that the same bytes need not be again.
"""Heads that come again on a kept-alive HTTP/1.1 connection, as they were or with another target.

A chat client repeats its head byte for byte, but for the digits of Content-Length. Comparing bytes costs a twentieth of
parsing, checking and planning them, and nothing that differs can pass as the same. Who asks for one thing after the other repeats
all but the target: then only that is looked at, and what it means is decided anew.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgeproxy.message import Body, Request
from edgeproxy.observe.metrics import H1

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.gateway import Gateway
    from edgeproxy.listen.h1 import H1Connection
    from edgeproxy.message import Peer
    from edgeproxy.plan import Plan

_LENGTH = re.compile(rb"\r\nContent-Length:[ \t]*(\d+)(?=[ \t]*\r\n)", re.IGNORECASE)
_CODING = re.compile(rb"\r\nTransfer-Encoding:", re.IGNORECASE)
_MAX_DIGITS = 9
# Targets that mean the same to everybody; any other one is the parser's.
_TARGET = re.compile(rb"/[A-Za-z0-9/._~!$&'()*+,;=:@%?-]*")
_VERSION = b" HTTP/1.1"
_MAX_HEAD = 8 * 1024  # longer ones are not kept: they would be what an idle connection costs


class Repeat:
    """A raw head, cut open behind the request line and at the digits of Content-Length.

    Attributes:
        line: the request line.
        prefix: bytes from behind it up to the digits, or to the end of the head when there is no Content-Length.
        suffix: bytes behind the digits, blank line included; b"" when there is no Content-Length.
        request, plan, minor: what it came to; set by `learn` before the head is ever matched.
    """

    __slots__ = ("_digits", "_varies", "line", "minor", "plan", "prefix", "request", "suffix")

    request: Request
    plan: Plan

    def __init__(self, line: bytes, prefix: bytes, digits: bytes, suffix: bytes) -> None:
        self._digits = digits
        self._varies = False  # the target stands where it seems to
        self.line = line
        self.prefix = prefix
        self.suffix = suffix
        self.minor = 1

    @classmethod
    def of(cls, raw: bytes) -> Repeat | None:
        """The head at the start of `raw`, which begins a message and was found valid; None when it cannot be kept."""
        end = raw.find(b"\r\n\r\n") + 4
        if raw[:1] in b"\r\n":
            return None  # blank lines before the request line (RFC 9112 §2.2): its end is not the first blank line
        if end < 4 or end > _MAX_HEAD or _CODING.search(raw, 0, end) is not None:
            return None
        found = _LENGTH.search(raw, 0, end)
        line = raw.find(b"\r\n")
        if found is None:
            return cls(raw[:line], raw[line:end], b"", b"")
        return cls(raw[:line], raw[line : found.start(1)], found[1], raw[found.end(1) : end])

    def learn(self, request: Request, plan: Plan, minor: int) -> bool:
        """Keep what the head came to.

        Returns: False when the parser saw another framing than the cut shows. Such a head must not be used: what it
        took for content would be read as the next request.
        """
        digits = self._digits
        if request.length is None or request.length != (int(digits) if digits else 0) or bool(digits) is not bool(self.suffix):
            return False
        self.request = request
        self.plan = plan
        self.minor = minor
        self._varies = self.line == b"%b %b%b" % (request.method, request.target, _VERSION)
        return True

    def match(self, raw: bytes) -> int:
        """The length of the body when `raw` is this head with a whole body behind it and nothing more, else -1."""
        line = self.line
        return self._behind(raw, len(line)) if raw.startswith(line) else -1

    def _behind(self, raw: bytes, at: int) -> int:
        """The same about what stands behind the request line, which ends at `at`."""
        prefix, suffix = self.prefix, self.suffix
        if not raw.startswith(prefix, at):
            return -1
        at += len(prefix)
        if not suffix:
            return 0 if len(raw) == at else -1
        end = raw.find(b"\r", at, at + _MAX_DIGITS + 1)
        digits = raw[at:end]
        if end < 0 or not digits.isdigit() or not raw.startswith(suffix, end):
            return -1
        length = int(digits)
        return length if len(raw) == end + len(suffix) + length else -1

    def open(self, raw: bytes, gateway: Gateway, connection: H1Connection, peer: Peer) -> Exchange | None:
        """An exchange for a request whose head is known but for its Content-Length and its target, None when it is not.

        The same bytes that were found valid before need no second look, and the digits are checked here. The message
        must be whole; a longer body takes the ordinary way. To be called only while the parser stands between two
        messages, with nothing of the next one seen.
        """
        if self.plan.snapshot is not gateway.snapshot:
            return None
        length = self.match(raw)
        if length < 0:
            length = self._vary(raw, gateway, peer)
            if length < 0:
                return None
        body = Body(connection)
        if length:
            body.chunks.append(raw[-length:])
            body.received = length
        body.done = True
        known = self.request
        request = Request(known.method, known.authority, known.target, known.headers, length, H1, peer)
        return gateway.open(request, self.plan, body, connection)

    def _vary(self, raw: bytes, gateway: Gateway, peer: Peer) -> int:
        """As `match`, but for the target; it becomes this head's."""
        if not self._varies:
            return -1
        end, known, client = raw.find(b"\r\n"), self.request, gateway.snapshot.client
        start = len(known.method) + 1
        target = raw[start : end - len(_VERSION)]
        if raw[:start] != self.line[:start] or raw[end - len(_VERSION) : end] != _VERSION or _TARGET.fullmatch(target) is None:
            return -1
        length = self._behind(raw, end)
        if length < 0 or len(target) > client.max_url or len(raw) - length > min(_MAX_HEAD, client.max_head):
            return -1
        request = Request(known.method, known.authority, target, known.headers, length, H1, peer)
        self.line, self.request, self.plan = raw[:end], request, gateway.plan(request, self.plan)
        return length
