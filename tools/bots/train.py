# Trains the shipped model from the captured and synthesised samples. One command, one seed, the same bytes each time.
"""`python -m tools.bots.train [--out DIR] [--seed N]`: model.onnx and model.json, the description that the edge checks."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import lightgbm
import numpy as np
from numpy.typing import NDArray

from edgeproxy.bots import features
from edgeproxy.bots.features import AGREEMENTS, NAMES
from tools.bots.export import to_onnx
from tools.bots.humans import humans
from tools.bots.matrix import Matrix, folds, matrix
from tools.bots.samples import ABOUT, CAPTURED, Sample, read

OUT: Final = Path(__file__).parents[2] / "edgeproxy/bots/data"
SEED: Final = 20_261_122
PEOPLE: Final = 12_000  # synthesised samples of humans
FOLDS: Final = 10
ROUNDS: Final = 80
SETTINGS: Final[dict[str, Any]] = {
    "objective": "binary", "learning_rate": 0.08, "num_leaves": 12, "min_data_in_leaf": 30, "feature_fraction": 0.6,
    "bagging_fraction": 0.8, "bagging_freq": 1, "lambda_l2": 5.0, "max_bin": 63, "use_missing": False, "verbosity": -1,
    "num_threads": 1, "deterministic": True, "force_row_wise": True, "feature_pre_filter": False,
}  # fmt: skip
# Numbers that name one implementation rather than a contradiction: with them a model knows the clients that it saw, and fewer
# others.
UNREAD: Final = frozenset({
    "tls_ciphers", "tls_extensions", "tls_sigalgs", "tls_groups", "tls_grease_ciphers", "tls_grease_extensions",
    "tls_grease_groups",
    "tls_pq_group", "tls_pq_share", "tls_shares", "tls_alps_new", "tls_alps_old", "tls_ech", "tls_trust_anchors",
    "tls_compress_zlib",
    "tls_compress_brotli", "tls_compress_zstd", "tls_delegated", "tls_record_limit", "tls_sct", "tls_ticket", "tls_etm",
    "tls_scsv",
    "tls_weak_ciphers", "tls_formats", "tls_ed25519", "h2_settings", "h2_table", "h2_push_off", "h2_window", "h2_streams",
    "h2_list",
    "h2_frame", "h2_no_priorities", "h2_increment", "h2_tree", "h2_pseudo", "h3_parameters", "h3_settings", "h3_datagram",
    "h3_google", "h3_data", "h3_stream_data", "h3_idle", "h3_pseudo", "coding",
})  # fmt: skip
READ: Final = [name for name in NAMES if name not in UNREAD]
_COLUMNS: Final = [NAMES.index(name) for name in READ]
# Directions that hold for reasons: agreement never speaks against a human, contradiction and age never for one.
_RISING: Final = frozenset(AGREEMENTS)
_FALLING: Final = frozenset({"tls_era", "tls_strange", "h2_strange", "order", "agent_tool", "agent_age", "contradictions"})
_POINTS: Final = ((0.001, 30.0), (0.01, 45.0), (0.1, 75.0), (0.5, 90.0))  # shares of held-out humans below a score


def load(seed: int = SEED) -> list[Sample]:
    """Everything there is. Raises: FileNotFoundError without captured samples, RuntimeError without the human side."""
    captured = read(CAPTURED)
    made = humans(PEOPLE, [s for s in captured if s.tier == "human"], seed)
    if not made:
        raise RuntimeError("training needs ../shared/data/browser-signatures and apify-fingerprint-datapoints")
    return captured + made


def train(data: Matrix, chosen: NDArray[np.bool_], seed: int) -> Any:
    """A booster from the chosen rows. Automation of real browsers is never among them: at this level it is the browser."""
    wanted = chosen & np.array([tier != "automation" for tier in data.tiers])
    directions = [1 if name in _RISING else -1 if name in _FALLING else 0 for name in READ]
    rows = lightgbm.Dataset(
        data.rows[wanted][:, _COLUMNS], data.human[wanted], weight=data.weights[wanted], feature_name=READ, free_raw_data=False
    )
    return lightgbm.train({**SETTINGS, "seed": seed, "monotone_constraints": directions}, rows, ROUNDS)


def ask(booster: Any, data: Matrix, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The probabilities of chosen rows."""
    return np.asarray(booster.predict(data.rows[chosen][:, _COLUMNS]))


def held_out(data: Matrix, seed: int) -> NDArray[np.float64]:
    """Every sample's probability by a model that never saw its implementation."""
    said = np.zeros(len(data.groups))
    groups = np.array(data.groups)
    for part in folds(data.groups, FOLDS):
        out = np.isin(groups, sorted(part))
        said[out] = ask(train(data, ~out, seed), data, out)
    return said


def basis(data: Matrix) -> NDArray[np.bool_]:
    """The humans that scores are drawn by: with a connection, and not contradicting themselves."""
    return np.array([s.client == "synthesised" for s in data.samples]) & data.consistent & ~data.bare


def knots(human: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Score over probability: so that of held-out humans one in a thousand is below 30, half are above 90."""
    made = [(0.0, 2.0)]
    for share, score in _POINTS:
        at = min(max(float(np.quantile(human, share)), made[-1][0] + 1e-4), 0.9999)
        made.append((round(at, 6), score))
    return [*made, (1.0, 99.0)]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args()
    samples = load(given.seed)
    data = matrix(samples, given.seed)
    drawn = knots(held_out(data, given.seed)[basis(data)])
    booster = train(data, np.ones(len(data.groups), dtype=bool), given.seed)
    name = f"edgeproxy-bots-{features.VERSION}"
    content = to_onnx(booster, READ, name)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "model.onnx").write_bytes(content)
    about = json.loads(ABOUT.read_text())
    gains = booster.feature_importance("gain")
    manifest = {
        "name": name,
        "features_version": features.VERSION,
        "features": READ,
        "knots": drawn,
        "sha256": hashlib.sha256(content).hexdigest(),
        "trained": {
            "seed": given.seed, "rounds": ROUNDS, "settings": SETTINGS,
            "packages": {package: version(package) for package in ("lightgbm", "onnx", "apify-fingerprint-datapoints")},
            "captured": {"sha256": about["sha256"], "samples": about["samples"]},
            "rows": dict(sorted(Counter(data.tiers).items())),
            "clients": {key: [row.get("version", ""), row.get("samples", 0)] for key, row in about["clients"].items()},
            "humans": dict(sorted(Counter(s.group for s in samples if s.client == "synthesised").items())),
        },
        "gains": {READ[at]: round(float(gains[at] / gains.sum()), 4) for at in np.argsort(-gains)},
    }  # fmt: skip
    (given.out / "model.json").write_text(json.dumps(manifest, indent=1) + "\n")
    print(f"{len(content)} bytes, {len(data.groups)} rows, knots {drawn}")
    print(json.dumps(manifest["gains"]))


if __name__ == "__main__":
    main()
