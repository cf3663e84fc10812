# Sessions that the evaluation makes up: what they are made of, and that counting them is what the edge did on real walks.
from __future__ import annotations

import random

import pytest

from tools.bots.sessions import (
    BROWSER,
    DRAWS,
    READER,
    REQUESTS,
    TIMED,
    Kind,
    Step,
    after,
    draws,
    moved,
    paces,
    session,
    walked,
    walks,
)  # fmt: skip

_WALKS = walks()


def test_a_session_of_pages_by_a_timer() -> None:
    steps = session(Kind(TIMED), _WALKS, random.Random(1), 5)
    assert [step.when for step in steps] == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert [step.session for step in steps] == [0, 1, 1, 1, 1], "the first answer gives the cookie"
    assert len({step.path for step in steps}) == 5
    assert {step.status for step in steps} == {200}


def test_pages_with_parts_and_other_cookies() -> None:
    steps = session(Kind(TIMED, "fresh", parts=True), _WALKS, random.Random(1), 9)
    assert [step.static for step in steps] == [False, True, True, True] * 2 + [False]
    assert [step.session for step in steps] == [0, 1, 1, 1, 0, 2, 2, 2, 0]
    assert sorted(steps, key=lambda step: step.when) == steps
    assert not any(step.session for step in session(Kind(BROWSER, "none", parts=True), _WALKS, random.Random(1), 20))


def test_pages_that_are_missing_have_no_parts() -> None:
    steps = session(Kind(READER, parts=True, missing=True), _WALKS, random.Random(2), 100)
    pages = [step for step in steps if not step.static]
    gone = {step.path for step in pages if step.status == 404}
    assert 0.3 < len(gone) / len(pages) < 0.7
    assert not any(step.path.partition(".")[0] in gone for step in steps if step.static)
    assert len({step.path for step in session(Kind(READER, same=True), _WALKS, random.Random(2), 20)}) == 1


def test_a_readers_pauses() -> None:
    pace, draw = paces(_WALKS)[READER], random.Random(3)
    pauses = sorted(pace(draw) for _ in range(20_000))
    # The median of a Weibull is scale · ln(2) ** (1 / shape).
    assert pauses[10_000] == pytest.approx(0.3 + 30 * 0.6931 ** (1 / 0.8), rel=0.05)
    assert pauses[0] >= 0.3


def test_what_was_worked_out_by_hand() -> None:
    """Ten pages of one path by a timer, the session's cookie kept: regular -1.2 at its full, 0.6 a second none."""
    steps = [Step(2.0 * n, "/a", 1, 200) for n in range(10)]
    assert moved(steps, 1, 2.0) == pytest.approx(-1.2)
    # At once, without cookies, all missing: 0.7 of errors -1.5, and no cookies -0.8; one a second is not fast.
    assert moved([Step(0.0, "/a", 0, 404)] * 10, 0, 0.0) == pytest.approx(0.7 * -1.5 - 0.8)


def test_the_same_seed_draws_the_same() -> None:
    reader = Kind(READER, missing=True)
    assert draws(reader, 1) == draws(reader, 1) != draws(reader, 2)
    assert len(draws(Kind(BROWSER), 1)) == DRAWS
    assert max(draws(Kind(TIMED), 1)) < -1 < 0 < min(draws(Kind(READER, parts=True), 1))


def test_a_score_with_evidence() -> None:
    assert after(1, 1.0, True) == 1, "what heuristics are certain of stays"
    assert after(50, -3.0, False) == 5
    assert (after(9, 0.0, True), after(8, 0.0, True)) == (31, 28), "a challenge lifts 9 over 30"


@pytest.mark.parametrize("row", _WALKS.rows, ids=lambda row: f"{row['client']}-{row['variant']}")
def test_the_edge_counted_the_same(row: dict[str, object]) -> None:
    """Real walks, counted again here, come to the log-odds that the edge itself said for its pages."""
    steps = walked(row)
    said = [each[5] for each in row["requests"]]  # type: ignore[attr-defined]
    pages = [at for at, step in enumerate(steps) if step.path.startswith("/w/p") and not step.static]
    assert len(pages) == 20
    for at in pages:
        # What a client did is looked up once a second; and of requests on many connections one may end between the page's
        # being asked for and answered.
        seconds = row["requests"][at][0]  # type: ignore[index]
        since = [n for n in range(at + 1) if row["requests"][n][0] >= seconds - 1.2]  # type: ignore[index]
        assert any(moved(steps[:n], steps[at].session, 0.0) == pytest.approx(said[at], abs=0.06) for n in since), at
    assert len(steps) > REQUESTS
