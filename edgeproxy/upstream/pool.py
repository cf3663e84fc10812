# Connections to one upstream's targets: who works for which exchange, who waits, and who may try again.
"""The connection pool. Idle connections are reused last-in-first-out, so that the surplus ages out."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from edgeproxy.deadlines import INTERVAL, NEVER, Deadlines
from edgeproxy.faults import Fault, edge_fault, upstream_fault
from edgeproxy.upstream.connect import Connecting, connect_fault, open_connection
from edgeproxy.upstream.h1 import UpstreamConnection

if TYPE_CHECKING:
    from edgeproxy.config.snapshot import TargetSettings, UpstreamSettings
    from edgeproxy.exchange import Exchange
    from edgeproxy.observe.metrics import UpstreamStats, WorkerStats

_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
_MAX_TRIES = 3  # connections tried for one exchange
_DOWN_FIRST, _DOWN_LONGEST = 0.5, 15.0  # seconds a target that refuses connections is passed over while others live


class Target:
    """One address of an upstream."""

    __slots__ = ("active", "down_for", "down_until", "idle", "pool", "settings", "stats")

    def __init__(self, pool: Pool, settings: TargetSettings, stats: UpstreamStats) -> None:
        self.pool = pool
        self.settings = settings
        self.stats = stats
        self.idle: list[UpstreamConnection] = []
        self.active = 0  # exchanges on it
        self.down_until = 0.0
        self.down_for = 0.0

    def released(self, connection: UpstreamConnection) -> None:
        """A reply is complete and the connection can be used again."""
        connection.busy = False
        self.active -= 1
        self.stats.active = self.active
        self.idle.append(connection)
        pool = self.pool
        if self not in pool.targets or connection.idle_timeout <= 0:
            self.retire(connection)  # a reload took this target away, or nothing is kept
        elif pool.pending:
            pool.advance()

    def take(self) -> UpstreamConnection | None:
        """The most recently used idle connection, None when there is none that still lives."""
        idle = self.idle
        while idle:
            connection = idle.pop()
            transport = connection.transport
            if transport is not None and not transport.is_closing():
                connection.busy = True
                self.active += 1
                self.stats.active = self.active
                return connection
        return None

    def retire(self, connection: UpstreamConnection) -> None:
        """Close an idle connection."""
        try:
            self.idle.remove(connection)
        except ValueError:
            pass  # already taken out, and found dead
        if connection.transport is not None:
            connection.transport.close()

    def closed(self, connection: UpstreamConnection) -> None:
        """A connection is gone, whatever it was doing."""
        if connection.gone:
            return
        connection.gone = True
        self.pool.connections -= 1
        self.stats.open -= 1
        self.pool.deadlines.members.discard(connection)
        if connection.busy:
            self.active -= 1
            self.stats.active = self.active
        else:
            self.retire(connection)
        if self.pool.pending:
            self.pool.advance()

    def is_down(self, now: float) -> bool:
        """Passed over while another target is up."""
        return self.down_until > now

    def mark_down(self, now: float) -> None:
        """A connection could not be made."""
        self.down_for = min(max(_DOWN_FIRST, self.down_for * 2), _DOWN_LONGEST)
        self.down_until = now + self.down_for
        self.stats.up = 0

    def mark_up(self) -> None:
        """A connection was made."""
        self.down_for = self.down_until = 0.0
        self.stats.up = 1


class Pool:
    """All targets of one upstream, for one worker. Lives through reloads under the upstream's name."""

    __slots__ = (
        "_tasks", "_turn", "connections", "deadline", "deadlines", "loop", "name", "pending", "settings", "stats", "targets",
    )  # fmt: skip

    def __init__(
        self, name: str, settings: UpstreamSettings, loop: asyncio.AbstractEventLoop, deadlines: Deadlines, stats: WorkerStats
    ) -> None:
        self.name = name
        self.loop = loop
        self.deadlines = deadlines
        self.stats = stats
        self.pending: deque[tuple[Exchange, Waiting, float, int]] = deque()
        self.deadline = NEVER
        self.targets: list[Target] = []
        self.connections = 0  # open and opening, to all targets
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.settings = settings
        self.apply(settings)
        deadlines.members.add(self)

    def apply(self, settings: UpstreamSettings) -> None:
        """Take new settings; targets that stay keep their connections."""
        self.settings = settings
        known = {target.settings: target for target in self.targets}
        self.targets = []
        for each in settings.targets:
            target = known.pop(each, None)
            if target is None:
                target = Target(self, each, self.stats.upstream(self.name, each.label))
            target.settings = each  # equal, but its CA file was read anew
            self.targets.append(target)
        for gone in known.values():
            for connection in list(gone.idle):
                gone.retire(connection)
        self.advance()  # there may be more room now

    def submit(self, exchange: Exchange, tries: int = 0) -> None:
        """Get the exchange a connection: an idle one now, a new one soon, or a place in the queue.

        Args:
            tries: connections tried before. From the second on a reused one is not taken: it may be dead, too.
        """
        if not self.targets:  # an exchange of an older snapshot; a reload took its upstream away
            exchange.fail(edge_fault(503, "upstream_gone", "The upstream was taken out of the configuration."))
            return
        target = self.targets[0] if len(self.targets) == 1 else self._pick()
        connection = target.take() if tries == 0 else None
        if connection is None and tries == 0 and self.connections >= self.settings.max_connections:
            # No room for a new one: better a connection to another target than none.
            connection = next(filter(None, (other.take() for other in self.targets)), None)
            target = connection.target if connection is not None else target
        if connection is not None:
            target.stats.reused += 1
            self._begin(connection, exchange)
        elif self.connections < self.settings.max_connections:
            self._connect(target, exchange, tries)
        else:
            self._wait(exchange, tries)

    def _begin(self, connection: UpstreamConnection, exchange: Exchange) -> None:
        settings = connection.target.settings
        exchange.served_by = settings
        request = exchange.request
        host = request.authority if self.settings.preserve_host else settings.authority
        connection.begin(exchange, exchange.plan.upstream_head(request, host))

    def _pick(self) -> Target:
        targets = self.targets
        now = self.deadlines.now
        up = [target for target in targets if not target.is_down(now)] or targets
        if self.settings.balance == "round-robin":
            self._turn += 1
            return up[self._turn % len(up)]
        return min(up, key=lambda target: target.active)

    def failed(self, exchange: Exchange, fault: Fault, tail: bytes) -> None:
        """An attempt failed. Only a request that surely may be repeated gets another connection.

        Args:
            tail: see `Gateway.fail`.
        """
        exchange.attempt = None
        request, body = exchange.request, exchange.body
        if (
            fault.retry
            and exchange.status == 0
            and body.done
            and body.whole
            and not request.upgrade
            and (request.method in _IDEMPOTENT or request.header(b"idempotency-key") is not None)
        ):
            if not self.targets:
                exchange.fail(fault, tail)
                return
            served = exchange.served_by
            if served is not None:
                self.stats.upstream(self.name, served.label).retries += 1
            # tries=1: never again on a reused connection, so this happens once.
            self.submit(exchange, 1)
            return
        exchange.fail(fault, tail)

    # -- waiting for a connection --------------------------------------------------------------------------------

    def _wait(self, exchange: Exchange, tries: int) -> None:
        if len(self.pending) >= self.settings.max_pending:
            exchange.fail(edge_fault(503, "upstream_full", "All connections to the upstream are busy; try again shortly."))
            return
        waiting = Waiting(self)
        exchange.attempt = waiting
        due = self.deadlines.now + self.settings.timeouts.connect
        self.pending.append((exchange, waiting, due, tries))
        self.deadline = min(self.deadline, due)
        self.count_pending()

    def advance(self) -> None:
        """A connection or room for one became free: serve the head of the queue."""
        while self.pending and (
            self.connections < self.settings.max_connections or any(target.idle for target in self.targets)
        ):
            exchange, waiting, _, tries = self.pending.popleft()
            self.count_pending()
            if exchange.attempt is waiting:
                exchange.attempt = None
                self.submit(exchange, tries)
                return

    def expire(self, now: float) -> None:
        """Exchanges that waited too long for a connection."""
        self.deadline = NEVER
        while self.pending:
            exchange, waiting, due, _ = self.pending[0]
            if exchange.attempt is waiting and due >= now - INTERVAL:
                self.deadline = due
                break
            self.pending.popleft()
            if exchange.attempt is waiting:
                exchange.attempt = None
                exchange.fail(edge_fault(503, "upstream_full", "No connection to the upstream became free in time."))
        self.count_pending()

    def count_pending(self) -> None:
        """Show the length of the queue in the metrics."""
        if self.targets:
            self.targets[0].stats.pending = len(self.pending)

    # -- connecting ----------------------------------------------------------------------------------------------

    def _connect(self, target: Target, exchange: Exchange, tries: int) -> None:
        self.connections += 1
        target.stats.open += 1
        target.active += 1
        target.stats.active = target.active
        connection = UpstreamConnection(target)
        task = self.loop.create_task(self._open(target, connection, exchange, tries))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._connected(done, connection))
        exchange.attempt = Connecting(task)

    def _connected(self, task: asyncio.Task[None], connection: UpstreamConnection) -> None:
        """A connect ended, one way or another. Not in the task itself: one cancelled before its first step never runs."""
        self._tasks.discard(task)
        if connection.made or connection.gone:
            return  # it is in use, or `closed` has given its place back
        # uvloop closes the transport of a cancelled `create_connection` without telling the protocol.
        connection.gone = True
        connection.discard()
        target = connection.target
        self.connections -= 1
        target.stats.open -= 1
        target.active -= 1
        target.stats.active = target.active
        if self.pending:
            self.advance()

    async def _open(self, target: Target, connection: UpstreamConnection, exchange: Exchange, tries: int) -> None:
        """Open a connection for an exchange; on failure try another target, since nothing was sent yet."""
        fault: Fault | None
        try:
            async with asyncio.timeout(self.settings.timeouts.connect):
                fault = await open_connection(self.loop, target, connection)
        except (OSError, TimeoutError) as error:
            fault = connect_fault(target, error)
        if fault is not None:
            target.stats.connect_failures += 1
            target.mark_down(self.deadlines.now)
        elif connection.transport is None:
            fault = upstream_fault(502, "closed", "The upstream closed the connection at once.")
        if fault is None:
            target.stats.connects += 1
            target.mark_up()
            connection.made = True
            self.deadlines.members.add(connection)
            self._begin(connection, exchange)
        elif tries + 1 < _MAX_TRIES and len(self.targets) > 1 and not connection.opened:
            target.stats.retries += 1
            self.submit(exchange, tries + 1)
        else:
            exchange.attempt = None
            exchange.fail(fault)

    def retire(self) -> None:
        """A reload took the whole upstream away: exchanges that run on it finish, nothing is kept for later ones."""
        gone, self.targets = self.targets, []
        gone[0].stats.pending = 0
        for target in gone:
            for connection in list(target.idle):
                target.retire(connection)
        while self.pending:
            exchange, waiting, _, _ = self.pending.popleft()
            if exchange.attempt is waiting:
                exchange.attempt = None
                exchange.fail(edge_fault(503, "upstream_gone", "The upstream was taken out of the configuration."))
        self.deadlines.members.discard(self)

    def close(self) -> None:
        """The worker ends: drop every idle connection."""
        for target in self.targets:
            for connection in list(target.idle):
                target.retire(connection)


class Waiting:
    """A place in a pool's queue."""

    __slots__ = ("_pool",)

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def pause(self) -> None:
        """Nothing is read yet."""

    def resume(self) -> None:
        """Nothing is read yet."""

    def cancel(self) -> None:
        """The client left: its place is free."""
        pool = self._pool
        for index, entry in enumerate(pool.pending):
            if entry[1] is self:
                del pool.pending[index]
                break
        pool.count_pending()
