# What every store keeps, whatever it is made of: edgeproxy/state/ports.py, point by point.
"""One suite over the factories of tests/support/stores.py. Where a clock cannot be set, windows are either so long that
nothing comes back, or short and waited for."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
from support.stores import (
    HOUR,
    MS,
    SECOND,
    Hand,
    Stand,
    admit,
    answer,
    change,
    name,
    peek,
    quota,
    remaining,
    until_remaining,
)

from edgeproxy.state.ports import Change, Charge, Kind, Level, Store

SHORT = 300 * MS  # a window that is waited for
RATES = [Kind.GCRA, Kind.FIXED, Kind.SLIDING]


# Never more than the limit


@pytest.mark.parametrize("kind", list(Kind))
async def test_fifty_at_once_never_get_one_too_many(stand: Stand, kind: Kind) -> None:
    charge = Charge(quota(kind, limit=100), name(), 1)

    async def client(number: int) -> int:
        store = stand.stores[number % len(stand.stores)]
        allowed = 0
        for _ in range(6):
            allowed += (await admit(store, charge)).allowed
            await asyncio.sleep(0)
        return allowed

    assert sum(await asyncio.gather(*map(client, range(50)))) == 100
    assert await remaining(stand.store, charge) == (0,)


@pytest.mark.parametrize("kind", RATES)
async def test_units_of_any_size(stand: Stand, kind: Kind) -> None:
    """Costs from 0 to above the limit: what was taken is exactly what was allowed, up to the last unit."""
    limit, key, rand = quota(kind, limit=1000), name(), random.Random(kind)
    left = 1000
    for _ in range(60):
        cost = rand.choice([0, 1, 7, 50, 300, 1001])
        admission = await admit(rand.choice(stand.stores), Charge(limit, key, cost))
        assert admission.by in {"store", "known"}
        assert admission.allowed == (max(cost, 1) <= left)
        if admission.allowed:
            left -= cost
        if admission.by == "store":
            assert admission.verdicts[0].remaining == left
    if left:
        assert (await admit(stand.store, Charge(limit, key, left))).allowed
    assert not (await admit(stand.store, Charge(limit, key, 0))).allowed


async def test_units_come_back_no_faster_than_the_rate(stand: Stand) -> None:
    limit, key = quota(limit=200, window=SECOND, burst=10), name()
    allowed = 0
    before = time.monotonic()
    for _ in range(60):
        allowed += sum([a.allowed for a in await asyncio.gather(*(admit(s, Charge(limit, key, 1)) for s in stand.stores))])
        await stand.later(5 * MS)
        elapsed = 0.3 if stand.hand else time.monotonic() - before
    assert 40 <= allowed <= 10 + 200 * elapsed


@pytest.mark.parametrize("kind", RATES)
async def test_a_quota_is_whole_again_after_its_time(stand: Stand, kind: Kind) -> None:
    charge = Charge(quota(kind, limit=5, window=SHORT), name(), 5)
    assert (await admit(stand.store, charge)).allowed
    level = (await peek(stand.store, charge))[0]
    await stand.later(level.reset + (0 if stand.hand else 10 * MS))
    assert (await peek(stand.store, charge))[0] == Level(5, 0, 0)
    assert (await admit(stand.stores[1], charge)).allowed


async def test_keys_and_quotas_are_apart(stand: Stand) -> None:
    first, second = quota(limit=1), quota(limit=1)
    keys = [name(), name(), name()]
    for charge in (Charge(first, keys[0], 1), Charge(first, keys[1], 1), Charge(second, keys[2], 1)):
        assert (await admit(stand.store, charge)).allowed
        assert not (await admit(stand.store, charge)).allowed


# All or nothing


@pytest.mark.parametrize("empty", [0, 2, 4])
async def test_a_refused_exchange_leaves_no_charge(stand: Stand, empty: int) -> None:
    charges = [Charge(quota(kind, limit=5), name(), 1) for kind in (*Kind, Kind.GCRA)]
    used_up = charges[empty]._replace(cost=5)
    assert (await admit(stand.store, used_up)).allowed
    admission = await admit(stand.store, *charges)
    assert [v.allowed for v in admission.verdicts] == [i != empty for i in range(5)]
    assert [v.remaining for v in admission.verdicts] == [0 if i == empty else 5 for i in range(5)]
    await until_remaining(stand.store, charges, tuple(0 if i == empty else 5 for i in range(5)))


async def test_exchanges_that_refuse_each_other_leave_what_they_took(stand: Stand) -> None:
    """Many at once over shared keys, in different orders: what is gone in the end is what was allowed."""
    charges = [Charge(quota(limit=limit), name(), 1) for limit in (40, 10, 25)]
    rand = random.Random(3)

    async def exchange(store: Store) -> list[bytes]:
        order = rand.sample(charges, 3 if rand.random() < 0.5 else 2)
        return [c.key for c in order] if (await admit(store, *order)).allowed else []

    taken = [key for keys in await asyncio.gather(*(exchange(s) for s in stand.stores * 40)) for key in keys]
    await until_remaining(stand.store, charges, tuple(c.quota.limit - taken.count(c.key) for c in charges))


@pytest.mark.parametrize("kind", RATES)
async def test_two_charges_of_one_key_are_both_charged(stand: Stand, kind: Kind) -> None:
    charge = Charge(quota(kind, limit=5), name(), 3)
    assert not (await admit(stand.store, charge, charge)).allowed
    await until_remaining(stand.store, [charge], (5,))
    assert (await admit(stand.store, charge, charge._replace(cost=2))).allowed
    assert await remaining(stand.store, charge) == (0,)


async def test_an_exchange_without_charges_is_allowed(stand: Stand) -> None:
    assert (await admit(stand.store)).allowed


# What verdicts say


async def test_gcra_says_when(stand: Stand) -> None:
    charge = Charge(quota(limit=10, window=10 * HOUR), name(), 4)
    first, second, third = [(await admit(stand.store, charge)).verdicts[0] for _ in range(3)]
    slack = 0 if stand.hand else 5 * SECOND
    assert (first.remaining, second.remaining, third.remaining) == (6, 2, 2)
    assert (first.retry, second.retry) == (0, 0)
    assert 4 * HOUR - slack <= first.reset <= 4 * HOUR
    assert 8 * HOUR - slack <= third.reset <= 8 * HOUR
    assert 2 * HOUR - slack <= third.retry <= 2 * HOUR


@pytest.mark.parametrize("kind", [Kind.FIXED, Kind.SLIDING])
async def test_windows_say_when(stand: Stand, hand: Hand, kind: Kind) -> None:
    """A window's start, ten minutes later, the next one."""
    charge = Charge(quota(kind, limit=10, window=HOUR), name(), 6)
    assert (await admit(stand.store, charge)).verdicts[0].reset == (1 if kind == Kind.FIXED else 2) * HOUR
    hand.now += HOUR // 6
    refused = (await admit(stand.store, charge)).verdicts[0]
    # Sliding: 6 of the first window count by the share that is left; 4 of them two thirds through.
    assert refused.retry == (HOUR * 5 // 6 if kind == Kind.FIXED else HOUR * 5 // 6 + HOUR // 3)
    hand.now += refused.retry - 1
    assert not (await admit(stand.stores[1], charge)).allowed
    hand.now += 1
    assert (await admit(stand.stores[1], charge)).allowed


@pytest.mark.parametrize("kind", list(Kind))
async def test_a_retry_succeeds_after_the_time_it_was_told(stand: Stand, kind: Kind) -> None:
    charge = Charge(quota(kind, limit=3, window=SHORT), name(), 1)
    while (admission := await admit(stand.store, charge)).allowed:
        pass
    await stand.later(admission.verdicts[0].retry + (0 if stand.hand else 10 * MS))
    assert (await admit(stand.store, charge)).allowed


async def test_more_than_the_whole_quota_is_never_allowed(stand: Stand) -> None:
    charge = Charge(quota(limit=10), name(), 11)
    verdict = (await admit(stand.store, charge)).verdicts[0]
    assert not verdict.allowed and verdict.remaining == 10 and verdict.retry > 0
    assert (await admit(stand.store, charge._replace(cost=10))).allowed


@pytest.mark.parametrize("absurd", [2**53 + 1, 2**64, 10**30])
@pytest.mark.parametrize("kind", RATES)
async def test_absurd_numbers_of_clients_and_upstreams(stand: Stand, kind: Kind, absurd: int) -> None:
    """`max_tokens` and `usage` say what they like."""
    charge, lease = Charge(quota(kind, limit=10, window=60 * SECOND), name(), 1), name()
    admission = await admit(stand.store, charge, lease=lease)
    assert not (await admit(stand.store, charge._replace(key=name(), cost=absurd))).allowed
    stand.store.settle([change(charge, absurd, admission)], lease)
    await until_remaining(stand.store, [charge], (0,))
    refused = (await admit(stand.stores[1], charge)).verdicts[0]
    assert not refused.allowed and 0 < refused.retry <= 102 * 60 * SECOND
    assert await answer(stand.store.reset, [charge])
    lease = name()
    admission = await admit(stand.store, charge, lease=lease)
    stand.store.settle([change(charge, -absurd, admission)], lease)
    await until_remaining(stand.store, [charge], (10,))


async def test_peek_takes_nothing(stand: Stand) -> None:
    charges = [Charge(quota(kind, limit=3), name(), 1) for kind in Kind]
    assert await peek(stand.store, *charges) == (Level(3, 0, 0),) * 4
    await admit(stand.store, *charges)
    for _ in range(5):
        assert await remaining(stand.stores[1], *charges) == (2, 2, 2, 2)


# Settling


@pytest.mark.parametrize("kind", RATES)
@pytest.mark.parametrize(("delta", "left"), [(-6, 8), (-8, 10), (2, 0), (1, 1), (0, 2)])
async def test_settling_corrects_once(stand: Stand, kind: Kind, delta: int, left: int) -> None:
    charge, lease = Charge(quota(kind, limit=10), name(), 8), name()
    admission = await admit(stand.store, charge, lease=lease)
    correction = [change(charge, delta, admission)]
    stand.store.settle(correction, lease)
    stand.store.settle(correction, lease)
    await until_remaining(stand.store, [charge], (left,))
    stand.stores[1].settle(correction, lease)
    await peek(stand.stores[1], charge)  # behind it on the same way
    assert await remaining(stand.store, charge) == (left,)


@pytest.mark.parametrize("kind", RATES)
async def test_what_is_too_much_is_owed(stand: Stand, kind: Kind) -> None:
    charge, lease = Charge(quota(kind, limit=10, window=100 * HOUR), name(), 10), name()
    admission = await admit(stand.store, charge, lease=lease)
    stand.store.settle([change(charge, 5, admission)], lease)
    await until_remaining(stand.store, [charge], (0,))
    verdict = (await admit(stand.stores[1], charge._replace(cost=1))).verdicts[0]
    assert not verdict.allowed
    if kind == Kind.GCRA:  # five to be paid off before the one that is asked for
        assert 59 * HOUR < verdict.retry <= 60 * HOUR


async def test_only_the_first_settling_counts_whatever_it_says(stand: Stand) -> None:
    charge, lease = Charge(quota(limit=10), name(), 8), name()
    admission = await admit(stand.store, charge, lease=lease)
    stand.store.settle([], lease)
    stand.store.settle([change(charge, -8, admission)], lease)
    await peek(stand.store, charge)
    assert await remaining(stand.store, charge) == (2,)


@pytest.mark.parametrize("kind", RATES)
async def test_a_refund_never_makes_more_than_the_limit(stand: Stand, kind: Kind) -> None:
    charge, lease = Charge(quota(kind, limit=10), name(), 4), name()
    admission = await admit(stand.store, charge, lease=lease)
    stand.store.settle([change(charge, -100, admission)], lease)
    await until_remaining(stand.store, [charge], (10,))
    assert (await admit(stand.store, charge._replace(cost=10))).allowed
    assert not (await admit(stand.store, charge._replace(cost=1))).allowed


@pytest.mark.parametrize("kind", RATES)
async def test_a_refund_after_the_time_of_its_charge_gives_nothing(stand: Stand, kind: Kind) -> None:
    charge, lease = Charge(quota(kind, limit=10, window=SHORT), name(), 10), name()
    admission = await admit(stand.store, charge, lease=lease)
    await stand.later(2 * SHORT + 10 * MS)  # all units are back
    stand.store.settle([change(charge, -10, admission)], lease)
    assert (await peek(stand.store, charge))[0].remaining == 10
    if kind != Kind.GCRA and stand.hand:  # a charge of this window is not paid for by a refund of an earlier one
        other, again = Charge(charge.quota, charge.key, 10), name()
        assert (await admit(stand.store, other)).allowed
        stand.store.settle([change(charge, -10, admission)], again)
        assert (await peek(stand.store, charge))[0].remaining == 0


async def test_a_settling_of_what_was_never_charged_changes_nothing(stand: Stand) -> None:
    charges = [Charge(quota(kind, limit=3), name(), 1) for kind in Kind]
    stamp = (await admit(stand.store, Charge(quota(), name(), 1))).verdicts[0].stamp
    stand.store.settle([Change(c.quota, c.key, -1, stamp) for c in charges], name())
    assert await remaining(stand.store, *charges) == (3, 3, 3, 3)
