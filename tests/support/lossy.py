# A network between a client and the edge: it loses, swaps, doubles and delays datagrams, and forgets its NAT mappings.
"""`Lossy`: a UDP relay on loopback. What it does to datagrams is decided by a seed, one sequence for each direction."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

HELD = 0.004  # seconds after which a datagram that was to be swapped goes out although none came behind it


@dataclass
class Leg:
    """One address as the edge sees it.

    Attributes:
        to_edge, from_edge: bytes of UDP payload that really went over it.
    """

    socket: socket.socket
    port: int
    to_edge: int = 0
    from_edge: int = 0


@dataclass
class Way:
    """One direction."""

    random: random.Random
    send: Callable[[bytes], None]
    held: list[bytes] = field(default_factory=list)
    seen: int = 0
    lost: int = 0


class Lossy:
    """Relays between one client and the edge.

    Attributes:
        loss, duplicate, reorder: shares of the datagrams, in each direction.
        delay: seconds that each datagram takes.
        pass_up, pass_down: asked about each datagram; False loses it.
        legs: the addresses the edge has seen, the present one last.
    """

    def __init__(self, port: int, *, seed: int = 1, loss: float = 0.0, duplicate: float = 0.0, reorder: float = 0.0,
                 delay: float = 0.0) -> None:  # fmt: skip
        self.loop = asyncio.get_running_loop()
        self.target = ("127.0.0.1", port)
        self.loss = loss
        self.duplicate = duplicate
        self.reorder = reorder
        self.delay = delay
        self.pass_up: Callable[[bytes], bool] = lambda _: True
        self.pass_down: Callable[[bytes], bool] = lambda _: True
        self.client: tuple[str, int] | None = None
        self.legs: list[Leg] = []
        self.up = Way(random.Random(seed), self._to_edge)
        self.down = Way(random.Random(seed + 1), self._to_client)
        self.socket = self._socket()
        self.socket.bind(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.loop.add_reader(self.socket.fileno(), self._from_client)
        self.rebind()

    @staticmethod
    def _socket() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
        return sock

    def rebind(self) -> None:
        """From now on the edge sees another port; what it still sends to the old one is lost."""
        if self.legs:
            self.loop.remove_reader(self.legs[-1].socket.fileno())
        sock = self._socket()
        sock.connect(self.target)
        leg = Leg(sock, sock.getsockname()[1])
        self.legs.append(leg)
        self.loop.add_reader(sock.fileno(), self._from_edge, leg)

    def perfect(self) -> None:
        """From now on everything comes through as it was sent."""
        self.loss = self.duplicate = self.reorder = self.delay = 0.0
        self.pass_up = self.pass_down = lambda _: True

    def close(self) -> None:
        self.loop.remove_reader(self.socket.fileno())
        self.loop.remove_reader(self.legs[-1].socket.fileno())
        for sock in (self.socket, *(leg.socket for leg in self.legs)):
            sock.close()

    def _from_client(self) -> None:
        for _ in range(256):
            try:
                data, self.client = self.socket.recvfrom(65536)
            except BlockingIOError:
                return
            if self.pass_up(data):
                self._pass(self.up, data)

    def _from_edge(self, leg: Leg) -> None:
        for _ in range(256):
            try:
                data = leg.socket.recv(65536)
            except (BlockingIOError, ConnectionRefusedError):
                return
            leg.from_edge += len(data)
            if self.pass_down(data):
                self._pass(self.down, data)

    def _pass(self, way: Way, data: bytes) -> None:
        way.seen += 1
        draw = way.random.random
        if draw() < self.loss:
            way.lost += 1
            return
        copies = 2 if draw() < self.duplicate else 1
        if draw() < self.reorder:
            way.held.append(data)
            self.loop.call_later(HELD, self._release, way)
            copies -= 1
        for _ in range(copies):
            self._out(way, data)
        if copies and way.held:
            self._release(way)

    def _release(self, way: Way) -> None:
        held, way.held = way.held, []
        for data in held:
            self._out(way, data)

    def _out(self, way: Way, data: bytes) -> None:
        if self.delay:
            self.loop.call_later(self.delay, way.send, data)
        else:
            way.send(data)

    def _to_edge(self, data: bytes) -> None:
        leg = self.legs[-1]
        leg.to_edge += len(data)
        self._quietly(lambda: leg.socket.send(data))

    def _to_client(self, data: bytes) -> None:
        client = self.client
        if client is not None:
            self._quietly(lambda: self.socket.sendto(data, client))

    @staticmethod
    def _quietly(send: Callable[[], int]) -> None:
        try:
            send()
        except OSError:  # no room, nobody there, or closed: lost, as on any network
            pass


@asynccontextmanager
async def lossy(port: int, **settings: float) -> AsyncIterator[Lossy]:
    """A network before the edge at `port`; clients connect to its own `port`."""
    network = Lossy(port, **settings)  # type: ignore[arg-type]
    try:
        yield network
    finally:
        network.close()
