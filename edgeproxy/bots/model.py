# The trained model: a file in, a probability out. What its engine raises is for who asks: a score that fails is counted.
"""`load` opens a model and checks that it was trained for our features; `Model.predict` scores one row.

Shipped: `data/model.onnx` with `data/model.json` beside it (features, version, how it was trained). An operator's own model is
such a pair, too. The engine is onnxruntime (extra `bots`), one thread: a row takes ten microseconds, a hand-over to a pool more
than that.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, NamedTuple

from edgeproxy.bots.features import NAMES

SHIPPED: Final = Path(__file__).parent / "data" / "model.onnx"
LEAST, MOST = 2, 99  # scores of the model: 1 is for what is certain, 0 for "not computed"
_LARGEST: Final = 16 << 20  # bytes of a model file


class ModelError(Exception):
    """The model cannot be used; says why and what to do."""


class Manifest(NamedTuple):
    """What a model says of itself (`model.json`).

    Attributes:
        name: with its version; in logs.
        features: the vector's names that it reads, in its order.
        knots: points of human probability (0..1, rising) and score (2..99) that scores are drawn between.
    """

    name: str
    features: tuple[str, ...]
    knots: tuple[tuple[float, float], ...]


class Model:
    """One loaded model. Not to be shared between threads."""

    __slots__ = ("_answer", "_array", "_binding", "_pick", "_run", "manifest")

    def __init__(self, session: Any, numpy: Any, manifest: Manifest) -> None:
        self.manifest = manifest
        picked = [NAMES.index(name) for name in manifest.features]
        self._pick = itemgetter(*picked) if len(picked) > 1 else lambda vector: (vector[picked[0]],)
        # The engine reads the row and writes its answer where they are: nothing is made or copied for one.
        self._array = numpy.zeros((1, len(picked)), dtype=numpy.float32)
        reads, says = session.get_inputs()[0], session.get_outputs()[-1]
        shape = [size if isinstance(size, int) else 1 for size in says.shape]
        self._answer = numpy.zeros(shape, dtype=numpy.float64 if says.type == "tensor(double)" else numpy.float32)
        self._binding = binding = session.io_binding()
        for bind, name, array in ((binding.bind_input, reads.name, self._array), (binding.bind_output, says.name, self._answer)):
            bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        self._run = session.run_with_iobinding

    def predict(self, vector: list[float]) -> float:
        """The probability that a human asks, 0..1.

        Raises: ModelError (the answer is none), and whatever the engine raises.
        """
        self._array[0] = self._pick(vector)
        answer = self._answer
        answer.fill(-1.0)  # none: what was answered before must not be taken for this one's
        self._run(self._binding)
        value = float(answer.item(answer.size - 1))
        if not 0.0 <= value <= 1.0:
            raise ModelError(f"the model {self.manifest.name} answered {value}, which is no probability")
        return value

    def score(self, vector: list[float]) -> int:
        """The probability as a score, 2 (a program) to 99 (a human). Raises as `predict`."""
        return scaled(self.predict(vector), self.manifest.knots)


def scaled(human: float, knots: tuple[tuple[float, float], ...]) -> int:
    """A probability on the scale that operators know, straight lines between the knots."""
    low = knots[0]
    for high in knots:
        if human <= high[0]:
            width = high[0] - low[0]
            value = high[1] if width <= 0.0 else low[1] + (high[1] - low[1]) * (human - low[0]) / width
            return min(max(round(value), LEAST), MOST)
        low = high
    return min(max(round(knots[-1][1]), LEAST), MOST)


def load(path: Path = SHIPPED) -> Model:
    """Open a model and try it.

    Raises: ModelError.
    """
    manifest = read_manifest(path.with_suffix(".json"))
    try:
        # Here and not above: who scores nothing does not pay 20 MB for the engine.
        import numpy
        import onnxruntime
    except ImportError as e:
        raise ModelError("the bot model needs onnxruntime: pip install 'edgeproxy[bots]'") from e
    try:
        if path.stat().st_size > _LARGEST:
            raise ModelError(f"{path}: larger than {_LARGEST} bytes; that is no model for single requests")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        inputs, outputs = session.get_inputs(), session.get_outputs()
    except ModelError:
        raise
    except Exception as e:  # the engine has exceptions of its own for each kind of broken file
        raise ModelError(f"{path}: {str(e)[:300]}") from e
    if len(inputs) != 1 or not outputs or inputs[0].shape[-1] != len(manifest.features):
        raise ModelError(
            f"{path}: it reads {inputs[0].shape} but {path.with_suffix('.json')} names {len(manifest.features)} features"
        )
    try:
        model = Model(session, numpy, manifest)
    except Exception as e:  # the engine's own
        raise ModelError(f"{path}: {str(e)[:300]}") from e
    try:
        model.predict([0.0] * len(NAMES))
    except Exception as e:  # the same
        raise ModelError(f"{path}: its last output is not a probability of a human, one number of 0..1") from e
    return model


def read_manifest(path: Path) -> Manifest:
    """What stands beside a model.

    Raises: ModelError.
    """
    try:
        data = json.loads(path.read_text("utf-8"))
        features = tuple(str(name) for name in data["features"])
        knots = tuple((float(human), float(score)) for human, score in data["knots"])
        made = Manifest(str(data["name"]), features, knots)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ModelError(f"{path}: no description of a model ({type(e).__name__}: {e})") from e
    if unknown := [name for name in features if name not in NAMES]:
        raise ModelError(f"{path}: this edge has no feature {', '.join(unknown[:5])}; train the model anew (make bots-train)")
    if not features or len(set(features)) != len(features):
        raise ModelError(f"{path}: its features are empty or come twice")
    rising = all(one[0] < other[0] and one[1] <= other[1] for one, other in pairwise(knots))
    if len(knots) < 2 or not rising or not all(math.isfinite(x) for knot in knots for x in knot):
        raise ModelError(f"{path}: `knots` must be two or more pairs of rising probability and score")
    return made


@lru_cache(maxsize=4)
def _kept(path: Path, _changed: tuple[int, int]) -> Model:
    return load(path)


def load_once(path: Path = SHIPPED) -> Model:
    """The same model for the same files: a reload of the configuration need not read it again.

    Raises: ModelError.
    """
    try:
        changed = tuple(each.stat().st_mtime_ns for each in (path, path.with_suffix(".json")))
    except OSError as e:
        raise ModelError(f"{path}: {e.strerror}") from e
    return _kept(path, (changed[0], changed[1]))
