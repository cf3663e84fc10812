# What llhttp says of a client's bytes, collected and bounded; nothing is answered here, and no exchange begins.
"""`Collector`: httptools' callbacks, the heads and the body they fill in, and the bounds on what is not content."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import httptools

from edgeproxy.faults import Fault, client_fault
from edgeproxy.listen.h1_head import OTHER_PROTOCOL, Head
from edgeproxy.listen.repeat import Repeat
from edgeproxy.message import Body, Headers
from edgeproxy.policy.headers import REQUEST_FIELDS

if TYPE_CHECKING:
    from edgeproxy.config.model import Client

_CHUNK_OVERHEAD = 24  # bytes of framing a chunk may cost without being suspicious: 16 digits and two CRLF
_MAX_OVERHEAD = 16 * 1024  # bytes of chunk extensions and trailers in one body
_MAX_TRAILERS = 100
_OPTIONS = b"OPTIONS "


class Collector:
    """The parsing half of an `H1Connection`, which is one and acts on what is collected."""

    __slots__ = (
        "_body", "_chunks", "_fields", "_framing", "_heads", "_in_body", "_in_message", "_line", "_overhead", "_parser",
        "_partial", "_trailers", "_url",
    )  # fmt: skip

    def __init__(self) -> None:
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._heads: deque[Head] | None = None  # complete, and not yet begun
        self._body: Body | None = None  # of the message being received
        self._url = b""
        self._fields: Headers = []
        self._framing: Headers = []
        self._trailers: Headers | None = None
        self._in_message = False  # the parser has seen the start of a message and not its end
        self._in_body = False
        self._partial = 0  # bytes of the head being received, counted only while it spans reads
        self._line = b""  # the start of a head that spans reads
        self._overhead = 0
        self._chunks = 0

    def consumed(self, size: int) -> None:
        """See `BodySource`."""
        raise NotImplementedError

    def too_large(self, body: Body) -> None:
        """A body is over its limit."""
        raise NotImplementedError

    # -- httptools callbacks -------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """The first byte of a head."""
        self._in_message = True

    def on_url(self, url: bytes) -> None:
        """The request target, or a piece of it."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field line, or one of the trailers."""
        name = name.lower()
        if self._in_body:
            if self._trailers is None:
                self._trailers = []
            if name not in REQUEST_FIELDS and len(self._trailers) < _MAX_TRAILERS:
                self._trailers.append((name, value))
        elif name in REQUEST_FIELDS:
            self._framing.append((name, value))
        else:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """A head is complete. It is looked at after `feed_data` has returned."""
        parser = self._parser
        if parser is None:
            return  # refused from inside this very read
        self._body = body = Body(self)
        head = Head(
            parser.get_method(), self._url, self._fields, self._framing, parser.get_http_version(),
            parser.should_keep_alive(), parser.should_upgrade(), body,
        )  # fmt: skip
        if self._heads is None:
            self._heads = deque()
        self._heads.append(head)
        self._url = b""
        self._fields = []
        self._framing = []
        self._trailers = None
        self._in_body = True
        self._overhead = 0

    def on_chunk_header(self) -> None:
        """The size line of a chunk."""
        self._chunks += 1

    def on_body(self, data: bytes) -> None:
        """A piece of content. Before the head was looked at it waits in the body; later it goes straight on."""
        body = self._body
        if body is not None and not body.push(data):
            self.too_large(body)

    def on_message_complete(self) -> None:
        """The message ended by its framing."""
        self._in_body = self._in_message = False
        body, self._body = self._body, None
        if body is not None:
            body.trailers = self._trailers
            body.finish()

    # -- bounds --------------------------------------------------------------------------------------------------

    def _overran(self, size: int, content: int) -> bool:
        """Of a read of `size` bytes `content` were content: whether chunk lines, extensions and trailers are too many."""
        self._overhead += max(0, size - content - _CHUNK_OVERHEAD * self._chunks)
        self._chunks = 0
        return self._overhead > _MAX_OVERHEAD

    def _grew(self, data: memoryview, client: Client) -> Fault | None:
        """A read brought part of a head: the fault when it is over its bounds already."""
        self._partial += len(data)
        if len(self._line) <= client.max_url:
            self._line += bytes(data)
        if len(self._url) > client.max_url:
            return client_fault(414, "url_too_long", "The request target is too long.")
        if self._partial > client.max_head or len(self._fields) + len(self._framing) > client.max_headers:
            return _head_too_large()
        return None

    def _examine(self, raw: bytes, limit: int, fresh: bool) -> None:
        """A read completed one head or more: what has to be seen in its bytes.

        Args:
            limit: bytes a head may have.
            fresh: the first byte of the read was the first of a message.
        """
        heads = self._heads
        assert heads is not None
        # OPTIONS is a method of RTSP and ICE too: there the request line has to be seen.
        for head in heads:
            if head.method == b"OPTIONS" and OTHER_PROTOCOL.search(self._line + raw) is not None:
                head.other_protocol = True
        # The next head may have begun behind the last complete one.
        rest = raw[raw.rfind(b"\r\n\r\n") + 4 :].lstrip(b"\r\n") if not self._in_body else b""
        self._line = rest if rest and _OPTIONS.startswith(rest[: len(_OPTIONS)]) else b""
        if self._partial + len(raw) > limit:
            # Large enough that a complete head may be over the bound: add it up.
            for head in heads:
                lines = sum(len(name) + len(value) + 4 for name, value in head.fields + head.framing)
                if lines + len(head.target) > limit:
                    head.flaw = _head_too_large()
        elif fresh and len(heads) == 1:
            head = heads[0]
            if head.keep_alive and not head.upgrade and head.flaw is None:
                head.repeat = Repeat.of(raw)
        self._partial = 0


def _head_too_large() -> Fault:
    return client_fault(431, "head_too_large", "The request head is too large.")
