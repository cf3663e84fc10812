# Who listens on the sockets of a slot whose worker is gone. TCP only: Unix sockets are shared by all slots anyway.
"""Lending a slot's sockets to a live worker until the slot has a worker again.

The kernel goes on queueing connections on a socket that the supervisor holds open; without somebody who accepts, they
would wait for as long as the back-off lasts.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeproxy.children import Child
from edgeproxy.ipc import GiveBack, Lend
from edgeproxy.sockets import Slot


class Loans:
    """The loans among ``workers``, whose index is their slot; ``Child.lent_to`` is the record."""

    __slots__ = ("_slots", "_workers")

    def __init__(self, workers: Sequence[Child], slots: Sequence[Slot]) -> None:
        self._workers = workers
        self._slots = slots

    def on_gone(self, child: Child) -> None:
        """A worker ended: its own sockets, and those it had borrowed, go to whoever has the fewest."""
        for other in [w for w in self._workers if w.lent_to == child.slot]:
            other.lent_to = None
            self._lend(other)
        child.lent_to = None
        self._lend(child)

    def on_ready(self, child: Child) -> None:
        """A worker accepts: it has its sockets back, and can take those that nobody could."""
        if child.lent_to is not None:
            self._workers[child.lent_to].send(GiveBack(child.slot))
            child.lent_to = None
        for other in self._workers:
            if other.state != "ready" and other.lent_to is None:
                self._lend(other)

    def _lend(self, child: Child) -> None:
        https, http = self._slots[child.slot].own()
        able = [w for w in self._workers if w.state == "ready" and w.channel is not None]
        if not able or not https + http:
            return
        loans = [w.lent_to for w in self._workers]
        borrower = min(able, key=lambda w: loans.count(w.slot))
        if borrower.send(Lend(child.slot, len(https)), fds=tuple(sock.fileno() for sock in https + http)):
            child.lent_to = borrower.slot
