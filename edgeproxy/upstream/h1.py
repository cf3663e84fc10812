# One HTTP/1.1 connection to one target: a request out, its reply pushed into the exchange; it decides nothing else.
"""HTTP/1.1 client connection.

The connection serves plain TCP (`buffer_updated` on the worker's read buffer) and TLS (`data_received` behind
`listen.tls.TlsConnection`). How a request is framed is `upstream/framing.py`, how a reply is read `upstream/reply.py`.
After any framing error the connection is closed, never reused.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from httptools import HttpParserError

from edgeproxy.deadlines import NEVER
from edgeproxy.faults import Fault
from edgeproxy.message import Reply
from edgeproxy.policy.headers import clean_trailers
from edgeproxy.transport import READ_BUFFER, Transport
from edgeproxy.upstream import failures
from edgeproxy.upstream.framing import chunk, last_chunk, opening
from edgeproxy.upstream.known import KnownHead
from edgeproxy.upstream.reply import NO_CONTENT, ReplyReader, Switched

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.upstream.pool import Target

_WRITE_HIGH = 64 * 1024  # bytes in the transport before the request body is held back
_SMALL = 16 * 1024  # bytes of a read that may be a whole reply; larger ones are not worth a copy


class UpstreamConnection(asyncio.BufferedProtocol):
    """One connection; `exchange` is the request it works on, None while it is idle or connecting.

    Attributes:
        deadline: when the current phase (first byte, idle between chunks, total, idle in the pool) is over.
        opened: `connection_made` was called.
        made: it was handed to the pool for use; `connection_lost` will be called.
        gone: its place in the pool was given back.
        busy: taken from the pool; it counts as active there.
        reused: it has carried a request before the current one.
        tail: last chunk of an event stream without a length that was passed on: it says whether the stream stands at an
            event boundary, so that an error event may follow. b"" for everything else.
        tunnel: bytes pass both ways unparsed (after 101).
    """

    __slots__ = (
        "_held", "_phase", "_reader", "_reply", "_request_done", "_total", "busy", "deadline", "exchange", "gone",
        "idle_timeout", "made", "opened", "reused", "tail", "target", "transport", "tunnel",
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
        self._reader = ReplyReader()
        self._reply: Reply | None = None  # the one being received, from its head on
        self._request_done = True
        self._held = False  # reading is paused for the client
        self._phase = "idle"
        self._total = NEVER

    # -- the exchange's side -------------------------------------------------------------------------------------

    def begin(self, exchange: Exchange, head: bytes, total: float = NEVER) -> None:
        """Send a request.

        Args:
            head: ends where the ray id's value goes; framing fields and the blank line come behind it.
            total: when `timeouts.total` runs out, which began with the request's arrival.
        """
        self.exchange = exchange
        exchange.attempt = self
        pool = self.target.pool
        self._phase = "first_byte"
        due = pool.deadlines.now + pool.settings.timeouts.first_byte
        self._total = total
        self.deadline = due if total is NEVER else min(due, total)
        self.tail = b""
        self.tunnel = False
        request, body, transport = exchange.request, exchange.body, self.transport
        assert transport is not None
        self._reader.head_only = request.method == b"HEAD"
        self._request_done = done = body.done or request.upgrade
        sink = exchange.sink
        transport.write(opening(head + exchange.ray, request, body))
        if not done:
            body.consumer = self
            if sink is not None:
                sink.proceed()

    def body_data(self, data: bytes) -> None:
        """More of the request body."""
        exchange, transport = self.exchange, self.transport
        if exchange is None or transport is None:
            return
        if exchange.request.length is None:
            data = chunk(data)
        transport.write(data)
        # The clock of the first byte starts when the upload is through; until then each chunk is progress.
        if self._phase == "first_byte":
            self._touch()
        if transport.get_write_buffer_size() > _WRITE_HIGH:
            exchange.body.pause()

    def body_end(self) -> None:
        """The request body is complete."""
        exchange, transport = self.exchange, self.transport
        if exchange is None or transport is None or self._request_done:
            return
        self._request_done = True
        if exchange.request.length is None:
            route, fields, rules = exchange.plan.route, exchange.body.trailers, exchange.plan.snapshot.rules
            wanted = route is not None and route.trailers
            removed = frozenset() if rules is None else rules.removed
            transport.write(last_chunk(clean_trailers(fields, removed) if fields and wanted else ()))

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
        """It will never be used."""
        self._reader.discard()
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
        if exchange is None:
            # Nothing was asked: whatever this is, it must not be taken for the answer to the next request.
            self._close()
            return
        if self.tunnel:
            self._touch()
            exchange.write(bytes(data), False)
            return
        reader = self._reader
        first = False
        if self._reply is None:
            if not reader.fed and len(data) <= _SMALL and not reader.head_only:
                data = bytes(data)
                found = self.target.heads.match(data)
                if found is not None:
                    self._answered(exchange, *found)
                    return
                first = True
            if reader.fed < 7 and not reader.is_http(data):
                self._fail(failures.not_http())
                return
        try:
            reader.feed(data)
        except Switched as switch:
            self._switch(exchange, bytes(data[switch.args[0] :]))
            return
        except HttpParserError as error:
            self._fail(failures.malformed(error))
            return
        # What these bytes mean for the exchange: at most one call into it.
        chunks = reader.chunks
        if chunks:
            content = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            reader.chunks = []
        else:
            content = b""
        if reader.head_ready:
            self._begun(exchange, data, content, first)
        elif self._reply is None:
            if reader.endless(len(data)):
                self._fail(failures.too_large())
        elif reader.complete:
            self._pass_trailers(exchange)
            self._finish(exchange)
            exchange.write(content, True)
        elif content:
            self.deadline = min(self.target.pool.deadlines.now + self.target.pool.settings.timeouts.idle, self._total)
            if self._reply.stream and self._reply.length is None:
                self.tail = content if len(content) >= 4 else self.tail[-4:] + content
            exchange.write(content, False)

    def eof_received(self) -> bool:
        """The upstream closed its side; behind TLS only after its close_notify."""
        exchange = self.exchange
        if exchange is not None and self._reply is not None and not self._reader.delimited() and not self.tunnel:
            self._reader.keep_alive = False
            self._finish(exchange)
            exchange.write(b"", True)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone; an exchange on it has failed, unless it was complete."""
        exchange, self.exchange = self.exchange, None
        self.transport = None
        self._reader.discard()
        self.target.closed(self)
        if exchange is None:
            return
        if self.tunnel:
            exchange.gateway.end_tunnel(exchange)
            return
        # RFC 9110 §9.2.2: a reused connection that died before a byte came back; the pool knows whether repeating does harm.
        retry = self.reused and self._reader.fed == 0 and self._request_done
        fault = failures.truncated() if self._reply is not None else failures.closed(error, retry=retry)
        self.target.stats.resets += 1
        self.target.pool.failed(exchange, fault, self.tail)

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
        self._fail(failures.timeout(phase))

    # -- the reply -----------------------------------------------------------------------------------------------

    def _answered(self, exchange: Exchange, known: KnownHead, content: bytes) -> None:
        """A whole reply was read whose head is known; the parser never saw it and stands before the next one."""
        if known.kept is not None:
            self.idle_timeout = min(known.kept, self.target.pool.settings.keepalive)
        self._detach(exchange, True)
        reply = Reply(known.status, known.fields.copy(), len(content), False, known.stream)
        exchange.gateway.reply(exchange, reply, content, True)

    def _begun(self, exchange: Exchange, data: bytes | memoryview, content: bytes, first: bool) -> None:
        """The final head is complete.

        Args:
            first: `data` are bytes, and everything since the request.
        """
        reader = self._reader
        reader.head_ready = False
        reply = reader.head(len(data))
        if isinstance(reply, Fault):
            self._fail(reply)
            return
        if reader.kept is not None:
            self.idle_timeout = min(reader.kept, self.target.pool.settings.keepalive)
        self._reply = reply
        complete = reader.complete
        if complete:
            if reader.trailers:
                self._pass_trailers(exchange)
            length, kept, plain = reply.length, reader.kept, first and not reply.bodiless and not reader.upgrade
            if self._finish(exchange) and plain and length is not None:
                known = KnownHead(reply.status, reply.headers.copy(), reply.stream, kept)
                self.target.heads.learn(bytes(data), length, known)
        else:
            if reply.stream and reply.length is None:
                self.tail = content[-4096:]
            self._phase = "idle"
            self._touch()
            if self._request_done:
                exchange.body.forget()
        exchange.gateway.reply(exchange, reply, content, complete)

    def _pass_trailers(self, exchange: Exchange) -> None:
        """Trailers go on only where the route says so; RFC 9110 §6.5.1 lets an intermediary drop them."""
        route, sink, reader = exchange.plan.route, exchange.sink, self._reader
        # After an overrun the fields are those of a second reply that nobody asked for.
        if reader.trailers and not reader.overrun and route is not None and route.trailers and sink is not None:
            rules = exchange.plan.snapshot.rules
            sink.trailers(clean_trailers(reader.trailers, frozenset() if rules is None else rules.responses.removed))

    def _switch(self, exchange: Exchange, rest: bytes) -> None:
        """The upstream accepted the tunnel (101)."""
        reader = self._reader
        if not exchange.request.upgrade or reader.status != 101 or reader.upgrade.strip().lower() != b"websocket":
            self._fail(failures.switched())
            return
        self.tunnel = True
        self._phase = "idle"
        self._reply = reader.switched()
        self._touch()
        exchange.gateway.open_tunnel(exchange, self._reply, rest)

    def _finish(self, exchange: Exchange) -> bool:
        """The reply that was read is complete. Returns: the connection can be used again."""
        reader = self._reader
        # Bytes behind the reply were never asked for, and an end that is the connection's own ends it: no reuse for either.
        ended = reader.delimited() or reader.head_only or reader.status in NO_CONTENT
        clean = reader.keep_alive and ended and not reader.overrun
        if clean:
            reader.renew()  # before the pool may begin the next exchange on it
            self._reply = None
            self.tail = b""
        return self._detach(exchange, clean)

    def _detach(self, exchange: Exchange, clean: bool) -> bool:
        """The exchange is through with this connection: back to the pool, or close.

        Args:
            clean: as far as the reply is concerned the connection can be used again.

        Returns: it will be.
        """
        exchange.attempt = None
        body = exchange.body
        if not self._request_done:
            body.drop()
        elif body.consumer is not None:
            body.consumer = None
        self.exchange = None
        transport = self.transport
        # A reply that came before the request was out leaves it half sent.
        if not clean or not self._request_done or transport is None or transport.get_write_buffer_size():
            self._close()
            return False
        self.reused = True
        target = self.target
        self.deadline = target.pool.deadlines.now + self.idle_timeout
        if self._held:
            self._held = False
            transport.resume_reading()
        target.released(self)
        return True

    def _touch(self) -> None:
        pool = self.target.pool
        timeouts = pool.settings.timeouts
        wait = timeouts.first_byte if self._phase == "first_byte" else timeouts.idle
        self.deadline = min(pool.deadlines.now + wait, self._total)

    def _fail(self, fault: Fault) -> None:
        exchange, self.exchange = self.exchange, None
        self._close()
        if exchange is not None:
            self.target.pool.failed(exchange, fault, self.tail)

    def _close(self) -> None:
        self.deadline = NEVER
        if self.transport is not None:
            # Nothing we still want to say: a reset frees the upstream at once.
            self.transport.abort()
