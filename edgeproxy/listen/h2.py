# HTTP/2 from clients: the connection. Everything about the engine ngh2 is in this file and in h2_stream.py.
"""HTTP/2 server connection over ngh2 (RFC 9113).

Frames are written once per read and once per turn of the loop, however many streams have something to say. Flow control
is by consumption: the client gets window back when the upstream has taken its bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ngh2
from ngh2 import Configuration, Role, Setting

from edgeproxy.deadlines import NEVER
from edgeproxy.faults import Fault
from edgeproxy.listen.first import MAX_FIRST, h2_print
from edgeproxy.listen.h2_stream import H2Stream
from edgeproxy.listen.pseudo import Section, build_request, content_length_at, similar
from edgeproxy.message import Peer, Request
from edgeproxy.observe.metrics import H2
from edgeproxy.plan import Plan, akin

if TYPE_CHECKING:
    from edgeproxy.config.model import Client
    from edgeproxy.gateway import Gateway
    from edgeproxy.listen.h1 import Connection

MAX_NOISE = 64 * 1024  # bytes of frames in a row that neither bring content nor lead to any (floods of PING, SETTINGS, …)
_ENHANCE_YOUR_CALM = 0x0B
_HARMLESS = frozenset({0x00, 0x08})  # NO_ERROR, CANCEL
_GRACE = 1.0  # seconds between the announcement of a shutdown and refusing new streams


def _configuration(client: Client) -> Configuration:
    return Configuration(
        auto_window_update=False,
        stream_reset_rate_limit=(client.h2.reset_burst, client.h2.reset_rate),
        glitch_rate_limit=(client.h2.reset_burst * 10, client.h2.reset_rate * 10),
        # Twice what is allowed reaches us, so that a client that is a little over gets a 431 instead of a dead connection.
        max_inbound_header_list_size=client.max_head * 2,
        max_inbound_header_count=client.max_headers * 2,
        max_outbound_ack=200,
        max_deflate_dynamic_table_size=4096,
    )


class H2Connection:
    """One client connection.

    Attributes:
        engine: the framing and HPACK engine; `H2Stream` sends through it and calls `dirty` afterwards.
        streams: by id; a stream stays until both sides have ended it.
        blocked: streams that wait for the client to read.
        finished: streams whose reply was completed since the last write.
        reading: inside `data_received`; one write at its end serves everything.
        scheduled: turns of the loop the next write was put off by, plus one; 0 when none is due.
        noise: bytes received since something useful happened.
        first: the first bytes behind the TLS handshake, until the first request; None where nobody wants its print.
    """

    __slots__ = (
        "_draining", "_faults", "_faults_until", "_fresh", "_plan", "_plan_at", "_plan_request", "_plan_section",
        "_stalled", "blocked", "connection", "engine", "finished", "first", "gateway", "noise", "peer", "reading",
        "scheduled", "streams",
    )  # fmt: skip

    def __init__(self, connection: Connection, gateway: Gateway, peer: Peer) -> None:
        client = gateway.snapshot.client
        self.connection = connection
        self.gateway = gateway
        self.engine = ngh2.Connection(Role.SERVER, _configuration(client))
        self.streams: dict[int, H2Stream] = {}
        self.blocked: set[H2Stream] = set()
        self.finished: list[H2Stream] = []
        self.first: bytes | None = b"" if peer.prints is not None else None
        self.peer = peer
        self.reading = False
        self.scheduled = 0
        self._stalled = False
        self._draining = 0
        self.noise = 0
        self._faults = 0
        self._faults_until = 0.0
        self._fresh = False  # made while draining, and not asked for anything yet
        self._plan: Plan | None = None
        self._plan_request: Request | None = None
        self._plan_section: Section = ()
        self._plan_at = -1
        settings = {
            Setting.MAX_CONCURRENT_STREAMS: client.h2.max_streams,
            Setting.INITIAL_WINDOW_SIZE: client.h2.stream_window,
            Setting.MAX_HEADER_LIST_SIZE: client.max_head,
        }
        self.engine.initiate_connection(settings)
        self.engine.set_local_window_size(client.h2.connection_window)
        connection.deadline = gateway.deadlines.now + client.timeouts.idle
        self._flush()

    # -- bytes in ------------------------------------------------------------------------------------------------

    def data_received(self, data: memoryview) -> None:
        """Frames from the client. `data` is only valid during the call."""
        if self.first is not None:
            self.first += bytes(data[: MAX_FIRST - len(self.first)])
        self.noise += len(data)
        engine = self.engine
        self.reading = True
        try:
            engine.receive_data(data)
            opened = self._events()
            for stream in opened:
                if not stream.ready:
                    # The content is still to come. What is wrong with it already (Content-Length) the engine tells
                    # when it sends its RST_STREAM: ask before anything goes upstream.
                    self._send()
                    self._events()
                    break
            for stream in opened:
                if not stream.begun and stream.id in self.streams:
                    self._begin(stream)
        except ngh2.NGH2Error as error:
            self._broken(error)
            return
        finally:
            self.reading = False
        if self.noise > MAX_NOISE:
            self.gateway.stats.fault("client", "h2_flood")
            self._terminate()
            return
        self._flush()

    def _events(self) -> list[H2Stream]:
        """Take the engine's events. Returns: streams that were opened, to be begun when all events are known."""
        opened: list[H2Stream] = []
        streams = self.streams
        for event in self.engine.events():
            kind = type(event)
            if kind is ngh2.RequestReceived:
                self._fresh = False
                stream = H2Stream(self, event.stream_id, event.headers)  # type: ignore[attr-defined]  # narrowed by `is`
                streams[stream.id] = stream
                if event.end_stream:  # type: ignore[attr-defined]
                    stream.body.done = True
                    stream.ready = stream.bare = True
                opened.append(stream)
                self.noise = 0
            elif kind is ngh2.DataReceived:
                found = streams.get(event.stream_id)  # type: ignore[attr-defined]
                if found is not None:
                    found.received(event.data, event.end_stream)  # type: ignore[attr-defined]
                elif event.data:  # type: ignore[attr-defined]
                    self.noise = 0
                    self.engine.acknowledge_received_data(len(event.data), event.stream_id)  # type: ignore[attr-defined]
            elif kind is ngh2.StreamClosed:
                self._closed(event)  # type: ignore[arg-type]
            elif kind is ngh2.TrailersReceived:
                found = streams.get(event.stream_id)  # type: ignore[attr-defined]
                if found is not None:
                    found.body.trailers = [field for field in event.headers if not field[0].startswith(b":")]  # type: ignore[attr-defined]
                    found.ended()
            elif kind is ngh2.ConnectionClosed:
                self._engine_ended(event)  # type: ignore[arg-type]
        return opened

    def _engine_ended(self, event: ngh2.ConnectionClosed) -> None:
        """The engine is through with the connection: after a GOAWAY of either side, or because of what it received."""
        if event.error_code:
            reason = "h2_flood" if event.error_code == _ENHANCE_YOUR_CALM else "h2_protocol"
            self.gateway.stats.fault("client", reason)
        self.connection.close(linger=True)

    def _closed(self, event: ngh2.StreamClosed) -> None:
        """A stream is over, one way or another: what is left of it on our side goes with it."""
        stream = self.streams.pop(event.stream_id, None)
        if stream is not None:
            stream.closed()
        # 8 is CANCEL: clients leave. What we reset ourselves is not the client's doing.
        if (event.local_error is not None or event.error_code not in _HARMLESS) and not (stream is not None and stream.reset):
            # Streams that the client makes us reset count like those it resets itself.
            now = self.gateway.deadlines.now
            if now > self._faults_until:
                self._faults, self._faults_until = 0, now + 60.0
            self._faults += 1
            self.gateway.stats.fault("client", "h2_stream_error")
            if self._faults > self.gateway.snapshot.client.h2.reset_burst:
                self._terminate()
                return
        if not self.streams:
            client = self.gateway.snapshot.client
            if not self._stalled and not self._draining:
                self.connection.deadline = self.gateway.deadlines.now + client.timeouts.idle

    def _begin(self, stream: H2Stream) -> None:
        gateway = self.gateway
        if not self._stalled and self._draining != 1:
            self.connection.deadline = NEVER
        section, plan, request = stream.section, self._plan, self._plan_request
        if plan is None or request is None or plan.snapshot is not gateway.snapshot:
            self._begin_unknown(stream)
        elif section == self._plan_section:
            # A request without Content-Length differs by whether content follows.
            if self._plan_at >= 0 or (request.length == 0) is stream.bare:
                stream.begin(request, plan)
            else:
                self._begin_unknown(stream)
        else:
            like = similar(section, self._plan_section, self._plan_at, request)
            if like is None:
                self._begin_unknown(stream)
            else:
                stream.begin(like, plan)

    def _begin_unknown(self, stream: H2Stream) -> None:
        """A section that must be understood first."""
        gateway = self.gateway
        if self.first is not None and self.peer.prints is not None:
            self.peer.prints.h2 = h2_print(self.first, stream.section)
            self.first = None
        request = build_request(stream.section, self.peer, gateway.snapshot.client, H2, ended=stream.bare)
        if isinstance(request, Fault):
            stream.refuse(request)
            return
        plan = gateway.plan(request, akin(self._plan, self._plan_request, request, gateway.snapshot))
        self._plan, self._plan_request = (None, None) if request.expects else (plan, request)
        self._plan_section = stream.section
        self._plan_at = content_length_at(stream.section)
        stream.begin(request, plan)

    def _broken(self, error: ngh2.NGH2Error) -> None:
        """The engine gave up on the connection; it may still have a GOAWAY to send."""
        self.gateway.stats.fault("client", "h2_flood" if isinstance(error, ngh2.DenialOfServiceError) else "h2_protocol")
        self._send()
        self.connection.close(linger=True)
        self._gone()

    def _terminate(self) -> None:
        """The client costs more than it brings: GOAWAY and close."""
        try:
            self.engine.terminate_connection(_ENHANCE_YOUR_CALM)
        except ngh2.NGH2Error:
            pass  # it is closing already
        self._send()
        self.connection.close(linger=True)
        self._gone()

    # -- bytes out -----------------------------------------------------------------------------------------------

    def dirty(self) -> None:
        """A stream gave the engine something to send: write it when everybody had a turn."""
        if not self.reading and not self.scheduled:
            self.scheduled = 1
            self.gateway.loop.call_soon(self._flush_scheduled)

    def _flush_scheduled(self) -> None:
        if self.scheduled == 1 and len(self.streams) - len(self.finished) > 1:
            # Others are still being worked on: one more turn of the loop, and their replies share records and a write.
            # On an idle loop that turn takes microseconds, on a busy one it halves the number of writes.
            self.scheduled = 2
            self.gateway.loop.call_soon(self._flush_scheduled)
            return
        self.scheduled = 0
        self._flush()

    def flush(self) -> None:
        """Write now: something must be out before the next step (an event before a reset)."""
        self._flush()

    def _flush(self) -> None:
        """Write what the engine may send, hear what that changed, and let waiting streams go on."""
        if self._stalled or self.connection.is_closing():
            return
        self._send()
        try:
            self._events()
        except ngh2.NGH2Error as error:
            self._broken(error)
            return
        if self.finished:
            for stream in self.finished:
                if stream.id in self.streams:
                    stream.linger()
            self.finished.clear()
        if self.blocked:
            for stream in list(self.blocked):
                stream.unblock()
        if self._draining and not self.streams and not self.reading and not self._fresh:
            self._goodbye()
            # Read on: the client still acknowledges what it gets, and a closed socket would answer with a reset.
            self.connection.close(linger=True)

    def _send(self) -> None:
        try:
            data = self.engine.data_to_send()
        except ngh2.NGH2Error:
            return  # the connection is closed below
        if data:
            self.connection.write(data)

    def pause_writing(self) -> None:
        """The socket is full: frames wait in the engine, whose queues the streams watch."""
        self._stalled = True
        self.connection.deadline = self.gateway.deadlines.now + self.gateway.snapshot.client.timeouts.write

    def resume_writing(self) -> None:
        """The socket drained."""
        self._stalled = False
        idle = self.gateway.deadlines.now + self.gateway.snapshot.client.timeouts.idle
        self.connection.deadline = NEVER if self.streams and self._draining != 1 else idle
        self._flush()

    # -- the end -------------------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """The connection's deadline passed."""
        self._fresh = False
        if self._draining == 1:
            self.connection.deadline = NEVER
            self._goodbye()
            self._flush()
        elif self._stalled or self.streams:
            self.connection.abort()
        else:
            self._draining = 2
            self.connection.deadline = now + _GRACE
            self._goodbye()
            self._flush()

    def _goodbye(self) -> None:
        """The last GOAWAY: streams beyond those we know will not be served (RFC 9113 §6.8)."""
        if self._draining < 3:
            self._draining = 3
            try:
                self.engine.send_goaway()
            except ngh2.NGH2Error:
                self.connection.close()  # the engine has ended the connection before
            self._send()

    def drain(self, *, idle: bool = True) -> None:
        """Shut down gracefully (RFC 9113 §6.8): announce it, a moment later refuse new streams, finish the rest.

        Args:
            idle: False for a connection that was just made: it may ask for something first.
        """
        if self._draining or self.connection.is_closing():
            return
        self._draining = 1
        self._fresh = not idle
        if self.streams or not idle:
            try:
                self.engine.send_shutdown_notice()
            except ngh2.NGH2Error:
                self.connection.close()
                return
            self.connection.deadline = self.gateway.deadlines.now + _GRACE
        self._flush()

    def eof_received(self) -> bool:
        """The client said goodbye."""
        self._gone()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        del error
        self._gone()

    def _gone(self) -> None:
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            stream.closed()
        self.blocked.clear()
        self.finished.clear()
