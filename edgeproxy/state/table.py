# The keys of one quota, bounded: what expired is swept a little at a time, and what must go when it is full is chosen here.
"""`Table`: state by key.

Sweeping: keys move from `old` to `young` when they are charged or swept; when `old` is empty the two change places. A new
key pays for a look at SWEPT old ones, so that what expired never outnumbers what lives by much, and nothing needs a timer.

When the memory is full, a new key takes the place of one that has used no larger share of its quota than the new key
itself just did (of NEAR that are looked at; keys pass by in turn). An attacker who sends one request from each of a million
addresses thereby displaces only such addresses, and keys near their limits, or refused, stay. Only when every key that was
looked at has used more is the least used of them forgotten: to have a key forgotten that used n units, the table
has to be full of keys that used as much. What is forgiven is what that key had used.
"""

from __future__ import annotations

from typing import Final

from edgeproxy.state.counting import ROLL, State, ends, share
from edgeproxy.state.ports import Kind, Quota

SWEPT: Final = 2
NEAR: Final = 16


class Table:
    """The keys of one quota.

    Attributes:
        quota: as it was last given; a reload may change its limit.
        held: leases in all keys of a LEASES quota, each of which takes as much memory as a key.
    """

    __slots__ = ("held", "old", "quota", "young")

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.young: dict[bytes, State] = {}
        self.old: dict[bytes, State] = {}
        self.held = 0

    def __len__(self) -> int:
        return len(self.young) + len(self.old) + self.held

    def find(self, key: bytes) -> State | None:
        return self.young.get(key) or self.old.get(key)

    def put(self, key: bytes, state: State) -> None:
        (self.old if key in self.old else self.young)[key] = state

    def drop(self, key: bytes) -> None:
        state = self.young.pop(key, None) or self.old.pop(key, None)
        if state is not None and self.quota.kind == Kind.LEASES:
            self.held -= len(state[2])

    def sweep(self, now: int, count: int) -> None:
        """Looks at up to `count` keys and drops those that are as if they had never been charged."""
        if not self.old:
            self.old, self.young = self.young, self.old
        quota, young, old = self.quota, self.young, self.old
        for _ in range(min(count, len(old))):
            if quota.kind is Kind.LEASES:
                self._look(now)
                continue
            key, state = old.popitem()
            if state[0] > now + quota.window:
                young[key] = ROLL[quota.kind](state, quota, now)
            elif ends(state, quota) > now:
                young[key] = state

    def evict(self, now: int, newcomer: int, *, must: bool) -> bool:
        """Drops a key that has no larger share than `newcomer` (see the module); `must`: the least used one at any rate."""
        least: tuple[int, bytes, State] | None = None
        for _ in range(NEAR):
            if not self.old:
                self.old, self.young = self.young, self.old
                if not self.old:
                    break
            seen = self._look(now)
            if seen is None:
                return True
            if least is None or seen[0] < least[0]:
                least = seen
            if seen[0] <= newcomer:
                break
        if least is None or (least[0] > newcomer and not must):
            return False
        self.drop(least[1])
        return True

    def _look(self, now: int) -> tuple[int, bytes, State] | None:
        """Takes one key out of `old`: into `young`, with the share it has in use, or away, if that is nothing."""
        quota = self.quota
        key, state = self.old.popitem()
        leases = len(state[2]) if quota.kind is Kind.LEASES else 0
        state = ROLL[quota.kind](state, quota, now)
        if leases:
            self.held -= leases - len(state[2])
        used = share(state, quota, now)
        if not used:
            return None
        self.young[key] = state
        return used, key, state
