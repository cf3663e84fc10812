# How workers, and edges, tell each other what they counted of fingerprints: by slots in the store. What is counted is
# bots/signals.py's business.
"""`Signalling`: looks at one slot of the store after the other, and after each round tells in its own what this worker counted.

Nobody can ask a store who is there. So there are SLOTS keys that all know. A worker takes one that was empty (`put(once)`), keeps
it by telling again, and leaves it when somebody else is found in it. What others told is added up over a round and takes the
place of what the round before gave: what a worker that is gone had told goes, too, after KEPT.

Bounds: one question at a time and every EVERY seconds, a blob of at most 62 KiB, and in memory one table for each of two rounds.
"""

from __future__ import annotations

import os
import random
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from edgeproxy.bots.signals import Heard
from edgeproxy.deadlines import NEVER
from edgeproxy.state.embedded import EmbeddedStore

if TYPE_CHECKING:
    from edgeproxy.bots.signals import Signals
    from edgeproxy.deadlines import Deadlines
    from edgeproxy.gateway import Gateway

SLOTS: Final = 32
EVERY: Final = 0.5  # seconds between two questions; a round takes 17 to 33, since deadlines are coarse
KEPT: Final = 100_000_000  # µs that what was told is kept: three rounds
_ID: Final = 8  # bytes
# Another format would get another name: during an update workers of both are there.
_KEYS: Final = tuple(blake2b(b"%d" % slot, digest_size=16, person=b"edge signals 1").digest() for slot in range(SLOTS))


class Signalling:
    """One worker's; an `Expiring`.

    Attributes:
        deadline: when the next question is asked.
        wanted: somebody reads signals.
    """

    __slots__ = ("_asked", "_at", "_deadlines", "_empty", "_gateway", "_heard", "_id", "_mine", "_signals", "deadline", "wanted")

    def __init__(self, gateway: Gateway, deadlines: Deadlines, signals: Signals) -> None:
        self._gateway = gateway
        self._deadlines = deadlines
        self._signals = signals
        self._id = os.urandom(_ID)
        self._mine: int | None = None
        self._at = 0
        self._asked = False
        self._empty: list[int] = []
        self._heard = Heard()
        self.deadline = NEVER
        self.wanted = False

    def want(self, wanted: bool) -> None:
        """Whether a rule or a limit reads signals: nobody else pays for them."""
        self.wanted = wanted
        if wanted:
            self.begin()
        else:
            self._deadlines.members.discard(self)
            self.deadline = NEVER
            self._signals.heard = {}

    def begin(self) -> None:
        """Begin, if somebody reads signals and there is anybody to share them with."""
        if self.wanted and self.deadline is NEVER and not isinstance(self._gateway.store, EmbeddedStore):
            self.deadline = self._deadlines.now + EVERY
            self._deadlines.members.add(self)

    def expire(self, now: float) -> None:
        """Time for the next question."""
        self.deadline = now + EVERY
        if self._asked:
            return  # the store has not answered yet
        if self._at < SLOTS:
            slot, self._at = self._at, self._at + 1
            self._asked = True
            self._gateway.store.get(_KEYS[slot], partial(self._found, slot))
        else:
            self._end(now)

    def _found(self, slot: int, told: bytes | None) -> None:
        self._asked = False
        if told is None:  # or the store is away: so a slot of ours is still ours
            self._empty.append(slot)
            return
        if told.startswith(self._id):
            if self._mine is None:
                self._mine = slot  # the answer to what was told there was lost
            return
        if slot == self._mine:
            self._mine = None
        try:
            self._heard.add(told[_ID:])
        except ValueError:
            self._count("broken")
        else:
            self._count("found")

    def _end(self, now: float) -> None:
        """A round is over: what was heard counts, and others are told."""
        self._signals.heard, self._heard = self._heard.counts, Heard()
        empty, self._empty, self._at = self._empty, [], 0
        rows = self._signals.busiest(now)
        if not rows:
            return
        slot = self._mine
        once = slot is None
        if slot is None:
            if not empty:
                self._count("refused")
                return
            slot = random.choice(empty)  # noqa: S311  so that those who begin together do not want the same one
        self._asked = True
        self._gateway.store.put(_KEYS[slot], self._id + rows, KEPT, once=once, done=partial(self._told, slot))

    def _told(self, slot: int, kept: bool) -> None:
        self._asked = False
        if kept:
            self._mine = slot
        else:
            self._count("failed")

    def _count(self, outcome: str) -> None:
        counts = self._gateway.stats.bots.lookups
        counts["signals", outcome] = counts.get(("signals", outcome), 0) + 1
