# The protocols this suite runs over. A protocol joins by an implementation in wires.py and its name here.
from __future__ import annotations

import pytest

from .wires import WIRES


@pytest.fixture(params=sorted(WIRES))
def protocol(request: pytest.FixtureRequest) -> str:
    """The protocol between client and edge."""
    name: str = request.param
    return name


@pytest.fixture(params=sorted(name for name, wire in WIRES.items() if wire.multiplexed))
def multiplexed(request: pytest.FixtureRequest) -> str:
    """A protocol that carries several exchanges over one connection."""
    name: str = request.param
    return name
