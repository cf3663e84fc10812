# The algorithms: exact values, and against a naive model that remembers every charge.
from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.state import counting
from edgeproxy.state.counting import FULL, State
from edgeproxy.state.ports import Kind, Level, Quota, Verdict

NOW = 1_800_014_400_000_000  # a multiple of all windows here
RATES = [Kind.GCRA, Kind.FIXED, Kind.SLIDING]
DEEDS = ["take", "take", "prolong", "back"]


class Key:
    """One key, charged step by step."""

    def __init__(self, kind: Kind, limit: int, window: int, burst: int = 0, mitigation: int = 0) -> None:
        self.quota = Quota("q", kind, limit, window, burst, mitigation)
        self.state: State = counting.fresh(kind, NOW)

    def take(self, cost: int, now: int, lease: bytes = b"") -> Verdict:
        self.state, verdict = counting.TAKE[self.quota.kind](self.state, self.quota, cost, now, lease)
        return verdict

    def correct(self, delta: int, stamp: int, now: int) -> None:
        self.state = counting.correct(self.state, self.quota, delta, stamp, now)

    def level(self, now: int) -> Level:
        return counting.level(self.state, self.quota, now)


# Exact values


def test_gcra_by_hand() -> None:
    """Three in ten seconds: a unit takes 3 1/3 s, which no integer is."""
    key = Key(Kind.GCRA, 3, 10_000_000)
    assert key.take(1, NOW) == (True, 2, 3_333_334, 0, NOW)
    assert key.take(2, NOW) == (True, 0, 10_000_000, 0, NOW)
    assert key.take(1, NOW) == (False, 0, 10_000_000, 3_333_334, NOW)
    assert not key.take(1, NOW + 3_333_333).allowed
    assert key.take(1, NOW + 3_333_334) == (True, 0, 10_000_000, 0, NOW + 3_333_334)
    assert not key.take(1, NOW + 6_666_666).allowed
    assert key.take(1, NOW + 6_666_667).allowed  # what was rounded up is not lost
    assert not key.take(1, NOW + 9_999_999).allowed
    assert key.take(1, NOW + 10_000_000).allowed


def test_gcra_with_a_burst_of_its_own() -> None:
    key = Key(Kind.GCRA, 60, 60_000_000, burst=5)
    assert [key.take(1, NOW).remaining for _ in range(5)] == [4, 3, 2, 1, 0]
    assert key.take(2, NOW) == (False, 0, 5_000_000, 2_000_000, NOW)
    assert key.take(6, NOW) == (False, 0, 5_000_000, 60_000_000, NOW)  # never: more than the burst
    assert key.take(2, NOW + 2_000_000) == (True, 0, 5_000_000, 0, NOW + 2_000_000)


def test_more_units_than_microseconds() -> None:
    key = Key(Kind.GCRA, 10**9, 1_000_000)
    assert key.take(10**9, NOW).allowed
    assert key.take(1, NOW) == (False, 0, 1_000_000, 1, NOW)
    assert key.take(1000, NOW + 1).remaining == 0
    assert not key.take(1, NOW + 1).allowed


def test_a_fixed_window_by_hand() -> None:
    key = Key(Kind.FIXED, 10, 60_000_000)
    late = NOW + 59_999_999
    assert key.take(7, late) == (True, 3, 1, 0, late)
    assert key.take(4, late) == (False, 3, 1, 1, late)
    assert key.take(10, late + 1) == (True, 0, 60_000_000, 0, late + 1)


def test_a_sliding_window_by_hand() -> None:
    """Ten in a minute, all in the first window: after a quarter of the second, a quarter of them count no more."""
    key = Key(Kind.SLIDING, 10, 60_000_000)
    assert key.take(10, NOW + 1) == (True, 0, 119_999_999, 0, NOW + 1)
    quarter = NOW + 75_000_000
    assert key.take(3, quarter - 1) == (False, 2, 45_000_001, 3_000_001, quarter - 1)
    assert key.take(2, quarter) == (True, 0, 105_000_000, 0, quarter)
    assert key.take(1, quarter) == (False, 0, 105_000_000, 3_000_000, quarter)
    # Nine: not before those two of this window count for half, in the next one.
    assert key.take(9, quarter).retry == 75_000_000
    assert not key.take(9, quarter + 74_999_999).allowed
    assert key.take(9, quarter + 75_000_000).allowed


def test_leases_by_hand() -> None:
    key = Key(Kind.LEASES, 3, 30_000_000)
    assert key.take(1, NOW, b"a") == (True, 2, 30_000_000, 0, NOW)
    assert key.take(2, NOW + 10_000_000, b"b") == (True, 0, 30_000_000, 0, NOW + 10_000_000)
    assert key.take(1, NOW + 20_000_000, b"c").retry == 10_000_000
    assert key.take(2, NOW + 20_000_000, b"c").retry == 20_000_000
    key.state = counting.give_back(key.state, key.quota, b"b", NOW + 20_000_000)
    key.state = counting.give_back(key.state, key.quota, b"b", NOW + 20_000_000)
    assert key.take(2, NOW + 20_000_000, b"c") == (True, 0, 30_000_000, 0, NOW + 20_000_000)
    assert not key.take(1, NOW + 29_999_999, b"d").allowed
    assert key.take(1, NOW + 30_000_000, b"d").allowed


@pytest.mark.parametrize("kind", RATES)
def test_nothing_costs_nothing_but_needs_something(kind: Kind) -> None:
    key = Key(kind, 2, 60_000_000)
    for _ in range(5):
        assert key.take(0, NOW).remaining == 2
    assert key.take(2, NOW).allowed
    assert key.take(0, NOW).allowed is False


@pytest.mark.parametrize("kind", RATES)
def test_mitigation_by_hand(kind: Kind) -> None:
    key = Key(kind, 2, 60_000_000, mitigation=600_000_000)
    assert key.take(2, NOW).allowed
    assert key.take(1, NOW).retry == 600_000_000
    assert key.take(0, NOW + 1_000_000) == (False, 0, 599_000_000, 599_000_000, NOW + 1_000_000)
    assert key.level(NOW + 1_000_000).blocked == 599_000_000
    assert not key.take(1, NOW + 599_999_999).allowed  # which does not make it longer
    assert key.take(2, NOW + 600_000_000).allowed
    assert key.level(NOW + 600_000_000).blocked == 0


def test_which_window_a_correction_is_for() -> None:
    fixed, sliding = Key(Kind.FIXED, 10, 60_000_000), Key(Kind.SLIDING, 10, 60_000_000)
    for key in (fixed, sliding):
        key.take(8, NOW)
        assert key.take(2, NOW + 60_000_000).remaining == (0 if key is sliding else 8)
        key.correct(-8, NOW, NOW + 60_000_000)
    assert fixed.level(NOW + 60_000_000).remaining == 8  # a refund of the first window is not for the second
    assert sliding.level(NOW + 60_000_000).remaining == 8  # there the first still counts, and is what changes
    for key in (fixed, sliding):
        key.correct(3, NOW, NOW + 180_000_000)  # owed, however late
        assert key.level(NOW + 180_000_000).remaining == 7


def test_share() -> None:
    for kind in Kind:
        key = Key(kind, 4, 60_000_000, mitigation=1)
        assert counting.share(key.state, key.quota, NOW) == 0
        key.take(1, NOW, b"a")
        assert counting.share(key.state, key.quota, NOW) == FULL // 4
        key.take(3, NOW, b"b")
        assert counting.share(key.state, key.quota, NOW) == FULL
        key.take(1, NOW, b"c")
        assert counting.share(key.state, key.quota, NOW) == 2 * FULL


@pytest.mark.parametrize("kind", RATES)
def test_ends(kind: Kind) -> None:
    for wait in (0, 1, 30_000_000, 59_999_999):
        for mitigation in (0, 400_000_000):
            key = Key(kind, 7, 60_000_000, mitigation=mitigation)
            key.take(3, NOW + wait)
            key.take(9, NOW + wait)
            end = counting.ends(key.state, key.quota)
            for now, expected in ((end - 1, True), (end, False)):
                rolled = counting.roll(key.state, key.quota, now)
                assert (counting.share(rolled, key.quota, now) > 0) == expected


# Against a naive model

WINDOW = 1000
COSTS = st.integers(0, 12)
STEPS = st.lists(st.tuples(st.integers(0, 700), COSTS), max_size=60)
LIMITS = st.integers(1, 12)


def in_use(kind: Kind, admitted: list[tuple[int, int]], limit: int, now: int) -> Any:
    """Units in use, times the window, by the definition of each kind, of a list of what was admitted when."""
    if kind == Kind.GCRA:  # the longest-lasting queue: units leave one by one, at the rate, in their order
        since = [(t, sum(c for _, c in admitted[i:])) for i, (t, _) in enumerate(admitted)]
        return max([0] + [units * WINDOW - (now - t) * limit for t, units in since])
    current = sum(c for t, c in admitted if t // WINDOW == now // WINDOW)
    before = sum(c for t, c in admitted if t // WINDOW == now // WINDOW - 1) if kind == Kind.SLIDING else 0
    return current * WINDOW + before * (WINDOW - now % WINDOW)


@pytest.mark.parametrize("kind", RATES)
@given(limit=LIMITS, steps=STEPS)
@settings(deadline=None)
def test_admits_exactly_what_the_model_admits(kind: Kind, limit: int, steps: list[tuple[int, int]]) -> None:
    key = Key(kind, limit, WINDOW)
    admitted: list[tuple[int, int]] = []
    now = NOW
    for wait, cost in steps:
        now += wait
        verdict = key.take(cost, now)
        used = in_use(kind, admitted, limit, now)
        assert verdict.allowed == (used + max(cost, 1) * WINDOW <= limit * WINDOW)
        if verdict.allowed:
            used += cost * WINDOW
            admitted.append((now, cost))
        assert verdict.remaining == (limit * WINDOW - used) // WINDOW
        if cost <= limit:  # the retry it was told is the first moment at which it can be within the quota
            assert verdict.allowed == (verdict.retry == 0)
            if not verdict.allowed:
                later = now + verdict.retry
                assert in_use(kind, admitted, limit, later) + max(cost, 1) * WINDOW <= limit * WINDOW
                assert in_use(kind, admitted, limit, later - 1) + max(cost, 1) * WINDOW > limit * WINDOW
        whole = now + verdict.reset
        assert in_use(kind, admitted, limit, whole) == 0
        if verdict.reset:
            assert in_use(kind, admitted, limit, whole - 1) > 0


@given(limit=LIMITS, burst=LIMITS, steps=STEPS)
@settings(deadline=None)
def test_gcra_never_admits_more_than_burst_and_rate_in_any_time(limit: int, burst: int, steps: list[tuple[int, int]]) -> None:
    key = Key(Kind.GCRA, limit, WINDOW, burst)
    admitted: list[tuple[int, int]] = []
    now = NOW
    for wait, cost in steps:
        now += wait
        if key.take(cost, now).allowed:
            admitted.append((now, cost))
    for i, (first, _) in enumerate(admitted):
        total = 0
        for then, cost in admitted[i:]:
            total += cost
            assert total * WINDOW <= burst * WINDOW + (then - first) * limit


@pytest.mark.parametrize("kind", RATES)
@given(limit=LIMITS, steps=st.lists(st.tuples(st.integers(0, 700), COSTS, st.integers(-12, 12), st.integers(0, 5)), max_size=40))
@settings(deadline=None)
def test_what_is_admitted_less_what_is_refunded_is_within_the_quota(
    kind: Kind, limit: int, steps: list[tuple[int, int, int, int]]
) -> None:
    """Corrections of earlier charges. Windows: what each was charged in the end. GCRA: all since the key was fresh, a
    correction counting from when it is made."""
    key = Key(kind, limit, WINDOW)
    charges: list[list[int]] = []  # when, how many
    net = 0
    now = NOW
    for wait, cost, delta, back in steps:
        now += wait
        if key.take(cost, now).allowed:
            charges.append([now, cost])
            net += cost
            if kind == Kind.GCRA:
                assert net * WINDOW <= limit * WINDOW + (now - NOW) * limit
            else:
                current = sum(c for t, c in charges if t // WINDOW == now // WINDOW)
                assert current <= limit or cost == 0
        if charges and back:
            charge = charges[-min(back, len(charges))]
            change = max(delta, -charge[1])  # nobody gives back more than was taken
            if change < 0 or charge[0] // WINDOW == now // WINDOW:
                key.correct(change, charge[0], now)
                charge[1] += change
                net += change
        assert 0 <= key.level(now).remaining <= limit


@pytest.mark.parametrize("kind", RATES)
@given(limit=LIMITS, steps=st.lists(st.tuples(st.integers(-400, 400), COSTS), max_size=60))
@settings(deadline=None)
def test_a_clock_that_goes_back_and_forth_admits_no_more_than_one_that_stands(
    kind: Kind, limit: int, steps: list[tuple[int, int]]
) -> None:
    """Steps back of less than a window: as if time had stood still until the clock was where it had been."""
    stepping, steady = Key(kind, limit, WINDOW), Key(kind, limit, WINDOW)
    now = highest = NOW
    for step, cost in steps:
        now = max(now + step, highest - WINDOW)
        highest = max(highest, now)
        verdict, expected = stepping.take(cost, now), steady.take(cost, highest)
        assert (verdict.allowed, verdict.remaining) == (expected.allowed, expected.remaining)
        if not verdict.allowed and cost <= limit:
            assert verdict.retry == expected.retry + highest - now


@pytest.mark.parametrize("kind", list(Kind))
@given(back=st.integers(1, 10**15), cost=st.integers(1, 10))
@settings(deadline=None)
def test_no_step_back_locks_a_key(kind: Kind, back: int, cost: int) -> None:
    key = Key(kind, 10, WINDOW)
    key.take(10, NOW, b"a")
    now = NOW - back
    verdict = key.take(cost, now, b"b")
    assert not verdict.allowed and verdict.retry <= 3 * WINDOW
    assert key.take(cost, now + verdict.retry, b"b").allowed


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 400), st.integers(0, 3), st.integers(0, 9), st.sampled_from(DEEDS)),
        max_size=60,
    )
)
@settings(deadline=None)
def test_leases_are_as_many_as_are_out(steps: list[tuple[int, int, int, str]]) -> None:
    key = Key(Kind.LEASES, 5, WINDOW)
    out: dict[bytes, tuple[int, int]] = {}
    now = NOW
    for wait, cost, number, step in steps:
        now += wait
        lease = bytes([number])
        out = {name: held for name, held in out.items() if held[0] > now}
        if step == "prolong":
            key.state = counting.prolong(key.state, key.quota, lease, now)
            if lease in out:
                out[lease] = (now + WINDOW, out[lease][1])
        elif step == "back":
            key.state = counting.give_back(key.state, key.quota, lease, now)
            out.pop(lease, None)
        else:
            used = sum(count for _, count in out.values())
            assert key.take(cost, now, lease).allowed == (used + max(cost, 1) <= 5)
            if cost and used + cost <= 5:
                out[lease] = (now + WINDOW, out.get(lease, (0, 0))[1] + cost)
        assert key.level(now).remaining == 5 - sum(count for _, count in out.values())
