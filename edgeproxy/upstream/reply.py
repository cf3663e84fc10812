# What llhttp makes of a reply is collected here and judged when `feed` has returned; nothing here acts on anything.
"""`ReplyReader`: from the bytes of a reply to its head, content, trailers and end (RFC 9112 §4, §6).

llhttp hands heads out before it objects to their framing, so whoever feeds it acts only after `feed`.
"""

from __future__ import annotations

from collections.abc import Callable

import httptools

from edgeproxy.faults import Fault
from edgeproxy.message import Headers, Reply
from edgeproxy.policy.headers import REPLY_FIELDS, nominated
from edgeproxy.upstream import failures

_MAX_HEAD = 64 * 1024  # bytes of a reply head, interim heads included
_MAX_INTERIM = 8  # 1xx heads before a final one
_MAX_FIELDS = 200
_VERSION = b"HTTP/1."
NO_CONTENT = frozenset({204, 304})
_PLAIN_CONNECTION = frozenset({b"keep-alive", b"close"})  # values that nominate no fields

Switched = httptools.HttpParserUpgrade


class ReplyReader:
    """Reads the replies on one connection, one after the other.

    Attributes:
        feed: read on (llhttp's own method). Raises httptools.HttpParserError; `Switched` with the offset behind the head
            when the upstream says that it speaks another protocol from there on.
        fed: bytes of the current reply in reads before the one that completed its head; 0 between two replies.
        head_only: the reply is to HEAD: it ends with its head.
        status: of the head that was read last, an interim one perhaps.
        upgrade: value of its Upgrade field.
        kept: seconds after which an idle connection should be left, by its Keep-Alive field; None when it says nothing.
        length: value of its Content-Length field, None when there is none.
        head_ready: a final head is complete; set by `feed`, cleared by who takes it.
        complete: the reply is.
        overrun: bytes came behind it that nobody asked for.
        keep_alive: the upstream will read another request.
        chunks: content since it was last taken.
        trailers: field lines behind the content (and those of a head that is not complete yet).
    """

    __slots__ = (
        "_connection", "_fields", "_framing", "_interim", "_parser", "_stream", "chunks", "complete", "fed", "feed",
        "head_only", "head_ready", "keep_alive", "kept", "length", "overrun", "status", "trailers", "upgrade",
    )  # fmt: skip

    def __init__(self) -> None:
        self._begin()
        self.head_only = False
        self.keep_alive = False
        self.overrun = False
        self.head_ready = False
        self.chunks: list[bytes] = []
        self.status = 0
        self._fields: Headers = []  # of the final head
        self._reset()

    def _begin(self) -> None:
        """Another parser."""
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self.feed: Callable[[bytes | memoryview], None] = self._parser.feed_data

    def _reset(self) -> None:
        self.fed = 0
        self.complete = False
        self.trailers: Headers = []
        self._interim = 0
        self._forget()

    def _forget(self) -> None:
        """What a head says of its own message."""
        self.length: int | None = None
        self.upgrade = b""
        self.kept: float | None = None
        self._framing: list[bytes] | None = None
        self._connection: list[bytes] | None = None
        self._stream = False

    def renew(self) -> None:
        """The reply was complete and everything in order: stand before the next one."""
        if self.head_only:
            # llhttp does not know the request; its idea of a body is thrown away with the parser.
            self._begin()
        self._reset()

    def discard(self) -> None:
        """Nothing more will be read. Parser and reader hold each other: the cycle ends here."""
        self._parser = None
        self.feed = _ignore

    def is_http(self, data: bytes | memoryview) -> bool:
        """The reply begins like HTTP/1.x. llhttp takes RTSP and ICE status lines too, and HTTP/2.0."""
        start = _VERSION[self.fed : self.fed + len(data)]
        return data[: len(start)] == start

    def delimited(self) -> bool:
        """The reply says where it ends."""
        return self.length is not None or self._framing is not None

    # -- httptools callbacks: collect only -----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """The first byte of a message. Behind a complete reply nobody asked for another one, be it a single byte of it."""
        if self.complete:
            self.overrun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field line, or one of the trailers."""
        if self.complete:
            return  # of a second reply that nobody asked for: it must not touch the first (`on_headers_complete`)
        name = name.lower()
        if name not in REPLY_FIELDS:
            self.trailers.append((name, value))
        elif name == b"content-type":
            self.trailers.append((name, value))
            self._stream = value[:17].lower() == b"text/event-stream"
        elif name == b"content-length":
            self.length = int(value)
        elif name == b"transfer-encoding":
            self._framing = [*(self._framing or ()), value.strip().lower()]
        elif name == b"connection":
            if value.lower() not in _PLAIN_CONNECTION:
                self._connection = [*(self._connection or ()), value]
        elif name == b"keep-alive":
            self._keep_alive(value)
        elif name == b"upgrade":
            self.upgrade = value

    def on_headers_complete(self) -> None:
        """A head is complete, interim ones included; its trustworthiness is decided after `feed`."""
        assert self._parser is not None
        if self.complete:
            self.overrun = True
            return
        status = self._parser.get_status_code()
        self.status = status
        if 100 <= status < 200 and status != 101:
            self._interim += 1
            return
        self.keep_alive = self._parser.should_keep_alive()
        self.head_ready = True
        self._fields, self.trailers = self.trailers, []  # what comes now are trailers
        self._interim = 0
        if self.head_only:
            self.complete = True

    def on_body(self, data: bytes) -> None:
        """A piece of content."""
        if self.complete:
            self.overrun = True
        else:
            self.chunks.append(data)

    def on_message_complete(self) -> None:
        """The message ended by its framing."""
        if 100 <= self.status < 200 and self.status != 101:
            # Nothing an interim head says is true of the final one.
            self.trailers = []
            self.chunks = []
            self._forget()
        else:
            self.complete = True

    def _keep_alive(self, value: bytes) -> None:
        """`Keep-Alive: timeout=5`: leave before the upstream does, so that no request meets a closing connection."""
        for part in value.split(b","):
            key, _, number = part.strip().partition(b"=")
            if key.lower() == b"timeout" and number.isdigit():
                self.kept = max(0.0, int(number[:6]) - 1.0)

    # -- judgement -----------------------------------------------------------------------------------------------

    def endless(self, size: int) -> bool:
        """No final head after `size` more bytes: is it still bearable?"""
        self.fed += size
        return self.fed > _MAX_HEAD or self._interim > _MAX_INTERIM or len(self.trailers) > _MAX_FIELDS

    def head(self, size: int) -> Reply | Fault:
        """The reply's head as the client will see it, or why it is not believed. To be asked once.

        Args:
            size: bytes of the read that completed it.
        """
        fields, self._fields = self._fields, []
        length, framing, status = self.length, self._framing, self.status
        if framing is not None and (framing != [b"chunked"] or length is not None):
            return failures.framing()
        if len(fields) > _MAX_FIELDS:
            return failures.too_large()
        # The read was large enough that the head in it may be over the bound: add it up.
        if self.fed + size > _MAX_HEAD and sum(len(name) + len(value) + 4 for name, value in fields) > _MAX_HEAD:
            return failures.too_large()
        if status < 200 or status > 599:
            return failures.status(status)
        if self._connection is not None:
            names = nominated(self._connection)
            fields = [field for field in fields if field[0] not in names]
        return Reply(status, fields, length, self.head_only or status in NO_CONTENT, self._stream)

    def switched(self) -> Reply:
        """The head of a 101."""
        self.head_ready = self.complete = False
        fields, self._fields = self._fields, []
        return Reply(101, fields, None)


def _ignore(data: bytes | memoryview) -> None:
    """What is read when nothing is read any more."""
