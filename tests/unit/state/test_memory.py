# The bounds of the embedded memory, and what goes when it is full.
from __future__ import annotations

import gc
import os
import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.state.memory import BLOCKS, KEY_SIZE, SETTLED, TEND, Memory
from edgeproxy.state.ports import Change, Charge, Kind, Quota
from edgeproxy.state.shelf import Recent, Shelf

NOW = 1_800_014_400_000_000
SECOND = 1_000_000
MINUTE = 60 * SECOND


def name() -> bytes:
    return os.urandom(16)


def fill(memory: Memory, quota: Quota, count: int, cost: int = 1, now: int = NOW) -> None:
    for _ in range(count):
        memory.admit([Charge(quota, name(), cost)], name(), now)


@pytest.mark.parametrize("kind", list(Kind))
def test_what_expired_is_swept_by_what_comes(kind: Kind) -> None:
    memory, quota = Memory(NOW), Quota("q", kind, 10, MINUTE)
    fill(memory, quota, 5000)
    assert len(memory) == (10_000 if kind == Kind.LEASES else 5000)
    each = 2 if kind == Kind.LEASES else 1
    fill(memory, quota, 2000, now=NOW + 2 * MINUTE)
    assert len(memory) <= 5000 * each
    fill(memory, quota, 4000, now=NOW + 2 * MINUTE)
    assert len(memory) == 6000 * each


def test_what_expired_goes_although_nobody_new_comes() -> None:
    memory, quota, known = Memory(NOW), Quota("q", Kind.FIXED, 10, MINUTE), name()
    fill(memory, quota, 1000)
    for i in range(20):
        memory.admit([Charge(quota, known, 1)], name(), NOW + 2 * MINUTE + i * TEND)
    assert len(memory) == 1


@pytest.mark.parametrize("kind", list(Kind))
def test_a_flood_stays_within_the_bound_and_frees_no_key_that_is_over(kind: Kind) -> None:
    memory, quota = Memory(NOW, keys=4000), Quota("q", kind, 100, MINUTE)
    known = [name() for _ in range(300)]
    for key in known:
        memory.admit([Charge(quota, key, 100)], name(), NOW)
    for _ in range(40):
        fill(memory, quota, 500)
        assert len(memory) <= 4000
    assert len(memory) > 3490
    assert not any(memory.admit([Charge(quota, key, 1)], name(), NOW).allowed for key in known)


def test_a_flood_of_one_quota_leaves_the_others_alone() -> None:
    memory = Memory(NOW, keys=4000)
    small, flooded = Quota("per-key", Kind.GCRA, 10, MINUTE), Quota("per-ip", Kind.GCRA, 10, MINUTE)
    known = [name() for _ in range(1000)]
    for key in known:
        memory.admit([Charge(small, key, 1)], name(), NOW)
    fill(memory, flooded, 20_000, cost=9)
    assert len(memory) <= 4000
    assert {level.remaining for level in memory.peek([Charge(small, key, 0) for key in known], NOW)} == {9}


def test_when_all_are_heavy_the_least_used_go() -> None:
    """What is forgiven is counted: an attacker has to fill the table with keys as heavy as the one he wants forgotten."""
    memory, quota = Memory(NOW, keys=920), Quota("q", Kind.FIXED, 100, MINUTE)
    rand = random.Random(1)
    keys = {name(): rand.randint(50, 100) for _ in range(790)}
    for key, cost in keys.items():
        memory.admit([Charge(quota, key, cost)], name(), NOW)
    fill(memory, quota, 400, cost=40)
    assert len(memory) <= 920
    levels = memory.peek([Charge(quota, key, 0) for key in keys], NOW)
    gone = [cost for cost, level in zip(keys.values(), levels, strict=True) if level.remaining == 100]
    # Until the flood's own keys are found among those that pass by, the lightest of sixteen heavy ones goes each time.
    assert len(gone) < 200 and max(gone) < 85
    assert all(level.remaining in {100, 100 - cost} for cost, level in zip(keys.values(), levels, strict=True))


def test_bytes_per_key() -> None:
    quota = Quota("q", Kind.SLIDING, 600, MINUTE)
    leases = Quota("l", Kind.LEASES, 600, MINUTE)
    for charged in (quota, leases):
        gc.collect()
        tracemalloc.start()
        memory = Memory(NOW)
        fill(memory, charged, 20_000)
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert size / len(memory) < KEY_SIZE


def test_a_reload_goes_on_counting() -> None:
    memory, key = Memory(NOW), name()
    before = Quota("per-day", Kind.GCRA, 100, MINUTE)
    assert memory.admit([Charge(before, key, 60)], name(), NOW).allowed
    raised = Quota("per-day", Kind.GCRA, 200, MINUTE)
    assert memory.admit([Charge(raised, key, 1)], name(), NOW).verdicts[0].remaining == 139
    lowered = Quota("per-day", Kind.GCRA, 50, MINUTE)
    assert not memory.admit([Charge(lowered, key, 1)], name(), NOW).allowed
    other = Quota("per-day", Kind.FIXED, 50, MINUTE)  # counts in another way: begins anew
    assert memory.admit([Charge(other, key, 1)], name(), NOW).verdicts[0].remaining == 49


def test_many_reloads_leave_nothing_behind() -> None:
    memory, key = Memory(NOW), name()
    for i in range(1000):
        memory.admit([Charge(Quota("same", Kind.GCRA, 10_000, MINUTE), key, 1)], name(), NOW + i * TEND)
    assert len(memory._tables) < 300 and len(memory._by_shape) == 1


def test_refunds_of_what_another_memory_took_are_none_of_ours() -> None:
    quota, key = Quota("q", Kind.GCRA, 10, MINUTE), name()
    old = Memory(NOW)
    stamp = old.admit([Charge(quota, key, 8)], name(), NOW).verdicts[0].stamp
    new = Memory(NOW + 1)
    new.admit([Charge(quota, key, 8)], name(), NOW + 1)
    new.settle([Change(quota, key, -8, stamp)], name(), NOW + 2)
    assert new.peek([Charge(quota, key, 0)], NOW + 2)[0].remaining == 2
    new.settle([Change(quota, key, 1, stamp)], name(), NOW + 2)  # what was used was used
    assert new.peek([Charge(quota, key, 0)], NOW + 2)[0].remaining == 1


def test_what_expired_when_a_lease_is_prolonged_is_not_counted_as_memory() -> None:
    memory, limit, key, lease = Memory(NOW), Quota("q", Kind.LEASES, 10, MINUTE), name(), name()
    for _ in range(3):
        memory.admit([Charge(limit, key, 1)], name(), NOW)
    memory.admit([Charge(limit, key, 1)], lease, NOW + 30 * SECOND)
    assert len(memory) == 1 + 4
    memory.prolong([Charge(limit, key, 1)], lease, NOW + 70 * SECOND)
    assert len(memory) == 1 + 1
    memory.prolong([Charge(limit, name(), 1)], lease, NOW + 70 * SECOND)  # a key that nobody charged
    assert len(memory) == 1 + 1


def test_settled_names_are_bounded() -> None:
    memory, quota = Memory(NOW), Quota("q", Kind.GCRA, 10, MINUTE)
    first, key = name(), name()
    memory.admit([Charge(quota, key, 5)], first, NOW)
    memory.settle([], first, NOW)
    for _ in range(SETTLED - 1):
        memory.settle([], name(), NOW)
    memory.settle([Change(quota, key, -5, NOW)], first, NOW)
    assert memory.peek([Charge(quota, key, 0)], NOW)[0].remaining == 5
    for _ in range(2 * SETTLED):
        memory.settle([], name(), NOW)
    assert len(memory._settled) <= 2 * SETTLED


def test_blocks_and_blobs_are_bounded() -> None:
    memory = Memory(NOW, blobs=1000)
    assert memory.put(b"a", b"x" * 600, MINUTE, NOW, once=False)
    assert not memory.put(b"b", b"x" * 600, MINUTE, NOW, once=False)
    assert memory.put(b"a", b"y" * 900, SECOND, NOW, once=False)  # in place of what was there
    assert memory.put(b"b", b"x" * 1000, MINUTE, NOW + SECOND, once=True)  # what expired makes room
    for _ in range(BLOCKS):
        assert memory.block(name(), MINUTE, NOW)
    assert not memory.block(b"one more", MINUTE, NOW)
    assert memory.block(b"one more", MINUTE, NOW + MINUTE)


@pytest.mark.parametrize("others", [0, 1])
def test_leases_that_expired_while_an_exchange_is_refused(others: int) -> None:
    """What the refused charge saw expire stays gone, whoever came after it."""
    memory, used_up = Memory(NOW), Charge(Quota("u", Kind.FIXED, 1, 1000 * MINUTE), name(), 1)
    slots = Charge(Quota("l", Kind.LEASES, 2, SECOND), name(), 1)
    memory.admit([used_up], name(), NOW)
    for wait in range(1 + others):
        assert memory.admit([slots], name(), NOW + wait * SECOND // 2).allowed
    later = NOW + SECOND
    memory.admit([used_up], name(), later - 1)  # the sweep was just here
    assert not memory.admit([slots, used_up], name(), later).allowed
    assert memory.peek([slots], later)[0].remaining == 2 - others
    assert not memory.admit([slots._replace(cost=0), used_up], name(), later + SECOND).allowed
    assert [memory.admit([slots], name(), later + SECOND).allowed for _ in range(3)] == [True, True, False]


KEYS = st.integers(0, 5)


@given(
    st.lists(
        st.tuples(st.integers(0, 240_000), st.lists(st.tuples(st.sampled_from(list(Kind)), KEYS, st.integers(0, 4)), max_size=5)),
        max_size=40,
    )
)
@settings(deadline=None)
def test_a_refused_exchange_changes_nothing(steps: list[tuple[int, list[tuple[Kind, int, int]]]]) -> None:
    """Also while keys are swept to and fro below it."""
    memory = Memory(NOW)
    quotas = {kind: Quota(kind.name, kind, 5, SECOND) for kind in Kind}
    everything = [Charge(quotas[kind], bytes([kind, key]), 0) for kind in Kind for key in range(6)]
    now = NOW
    for wait, wanted in steps:
        now += wait
        charges = [Charge(quotas[kind], bytes([kind, key]), cost) for kind, key, cost in wanted]
        before = memory.peek(everything, now)
        admission = memory.admit(charges, name(), now)
        after = memory.peek(everything, now)
        if not admission.allowed:
            assert after == before
        else:
            for charge, old, new in zip(everything, before, after, strict=True):
                taken = sum(c.cost for c in charges if c.key == charge.key and c.quota is charge.quota)
                assert new.remaining == old.remaining - taken
        assert memory._by_shape.keys() == {(q.name, q.kind, q.window) for q in quotas.values()}
        for table in memory._by_shape.values():
            leases = [len(s[2]) for s in (*table.young.values(), *table.old.values()) if table.quota.kind == Kind.LEASES]
            assert table.held == sum(leases)


class TestShelf:
    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(-30, 60), st.integers(1, 100), st.booleans()), max_size=80))
    def test_keeps_each_for_its_time(self, steps: list[tuple[int, int, int, bool]]) -> None:
        shelf, model, now = Shelf(8, 60), dict[bytes, tuple[int, int, bytes]](), 1000
        for number, wait, ttl, drop in steps:
            now += wait
            # Going back, the clock makes nothing last longer than it was meant to.
            model = {k: (min(e, now + t), t, v) for k, (e, t, v) in model.items() if e > now}
            key, value = bytes([number]), b"v" * number
            if drop:
                shelf.drop(key)
                model.pop(key, None)
            else:
                others = {k: v for k, v in model.items() if k != key}
                fits = len(others) < 8 and sum(len(v) for _, _, v in others.values()) + number <= 60
                assert shelf.put(key, value, ttl, now) == fits
                model = others
                if fits:
                    model[key] = (now + ttl, ttl, value)
            for k in range(10):
                found = model.get(bytes([k]))
                assert shelf.find(bytes([k]), now) == (None if found is None else (found[0] - now, found[2]))
            assert shelf.size == sum(len(v) for _, _, v in model.values())


def test_recent_remembers_the_last_ones() -> None:
    recent, names = Recent(10), [bytes([i]) for i in range(100)]
    for i, each in enumerate(names):
        assert recent.see(each)
        assert not any(recent.see(last) for last in names[max(0, i - 9) : i + 1])
        assert len(recent) <= 20
    assert recent.see(names[0])
