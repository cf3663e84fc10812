# What the edge says with heuristics and model together, for the evaluation: `--scorer tools.bots.combined:score`.
"""`score(sample, model)`: 1 where a heuristic is certain, else what the model said. Behaviour is left out: a sample has none."""

from __future__ import annotations

from edgeproxy.bots.heuristics import detect
from edgeproxy.bots.view import View
from tools.bots.matrix import request_of
from tools.bots.samples import Sample


def score(sample: Sample, model: int) -> int:
    """See the module; a `tools.bots.evaluate.Scorer`."""
    return 1 if any(each.certain for each in detect(View(request_of(sample), sample.prints))) else model
