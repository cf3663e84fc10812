# What clients do moves their score a little, within bounds, and what is kept of them is bounded.
"""bots/behaviour.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.bots.behaviour import GENERATION, LEAST, MOST, Behaviour, Keys, Table, Track, Weights, bounds

_KEYS = Keys(b"session", "192.0.2.1", "192.0.2.1 t13d")
_ADDRESS = Keys(b"", "192.0.2.1", "")


def run(
    requests: int, pause: Callable[[int], float], *, keys: Keys = _KEYS, path: Callable[[int], int] = lambda _: 1,
    static: Callable[[int], bool] = lambda _: False, error: bool = False, agent: Callable[[int], int] = lambda _: 1,
    given: bool = True,
) -> float:  # fmt: skip
    behaviour, now = Behaviour(), 1000.0
    for n in range(requests):
        now += pause(n)
        for track in behaviour.tracks(keys, now):
            track.count(now, path(n), agent(n), static=static(n), cookie=keys.session != b"", error=error, given=given)
    return behaviour.moved(keys, now)


def _person(n: int) -> float:
    return (2.0, 31.0, 0.01, 0.01, 7.0, 120.0, 0.02, 14.0)[n % 8]


def test_nothing_is_said_of_a_few_requests() -> None:
    assert run(4, lambda _: 0.1, error=True) == 0.0


def test_a_person_who_reads_pages_gains() -> None:
    assert run(40, _person, static=lambda n: n % 8 in (2, 3, 6)) > 0


def test_a_person_who_chats_loses_nothing() -> None:
    assert run(40, lambda n: (20.0, 45.0, 5.0, 90.0)[n % 4]) == 0.0


@pytest.mark.parametrize(
    ("pause", "path", "error"),
    [
        (lambda _: 0.2, lambda _: 1, False),  # fast, as a clock
        (lambda n: 3.0 + n % 2 * 0.1, lambda n: n, False),  # slow, as a clock, through all pages
        (_person, lambda n: n, True),  # everything is missing
    ],
)
def test_what_programs_do_costs(pause: Callable[[int], float], path: Callable[[int], int], error: bool) -> None:
    assert run(60, pause, path=path, error=error) < -0.8


def test_an_address_weighs_less_than_a_session() -> None:
    assert run(60, lambda _: 0.2) < run(60, lambda _: 0.2, keys=Keys(b"", "192.0.2.1", ""), path=lambda _: 1) + 0.9
    assert run(9, lambda _: 0.2, keys=_ADDRESS, error=True) > run(9, lambda _: 0.2, error=True)


def test_cookies_that_never_come_back_cost() -> None:
    assert run(12, _person, keys=_ADDRESS) < 0 == run(9, _person, keys=_ADDRESS)
    assert run(12, _person, keys=_ADDRESS, given=False) == 0, "who was given none cannot bring one"


def test_what_all_workers_saw_together_grows_old() -> None:
    track = Track(1000.0)
    track.rate, track.heard = 9.0, 1000.0
    assert track.a_second(1010.0) == 9.0 and track.a_second(1100.0) == 0.0


def test_one_session_has_one_name() -> None:
    assert run(12, _person, agent=lambda n: n) < run(12, _person)


@given(
    st.lists(
        st.tuples(st.floats(0, 1e6), st.integers(0, 2**32), st.integers(0, 2**32), st.booleans(), st.booleans()), max_size=60
    )
)
def test_it_is_bounded_whatever_comes(rows: list[tuple[float, int, int, bool, bool]]) -> None:
    behaviour, now = Behaviour(), 0.0
    for pause, path, agent, static, error in rows:
        now += pause
        for track in behaviour.tracks(_KEYS, now):
            track.count(now, path, agent, static=static, cookie=True, error=error)
        assert -MOST <= behaviour.moved(_KEYS, now) <= LEAST


_WEIGHTS = st.builds(Weights, *[st.floats(-3, 3, allow_nan=False)] * len(Weights._fields))
_REQUESTS = st.tuples(st.floats(0, 20), st.integers(0, 2**32), st.integers(0, 9), st.booleans(), st.booleans())


@given(_WEIGHTS, st.lists(_REQUESTS, max_size=40), st.sampled_from([_KEYS, _ADDRESS, _KEYS._replace(session=b"")]), st.booleans())
def test_nobody_comes_to_more_than_its_bounds(
    weights: Weights, rows: list[tuple[float, int, int, bool, bool]], keys: Keys, given: bool
) -> None:
    behaviour, now = Behaviour(weights), 0.0
    down, up = bounds(weights, session=keys.session != b"")
    for pause, path, agent, static, error in rows:
        now += pause
        for track in behaviour.tracks(keys, now):
            track.count(now, path, agent, static=static, cookie=False, error=error, given=given)
        assert down - 1e-9 <= behaviour.moved(keys, now) <= up + 1e-9


def test_the_shipped_bounds() -> None:
    assert bounds(Weights(), session=True) == (-MOST, pytest.approx(0.6))
    assert bounds(Weights(), session=False) == (-MOST, pytest.approx(0.42))
    assert bounds(Weights(*[0.0] * len(Weights._fields)), session=True) == (0.0, 0.0)


def test_tables_forget_whole_generations() -> None:
    table = Table(most=4)
    for n in range(100):
        table.get(f"k{n}", 1.0).requests = n
        assert len(table) <= 8
    assert table.find("k99") is not None and table.find("k90") is None


def test_who_comes_back_is_remembered() -> None:
    table = Table(most=4)
    kept = table.get("kept", 1.0)
    for n in range(1, 20):
        table.get(f"k{n}", 1.0 + n)
        assert table.get("kept", 1.0 + n) is kept
    table.get("other", 100.0 + GENERATION)
    assert table.find("kept") is kept
    table.get("another", 200.0 + 3 * GENERATION)
    assert table.find("kept") is None


def test_a_page_that_loads_is_one_pause() -> None:
    track = Track(0.0)
    for at in (0.0, 10.0, 10.01, 10.02, 20.0, 20.03):
        track.count(at, 1, 1, static=False, cookie=False, error=False)
    assert track.pause == pytest.approx(10.0, abs=0.1)
