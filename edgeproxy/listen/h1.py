# HTTP/1.1 from clients: bytes to exchanges and replies to bytes. It routes nothing and decides no policy.
"""HTTP/1.1 server connection over httptools (RFC 9112).

llhttp hands out heads before it objects to their framing, so callbacks only collect; a head becomes an exchange after
`feed_data` has returned without an error (`listen/h1_collect.py`). What llhttp lets pass (HTTP/0.9, Transfer-Encoding on
1.0, unknown codings, a missing Host) is refused in `listen/h1_head.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import httptools

from edgeproxy.deadlines import NEVER
from edgeproxy.faults import Fault, client_fault
from edgeproxy.listen.h1_collect import Collector
from edgeproxy.listen.h1_head import Head, build_request
from edgeproxy.listen.h1_reply import reply_head
from edgeproxy.listen.h1_tunnel import Tunnel
from edgeproxy.listen.repeat import Repeat
from edgeproxy.message import Body, Headers, Peer, Reply
from edgeproxy.observe.metrics import H1
from edgeproxy.transport import Connection

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.gateway import Gateway

_MAX_PIPELINED = 16  # complete requests that may wait behind the current one before reading stops
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

__all__ = ["Connection", "H1Connection"]


class H1Connection(Collector):
    """One client connection; it is the sink of its current exchange and the source of its body.

    Attributes:
        exchange: the current one; requests behind it wait in order (RFC 9112 §9.3.2).
    """

    __slots__ = (
        "_chunked", "_close", "_delimited", "_draining", "_expects", "_feeding", "_minor", "_paused", "_peer", "_poison",
        "_poison_host", "_ready", "_repeat", "_rest", "_running", "_stalled", "_tail", "_tunnel", "connection", "exchange",
        "gateway",
    )  # fmt: skip

    def __init__(self, connection: Connection, gateway: Gateway, peer: Peer) -> None:
        super().__init__()
        self.connection = connection
        self.gateway = gateway
        self.exchange: Exchange | None = None
        self._peer = peer
        self._feeding = False  # inside feed_data
        self._running = False  # inside `_next`
        self._paused = False  # we stopped reading
        self._stalled = False  # the client does not read
        self._draining = False
        self._rest = b""  # bytes behind an upgrade request, until that has its turn
        self._tunnel: Tunnel | None = None  # the current request asks for one
        self._poison: Fault | None = None  # said when the current exchange is over; then the connection closes
        self._poison_host: bytes | None = None
        self._repeat: Repeat | None = None  # the last head, if it may come again
        self._ready: Repeat | None = None  # the same, while the connection stands between two messages
        # Of the reply being sent:
        self._minor = 1
        self._close = False
        self._chunked = False
        self._delimited = False
        self._expects = False
        self._tail = b""  # trailer lines
        connection.deadline = gateway.deadlines.now + gateway.snapshot.client.timeouts.idle

    # -- bytes in ------------------------------------------------------------------------------------------------

    def data_received(self, data: memoryview) -> None:
        """Bytes from the client. `data` is only valid during the call."""
        repeat = self._ready
        if repeat is not None:
            self._ready = None
            if self.exchange is None and not self._stalled:
                exchange = repeat.open(bytes(data), self.gateway, self, self._peer)
                if exchange is not None:
                    # The parser stands between two messages and stays there.
                    self._minor = repeat.minor
                    self._close = self._draining
                    self._expects = False
                    self.connection.deadline = NEVER
                    self.exchange = exchange
                    self.gateway.run(exchange)
                    return
        if self._tunnel is not None:
            self._tunnel.data(self.exchange, bytes(data))
            self._throttle()
            return
        parser = self._parser
        if parser is None or self._poison is not None:
            return
        body = self._body
        before = body.received if body is not None else 0
        fresh = not self._in_message  # the first byte of this read is the first of a message
        self._feeding = True
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as switch:
            self._rest = bytes(data[switch.args[0] :])
        except httptools.HttpParserCallbackError:
            raise  # a bug of ours, not of the client
        except httptools.HttpParserError as error:
            self._refuse(client_fault(400, "malformed", f"The request is not valid HTTP/1.1: {error}."))
            return
        finally:
            self._feeding = False
        if self._parser is None:
            # Answered and closed from inside (a body over its limit): what stood behind it is not looked at.
            self._heads = None
            return
        if body is not None:
            self._continued(body, len(data), before)
        if self._heads:
            self._examine(bytes(data), self.gateway.snapshot.client.max_head, fresh)
            self._next()
        elif not self._in_body and body is None:
            self._head_grows(data)
        self._throttle()

    def _continued(self, body: Body, size: int, before: int) -> None:
        """More of a body that began in an earlier read: its clock, and a bound on what is not content."""
        connection = self.connection
        if not body.done:
            connection.deadline = self.gateway.deadlines.now + self.gateway.snapshot.client.timeouts.body
        elif self.exchange is not None and self.exchange.body is body and not self._stalled:
            connection.deadline = NEVER
        if self._overran(size, body.received - before):
            self._refuse(client_fault(400, "chunk_overhead", "Chunk extensions or trailers are too large."))

    def _head_grows(self, data: memoryview) -> None:
        """Part of a head. The whole of it has one deadline, however slowly it drips in."""
        client = self.gateway.snapshot.client
        if self._partial == 0 and self.exchange is None:
            self.connection.deadline = self.gateway.deadlines.now + client.timeouts.head
        fault = self._grew(data, client)
        if fault is not None:
            self._refuse(fault)

    def too_large(self, body: Body) -> None:
        """See `Collector`. Before the head was looked at no body has a limit."""
        if self.exchange is not None and self.exchange.body is body:
            self.exchange.fail(client_fault(413, "body_too_large", "The request body is larger than this route allows."))

    # -- from heads to exchanges ---------------------------------------------------------------------------------

    def _next(self) -> None:
        """Begin the exchanges that wait, one at a time and in order. A loop, so that pipelined local answers do not
        nest."""
        if self._running:
            return
        self._running = True
        # Not while the client does not read what it has asked for: answers would pile up.
        closing = self.connection.is_closing
        while self._heads and self.exchange is None and not self._close and not self._stalled and not closing():
            self._begin(self._heads.popleft())
        self._running = False
        if self._poison is not None and self.exchange is None and not self._heads:
            self._say(self._poison)

    def _begin(self, head: Head) -> None:
        gateway = self.gateway
        client = gateway.snapshot.client
        request = build_request(head, self._peer, client)
        if isinstance(request, Fault):
            self._poison = request
            self._poison_host = next((value for name, value in head.framing if name == b"host"), None)
            self._heads = None
            return
        body = head.body
        self._ready = None
        self._minor = head.minor
        self._close = not head.keep_alive or self._draining
        self._expects = request.expects
        self._tunnel = Tunnel(self._rest) if request.upgrade else None
        self.connection.deadline = NEVER if body.done else gateway.deadlines.now + client.timeouts.body
        plan = gateway.plan(request)
        repeat = head.repeat
        keep = repeat is not None and not request.expects and repeat.learn(request, plan, head.minor)
        self._repeat = repeat if keep else None
        self.exchange = exchange = gateway.open(request, plan, body, self)
        gateway.run(exchange)

    def _refuse(self, fault: Fault) -> None:
        """The bytes cannot be understood: nothing that came with them is believed, nothing that follows is read."""
        self._parser = None
        self._heads = None  # complete heads of the same read: none of them was dispatched
        exchange = self.exchange
        if exchange is not None and not exchange.body.done:
            exchange.fail(fault)
            return
        self._poison = fault
        if exchange is None:
            self._say(fault)

    def _say(self, fault: Fault) -> None:
        """Answer a fault that belongs to no exchange, and close: where the next message begins is unknown."""
        self._parser = None
        reply, content = self.gateway.refusal(fault, self._peer, H1, self._poison_host)
        self._close = True
        self._minor = 1
        self.connection.write(reply_head(reply, len(content), close=True, minor=1) + content)
        self.connection.close(linger=True)

    # -- Sink ----------------------------------------------------------------------------------------------------

    def start(self, reply: Reply, data: bytes, end: bool) -> None:
        """See `Sink`."""
        exchange, tunnel = self.exchange, self._tunnel
        if tunnel is not None and reply.status == 101:
            self._open(tunnel, reply)
            return
        if exchange is None or not exchange.body.done or tunnel is not None:
            # An early answer: what the client still sends would be taken for its next request.
            self._close = True
        self._expects = False
        length = reply.length
        if end and length is None and not reply.bodiless and not (self._tail and self._minor == 1):
            length = len(data)
        self._chunked = chunked = length is None and not reply.bodiless and self._minor == 1
        if length is None and not reply.bodiless and not chunked:
            self._close = True  # HTTP/1.0: the end of the connection is the end of the body
        self._delimited = chunked or length is not None
        head = reply_head(reply, length, close=self._close, minor=self._minor, chunked=chunked)
        if chunked:
            if data:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            if end:
                data += b"0\r\n%b\r\n" % self._tail
        self.connection.write(head + data if data and not reply.bodiless else head)
        if end:
            self._ended()

    def write(self, data: bytes, end: bool) -> None:
        """See `Sink`."""
        if self._chunked:
            if end:
                data = b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(data), data, self._tail) if data else b"0\r\n%b\r\n" % self._tail
            else:
                data = b"%x\r\n%b\r\n" % (len(data), data)
        if data:
            self.connection.write(data)
        if end:
            self._ended()

    def trailers(self, fields: Headers) -> None:
        """See `Sink`: with chunked framing they go behind the last chunk, otherwise there is no place for them."""
        self._tail = b"".join([name + b": " + value + b"\r\n" for name, value in fields])

    def abort(self, fault: Fault) -> None:
        """See `Sink`: close without the last chunk and without close_notify."""
        del fault
        self.exchange = None
        self._parser = None
        self._close = True
        if self._delimited:
            # The framing shows that the end is missing. What was sent before, an error event perhaps, still arrives.
            self.connection.cut()
        else:
            self.connection.abort()

    def proceed(self) -> None:
        """See `Sink`."""
        if self._expects:
            self._expects = False
            self.connection.write(_CONTINUE)

    def _ended(self) -> None:
        """The reply is complete: close, or on to the next request."""
        exchange, self.exchange = self.exchange, None
        self._tail = b""
        connection = self.connection
        if self._close:
            self._parser = None
            connection.close(linger=exchange is None or not exchange.body.done)
            return
        if not self._stalled:
            timeouts = self.gateway.snapshot.client.timeouts
            connection.deadline = self.gateway.deadlines.now + (timeouts.head if self._in_message else timeouts.idle)
        if self._heads or self._poison is not None:
            self._next()
        elif not self._in_message and not self._feeding:
            # Only here does the parser stand between two messages, with nothing of the next one seen.
            self._ready = self._repeat
        if self._paused:
            self._throttle()

    # -- BodySource, back-pressure, tunnel -----------------------------------------------------------------------

    def consumed(self, size: int) -> None:
        """See `BodySource`."""
        del size
        if self._paused:
            self._throttle()

    def _throttle(self) -> None:
        """Read while there is room: for the body, and for requests behind the current one."""
        body, tunnel = self._body, self._tunnel
        limit = self.gateway.snapshot.client.buffer
        full = (
            (body is not None and body.waiting > limit)
            or (self._heads is not None and len(self._heads) > _MAX_PIPELINED)
            or (tunnel is not None and tunnel.is_full(self.exchange, limit))
        )
        if full and not self._paused:
            self._paused = True
            self.connection.pause_reading()
        elif self._paused and not full:
            self._paused = False
            self.connection.resume_reading()

    def pause_writing(self) -> None:
        """The client does not read: hold the upstream, and give the client its time."""
        self._stalled = True
        self.connection.deadline = self.gateway.deadlines.now + self.gateway.snapshot.client.timeouts.write
        if self.exchange is not None:
            self.exchange.pause()

    def resume_writing(self) -> None:
        """The client read enough."""
        self._stalled = False
        exchange = self.exchange
        now, timeouts = self.gateway.deadlines.now, self.gateway.snapshot.client.timeouts
        if exchange is None:
            self.connection.deadline = now + timeouts.idle
            self._next()
        else:
            self.connection.deadline = NEVER if exchange.body.done else now + timeouts.body
            exchange.resume()

    def _open(self, tunnel: Tunnel, reply: Reply) -> None:
        """The upstream switched protocols, and so does the client's connection."""
        self._parser = None
        self._close = True
        self._chunked = False
        self.connection.write(tunnel.head(reply))
        self.connection.deadline = NEVER
        tunnel.open(self.exchange)
        self._throttle()

    def eof_received(self) -> bool:
        """The client said goodbye: whatever it waited for, it waits no longer."""
        self._gone()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        del error
        self._gone()

    def _gone(self) -> None:
        self._ready = self._repeat = None
        self._parser = None  # it holds our methods: the cycle ends here
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.cancel()
        self._heads = None

    def expire(self, now: float) -> None:
        """The connection's deadline passed: which one, the state tells."""
        exchange = self.exchange
        self.connection.deadline = now + self.gateway.snapshot.client.timeouts.write
        if self._stalled:
            self.exchange = None
            if exchange is not None:
                exchange.cancel("client: slow_reader")
            self.connection.abort()
        elif exchange is not None and (self._paused or exchange.body.paused):
            pass  # we do not read: the wait is the upstream's, and its timers run
        elif exchange is not None:
            exchange.fail(client_fault(408, "body_timeout", "The request body stopped coming."))
        elif self._in_message:
            self._refuse(client_fault(408, "head_timeout", "The request head took too long."))
        else:
            self.connection.close()

    def drain(self, *, idle: bool = True) -> None:
        """Shut down: after the current answer, which says `Connection: close`; now when there is none.

        Args:
            idle: False for a connection that was just made: it gets one answer first.
        """
        self._draining = True
        if self.exchange is not None:
            if self.exchange.status == 0:
                self._close = True
            elif self._tunnel is None or not self._tunnel.is_open:
                self._close = self._close or not self._heads
        elif not self._in_message and idle:
            self.connection.close()
