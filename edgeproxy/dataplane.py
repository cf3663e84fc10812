# The data plane of one worker, put together: what the process around it may ask of it, and nothing about processes.
"""`DataPlane`: listeners, gateway and pools of a worker."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from edgeproxy.blocking import Blocking
from edgeproxy.config.snapshot import Snapshot
from edgeproxy.deadlines import Deadlines
from edgeproxy.gateway import Gateway
from edgeproxy.listen.tcp import Listener
from edgeproxy.lookups.following import Following
from edgeproxy.lookups.identifying import Identifying
from edgeproxy.upstream.pool import Pool

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from edgeproxy.config.model import Config
    from edgeproxy.listen.quic import QuicListener
    from edgeproxy.observe.access import AccessLogWriter
    from edgeproxy.observe.events import Events
    from edgeproxy.observe.metrics import WorkerStats
    from edgeproxy.policy.blocks import Blocks
    from edgeproxy.quic.ids import Seat
    from edgeproxy.state.ports import Charge, Level, Store


class DataPlane:
    """One worker's data plane. Everything but `prepare` runs on the worker's loop."""

    __slots__ = ("_deadlines", "_following", "_gateway", "_identifying", "_loop", "_plain", "_quic", "_secure", "_stats")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, stats: WorkerStats, log: AccessLogWriter | None, gateway: type[Gateway] = Gateway
    ) -> None:
        """A data plane that listens nowhere yet.

        Args:
            gateway: what requests are given to; the tool that captures clients brings one that remembers them.
        """
        self._loop = loop
        self._stats = stats
        self._deadlines = Deadlines(loop)
        self._gateway = gateway(loop, self._deadlines, stats, log)
        self._secure = Listener(self._gateway, secure=True)
        self._plain = Listener(self._gateway, secure=False)
        self._quic: QuicListener | None = None
        self._identifying = Identifying()
        self._following = Following(loop, stats.bots)

    @staticmethod
    def prepare(config: Config, ticket_keys: bytes, instance: str | None = None) -> Snapshot:
        """Compile a configuration. CPU and files only: call it in a thread.

        Args:
            ticket_keys: 80 random bytes that all workers of this generation share.
            instance: the edge's CDN-Loop id, the same for all its workers.

        Raises: OSError, ssl.SSLError or ValueError when a file cannot be used.
        """
        return Snapshot(config, ticket_keys, instance)

    def tell(self, events: Events) -> None:
        """Hits of rules are told there. Without a call nobody is told."""
        self._gateway.events = events

    def switch(self, snapshot: Snapshot) -> None:
        """Make a snapshot current: new exchanges use it, running ones keep theirs. Pools and counters live on."""
        gateway = self._gateway
        pools = gateway.pools
        for name, settings in snapshot.upstreams.items():
            if name in pools:
                pools[name].apply(settings)
            else:
                pools[name] = Pool(name, settings, self._loop, self._deadlines, self._stats)
        for name in [name for name in pools if name not in snapshot.upstreams]:
            pools.pop(name).retire()
        for route in snapshot.routes:
            route.stats = self._stats.route(route.name)
            route.pools = pools
            route.pool = pools[route.upstream]
        if snapshot.keys is not None and snapshot.config.keys is not None:
            gateway.sightings.keep(set(snapshot.keys.keys), snapshot.config.keys.networks_per_hour)
        gateway.snapshot = snapshot
        gateway.watch.signalling.want(snapshot.bots is not None and snapshot.bots.signals)
        if snapshot.bots is not None:
            snapshot.bots.stats = gateway.stats.bots
            snapshot.bots.watch = gateway.watch
            gateway.watch.weigh(snapshot.config.bots.behaviour)
            snapshot.bots.identity = self._identifying.identity(snapshot.bots.known)
            self._following.follow(snapshot.bots.known.published, snapshot.config.bots.identity.refresh, snapshot.bots.publish)
            if self._identifying.lookups is not None:
                gateway.stats.bots.lookups = self._identifying.lookups.counts
        else:
            self._following.stop()

    def count(self, store: Store) -> None:
        """Let limits count in a store that others share."""
        self._gateway.store = store
        self._gateway.watch.signalling.begin()

    def block(self, blocks: Blocks | None) -> None:
        """Refuse these from now on, also on open connections; None: nothing is blocked."""
        self._gateway.blocking = Blocking(blocks) if blocks is not None else None

    def look(self, charges: Sequence[Charge], reset: bool, done: Callable[[tuple[Level, ...] | None], None]) -> None:
        """Look keys up where limits count, or have it forget them."""
        store = self._gateway.store
        if reset:
            store.reset(charges, lambda made: done(() if made else None))
        else:
            store.peek(charges, done)

    async def listen(self, https: list[socket.socket], http: list[socket.socket]) -> None:
        """Accept on bound, listening, non-blocking sockets. May be called again with more of them."""
        self._deadlines.start()
        for sock in https:
            await self._secure.listen(sock)
        for sock in http:
            await self._plain.listen(sock)

    def listen_quic(self, sockets: list[socket.socket], seat: Seat) -> None:
        """Speak HTTP/3 on bound, non-blocking UDP sockets, in the same order in every worker. Called once."""
        # Here and not above: who does not speak h3 does not pay for loading it.
        from edgeproxy.listen.quic import QuicListener

        self._quic = QuicListener(self._gateway)
        self._quic.listen(sockets, seat)

    async def release(self, sockets: list[socket.socket]) -> None:
        """Give listening sockets back that were lent: stop accepting on just these. Their connections stay."""
        for sock in sockets:
            self._secure.release(sock)
            self._plain.release(sock)

    async def stop_accepting(self) -> None:
        """Accept what the kernel has queued, then close this process's copies of the listening sockets."""
        await self._secure.stop()
        await self._plain.stop()
        if self._quic is not None:
            self._quic.stop_accepting()

    def drain(self) -> None:
        """Let running exchanges finish and close everything else."""
        self._secure.drain()
        self._plain.drain()
        if self._quic is not None:
            self._quic.drain()

    @property
    def connections(self) -> int:
        """Open client connections."""
        quic = 0 if self._quic is None else len(self._quic.open)
        return len(self._secure.connections) + len(self._plain.connections) + quic

    async def close(self) -> None:
        """Give up what is still being looked up; after the last connection."""
        await self._following.close()
        await self._identifying.close()

    def abort(self) -> None:
        """Reset every connection that is left."""
        self._secure.abort()
        self._plain.abort()
        if self._quic is not None:
            self._quic.abort()
        for pool in self._gateway.pools.values():
            pool.close()
        self._deadlines.stop()
