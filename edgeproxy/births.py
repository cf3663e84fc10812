# What a child process begins with: the sockets it keeps, those it closes, the code it runs. When, and what of it is told
# to whom, is the supervisor's matter.
"""`Births`: forking workers and control."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from edgeproxy import worker
from edgeproxy.children import Child, find_prctl, fork
from edgeproxy.datagrams import Seats
from edgeproxy.ipc import Channel, State, ToControl, ToKeeper, ToSupervisor, ToWorker, pair
from edgeproxy.quic.ids import Seat
from edgeproxy.reload import Reloads
from edgeproxy.signals import Signals
from edgeproxy.sockets import Listeners, Reports


class Births:
    """Forks children.

    Attributes:
        reports: where workers report to control; None without an admin address.
    """

    __slots__ = ("_instance", "_listeners", "_plane", "_prctl", "_reloads", "_seats", "reports")

    def __init__(self, listeners: Listeners, reloads: Reloads, plane: type[worker.Plane]) -> None:
        self._listeners = listeners
        self._reloads = reloads  # whose configuration a worker that starts now is given
        self._plane = plane
        self._seats = Seats(len(listeners.slots)) if any(slot.quic for slot in listeners.slots) else None
        self._instance = os.urandom(8).hex()  # the edge's own name, for finding loops
        self._prctl = find_prctl()
        self.reports: Reports | None = None

    def fork(self, child: Child, family: Sequence[Child], signals: Signals | None, state: State, kept: bytes) -> None:
        """Begin a process for `child`.

        Args:
            family: all children, whose channels the new one closes.
            state: what control begins with.
            kept: what control wanted kept: for its successor, and for workers.

        Raises: OSError when no process can be made.
        """
        kinds = ToWorker if child.is_worker else ToControl if child.is_control else ToKeeper
        ours, theirs = pair(ToSupervisor, kinds)
        seat = self._seats.next(child.slot) if self._seats is not None and child.is_worker else None

        def let_go() -> None:
            ours.close()
            if signals is not None:
                signals.close()
            self._let_go(child, family)

        def run() -> int:
            if child.is_worker:
                return self._run_worker(child, theirs, seat, kept)
            return self._run_control(theirs, state, kept) if child.is_control else self._run_keeper(theirs)

        try:
            pid = fork(run, let_go, self._prctl)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        child.started(pid, ours, time.monotonic())

    def _let_go(self, own: Child, family: Sequence[Child]) -> None:
        """In the child: closes what it inherited and does not need."""
        for child in family:
            if child.channel is not None:
                child.channel.close()
        for slot, sockets in enumerate(self._listeners.slots):
            if slot != own.slot:
                for sock in sockets.sockets:
                    sock.close()
        if self._seats is not None:
            self._seats.keep(own.slot if own.is_worker else None)
        if not own.is_control:
            for unused in (self._listeners.admin, *(self.reports.sockets if self.reports is not None else ())):
                if unused is not None:
                    unused.close()

    def _run_worker(self, child: Child, channel: Channel[Any], seat: Seat | None, kept: bytes) -> int:
        sockets = self._listeners.slots[child.slot]
        return worker.run(
            worker.Task(
                slot=child.slot,
                config=self._reloads.config,
                ticket_keys=self._reloads.ticket_keys,
                generation=self._reloads.generation,
                instance=self._instance,
                https=sockets.https,
                http=sockets.http,
                quic=sockets.quic,
                seat=seat,
                channel=channel,
                control=self.reports.path if self.reports is not None else None,
                store=self.reports.store_path if self.reports is not None and len(self._listeners.slots) > 1 else None,
                plane=self._plane,
                kept=kept,
            )
        )

    def _run_control(self, channel: Channel[Any], state: State, kept: bytes) -> int:
        # aiohttp loads the system's certificates for its client on import: 100 ms for what control never does.
        os.environ["SSL_CERT_FILE"] = os.environ["SSL_CERT_DIR"] = os.devnull
        # Imported in the child: workers need not carry its memory, nor wait for it.
        from edgeproxy import control

        admin, address = self._listeners.admin, self._reloads.config.listen.admin
        if self.reports is None or admin is None or address is None:
            return 1
        sockets = self.reports.sockets
        return control.run(control.Task(state, *sockets, admin, address.host, channel, kept, self._reloads.config))

    def _run_keeper(self, channel: Channel[Any]) -> int:
        from edgeproxy import keys_keeper

        keys = self._reloads.config.keys
        return 0 if keys is None else keys_keeper.run(keys_keeper.Task(keys, channel))
