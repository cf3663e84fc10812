# The store in Redis, one server or one that sentinels watch: who is asked, and what happens when the answer does not come.
"""`RedisStore`: the contract of ports.py over one `Lane`. redis_cluster.py makes it many.

An exchange is decided once: by the store, or, when the deadline is over or the server is known to be away, here. What the
store says afterwards of an exchange that was decided here is undone as soon as it is heard. A batch also carries the time on
the server's clock after which the server shall not look at its exchanges any more: a server that was paused for minutes
charges nobody for them, even when the connection is gone and nobody could undo it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgeproxy.state.fallback import Fallback, Mode, Table
from edgeproxy.state.ports import Admission, Admitted, Change, Charge, Kind, Level
from edgeproxy.state.redis_batch import Give, Names, Packer, Take, admissions, lease_changes, prolonging, undoing
from edgeproxy.state.redis_calls import Batch, Question
from edgeproxy.state.redis_dial import SHA, dial, find
from edgeproxy.state.redis_lane import FULL, MOST_GIVES, Lane
from edgeproxy.state.redis_link import Link, Refusal, command
from edgeproxy.state.redis_url import Address, Place, label
from edgeproxy.state.refusals import Refusals
from edgeproxy.state.shelf import Recent
from edgeproxy.state.stats import StoreStats

BLOB_SIZE: Final = 64 << 10
_CHARGES: Final = 1600  # in a batch; each is up to two keys
MOST_PROLONGED: Final = MOST_GIVES // 2  # waiting changes above which no lease is prolonged
_SETTLED: Final = 16_384  # exchanges of which this process knows that they are settled
# What is said by a server whose link is not to be kept.
_AWAY: Final = frozenset(("READONLY", "LOADING", "MASTERDOWN", "NOAUTH", "NOREPLICAS", "UNKILLABLE"))
_log: Final = logging.getLogger("edgeproxy")


@dataclass(frozen=True, slots=True)
class Settings:
    """How a store is used.

    Attributes:
        deadline: seconds after which an exchange is decided without the store.
        prefix: of all keys in it.
        mode: what is decided without it.
        shares: workers of all nodes together.
    """

    deadline: float = 0.025
    prefix: str = "edge:"
    mode: Mode = "local"
    shares: int = 1


class RedisStore:
    """See the module.

    Attributes:
        stats: counters.
        lanes: to its servers.
    """

    def __init__(
        self,
        place: Place,
        settings: Settings,
        table: Table,
        clock: Callable[[], int],
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        stats: StoreStats | None = None,
    ) -> None:
        """Begins to connect, in the background.

        Args:
            table: counts what is decided here; for mode `local`.
            clock: microseconds since the epoch.
            stats: counters to go on with.

        Raises: OSError (the TLS files), ValueError (the prefix).
        """
        self.loop = loop or asyncio.get_running_loop()
        self.place = place
        self.settings = settings
        self.stats = stats or StoreStats()
        self.stats.watch = self._servers
        self.lanes: list[Lane] = []
        self.names = Names(settings.prefix)
        self.packer = Packer(self.names)
        self.fallback = Fallback(settings.mode, settings.shares, table, clock, self.stats)
        self.context = place.context()
        self.refusals = Refusals(self.fallback.last)
        self._clock = clock
        self._local = settings.mode == "local"
        self._settled = Recent(_SETTLED)
        self._ready = asyncio.Event()
        self._closed = False
        self._begin()

    def _servers(self) -> tuple[int, int]:
        up = sum(lane.up for lane in self.lanes)
        return up, len(self.lanes) - up

    def _begin(self) -> None:
        where = self.place.name or label(self.place.addresses[0])
        self.lanes.append(Lane(self.loop, self, f"store {where}", self._dial, self.settings.deadline))

    async def _dial(self) -> tuple[Link, int]:
        address = self.place.addresses[0]
        if self.place.kind == "sentinel":
            address = await find(self.place, self.context)
        return await self.dial(address)

    async def dial(self, address: Address) -> tuple[Link, int]:
        """As redis_dial.dial."""
        return await dial(self.place, address, self.context)

    async def ready(self, seconds: float) -> bool:
        """Wait until the store answers; for the start, so that not even the first exchange is decided without it."""
        try:
            async with asyncio.timeout(seconds):
                await self._ready.wait()
        except TimeoutError:
            return False
        return True

    # The contract

    def admit(self, charges: Sequence[Charge], lease: bytes, done: Admitted) -> None:
        if self.pass_known(charges, done):
            return
        lane = self.lanes[0]
        if lane.up:
            lane.take((0, charges, lease, done, None))
        else:
            self.decide(charges, lease, done)

    def pass_known(self, charges: Sequence[Charge], done: Admitted) -> bool:
        """Whether the answer is known without asking: nothing is charged, or a key is known to be over its limit."""
        if not charges:
            self.tell(done, Admission(True, (), "store"))
            return True
        known = self.refusals.check(charges, self._clock()) if self.refusals else None
        if known is None:
            return False
        self.stats.known += 1
        self.tell(done, known)
        return True

    def settle(self, changes: Sequence[Change], lease: bytes) -> None:
        if not self._settled.see(lease) or self.fallback.settle(changes, lease):
            return
        # What nobody charged (`open`) has no stamp. Settled nevertheless it would also stand in the way of `undo`.
        made = [change for change in changes if change.stamp]
        if made:
            self.refusals.refunds(made)
            self.give(made, lease)

    def prolong(self, charges: Sequence[Charge], lease: bytes) -> None:
        changes = prolonging(charges)
        if changes and not self.fallback.prolong(charges, lease):
            # What waits for a server that is away is bounded: this may not put settlements out.
            lanes = [self.lane_of(change.key) for change in changes]
            if all(lane is not None and len(lane.gives) < MOST_PROLONGED for lane in lanes):
                self.give(changes, lease)

    def give(self, changes: Sequence[Change], lease: bytes) -> None:
        """Have changes made, once the server can be asked."""
        self.lanes[0].give((0, changes, lease))

    def peek(self, charges: Sequence[Charge], done: Callable[[tuple[Level, ...] | None], None]) -> None:
        def made(replies: list[Any]) -> None:
            done(None if None in replies else tuple([Level(*reply) for reply in replies]))

        self._each(charges, made, "peek")

    def reset(self, charges: Sequence[Charge], done: Callable[[bool], None]) -> None:
        for charge in charges:
            self.refusals.forget(charge.key)
        self._each(charges, lambda replies: done(None not in replies), "reset")

    def block(self, key: bytes, ttl: int, done: Callable[[bool], None]) -> None:
        self.refusals.forget(key)
        words = (b"EVALSHA", SHA["block"], b"1", self.names.of(key), b"%d" % max(ttl, 0))
        self.ask(key, words, lambda reply: done(reply is not None))

    def get(self, key: bytes, done: Callable[[bytes | None], None]) -> None:
        self.ask(key, (b"GET", self.names.blob(key)), done)

    def put(self, key: bytes, value: bytes, ttl: int, *, once: bool, done: Callable[[bool], None]) -> None:
        if len(value) > BLOB_SIZE:
            done(False)
            return
        words = (b"SET", self.names.blob(key), value, b"PX", b"%d" % max(-(-ttl // 1000), 1), *((b"NX",) if once else ()))
        self.ask(key, words, lambda reply: done(reply is not None))

    def close(self) -> None:
        self._closed = True
        for lane in self.lanes:
            lane.close()

    # Single questions

    def _each(self, charges: Sequence[Charge], done: Callable[[list[Any]], None], script: str) -> None:
        """Run a script for each charge's key; a reply is None when the store could not be asked."""
        replies: list[Any] = [None] * len(charges)
        left = len(charges)
        if not charges:
            done(replies)

        def answered(i: int, reply: Any) -> None:
            nonlocal left
            replies[i] = reply
            left -= 1
            if not left:
                done(replies)

        for i, (quota, key, _) in enumerate(charges):
            row = (int(quota.kind), quota.limit, quota.window, quota.burst, quota.mitigation)
            names = (self.names.of(key), self.names.leases(key))
            words = (b"EVALSHA", SHA[script], b"2", *names, *(b"%d" % number for number in row))
            self.ask(key, words, lambda reply, i=i: answered(i, reply))  # type: ignore[misc]  # mypy cannot type the default

    def ask(self, key: bytes, words: Sequence[bytes], done: Callable[[Any], None]) -> None:
        """Send one command about a key; `done(None)` when it could not be, or was refused."""
        lane = self.lane_of(key)
        if lane is None or not lane.up:
            done(None)
        else:
            lane.flush()  # what was said before is heard before
            question = Question(self, lane, command(*words), done)
            lane.call(question.data, question, self.loop.time())

    def lane_of(self, key: bytes) -> Lane | None:  # noqa: ARG002  a cluster's is chosen by it
        """To the server that has a key."""
        return self.lanes[0]

    # What lanes ask for

    def send(self, lane: Lane, takes: list[Take], gives: list[Give], since: float) -> None:
        # A script can be given some thousand keys; with many limits an exchange, a batch has fewer exchanges.
        most = max([len(take[1]) for take in takes], default=1)
        size = FULL if most <= _CHARGES // FULL else max(_CHARGES // most, 1)
        while takes or gives:
            self.send_batch(lane, takes[:size], gives[:size], since)
            takes, gives = takes[size:], gives[size:]

    def send_batch(self, lane: Lane, takes: list[Take], gives: list[Give], since: float) -> None:
        """One batch; in a cluster, of one slot."""
        Batch(self, takes, gives).send(lane, since)

    def hand_back(self, takes: list[Take]) -> None:
        for _, charges, lease, done, instead in takes:
            if instead is not None:
                instead()
            else:
                self.decide(charges, lease, done)

    def decide(self, charges: Sequence[Charge], lease: bytes, done: Admitted) -> None:
        """Decide without the store."""
        self.tell(done, self.fallback.decide(charges, lease))

    def rise(self, lane: Lane) -> None:  # noqa: ARG002  one of several, in a cluster
        self._ready.set()

    def fell(self, lane: Lane) -> None:
        """Nothing but what the lane does."""

    def misdirected(self, question: Question, reply: Refusal) -> bool:  # noqa: ARG002  in a cluster
        """Whether a question was sent on to the server that can answer it."""
        return False

    def say(self, text: str) -> None:
        if not self._closed:
            _log.warning(text)

    def tell(self, done: Admitted, admission: Admission) -> None:
        """Call somebody back; what they do wrong is not to harm the others of the batch."""
        try:
            done(admission)
        except Exception as e:
            self.loop.call_exception_handler({"message": "an admission's callback failed", "exception": e})

    def judged(self, answer: list[Any], takes: Sequence[Take]) -> None:
        """The store has decided."""
        tell, note = self.tell, self.fallback.note if self._local else None
        now = self._clock()
        for take, admission in admissions(answer, takes):
            if note is not None:
                note(take[1], admission[1], now)
            if not admission[0]:
                self._learn(take[1], admission, now)
            tell(take[3], admission)

    def _learn(self, charges: Sequence[Charge], admission: Admission, now: int) -> None:
        # Of two charges of one key together nothing follows for either alone.
        if len(charges) == 1 or len({charge[1] for charge in charges}) == len(charges):
            self.refusals.learn(charges, admission[1], now)

    def undo(self, answer: list[Any], takes: Sequence[Take]) -> None:
        """The store has decided too late: it was decided here."""
        for (_, charges, lease, _, _), admission in admissions(answer, takes):
            if admission.allowed:
                self.stats.undone += 1
                self.give(undoing(charges, admission.verdicts), lease)

    def lose(self, batch: Batch) -> None:
        """Nobody knows whether a batch was done. What can be done twice without harm is done again."""
        for _, changes, lease in batch.gives:
            self.give(changes, lease)
        for _, charges, lease, _, _ in batch.takes:
            if any(charge.quota.kind == Kind.LEASES for charge in charges):
                self.give(lease_changes(charges), lease)

    def refused(self, lane: Lane, batch: Batch, reply: Refusal) -> None:
        """An error for a batch. Scripts that fail in the middle keep what they have written, so: who knows what was done."""
        lane.fail(str(reply)[:200], hang_up=reply.word in _AWAY)
        batch.lost()
