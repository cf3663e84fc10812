# A store for tests of limits: it stands still in time, answers when it is told to, and remembers what it was asked.
"""`WatchedStore`: the embedded store, watched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edgeproxy.state.embedded import EmbeddedStore
from edgeproxy.state.ports import Admitted, Change, Charge, Level

if TYPE_CHECKING:
    from contract.stand import Stand


class WatchedStore:
    """See the module. All of a test's requests must have the same keys.

    Attributes:
        now: microseconds; nothing comes back unless a test moves it.
        waits: admissions are kept in `waiting` until `answer`.
        charges: limit → what was last charged to it.
        settled: lease → how often it was settled.
    """

    def __init__(self) -> None:
        self.now = 1_000_000_000_000_000
        self.inner = EmbeddedStore(clock=lambda: self.now)
        self.waits = False
        self.waiting: list[Callable[[], None]] = []
        self.charges: dict[str, Charge] = {}
        self.settled: Counter[bytes] = Counter()

    def admit(self, charges: Sequence[Charge], lease: bytes, done: Admitted) -> None:
        for charge in charges:
            known = self.charges.setdefault(charge.quota.name, charge)
            assert known.key == charge.key, "a key of its own"
            self.charges[charge.quota.name] = charge
        if self.waits:
            self.waiting.append(lambda: self.inner.admit(charges, lease, done))
        else:
            self.inner.admit(charges, lease, done)

    def settle(self, changes: Sequence[Change], lease: bytes) -> None:
        self.settled[lease] += 1
        self.inner.settle(changes, lease)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def answer(self) -> None:
        """Answers all that wait, and whoever comes."""
        self.waits = False
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each()

    def used(self, name: str) -> int:
        """Units that a limit's key was charged and not given back."""
        quota, key, _ = self.charges[name]
        found: list[tuple[Level, ...] | None] = []
        self.inner.peek([Charge(quota, key, 0)], found.append)
        assert found[0] is not None
        return quota.burst - found[0][0].remaining


def watched(stand: Stand) -> WatchedStore:
    """Lets an edge's limits count in a store that is watched."""
    store = WatchedStore()
    stand.edge.data_plane.count(store)
    return store
