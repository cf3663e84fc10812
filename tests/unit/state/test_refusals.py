# What is refused without asking, and for how long.
from __future__ import annotations

from edgeproxy.state.ports import Change, Charge, Kind, Quota, Verdict
from edgeproxy.state.refusals import HOLD, Refusals

NOW = 1_800_014_400_000_000
MS = 1000
QUOTA = Quota("q", Kind.GCRA, 10, 60_000_000)
OTHER = Verdict(True, 7, 0, 0, 0)


def refused(retry: int, remaining: int = 0, reset: int = 50_000_000) -> Verdict:
    return Verdict(False, remaining, reset, retry, NOW)


def make(keys: int = 1000) -> Refusals:
    return Refusals(lambda charge: OTHER, keys)


def test_a_key_is_refused_until_it_may_pass() -> None:
    refusals, charge = make(), Charge(QUOTA, b"k" * 16, 1)
    assert refusals.check([charge], NOW) is None
    refusals.learn([charge], [refused(300 * MS)], NOW)
    other = Charge(QUOTA, b"o" * 16, 1)
    admission = refusals.check([other, charge], NOW + 100 * MS)
    assert admission == (False, (OTHER, (False, 0, 49_900_000, 200 * MS, NOW)), "known")
    assert refusals.check([charge], NOW + 300 * MS - 1) is not None
    assert refusals.check([charge], NOW + 300 * MS) is None
    assert refusals.check([other], NOW + 100 * MS) is None


def test_a_long_refusal_is_asked_about_again_now_and_then() -> None:
    refusals, charge = make(), Charge(QUOTA, b"k" * 16, 1)
    refusals.learn([charge], [refused(30_000 * MS)], NOW)
    known = refusals.check([charge], NOW + HOLD - 1)
    assert known is not None and known.verdicts[0].retry == 30_000 * MS - HOLD + 1
    assert refusals.check([charge], NOW + HOLD) is None


def test_what_costs_less_is_asked_about() -> None:
    refusals, charge = make(), Charge(QUOTA, b"k" * 16, 5)
    refusals.learn([charge], [refused(300 * MS, remaining=4)], NOW)
    assert refusals.check([charge._replace(cost=4)], NOW) is None
    assert refusals.check([charge._replace(cost=0)], NOW) is None
    known = refusals.check([charge._replace(cost=6)], NOW)
    assert known is not None and known.verdicts[0].remaining == 4


def test_mitigation_refuses_everything() -> None:
    strict = Charge(Quota("s", Kind.GCRA, 10, 60_000_000, mitigation=60_000_000), b"k" * 16, 5)
    refusals = make()
    refusals.learn([strict], [refused(60_000 * MS)], NOW)
    assert refusals.check([strict._replace(cost=0)], NOW) is not None


def test_what_may_be_given_back_early_is_not_known() -> None:
    refusals = make()
    lease = Charge(Quota("l", Kind.LEASES, 10, 60_000_000), b"l" * 16, 1)
    tokens, key = Charge(Quota("t", Kind.GCRA, 10, 60_000_000), b"t" * 16, 1), Charge(QUOTA, b"k" * 16, 1)
    for charge in (lease, tokens, key):
        refusals.learn([charge], [refused(300 * MS)], NOW)
    assert refusals.check([lease], NOW) is None
    assert refusals.check([tokens], NOW) is not None  # nobody has ever given tokens back
    refusals.refunds([Change(tokens.quota, tokens.key, -3, NOW), Change(key.quota, key.key, 2, NOW)])
    assert refusals.check([tokens], NOW) is None
    refusals.learn([tokens], [refused(300 * MS)], NOW)
    assert refusals.check([tokens], NOW) is None
    assert refusals.check([key], NOW) is not None


def test_the_second_of_two_charges_of_a_key_says_nothing_about_one() -> None:
    refusals, charge = make(), Charge(QUOTA, b"k" * 16, 6)
    refusals.learn([charge, charge], [OTHER, refused(300 * MS)], NOW)
    assert refusals.check([charge], NOW) is None


def test_a_clock_that_goes_back_makes_nothing_last_longer() -> None:
    refusals, charge = make(), Charge(QUOTA, b"k" * 16, 1)
    refusals.learn([charge], [refused(60_000 * MS)], NOW)
    assert refusals.check([charge], NOW - 3600_000 * MS) is None


def test_it_is_bounded_and_forgets_what_it_is_told_to() -> None:
    refusals = make(100)
    for i in range(1000):
        refusals.learn([Charge(QUOTA, i.to_bytes(16), 1)], [refused(300 * MS)], NOW)
        assert len(refusals) <= 200
    last = Charge(QUOTA, (999).to_bytes(16), 1)
    assert refusals.check([last], NOW) is not None
    refusals.forget(last.key)
    assert refusals.check([last], NOW) is None
