# Waiting for a condition instead of for a time.
"""Polling with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest


async def until(condition: Callable[[], object], within: float = 5.0) -> float:
    """Lets the loop run until `condition()` is true; the seconds it took. Fails after `within` seconds."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > within:
            pytest.fail(f"did not happen within {within} s")
        await asyncio.sleep(0.002)
    return time.monotonic() - began
