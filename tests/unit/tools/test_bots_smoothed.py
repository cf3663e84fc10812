# The figures about smoothing are made with the edge's own averages.
from __future__ import annotations

import random

import pytest

pytest.importorskip("lightgbm")

from support.bots import PAGE, prints_of

from tools.bots.samples import Sample
from tools.bots.smoothed import BEFORE, REQUESTS, programs, session, stolen, table


def sample(client: str, tier: str = "library", agent: bytes = b"a/1") -> Sample:
    headers = [(name, agent if name == b"user-agent" else value) for name, value in PAGE]
    return Sample(client, "group", tier, "variant", 1, b"GET", headers, prints_of("chromium"), 1.0)


def test_a_session() -> None:
    found = session([90] * 19 + [20], random.Random(1))
    assert len(found) == REQUESTS - BEFORE and {plain for plain, _ in found} <= {20, 90}
    assert {drawn for plain, drawn in session([90], random.Random(1)) if plain == 90} == {90}
    assert set(session([1], random.Random(1))) == {(1, 1)}, "what is certain stays"
    mixed = [pair for seed in range(40) for pair in session([90] * 19 + [20], random.Random(seed)) if pair[0] == 20]
    assert mixed and all(20 < drawn <= 29 for _, drawn in mixed)


def test_programs_are_told_apart_by_their_names() -> None:
    of = [sample("x"), sample("x"), sample("x", agent=b"b/1"), sample("synthesised", "human"), sample("y", "human")]
    assert programs(of, [5, 6, 7, 8, 9]) == {"library": [[5, 6]], "human, synthesised": [], "human, captured": []}


def test_a_table() -> None:
    lines = table({"human, captured": [[90, 20]], "library": [[2, 2]]}, 1)
    assert len(lines) == 4 and "| library | 1 | 0 | 0.00 → 0.00 | 100.00 % → 100.00 % |" in lines[3]
    assert "from 66.7 %" in stolen([20, 29, 50]) and "to 33.3 %" in stolen([20, 29, 50])
