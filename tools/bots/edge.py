# The edge itself, listening on loopback, with a gateway that remembers what it was asked. Nothing of it is imitated.
"""`recording`: an edge per highest protocol (1, 2, 3) whose requests are kept by the label in their path."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeproxy.certs import CertificatePaths, make_development
from edgeproxy.config.model import Config
from edgeproxy.dataplane import DataPlane
from edgeproxy.gateway import Gateway
from edgeproxy.observe.metrics import WorkerStats
from edgeproxy.quic.ids import Seat

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.message import Body, Peer, Request, Sink
    from edgeproxy.plan import Plan

_LABEL = re.compile(rb"/c/([\w.@-]+)/([\w.@-]+)/")
_MOST = 20_000  # requests that are kept


class Seen(NamedTuple):
    """A request as it came; the label says what sent it."""

    client: str
    variant: str
    request: Request
    when: float


class Recording(Gateway):
    """A gateway that remembers each request before it handles it."""

    __slots__ = ()
    seen: list[Seen] = []  # noqa: RUF012  one run of the tool has one list
    labels: dict[int, tuple[Peer, str, str]] = {}  # noqa: RUF012  connections, for requests whose path has no label

    def open(self, request: Request, plan: Plan, body: Body, sink: Sink) -> Exchange:
        """See `Gateway`."""
        found = _LABEL.match(request.target) or _LABEL.search(request.header(b"referer") or b"")
        if found is not None:
            self.labels[id(request.peer)] = (request.peer, found[1].decode(), found[2].decode())
        known = self.labels.get(id(request.peer))
        if known is not None and len(self.seen) < _MOST:
            self.seen.append(Seen(known[1], known[2], request, time.time()))
        return super().open(request, plan, body, sink)


class Edges(NamedTuple):
    """Ports by highest HTTP version, and the certificate authority to trust."""

    ports: dict[str, int]
    certificates: CertificatePaths


@asynccontextmanager
async def recording(folder: Path, upstream: int) -> AsyncIterator[Edges]:
    """Three edges before `127.0.0.1:upstream`. Their certificate is for `localhost` and `edge.test`."""
    paths = make_development(folder, ("localhost", "127.0.0.1", "edge.test"))
    ports: dict[str, int] = {}
    async with AsyncExitStack() as stack:
        for highest, protocols in (("1", ["h1"]), ("2", ["h1", "h2"]), ("3", ["h1", "h2", "h3"])):
            ports[highest] = await stack.enter_async_context(running(paths, upstream, protocols))
        yield Edges(ports, paths)


@asynccontextmanager
async def running(
    paths: CertificatePaths, upstream: int, protocols: list[str], gateway: type[Gateway] = Recording,
    change: Callable[[Config], Config] = lambda config: config,
) -> AsyncIterator[int]:  # fmt: skip
    """One edge; yields its port."""
    config: dict[str, Any] = {
        "listen": {"https": "127.0.0.1:8443", "admin": None, "protocols": protocols},
        "tls": {"certificates": [{"cert": str(paths.cert), "key": str(paths.key)}]},
        "upstreams": {"main": {"targets": [{"url": f"http://127.0.0.1:{upstream}"}]}},
        "routes": [{"path": "/", "upstream": "main"}],
        # Short, so that browsers come back with new connections, and resume.
        "client": {"timeouts": {"idle": "1s"}},
    }
    plane = DataPlane(asyncio.get_running_loop(), WorkerStats(), None, gateway=gateway)
    snapshot = DataPlane.prepare(change(Config.model_validate(config)), os.urandom(80), instance="0123456789ab")
    snapshot.prints = True  # as if a rule asked for them
    plane.switch(snapshot)
    stream, packets = _sockets("h3" in protocols)
    await plane.listen([stream], [])
    if packets:
        plane.listen_quic(packets, Seat.single())
    try:
        yield stream.getsockname()[1]
    finally:
        await plane.release([stream, *packets])
        plane.abort()
        await plane.close()
        await asyncio.sleep(0.1)


def _sockets(datagrams: bool) -> tuple[socket.socket, list[socket.socket]]:
    """A listening TCP socket, and a UDP socket on the same port where wanted."""
    for _ in range(20):
        stream = socket.create_server(("127.0.0.1", 0), backlog=128)
        stream.setblocking(False)
        if not datagrams:
            return stream, []
        packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        packets.setblocking(False)
        packets.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO, as the supervisor sets it
        try:
            packets.bind(stream.getsockname())
        except OSError:
            stream.close()
            packets.close()
            continue
        return stream, [packets]
    raise OSError("no port is free for both TCP and UDP")
