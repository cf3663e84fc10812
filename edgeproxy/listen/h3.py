# HTTP/3 from clients: the connection. What a stream does is in h3_stream.py, what QUIC does is in edgeproxy/quic.
"""HTTP/3 server connection over `quic.Connection` (RFC 9114)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edgeproxy.deadlines import NEVER
from edgeproxy.faults import Fault, client_fault
from edgeproxy.listen import h3_codes as h3
from edgeproxy.listen.first import h3_print
from edgeproxy.listen.h3_codes import H3Error, StreamError
from edgeproxy.listen.h3_control import Control, OneWay
from edgeproxy.listen.h3_fields import FIELD, Decoder, Encoder, check_request
from edgeproxy.listen.h3_stream import H3Stream
from edgeproxy.listen.pseudo import Section, build_request, content_length_at, similar
from edgeproxy.message import Peer, Request
from edgeproxy.observe.metrics import H3
from edgeproxy.plan import Plan, akin
from edgeproxy.quic import varint

if TYPE_CHECKING:
    from edgeproxy.gateway import Gateway
    from edgeproxy.quic.connection import Connection
    from edgeproxy.quic.streams import Stream

MAX_NOISE = 64 * 1024  # bytes of frames in a row that neither bring content nor lead to any
_GRACE = 1.0  # seconds between the announcement of a shutdown and refusing new requests
_LARGEST_ID = (1 << 62) - 4


class Session(Protocol):
    """What a connection needs of what is around it."""

    h3_deadline: float
    """When HTTP/3 wants its `expire` to be called; set through `until`, or to NEVER."""

    def until(self, deadline: float) -> None:
        """Set `h3_deadline`."""

    def begin_later(self, app: H3Connection) -> None:
        """Call `begin` when everything that is there to read has been read."""

    def held(self, size: int) -> bool:
        """Account for request content; True when the worker holds too much of it."""

    def flush(self) -> None:
        """Send now."""


class H3Connection:
    """One client connection.

    Attributes:
        active: requests that are not answered completely.
        finished: streams whose reply was completed since the last packets went out.
        noise: bytes received since something useful happened.
        control: what the client's control stream said (SETTINGS are a fingerprint).
        max_section: bytes of the largest encoded field section that is read.
    """

    __slots__ = (
        "_beginning", "_block", "_control_out", "_draining", "_faults", "_faults_until", "_fresh", "_full", "_plan", "_plan_at",
        "_plan_request", "_plan_section", "_refused", "active", "control", "decoder", "encoder", "finished", "gateway",
        "max_section", "noise", "peer", "quic", "session",
    )  # fmt: skip

    def __init__(
        self, session: Session, quic: Connection, gateway: Gateway, peer: Peer, encoder: Encoder, decoder: Decoder
    ) -> None:
        client = gateway.snapshot.client
        self.session = session
        self.quic: Connection | None = quic
        self.gateway = gateway
        self.peer = peer
        self.encoder = encoder
        self.decoder = decoder
        self.control = Control()
        # Twice what is allowed reaches us, so that a client that is a little over gets a 431 instead of a dead connection.
        self.max_section = client.max_head * 2
        self.active = 0
        self.finished: list[H3Stream] = []
        self._beginning: list[H3Stream] = []
        self.noise = 0
        self._full = False
        self._faults = 0
        self._faults_until = 0.0
        self._draining = 0
        self._fresh = False
        self._refused = _LARGEST_ID  # requests from this id on are not served
        self._plan: Plan | None = None
        self._plan_request: Request | None = None
        self._plan_section: Section = ()
        self._plan_at = -1
        self._block = b""
        self._control_out = quic.open_one_way()
        payload = b"".join(
            varint.write(name) + varint.write(value)
            for name, value in (
                (h3.QPACK_MAX_TABLE_CAPACITY, 0), (h3.MAX_FIELD_SECTION_SIZE, client.max_head), (h3.QPACK_BLOCKED_STREAMS, 0),
            )
        )  # fmt: skip
        self._control_out.send(b"\0%c%c%b" % (h3.SETTINGS, len(payload), payload), False)
        session.until(gateway.deadlines.now + client.timeouts.idle)

    # -- from the transport --------------------------------------------------------------------------------------

    def stream_data(self, stream: Stream, data: bytes, fin: bool) -> None:
        """See `quic.connection.Application`."""
        app = stream.app
        try:
            if app is None:
                app = self._opened(stream)
                if app is None:
                    return
            if type(app) is H3Stream:
                self._fresh = False
                try:
                    app.received(data, fin)
                except StreamError as error:
                    self._malformed(app, error)
            else:
                assert isinstance(app, OneWay)
                stream.consume(len(data))
                self.overhead(len(data))
                app.feed(data)
                if app.unwanted:
                    stream.stop(h3.STREAM_CREATION_ERROR)
                elif fin and app.is_critical:
                    raise H3Error(h3.CLOSED_CRITICAL_STREAM, "a control stream ended")
        except H3Error as error:
            self.fail(error)
        except IndexError as error:
            # The transport takes an IndexError for a frame that ends early: ours is not the client's fault.
            raise RuntimeError("HTTP/3 stream") from error

    def _opened(self, stream: Stream) -> H3Stream | OneWay | None:
        if stream.id & 2:
            stream.app = one_way = OneWay(self.control)
            return one_way
        if stream.id >= self._refused:
            stream.reset(h3.REQUEST_REJECTED)
            stream.stop(h3.REQUEST_REJECTED)
            return None
        if self._draining != 1:
            self.session.h3_deadline = NEVER
        stream.app = request = H3Stream(self, stream)
        return request

    def opened(self, stream: H3Stream) -> None:
        """A request's head is there: it begins when all that was read with it is known."""
        if not self._beginning:
            self.session.begin_later(self)
        self._beginning.append(stream)

    def begin(self) -> None:
        """Everything that was there to read has been read."""
        beginning, self._beginning = self._beginning, []
        try:
            for stream in beginning:
                try:
                    stream.begin()
                except StreamError as error:
                    self._malformed(stream, error)
        except H3Error as error:
            self.fail(error)

    def stream_reset(self, stream: Stream, code: int) -> None:
        """See `quic.connection.Application`."""
        app = stream.app
        if isinstance(app, H3Stream):
            if app.was_reset(code):
                self._count_cancel()
            self._idle()
        elif isinstance(app, OneWay) and app.is_critical:
            self.fail(H3Error(h3.CLOSED_CRITICAL_STREAM, "a control stream was reset"))

    def stop_sending(self, stream: Stream, code: int) -> None:
        """See `quic.connection.Application`: the client does not want the answer."""
        del code
        app = stream.app
        if isinstance(app, H3Stream):
            self._count_cancel()
            app.stop(h3.REQUEST_CANCELLED)
            self._idle()
        elif app is None and not stream.id & 3:
            # It overtook the request itself, which is of no use any more: it must not reach an upstream.
            self._count_cancel()
            stream.stop(h3.REQUEST_CANCELLED)
        elif stream is self._control_out:
            self.fail(H3Error(h3.CLOSED_CRITICAL_STREAM, "the server's control stream was refused"))

    def writable(self, stream: Stream) -> None:
        """See `quic.connection.Application`."""
        app = stream.app
        if isinstance(app, H3Stream):
            app.writable()

    def closed(self, reason: str, streams: list[Stream]) -> None:
        """See `quic.connection.Application`."""
        del reason
        self.quic = None
        self.finished.clear()
        self._beginning.clear()
        for stream in streams:
            app = stream.app
            if isinstance(app, H3Stream):
                app.closed()
            stream.app = None

    # -- requests ------------------------------------------------------------------------------------------------

    def request(self, stream_id: int, block: bytes, stream: H3Stream, *, bare: bool) -> tuple[Request, Plan] | Fault:
        """What a head means. Raises H3Error, StreamError.

        Args:
            stream: gets the section.
            bare: no content follows.
        """
        gateway = self.gateway
        plan, known = self._plan, self._plan_request
        current = plan is not None and known is not None and plan.snapshot is gateway.snapshot
        if current and block == self._block and (self._plan_at >= 0 or (known.length == 0) is bare):  # type: ignore[union-attr]
            stream.section = self._plan_section
            return known, plan  # type: ignore[return-value]  # `current`
        section = self.decoder.section(stream_id, block)
        if len(section) * FIELD > gateway.snapshot.client.max_head:
            # One byte may be a field. They are not looked at, and who sends many such heads is cut off.
            self._count_cancel()
            return client_fault(431, "head_too_large", "The request has too many header fields.")
        stream.section = section
        if plan is not None and known is not None and current:
            like = similar(section, self._plan_section, self._plan_at, known)
            if like is not None:
                return like, plan
        check_request(section)
        prints = self.peer.prints
        if prints is not None and (prints.h3 is None or not prints.h3.settings):
            prints.h3 = h3_print(prints, self.control.settings, section)
        built = build_request(section, self.peer, gateway.snapshot.client, H3, ended=bare)
        if isinstance(built, Fault):
            return built
        plan = gateway.plan(built, akin(plan, known, built, gateway.snapshot))
        self._plan_section = section
        self._plan_at = at = content_length_at(section)
        # Without content there is nothing to expect, but the same head with another length may come with some.
        expects = built.expects or (bare and at >= 0 and any(name == b"expect" for name, _ in section))
        self._plan, self._plan_request = (None, None) if expects else (plan, built)
        self._block = block
        return built, plan

    def moved(self, peer: Peer) -> None:
        """The client has another address."""
        self.peer = peer
        self._plan = None

    # -- bounds --------------------------------------------------------------------------------------------------

    def overhead(self, size: int) -> None:
        """Bytes that were no content. Raises H3Error when they are all there is."""
        self.noise += size
        if self.noise > MAX_NOISE:
            raise H3Error(h3.EXCESSIVE_LOAD, "too many frames that lead to nothing")

    def held(self, size: int) -> None:
        """Request content is held, or (negative) not any more."""
        self._full = self.session.held(size)

    def is_overfull(self) -> bool:
        """This worker holds too much request content."""
        return self._full

    def _count_cancel(self) -> None:
        """Requests that are cancelled as soon as they are made cost us more than the client (rapid reset)."""
        now = self.gateway.deadlines.now
        if now > self._faults_until:
            self._faults, self._faults_until = 0, now + 60.0
        self._faults += 1
        if self._faults > self.gateway.snapshot.client.h2.reset_burst:
            self.fail(H3Error(h3.EXCESSIVE_LOAD, "too many cancelled requests"))

    def _malformed(self, stream: H3Stream, error: StreamError) -> None:
        self.gateway.stats.fault("client", "h3_stream_error")
        stream.stop(error.code)
        self._count_cancel()
        self._idle()

    def fail(self, error: H3Error) -> None:
        """The client broke the protocol."""
        if self.quic is not None:
            self.gateway.stats.fault("client", "h3_flood" if error.code == h3.EXCESSIVE_LOAD else "h3_protocol")
            self.quic.close(error.code, error.reason)

    # -- after packets went out ----------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send now: something must be out before the next step (an event before a reset)."""
        self.session.flush()

    def sent(self) -> None:
        """Packets went out: look after streams that are complete."""
        finished, self.finished = self.finished, []
        for stream in finished:
            stream.linger()
        self._idle()

    def _idle(self) -> None:
        if self.active or self.quic is None:
            return
        if self._draining >= 2 and not self._fresh:
            if not self.quic.streams.busy:  # what was not acknowledged may have to be sent again
                self.quic.close(h3.NO_ERROR)
            elif self.session.h3_deadline is NEVER:
                self.session.until(self.gateway.deadlines.now + self.gateway.snapshot.client.timeouts.write)
        elif not self._draining and self.session.h3_deadline is NEVER:
            self.session.until(self.gateway.deadlines.now + self.gateway.snapshot.client.timeouts.idle)

    # -- the end -------------------------------------------------------------------------------------------------

    def drain(self, *, idle: bool = True) -> None:
        """Shut down gracefully (RFC 9114 §5.2): announce it, a moment later refuse new requests, finish the rest.

        Args:
            idle: False for a connection that was just made: it may ask for something first.
        """
        if self._draining or self.quic is None:
            return
        self._draining = 1
        self._fresh = not idle
        if self.active or not idle:
            self._goaway(_LARGEST_ID)
            self.session.until(self.gateway.deadlines.now + _GRACE)
        else:
            self._last_goaway()

    def expire(self, now: float) -> None:
        """The session's deadline passed: nobody asked for anything, or the announcement was long enough ago."""
        del now
        self._fresh = False
        self.session.h3_deadline = NEVER
        if self._draining < 2:
            self._last_goaway()
        elif self.quic is not None and not self.active and not self.quic.queued:
            self.quic.close(h3.NO_ERROR)  # all is said: the client does not end its streams, or does not acknowledge

    def _last_goaway(self) -> None:
        """Requests beyond those that were opened will not be served."""
        quic = self.quic
        if quic is None:
            return
        self._draining = 2
        quic.watched = True
        self._refused = quic.streams.requests * 4
        self._goaway(self._refused)
        self.flush()
        self._idle()

    def _goaway(self, stream_id: int) -> None:
        number = varint.write(stream_id)
        self._control_out.send(b"%c%c%b" % (h3.GOAWAY, len(number), number), False)
