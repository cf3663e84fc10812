# What is decided without the store: each failure mode, shares, and what the store last said.
from __future__ import annotations

import pytest
from support.stores import DAY, NOON, SECOND, Hand, name, quota

from edgeproxy.state.fallback import Fallback, Mode
from edgeproxy.state.memory import Memory
from edgeproxy.state.ports import Change, Charge, Kind, Verdict


def made(hand: Hand, mode: Mode = "local", shares: int = 1) -> Fallback:
    return Fallback(mode, shares, Memory(hand.now), hand)


def allowed(fallback: Fallback, charge: Charge, times: int) -> int:
    return sum(fallback.decide([charge], name()).allowed for _ in range(times))


def test_open_lets_everything_through_and_closed_nothing() -> None:
    hand, charges = Hand(), [Charge(quota(limit=1), name(), 5), Charge(quota(Kind.LEASES), name(), 1)]
    opened, closed = made(hand, "open").decide(charges, name()), made(hand, "closed").decide(charges, name())
    assert (opened.allowed, opened.by, len(opened.verdicts)) == (True, "open", 2)
    assert (closed.allowed, closed.by) == (False, "closed")
    assert all(not v.allowed and v.retry > 0 for v in closed.verdicts)
    assert [v.stamp for v in (*opened.verdicts, *closed.verdicts)] == [0] * 4  # nobody judged them


@pytest.mark.parametrize("mode", ["open", "closed"])
def test_without_a_judge_nothing_is_counted(mode: Mode) -> None:
    hand, lease, charge = Hand(), name(), Charge(quota(limit=1), name(), 1)
    fallback = made(hand, mode)
    fallback.note([charge], [Verdict(False, 0, DAY, DAY, NOON)], hand.now)
    decided = [fallback.decide([charge], lease) for _ in range(3)]
    assert [(a.allowed, a.by) for a in decided] == [(mode == "open", mode)] * 3
    assert not fallback.settle([Change(charge.quota, charge.key, -1, 0)], lease)
    assert not fallback.prolong([charge], lease)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize(("limit", "shares", "each"), [(100, 1, 100), (100, 4, 25), (10, 3, 3), (2, 8, 1)])
def test_all_workers_together_admit_at_most_the_limit(kind: Kind, limit: int, shares: int, each: int) -> None:
    charge = Charge(quota(kind, limit), name(), 1)
    workers = [made(Hand(), shares=shares) for _ in range(shares)]
    assert [allowed(worker, charge, 200) for worker in workers] == [each] * shares
    assert each * shares <= max(limit, shares)


def test_a_charge_that_is_larger_than_the_share_is_refused() -> None:
    charge = Charge(quota(limit=100), name(), 30)
    admission = made(Hand(), shares=4).decide([charge], name())
    assert not admission.allowed and admission.by == "local"


@pytest.mark.parametrize("kind", [Kind.GCRA, Kind.FIXED, Kind.SLIDING])
def test_it_begins_with_what_the_store_last_left(kind: Kind) -> None:
    hand, charge = Hand(), Charge(quota(kind, limit=100, window=DAY), name(), 1)
    fallback = made(hand, shares=2)
    fallback.note([charge], [Verdict(True, 20, DAY, 0, NOON)], hand.now)
    assert allowed(fallback, charge, 100) == 10
    assert allowed(fallback, charge._replace(key=name()), 100) == 50  # of this one nothing is known


def test_what_the_store_said_long_ago_does_not_count() -> None:
    hand, charge = Hand(), Charge(quota(limit=100, window=100 * SECOND), name(), 1)
    fallback = made(hand, shares=2)
    fallback.note([charge], [Verdict(True, 0, 100 * SECOND, 0, NOON)], hand.now)
    hand.now += 50 * SECOND
    assert allowed(fallback, charge, 100) == 25  # half of it came back
    other = charge._replace(key=name())
    fallback.note([other], [Verdict(False, 0, 100 * SECOND, 1, NOON)], hand.now)
    hand.now += 100 * SECOND
    assert allowed(fallback, other, 100) == 50


def test_a_store_that_comes_and_goes_gives_no_fresh_share_and_no_debt() -> None:
    hand, charge = Hand(), Charge(quota(Kind.FIXED, limit=100, window=DAY), name(), 1)
    fallback = made(hand, shares=2)
    total = 0
    for _ in range(5):
        fallback.note([charge], [Verdict(True, 60, DAY, 0, NOON)], hand.now)
        total += allowed(fallback, charge, 12)
    assert total == 30  # its share of the sixty
    hand.now += DAY  # and nothing is owed afterwards
    assert allowed(fallback, charge, 100) == 50


def test_an_exchange_is_settled_where_it_was_admitted() -> None:
    hand, lease = Hand(), name()
    slots, tokens = Charge(quota(Kind.LEASES, 4), name(), 1), Charge(quota(limit=1000), name(), 500)
    fallback = made(hand, shares=2)
    admission = fallback.decide([slots, tokens], lease)
    changes = [Change(c.quota, c.key, -c.cost, v.stamp) for c, v in zip([slots, tokens], admission.verdicts, strict=True)]
    assert not fallback.settle(changes, name())  # somebody else's
    assert fallback.settle(changes, lease)
    assert not fallback.settle(changes, lease)
    assert allowed(fallback, slots, 10) == 2
    assert fallback.decide([tokens], name()).allowed


def test_a_lease_is_prolonged_where_it_was_admitted() -> None:
    hand, lease = Hand(), name()
    charge = Charge(quota(Kind.LEASES, 4, 60 * SECOND), name(), 1)
    fallback = made(hand, shares=2)
    assert fallback.decide([charge], lease).allowed
    for _ in range(3):
        hand.now += 40 * SECOND
        assert fallback.prolong([charge], lease)
    assert not fallback.prolong([charge], name())  # somebody else's
    assert allowed(fallback, charge, 10) == 1
    assert fallback.settle([Change(charge.quota, charge.key, -1, NOON)], lease)
    assert not fallback.prolong([charge], lease)
    assert allowed(fallback, charge, 10) == 1


def test_an_exchange_that_lasts_is_still_known_after_many_others() -> None:
    hand, lease, limit = Hand(), name(), quota(Kind.LEASES, 100_000, 60 * SECOND)
    fallback, charge = made(hand), Charge(limit, name(), 1)
    assert fallback.decide([charge], lease).allowed
    for _ in range(4):
        for _ in range(7000):
            fallback.decide([Charge(limit, b"k" * 16, 0)], name())
        assert fallback.prolong([charge], lease)
    assert len(fallback._mine) + len(fallback._mine_before) <= 2 * 8193
    assert fallback.settle([Change(limit, charge.key, -1, NOON)], lease)


def test_what_is_remembered_is_bounded() -> None:
    hand, limit = Hand(), quota()
    fallback = made(hand)
    for _ in range(50_000):
        fallback.note([Charge(limit, name(), 1)], [Verdict(True, 1, 1, 0, NOON)], hand.now)
    assert len(fallback._seen) + len(fallback._seen_before) <= 2 * 8193
