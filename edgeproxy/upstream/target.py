# One target's connections and its health. Which target serves an exchange is the pool's matter.
"""`Target`: idle connections are reused last-in-first-out, so that the surplus ages out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.upstream.known import KnownHeads

if TYPE_CHECKING:
    from edgeproxy.config.snapshot import TargetSettings
    from edgeproxy.observe.metrics import UpstreamStats
    from edgeproxy.upstream.h1 import UpstreamConnection
    from edgeproxy.upstream.pool import Pool

_DOWN_FIRST, _DOWN_LONGEST = 0.5, 15.0  # seconds a target that refuses connections is passed over while others live


class Target:
    """One address of an upstream. Counters belong to its name, which another `Target` may bear after a reload."""

    __slots__ = ("active", "down_for", "down_until", "heads", "idle", "open", "pool", "removed", "settings", "stats")

    def __init__(self, pool: Pool, settings: TargetSettings, stats: UpstreamStats) -> None:
        self.pool = pool
        self.settings = settings
        self.stats = stats
        self.idle: list[UpstreamConnection] = []
        self.heads = KnownHeads()
        self.active = 0  # exchanges on it
        self.open = 0  # connections, opening ones included
        self.removed = False  # a reload took it away
        self.down_until = 0.0
        self.down_for = 0.0
        stats.targets += 1

    def released(self, connection: UpstreamConnection) -> None:
        """A reply is complete and the connection can be used again."""
        connection.busy = False
        self.active -= 1
        self.stats.active = self.active
        self.idle.append(connection)
        pool = self.pool
        if self.removed or connection.idle_timeout <= 0:
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
        self.pool.deadlines.members.discard(connection)
        self.left()
        if connection.busy:
            self.active -= 1
            self.stats.active = self.active
        else:
            self.retire(connection)
        if self.pool.pending:
            self.pool.advance()

    def left(self) -> None:
        """A connection, or what was to become one, gives its place back."""
        self.pool.connections -= 1
        self.open -= 1
        self.stats.open -= 1
        if self.removed and self.open == 0:
            self.pool.stats.leave(self.stats)

    def remove(self) -> None:
        """A reload took this target away: nothing is kept, and its counters go with its last connection."""
        self.removed = True
        for connection in list(self.idle):
            self.retire(connection)
        if self.open == 0:
            self.pool.stats.leave(self.stats)

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
