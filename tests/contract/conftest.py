# What the contract suites run over: the protocols (one joins by an implementation in wires.py and its name here), and the
# stores of shared state (one joins in tests/support/stores.py).
from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from support.stores import FACTORIES, Hand, Stand

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


@pytest.fixture(params=sorted(FACTORIES))
async def stand(request: pytest.FixtureRequest) -> AsyncIterator[Stand]:
    async with FACTORIES[request.param]() as stand:
        yield stand


@pytest.fixture
def hand(stand: Stand) -> Hand:
    if stand.hand is None:
        pytest.skip("the clock is the server's own")
    return stand.hand
