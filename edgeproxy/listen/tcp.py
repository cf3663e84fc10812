# Accepting connections and choosing who speaks on them; nothing here reads a message.
"""Listeners: TLS with ALPN for the https addresses, plain HTTP/1.1 for the redirect addresses."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import TYPE_CHECKING

from edgeproxy.deadlines import NEVER, Deadlines
from edgeproxy.listen.h1 import H1Connection
from edgeproxy.listen.link import tcp_address, tcp_rtt
from edgeproxy.listen.tls import TlsConnection
from edgeproxy.message import Described, Peer
from edgeproxy.observe.metrics import H1, H2
from edgeproxy.prints import Prints
from edgeproxy.transport import LINGER_TIME, LINGER_TOTAL, READ_BUFFER, Application

try:
    from edgeproxy.listen.h2 import H2Connection
except ImportError:  # no ngh2 for this platform: h2 leaves ALPN (config/snapshot.py)
    H2Connection = None  # type: ignore[assignment, misc]

if TYPE_CHECKING:
    from edgeproxy.gateway import Gateway
    from edgeproxy.message import Link

_UNIX_PEER = "127.0.0.1"  # what is known of a client behind a Unix socket: it is on this machine


class Listener:
    """All client connections of one kind (TLS or plain) of one worker."""

    __slots__ = ("_servers", "connections", "deadlines", "draining", "gateway", "secure", "stats")

    def __init__(self, gateway: Gateway, *, secure: bool) -> None:
        self.gateway = gateway
        self.deadlines: Deadlines = gateway.deadlines
        self.stats = gateway.stats
        self.secure = secure
        self.draining = False
        self.connections: dict[TlsConnection | PlainConnection, int] = {}  # → protocol index, -1 in the handshake
        self._servers: dict[socket.socket, asyncio.AbstractServer] = {}

    async def listen(self, sock: socket.socket) -> None:
        """Accept on a bound, listening, non-blocking socket."""
        loop = asyncio.get_running_loop()
        make = self._accept if self.secure else self._accept_plain
        if sock.family == socket.AF_UNIX:
            server = await loop.create_unix_server(make, sock=sock)
        else:
            server = await loop.create_server(make, sock=sock, backlog=4096)
        self._servers[sock] = server

    def release(self, sock: socket.socket) -> None:
        """Stop accepting on one socket and close it. Connections it brought stay."""
        server = self._servers.pop(sock, None)
        if server is not None:
            server.close()
            sock.close()

    async def stop(self) -> None:
        """Stop accepting, after what the kernel has queued: libuv accepts until EAGAIN in each turn of the loop."""
        if self._servers:
            await asyncio.sleep(0.01)
        for server in self._servers.values():
            server.close()
        self._servers.clear()

    def _accept(self) -> TlsConnection:
        return TlsConnection(self, self.gateway.snapshot.contexts.default)

    def _accept_plain(self) -> PlainConnection:
        return PlainConnection(self)

    # -- called by connections -----------------------------------------------------------------------------------

    def opened(self, connection: TlsConnection) -> None:
        """A TCP connection was accepted; the handshake has its deadline."""
        client = self.gateway.snapshot.client
        if len(self.connections) >= client.max_connections:
            self.stats.fault("edge", "max_connections")
            connection.listener = None
            connection.abort()
            return
        self.connections[connection] = -1
        self.stats.handshakes_pending += 1
        connection.deadline = self.deadlines.now + client.timeouts.handshake
        self.deadlines.members.add(connection)

    def established(self, connection: TlsConnection) -> Application:
        """The handshake is done: the protocol that ALPN chose takes over."""
        stats = self.stats
        stats.handshakes_pending -= 1
        stats.handshakes += 1
        tls = connection.tls
        if tls.session_reused:
            stats.handshakes_resumed += 1
        assert connection.transport is not None
        peer = self._peer(connection.transport, connection)
        peer.names = self.gateway.snapshot.contexts.names(tls)
        if self.gateway.prints and not peer.trusted:  # a proxy's connection tells nothing of its clients
            peer.prints = Prints(connection.hello)
        if H2Connection is not None and tls.selected_alpn_protocol() == "h2":
            protocol = H2
            app: Application = H2Connection(connection, self.gateway, peer)
        else:
            protocol = H1
            app = H1Connection(connection, self.gateway, peer)
        self._counted(connection, protocol)
        if self.draining:
            app.drain(idle=False)  # type: ignore[attr-defined]  # both have it
        return app

    def refused(self, connection: TlsConnection, reason: str) -> None:
        """A handshake failed."""
        failures = self.stats.handshake_failures
        if reason not in failures and len(failures) >= 64:
            reason = "other"
        failures[reason] = failures.get(reason, 0) + 1
        self.closed(connection)

    def closed(self, connection: TlsConnection | PlainConnection) -> None:
        """A connection is gone."""
        protocol = self.connections.pop(connection, None)
        self.deadlines.members.discard(connection)
        if protocol is None:
            return
        if protocol < 0:
            self.stats.handshakes_pending -= 1
        else:
            self.stats.connections_open[protocol] -= 1

    def plain_opened(self, connection: PlainConnection, transport: asyncio.Transport) -> Application:
        """A plain connection was accepted."""
        app = H1Connection(connection, self.gateway, self._peer(transport, connection))
        self._counted(connection, H1)
        self.deadlines.members.add(connection)
        return app

    def _counted(self, connection: TlsConnection | PlainConnection, protocol: int) -> None:
        self.connections[connection] = protocol
        self.stats.connections_open[protocol] += 1
        self.stats.connections_total[protocol] += 1

    def _peer(self, transport: asyncio.Transport, link: Link) -> Peer:
        name = transport.get_extra_info("peername")
        address = name[0].partition("%")[0] if isinstance(name, tuple) and name else _UNIX_PEER
        if address.startswith("::ffff:"):
            address = address[7:]  # an IPv4 client of a dual-stack socket
        networks = self.gateway.snapshot.trusted
        trusted = bool(networks) and any(ipaddress.ip_address(address) in network for network in networks)
        peer = Peer(address, trusted=trusted, secure=self.secure)
        peer.link = link
        return peer

    def drain(self) -> None:
        """Tell every client that this is the end: idle connections close, the others after their last answer.

        A connection that is still in its handshake gets one answer (`established`): it was accepted, after all.
        """
        self.draining = True
        for connection in list(self.connections):
            app = connection.app
            if app is None:
                continue
            try:
                app.drain()  # type: ignore[attr-defined]  # every application of a listener has it
            except Exception as error:
                self.gateway.loop.call_exception_handler({"message": "drain of a connection", "exception": error})
                connection.abort()

    def abort(self) -> None:
        """Reset everything that is left."""
        for connection in list(self.connections):
            connection.abort()


class PlainConnection(asyncio.BufferedProtocol):
    """A plain TCP connection with the face of a `TlsConnection`: the http addresses, which only redirect."""

    __slots__ = ("_closing", "_linger_until", "app", "deadline", "listener", "transport")

    def __init__(self, listener: Listener) -> None:
        self.listener: Listener | None = listener
        self.app: Application | None = None
        self.transport: asyncio.Transport | None = None
        self.deadline = NEVER
        self._closing = False
        self._linger_until = NEVER

    def describe(self) -> Described:
        """See `message.Link`."""
        return Described("", "", 0, *tcp_address(self.transport))

    def rtt(self) -> float | None:
        """See `message.Link`."""
        return tcp_rtt(self.transport)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepted."""
        self.transport = transport  # type: ignore[assignment]  # uvloop's TCP transport
        listener = self.listener
        assert listener is not None
        if len(listener.connections) >= listener.gateway.snapshot.client.max_connections:
            listener.stats.fault("edge", "max_connections")
            self.abort()
            return
        self.app = listener.plain_opened(self, transport)  # type: ignore[arg-type]  # as above

    def get_buffer(self, sizehint: int) -> memoryview:
        """The worker's shared read buffer."""
        del sizehint
        return READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """`nbytes` were read."""
        if self._closing:
            if self.listener is not None:
                self.deadline = min(self.listener.deadlines.now + LINGER_TIME, self._linger_until)
        elif self.app is not None:
            self.app.data_received(READ_BUFFER[:nbytes])

    def eof_received(self) -> bool:
        """The client is done."""
        if self.app is not None:
            self.app.eof_received()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self._closing = True
        self.transport = None
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.closed(self)
        app, self.app = self.app, None
        if app is not None:
            app.connection_lost(error)

    def pause_writing(self) -> None:
        """The socket is full."""
        if self.app is not None:
            self.app.pause_writing()

    def resume_writing(self) -> None:
        """The socket drained."""
        if self.app is not None:
            self.app.resume_writing()

    def expire(self, now: float) -> None:
        """The deadline passed."""
        if self._closing or self.app is None:
            self.abort()
        else:
            self.app.expire(now)

    def write(self, data: bytes) -> None:
        """Queue bytes."""
        if self.transport is not None and not self._closing:
            self.transport.write(data)

    def close(self, *, linger: bool = False) -> None:
        """Send what is queued, then close; see `TlsConnection.close`."""
        transport, listener = self.transport, self.listener
        if transport is None or self._closing:
            return
        self._closing = True
        if listener is not None:
            self.deadline = listener.deadlines.now + LINGER_TIME
            self._linger_until = listener.deadlines.now + LINGER_TOTAL
        if linger and transport.can_write_eof():
            transport.resume_reading()
            transport.write_eof()
        else:
            transport.close()

    def cut(self) -> None:
        """Send what is queued, then close; see `TlsConnection.cut`."""
        self.close(linger=True)

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        if self.transport is not None:
            self.transport.abort()

    def pause_reading(self) -> None:
        """Stop reading."""
        if self.transport is not None and not self._closing:
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if self.transport is not None and not self._closing:
            self.transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        """Bytes queued."""
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    def is_closing(self) -> bool:
        """Closed or about to be."""
        return self._closing or self.transport is None or self.transport.is_closing()
