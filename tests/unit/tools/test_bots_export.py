# LightGBM's trees come out of ONNX as they went in. Needs the extra `bots-tools`.
from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("lightgbm")
pytest.importorskip("onnx")


def test_every_decision_comes_out_the_same() -> None:
    import lightgbm
    import onnxruntime

    from tools.bots.export import to_onnx

    random = np.random.default_rng(1)
    rows = random.integers(0, 6, (3000, 7)).astype(np.float32) / np.float32(3)
    human = (rows[:, 0] + rows[:, 1] * rows[:, 2] > 1.5).astype(int)
    settings = {"objective": "binary", "num_leaves": 9, "verbosity": -1, "num_threads": 1, "use_missing": False}
    booster = lightgbm.train(settings, lightgbm.Dataset(rows, human), 25)
    session = onnxruntime.InferenceSession(to_onnx(booster, [str(n) for n in range(7)], "t"), providers=["CPUExecutionProvider"])
    said = session.run(None, {session.get_inputs()[0].name: rows})[0].ravel()
    assert np.abs(said - booster.predict(rows)).max() < 1e-5
