# The bench of limits measures something: its parts run, and count what they asked.
from __future__ import annotations

import pytest

from bench import limits
from edgeproxy.state.ports import Kind


@pytest.mark.parametrize("charges", [1, 2])
def test_direct(charges: int) -> None:
    figure = limits.direct(Kind.GCRA, charges, 0.02)
    assert 0.1 < figure.cost < 10_000 and figure.rate > 10 and str(charges) in figure.name


def test_the_others() -> None:
    for figure in (limits.direct_settled(0.02), limits.known(0.02)):
        assert figure.cost > 0.1 and figure.rate > 10
