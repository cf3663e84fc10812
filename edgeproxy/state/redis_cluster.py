# The store in a Redis Cluster: which node is asked about which key, and exchanges whose keys lie in several slots.
"""`ClusterStore`: a `Lane` to each primary, batches by slot, pipelined.

An exchange whose keys lie in several slots is admitted slot by slot, in the order of the slots, so that two of them never
wait for what the other has; a refusal gives back what the slots before had taken. Until that is heard another exchange may
be refused that need not be. The deadline is for the exchange as a whole.

The map of slots is fetched when the store starts, when a node says that it is wrong (MOVED), when a node is lost, until
every slot has a primary that answers, and every REFRESH seconds.
"""

from __future__ import annotations

import asyncio
from binascii import crc_hqx, hexlify
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from edgeproxy.state.ports import Admission, Admitted, Change, Charge, Verdict
from edgeproxy.state.redis import RedisStore
from edgeproxy.state.redis_batch import Give, Take, undoing
from edgeproxy.state.redis_calls import Batch, Question
from edgeproxy.state.redis_dial import TIMEOUT, Unreachable, ask, open_link
from edgeproxy.state.redis_lane import Lane, Skipped
from edgeproxy.state.redis_link import Refusal, command
from edgeproxy.state.redis_url import Address, label

SLOTS: Final = 16384
REFRESH: Final = 60.0  # seconds
_AGAIN: Final = 0.2  # seconds between two looks while something is missing
_ASKING: Final = command(b"ASKING")


def slot_of(key: bytes) -> int:
    """Of a key of the contract: what stands in the braces is its hex (Names)."""
    return crc_hqx(hexlify(key), 0) % SLOTS


class ClusterStore(RedisStore):
    """See the module."""

    def _begin(self) -> None:
        self._nodes: dict[Address, Lane] = {}
        self._map: list[Lane | None] = [None] * SLOTS
        self._wanted = asyncio.Event()
        self._mapped = False
        self._mapper = self.loop.create_task(self._keep_map())

    # The contract

    def admit(self, charges: Sequence[Charge], lease: bytes, done: Admitted) -> None:
        if self.pass_known(charges, done):
            return
        if len(charges) == 1:
            self.take((slot_of(charges[0].key), charges, lease, done, None))
            return
        slots = [slot_of(charge.key) for charge in charges]
        if len(set(slots)) == 1:
            self.take((slots[0], charges, lease, done, None))
        else:
            Spanning(self, slots, charges, lease, done).step()

    def take(self, take: Take) -> None:
        """Have charges of one slot decided."""
        lane = self._map[take[0]]
        if lane is not None and lane.up:
            lane.take(take)
        else:
            self.hand_back([take])

    def give(self, changes: Sequence[Change], lease: bytes) -> None:
        by_slot: dict[int, list[Change]] = {}
        for change in changes:
            by_slot.setdefault(slot_of(change.key), []).append(change)
        for slot, part in by_slot.items():
            self.give_to((slot, part, lease))

    def give_to(self, give: Give) -> None:
        """Changes in one slot. Where nobody has that slot, they wait with any node, which will say whose it is."""
        lane = self._map[give[0]] or next(iter(self._nodes.values()), None)
        if lane is not None:
            lane.give(give)

    def lane_of(self, key: bytes) -> Lane | None:
        return self._map[slot_of(key)]

    def close(self) -> None:
        self._mapper.cancel()
        super().close()

    # Batches

    def send_batch(self, lane: Lane, takes: list[Take], gives: list[Give], since: float) -> None:
        """As one EVALSHA for each slot."""
        if len(takes) + len(gives) == 1:
            Batch(self, takes, gives).send(lane, since)
            return
        by_slot: dict[int, tuple[list[Take], list[Give]]] = {}
        for take in takes:
            by_slot.setdefault(take[0], ([], []))[0].append(take)
        for give in gives:
            by_slot.setdefault(give[0], ([], []))[1].append(give)
        batches = [Batch(self, some, others) for some, others in by_slot.values()]
        lane.call_all([batch.prepare(lane) for batch in batches], batches, since)

    def refused(self, lane: Lane, batch: Batch, reply: Refusal) -> None:
        if reply.word not in {"MOVED", "ASK"}:
            if reply.word in {"TRYAGAIN", "CLUSTERDOWN"}:  # of a slot that is on its way, or of none: not of this node
                self._wanted.set()
                batch.lost()
            else:
                super().refused(lane, batch, reply)
            return
        self._wanted.set()
        other = self._of_text(lane, str(reply))
        if other is not None and other.up and batch.retry():
            if reply.word == "MOVED":
                slot = int(str(reply).split()[1])
                self._map[slot] = other
                batch.send(other, batch.sent)
            else:
                batch.send(other, batch.sent, prefix=_ASKING, extra=(Skipped(),))
        else:
            batch.lost()

    def misdirected(self, question: Question, reply: Refusal) -> bool:
        if reply.word not in {"MOVED", "ASK"}:
            return False
        self._wanted.set()
        other = self._of_text(question.lane, str(reply))
        if other is None or not other.up:
            return False
        asking = reply.word == "ASK"
        question.lane = other
        data = _ASKING + question.data if asking else question.data
        other.call(data, question, question.sent, extra=(Skipped(),) if asking else ())
        return True

    def _of_text(self, lane: Lane, text: str) -> Lane | None:
        """The node that `MOVED 3999 host:port` names; without a host it is the one that said so."""
        where = text.split()[2] if len(text.split()) > 2 else ""
        host, _, port = where.rpartition(":")
        if not port.isdigit():
            return None
        if not host:
            host = next((address[0] for address, node in self._nodes.items() if node is lane), "")
        return self._nodes.get((host, int(port)))

    # The map of slots

    async def _keep_map(self) -> None:
        while True:
            self._wanted.clear()
            whole = await self._look()
            if self._mapped and not whole:
                self._wanted.set()
            try:
                async with asyncio.timeout(REFRESH):
                    await self._wanted.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(_AGAIN)  # a burst of MOVED is one reason

    async def _look(self) -> bool:
        """Ask nodes for the map until one knows it; says whether every slot has a primary that answers."""
        why = ""
        # Those that answer first: one that is gone costs a second.
        known = sorted(self._nodes, key=lambda address: not self._nodes[address].up)
        for address in dict.fromkeys([*known, *self.place.addresses]):
            try:
                rows = await self._ask_map(address)
            except Unreachable as e:
                why = str(e)
                continue
            self._apply(address, rows)
            self._mapped = True
            return all(lane is not None and lane.up for lane in set(self._map))
        if not self._mapped:
            self.say(f"no node of the cluster could be asked; the last one, {why}")
        self._wanted.set()
        return False

    async def _ask_map(self, address: Address) -> list[Any]:
        link = await open_link(address, self.place.login, self.context)
        try:
            async with asyncio.timeout(TIMEOUT):
                rows = await ask(link, b"CLUSTER", b"SLOTS")
        except TimeoutError:
            rows = Refusal("no answer in time")
        finally:
            link.abort()
        if not isinstance(rows, list) or not rows:
            raise Unreachable(f"{label(address)}: {rows or 'it knows of no slots'}")
        return rows

    def _apply(self, asked: Address, rows: list[Any]) -> None:
        fresh: list[Lane | None] = [None] * SLOTS
        used: dict[Address, Lane] = {}
        for low, high, primary, *_ in rows:
            host = primary[0].decode() if primary[0] else ""
            address = (host if host not in {"", "?"} else asked[0], int(primary[1]))
            lane = used.get(address) or self._nodes.get(address) or self._open(address)
            used[address] = lane
            fresh[low : high + 1] = [lane] * (high - low + 1)
        self._map = fresh
        gone = [self._nodes.pop(address) for address in list(self._nodes) if address not in used]
        self._nodes = used
        self.lanes = list(used.values())
        for lane in gone:
            gives, lane.gives = lane.gives, []
            lane.close()
            for give in gives:
                self.give_to(give)

    def _open(self, address: Address) -> Lane:
        return Lane(self.loop, self, f"store {label(address)}", partial(self.dial, address), self.settings.deadline)

    def rise(self, lane: Lane) -> None:  # noqa: ARG002  it is asked of all
        if self._mapped and all(node.up for node in self.lanes):
            self._ready.set()

    def fell(self, lane: Lane) -> None:  # noqa: ARG002  whichever it is
        self._wanted.set()


class Spanning:
    """An exchange whose charges lie in several slots.

    Args:
        slots: of its charges, in their order.
    """

    __slots__ = ("_at", "_charges", "_done", "_lease", "_parts", "_store", "_timer", "_verdicts")

    def __init__(
        self, store: ClusterStore, slots: list[int], charges: Sequence[Charge], lease: bytes, done: Admitted
    ) -> None:
        self._store = store
        self._charges = charges
        self._lease = lease
        self._done = done
        # The lanes' own deadlines are for their servers, and begin anew with each slot; this one is for who waits.
        self._timer: asyncio.TimerHandle | None = store.loop.call_later(store.settings.deadline, self.fallen)
        by_slot: dict[int, list[int]] = {}
        for i, slot in enumerate(slots):
            by_slot.setdefault(slot, []).append(i)
        self._parts = sorted(by_slot.items())
        self._at = 0
        self._verdicts: list[Verdict | None] = [None] * len(charges)

    def step(self) -> None:
        """Ask the next slot."""
        slot, indices = self._parts[self._at]
        self._store.take((slot, [self._charges[i] for i in indices], self._lease, self._answered, self.fallen))

    def _answered(self, admission: Admission) -> None:
        slot, indices = self._parts[self._at]
        if self._timer is None:  # it was decided meanwhile
            if admission.allowed:
                self._give_back(slot, indices, admission.verdicts)
            return
        for i, verdict in zip(indices, admission.verdicts, strict=True):
            self._verdicts[i] = verdict
        if not admission.allowed:
            self._over()
            self._undo()
            self._done(Admission(False, tuple(self._told(i) for i in range(len(self._charges))), "store"))
            return
        self._at += 1
        if self._at < len(self._parts):
            self.step()
        else:
            self._over()
            self._done(Admission(True, tuple(v for v in self._verdicts if v is not None), "store"))

    def _told(self, i: int) -> Verdict:
        """What is said of a charge of a refused exchange: as if the slots before had taken nothing."""
        verdict, charge = self._verdicts[i], self._charges[i]
        if verdict is None:
            return self._store.fallback.last(charge)
        taken = any(i in indices for _, indices in self._parts[: self._at])
        return verdict._replace(remaining=verdict.remaining + charge.cost) if taken else verdict

    def _undo(self) -> None:
        """Give back what the slots before this one took."""
        for slot, indices in self._parts[: self._at]:
            self._give_back(slot, indices, [v for v in (self._verdicts[i] for i in indices) if v is not None])

    def _give_back(self, slot: int, indices: list[int], verdicts: Sequence[Verdict]) -> None:
        changes = undoing([self._charges[i] for i in indices], verdicts)
        if changes:
            self._store.give_to((slot, changes, self._lease))

    def _over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def fallen(self) -> None:
        """A slot cannot be asked, or it takes too long: decide all of it without the store."""
        if self._timer is not None:
            self._over()
            self._undo()
            self._store.decide(self._charges, self._lease, self._done)
