# One QUIC client of a worker: the handshake, then the connection with HTTP/3 on it; timers, caps and counters around them.
"""`Session`: what ties a `Handshake` or a `Connection` to a socket, a timer and an `H3Connection`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.deadlines import NEVER
from edgeproxy.listen.h3 import H3Connection
from edgeproxy.listen.link import address_of, hello_size
from edgeproxy.message import Described
from edgeproxy.observe.metrics import H3
from edgeproxy.prints import Prints
from edgeproxy.quic.connection import Connection
from edgeproxy.quic.contracts import NOBODY
from edgeproxy.quic.handshake import Handshake

if TYPE_CHECKING:
    import asyncio

    from edgeproxy.listen.quic import Endpoint, QuicListener
    from edgeproxy.quic.established import Established
    from edgeproxy.quic.udp import Address, Local

_SLACK = 0.0005  # seconds a timer may come early: the loop's clock has milliseconds
_LONG = 1.0  # seconds ahead of which the timer is only while probes back off
_LOOKS = 3  # times in the idle timeout that it is looked whether anybody is there
_REMEMBERED, _REMEMBERED_MOST = 0.1, 3.0  # seconds, at least and at most, for which a closed connection catches late packets


class Session:
    """See the module.

    Attributes:
        state: a Handshake, then a Connection.
        app: HTTP/3, None during the handshake.
        deadline: when `expire` looks again: at the handshake, at the transport's idle timeout, at HTTP/3's own deadline.
        address: where the client is, as the connection knows it.
        local: from where to answer, see `quic.udp`.
        hello_size: bytes of the ClientHello message, 0 before it was read.
    """

    __slots__ = (
        "_armed", "_counted", "_idle", "_timer", "address", "app", "deadline", "endpoint", "h3_deadline", "hello_size", "ids",
        "listener", "local", "over_", "source", "state", "wants_out",
    )  # fmt: skip

    def __init__(self, listener: QuicListener, endpoint: Endpoint, handshake: Handshake, local: Local, source: str) -> None:
        self.listener = listener
        self.endpoint = endpoint
        self.state: Handshake | Connection = handshake
        self.app: H3Connection | None = None
        self.local = local
        self.address = handshake.address
        self.source = source
        self.ids: set[bytes] = set(handshake.ids)
        self.hello_size = 0
        self.wants_out = False
        self.over_ = False
        self._timer: asyncio.TimerHandle | None = None
        self._armed = 0.0
        self._counted = (0, 0, 0, 0.0)
        self._idle = NEVER
        self.h3_deadline = NEVER
        self.deadline = NEVER

    # -- datagrams -----------------------------------------------------------------------------------------------

    def receive(self, data: bytes, address: Address, local: Local, now: float) -> None:
        """A datagram for one of our ids."""
        state = self.state
        state.receive(data, address, now)
        if type(state) is Connection:
            if state.paths.address is not self.address:
                self._moved(state.paths.address)
            if local is not None and address == self.address:
                self.local = local
            if state.paths.outgoing:
                # Answers to another path: they leave from the address that was asked there. Nothing of it is remembered.
                for datagram, where in state.paths.take_outgoing():
                    self.endpoint.udp.send([datagram], where, local)
        elif type(state) is Handshake:
            if state.established is not None and not self.over_:
                self._established(state, state.established, now)
            self.listener.want(self)

    def _moved(self, address: Address) -> None:
        """The client is somewhere else, or back again."""
        self.address = address
        if self.app is not None:
            peer = self.listener.peer(address, self)
            peer.names = self.app.peer.names
            peer.prints = None if peer.trusted else self.app.peer.prints
            self.app.moved(peer)

    def _established(self, handshake: Handshake, made: Established, now: float) -> None:
        """The handshake is confirmed: HTTP/3 begins."""
        listener = self.listener
        gateway = listener.gateway
        stats = listener.stats
        stats.half_open -= 1
        stats.handshakes += 1
        stats.connections_open += 1
        if made.resumed:
            stats.handshakes_resumed += 1
        gateway.stats.connections_open[H3] += 1
        gateway.stats.connections_total[H3] += 1
        limits = made.limits
        self.hello_size = hello_size(made.hello)
        self._idle = min(limits.idle, made.idle or limits.idle)
        connection = Connection(self, made, limits, now)
        self.state = connection
        self.address = connection.paths.address
        peer = listener.peer(made.address, self)
        peer.names = handshake.names
        if gateway.prints and not peer.trusted:  # a proxy's connection tells nothing of its clients
            peer.prints = Prints(made.hello, "q")
        self.app = app = H3Connection(self, connection, gateway, peer, listener.encoder, listener.decoder)
        connection.application = app
        if made.max_streams_uni < 1:
            connection.close(0x103, "a control stream must be allowed")  # RFC 9114 §6.2
            return
        if listener.draining:
            app.drain(idle=False)
        for data in handshake.early:
            connection.receive(data, made.address, now)
        self._schedule(now)

    def transmit(self, now: float) -> None:
        """Send everything that may be sent now."""
        self.wants_out = False
        state, udp = self.state, self.endpoint.udp
        stats = self.listener.stats
        if type(state) is Connection:
            if not state.is_open:
                words = state.last_words()
                state.marked = False
                if words:
                    udp.send([words], state.paths.address, self.local)
                return
            out = state.transmit(now)
            if state.paths.probe:
                # Before the others: its number is lower, and a gap would pass for a loss.
                udp.send([state.paths.probe], state.paths.address, self.local)
                state.paths.probe = b""
            if out:
                stats.packets_sent += len(out)
                udp.send(out, state.paths.address, self.local)
            if self.app is not None:
                self.app.sent()
            if self._timer is not None and self._armed < now + _LONG:
                if state.soon and state.soon < self._armed - _SLACK:
                    self._arm(state.soon)
            elif state.is_open:
                # Not armed, or for a probe that backed off: the acknowledgment that ended that may have moved it forward.
                at = state.timer_at()
                if at and (self._timer is None or at < self._armed - _SLACK):
                    self._arm(at)
        else:
            assert isinstance(state, Handshake)
            out = state.transmit(now)
            if out:
                udp.send(out, state.address, self.local)
            if state.failure and not self.over_:
                self.fail(state.failure.partition(" ")[0])
                return
            at = state.timer_at()
            if at and (self._timer is None or at < self._armed - _SLACK):
                self._arm(at)

    def flush(self) -> None:
        """See `h3.Session`."""
        if not self.endpoint.udp.blocked:
            self.transmit(self.listener.gateway.loop.time())

    # -- time ----------------------------------------------------------------------------------------------------

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed = at
        self._timer = self.listener.gateway.loop.call_at(at, self._fire)

    def _fire(self) -> None:
        """The timer is only ever moved forward: what it was set for may be long done."""
        self._timer = None
        if self.over_:
            self.forget()
            return
        now = self.listener.gateway.loop.time()
        at = self.state.timer_at()
        if not at:
            return
        if at > now + _SLACK:
            self._arm(at)
            return
        try:
            self.state.on_timer(now)
        except Exception as error:
            self.crash(error)
        if type(self.state) is Handshake and self.state.is_over:
            self.fail("timeout")
        self.listener.want(self)

    def _schedule(self, now: float) -> None:
        """When `expire` must look again: in time for a sign of life, even if the request it is for begins right after this,
        so that neither side gives up while an upstream thinks."""
        self.deadline = min(now + self._idle / _LOOKS, self.h3_deadline)

    def expire(self, now: float) -> None:
        """The deadline passed."""
        state = self.state
        if type(state) is Handshake:
            self.fail("timeout")
            self.forget()
            return
        assert isinstance(state, Connection)
        app = self.app
        if app is None or not state.is_open:
            self.deadline = NEVER
            return
        silent = now - state.heard
        if now >= self.h3_deadline:
            app.expire(now)
        elif silent >= max(self._idle, 3 * state.recovery.pto()):
            state.vanish("idle timeout")
        elif app.active and silent >= self._idle / _LOOKS:
            state.ping()
        if state.is_open:
            self._count(state)
            self._schedule(now)

    # -- Host of a connection ------------------------------------------------------------------------------------

    def wake(self, connection: Connection) -> None:
        """See `quic.connection.Host`."""
        del connection
        self.listener.want(self)

    def acknowledge_later(self, connection: Connection) -> None:
        """See `quic.connection.Host`."""
        self.listener.acknowledge_later(connection)

    def new_id(self) -> tuple[bytes, bytes]:
        """See `quic.connection.Host`."""
        seat = self.listener.seat
        name = seat.new_id()
        return name, seat.reset_token(name)

    def issued(self, connection: Connection, connection_id: bytes) -> None:
        """See `quic.connection.Host`."""
        del connection
        self.ids.add(connection_id)
        self.listener.sessions[connection_id] = self

    def retired(self, connection_id: bytes) -> None:
        """See `quic.connection.Host`."""
        self.ids.discard(connection_id)
        self.listener.sessions.pop(connection_id, None)

    def over(self, connection: Connection) -> None:
        """See `quic.connection.Host`."""
        listener = self.listener
        listener.stats.connections_open -= 1
        self._count(connection)
        listener.gateway.stats.connections_open[H3] -= 1
        self.app = None
        self.deadline = NEVER
        listener.closed(self)
        listener.want(self)
        self.over_ = True
        if self._timer is not None:
            self._timer.cancel()
        self._timer = listener.gateway.loop.call_later(
            min(max(3 * connection.recovery.pto(), _REMEMBERED), _REMEMBERED_MOST), self.forget
        )

    def until(self, deadline: float) -> None:
        """See `h3.Session`."""
        self.h3_deadline = deadline
        self.deadline = min(self.deadline, deadline)

    def begin_later(self, app: H3Connection) -> None:
        """See `h3.Session`."""
        self.listener.beginning.append(app)

    # -- the link of a peer --------------------------------------------------------------------------------------

    def describe(self) -> Described:
        """See `message.Link`."""
        state = self.state
        # QUIC is TLS 1.3 (RFC 9001 §4.2).
        suite = f"TLS_{state.protection.suite.name}" if type(state) is Connection else ""
        return Described("TLSv1.3", suite, self.hello_size, *address_of(self.endpoint.udp.name(self.local)))

    def rtt(self) -> float | None:
        """See `message.Link`."""
        state = self.state
        return state.recovery.smoothed if type(state) is Connection and state.recovery.latest else None

    # -- accounts ------------------------------------------------------------------------------------------------

    def _count(self, connection: Connection) -> None:
        """What happened since the last time: a connection that lives for days shows while it does, and no packet costs more."""
        stats, recovery = self.listener.stats, connection.recovery
        lost, probed, moves, heard = self._counted
        self._counted = (recovery.lost, recovery.probed, connection.paths.moves, connection.heard)
        stats.packets_lost += recovery.lost - lost
        stats.probes += recovery.probed - probed
        stats.migrations += connection.paths.moves - moves
        if recovery.latest and connection.heard != heard:
            stats.rtt(recovery.smoothed)

    def held(self, size: int) -> bool:
        """See `h3.Session`."""
        return self.listener.held(size)

    def fail(self, reason: str) -> None:
        """The handshake failed. The engine goes on for a moment: it repeats its farewell."""
        if not self.over_:
            self.over_ = True
            self.listener.stats.half_open -= 1
            self.listener.stats.handshake_failure(reason)
            self.listener.closed(self)
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.listener.gateway.loop.call_later(_REMEMBERED * 5, self.forget)

    def crash(self, error: Exception) -> None:
        """A bug of ours: this connection ends, the others must not notice."""
        listener = self.listener
        listener.gateway.loop.call_exception_handler({"message": "QUIC connection", "exception": error})
        state = self.state
        if type(state) is Handshake:
            self.fail("internal")
        else:
            assert isinstance(state, Connection)
            try:
                state.crash()
            except Exception as another:  # from the application's own end; the connection's is done
                listener.gateway.loop.call_exception_handler({"message": "QUIC connection", "exception": another})

    def forget(self) -> None:
        """No more packets for these ids."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        sessions = self.listener.sessions
        for name in self.ids:
            sessions.pop(name, None)
        self.ids.clear()
        state = self.state
        if type(state) is Handshake:
            state.drop()
        else:
            state.host = NOBODY  # type: ignore[union-attr]  # a Connection, then; it and we held each other

    def abort(self) -> None:
        """End it now."""
        state = self.state
        if type(state) is Connection:
            state.close(0x100)
            self.transmit(self.listener.gateway.loop.time())
        else:
            self.fail("shutdown")
        self.forget()
