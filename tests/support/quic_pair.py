# A server of ours and aioquic's client over a network in memory, with a clock that jumps from event to event.
"""`Pair`: handshake and connection between `edgeproxy.quic` and aioquic, with loss, delay, reordering and duplication."""

from __future__ import annotations

import heapq
import random
from typing import Any

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import QuicEvent

from edgeproxy.quic.connection import Connection
from edgeproxy.quic.established import Limits
from edgeproxy.quic.handshake import Handshake, Terms, Tickets
from edgeproxy.quic.ids import Seat
from support.edge import certificates, configuration, prepared
from support.quic_wire import Application, Host

CLIENT = ("192.0.2.7", 4433)
SERVER = ("192.0.2.1", 443)
DELAY = 0.01  # seconds one way


def terms(limits: Limits | None = None, most: int = 100) -> Terms:
    """Of a listener with the test's certificates."""
    chosen = prepared(configuration()).quic_certificates
    assert chosen is not None
    return Terms(chosen, limits or Limits(), Tickets(most))


def client_configuration(**changes: Any) -> QuicConfiguration:
    """A client that trusts the test's certificates."""
    given: dict[str, Any] = {"is_client": True, "alpn_protocols": ["h3"], "server_name": "edge.test"}
    made = QuicConfiguration(**{**given, **changes})
    made.load_verify_locations(str(certificates().ca))
    return made


class Network:
    """What happens to datagrams: each rate is a share of 1."""

    def __init__(self, seed: int = 0, *, loss: float = 0.0, repeat: float = 0.0, jitter: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.loss = loss
        self.repeat = repeat
        self.jitter = jitter
        self.quiet = False  # everything gets lost

    def fates(self) -> list[float]:
        """Delays after which a datagram arrives: none, one or two."""
        if self.quiet or self.random.random() < self.loss:
            return []
        count = 2 if self.random.random() < self.repeat else 1
        return [DELAY + self.random.random() * self.jitter for _ in range(count)]


class Pair:
    """See the module.

    Attributes:
        state: a Handshake, then a Connection.
        events: what aioquic told its application.
        sizes: bytes of datagrams (to the server, to the client).
    """

    def __init__(
        self, network: Network | None = None, *, offer: Terms | None = None, configuration: QuicConfiguration | None = None,
        keep: Any = None,
    ) -> None:  # fmt: skip
        self.network = network or Network()
        self.terms = offer or terms()
        self.seat = Seat.single()
        self.host = Host()
        self.app = Application()
        self.client = QuicConnection(configuration=configuration or client_configuration(), session_ticket_handler=keep)
        self.state: Handshake | Connection | None = None
        self.address = CLIENT
        self.original: bytes | None = None  # as if a Retry had been sent
        self.now = 1000.0
        self.events: list[QuicEvent] = []
        self.sizes: tuple[list[int], list[int]] = ([], [])
        self.flying: list[tuple[float, int, bool, bytes, tuple[str, int]]] = []
        self._count = 0
        self._ack_at = 0.0
        self.client.connect(SERVER, now=self.now)
        self._flush()

    @property
    def connection(self) -> Connection:
        """Ours, after the handshake."""
        assert isinstance(self.state, Connection)
        return self.state

    def run(self, until: Any, *, most: float = 60.0) -> None:
        """Let things happen until `until()` is true. Fails when they stop, or after `most` seconds of the clock."""
        end = self.now + most
        for _ in range(200_000):
            if until():
                return
            assert self._next(), "nothing will happen any more"
            assert self.now < end, "too slow"
        raise AssertionError("too many events")

    def rest(self, seconds: float) -> None:
        """Let happen what happens in the next seconds."""
        end = self.now + seconds
        while self._next(end):
            pass
        self.now = end

    def handshake(self) -> Pair:
        """Until both sides are done with it."""
        self.run(lambda: isinstance(self.state, Connection) and self.client._handshake_confirmed)
        return self

    def _next(self, end: float = float("inf")) -> bool:
        """The next event up to `end`. Returns: there was one."""
        times: list[tuple[float, str]] = []
        if self.flying:
            times.append((self.flying[0][0], "network"))
        timer = self.client.get_timer()
        if timer is not None:
            times.append((timer, "client"))
        state = self.state
        if state is not None and (not isinstance(state, Connection) or state.is_open):
            timer = state.timer_at()
            if timer:
                times.append((timer, "server"))
        if self._ack_at:
            times.append((self._ack_at, "acknowledgment"))
        if not times or min(times)[0] > end:
            return False
        at, what = min(times)
        self.now = max(self.now, at)
        if what == "network":
            while self.flying and self.flying[0][0] <= self.now:  # what comes together is read together
                _, _, to_server, data, address = heapq.heappop(self.flying)
                if to_server:
                    self.receive(data, address)
                else:
                    self.client.receive_datagram(data, SERVER, now=self.now)
        elif what == "client":
            self.now += 1e-6  # aioquic compares `sent + delay` with `now - delay`: rounding must not hold time up
            self.client.handle_timer(now=self.now)
        elif what == "acknowledgment":
            self._ack_at = 0.0
            if isinstance(state, Connection):
                state.acknowledge()
        else:
            assert state is not None
            state.on_timer(self.now)
        self._flush()
        return True

    def receive(self, data: bytes, address: tuple[str, int]) -> None:
        """As the listener does, in short."""
        if self.state is None:
            name = data[6 : 6 + data[5]]
            version = int.from_bytes(data[1:5], "big")
            self.state = Handshake(self.terms, self.seat, address, name, version, self.original)
        state = self.state
        state.receive(data, address, self.now)
        if isinstance(state, Handshake) and state.established is not None:
            self.state = connection = Connection(self.host, state.established, self.terms.limits, self.now)
            connection.application = self.app
            for early in state.early:
                connection.receive(early, address, self.now)

    def _flush(self) -> None:
        """Both sides send what they have to."""
        event = self.client.next_event()
        while event is not None:
            self.events.append(event)
            event = self.client.next_event()
        for data, _ in self.client.datagrams_to_send(now=self.now):
            self._fly(to_server=True, data=data, address=self.address)
        state = self.state
        if isinstance(state, Connection):
            if state.is_open:
                out = state.transmit(self.now)
                if state.paths.probe:
                    self._fly(to_server=False, data=state.paths.probe, address=state.paths.address)
                    state.paths.probe = b""
                for data in out:
                    self._fly(to_server=False, data=data, address=state.paths.address)
                for data, address in state.paths.take_outgoing():
                    self._fly(to_server=False, data=data, address=address)
            elif state.last_words() and self.host.ended == 1:
                self.host.ended += 1
                self._fly(to_server=False, data=state.last_words(), address=state.paths.address)
        elif state is not None:
            for data in state.transmit(self.now):
                self._fly(to_server=False, data=data, address=state.address)
        if self.host.promised:
            self.host.promised = False
            self._ack_at = self._ack_at or self.now + 0.02

    def _fly(self, *, to_server: bool, data: bytes, address: tuple[str, int]) -> None:
        self.sizes[0 if to_server else 1].append(len(data))
        for delay in self.network.fates():
            self._count += 1
            heapq.heappush(self.flying, (self.now + delay, self._count, to_server, data, address))
