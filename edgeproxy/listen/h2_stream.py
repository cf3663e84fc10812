# One HTTP/2 stream: the sink of its exchange and the source of its body.
"""HTTP/2 streams over ngh2; see `listen/h2.py` for the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ngh2
from ngh2 import NeverIndexedHeader

from edgeproxy.deadlines import NEVER
from edgeproxy.faults import Fault, Source, client_fault
from edgeproxy.listen.pseudo import Section, reply_section
from edgeproxy.message import Body, Headers, Reply
from edgeproxy.observe.metrics import H2
from edgeproxy.policy.headers import RAY

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.listen.h2 import H2Connection
    from edgeproxy.message import Request
    from edgeproxy.plan import Plan

HIGH = 64 * 1024  # bytes queued for a stream before its upstream is paused
LOW = 16 * 1024  # bytes queued when it goes on
_unique = tuple.__new__  # a named tuple's own constructor is Python
_NO_ERROR, _INTERNAL_ERROR, _CANCEL = 0x00, 0x02, 0x08


class H2Stream:
    """See the module.

    Attributes:
        section: the request's field section.
        ready: the message was complete before it was begun.
        bare: the head came without content.
        begun: it was handed to the gateway, or refused.
        reset: we reset it, for reasons of our own.
        deadline: for bodies that stop coming and for clients that do not read; NEVER otherwise.
    """

    __slots__ = (
        "_expects", "_finished", "_paused", "_queued", "_trailers", "_unread", "bare", "begun", "body", "deadline", "exchange",
        "id", "owner", "ready", "reset", "section",
    )  # fmt: skip

    def __init__(self, owner: H2Connection, stream_id: int, section: Section) -> None:
        self.owner = owner
        self.id = stream_id
        self.section = section
        self.body = Body(self)
        self.exchange: Exchange | None = None
        self.deadline = NEVER
        self.ready = False
        self.bare = False
        self.begun = False
        self.reset = False
        self._unread = 0  # bytes received and not yet given back as window
        self._paused = False
        self._finished = False  # our side has sent its end
        self._queued = 0
        self._expects = False
        self._trailers: Headers | None = None

    def begin(self, request: Request, plan: Plan) -> None:
        """Run the exchange."""
        self.begun = True
        owner = self.owner
        gateway = owner.gateway
        self._expects = request.expects
        gateway.stats.streams_open += 1
        if not self.body.done:
            self.deadline = gateway.deadlines.now + gateway.snapshot.client.timeouts.body
            gateway.deadlines.members.add(self)
        self.exchange = exchange = gateway.open(request, plan, self.body, self)
        gateway.run(exchange)

    def refuse(self, fault: Fault) -> None:
        """Answer a section that did not become a request."""
        self.begun = True
        owner = self.owner
        host = next((value for name, value in self.section if name in {b":authority", b"host"}), None)
        reply, content = owner.gateway.refusal(fault, owner.peer, H2, host)
        self.body.drop()
        self.start(reply, content, True)

    # -- the client's side ---------------------------------------------------------------------------------------

    def received(self, data: bytes, end: bool) -> None:
        """Content, perhaps the last."""
        size = len(data)
        body = self.body
        if size:
            self.owner.noise = 0
            self._unread += size
            if not self.begun:
                body.push(data)  # it waits, and no limit is known yet
            else:
                self._pass(data, size)
        if end:
            if self.begun:
                self.ended()
            else:
                body.done = self.ready = True

    def _pass(self, data: bytes, size: int) -> None:
        """Content of a request that is being worked on."""
        body = self.body
        if self.deadline is not NEVER and not self._paused:
            gateway = self.owner.gateway
            self.deadline = gateway.deadlines.now + gateway.snapshot.client.timeouts.body
        if body.unwanted:
            self.consumed(size)
        elif not body.push(data):
            if self.exchange is not None:
                self.exchange.fail(
                    client_fault(413, "body_too_large", "The request body is larger than this route allows.")
                )
            self.consumed(self._unread)

    def ended(self) -> None:
        """The client's side is complete."""
        if not self.begun:
            self.ready = True
        if self.deadline is not NEVER and not self._paused:
            self._wait(NEVER)
        self.body.finish()

    def closed(self) -> None:
        """Both sides are over, or one was reset: nothing can be sent any more."""
        if self.deadline is not NEVER:
            self._wait(NEVER)
        if self.owner.blocked:
            self.owner.blocked.discard(self)
        if self._unread:
            self._give_back()
        self.body.source = None  # body and stream hold each other: the cycle ends here
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.cancel()
            self.owner.gateway.stats.streams_open -= 1

    def consumed(self, size: int) -> None:
        """See `BodySource`: window for as many bytes goes back to the client."""
        unread = self._unread
        size = min(size, unread)
        if size <= 0:
            return
        self._unread = unread - size
        owner = self.owner
        try:
            owner.engine.acknowledge_received_data(size, self.id)
        except ngh2.NGH2Error:
            return  # the connection is over
        if not owner.reading:
            owner.dirty()

    def _give_back(self) -> None:
        """Content nobody took still counts against the connection's window until it is given back."""
        if self._unread:
            self.consumed(self._unread)

    # -- Sink ----------------------------------------------------------------------------------------------------

    def start(self, reply: Reply, data: bytes, end: bool) -> None:
        """See `Sink`."""
        owner, length = self.owner, reply.length
        if reply.bodiless:
            data = b""
        elif end and length is None:
            length = len(data)
        section = reply_section(reply, length)
        # An id is never sent twice: in the compressor's table it would push out what is (RFC 7541 §7.1.3).
        last = len(reply.headers)
        if section[last][0] is RAY:
            section[last] = _unique(NeverIndexedHeader, section[last])
        self._expects = False
        engine = owner.engine
        try:
            if self._trailers is not None:
                engine.send_response(self.id, section)
                self._send(data, end)
            elif data or not end:
                if data:
                    owner.noise = 0  # window updates and pings in return are no flood
                engine.send_response(self.id, section)
                engine.send_data(self.id, data, end_stream=end)
            else:
                engine.send_response(self.id, section, end_stream=True)
        except ngh2.NGH2Error:
            pass  # the stream was closed a moment ago; its event is on the way
        if not owner.scheduled:
            owner.dirty()
        if end:
            self._ended()

    def write(self, data: bytes, end: bool) -> None:
        """See `Sink`."""
        try:
            self._send(data, end)
            if not self._paused and not end and self.owner.engine.queued_body_size(self.id) > HIGH:
                self._paused = True
                self.owner.blocked.add(self)
                if self.exchange is not None:
                    self.exchange.pause()
                self._wait(self.owner.gateway.deadlines.now + self.owner.gateway.snapshot.client.timeouts.write)
        except ngh2.NGH2Error:
            pass  # as in `start`
        self.owner.dirty()
        if end:
            self._ended()

    def _send(self, data: bytes, end: bool) -> None:
        """Queue content. Raises ngh2.NGH2Error when the stream cannot take it any more."""
        engine = self.owner.engine
        if data:
            self.owner.noise = 0  # window updates and pings in return are no flood
        if end and self._trailers is not None:
            if data:
                engine.send_data(self.id, data)
            engine.send_trailers(self.id, self._trailers)
        else:
            engine.send_data(self.id, data, end_stream=end)

    def trailers(self, fields: Headers) -> None:
        """See `Sink`."""
        self._trailers = fields

    def abort(self, fault: Fault) -> None:
        """See `Sink`: RST_STREAM, behind what was written before it."""
        self.owner.flush()  # a reset drops what the engine has queued
        self._close(_CANCEL if fault.source is Source.CLIENT else _INTERNAL_ERROR)

    def proceed(self) -> None:
        """See `Sink`."""
        if self._expects:
            self._expects = False
            try:
                self.owner.engine.send_informational_response(self.id, [(b":status", b"100")])
            except ngh2.NGH2Error:
                return
            self.owner.dirty()

    def unblock(self) -> None:
        """Called after each write of the connection while the stream waits for the client to read."""
        try:
            queued = self.owner.engine.queued_body_size(self.id)
        except ngh2.NGH2Error:
            queued = 0
        if self._finished:
            if queued == 0:
                self.owner.blocked.discard(self)
                self._early()
            return
        if queued <= LOW and self._paused:
            self._paused = False
            self.owner.blocked.discard(self)
            now, timeouts = self.owner.gateway.deadlines.now, self.owner.gateway.snapshot.client.timeouts
            self._wait(NEVER if self.body.done else now + timeouts.body)
            if self.exchange is not None:
                self.exchange.resume()

    def _ended(self) -> None:
        """Our side is complete. The stream stays until the client has it all and has ended its own side."""
        self._finished = True
        owner = self.owner
        owner.noise = 0
        owner.finished.append(self)
        if self.deadline is not NEVER:  # that of the request; who ends the exchange may be another deadline of the same sweep
            self.deadline = owner.gateway.deadlines.now + owner.gateway.snapshot.client.timeouts.write
        if self.exchange is not None:
            self.exchange = None
            owner.gateway.stats.streams_open -= 1
        if not self.body.done:
            self.body.drop()
            self._give_back()
            owner.blocked.add(self)

    def linger(self) -> None:
        """The reply is complete and still not all out: the client has its time to read."""
        gateway = self.owner.gateway
        self._wait(gateway.deadlines.now + gateway.snapshot.client.timeouts.write)

    def _early(self) -> None:
        """RFC 9113 §8.1: the whole answer is out before the request was: tell the client to stop sending."""
        if not self.body.done:
            self._close(_NO_ERROR)

    def _close(self, code: int) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            self.owner.gateway.stats.streams_open -= 1
        self.reset = True
        try:
            self.owner.engine.reset_stream(self.id, code)
        except ngh2.NGH2Error:
            pass  # closed already
        self.owner.dirty()

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
        gateway = self.owner.gateway
        self.deadline = now + gateway.snapshot.client.timeouts.write
        try:
            queued = self.owner.engine.queued_body_size(self.id)
        except ngh2.NGH2Error:
            queued = 0
        if queued and queued < self._queued:
            self._queued = queued  # slow, but reading
            return
        self._queued = queued
        exchange = self.exchange
        if exchange is not None and not self._paused and not self.body.done and (self.body.paused or self.body.waiting):
            return  # we do not grant window: the wait is the upstream's, and its timers run
        if exchange is not None and not self._paused and exchange.status == 0:
            exchange.fail(client_fault(408, "body_timeout", "The request body stopped coming."))
            return
        if exchange is not None:
            self.exchange = None
            gateway.stats.streams_open -= 1
            exchange.cancel("client: slow_reader" if self._paused or queued else "client: body_timeout")
        self._close(_CANCEL)
        self._wait(NEVER)
