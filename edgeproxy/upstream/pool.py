# One upstream's exchanges: who works for which, for whom there is room, and who may try again. Who waits stands in waiting.py.
"""`Pool`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from edgeproxy.deadlines import INTERVAL, NEVER, Deadlines
from edgeproxy.faults import Fault, edge_fault, upstream_fault
from edgeproxy.upstream.connect import Connecting, connect_fault, open_connection
from edgeproxy.upstream.h1 import UpstreamConnection
from edgeproxy.upstream.retrying import MAX_TRIES, Governor, repeatable
from edgeproxy.upstream.target import Target
from edgeproxy.upstream.waiting import Queue, Waiting

if TYPE_CHECKING:
    from edgeproxy.config.snapshot import UpstreamSettings
    from edgeproxy.exchange import Exchange
    from edgeproxy.observe.metrics import WorkerStats

__all__ = ["Pool", "Target"]


class Pool:
    """All targets of one upstream, for one worker. Lives through reloads under the upstream's name."""

    __slots__ = (
        "_governor", "_tasks", "_total", "_turn", "connections", "deadline", "deadlines", "loop", "name", "pending", "settings",
        "stats", "targets",
    )  # fmt: skip

    def __init__(
        self, name: str, settings: UpstreamSettings, loop: asyncio.AbstractEventLoop, deadlines: Deadlines, stats: WorkerStats
    ) -> None:
        self.name = name
        self.loop = loop
        self.deadlines = deadlines
        self.stats = stats
        self.pending = Queue()
        self.deadline = NEVER
        self.targets: list[Target] = []
        self.connections = 0  # open and opening, to all targets
        self._turn = 0
        self._governor = Governor(self)
        self._tasks: set[asyncio.Task[None]] = set()
        self._total: float | None = None
        self.settings = settings
        self.apply(settings)
        deadlines.members.add(self)

    def apply(self, settings: UpstreamSettings) -> None:
        """Take new settings; targets that stay keep their connections."""
        self.settings = settings
        self._total = settings.timeouts.total
        known = {target.settings.key: target for target in self.targets}
        pending, self.targets = self.pending, []
        for each in settings.targets:
            target = known.pop(each.key, None)
            if target is None:
                target = Target(self, each, self.stats.upstream(self.name, each.label))
            target.settings = each  # equal, but its CA file was read anew
            target.stats.pending = target.stats.pending_low = 0  # the first one shows it, and may be another one now
            self.targets.append(target)
        for gone in known.values():
            gone.stats.pending = gone.stats.pending_low = 0
            gone.remove()
        if pending:
            self.count_pending()
            self.advance()  # there may be more room now

    def submit(self, exchange: Exchange, tries: int = 0, *, queued: bool = False) -> None:
        """Get the exchange a connection: an idle one now, a new one soon, or a place in the queue.

        Args:
            tries: connections tried before. From the second on a reused one is not taken: it may be dead, too.
            queued: it has waited for this.
        """
        if not self.targets:  # an exchange of an older snapshot; a reload took its upstream away
            exchange.fail(edge_fault(503, "upstream_gone", "The upstream was taken out of the configuration."))
            return
        if exchange.plan.retry and tries == 0 and not queued and (fault := self._governor.refused(exchange)) is not None:
            exchange.fail(fault)
            return
        if exchange.plan.low and not queued and (self.pending or not self._room(low=True)):
            self._wait(exchange, tries)
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
            self._wait(exchange, tries, first=tries > 0 and self._make_room())

    def _make_room(self) -> bool:
        """Close an idle connection for an exchange that must not take a reused one. False: none is idle."""
        for target in self.targets:
            if target.idle:
                target.retire(target.idle[0])
                return True
        return False

    def _begin(self, connection: UpstreamConnection, exchange: Exchange) -> None:
        settings = connection.target.settings
        exchange.served_by = settings
        request = exchange.request
        host = request.authority if self.settings.preserve_host else settings.authority
        total = NEVER if self._total is None else self._due(exchange)
        connection.begin(exchange, exchange.plan.upstream_head(request, host, self.settings.credential), total)

    def _due(self, exchange: Exchange) -> float:
        """When `timeouts.total` of an exchange runs out, on the deadlines' clock."""
        if self._total is None:
            return NEVER
        return self.deadlines.now + self._total - (exchange.gateway.time() - exchange.started)

    def _late(self, target: Target) -> Fault:
        """The fault of an exchange whose `timeouts.total` ran out before there was a connection."""
        timeouts = target.stats.timeouts
        timeouts["total"] = timeouts.get("total", 0) + 1
        return upstream_fault(504, "total_timeout", "The upstream did not finish its answer in time.")

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
        request, body = exchange.plan.forward or exchange.request, exchange.body
        if (
            fault.retry
            and exchange.status == 0
            and body.done
            and body.whole
            and not request.upgrade
            and repeatable(exchange)
        ):
            if not self.targets:
                exchange.fail(fault, tail)
                return
            served = exchange.served_by
            stats = self.stats.upstreams.get((self.name, served.label)) if served is not None else None
            # stats is None: a reload took the target away. tries=1: never again on a reused connection, so this happens once.
            if self._governor.may(exchange, 1, stats):
                self.submit(exchange, 1)
                return
        exchange.fail(fault, tail)

    # -- waiting for a connection --------------------------------------------------------------------------------

    def _wait(self, exchange: Exchange, tries: int, *, first: bool = False) -> None:
        """Take a place in the queue. `first`: the place that it had, since room is being made for it."""
        pending, moved = self.pending, None
        if len(pending) >= self.settings.max_pending:
            moved = pending.youngest_low() if not exchange.plan.low else None
            if moved is None:
                exchange.fail(_full("All connections to the upstream are busy; try again shortly."))
                return
        due, end = self.deadlines.now + self.settings.timeouts.connect, self._due(exchange)
        waiting = Waiting(self, exchange, tries, min(due, end), late=end < due)
        exchange.attempt = waiting
        pending.join(waiting, first=first)
        self.deadline = min(self.deadline, waiting.due)
        self.count_pending()
        if moved is not None and moved.exchange.attempt is moved:
            moved.exchange.attempt = None
            moved.exchange.fail(_full("All connections to the upstream are busy, and others go first; try again later."))

    def _room(self, *, low: bool) -> bool:
        """Whether an exchange could begin now. One of low priority leaves so many connections free as are reserved."""
        settings = self.settings
        if low:
            return self.connections - sum(len(target.idle) for target in self.targets) < settings.max_low
        return self.connections < settings.max_connections or any(target.idle for target in self.targets)

    def advance(self) -> None:
        """A connection or room for one became free: serve the head of the queue, and who stood behind it for no other reason."""
        pending = self.pending
        while pending and self._room(low=pending[0].low):
            waiting = pending.next()
            self.count_pending()
            exchange = waiting.exchange
            if exchange.attempt is waiting:
                exchange.attempt = None
                self.submit(exchange, waiting.tries, queued=True)
                if pending and pending[0].exchange is exchange:
                    return  # room is being made for it

    def expire(self, now: float) -> None:
        """Exchanges that waited too long for a connection."""
        late = self.pending.late(now - INTERVAL)
        self.deadline = min((waiting.due for waiting in self.pending), default=NEVER)
        self.count_pending()
        for waiting in late:
            exchange = waiting.exchange
            if exchange.attempt is waiting:
                exchange.attempt = None
                if waiting.late:
                    exchange.fail(self._late(self.targets[0]))
                else:
                    exchange.fail(_full("No connection to the upstream became free in time."))

    def count_pending(self) -> None:
        """Show the length of the queue in the metrics."""
        if self.targets:
            stats = self.targets[0].stats
            stats.pending, stats.pending_low = len(self.pending), self.pending.low

    # -- connecting ----------------------------------------------------------------------------------------------

    def _connect(self, target: Target, exchange: Exchange, tries: int) -> None:
        self.connections += 1
        target.open += 1
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
        target.active -= 1
        target.stats.active = target.active
        target.left()
        if self.pending:
            self.advance()

    async def _open(self, target: Target, connection: UpstreamConnection, exchange: Exchange, tries: int) -> None:
        """Open a connection for an exchange; on failure try another target, since nothing was sent yet."""
        fault: Fault | None
        wait = self.settings.timeouts.connect
        left = self._due(exchange) - self.deadlines.now
        try:
            async with asyncio.timeout(min(wait, left)):
                fault = await open_connection(self.loop, target, connection)
        except (OSError, TimeoutError) as error:
            if left < wait and isinstance(error, TimeoutError):
                exchange.attempt = None
                exchange.fail(self._late(target))
                return
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
        elif (
            tries + 1 < MAX_TRIES
            and len(self.targets) > 1
            and not connection.opened
            and self._governor.may(exchange, tries + 1, target.stats)
        ):
            self.submit(exchange, tries + 1)
        else:
            exchange.attempt = None
            exchange.fail(fault)

    def retire(self) -> None:
        """A reload took the whole upstream away: exchanges that run on it finish, nothing is kept for later ones."""
        gone, self.targets = self.targets, []
        gone[0].stats.pending = gone[0].stats.pending_low = 0
        for target in gone:
            target.remove()
        while self.pending:
            waiting = self.pending.next()
            exchange = waiting.exchange
            if exchange.attempt is waiting:
                exchange.attempt = None
                exchange.fail(edge_fault(503, "upstream_gone", "The upstream was taken out of the configuration."))
        self.deadlines.members.discard(self)

    def close(self) -> None:
        """The worker ends: drop every idle connection."""
        for target in self.targets:
            for connection in list(target.idle):
                target.retire(connection)


def _full(message: str) -> Fault:
    return edge_fault(503, "upstream_full", message)
