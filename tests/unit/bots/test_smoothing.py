# A session's average draws single answers of the model towards it, within its bounds, for one program alone.
"""bots/smoothing.py."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.bots.smoothing import DOWN, MOST_SEEN, ODDS, UP, Steady

ME, OTHER = 7, 8


def after(*scores: int) -> Steady:
    made = Steady()
    for score in scores:
        made.pull(ODDS[score], ME)
    return made


def test_odds() -> None:
    assert len(ODDS) == 100 and ODDS[50] == 0.0 and ODDS[99] == pytest.approx(4.5951, abs=1e-4)
    assert ODDS[2] == pytest.approx(-3.8918, abs=1e-4)


def test_the_first_answer_stands_alone() -> None:
    assert Steady().pull(ODDS[20], ME) == 0.0
    assert Steady(ODDS[99], 0, ME).pull(ODDS[20], ME) == 0.0, "of no requests there is no average"


def test_one_answer_out_of_many_is_drawn_to_them() -> None:
    assert after(*[90] * 10).pull(ODDS[20], ME) == UP
    assert after(*[20] * 10).pull(ODDS[90], ME) == -DOWN
    near = after(*[50] * 5).pull(ODDS[55], ME)
    assert near == pytest.approx(-ODDS[55] / 2), "half of the difference after five"


def test_it_grows_with_what_was_seen() -> None:
    pulls = [after(*[90] * seen).pull(ODDS[85], ME) for seen in range(30)]
    assert pulls == sorted(pulls) and pulls[0] == 0.0 and pulls[-1] < ODDS[90] - ODDS[85]


def test_always_the_same_is_never_moved() -> None:
    """A program gains nothing by waiting, or by asking often: it is what the model says of it."""
    steady = Steady()
    assert {steady.pull(ODDS[12], ME) for _ in range(500)} == {0.0}


def test_it_follows_who_changes() -> None:
    """A good session that a program took over: what it gives ends with what the program's own requests are like."""
    steady = after(*[95] * 50)
    given = [steady.pull(ODDS[5], ME) for _ in range(120)]
    assert given[0] == UP and all(0.0 <= each <= UP for each in given)
    assert given[-1] < 0.05 and given == sorted(given, reverse=True)


def test_another_program_has_nothing_of_it() -> None:
    steady = after(*[95] * 50)
    assert [steady.pull(ODDS[5], OTHER) for _ in range(3)] == [0.0] * 3
    assert steady.whose == OTHER and steady.seen == 3 and steady.odds == pytest.approx(ODDS[5])
    assert steady.pull(ODDS[50], ME) == 0.0, "nor the first one of the other"


def test_the_average_is_one_of_all_and_then_a_moving_one() -> None:
    assert after(10, 90, 50).odds == pytest.approx((ODDS[10] + ODDS[90]) / 3)
    steady = after(*[50] * 100)
    steady.pull(ODDS[90], ME)
    assert steady.odds == pytest.approx(0.05 * ODDS[90])
    assert after(*[50] * (MOST_SEEN + 5)).seen == MOST_SEEN


@given(st.lists(st.tuples(st.integers(2, 99), st.sampled_from([ME, OTHER])), max_size=60))
def test_bounds(answers: list[tuple[int, int]]) -> None:
    steady = Steady()
    for score, whose in answers:
        pulled = steady.pull(ODDS[score], whose)
        assert -DOWN <= pulled <= UP and math.isfinite(steady.odds) and ODDS[2] - 1e-9 <= steady.odds <= ODDS[99] + 1e-9
