# What every test runs on: the event loop of production, and the helpers in tests/support.
"""This file also puts `tests/` on the import path, so that a test says `from support.edge import running_edge`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop, as in production: its transports differ from asyncio's in ways that tests must see."""
    return {"uvloop": uvloop.new_event_loop}
