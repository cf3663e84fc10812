# What is decided when the store cannot be asked: nobody passes, everybody passes, or this worker's share of each limit.
"""`Fallback`: the failure modes of a store that is somewhere else (`on_store_failure`).

Local: each worker enforces `limit / shares` of every quota in a table of its own (at least 1), where `shares` is the number of
workers of all nodes. A key that the store has judged lately starts from what it had left then. The table outlives
the outage, so that a store that comes and goes gives nobody a fresh share each time. A charge that is larger than the
share is refused: letting it through would be more than the bound allows.

The bound: in any window the store admits at most the limit, and all workers together at most the limit (or one unit each,
if there are more workers than units): never more than twice the limit, however often the store comes and goes, as long
as it keeps its data; each loss of its data adds one limit. (GCRA: for `limit` read `burst` plus what comes back meanwhile.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Protocol

from edgeproxy.state.ports import LEASE_SIZE, Admission, Change, Charge, Kind, Level, Quota, Verdict
from edgeproxy.state.stats import StoreStats

Mode = Literal["local", "open", "closed"]

_SEEN: Final = 8192  # keys in each of two generations: of more, the store's last verdict is not remembered
_MOST_SHARES: Final = 1024  # quotas; those of snapshots that are gone are dropped with all others
_RETRY: Final = 1_000_000  # µs after which somebody who was refused for nothing but our failure may try again


class Table(Protocol):
    """A store's memory in this process (edgeproxy.state.memory.Memory)."""

    def admit(self, charges: Sequence[Charge], lease: bytes, now: int) -> Admission: ...
    def settle(self, changes: Sequence[Change], lease: bytes, now: int) -> None: ...
    def prolong(self, charges: Sequence[Charge], lease: bytes, now: int) -> None: ...
    def peek(self, charges: Sequence[Charge], now: int) -> tuple[Level, ...]: ...


class Fallback:
    """See the module.

    Args:
        clock: microseconds since the epoch.
        stats: what is decided here is counted there.
    """

    __slots__ = ("_clock", "_mine", "_mine_before", "_mode", "_seen", "_seen_before", "_share", "_shares", "_stats", "_table")

    def __init__(
        self, mode: Mode, shares: int, table: Table, clock: Callable[[], int], stats: StoreStats | None = None
    ) -> None:
        self._stats = stats or StoreStats()
        self._stats.mode = mode
        self._mode = mode
        self._shares = shares
        self._table = table
        self._clock = clock
        self._share: dict[Quota, Quota] = {}
        # What the store said last, by key: with the time, in two generations, so that it is bounded without upkeep.
        self._seen: dict[bytes, tuple[Verdict, int]] = {}
        self._seen_before: dict[bytes, tuple[Verdict, int]] = {}
        # Exchanges that were admitted here, in two generations.
        self._mine: set[bytes] = set()
        self._mine_before: set[bytes] = set()

    def note(self, charges: Sequence[Charge], verdicts: Sequence[Verdict], now: int) -> None:
        """The store has spoken, at `now` by `clock`."""
        seen = self._seen
        for i, charge in enumerate(charges):
            seen[charge[1]] = (verdicts[i], now)
        if len(seen) > _SEEN:
            self._seen_before, self._seen = seen, {}

    def decide(self, charges: Sequence[Charge], lease: bytes) -> Admission:
        """What is to become of an exchange that the store was not asked about."""
        self._stats.fallbacks += 1
        if self._mode == "open":
            return Admission(True, tuple([Verdict(True, c.quota.limit, 0, 0, 0) for c in charges]), "open")
        if self._mode == "closed":
            return Admission(False, tuple([Verdict(False, 0, _RETRY, _RETRY, 0) for _ in charges]), "closed")
        now = self._clock()
        shared = []
        for quota, key, cost in charges:
            share = self.share(quota)
            if self._seen or self._seen_before:
                self._start_from(share, key, now)
            shared.append(Charge(share, key, cost))
        admission = self._table.admit(shared, lease, now)
        if admission.allowed:
            self._own(lease)
        return admission._replace(by="local")

    def _own(self, lease: bytes) -> None:
        self._mine.add(lease)
        if len(self._mine) > _SEEN:
            self._mine_before, self._mine = self._mine, set()

    def settle(self, changes: Sequence[Change], lease: bytes) -> bool:
        """Whether the exchange was admitted here, and is now settled here."""
        mine = self._mine if lease in self._mine else self._mine_before if lease in self._mine_before else None
        if mine is None:
            return False
        mine.discard(lease)
        changed = [change._replace(quota=self.share(change.quota)) for change in changes]
        self._table.settle(changed, lease, self._clock())
        return True

    def prolong(self, charges: Sequence[Charge], lease: bytes) -> bool:
        """Whether the exchange was admitted here; then its leases live on here."""
        if lease not in self._mine and lease not in self._mine_before:
            return False
        self._mine_before.discard(lease)
        self._own(lease)  # it is to be known for as long as it lasts
        self._table.prolong([c._replace(quota=self.share(c.quota)) for c in charges], lease, self._clock())
        return True

    def share(self, quota: Quota) -> Quota:
        """A worker's part of a quota."""
        share = self._share.get(quota)
        if share is None:
            if len(self._share) >= _MOST_SHARES:
                self._share.clear()
            limit, burst = max(quota.limit // self._shares, 1), max(quota.burst // self._shares, 1)
            share = Quota(quota.name, quota.kind, limit, quota.window, burst, quota.mitigation)
            self._share[quota] = share
        return share

    def last(self, charge: Charge) -> Verdict:
        """What the store is thought to say of a charge that was not judged, since another one was refused."""
        found: Any = self._seen.get(charge.key) or self._seen_before.get(charge.key)
        return found[0]._replace(allowed=True, retry=0) if found else Verdict(True, charge.quota.burst, 0, 0, 0)

    def _start_from(self, share: Quota, key: bytes, now: int) -> None:
        """Charge a key here with this worker's part of what the store last knew it to have used."""
        found = self._seen.pop(key, None) or self._seen_before.pop(key, None)
        if found is None or share.kind == Kind.LEASES:  # leases that are out there come back there, not here
            return
        self._seen_before.pop(key, None)
        verdict, then = found
        if now - then >= verdict.reset:
            return
        limit, most = share.limit, share.limit
        left = verdict.remaining // self._shares
        if share.kind == Kind.GCRA:
            most = share.burst
            left += max(now - then, 0) * limit // share.window
        owed = self._table.peek([Charge(share, key, 0)], now)[0].remaining - min(left, most)
        if owed > 0:
            self._table.settle([Change(share, key, owed, now)], os.urandom(LEASE_SIZE), now)
