# What a checked request costs a worker with the store in Redis: one server, or a cluster of three.
"""`measure(servers, shape, in_flight, seconds)`: CPU µs of the worker, with redis-server's own in a column beside it.

The worker is this process. Its share of the sockets is in its figure; how a busy server is reached (one EVALSHA for all that
a tick of the loop brings, in a cluster one for each slot) shows in `batch`, exchanges in a script call.
"""

from __future__ import annotations

import asyncio
import gc
import time

import uvloop

from bench.children import Failure
from bench.limit_load import RATE, Load, Others, cpu, percentiles
from bench.limits import DEADLINE, undecided
from bench.redis_servers import Redis
from bench.report import Run
from edgeproxy.state.embedded import steady_clock
from edgeproxy.state.memory import Memory
from edgeproxy.state.redis import Settings
from edgeproxy.state.redis_open import open_redis

WARM = 0.5


def measure(servers: Redis, shape: str, in_flight: int, seconds: float) -> Run:
    """Raises: Failure."""
    gc.collect()
    gc.freeze()  # as a worker does
    try:
        return uvloop.run(_measure(servers, shape, in_flight, seconds))
    finally:
        gc.unfreeze()


async def _measure(servers: Redis, shape: str, in_flight: int, seconds: float) -> Run:
    clock = steady_clock()
    store = open_redis(servers.url, Settings(prefix="bench:", deadline=DEADLINE), Memory(clock()), clock)
    if not await store.ready(10):
        raise Failure("redis-server did not answer")
    load = Load(store, shape, in_flight)
    await asyncio.sleep(WARM)
    load.took.clear()
    count, away, batches = load.count, load.away, store.stats.batches
    others, server, used, began = Others(), servers.cpu(), cpu(), time.monotonic()
    await asyncio.sleep(seconds)
    mine, theirs, took = cpu() - used, servers.cpu() - server, time.monotonic() - began
    share = others.share(mine)
    count, away, batches = load.count - count, load.away - away, store.stats.batches - batches
    times = list(load.took)
    load.ending = True
    async with asyncio.timeout(10):
        await load.over.wait()
    store.close()
    await asyncio.sleep(0)
    more = {
        "redis-server µs": 1e6 * theirs / count,
        RATE: count / took,
        **percentiles(times),
        "batch": count / max(batches, 1),
        **share,
    }
    return Run(1e6 * mine / count, more, undecided(away))
