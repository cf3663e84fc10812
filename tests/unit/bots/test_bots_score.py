# A score has one number and its reasons; what fails inside it is "not computed", and is told.
"""bots/score.py."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bots import PAGE, but, request

from edgeproxy.bots import score as module
from edgeproxy.bots.catalogue import Bot
from edgeproxy.bots.heuristics import BY_ID
from edgeproxy.bots.identity import NOBODY, Verified
from edgeproxy.bots.model import Manifest
from edgeproxy.bots.score import NOT_COMPUTED, Score, Scorer

NOW = 1_800_000_000.0
BOT = Bot("Goodbot", "Good Inc.", "Search Engine Crawler")
GOOD = Verified(BOT, True, "dns", False, BOT, False, False, "", "")
CURL = [(b"user-agent", b"curl/8.14.1")]


class FakeModel:
    """Says what it is told to."""

    def __init__(self, chance: float) -> None:
        self.chance = chance
        self.manifest = Manifest("fake-1", ("protocol",), ((0.0, 2.0), (0.5, 30.0), (1.0, 99.0)))
        self.asked = 0

    def predict(self, vector: list[float]) -> float:
        self.asked += 1
        return self.chance


class BrokenModel(FakeModel):
    """Its engine raises."""

    def predict(self, vector: list[float]) -> float:
        self.asked += 1
        raise RuntimeError("the engine")


def scorer(chance: float = 0.5) -> tuple[Scorer, FakeModel, list[Exception]]:
    model, broken = FakeModel(chance), list[Exception]()
    return Scorer(model, broken.append), model, broken  # type: ignore[arg-type]  # a Model


@pytest.mark.parametrize(("chance", "value"), [(0.0, 2), (0.25, 16), (0.5, 30), (1.0, 99)])
def test_the_model_scores_what_no_heuristic_catches(chance: float, value: int) -> None:
    score = scorer(chance)[0].score(request(PAGE), NOW)
    assert (score.value, score.source, score.chance, score.ids) == (value, "Machine Learning", chance, [])
    assert score.reasons() == [f"The model takes its fingerprints and headers for a person's with a chance of {chance:.0%}."]


def test_heuristics_are_certain_and_the_model_is_not_asked() -> None:
    made, model, broken = scorer(0.99)
    score = made.score(request(CURL), NOW, GOOD)
    assert (score.value, score.source, score.chance, score.identity) == (1, "Heuristics", None, GOOD)
    assert score.ids == [1003] and model.asked == 0 and broken == []
    assert score.reasons() == [
        "It is Goodbot of Good Inc., verified by dns.", "The User-Agent is that of a program or a library.",
    ]  # fmt: skip
    assert score.verified and not made.score(request(CURL), NOW, NOBODY).verified


def test_without_a_model_nothing_is_computed() -> None:
    made = Scorer(None, pytest.fail)
    score = made.score(request(PAGE), NOW, GOOD)
    assert (score.value, score.source, score.identity, score.verified) == (0, "Not Computed", GOOD, True)
    assert made.score(request(CURL), NOW).value == 1


def test_an_engine_that_raises_is_told_and_the_rest_of_the_score_stays() -> None:
    broken: list[Exception] = []
    made = Scorer(BrokenModel(0.5), broken.append)  # type: ignore[arg-type]  # a Model
    score = made.score(request(but(PAGE, b"sec-ch-ua")), NOW, GOOD)
    assert [str(each) for each in broken] == ["the engine"]
    assert (score.value, score.source, score.ids, score.verified) == (0, "Not Computed", [6001], True)


@pytest.mark.parametrize("name", ["View", "detect", "vector", "scaled"])
def test_whatever_raises_is_told_and_not_computed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError(name)

    monkeypatch.setattr(module, name, raises)
    made, _, broken = scorer()
    assert made.score(request(PAGE), NOW) is NOT_COMPUTED
    assert [str(each) for each in broken] == [name]


@given(st.integers(0, 99), st.floats(-3, 1, allow_nan=False), st.booleans())
def test_evidence_is_bounded(value: int, moved: float, passed: bool) -> None:
    before = Score(value, "Machine Learning" if value > 1 else "Heuristics", (BY_ID[1003],) if value == 1 else ())
    after = before.with_evidence(moved, passed=passed)
    assert before.value == value and not before.passed and before.moved == 0.0, "it is shared by exchanges"
    if value < 2:
        assert after.value == value and after.source == before.source
    else:
        assert 2 <= after.value <= 99
        if moved >= 0:
            assert after.value >= value
        elif not passed:
            assert after.value <= value
    assert (after.passed, after.moved) == (passed, moved if value else 0.0)
    assert after.ids == before.ids and after.reasons()[: len(before.detections)] == before.reasons()[: len(before.detections)]


def test_who_changed_it() -> None:
    model = Score(20, "Machine Learning", (), 0.3)
    assert model.with_evidence(0.0) is model
    assert model.with_evidence(-1.0).source == "Behavioral Analysis"
    assert model.with_evidence(0.0, passed=True).source == "JS Fingerprinting"
    assert model.with_evidence(0.001).source == "Machine Learning", "the number is the same"
    assert "speaks against a person" in " ".join(model.with_evidence(-0.5).reasons())
    assert "speaks for a person" in " ".join(model.with_evidence(0.5).reasons())
    assert "passed a challenge" in " ".join(model.with_evidence(0.1, passed=True).reasons())
    assert model.with_evidence(0.1).reasons() == model.reasons(), "too little to be worth telling"


def test_what_the_session_draws_is_the_models_word_still() -> None:
    model = Score(20, "Machine Learning", (), 0.3)
    drawn = model.with_evidence(0.0, pulled=0.5)
    assert (drawn.value, drawn.source, drawn.pulled, drawn.moved) == (29, "Machine Learning", 0.5, 0.0)
    assert "more like a person's" in " ".join(drawn.reasons()) and model.pulled == 0.0
    both = model.with_evidence(-1.0, pulled=-1.0)
    assert (both.value, both.source) == (3, "Behavioral Analysis") and "less like a person's" in " ".join(both.reasons())
    assert Score(1, "Heuristics", (BY_ID[1003],)).with_evidence(0.0, pulled=0.5).value == 1


def test_a_declared_library_that_passes_a_challenge_stays_certain() -> None:
    score = Score(1, "Heuristics", (BY_ID[1003],)).with_evidence(1.0, passed=True)
    assert (score.value, score.passed, score.source) == (1, True, "Heuristics")


def test_what_a_browser_never_leaves_out_is_not_for_the_model() -> None:
    score = scorer()[0].score(request(but(PAGE, b"accept")), NOW)
    assert (score.value, score.ids) == (1, [6006])


def test_names_for_logs_are_few_and_the_weightiest_first() -> None:
    made = Score(1, "Heuristics", tuple(BY_ID[each] for each in (1003, 6001, 6007)))
    assert made.names == ("declared_library", "doubled_fields", "no_client_hints")
    made.moved = -1.0
    assert made.names == ("declared_library", "doubled_fields", "behaviour_against")
    guess = Score(40, "Machine Learning", (BY_ID[6001],), 0.4)
    assert guess.names == ("no_client_hints",)
    assert guess.with_evidence(0.5).names == ("behaviour_for", "no_client_hints")
    assert guess.with_evidence(0.1).names == ("no_client_hints",), "not worth telling"
    assert NOT_COMPUTED.names == ()


def test_a_score_that_was_not_computed_is_not_moved_and_tells_of_a_challenge() -> None:
    made = NOT_COMPUTED.with_evidence(-2.0, passed=True)
    assert (made.value, made.source, made.moved, made.passed, made.names) == (0, "Not Computed", 0.0, True, ())
    assert NOT_COMPUTED.with_evidence(-2.0) is NOT_COMPUTED
