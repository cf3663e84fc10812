# What every store keeps besides rates: leases, mitigation, blocks, blobs; and that clocks, floods and an end do no harm.
"""The second half of the suite that test_store.py begins."""

from __future__ import annotations

import asyncio
from typing import Any

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

from edgeproxy.state.ports import Admission, Change, Charge, Kind

SHORT = 300 * MS  # a window that is waited for
RATES = [Kind.GCRA, Kind.FIXED, Kind.SLIDING]


# Leases


async def test_a_lease_is_free_for_others_once_it_is_given_back(stand: Stand) -> None:
    charge, leases = Charge(quota(Kind.LEASES, limit=2), name(), 1), [name(), name()]
    held = [await admit(stand.store, charge, lease=lease) for lease in leases]
    assert not (await admit(stand.stores[1], charge)).allowed
    for _ in range(2):  # once
        stand.stores[1].settle([change(charge, -1, held[0])], leases[0])
    await until_remaining(stand.store, [charge], (1,))
    assert (await admit(stand.store, charge)).allowed
    assert not (await admit(stand.store, charge)).allowed


async def test_a_lease_that_nobody_gives_back_expires(stand: Stand) -> None:
    charge, lease = Charge(quota(Kind.LEASES, limit=1, window=SHORT), name(), 1), name()
    held = await admit(stand.store, charge, lease=lease)
    refused = (await admit(stand.stores[1], charge)).verdicts[0]
    assert not refused.allowed and SHORT - 100 * MS <= refused.retry <= SHORT
    await stand.later(SHORT + 10 * MS)
    assert (await admit(stand.stores[1], charge)).allowed
    stand.store.settle([change(charge, -1, held)], lease)  # too late: that is no longer its lease
    await peek(stand.store, charge)
    assert not (await admit(stand.store, charge)).allowed


async def test_leases_and_tokens_of_one_exchange(stand: Stand) -> None:
    slots, tokens = Charge(quota(Kind.LEASES, limit=1), name(), 1), Charge(quota(limit=1000), name(), 600)
    lease = name()
    admission = await admit(stand.store, slots, tokens, lease=lease)
    assert admission.allowed and not (await admit(stand.stores[1], slots, tokens._replace(cost=1))).allowed
    changes = [change(slots, -1, admission), change(tokens, -550, admission, 1)]
    stand.store.settle(changes, lease)
    await until_remaining(stand.store, [slots, tokens], (1, 950))
    stand.store.settle(changes, lease)
    await peek(stand.store, slots)
    assert await remaining(stand.store, slots, tokens) == (1, 950)


@pytest.mark.parametrize("places", [1, 3])
async def test_a_lease_that_is_prolonged_outlives_its_window(stand: Stand, places: int) -> None:
    window = SHORT if stand.hand else SECOND  # where it is waited for, a busy machine must not come too late
    charge, lease = Charge(quota(Kind.LEASES, limit=4, window=window), name(), places), name()
    rate = Charge(quota(limit=10), name(), 1)
    other = await admit(stand.store, charge._replace(cost=1))
    held = await admit(stand.store, rate, charge, lease=lease)
    assert other.allowed and held.allowed
    await stand.later(window * 6 // 10)
    stand.store.prolong([rate, charge], lease)
    level = (await peek(stand.store, charge))[0]
    assert level.remaining == 3 - places and window * 9 // 10 < level.reset <= window
    await stand.later(window * 6 // 10)
    assert await remaining(stand.stores[1], charge, rate) == (4 - places, 9)  # the other one's is over
    stand.store.settle([change(charge, -1, held, 1)], lease)
    await until_remaining(stand.store, [charge], (4,))


@pytest.mark.parametrize("places", [1, 3])
async def test_a_lease_that_was_given_back_is_not_revived(stand: Stand, places: int) -> None:
    charge, lease = Charge(quota(Kind.LEASES, limit=4), name(), places), name()
    held = await admit(stand.store, charge, lease=lease)
    stand.store.prolong([charge], lease)
    stand.store.settle([change(charge, -1, held)], lease)
    stand.store.prolong([charge], lease)  # in the same round of the loop
    await until_remaining(stand.store, [charge], (4,))
    for store in stand.stores:
        store.prolong([charge], lease)
        assert await remaining(store, charge) == (4,)


async def test_a_lease_that_has_expired_is_not_revived(stand: Stand) -> None:
    charge, lease, later = Charge(quota(Kind.LEASES, limit=1, window=SHORT), name(), 1), name(), name()
    assert (await admit(stand.store, charge, lease=lease)).allowed
    await stand.later(SHORT + 10 * MS)
    stand.store.prolong([charge], lease)
    assert await remaining(stand.store, charge) == (1,)
    held = await admit(stand.store, charge, lease=later)
    stand.store.prolong([charge], lease)
    stand.store.settle([change(charge, -1, held)], later)
    await until_remaining(stand.stores[1], [charge], (1,))


async def test_leases_in_several_places_are_prolonged_together(stand: Stand) -> None:
    """In a cluster they lie in several slots."""
    window, lease = SHORT if stand.hand else SECOND, name()
    charges = [Charge(quota(Kind.LEASES, limit=2, window=window), name(), 1) for _ in range(4)]
    assert (await admit(stand.store, *charges, lease=lease)).allowed
    await stand.later(window * 6 // 10)
    stand.store.prolong(charges, lease)
    await peek(stand.store, *charges)
    await stand.later(window * 6 // 10)
    assert await remaining(stand.store, *charges) == (1, 1, 1, 1)


@pytest.mark.parametrize("delta", [-5, 2])
@pytest.mark.parametrize("kind", list(Kind))
async def test_what_nobody_charged_is_not_settled(stand: Stand, kind: Kind, delta: int) -> None:
    """As after a verdict of `open`: there is no stamp."""
    charge, lease = Charge(quota(kind, limit=10), name(), 5), name()
    assert (await admit(stand.store, charge, lease=lease)).allowed
    stand.store.settle([Change(charge.quota, charge.key, delta, 0)], lease)
    assert await remaining(stand.store, charge) == (5,)


# Mitigation, blocks, reset


@pytest.mark.parametrize("kind", RATES)
async def test_mitigation_refuses_all_of_a_key_for_its_time(stand: Stand, kind: Kind) -> None:
    charge = Charge(quota(kind, limit=10, window=60 * MS, mitigation=SHORT), name(), 10)
    while (refused := await admit(stand.store, charge)).allowed:  # a window may have ended in between
        pass
    assert SHORT - 60 * MS < refused.verdicts[0].retry <= SHORT
    assert 0 < (await peek(stand.store, charge))[0].blocked <= SHORT
    await stand.later(2 * 60 * MS)  # by now all units would be back
    mitigated = (await admit(stand.stores[1], charge._replace(cost=0))).verdicts[0]
    assert not mitigated.allowed and 0 < mitigated.retry <= SHORT - 120 * MS
    await stand.later(mitigated.retry + (0 if stand.hand else 10 * MS))
    assert (await admit(stand.stores[1], charge)).allowed


async def test_mitigation_holds_although_the_exchange_took_nothing(stand: Stand) -> None:
    strict, other = Charge(quota(limit=1, mitigation=HOUR), name(), 2), Charge(quota(limit=5), name(), 1)
    assert not (await admit(stand.store, other, strict)).allowed
    assert not (await admit(stand.store, strict._replace(cost=1))).allowed
    await until_remaining(stand.store, [other], (5,))


async def test_a_blocked_key_is_refused_until_it_is_unblocked(stand: Stand) -> None:
    charge, other = Charge(quota(), name(), 1), Charge(quota(), name(), 1)
    assert await answer(stand.store.block, charge.key, HOUR)
    verdict = (await admit(stand.stores[1], other, charge)).verdicts[1]
    assert not verdict.allowed and HOUR - 5 * SECOND < verdict.retry <= HOUR
    level = (await peek(stand.store, charge))[0]
    assert HOUR - 5 * SECOND < level.blocked <= HOUR
    await until_remaining(stand.store, [other], (10,))
    assert await answer(stand.stores[1].block, charge.key, 0)
    assert (await peek(stand.store, charge))[0].blocked == 0


async def test_a_block_ends_by_itself(stand: Stand) -> None:
    charge = Charge(quota(), name(), 1)
    assert await answer(stand.store.block, charge.key, SHORT)
    assert not (await admit(stand.store, charge)).allowed
    await stand.later(SHORT + 10 * MS)
    assert (await admit(stand.store, charge)).allowed


async def test_reset_forgets_charges_and_leases(stand: Stand) -> None:
    charges = [Charge(quota(kind, limit=2), name(), 2) for kind in Kind]
    assert (await admit(stand.store, *charges)).allowed
    other = Charge(charges[0].quota, name(), 2)
    assert (await admit(stand.store, other)).allowed
    assert await answer(stand.stores[1].reset, charges)
    assert await remaining(stand.store, *charges, other) == (2, 2, 2, 2, 0)


# Blobs


async def test_a_blob_is_there_for_its_time(stand: Stand) -> None:
    key = name()
    assert await answer(stand.store.get, key) is None
    assert await answer(stand.store.put, key, b"\x00one\xff", SHORT, once=False)
    assert await answer(stand.stores[1].get, key) == b"\x00one\xff"
    assert await answer(stand.stores[1].put, key, b"", SHORT, once=False)
    assert await answer(stand.store.get, key) == b""
    await stand.later(SHORT + 10 * MS)
    assert await answer(stand.store.get, key) is None


async def test_once_is_once(stand: Stand) -> None:
    key = name()
    stores = [stand.stores[i % len(stand.stores)] for i in range(20)]
    assert sum(await asyncio.gather(*(answer(s.put, key, b"x", SHORT, once=True) for s in stores))) == 1
    await stand.later(SHORT + 10 * MS)
    assert await answer(stand.store.put, key, b"y", SHORT, once=True)


async def test_large_blobs_are_taken_up_to_the_bound(stand: Stand) -> None:
    key = name()
    assert await answer(stand.store.put, key, b"x" * 65536, HOUR, once=False)
    assert await answer(stand.stores[1].get, key) == b"x" * 65536
    assert not await answer(stand.store.put, key, b"x" * 65537, HOUR, once=False)


# Clock steps


@pytest.mark.parametrize("kind", RATES)
@pytest.mark.parametrize("step", [-1, -30 * SECOND, -HOUR, -1000 * HOUR])
async def test_a_clock_that_goes_back_admits_nothing_twice_and_locks_nobody(
    stand: Stand, hand: Hand, kind: Kind, step: int
) -> None:
    charge = Charge(quota(kind, limit=10, window=60 * SECOND), name(), 1)
    hand.now += 59 * SECOND
    assert (await admit(stand.store, charge._replace(cost=10))).allowed
    hand.now += step
    refused = (await admit(stand.store, charge)).verdicts[0]
    assert not refused.allowed
    assert refused.retry <= 2 * 60 * SECOND
    hand.now += refused.retry
    assert (await admit(stand.store, charge)).allowed
    hand.now += 3 * 60 * SECOND
    assert (await admit(stand.store, charge._replace(cost=10))).allowed


@pytest.mark.parametrize("kind", RATES)
async def test_a_clock_that_swings_gives_no_units(stand: Stand, hand: Hand, kind: Kind) -> None:
    charge = Charge(quota(kind, limit=10, window=60 * SECOND), name(), 1)
    allowed = 0
    for swing in range(200):
        hand.now += -5 * SECOND if swing % 2 else 5 * SECOND
        allowed += (await admit(stand.store, charge)).allowed
    assert allowed <= 11  # five seconds went by at most once: less than one unit


async def test_a_clock_that_goes_back_prolongs_no_lease_block_or_mitigation(stand: Stand, hand: Hand) -> None:
    lease = Charge(quota(Kind.LEASES, limit=1, window=60 * SECOND), name(), 1)
    strict = Charge(quota(limit=1, mitigation=60 * SECOND), name(), 2)
    blocked = Charge(quota(), name(), 1)
    assert (await admit(stand.store, lease)).allowed and not (await admit(stand.store, strict)).allowed
    assert await answer(stand.store.block, blocked.key, 60 * SECOND)
    hand.now -= 1000 * HOUR
    assert (await admit(stand.store, lease)).verdicts[0].retry <= 2 * 60 * SECOND
    for charge in (strict, blocked):
        assert (await admit(stand.store, charge)).verdicts[0].retry <= 60 * SECOND
    hand.now += 2 * 60 * SECOND
    for charge in (lease, strict._replace(cost=1), blocked):
        assert (await admit(stand.store, charge)).allowed


# Bounds and the end


async def test_a_flood_of_keys_takes_no_more_memory_and_frees_nobody(stand: Stand) -> None:
    if stand.keys is None or stand.size is None:
        pytest.skip("memory is the server's business")
    limit = quota(limit=10)
    known = [Charge(limit, name(), 10) for _ in range(100)]
    for charge in known:
        assert (await admit(stand.store, charge)).allowed
    for _ in range(5):
        for _ in range(stand.keys // 250):
            await asyncio.gather(*(admit(stand.store, Charge(limit, name(), 1)) for _ in range(250)))
            assert stand.size() <= stand.keys
    assert [(await admit(stand.stores[1], c._replace(cost=1))).allowed for c in known] == [False] * 100


async def test_closing_answers_everything_once(stand: Stand) -> None:
    charge, answers = Charge(quota(limit=1000), name(), 1), list[Any]()
    asked: list[asyncio.Future[Any]] = []
    store = stand.stores[1]
    for _ in range(20):
        asked.append(answer(store.admit, [charge], name()))
        asked.append(answer(store.peek, [charge]))
        asked.append(answer(store.get, charge.key))
    store.close()
    for future in asked:
        answers.append(await asyncio.wait_for(future, 2))
    assert sum(isinstance(a, Admission) for a in answers) == 20
    store.close()
    for _ in range(3):  # and whoever asks afterwards is answered, too
        assert isinstance(await asyncio.wait_for(answer(store.admit, [charge], name()), 2), Admission)
    store.settle([Change(charge.quota, charge.key, -1, 0)], name())
