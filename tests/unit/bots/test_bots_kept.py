# What a connection remembers of its heads' scores is what would be found anew.
"""bots/score.py: `shape`, `Heads`."""

from __future__ import annotations

import random
from typing import Any, cast

import pytest

from bench.bots import CHROME, HEADS, prints_of
from edgeproxy.bots.features import vector
from edgeproxy.bots.heuristics import detect
from edgeproxy.bots.identity import NOBODY
from edgeproxy.bots.score import _OF_CONNECTION, UNREAD, Score, Scorer, shape
from edgeproxy.bots.view import View
from edgeproxy.message import Headers, Peer, Request

NOW = 1_800_000_000.0


class Manifest:
    knots = ((0.0, 2.0), (1.0, 99.0))


class Model:
    """Counts how often it is asked."""

    manifest = Manifest()

    def __init__(self) -> None:
        self.asked = 0

    def predict(self, _row: list[float]) -> float:
        self.asked += 1
        return 0.8


def fail(error: Exception) -> None:
    raise error


def scorer() -> tuple[Scorer, Model]:
    model = Model()
    return Scorer(cast("Any", model), fail), model


def peer(client: str | None = "chromium") -> Peer:
    made = Peer("192.0.2.1", trusted=False, secure=True)
    made.prints = prints_of(client) if client is not None else None
    return made


def request(headers: Headers, at: Peer, path: bytes = b"/", method: bytes = b"GET") -> Request:
    return Request(method, b"localhost", path, headers, 0, 1, at)


@pytest.mark.parametrize("client", ["chromium", None])
def test_a_head_of_the_same_shape_is_scored_once(client: str | None) -> None:
    ours, model = scorer()
    at = peer(client)
    first = ours.score(request([*CHROME, (b"cookie", b"a=1")], at), NOW)
    assert first.value > 50
    assert ours.score(request([*CHROME, (b"cookie", b"a=2")], at, b"/other"), NOW) is first
    assert model.asked == 1
    ours.score(request(CHROME, at), NOW)  # without the cookie it is another one
    assert model.asked == 2
    ours.score(request([*CHROME, (b"cookie", b"a=1")], at, method=b"POST"), NOW)
    assert model.asked == 3


def test_what_is_not_read_changes_nothing() -> None:
    dice = random.Random(7)
    for head in HEADS:
        at = peer(head.client)
        headers = [*head.headers, *((name, b"one") for name in sorted(UNREAD) if name not in dict(head.headers))]
        dice.shuffle(headers)
        others: Headers = [(name, b"another" if name in UNREAD else value) for name, value in headers]
        one, other = request(headers, at), request(others, at, b"/elsewhere?x=1")
        assert shape(one) == shape(other)
        assert vector(one, NOW) == vector(other, NOW)
        assert detect(View(one, at.prints)) == detect(View(other, at.prints))


def test_whatever_else_differs_is_another_shape() -> None:
    at = peer()
    base = request(CHROME, at)
    seen = {shape(base)}
    for index, (name, value) in enumerate(CHROME):
        seen.add(shape(request([*CHROME[:index], *CHROME[index + 1 :]], at)))
        if name not in UNREAD:
            seen.add(shape(request([*CHROME[:index], (name, value + b"x"), *CHROME[index + 1 :]], at)))
    seen.add(shape(request(CHROME[::-1], at)))
    seen.add(shape(Request(b"GET", b"localhost", b"/", CHROME, 0, 0, at)))
    upgrade = request(CHROME, at)
    upgrade.upgrade = True
    seen.add(shape(upgrade))
    plain = Peer("192.0.2.1", trusted=False, secure=False)
    seen.add(shape(request(CHROME, plain)))
    changed = sum(name not in UNREAD for name, _ in CHROME)
    assert len(seen) == 1 + len(CHROME) + changed + 4


def test_another_connection_scorer_or_protocol_frame_is_asked_anew() -> None:
    ours, model = scorer()
    at = peer()
    assert at.prints is not None
    ours.score(request(CHROME, at), NOW)
    ours.score(request(CHROME, peer()), NOW)
    assert model.asked == 2
    theirs, other = scorer()
    theirs.score(request(CHROME, at), NOW)  # the configuration was reloaded
    assert other.asked == 1
    ours.score(request(CHROME, at), NOW)
    assert model.asked == 3
    assert at.prints.h2 is not None
    at.prints.h2 = at.prints.h2._replace(window=1)
    assert ours.score(request(CHROME, at), NOW).detections  # it begins otherwise now


def test_what_is_kept_is_bounded_and_failures_and_declared_bots_are_not() -> None:
    ours, model = scorer()
    at = peer()
    assert at.prints is not None
    for number in range(5 * _OF_CONNECTION):
        ours.score(request([*CHROME, (b"x-odd", b"%d" % number)], at), NOW)
        assert at.prints.scores is not None
        assert len(at.prints.scores.scores) <= _OF_CONNECTION
    assert model.asked == 5 * _OF_CONNECTION
    failed = NOBODY._replace(failed=True)
    assert ours.score(request(CHROME, at), NOW, failed).identity is failed
    assert ours.score(request(CHROME, at), NOW, NOBODY).identity is NOBODY
    broken: list[Exception] = []
    silent = Scorer(cast("Any", model), broken.append)
    bad = request(CHROME, peer())
    bad.headers = cast("Any", [*CHROME, (b"user-agent", None)])
    assert isinstance(silent.score(bad, NOW), Score)
    assert silent.score(bad, NOW).value == 0
    assert len(broken) == 2


def test_the_heads_of_the_bench_are_told_apart() -> None:
    assert len({shape(request(head.headers, peer())) for head in HEADS}) == len(HEADS)
