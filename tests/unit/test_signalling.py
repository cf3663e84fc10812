# How workers share what they counted of fingerprints: slots, rounds, stores that are away, and who pays nothing.
"""signalling.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from edgeproxy.bots.signals import Signals
from edgeproxy.deadlines import NEVER
from edgeproxy.signalling import _KEYS, EVERY, KEPT, SLOTS, Signalling
from edgeproxy.state.embedded import EmbeddedStore
from edgeproxy.state.memory import Memory


class Shared:
    """A store of several: the embedded one, at a clock that tests set.

    Attributes:
        away: it answers nothing.
        asked: questions so far.
    """

    def __init__(self) -> None:
        self.now = 1_000_000_000
        self.inner = EmbeddedStore(Memory(self.now), lambda: self.now)
        self.away = False
        self.asked = 0

    def get(self, key: bytes, done: Any) -> None:
        self.asked += 1
        done(None) if self.away else self.inner.get(key, done)

    def put(self, key: bytes, value: bytes, ttl: int, *, once: bool, done: Any) -> None:
        self.asked += 1
        done(False) if self.away else self.inner.put(key, value, ttl, once=once, done=done)


class Worker:
    def __init__(self, store: Any) -> None:
        self.now = 1000.0
        self.lookups: dict[tuple[str, str], int] = {}
        self.deadlines = SimpleNamespace(now=self.now, members=set())
        self.gateway = SimpleNamespace(store=store, stats=SimpleNamespace(bots=SimpleNamespace(lookups=self.lookups)))
        self.signals = Signals()
        self.signalling = Signalling(cast("Any", self.gateway), cast("Any", self.deadlines), self.signals)
        self.signalling.want(True)

    def count(self, ja4: str, requests: int, first: int = 0) -> None:
        for n in range(requests):
            self.signals.count(ja4, self.now, first + n, n, n, modern=True, caught=False, browser=True)

    def round(self, rounds: int = 1) -> None:
        for _ in range(rounds * (SLOTS + 1)):
            self.now += EVERY
            self.signalling.expire(self.now)

    def requests(self, ja4: str) -> int:
        numbers = self.signals._numbers(ja4)
        return numbers[0] if numbers is not None else 0


def test_workers_add_up_what_they_saw() -> None:
    store = Shared()
    workers = [Worker(store) for _ in range(3)]
    for n, worker in enumerate(workers):
        worker.count("a", 10 + n, first=n * 5)
    for _ in range(2):
        for worker in workers:
            worker.round()
    for worker in workers:
        worker.round()
        assert worker.signals._numbers("a") == (33, 22, 12, 12)
        assert worker.lookups["signals", "found"] >= 2 and ("signals", "failed") not in worker.lookups
    workers[0].count("a", 7)
    workers[0].round()
    for worker in workers[1:]:
        worker.round()
        assert worker.requests("a") == 40, "what was told before is replaced, not added"


def test_a_worker_that_is_gone_goes() -> None:
    store = Shared()
    one, gone = Worker(store), Worker(store)
    one.count("a", 1)
    gone.count("a", 5)
    gone.round(2)
    one.round()
    assert one.requests("a") == 6
    store.now += KEPT + 1
    one.round()
    assert one.requests("a") == 1


def test_a_slot_that_is_ours_though_the_answer_was_lost() -> None:
    """Else it would be told of twice, in two slots, and count double for others."""
    store = Shared()
    one, other = Worker(store), Worker(store)
    one.count("a", 5)
    keep, lost = store.put, []

    def lose(key: bytes, value: bytes, ttl: int, *, once: bool, done: Any) -> None:
        lost.append(key)
        keep(key, value, ttl, once=once, done=lambda _: done(False))

    store.put = lose  # type: ignore[method-assign]  # a store whose answer comes too late
    one.round()
    del store.put  # type: ignore[attr-defined]
    assert one.signalling._mine is None and one.lookups["signals", "failed"] == 1
    one.round(2)
    other.round()
    assert one.signalling._mine is not None and [_KEYS[one.signalling._mine]] == lost
    assert other.requests("a") == 5


def test_two_that_take_the_same_slot() -> None:
    """One of them was away for so long that its slot was somebody else's when it told again."""
    store = Shared()
    one, other = Worker(store), Worker(store)
    one.count("a", 1)
    other.count("a", 2)
    one.round()
    slot = one.signalling._mine
    assert slot is not None
    other.signalling._mine = slot
    other.signalling._at = SLOTS  # it tells before it looks
    other.signalling.expire(1000.0)
    one.round()  # finds the other in it, and goes elsewhere
    assert one.signalling._mine not in {None, slot} and one.requests("a") == 3
    for worker in (other, one, other):
        worker.round()
        assert worker.requests("a") == 3
    assert other.signalling._mine == slot


def test_no_slot_is_free() -> None:
    store = Shared()
    one, other = Worker(store), Worker(store)
    other.count("a", 3)
    for key in _KEYS:
        store.put(key, b"someones" + other.signals.busiest(1000.0), KEPT, once=True, done=lambda _: None)
    one.count("a", 1)
    one.round()
    assert one.lookups["signals", "refused"] == 1 and one.signalling._mine is None
    assert one.requests("a") == 1 + 3 * SLOTS, "it listens all the same"


def test_a_store_that_is_away_leaves_what_the_worker_saw() -> None:
    store = Shared()
    one, other = Worker(store), Worker(store)
    one.count("a", 1)
    other.count("a", 2)
    for worker in (one, other, one):
        worker.round()
    assert one.requests("a") == 3
    slot = one.signalling._mine
    store.away = True
    one.round()
    assert one.requests("a") == 1 and one.lookups["signals", "failed"] == 1 and one.signalling._mine == slot
    store.away = False
    one.round()
    assert one.requests("a") == 3 and one.signalling._mine == slot


def test_what_nobody_understands_is_counted() -> None:
    store = Shared()
    one = Worker(store)
    one.count("a", 1)
    store.put(_KEYS[3], b"", KEPT, once=True, done=lambda _: None)
    store.put(_KEYS[4], b"otherone" + b"\xff" * 100, KEPT, once=True, done=lambda _: None)
    one.round()
    assert one.lookups["signals", "broken"] == 1 and one.requests("a") == 1


def test_one_question_at_a_time() -> None:
    waiting: list[Any] = []
    one = Worker(SimpleNamespace(get=lambda _, done: waiting.append(done)))
    for _ in range(5):
        one.round()
    assert len(waiting) == 1
    waiting[0](None)
    one.signalling.expire(2000.0)
    assert len(waiting) == 2


def test_nothing_is_told_where_nothing_was_counted() -> None:
    store = Shared()
    one = Worker(store)
    one.round()
    assert one.signalling._mine is None and store.asked == SLOTS


def test_who_does_not_read_signals_pays_nothing() -> None:
    store = Shared()
    one = Worker(store)
    members = one.deadlines.members
    assert members == {one.signalling} and one.signalling.deadline == 1000.0 + EVERY
    one.signals.heard = cast("Any", {"a": None})
    one.signalling.want(False)
    assert members == set() and one.signalling.deadline is NEVER and one.signals.heard == {}
    one.signalling.begin()
    assert members == set()
    alone = Worker(EmbeddedStore())
    assert alone.deadlines.members == set(), "there is nobody to share with"
    alone.gateway.store = store
    alone.signalling.begin()
    assert alone.deadlines.members == {alone.signalling}
