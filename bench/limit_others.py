# Other people's limiters, each as its own documentation calls it; a program of its own, for an interpreter that has them.
"""`python limit_others.py NAME --seconds S [--redis HOST:PORT] [--in-flight N]`: one line of JSON with what a check cost.

Names: limits-fixed, limits-moving, limits-sliding (the library `limits`; without --redis its sync API in memory, with
`--async` its asyncio one), litellm (LiteLLM's parallel request limiter v3, its hook before a call, with one limit of
requests a minute for each key). Nothing of this repository is imported: LiteLLM has an interpreter of its own.

In memory one check follows the other in one coroutine; with Redis `--in-flight` coroutines do so. Keys are drawn from
10,000, nobody is refused. CPU time is that of this process; it says when its window begins and ends and waits for a line, so that
whoever asks can look at the server's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib import metadata
from typing import Any

KEYS = 10_000
PLENTY = 1_000_000_000
STRATEGIES = {
    "limits-fixed": "FixedWindowRateLimiter",
    "limits-moving": "MovingWindowRateLimiter",
    "limits-sliding": "SlidingWindowCounterRateLimiter",
}
Check = Callable[[int], Any]


class Refused(Exception):
    """A check that should have been allowed was not."""


def drawn() -> list[str]:
    return [os.urandom(16).hex() for _ in range(KEYS)]


def limits_sync(name: str) -> Check:
    storage, strategies = importlib.import_module("limits.storage"), importlib.import_module("limits.strategies")
    item = importlib.import_module("limits").RateLimitItemPerMinute(PLENTY)
    limiter, keys = getattr(strategies, STRATEGIES[name])(storage.MemoryStorage()), drawn()

    def check(number: int) -> None:
        if not limiter.hit(item, keys[number % KEYS]):
            raise Refused

    return check


def limits_async(name: str, redis: str | None) -> Callable[[int], Awaitable[None]]:
    storage, strategies = importlib.import_module("limits.aio.storage"), importlib.import_module("limits.aio.strategies")
    item = importlib.import_module("limits").RateLimitItemPerMinute(PLENTY)
    if redis is None:
        store = storage.MemoryStorage()
    else:
        store = storage.RedisStorage(f"async+redis://{redis}/0", implementation="redispy")
    limiter, keys = getattr(strategies, STRATEGIES[name])(store), drawn()

    async def check(number: int) -> None:
        if not await limiter.hit(item, keys[number % KEYS]):
            raise Refused

    return check


def litellm(redis: str | None) -> Callable[[int], Awaitable[None]]:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # nothing is fetched
    caching = importlib.import_module("litellm.caching.caching")
    hooks = importlib.import_module("litellm.proxy.hooks.parallel_request_limiter_v3")
    types = importlib.import_module("litellm.proxy._types")
    utils = importlib.import_module("litellm.proxy.utils")
    host, _, port = (redis or ":").partition(":")
    behind = caching.RedisCache(host=host, port=int(port)) if redis else None
    cache = caching.DualCache(default_in_memory_ttl=1, redis_cache=behind)  # as its proxy makes it
    limiter = hooks._PROXY_MaxParallelRequestsHandler_v3(internal_usage_cache=utils.InternalUsageCache(cache))
    holders = [types.UserAPIKeyAuth(api_key=key, rpm_limit=PLENTY) for key in drawn()]
    messages = [{"role": "user", "content": "Hello"}]

    async def check(number: int) -> None:  # it raises HTTPException when the key is over its limit
        data = {"model": "gpt-4o-mini", "messages": messages}
        await limiter.async_pre_call_hook(holders[number % KEYS], cache, data, "completion")

    return check


class Window:
    """CPU and wall time between two moments, and how long single checks took."""

    def __init__(self) -> None:
        self.took: list[float] = []
        self.count = 0

    def begin(self) -> None:
        self.took.clear()
        say("begin")
        self.first, self.cpu, self.began = self.count, time.process_time(), time.monotonic()

    def end(self) -> dict[str, float]:
        cpu, wall, count = time.process_time() - self.cpu, time.monotonic() - self.began, self.count - self.first
        say("end")
        found = {"checks": count, "cpu": cpu, "wall": wall}
        if len(self.took) > 1:
            shares = statistics.quantiles(self.took, n=100)
            found |= {"p50": shares[49], "p99": shares[98]}
        return found


def say(word: str) -> None:
    print(word, flush=True)
    sys.stdin.readline()  # whoever asked has looked at the server's clock


def run_sync(check: Check, warm: float, seconds: float) -> dict[str, float]:
    window = Window()

    def until(moment: float) -> None:
        while time.monotonic() < moment:
            for number in range(window.count, window.count + 200):
                check(number)
            window.count += 200

    until(time.monotonic() + warm)
    window.begin()
    until(time.monotonic() + seconds)
    return window.end()


async def run_async(
    make: Callable[[], Callable[[int], Awaitable[None]]], in_flight: int, warm: float, seconds: float
) -> dict[str, float]:
    window, check, ending = Window(), make(), False

    async def load() -> None:
        while not ending:
            number = window.count = window.count + 1
            began = time.perf_counter()
            await check(number)
            if not number % 8:
                window.took.append(time.perf_counter() - began)
            if not number % 64:
                await asyncio.sleep(0)  # what never waits would keep the loop

    tasks = [asyncio.ensure_future(load()) for _ in range(in_flight)]
    await waited(tasks, warm)
    window.begin()
    await waited(tasks, seconds)
    found = window.end()
    ending = True
    await asyncio.gather(*tasks)
    return found


async def waited(tasks: Sequence[asyncio.Future[None]], seconds: float) -> None:
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=[*STRATEGIES, "litellm"])
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--warm", type=float, default=0.5)
    parser.add_argument("--redis", metavar="HOST:PORT")
    parser.add_argument("--async", dest="asynchronous", action="store_true")
    parser.add_argument("--in-flight", type=int, default=1)
    options = parser.parse_args()
    package = options.name.partition("-")[0]
    with contextlib.suppress(ImportError):
        asyncio.set_event_loop_policy(importlib.import_module("uvloop").EventLoopPolicy())
    if package == "limits" and options.redis is None and not options.asynchronous:
        check = limits_sync(options.name)
        gc.freeze()
        found = run_sync(check, options.warm, options.seconds)
    else:

        def make() -> Callable[[int], Awaitable[None]]:
            made = litellm(options.redis) if package == "litellm" else limits_async(options.name, options.redis)
            gc.freeze()  # as a worker of the edge does
            return made

        found = asyncio.run(run_async(make, options.in_flight, options.warm, options.seconds))
    print(json.dumps({**found, "version": metadata.version(package)}))


if __name__ == "__main__":
    main()
