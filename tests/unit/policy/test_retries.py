# Retries: what clients say of theirs, how attempts are shared out, and when there are too many.
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.policy.retries import HALF, Budget, allowance, count


@pytest.mark.parametrize(
    ("value", "tried"),
    [
        (b"0", 0), (b"1", 1), (b"2", 2), (b"0003", 3), (b"9999", 9999),
        (None, 0), (b"", 0), (b"-1", 0), (b"+1", 0), (b"1.5", 0), (b"1, 2", 0), (b" 1", 0), (b"10000", 0), (b"1e3", 0),
        (b"\xb2", 0), (b"\xd9\xa1", 0), (b"x" * 8000, 0), (b"9" * 8000, 0),
    ],
)  # fmt: skip
def test_what_clients_say(value: bytes | None, tried: int) -> None:
    assert count(value) == tried


@given(st.integers(1, 60), st.integers(1, 3))
def test_all_tries_together_never_make_more_than_the_cap(cap: int, most: int) -> None:
    shares = [allowance(cap, tried, most) for tried in range(cap + 2)]
    assert sum(shares) <= cap and max(shares) <= most
    ended = shares.index(0)
    assert shares[0] >= 1 and not any(shares[ended:]), "once refused, always refused"
    assert sum(shares) == cap, "and nothing is given away"
    assert all(share * (tried + 1) <= max(cap, tried + 1) for tried, share in enumerate(shares))
    assert allowance(cap, 9999, most) == 0


def test_some_shares_as_they_are_documented() -> None:
    assert [allowance(6, tried, 3) for tried in range(6)] == [3, 1, 1, 1, 0, 0]
    assert [allowance(6, tried, 1) for tried in range(7)] == [1, 1, 1, 1, 1, 1, 0]
    assert [allowance(1, tried, 3) for tried in range(2)] == [1, 0]


class Traffic:
    """An upstream with a budget of 20 % and two retries a second."""

    def __init__(self) -> None:
        self.budget = Budget()
        self.now = 1000.0
        self.requests = 5000  # from before

    def sent(self, requests: int, retries: int) -> bool:
        """Requests, of which some are retries; whether there may be one more retry."""
        for _ in range(retries):
            self.budget.note(self.now, self.requests)
        self.requests += requests
        return not self.budget.over(self.now, self.requests, 0.2, 2)


def test_a_few_retries_are_none_too_many() -> None:
    traffic = Traffic()
    for number in range(1, 10):
        assert traffic.sent(1, 1), number
    assert not traffic.sent(1, 1), "the floor: two a second, for five seconds"


def test_a_share_of_the_requests() -> None:
    traffic = Traffic()
    assert traffic.sent(0, 1)
    assert traffic.sent(1000, 198)
    assert not traffic.sent(0, 1)
    assert traffic.sent(100, 0)


def test_a_storm_is_forgotten_when_it_is_over() -> None:
    traffic = Traffic()
    assert not traffic.sent(100, 100)
    traffic.now += HALF
    assert not traffic.sent(100, 0), "the half before is looked at, too"
    traffic.now += HALF
    assert traffic.sent(0, 0)
    assert not traffic.sent(100, 100)
    traffic.now += 3600
    assert traffic.sent(0, 0)


def test_a_reload_that_takes_counters_away() -> None:
    traffic = Traffic()
    assert not traffic.sent(100, 100)
    traffic.requests = 3
    assert traffic.sent(0, 5)
    assert not traffic.sent(0, 20)


def test_no_budget_at_all() -> None:
    assert Budget().over(1000.0, 500, 0.0, 0)
