# An edge in the test's own process: a DataPlane on real ports, without supervisor, control process or files of its own.
"""`running_edge`: the data plane as a worker runs it, listening on loopback, TCP and UDP."""

from __future__ import annotations

import asyncio
import atexit
import functools
import secrets
import shutil
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeproxy.certs import CertificatePaths, make_development
from edgeproxy.config.model import Config
from edgeproxy.config.snapshot import Snapshot
from edgeproxy.dataplane import DataPlane
from edgeproxy.deadlines import Deadlines
from edgeproxy.observe.metrics import WorkerStats
from support.waiting import until

if TYPE_CHECKING:
    from edgeproxy.quic.ids import Seat

NAMES = ("localhost", "127.0.0.1", "::1", "edge.test", "*.edge.test")


class Edge(NamedTuple):
    """A running data plane: `https_port, http_port, data_plane, stats = edge`."""

    https_port: int
    http_port: int
    data_plane: DataPlane
    stats: WorkerStats

    @property
    def deadlines(self) -> Deadlines:
        """The worker's deadlines."""
        return self.data_plane._deadlines

    def after(self, seconds: float, *, answered: bool = True) -> None:
        """What `seconds` more on the clock would bring: every deadline up to there expires, without waiting.

        Args:
            answered: QUIC clients with requests under way have given the signs of life that the edge asks for meanwhile.
        """
        now = asyncio.get_running_loop().time() + seconds
        listener = self.data_plane._quic
        for session in listener.open if listener is not None and answered else ():
            if session.app is not None and session.app.active:
                session.state.heard = now  # type: ignore[union-attr]  # a Connection: it has HTTP/3 on it
        self.deadlines.sweep(now)

    @property
    def faults(self) -> dict[tuple[str, str], int]:
        """Counted faults by (source, reason)."""
        return self.stats.faults


@functools.cache
def certificates() -> CertificatePaths:
    """A development CA and a leaf for NAMES, made once per test process."""
    directory = Path(tempfile.mkdtemp(prefix="edgeproxy-tests-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return make_development(directory, NAMES)


@functools.cache
def client_context(alpn: tuple[str, ...] = ("http/1.1",)) -> ssl.SSLContext:
    """A client's context that trusts the development CA alone. Shared: who wants to change one makes it anew."""
    context = ssl.create_default_context(cafile=str(certificates().ca))
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def context_of(**changes: object) -> ssl.SSLContext:
    """A client's context of its own, to be changed."""
    context = ssl.create_default_context(cafile=str(certificates().ca))
    for name, value in changes.items():
        setattr(context, name, value)
    return context


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it; mappings are merged, everything else is replaced."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def configuration(upstream_port: int | None = None, **changes: Any) -> Config:
    """A whole configuration: everything goes to `127.0.0.1:upstream_port` (one route, `/`).

    Args:
        upstream_port: None: a port where nobody listens.
        changes: top-level sections, laid over the defaults (mappings merge: `client={"max_body": "1KiB"}`).
    """
    paths = certificates()
    base: dict[str, Any] = {
        "listen": {"https": "127.0.0.1:8443", "http": "127.0.0.1:8080", "admin": None},
        "tls": {"certificates": [{"cert": str(paths.cert), "key": str(paths.key)}]},
        "upstreams": {"main": {"targets": [{"url": f"http://127.0.0.1:{upstream_port or 1}"}]}},
        "routes": [{"path": "/", "upstream": "main"}],
    }
    return Config.model_validate(merged(base, changes))


def listening_socket(port: int = 0) -> socket.socket:
    """A bound, listening, non-blocking socket on a loopback port, by default a free one."""
    sock = socket.create_server(("127.0.0.1", port), backlog=512)
    sock.setblocking(False)
    return sock


def listening_pair(datagrams: bool, port: int = 0) -> tuple[socket.socket, list[socket.socket]]:
    """A listening TCP socket, and a bound UDP socket on the same port when `datagrams`."""
    while True:
        stream = listening_socket(port)
        if not datagrams:
            return stream, []
        packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        packets.setblocking(False)
        packets.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO, as the supervisor sets it
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            packets.setsockopt(socket.SOL_SOCKET, option, 4 << 20)
        try:
            packets.bind(stream.getsockname())
        except OSError:
            stream.close()
            packets.close()
            if port:
                raise
            continue  # another test has it
        return stream, [packets]


@asynccontextmanager
async def running_edge(
    upstream_port: int | None = None, *, config: Config | None = None, log: Any = None, ticket_keys: bytes = b"",
    seat: Seat | None = None, port: int = 0, **changes: Any,
) -> AsyncIterator[Edge]:  # fmt: skip
    """A data plane on two free ports (https, http), before the upstream at `upstream_port`.

    Args:
        config: a whole configuration instead of `configuration(upstream_port, **changes)`.
        log: an AccessLogWriter; a `RecordedLog` is enough for tests.
        ticket_keys: 80 bytes; random ones when empty.
        seat: the worker's place among others (connection ids, reset tokens); by default it is alone.
        port: of https, by default a free one.

    At the end everything is reset and every connection must be gone, or the test fails.
    """
    loop = asyncio.get_running_loop()
    stats = WorkerStats()
    data_plane = DataPlane(loop, stats, log)
    config = config or configuration(upstream_port, **changes)
    data_plane.switch(prepared(config, ticket_keys))
    (https, datagrams), http = listening_pair("h3" in config.listen.protocols, port), listening_socket()
    await data_plane.listen([https], [http])
    if datagrams:
        from edgeproxy.quic.ids import Seat

        data_plane.listen_quic(datagrams, seat or Seat.single())
    edge = Edge(https.getsockname()[1], http.getsockname()[1], data_plane, stats)
    try:
        yield edge
    finally:
        # Not `stop_accepting`: it waits for the kernel's queue, and nobody is in it any more.
        await data_plane.release([https, http, *datagrams])
        data_plane.abort()
        await until(lambda: data_plane.connections == 0)
        for pool in data_plane._gateway.pools.values():
            await until(lambda pool=pool: not pool._tasks)
            pool.close()
        await asyncio.sleep(0)


def prepared(config: Config, ticket_keys: bytes = b"") -> Snapshot:
    """The snapshot of a configuration."""
    return DataPlane.prepare(config, ticket_keys or secrets.token_bytes(80), instance="0123456789ab")


class RecordedLog:
    """An access log that only remembers its lines."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def flush(self) -> None:
        """Nothing: the lines stay."""
