# What clients did is counted by all workers together, through the store, and what is kept of it is bounded.
"""watching.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.bots import CHROME, PAGE, prints_of, request

from edgeproxy.bots.heuristics import BY_ID
from edgeproxy.bots.score import Score
from edgeproxy.bots.smoothing import ODDS, UP
from edgeproxy.config.bots import BotBehaviour
from edgeproxy.deadlines import NEVER
from edgeproxy.policy.session import Session
from edgeproxy.state.embedded import EmbeddedStore
from edgeproxy.watching import Marks, Watch

CAUGHT, PERSON = Score(1, "Heuristics", (BY_ID[1003],)), Score(80, "Machine Learning")


def watch(store: Any) -> Watch:
    return Watch(cast("Any", SimpleNamespace(store=store)), cast("Any", SimpleNamespace(now=1000.0, members=set())))


def marks(session: bytes = b"", path: bytes = b"/", client: str = "192.0.2.1", agent: bytes = CHROME) -> Marks:
    prints = prints_of("chromium")
    return Marks(request([(b"user-agent", agent)], prints, target=path), client, session)


def test_marks() -> None:
    found = Marks(request(PAGE, prints_of("chromium"), target=b"/a/app.JS?v=1"), "192.0.2.1", b"id")
    assert (found.static, found.browser, found.modern) == (True, True, True)
    assert found.keys == (b"id", "192.0.2.1", "192.0.2.1 " + prints_of("chromium").ja4)
    hidden = Marks(request(PAGE, prints_of("chromium")), "192.0.2.1", b"id", hidden=True)
    assert (hidden.ja4, hidden.keys.program, hidden.keys.address) == ("", "", "192.0.2.1")
    plain = Marks(request([], None, 0, target=b"/js"), "", b"")
    assert (plain.static, plain.browser, plain.modern, plain.ja4, tuple(plain.keys)) == (False, False, False, "", (b"", "", ""))
    assert marks(path=b"/a?b").path == marks(path=b"/a?c").path != marks(path=b"/b").path


def test_workers_learn_from_each_other_how_fast_a_client_is() -> None:
    store = EmbeddedStore()
    one, other = watch(store), watch(store)
    mark = marks(b"session")
    for now in range(40):
        for each in (one, other):
            each.ended(mark, PERSON, 200, 1000.0 + now * 0.1)
    assert one.deadline < NEVER and one in one._deadlines.members
    for each in (one, other, one):
        each.expire(1005.0)
        assert each.deadline == NEVER and each not in each._deadlines.members
        for now in range(8):
            each.ended(mark, PERSON, 200, 1004.0 + now * 0.1)
    track = one._behaviour.tracks(mark.keys, 1005.0)[0]
    assert 8.0 < track.rate <= 9.7, "ninety requests in ten seconds, and not only its own forty-eight"
    assert one.moved(mark, 1005.0) < -1.0


def test_few_requests_are_not_worth_telling() -> None:
    one = watch(EmbeddedStore())
    for now in range(7):
        one.ended(marks(b"session"), PERSON, 200, 1000.0 + now)
    assert one.deadline == NEVER and one._busy == {}


def test_who_is_told_of_is_bounded() -> None:
    one = watch(EmbeddedStore())
    for client in range(200):
        for now in range(9):
            one.ended(marks(client=f"192.0.2.{client}"), PERSON, 200, 1000.0 + now * 0.01)
    assert len(one._busy) == 64


def test_a_store_that_does_not_answer_changes_nothing() -> None:
    answers: list[Any] = []
    one = watch(SimpleNamespace(admit=lambda charges, lease, done: answers.append((charges, done))))
    for now in range(20):
        one.ended(marks(), PERSON, 200, 1000.0 + now * 0.01)
    one.expire(1005.0)
    (((charge,), done),) = answers
    assert charge.cost == 20
    track = one._behaviour.tracks(marks().keys, 1005.0)[0]
    done(SimpleNamespace(verdicts=()))
    done(SimpleNamespace(verdicts=(SimpleNamespace(stamp=0, remaining=0),)))
    assert track.rate == 0.0


@pytest.mark.parametrize(("status", "errors"), [(200, 0), (0, 0), (399, 0), (400, 1), (404, 1), (499, 1), (500, 0)])
def test_what_counts_as_an_error(status: int, errors: int) -> None:
    one = watch(EmbeddedStore())
    one.ended(marks(), PERSON, status, 1000.0)
    assert [track.errors for track in one._behaviour.tracks(marks().keys, 1000.0)] == [errors] * 2


def test_signals_of_a_fingerprint() -> None:
    one = watch(EmbeddedStore())
    for n in range(4):
        one.ended(marks(client=f"192.0.2.{n}", agent=b"curl/8" if n == 0 else CHROME), CAUGHT if n == 0 else PERSON, 200, 1000.0)
    found = one.signal(prints_of("chromium").ja4, 1001.0)
    assert found is not None and (found.heuristic, found.browser, found.h2h3, found.addresses_rank) == (25, 75, 100, 1)
    assert one.signal("", 1001.0) is None and one.signal("t13d", 1001.0) is None


# -- what a session's requests were like ------------------------------------------------------------------------------

SESSION = Session(b"session", 1000, 1000, 1, 0.0, 0)
LOW = Score(20, "Machine Learning")


def pulls(one: Watch, mark: Marks, *scores: Score, session: Session = SESSION) -> list[float]:
    return [one.pull(mark, session, score, 1000.0) for score in scores]


def test_a_session_draws_scores_and_keeps_its_average() -> None:
    one, mark = watch(EmbeddedStore()), marks(b"session")
    assert pulls(one, mark, *[PERSON] * 10) == [0.0] * 10
    kept = one.kept(SESSION)
    assert (kept.requests, kept.whose) == (10, mark.whose) and kept.odds == pytest.approx(ODDS[80])
    assert pulls(one, mark, LOW) == [UP]
    other = watch(EmbeddedStore())
    assert pulls(other, mark, LOW, session=kept) == [UP], "another worker knows it from the cookie"
    assert other.kept(kept).requests == 11
    assert pulls(one, mark, LOW, session=kept._replace(odds=-9.0)) != [-1.0], "an old cookie does not replace what is newer"
    assert pulls(one, mark, LOW, session=kept._replace(odds=-9.0, requests=99)) == [-1.0]


def test_a_session_gives_nothing_to_other_programs() -> None:
    one, mark = watch(EmbeddedStore()), marks(b"session")
    kept = SESSION._replace(requests=500, odds=ODDS[99], whose=mark.whose)
    other = marks(b"session", agent=b"Mozilla/5.0 (X11)")
    assert other.whose != mark.whose and pulls(one, other, LOW, session=kept) == [0.0]
    hello = Marks(request([(b"user-agent", CHROME)], prints_of("curl")), "192.0.2.1", b"session")
    assert hello.whose not in {mark.whose, other.whose, 0} and pulls(one, hello, LOW, session=kept) == [0.0]
    blind = Marks(request([(b"user-agent", CHROME)], None), "192.0.2.1", b"session")
    assert blind.whose == 0 and pulls(one, blind, LOW, session=kept) == [0.0], "nobody knows what it is"
    assert pulls(one, mark, LOW, session=kept) == [UP]


def test_a_browser_that_changes_its_protocol_has_an_average_again() -> None:
    """The cookie tells of the one before until it is written again, and is no newer than what this worker counts."""
    one, before, now = watch(EmbeddedStore()), marks(b"session"), marks(b"session", agent=CHROME + b" now")
    kept = SESSION._replace(requests=500, odds=ODDS[99], whose=before.whose)
    assert pulls(one, now, *[PERSON] * 10, session=kept) == [0.0] * 10
    assert pulls(one, now, LOW, session=kept) == [UP] and one.kept(kept).requests == 11


def test_the_first_answer_of_a_session_is_no_pause() -> None:
    """It is known from when it was scored on, and counted when its answer is over: a minute later with a stream."""
    one, mark = watch(EmbeddedStore()), marks(b"session")
    pulls(one, mark, PERSON)
    one.ended(mark, PERSON, 200, 1060.0)
    track = one._behaviour.tables[0].find(b"session")
    assert track is not None and (track.requests, track.pauses, track.pause) == (1, 0, 0.0)
    one.ended(mark, PERSON, 200, 1065.0)
    assert (track.pauses, track.pause) == (1, 5.0)


def test_only_the_models_word_is_averaged() -> None:
    one, mark = watch(EmbeddedStore()), marks(b"session")
    assert pulls(one, mark, CAUGHT, Score(2, "Heuristics")) == [0.0, 0.0]
    assert one.kept(SESSION) is SESSION and marks(b"").whose == 0
    for off in (BotBehaviour(smooth=False), BotBehaviour(enabled=False)):
        one.weigh(off)
        assert pulls(one, mark, PERSON, LOW) == [0.0, 0.0]
    one.weigh(BotBehaviour())
    assert pulls(one, mark, *[PERSON] * 9, LOW)[-1] == UP
