# The embedded store's memory: all operations of the contract, on bounded tables, in plain calls. No loop, no clock, no socket.
"""`Memory`: what shared state is when one process has it. Time comes in, in microseconds; whoever calls brings the clock.

Bounds: `keys` in all tables together (a lease counts as a key), BLOCKS blocks, BLOBS blobs of `blobs` bytes in all,
SETTLED names of exchanges that were settled. A key takes up to KEY_SIZE bytes (a test measures it). What happens
at the bounds: keys, see table.py (nothing is dropped before seven eighths of `keys`, and there are never more than
`keys`); blocks and blobs are refused; the oldest settled names are forgotten.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edgeproxy.state import counting
from edgeproxy.state.counting import TAKE, State, fresh
from edgeproxy.state.ports import Admission, Change, Charge, Kind, Level, Quota, Verdict
from edgeproxy.state.shelf import Recent, Shelf
from edgeproxy.state.table import SWEPT, Table

KEYS: Final = 200_000
KEY_SIZE: Final = 512
BLOCKS: Final = 65_536
BLOBS: Final = 65_536
BLOB_SIZE: Final = 64 << 10
BLOB_BYTES: Final = 16 << 20
SETTLED: Final = 65_536
TEND: Final = 250_000  # µs between two looks at what nobody asks for any more
TENDED: Final = 256  # keys of each table at such a look
_KNOWN: Final = 256  # Quota objects whose table is looked up without their name
_LEASES: Final = Kind.LEASES
_NOTHING: Final[State] = (0, 0, 0, 0)
_new: Final = tuple.__new__  # as in counting.py


class Memory:
    """See the module. `born` is when it was made: what was charged before was charged to another one."""

    __slots__ = ("_blobs", "_blocked", "_blocks", "_by_shape", "_keys", "_room", "_settled", "_tables", "_tended", "born")

    def __init__(self, now: int, keys: int = KEYS, blobs: int = BLOB_BYTES) -> None:
        self.born = now
        self._keys = keys
        self._room = 0  # this many keys may come before they are counted again
        # A reload brings new Quota objects; what they count goes on if they count in the same way.
        self._tables: dict[Quota, Table] = {}
        self._by_shape: dict[tuple[str, Kind, int], Table] = {}
        self._blocks = Shelf(BLOCKS, 0)
        self._blocked = False  # whether there may be any
        self._blobs = Shelf(BLOBS, blobs)
        self._settled = Recent(SETTLED)
        self._tended = now

    def __len__(self) -> int:
        """Keys and leases in it."""
        return sum([len(table) for table in self._by_shape.values()])

    def admit(self, charges: Sequence[Charge], lease: bytes, now: int) -> Admission:
        """All of the charges, or none."""
        if not 0 <= now - self._tended < TEND:
            self.tend(now)
        tables = self._tables
        blocks = self._blocks if self._blocked else None
        if len(charges) == 1 and blocks is None:  # most requests: one charge of a key that is young, and it fits
            quota, key, cost = charges[0]
            table = tables.get(quota)
            state = table.young.get(key) if table is not None and quota.kind is not _LEASES else None
            if table is not None and state is not None:
                after, verdict = TAKE[quota.kind](state, quota, cost, now, lease)
                if verdict[0]:
                    if cost:
                        table.young[key] = after
                    return _new(Admission, (True, (verdict,), "store"))
        verdicts: list[Verdict] = []
        undo: list[tuple[Table, bytes, State | None, int]] = []
        refused: list[tuple[Table, bytes, State]] = []
        for quota, key, cost in charges:
            table = tables.get(quota)
            if table is None:
                table = self._table(quota)
            young = table.young
            state = young.get(key)
            if state is None:
                state = table.old.pop(key, None)
                if state is not None:
                    young[key] = state
            if blocks is not None and (block := blocks.find(key, now)) is not None:
                refused.append((table, key, _NOTHING))
                verdicts.append(_new(Verdict, (False, 0, block[0], block[0], now)))
                continue
            held = len(state[2]) if quota.kind is _LEASES and state is not None else 0
            after, verdict = TAKE[quota.kind](state or fresh(quota.kind, now), quota, cost, now, lease)
            verdicts.append(verdict)
            if quota.kind is _LEASES:
                table.held += len(after[2]) - held
                if state is not None:  # even if it is refused: what expired is no more in the dictionary of both states
                    young[key] = after
            if not verdict[0]:
                refused.append((table, key, after))
            elif cost:
                if state is None or quota.kind is _LEASES:
                    young.pop(key, None)  # it is not the one to go
                    self._make_room(table, after, now)
                table.young[key] = after  # making room may have made it another dictionary
                undo.append((table, key, state, cost))
        if refused:
            return self._refuse(charges, verdicts, undo, refused, lease, now)
        return _new(Admission, (True, tuple(verdicts), "store"))

    def _refuse(
        self,
        charges: Sequence[Charge],
        verdicts: list[Verdict],
        undo: list[tuple[Table, bytes, State | None, int]],
        refused: list[tuple[Table, bytes, State]],
        lease: bytes,
        now: int,
    ) -> Admission:
        """Takes back what was taken, and notes for how long the keys that were over are to be refused everything."""
        for table, key, before, cost in reversed(undo):
            after = table.find(key)
            if after is None:  # forgotten for the sake of a later charge's key
                continue
            if table.quota.kind is _LEASES:
                table.held -= counting.untake(after[2], lease, cost)
                # Not the state of before: it counts what has expired, and is no more in the dictionary of both.
                table.put(key, (after[0], after[1] - cost, after[2], after[3]))
            if before is None:
                table.drop(key)
            elif table.quota.kind is not _LEASES:
                table.put(key, before)
        for table, key, state in refused:
            if state[3] > now:
                known = table.find(key)
                if known is None:
                    self._make_room(table, state, now)
                    known = fresh(table.quota.kind, now)
                table.put(key, (*known[:3], state[3]))
        if len(charges) > 1:
            verdicts = [self._as_is(c, v, now) if v[0] else v for c, v in zip(charges, verdicts, strict=True)]
        return _new(Admission, (False, tuple(verdicts), "store"))

    def _as_is(self, charge: Charge, verdict: Verdict, now: int) -> Verdict:
        """Of a charge that was within its quota and was not taken: what is there without it."""
        quota, key, _ = charge
        state = self._table(quota).find(key)
        return counting.left(state or fresh(quota.kind, now), quota, now)._replace(stamp=verdict.stamp)

    def settle(self, changes: Sequence[Change], lease: bytes, now: int) -> None:
        """Once for each lease, among the last SETTLED."""
        if not self._settled.see(lease):
            return
        for quota, key, delta, stamp in changes:
            if not stamp:  # nobody charged it
                continue
            table = self._table(quota)
            state = table.find(key)
            if quota.kind is _LEASES:
                if state is not None:
                    held = len(state[2])
                    table.put(key, counting.give_back(state, quota, lease, now))
                    table.held += len(state[2]) - held
            elif delta > 0 and state is None:
                state = counting.correct(fresh(quota.kind, now), quota, delta, stamp, now)
                self._make_room(table, state, now)
                table.put(key, state)
            elif state is not None and (delta > 0 or stamp >= self.born):
                table.put(key, counting.correct(state, quota, delta, stamp, now))

    def prolong(self, charges: Sequence[Charge], lease: bytes, now: int) -> None:
        """Has leases that are still held live for another window."""
        for quota, key, _ in charges:
            if quota.kind is not _LEASES:
                continue
            table = self._table(quota)
            state = table.find(key)
            if state is not None:
                held = len(state[2])
                table.put(key, counting.prolong(state, quota, lease, now))
                table.held += len(state[2]) - held

    def peek(self, charges: Sequence[Charge], now: int) -> tuple[Level, ...]:
        levels = []
        for quota, key, _ in charges:
            level = counting.level(self._table(quota).find(key) or fresh(quota.kind, now), quota, now)
            block = self._blocks.find(key, now)
            levels.append(level if block is None else level._replace(blocked=max(level.blocked, block[0])))
        return tuple(levels)

    def block(self, key: bytes, ttl: int, now: int) -> bool:
        """False when there is no room for another block."""
        if ttl <= 0:
            self._blocks.drop(key)
            return True
        self._blocked = True
        return self._blocks.put(key, b"", ttl, now)

    def reset(self, charges: Sequence[Charge]) -> None:
        """Forgets charges, leases and mitigation; a block stays."""
        for quota, key, _ in charges:
            self._table(quota).drop(key)

    def get(self, key: bytes, now: int) -> bytes | None:
        entry = self._blobs.find(key, now)
        return None if entry is None else entry[1]

    def put(self, key: bytes, value: bytes, ttl: int, now: int, *, once: bool) -> bool:
        """False: it is too large, there is one (`once`), or there is no room for another."""
        if len(value) > BLOB_SIZE or (once and self._blobs.find(key, now) is not None):
            return False
        return self._blobs.put(key, value, ttl, now)

    def tend(self, now: int) -> None:
        """Drops some of what has expired; called by `admit`, so that nothing needs a timer."""
        self._tended = now
        for table in self._by_shape.values():
            table.sweep(now, TENDED)
        self._blocks.sweep(now, TENDED)
        self._blocked = len(self._blocks) > 0
        self._blobs.sweep(now, TENDED)
        if len(self._tables) > _KNOWN:
            self._tables.clear()
            self._by_shape = {shape: table for shape, table in self._by_shape.items() if len(table)}

    def _table(self, quota: Quota) -> Table:
        table = self._tables.get(quota)
        if table is None:
            shape = (quota.name, quota.kind, quota.window)
            table = self._by_shape.get(shape)
            if table is None:
                table = self._by_shape[shape] = Table(quota)
            table.quota = quota
            self._tables[quota] = table
        return table

    def _make_room(self, table: Table, state: State, now: int) -> None:
        """For one key more in `table`: sweeps, and when the memory is full, drops one of the table that has most."""
        table.sweep(now, SWEPT)
        self._room -= 2  # it may come with a lease
        if self._room >= 0:
            return
        count = len(self) + 2
        self._room = self._keys - self._keys // 8 - count
        if self._room < 0:
            newcomer = counting.share(state, table.quota, now)
            largest = max(self._by_shape.values(), key=len)
            while largest.evict(now, newcomer, must=count > self._keys) and count > self._keys:
                count = len(self) + 2
