# Medians, ratios and verdicts: a run in doubt enters none of them, and is never hidden.
from __future__ import annotations

import json

import pytest

from bench import report
from bench.__main__ import interleave
from bench.report import Run, Table, Target


def table(**runs: list[Run]) -> Table:
    return Table("h1", "HTTP/1.1", "µs", [Target("envoy", 0.8)], dict(runs))


def values(*numbers: float) -> list[Run]:
    return [Run(number, {"requests/s": number * 2}) for number in numbers]


def test_median_leaves_doubtful_runs_out() -> None:
    runs = [*values(10, 30, 20), Run(1.0, {"requests/s": 1}, ["7 status errors"]), Run(None, flags=["did not start"])]
    assert report.median(runs) == 20
    assert report.median(runs, "requests/s") == 40
    assert report.median(runs, "unknown") is None
    assert report.median([Run(None)]) is None


def test_ratio_is_taken_within_rounds() -> None:
    # The machine became twice as slow in the second round: the medians' ratio would not be 0.5.
    made = table(edgeproxy=values(10, 20, 20), envoy=values(20, 40, 40))
    assert report.ratio(made, "envoy") == pytest.approx(0.5)


def test_ratio_skips_rounds_in_which_either_is_doubtful() -> None:
    made = table(edgeproxy=[*values(10), Run(99.0, flags=["x"]), *values(30)], envoy=[*values(20, 20), Run(None)])
    assert report.ratio(made, "envoy") == pytest.approx(0.5)
    assert report.ratio(made, "nginx") is None
    assert report.ratio(table(edgeproxy=values(1), envoy=[Run(None)]), "envoy") is None


@pytest.mark.parametrize(("ours", "word"), [(79.9, "reached"), (80.0, "reached"), (80.1, "missed")])
def test_verdict(ours: float, word: str) -> None:
    made = table(edgeproxy=values(ours), envoy=values(100))
    text = report.verdict(made, made.targets[0])
    assert text is not None
    assert text.startswith(word)


def test_verdict_of_an_absolute_bound_and_of_nothing() -> None:
    made = table(edgeproxy=values(300))
    assert report.verdict(made, Target(None, 1000)) == "reached: 300 µs, to reach 1000"
    assert report.verdict(made, Target("envoy", 1)) is None


def test_doubts_are_told() -> None:
    made = table(edgeproxy=[*values(1), Run(2.0, flags=["7 status errors"]), Run(3.0, flags=["7 status errors"])])
    assert report.doubts(made) == ["edgeproxy, 2 of 3 runs left out: 7 status errors"]
    assert report.rows(made)[1][-1] == "2 of 3 runs"
    assert len(report.used(made)) == len(report.rows(made)[0])
    assert len(report.used(table(edgeproxy=values(1)))) == len(report.rows(made)[0]) - 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (12345.6, "12,346"), (123.4, "123"), (12.34, "12.3"), (0.456, "0.46"), (-46.0, "-46.0")],
)
def test_number(value: float | None, text: str) -> None:
    assert report.number(value) == text


def test_json_and_back() -> None:
    made = table(edgeproxy=values(10), envoy=[Run(20.0, {}, ["slow"])])
    data = json.loads(json.dumps(report.dump(made)))
    assert report.load(data) == made
    assert data["medians"] == {"edgeproxy": 10, "envoy": None}


def test_markdown() -> None:
    made = table(edgeproxy=values(70), envoy=values(100))
    made.notes.append("a note")
    result = {
        "date": "2026-01-02",
        "machine": {"cpu": "A CPU", "cores": 2, "memory_gib": 8, "kernel": "Linux 6.1.0"},
        "versions": {"nginx": "1.22.1"},
        "method": {"rounds": 3, "seconds": 5.0, "certificate": "ECDSA P-256", "tls": "TLSv1.3 X"},
        "cases": [report.dump(made)],
    }
    text = report.markdown([json.loads(json.dumps(result))])
    assert "| edgeproxy | 70.0 | 70.0-70.0 | 1.00 | 140 |" in text
    assert "- reached: 0.70 × envoy, to reach 0.80" in text
    assert "- a note" in text
    assert "nginx 1.22.1" in text


def test_rounds_are_interleaved_and_turned_round() -> None:
    assert interleave(["a", "b"], 3) == [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]


def test_a_figure_that_is_to_be_large() -> None:
    made = table(edgeproxy=values(300))
    assert report.verdict(made, Target(None, 500, "n", least="requests/s")) == "reached: 600 requests/s, to reach 500 (n)"
    assert report.verdict(made, Target(None, 50_000, least="requests/s")) == "missed: 600 requests/s, to reach 50,000"
    assert report.verdict(made, Target(None, 1, least="unknown")) is None


def test_ratios_to_nobody_are_not_shown() -> None:
    made = table(edgeproxy=values(10), envoy=values(20))
    everything = report.used(made)
    made.against = ""
    assert report.used(made) == [at for at in everything if at != report.RATIO]
    assert report.rows(made)[0][report.RATIO].endswith("÷ it")
