# One request stream of HTTP/3: the sink of its exchange and the source of its body.
"""HTTP/3 request streams; see `listen/h3.py` for the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.deadlines import NEVER
from edgeproxy.faults import Fault, Source, client_fault, edge_fault
from edgeproxy.listen import h3_codes as h3
from edgeproxy.listen.h3_codes import StreamError
from edgeproxy.listen.h3_fields import FIELD, check_trailers
from edgeproxy.listen.h3_frames import FrameReader
from edgeproxy.listen.pseudo import Section, reply_section
from edgeproxy.message import Body, Headers, Reply
from edgeproxy.observe.metrics import H3
from edgeproxy.quic import varint

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.listen.h3 import H3Connection
    from edgeproxy.message import Request
    from edgeproxy.plan import Plan
    from edgeproxy.quic.streams import Stream

_LARGE = 2048  # bytes of a head whose window is given back at once
# Seconds from a complete answer to STOP_SENDING: a browser that gets that first (frames have no order) forgets the answer.
# Chromium 156's fetch() then never settles. Until then the client may send what its window allows, and no more.
_STOP_AFTER = 1.0
_JOIN = 4096  # bytes of content up to which a frame's header and its content are copied into one


class H3Stream:
    """See the module.

    Attributes:
        quic: the transport's stream; None once the stream is over.
        bare: the head came without content.
        deadline: for bodies that stop coming and for clients that do not read; NEVER otherwise.
    """

    __slots__ = (
        "_announced", "_begun", "_block", "_expected", "_expects", "_finished", "_paused", "_reader", "_sent", "_stops",
        "_trailers", "_unread", "body", "deadline", "exchange", "owner", "quic", "section",
    )  # fmt: skip

    def __init__(self, owner: H3Connection, stream: Stream) -> None:
        self.owner = owner
        self.quic: Stream | None = stream
        self.section: Section = ()
        self.body = Body(self)
        self.exchange: Exchange | None = None
        self.deadline = NEVER
        self._reader: FrameReader | None = None
        self._block: bytes | None = None  # a head that was read and not begun
        self._announced = False
        self._begun = False  # counted in `owner.active` until it is finished
        self._expected = -1  # Content-Length
        self._expects = False
        self._unread = 0  # bytes of content received and not yet given back as window
        self._paused = False
        self._finished = False  # our side has sent its end
        self._stops = False  # and will ask the client to stop sending
        self._sent = 0  # bytes that were out when the deadline was last looked at
        self._trailers: Headers | None = None

    # -- the client's side ---------------------------------------------------------------------------------------

    def received(self, data: bytes, fin: bool) -> None:
        """Bytes of the stream. Raises H3Error, StreamError."""
        size = len(data)
        reader = self._reader
        if reader is None and fin and size > 3 and data[0] == h3.HEADERS and data[1] < 0x80:
            # All of it at once, and nothing but a head: most requests without content.
            length, at = varint.read(data, 1)
            if at + length == size and length <= self.owner.max_section:
                self._block = data[at:]
                self.owner.noise = 0
                if size > _LARGE and self.quic is not None:
                    self.quic.consume(size)  # not only when the reply is complete: others need the connection's window
                self._ended()
                self.owner.opened(self)
                return
        if reader is None:
            reader = self._reader = FrameReader(self.owner.max_section)
        reader.feed(data, self)
        overhead, reader.overhead = reader.overhead, 0
        if reader.noise:
            noise, reader.noise = reader.noise, 0
            self.owner.overhead(noise)
        if overhead and self.quic is not None:
            self.quic.consume(overhead)
        if fin:
            if not reader.end():
                raise StreamError(h3.REQUEST_INCOMPLETE, "a request without a head")
            self._ended()
        if self._block is not None and not self._announced:
            self._announced = True
            self.owner.opened(self)
        elif self.deadline is NEVER and not self._announced:
            gateway = self.owner.gateway
            self._wait(gateway.deadlines.now + gateway.snapshot.client.timeouts.head)

    def on_section(self, block: bytes) -> None:
        """See `Receiver`."""
        if self._block is None and not self.section:
            self._block = block
            self.owner.noise = 0
        else:
            section = self.owner.decoder.section(self._id, block)
            if len(section) * FIELD > self.owner.max_section:
                raise StreamError(h3.EXCESSIVE_LOAD, "too many fields in the trailers")
            self.body.trailers = check_trailers(section)

    def on_content(self, data: bytes) -> None:
        """See `Receiver`."""
        size = len(data)
        owner, body = self.owner, self.body
        owner.noise = 0
        if body.unwanted or self.quic is None:
            if self.quic is not None:
                self.quic.consume(size)
            return
        if 0 <= self._expected < body.received + size:
            raise StreamError(h3.MESSAGE_ERROR, "more content than Content-Length says")
        self._unread += size
        owner.held(size)
        if self.deadline is not NEVER and not self._paused:
            gateway = owner.gateway
            self.deadline = gateway.deadlines.now + gateway.snapshot.client.timeouts.body
        if not body.push(data):
            self._refuse_content(client_fault(413, "body_too_large", "The request body is larger than this route allows."))
        elif owner.is_overfull():
            self._refuse_content(edge_fault(503, "bodies_full", "The server holds too many request bodies; try again."))

    def _refuse_content(self, fault: Fault) -> None:
        if self.exchange is not None:
            self.exchange.fail(fault)
        else:
            self.body.drop()
        self.consumed(self._unread)

    def _ended(self) -> None:
        """The client's side is complete."""
        body = self.body
        if 0 <= self._expected != body.received and not body.unwanted:
            raise StreamError(h3.MESSAGE_ERROR, "less content than Content-Length says")
        if self.deadline is not NEVER and not self._paused:
            self._wait(NEVER)
        body.finish()

    def begin(self) -> None:
        """The head is known, and what came with it: run the exchange. Raises H3Error, StreamError."""
        block, self._block = self._block, None
        if block is None or self.quic is None:
            return
        owner, body = self.owner, self.body
        owner.active += 1
        self._begun = True
        bare = body.done and not body.received
        found = owner.request(self._id, block, self, bare=bare)
        if isinstance(found, Fault):
            self._refuse(found)
            return
        request, plan = found
        if request.length is not None:
            self._expected = request.length
            if body.received > request.length or (body.done and body.received != request.length):
                raise StreamError(h3.MESSAGE_ERROR, "content and Content-Length differ")
        if body.unwanted:  # it came before there was an exchange to refuse it
            self._refuse(edge_fault(503, "bodies_full", "The server holds too many request bodies; try again."))
            return
        self._run(request, plan)

    def _run(self, request: Request, plan: Plan) -> None:
        gateway = self.owner.gateway
        self._expects = request.expects
        gateway.stats.streams_open += 1
        if not self.body.done:
            self._wait(gateway.deadlines.now + gateway.snapshot.client.timeouts.body)
        elif self.deadline is not NEVER:
            self._wait(NEVER)
        self.exchange = exchange = gateway.open(request, plan, self.body, self)
        gateway.run(exchange)

    def _refuse(self, fault: Fault) -> None:
        """Answer a section that did not become a request."""
        owner = self.owner
        host = next((value for name, value in self.section if name in {b":authority", b"host"}), None)
        reply, content = owner.gateway.refusal(fault, owner.peer, H3, host)
        self.body.drop()
        self.start(reply, content, True)

    @property
    def _id(self) -> int:
        return 0 if self.quic is None else self.quic.id

    def closed(self) -> None:
        """The stream is over, or broken: nothing can be sent any more."""
        if self.deadline is not NEVER:
            self._wait(NEVER)
        self.consumed(self._unread)
        self.body.source = None  # body and stream hold each other, so do the two streams: the cycles end here
        quic, self.quic = self.quic, None
        if quic is not None:
            quic.app = None
            if self._begun and not self._finished:
                self.owner.active -= 1
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            self.owner.gateway.stats.streams_open -= 1
            exchange.cancel()

    def consumed(self, size: int) -> None:
        """See `BodySource`: window for as many bytes goes back to the client."""
        size = min(size, self._unread)
        if size > 0:
            self._unread -= size
            self.owner.held(-size)
            if self.quic is not None:
                self.quic.consume(size)

    # -- Sink ----------------------------------------------------------------------------------------------------

    def start(self, reply: Reply, data: bytes, end: bool) -> None:
        """See `Sink`."""
        length = reply.length
        if end and length is None and not reply.bodiless:
            length = len(data)
        if reply.bodiless:
            data = b""
        self._expects = False
        quic = self.quic
        if quic is None:
            return
        block = self.owner.encoder.section(reply_section(reply, length))
        head = b"\x01%b%b" % (varint.write(len(block)), block)
        if data:
            self.owner.noise = 0
            head += b"\0" + varint.write(len(data))
            if len(data) <= _JOIN:
                head += data
            else:
                quic.send(head, False)
                head = data
        self._send(quic, head, end)

    def write(self, data: bytes, end: bool) -> None:
        """See `Sink`."""
        quic = self.quic
        if quic is None:
            return
        if data:
            self.owner.noise = 0
            head = b"\0" + varint.write(len(data))
            if len(data) <= _JOIN:
                data = head + data
            else:
                quic.send(head, False)
        self._send(quic, data, end)
        if not end and not self._paused and quic.is_full():
            self._paused = True
            quic.waiting = True
            if self.exchange is not None:
                self.exchange.pause()
            self._wait(self.owner.gateway.deadlines.now + self.owner.gateway.snapshot.client.timeouts.write)

    def _send(self, quic: Stream, data: bytes, end: bool) -> None:
        if end and self._trailers is not None:
            block = self.owner.encoder.section(self._trailers)
            quic.send(data, False)
            data = b"\x01%b%b" % (varint.write(len(block)), block)
        quic.send(data, end)
        if end:
            self._complete()

    def trailers(self, fields: Headers) -> None:
        """See `Sink`."""
        self._trailers = fields

    def abort(self, fault: Fault) -> None:
        """See `Sink`: RESET_STREAM, behind what was written before it."""
        self.owner.flush()  # a reset drops what is queued
        self.stop(h3.REQUEST_CANCELLED if fault.source is Source.CLIENT else h3.INTERNAL_ERROR)

    def proceed(self) -> None:
        """See `Sink`."""
        if self._expects and self.quic is not None:
            self._expects = False
            block = self.owner.encoder.section([(b":status", b"100")])
            self.quic.send(b"\x01%b%b" % (varint.write(len(block)), block), False)

    def _complete(self) -> None:
        """Our side is complete. The client has its time to read it, and need not send the rest of its own."""
        self._finished = True
        owner = self.owner
        owner.active -= 1
        if self.deadline is not NEVER:  # that of the request; who ends the exchange may be another deadline of the same sweep
            self.deadline = owner.gateway.deadlines.now + owner.gateway.snapshot.client.timeouts.write
        if self.exchange is not None:
            self.exchange = None
            owner.gateway.stats.streams_open -= 1
        body = self.body
        if not body.done:
            body.drop()
            self._stops = True
        self.consumed(self._unread)  # what nobody took is held no longer, also when all of it came
        body.source = None  # body and stream hold each other: the cycle ends here
        owner.finished.append(self)

    def linger(self) -> None:
        """The reply is complete; is it all out?"""
        quic = self.quic
        if quic is not None and quic.queued:
            self._sent = quic.offset
            self._wait(self.owner.gateway.deadlines.now + self.owner.gateway.snapshot.client.timeouts.write)
        elif quic is not None and self._stops:
            self._wait(self.owner.gateway.deadlines.now + _STOP_AFTER)
        elif self.deadline is not NEVER:
            self._wait(NEVER)

    def writable(self) -> None:
        """The client reads again."""
        if self._paused and not self._finished:
            self._paused = False
            now, timeouts = self.owner.gateway.deadlines.now, self.owner.gateway.snapshot.client.timeouts
            self._wait(NEVER if self.body.done else now + timeouts.body)
            if self.exchange is not None:
                self.exchange.resume()

    # -- the end -------------------------------------------------------------------------------------------------

    def stop(self, code: int) -> None:
        """End both sides of the stream abruptly."""
        quic = self.quic
        if quic is not None:
            quic.reset(code)
            quic.stop(code)
        self.closed()

    def was_reset(self, code: int) -> bool:
        """The client gave up sending its request (RFC 9114 §4.1.1).

        Returns: False after a complete reply: then it is what we asked for.
        """
        del code
        if self._finished:
            self.body.drop()
            return False
        self.stop(h3.REQUEST_CANCELLED)
        return True

    # -- time ----------------------------------------------------------------------------------------------------

    def _wait(self, deadline: float) -> None:
        """Set or clear the stream's own deadline."""
        members = self.owner.gateway.deadlines.members
        if deadline is NEVER:
            if self.deadline is not NEVER:
                members.discard(self)
        elif self.deadline is NEVER:
            members.add(self)
        self.deadline = deadline

    def expire(self, now: float) -> None:
        """The body stopped coming, or the client stopped reading."""
        gateway, quic, exchange = self.owner.gateway, self.quic, self.exchange
        self.deadline = now + gateway.snapshot.client.timeouts.write
        if quic is None:
            self._wait(NEVER)
            return
        if self._finished and not quic.queued:
            if self._stops:
                self._stops = False
                quic.stop(h3.NO_ERROR)  # RFC 9114 §4.1.1
            self._wait(NEVER)
            return
        if quic.queued and quic.offset > self._sent:
            self._sent = quic.offset  # slow, but reading
            return
        if exchange is not None and not self._paused and not self.body.done and (self.body.paused or self.body.waiting):
            return  # we do not grant window: the wait is the upstream's, and its timers run
        if exchange is not None and not self._paused and exchange.status == 0:
            exchange.fail(client_fault(408, "body_timeout", "The request body stopped coming."))
            return
        if exchange is not None:
            self.exchange = None
            gateway.stats.streams_open -= 1
            exchange.cancel("client: slow_reader" if self._paused or quic.queued else "client: body_timeout")
        self.stop(h3.REQUEST_CANCELLED)


