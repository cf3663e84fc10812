# One HTTP/1.1 connection to one target: a request out, its reply pushed into the exchange; it decides nothing else.
"""HTTP/1.1 client connection over httptools.

The connection serves plain TCP (`buffer_updated` on the worker's read buffer) and TLS (`data_received` behind
`listen.tls.TlsConnection`). Heads are acted upon only after `feed_data` has returned: llhttp hands them out before it
objects to their framing. After any framing error the connection is closed, never reused.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httptools

from edgeproxy.deadlines import NEVER
from edgeproxy.faults import Fault, upstream_fault
from edgeproxy.message import Headers, Reply
from edgeproxy.policy.headers import REPLY_FIELDS, clean_trailers, nominated
from edgeproxy.transport import READ_BUFFER, Transport

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.upstream.pool import Target

_MAX_HEAD = 64 * 1024  # bytes of a reply head, interim heads included
_MAX_INTERIM = 8  # 1xx heads before a final one
_MAX_FIELDS = 200
_VERSION = b"HTTP/1."
_WRITE_HIGH = 64 * 1024  # bytes in the transport before the request body is held back
_NO_CONTENT = frozenset({204, 304})
_PLAIN_CONNECTION = frozenset({b"keep-alive", b"close"})  # values that nominate no fields


class UpstreamConnection(asyncio.BufferedProtocol):
    """One connection; `exchange` is the request it works on, None while it is idle or connecting.

    Attributes:
        deadline: when the current phase (first byte, idle between chunks, total, idle in the pool) is over.
        opened: `connection_made` was called.
        made: it was handed to the pool for use; `connection_lost` will be called.
        gone: its place in the pool was given back.
        busy: taken from the pool; it counts as active there.
        reused: it has carried a request before the current one.
        tail: last chunk that was passed on; says whether an event stream stands at an event boundary.
        tunnel: bytes pass both ways unparsed (after 101).
    """

    __slots__ = (
        "_chunks", "_complete", "_connection", "_fed", "_fields", "_framing", "_head_fields", "_head_ready", "_held",
        "_interim", "_keep_alive", "_length", "_overrun", "_parser", "_phase", "_reply", "_request_done", "_status",
        "_stream", "_total", "_upgrade", "busy", "deadline", "exchange", "gone", "idle_timeout", "made", "opened",
        "reused", "tail", "target", "transport", "tunnel",
    )  # fmt: skip

    def __init__(self, target: Target) -> None:
        self.target = target
        self.transport: Transport | None = None
        self.exchange: Exchange | None = None
        self.deadline = NEVER
        self.reused = False
        self.opened = False
        self.made = False
        self.gone = False
        self.busy = True
        self.tunnel = False
        self.tail = b""
        self.idle_timeout = target.pool.settings.keepalive
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._request_done = True
        self._held = False  # reading is paused for the client
        self._phase = "idle"
        self._total = NEVER
        # Of the reply being received:
        self._fields: Headers = []
        self._head_fields: Headers = []
        self._framing: list[bytes] | None = None
        self._upgrade = b""
        self._stream = False
        self._connection: list[bytes] | None = None
        self._chunks: list[bytes] = []
        self._status = 0
        self._length: int | None = None
        self._head_ready = False
        self._complete = False
        self._interim = 0
        self._keep_alive = False
        self._overrun = False
        self._fed = 0
        self._reply: Reply | None = None

    # -- the exchange's side -------------------------------------------------------------------------------------

    def begin(self, exchange: Exchange, head: bytes) -> None:
        """Send a request. `head` ends where the ray id's value goes; framing fields and the blank line come behind it."""
        self.exchange = exchange
        exchange.attempt = self
        pool = self.target.pool
        now = pool.deadlines.now
        timeouts = pool.settings.timeouts
        self._phase = "first_byte"
        total = self._total = NEVER if timeouts.total is None else now + timeouts.total
        due = now + timeouts.first_byte
        self.deadline = due if due < total else total
        self.tail = b""
        self.tunnel = False
        request = exchange.request
        body = exchange.body
        transport = self.transport
        assert transport is not None
        head += exchange.ray
        if request.upgrade:
            transport.write(head + b"\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            self._request_done = True
            return
        if body.done:
            self._request_done = True
            content = body.take()
            if content or (request.length is not None and request.length != 0):
                transport.write(b"%b\r\ncontent-length: %d\r\n\r\n%b" % (head, len(content), content))
            elif request.length == 0 and request.method in _WITH_CONTENT:
                transport.write(head + b"\r\ncontent-length: 0\r\n\r\n")
            else:
                transport.write(head + b"\r\n\r\n")
            return
        self._request_done = False
        content = body.take()
        sink = exchange.sink
        if request.length is not None:
            transport.write(b"%b\r\ncontent-length: %d\r\n\r\n%b" % (head, request.length, content))
        elif content:
            transport.write(b"%b\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (head, len(content), content))
        else:
            transport.write(head + b"\r\ntransfer-encoding: chunked\r\n\r\n")
        body.consumer = self
        if sink is not None:
            sink.proceed()

    def body_data(self, data: bytes) -> None:
        """More of the request body."""
        exchange, transport = self.exchange, self.transport
        if exchange is None or transport is None:
            return
        if exchange.request.length is None:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        transport.write(data)
        # The clock of the first byte starts when the upload is through; until then each chunk is progress.
        if self._phase == "first_byte":
            pool = self.target.pool
            self.deadline = min(pool.deadlines.now + pool.settings.timeouts.first_byte, self._total)
        if transport.get_write_buffer_size() > _WRITE_HIGH:
            exchange.body.pause()

    def body_end(self) -> None:
        """The request body is complete."""
        exchange, transport = self.exchange, self.transport
        if exchange is None or transport is None or self._request_done:
            return
        self._request_done = True
        if exchange.request.length is None:
            route, fields = exchange.plan.route, exchange.body.trailers
            if fields and route is not None and route.trailers:
                fields = clean_trailers(fields)
                lines = b"".join([name + b": " + value + b"\r\n" for name, value in fields])
                transport.write(b"0\r\n" + lines + b"\r\n")
            else:
                transport.write(b"0\r\n\r\n")

    def tunnel_data(self, data: bytes) -> None:
        """Bytes from the client through an open tunnel."""
        if self.transport is not None and self.exchange is not None:
            self.transport.write(data)
            self._touch()
            if self.transport.get_write_buffer_size() > _WRITE_HIGH:
                self.exchange.body.pause()

    def pause(self) -> None:
        """The client is slow: stop reading. Its own deadline runs, not the upstream's idle timer."""
        if self.transport is not None:
            self._held = True
            self.transport.pause_reading()
            self.deadline = self._total

    def resume(self) -> None:
        """The client drained."""
        if self.transport is not None:
            self._held = False
            self.transport.resume_reading()
            self._touch()

    def cancel(self) -> None:
        """The client left: HTTP/1.1 knows no other way to say so than closing the connection."""
        self.exchange = None
        self._close()

    def discard(self) -> None:
        """It will never be used. Parser and connection hold each other: the cycle ends here."""
        self._parser = None
        transport, self.transport = self.transport, None
        if transport is not None:
            transport.abort()

    # -- the transport's side ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open (and its TLS handshake done)."""
        self.opened = True
        self.transport = transport  # type: ignore[assignment]  # uvloop's transport or a TlsConnection: both fit

    def get_buffer(self, sizehint: int) -> memoryview:
        """The worker's shared read buffer (plain TCP)."""
        del sizehint
        return READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """`nbytes` were read into the shared buffer (plain TCP)."""
        self.data_received(READ_BUFFER[:nbytes])

    def data_received(self, data: bytes | memoryview) -> None:
        """Bytes of the reply: parse, then act on what is known now."""
        exchange = self.exchange
        if exchange is None or self._parser is None:
            # Nothing was asked: whatever this is, it must not be taken for the answer to the next request.
            self._close()
            return
        if self.tunnel:
            self._touch()
            exchange.write(bytes(data), False)
            return
        if self._fed < 7 and self._reply is None:
            # llhttp takes RTSP and ICE status lines too, and HTTP/2.0.
            start = _VERSION[self._fed : self._fed + len(data)]
            if data[: len(start)] != start:
                self._fail(upstream_fault(502, "reply_version", "The upstream does not answer in HTTP/1.x."))
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as switch:
            self._switch(exchange, bytes(data[switch.args[0] :]))
            return
        except httptools.HttpParserError as error:
            self._fail(upstream_fault(502, "malformed_reply", f"The upstream's reply is not valid HTTP/1.1: {error}."))
            return
        # What these bytes mean for the exchange: at most one call into it.
        chunks = self._chunks
        if chunks:
            content = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self._chunks = []
        else:
            content = b""
        complete = self._complete
        if self._head_ready:
            self._head_ready = False
            large = self._fed + len(data) > _MAX_HEAD and self._oversized()
            reply = _too_large() if large else self._head(exchange)
            if isinstance(reply, Fault):
                self._fail(reply)
                return
            self._reply = reply
            if not complete and reply.stream:
                self.tail = content[-4096:]
            if complete:
                if self._fields:
                    self._pass_trailers(exchange)
                self._finish(exchange)
            else:
                self._phase = "idle"
                self._touch()
                if self._request_done:
                    exchange.body.forget()
            exchange.gateway.reply(exchange, reply, content, complete)
        elif self._reply is None:
            self._fed += len(data)
            if self._fed > _MAX_HEAD or self._interim > _MAX_INTERIM or len(self._fields) > _MAX_FIELDS:
                self._fail(_too_large())
        elif complete:
            self._pass_trailers(exchange)
            self._finish(exchange)
            exchange.write(content, True)
        elif content:
            self.deadline = min(self.target.pool.deadlines.now + self.target.pool.settings.timeouts.idle, self._total)
            if self._reply.stream:
                self.tail = content if len(content) >= 4 else self.tail[-4:] + content
            exchange.write(content, False)

    def eof_received(self) -> bool:
        """The upstream closed its side; behind TLS only after its close_notify."""
        exchange = self.exchange
        if exchange is not None and self._reply is not None and not self._delimited() and not self.tunnel:
            self._keep_alive = False
            self._finish(exchange)
            exchange.write(b"", True)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone; an exchange on it has failed, unless it was complete."""
        exchange, self.exchange = self.exchange, None
        self.transport = None
        self._parser = None
        self.target.closed(self)
        if exchange is None:
            return
        if self.tunnel:
            exchange.gateway.end_tunnel(exchange)
            return
        if self._reply is not None:
            fault = upstream_fault(502, "truncated", "The upstream closed the connection before its reply was complete.")
        else:
            detail = f" ({error})" if error is not None else ""
            fault = upstream_fault(
                502, "closed", f"The upstream closed the connection before it answered{detail}.", retry=self._repeatable()
            )
        self.target.stats.resets += 1
        self.target.pool.failed(exchange, fault, self._last_words())

    def pause_writing(self) -> None:
        """The socket to the upstream is full."""
        if self.exchange is not None:
            self.exchange.body.pause()

    def resume_writing(self) -> None:
        """The socket to the upstream drained."""
        if self.exchange is not None:
            self.exchange.body.resume()

    def expire(self, now: float) -> None:
        """A timer ran out: the one of the current phase, or of the whole exchange."""
        exchange = self.exchange
        if exchange is None:
            self.deadline = NEVER
            self.target.retire(self)
            return
        phase = "total" if now > self._total else self._phase
        timeouts = self.target.stats.timeouts
        timeouts[phase] = timeouts.get(phase, 0) + 1
        waited = {"first_byte": "did not begin to answer", "idle": "stopped in the middle of its answer"}
        what = waited.get(phase, "did not finish its answer")
        self._fail(upstream_fault(504, f"{phase}_timeout", f"The upstream {what} in time."))

    # -- httptools callbacks: collect only -----------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field line, or one of the trailers."""
        if self._complete:
            return  # of a second reply that nobody asked for: it must not touch the first (`on_headers_complete`)
        name = name.lower()
        if name not in REPLY_FIELDS:
            self._fields.append((name, value))
        elif name == b"content-type":
            self._fields.append((name, value))
            self._stream = value[:17].lower() == b"text/event-stream"
        elif name == b"content-length":
            self._length = int(value)
        elif name == b"transfer-encoding":
            self._framing = [*(self._framing or ()), value.strip().lower()]
        elif name == b"connection":
            if value.lower() not in _PLAIN_CONNECTION:
                self._connection = [*(self._connection or ()), value]
        elif name == b"keep-alive":
            self._idle_hint(value)
        elif name == b"upgrade":
            self._upgrade = value

    def on_headers_complete(self) -> None:
        """A head is complete, interim ones included; its trustworthiness is decided after `feed_data`."""
        assert self._parser is not None
        if self._complete:
            self._overrun = True
            return
        status = self._parser.get_status_code()
        self._status = status
        if 100 <= status < 200 and status != 101:
            self._interim += 1
            return
        self._keep_alive = self._parser.should_keep_alive()
        self._head_ready = True
        self._head_fields, self._fields = self._fields, []  # what comes now are trailers
        self._interim = 0
        if self.exchange is not None and self.exchange.request.method == b"HEAD":
            # llhttp does not know the request; its idea of a body is thrown away with the parser (`_finish`).
            self._complete = True

    def on_body(self, data: bytes) -> None:
        """A piece of content."""
        if self._complete:
            self._overrun = True
        else:
            self._chunks.append(data)

    def on_message_complete(self) -> None:
        """The message ended by its framing."""
        if 100 <= self._status < 200 and self._status != 101:
            # Nothing an interim head says is true of the final one.
            self._fields = []
            self._chunks = []
            self._length = self._framing = self._connection = None
            self._stream = False
            self._upgrade = b""
        else:
            self._complete = True

    def _oversized(self) -> bool:
        """The read was large enough that the head in it may be over the bound: add it up."""
        fields = self._head_fields
        return sum(len(name) + len(value) + 4 for name, value in fields) > _MAX_HEAD

    # -- decisions -----------------------------------------------------------------------------------------------

    def _head(self, exchange: Exchange) -> Reply | Fault:
        """The reply's head as the client will see it, or why it is not believed."""
        length, framing = self._length, self._framing
        if framing is not None and (framing != [b"chunked"] or length is not None):
            # RFC 9112 §6.3: two framings, or one we cannot read: the end of this message is anyone's guess.
            return upstream_fault(502, "reply_framing", "The upstream's reply has contradicting or unknown framing.")
        if len(self._head_fields) > _MAX_FIELDS:
            return _too_large()
        if self._status < 200 or self._status > 599 or self._status == 101:
            return upstream_fault(502, "reply_status", f"The upstream answered with the status {self._status}.")
        if self._connection is not None:
            for name in nominated(self._connection):
                self._head_fields = [field for field in self._head_fields if field[0] != name]
        bodiless = exchange.request.method == b"HEAD" or self._status in _NO_CONTENT
        fields, self._head_fields = self._head_fields, []
        stream, self._stream = self._stream, False
        return Reply(self._status, fields, length, bodiless, stream)

    def _pass_trailers(self, exchange: Exchange) -> None:
        """Trailers go on only where the route says so; RFC 9110 §6.5.1 lets an intermediary drop them."""
        route, sink = exchange.plan.route, exchange.sink
        # After an overrun the fields are those of a second reply that nobody asked for.
        if self._fields and not self._overrun and route is not None and route.trailers and sink is not None:
            sink.trailers(clean_trailers(self._fields))

    def _delimited(self) -> bool:
        """The current reply says where it ends."""
        return self._length is not None or self._framing is not None

    def _switch(self, exchange: Exchange, rest: bytes) -> None:
        """The upstream accepted the tunnel (101)."""
        if not exchange.request.upgrade or self._status != 101 or self._upgrade.strip().lower() != b"websocket":
            self._fail(upstream_fault(502, "reply_status", "The upstream switched protocols without being asked."))
            return
        fields, self._head_fields = self._head_fields, []
        self.tunnel = True
        self._phase = "idle"
        self._head_ready = False
        self._complete = False
        self._reply = Reply(101, fields, None)
        self._touch()
        exchange.gateway.open_tunnel(exchange, self._reply, rest)

    def _finish(self, exchange: Exchange) -> None:
        """The reply is complete: detach from the exchange and go back to the pool, or close."""
        # An early reply leaves a request half sent; bytes behind the reply were never asked for: no reuse for either.
        head_only = exchange.request.method == b"HEAD"
        delimited = self._length is not None or self._framing is not None or head_only or self._status in _NO_CONTENT
        exchange.attempt = None
        body = exchange.body
        if not self._request_done:
            body.drop()
        elif body.consumer is not None:
            body.consumer = None
        self.exchange = None
        transport = self.transport
        if not self._keep_alive or not self._request_done or self._overrun or not delimited or transport is None:
            self._close()
            return
        if transport.get_write_buffer_size():
            self._close()  # the reply came before the request was out
            return
        self.tail = b""
        if head_only:
            self._parser = httptools.HttpResponseParser(self)
        self._fields = []
        self._length = self._framing = self._connection = self._reply = None
        self._complete = False
        self._interim = self._fed = 0
        self.reused = True
        target = self.target
        self.deadline = target.pool.deadlines.now + self.idle_timeout
        if self._held:
            self._held = False
            transport.resume_reading()
        target.released(self)

    def _repeatable(self) -> bool:
        """A reused connection died before a byte came back, and sending the request again cannot do harm.

        RFC 9110 §9.2.2: idempotent methods, or a client that vouches with an idempotency key; and the body is still here.
        """
        return self.reused and self._fed == 0 and self._request_done

    def _last_words(self) -> bytes:
        """The end of what was passed on, when an error event may still follow it: an event stream without a length."""
        reply = self._reply
        if reply is None or reply.length is not None or not reply.stream:
            return b""
        return self.tail

    def _touch(self) -> None:
        pool = self.target.pool
        timeouts = pool.settings.timeouts
        wait = timeouts.first_byte if self._phase == "first_byte" else timeouts.idle
        self.deadline = min(pool.deadlines.now + wait, self._total)

    def _idle_hint(self, value: bytes) -> None:
        """`Keep-Alive: timeout=5`: leave before the upstream does, so that no request meets a closing connection."""
        for part in value.split(b","):
            key, _, number = part.strip().partition(b"=")
            if key.lower() == b"timeout" and number.isdigit():
                self.idle_timeout = min(self.target.pool.settings.keepalive, max(0.0, int(number[:6]) - 1.0))

    def _fail(self, fault: Fault) -> None:
        exchange, self.exchange = self.exchange, None
        self._close()
        if exchange is not None:
            self.target.pool.failed(exchange, fault, self._last_words())

    def _close(self) -> None:
        self.deadline = NEVER
        if self.transport is not None:
            # Nothing we still want to say: a reset frees the upstream at once.
            self.transport.abort()


def _too_large() -> Fault:
    return upstream_fault(502, "reply_head_too_large", "The upstream's reply head is too large.")


_WITH_CONTENT = frozenset({b"POST", b"PUT", b"PATCH"})
