# The figures of the evaluation, against values worked out by hand or published.
from __future__ import annotations

import numpy as np
import pytest

from tools.bots.figures import auc, recall, wilson


def test_auc_counts_pairs() -> None:
    assert auc(np.array([0.1, 0.2]), np.array([0.8, 0.9])) == 1.0
    assert auc(np.array([0.8, 0.9]), np.array([0.1, 0.2])) == 0.0
    assert auc(np.array([0.1, 0.5]), np.array([0.5, 0.9])) == pytest.approx(3.5 / 4)  # one tie of four pairs


def test_wilson_of_newcombe() -> None:
    """R. G. Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263, 15 of 148 and 0 of 20."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_recall_is_taken_below_what_so_many_humans_get() -> None:
    humans = np.arange(1000) / 1000
    bots = np.array([-1.0, 0.0005, 0.0015, 0.5])
    assert recall(bots, humans, 0.001) == (2, 0.001)
    assert recall(bots, humans, 0.01) == (3, 0.01)
    assert recall(bots, humans, 0.0) == (1, 0.0)
