# The shipped model, its description and its data belong together; a model of somebody else's is checked before it is used.
from __future__ import annotations

import hashlib
import json
import lzma
import sys
import time
from pathlib import Path

import pytest
from support.bots import PAGE, request

from edgeproxy.bots.features import NAMES, VERSION, vector
from edgeproxy.bots.model import SHIPPED, Model, ModelError, load, read_manifest, scaled
from edgeproxy.bots.score import Scorer
from edgeproxy.message import Peer, Request
from tools.bots.samples import ABOUT, CAPTURED, Sample, read, write

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def model() -> Model:
    return load()


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return read(CAPTURED)


def row(sample: Sample) -> list[float]:
    peer = Peer("", trusted=False, secure=True)
    peer.prints = sample.prints
    return vector(Request(sample.method, b"edge.test", b"/", sample.headers, None, sample.protocol, peer), sample.when)


def test_model_description_and_data_agree(model: Model) -> None:
    about = json.loads(SHIPPED.with_suffix(".json").read_text())
    assert about["sha256"] == hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    assert about["features_version"] == VERSION
    assert set(about["features"]) <= set(NAMES)
    assert len(SHIPPED.read_bytes()) < 1 << 20
    captured = json.loads(ABOUT.read_text())
    data = CAPTURED.read_bytes()
    assert about["trained"]["captured"]["sha256"] == captured["sha256"] == hashlib.sha256(data).hexdigest()
    assert len(data) < 2 << 20
    assert model.manifest.knots[0] == (0.0, 2.0)
    assert model.manifest.knots[-1] == (1.0, 99.0)


def test_data_tells_nothing_of_the_machine(samples: list[Sample]) -> None:
    text = lzma.decompress(CAPTURED.read_bytes())
    assert b"localhost" not in text
    assert b"/tmp" not in text
    assert {value for s in samples for name, value in s.headers if name == b"cookie"} <= {b"session=1"}
    assert {value for s in samples for name, value in s.headers if name == b"authorization"} <= {b"Bearer x"}


def test_captured_clients_get_the_scores_they_deserve(model: Model, samples: list[Sample]) -> None:
    """Clients that it was trained with: that the file works, not how good it is (docs/bot-model.md)."""
    scores: dict[str, list[int]] = {}
    for sample in samples:
        score = model.score(row(sample))
        assert 2 <= score <= 99
        scores.setdefault(sample.tier, []).append(score)
    assert min(scores["human"]) >= 60
    assert max(scores["declared"]) < 30
    assert sum(score < 30 for score in scores["library"]) >= 0.99 * len(scores["library"])
    assert sum(score < 30 for score in scores["impersonator"]) >= 0.8 * len(scores["impersonator"])


def test_a_row_that_cannot_be_scored_raises(model: Model) -> None:
    for row in ([], [0.0, 1.0], ["x"] * len(NAMES)):  # what a mistake elsewhere could hand over
        with pytest.raises((IndexError, ValueError)):
            model.predict(row)  # type: ignore[arg-type]  # the last one
    assert 0.0 <= model.predict([float("nan")] * len(NAMES)) <= 1.0  # trees take it for something large


@pytest.mark.parametrize("broken", ["raises", "says nothing", "says nonsense"])
def test_an_engine_that_fails_is_counted_and_the_score_is_0(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_binding: object) -> None:
        if broken == "raises":
            raise RuntimeError(broken)
        if broken == "says nonsense":
            own._answer.fill(7.5)

    own = load()
    monkeypatch.setattr(own, "_run", run)
    told: list[Exception] = []
    score = Scorer(own, told.append).score(request(PAGE), 1_800_000_000.0)
    assert (score.value, score.source, len(told)) == (0, "Not Computed", 1)


def test_scores_are_drawn_between_knots() -> None:
    knots = ((0.0, 2.0), (0.2, 30.0), (0.9, 90.0), (1.0, 99.0))
    assert [scaled(p, knots) for p in (0.0, 0.1, 0.2, 0.55, 0.9, 1.0)] == [2, 16, 30, 60, 90, 99]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"features": ["tls_known", "favourite_colour"]}, "favourite_colour"),
        ({"features": []}, "empty"),
        ({"features": ["tls_known", "tls_known"]}, "twice"),
        ({"knots": [[0.0, 2.0]]}, "knots"),
        ({"knots": [[0.5, 2.0], [0.1, 99.0]]}, "knots"),
        ({"knots": [[0.0, 2.0], ["x", 99.0]]}, "description"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps({**json.loads(SHIPPED.with_suffix(".json").read_text()), **change}))
    with pytest.raises(ModelError, match=reason):
        read_manifest(path)


def test_a_model_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.onnx"
    path.write_bytes(SHIPPED.read_bytes())
    with pytest.raises(ModelError, match=r"own\.json"):
        load(path)
    about = json.loads(SHIPPED.with_suffix(".json").read_text())
    (tmp_path / "own.json").write_text(json.dumps(about))
    assert load(path).manifest.name == about["name"]
    (tmp_path / "own.json").write_text(json.dumps({**about, "features": about["features"][:-1]}))
    with pytest.raises(ModelError, match="features"):
        load(path)
    (tmp_path / "own.json").write_text(json.dumps(about))
    path.write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"own\.onnx"):
        load(path)


def test_without_the_engine_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r"edgeproxy\[bots\]"):
        load()


def test_a_row_is_fast(model: Model, samples: list[Sample]) -> None:
    rows = [row(sample) for sample in samples[:300]]
    times = []
    for values in rows * 3:
        started = time.perf_counter()
        model.score(values)
        times.append(time.perf_counter() - started)
    assert sorted(times)[len(times) // 2] < 500e-6  # fourteen measured; wide for busy machines


def test_samples_come_back_as_they_were_written(tmp_path: Path, samples: list[Sample]) -> None:
    some = samples[:40] + samples[-40:]
    write(tmp_path / "some.xz", some)
    again = read(tmp_path / "some.xz")
    assert [s._replace(prints=None) for s in again] == [s._replace(prints=None) for s in some]  # type: ignore[arg-type]
    assert [(s.prints.hello, s.prints.h2, s.prints.h3) for s in again] == [
        (s.prints.hello, s.prints.h2, s.prints.h3) for s in some
    ]
    assert [row(s) for s in again] == [row(s) for s in some]
