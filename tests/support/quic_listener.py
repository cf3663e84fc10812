# A QuicListener without sockets: datagrams in, datagrams out, timers when the clock is moved.
"""`Listening`: a listener on a fake socket and a loop whose clock is moved by hand."""

from __future__ import annotations

import heapq
import socket
from typing import Any, cast

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from edgeproxy.config.model import Config
from edgeproxy.listen.quic import Endpoint, QuicListener
from edgeproxy.quic.ids import Seat
from edgeproxy.quic.udp import Address, Local, UdpSocket
from support.pipeline import FakeLoop, Stand
from support.quic_pair import CLIENT, SERVER, client_configuration

SECRET = bytes(range(32))


class Timer:
    """A handle."""

    def __init__(self, call: Any, given: tuple[Any, ...]) -> None:
        self.call = call
        self.given = given
        self.cancelled = False

    def cancel(self) -> None:
        """As a TimerHandle's."""
        self.cancelled = True


class Loop(FakeLoop):
    """FakeLoop whose timers are called by `run`."""

    def __init__(self) -> None:
        super().__init__()
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = 0
        self.writers = 0

    def add_writer(self, sock: Any, call: Any, *given: Any) -> None:
        """Counts."""
        self.writers += 1

    def remove_writer(self, sock: Any) -> None:
        """Counts."""
        self.writers -= 1

    def remove_reader(self, sock: Any) -> None:
        """There was none."""

    def call_at(self, when: float, call: Any, *given: Any) -> Timer:
        """As a loop's."""
        timer = Timer(call, given)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, timer))
        return timer

    def call_later(self, delay: float, call: Any, *given: Any) -> Timer:
        """As a loop's."""
        return self.call_at(self.now + delay, call, *given)

    def call_soon(self, call: Any, *given: Any) -> Timer:
        """As a loop's."""
        return self.call_at(self.now, call, *given)

    def run(self, seconds: float = 0.0) -> None:
        """Time passes."""
        end = self.now + seconds
        for _ in range(5000):
            if not self._timers or self._timers[0][0] > end:
                self.now = end
                return
            when, _, timer = heapq.heappop(self._timers)
            self.now = max(self.now, when)
            if not timer.cancelled:
                timer.call(*timer.given)
        raise AssertionError("a timer spins")


class Udp:
    """What is left of a UdpSocket."""

    def __init__(self) -> None:
        self.incoming: list[tuple[bytes, Address, Local]] = []
        self.sent: list[tuple[bytes, Address]] = []
        self.blocked = False
        self.sock = self

    def close(self) -> None:
        """As a socket's."""

    def flush(self) -> None:
        """Nothing waits here."""

    def receive(self) -> list[tuple[bytes, Address, Local]]:
        """What arrived."""
        got, self.incoming = self.incoming, []
        return got

    def send(self, datagrams: list[bytes], address: Address, local: Local) -> None:
        """Remembers."""
        self.sent += [(data, address) for data in datagrams]

    def take(self) -> list[tuple[bytes, Address]]:
        """What was sent since."""
        sent, self.sent = self.sent, []
        return sent


class Listening:
    """See the module."""

    def __init__(self, config: Config | None = None, seat: Seat | None = None) -> None:
        self.stand = Stand(config)
        self.loop = Loop()
        self.stand.gateway.loop = cast("Any", self.loop)
        self.listener = QuicListener(self.stand.gateway)
        self.listener.listen([], seat or Seat(0, 1, SECRET, None, []))
        self.udp = Udp()
        self.endpoint = Endpoint(0, cast("UdpSocket", self.udp))
        self.listener.endpoints.append(self.endpoint)
        self.stats = self.listener.stats

    def feed(self, *datagrams: bytes, address: tuple[str, int] = CLIENT) -> list[bytes]:
        """Datagrams in one read. Returns: what went out at once."""
        self.udp.incoming += [(data, address, None) for data in datagrams]
        self.listener._readable(self.endpoint)
        self.loop.run()
        return [data for data, _ in self.udp.take()]

    def sweep(self, seconds: float) -> None:
        """Time passes, deadlines included."""
        self.loop.run(seconds)
        self.stand.deadlines.sweep(self.loop.now)
        self.loop.run()

    @property
    def is_empty(self) -> bool:
        """Nobody is known, counted or waited for."""
        listener, stats = self.listener, self.stats
        return not (
            listener.sessions or listener.open or listener._door._sources or listener._wanting or self.stand.deadlines.members
            or stats.half_open or stats.connections_open or listener.bodies
        )  # fmt: skip


class Client:
    """aioquic's client of a listener; no time passes on the way."""

    def __init__(
        self, listening: Listening, configuration: QuicConfiguration | None = None, address: tuple[str, int] = CLIENT,
        one_way: int = 128,
    ) -> None:  # fmt: skip
        self.listening = listening
        self.address = address
        self.quic = QuicConnection(configuration=configuration or client_configuration())
        self.quic._local_max_streams_uni.value = one_way
        self.quic.connect(SERVER, now=listening.loop.now)

    def first(self) -> list[bytes]:
        """Datagrams that are to be sent."""
        return [data for data, _ in self.quic.datagrams_to_send(now=self.listening.loop.now)]

    def talk(self, turns: int = 20) -> Client:
        """Datagrams go back and forth, ten milliseconds a turn, until there are none."""
        loop = self.listening.loop
        quiet = 0
        for _ in range(turns):
            out = self.first()
            answers = self.listening.feed(*out, address=self.address) if out else []
            loop.run(0.01)  # also for the pacer of the client
            answers += [data for data, _ in self.listening.udp.take()]
            for data in answers:
                self.quic.receive_datagram(data, SERVER, now=loop.now)
            timer = self.quic.get_timer()
            if timer is not None and timer <= loop.now:
                self.quic.handle_timer(now=loop.now)
            quiet = 0 if out or answers else quiet + 1
            if quiet == 4:
                break
        return self


def packet_socket() -> tuple[socket.socket, socket.socket]:
    """Both ends of what workers pass datagrams on by."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.setblocking(False)
    other.setblocking(False)
    return one, other
