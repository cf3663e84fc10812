# Figures of an evaluation: area under the curve, recall at a rate, intervals. Numbers in, numbers out.
"""`auc`, `recall`, `wilson`, `share`. Scores rise with how human a request looks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
_Z = 1.96  # 95 %


def auc(bots: Numbers, humans: Numbers) -> float:
    """The chance that a human gets more than a bot, ties counting half."""
    both = np.concatenate([bots, humans])
    _, where, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[where]
    return float((ranks[len(bots) :].sum() - len(humans) * (len(humans) + 1) / 2) / (len(bots) * len(humans)))


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share."""
    if of == 0:
        return 0.0, 1.0
    share, square = hits / of, _Z * _Z
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = _Z * math.sqrt(share * (1 - share) / of + square / (4 * of * of)) / (1 + square / of)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def share(hits: int, of: int) -> str:
    """A share with its interval, for people."""
    low, high = wilson(hits, of)
    return f"{100 * hits / max(of, 1):.1f} % ({100 * low:.1f}–{100 * high:.1f})"


def recall(bots: Numbers, humans: Numbers, rate: float) -> tuple[int, float]:
    """Bots below the score that at most `rate` of the humans are below, and that share of humans really."""
    mark = np.sort(humans)[math.floor(rate * len(humans))]
    return int((bots < mark).sum()), float((humans < mark).mean())
