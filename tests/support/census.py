# What is alive of ours, counted; and a stretch without the garbage collector, in which cycles stay alive.
"""`census` before and after, `grown` between them, `collector_off` around all of it."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

NOISE = 5  # objects of a class that may come and go (caches, the last plan of a connection)


def census() -> Counter[str]:
    """Our live objects by class, and what the loop and ssl make for us."""
    kinds: Counter[str] = Counter()
    for thing in gc.get_objects():
        kind = type(thing)
        module = kind.__module__ if isinstance(kind.__module__, str) else ""
        if module.startswith(("edgeproxy", "ngh2", "httptools")) or kind.__name__ in {
            "TCPTransport", "EdgeSSLObject", "_SSLSocket", "Task", "Context", "TimerHandle", "Future",
        }:  # fmt: skip
            kinds[f"{module}.{kind.__name__}"] += 1
    return kinds


def grown(before: Counter[str], after: Counter[str]) -> dict[str, int]:
    """Classes with more objects than before, noise left out."""
    return {name: after[name] - before[name] for name in after if after[name] - before[name] > NOISE}


@asynccontextmanager
async def collector_off() -> AsyncIterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.collect()
