# How an edge ends: readiness fails, the doors close, streams finish, and nothing outlives its deadline.
"""The order of a drain. The supervisor says what happens and asks what is due; children are told from here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from edgeproxy.children import Child
from edgeproxy.ipc import Abort, Drain
from edgeproxy.sockets import Listeners
from edgeproxy.system import notify

READINESS_DEADLINE: Final = 0.25  # seconds for /readyz to fail before the doors close
GRACE: Final = 3.0  # seconds beyond `drain` before a worker that has not ended is killed
ABORT_GRACE: Final = 1.5  # the same after a second signal; and for control to end


class Shutdown:
    """Begins with the first ``signal()``; ``step()`` goes on with it and says when all is over."""

    __slots__ = (
        "_close_at",
        "_control",
        "_kill_at",
        "_listeners",
        "_say",
        "_seconds",
        "_undrained",
        "_workers",
        "begun",
    )

    def __init__(
        self, workers: Sequence[Child], control: Child | None, listeners: Listeners, say: Callable[[str], None]
    ) -> None:
        self.begun = False
        self._workers = workers
        self._control = control
        self._listeners = listeners
        self._say = say
        self._seconds = 0.0
        self._undrained = 0  # number of the last State that did not say so
        self._close_at: float | None = None  # readiness is failing; then the doors close
        self._kill_at: float | None = None

    @property
    def deadlines(self) -> list[float]:
        return [at for at in (self._close_at, self._kill_at) if at is not None]

    def signal(self, seconds: float, state_number: int) -> None:
        """SIGTERM or SIGINT. ``seconds``: what streams are given; ``state_number``: the last State control was sent."""
        if self.begun:
            self._at_once()
            return
        self.begun = True
        self._seconds = seconds
        self._undrained = state_number
        self._say(f"draining: no new connections, streams have {seconds:g} s to finish")
        notify("STOPPING=1")
        # Readiness fails first: closing the doors waits until /readyz is known to.
        listening = self._control is not None and self._control.state == "ready"
        self._close_at = time.monotonic() + (READINESS_DEADLINE if listening else 0.0)

    def seen(self, state_number: int) -> None:
        """Control answers /readyz by this State."""
        if self._close_at is not None and state_number > self._undrained:
            self._close_at = 0.0

    def step(self, now: float) -> bool:
        """Does what is due; True when every child has ended. To be called after the State was pushed."""
        if self._close_at is not None and self._close_at <= now:
            self._close_doors(now)
        if self._kill_at is not None and self._kill_at <= now:
            self._kill_late(now)
        if any(child.pid for child in self._workers):
            return False
        control = self._control
        if control is None or not control.pid:
            return True
        if control.state != "draining":
            control.state = "draining"
            control.send(Drain(0.0))
            self._kill_at = now + ABORT_GRACE
        return False

    def _at_once(self) -> None:
        self._say("stopping at once")
        self._close_at = None
        self._listeners.close_traffic()
        for child in self._workers:
            child.send(Abort())
        self._kill_at = time.monotonic() + ABORT_GRACE

    def _close_doors(self, now: float) -> None:
        self._close_at = None
        self._kill_at = now + self._seconds + GRACE
        self._listeners.close_traffic()
        for child in self._workers:
            if child.state == "ready" and child.send(Drain(self._seconds)):
                child.state = "draining"
            elif child.state == "starting":
                child.kill()  # it has no connections

    def _kill_late(self, now: float) -> None:
        late = [child for child in self._workers if child.pid]
        for child in late or [c for c in [self._control] if c is not None and c.pid]:
            self._say(f"{child.name} (pid {child.pid}) has not ended; killing it")
            child.kill()
        self._kill_at = now + ABORT_GRACE
