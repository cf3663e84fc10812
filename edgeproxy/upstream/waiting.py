# Who waits for a connection of a pool, and in which order. Whether there is room for the next one, the pool knows.
"""`Queue` of `Waiting`: whoever has low priority stands behind all others, however long it has stood there."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.upstream.pool import Pool


class Waiting:
    """A place in a pool's queue.

    Attributes:
        tries: as for `Pool.submit`.
        due: when it is given up.
        late: that is the end of `timeouts.total`.
        low: of low priority.
    """

    __slots__ = ("_pool", "due", "exchange", "late", "low", "tries")

    def __init__(self, pool: Pool, exchange: Exchange, tries: int, due: float, *, late: bool) -> None:
        self._pool = pool
        self.exchange = exchange
        self.tries = tries
        self.due = due
        self.late = late
        self.low = exchange.plan.low

    def pause(self) -> None:
        """Nothing is read yet."""

    def resume(self) -> None:
        """Nothing is read yet."""

    def cancel(self) -> None:
        """The client left: its place is free."""
        self._pool.pending.leave(self)
        self._pool.count_pending()


class Queue(deque[Waiting]):
    """In the order in which they are served. One deque and not two: whether somebody waits is asked for each reply.

    Attributes:
        low: how many have low priority; they are the last ones.
    """

    __slots__ = ("low",)

    def __init__(self) -> None:
        super().__init__()
        self.low = 0

    def join(self, waiting: Waiting, *, first: bool = False) -> None:
        """Take a place behind all of the same priority, or before them (`first`)."""
        if waiting.low:
            self.low += 1
            self.insert(len(self) + 1 - self.low if first else len(self), waiting)
        elif first:
            self.appendleft(waiting)
        elif self.low:
            self.insert(len(self) - self.low, waiting)
        else:
            self.append(waiting)

    def next(self) -> Waiting:
        """The first one, who leaves. Raises: IndexError when nobody waits."""
        waiting = self.popleft()
        self.low -= waiting.low
        return waiting

    def youngest_low(self) -> Waiting | None:
        """The last one of low priority, who leaves; None: there is none."""
        if not self.low:
            return None
        self.low -= 1
        return self.pop()

    def leave(self, waiting: Waiting) -> None:
        """One gives up."""
        try:
            self.remove(waiting)
        except ValueError:
            return  # its turn had come
        self.low -= waiting.low

    def late(self, due: float) -> list[Waiting]:
        """Those whose time was over before `due`, who leave. They stand anywhere: an exchange may have been under way for long
        before it came here."""
        found = [waiting for waiting in self if waiting.due < due]
        for waiting in found:
            self.leave(waiting)
        return found
