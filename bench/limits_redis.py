# What a checked request costs a worker with the store in Redis: one server and a cluster of three, on loopback.
"""`python -m bench.limits_redis [--seconds S] [--rounds N] [--cores W,R]`: CPU µs of the worker per checked request.

A checked request makes its Charge tuples, asks, and gets its answer; then a callback asks for the next one, so that
`in flight` requests are always under way. The loop's own time and the system's share of the sockets are in the figure; the
servers', which are other people's, are not. Keys are drawn from 10,000. The servers are started by the bench.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.limits import KEYS, cpu, keys, quotas
from edgeproxy.state.embedded import steady_clock
from edgeproxy.state.memory import Memory
from edgeproxy.state.ports import Admission, Change, Charge, Kind, Quota
from edgeproxy.state.redis import RedisStore, Settings
from edgeproxy.state.redis_open import open_redis

WARM = 0.5
MINUTE = 60_000_000
DEADLINE = 2.0  # seconds: a busy machine must not make the bench measure what is decided without the store
SHAPES = ("1 charge", "3 charges", "tokens and a lease, settled")


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    cost: float  # CPU µs of the worker per checked request
    rate: float  # checked requests per second
    median: float  # ms from asking to the answer
    batch: float  # exchanges in a batch
    away: int  # decided without the store: the machine was busy
    aim: float | None = None


class Load:
    """Requests that are always under way."""

    def __init__(self, store: RedisStore, shape: str, in_flight: int) -> None:
        self.store = store
        self.loop = asyncio.get_running_loop()
        # Keys of their own for each limit, as a hash of its name with the characteristics gives them.
        self.limits = [(quota, keys()) for quota in quotas(Kind.GCRA, 3 if shape == "3 charges" else 1)]
        self.slots = Quota("slots", Kind.LEASES, 1_000_000, MINUTE) if "lease" in shape else None
        self.held = keys()
        self.count = 0
        self.away = 0
        self.took: list[float] = []
        self.live = in_flight
        self.over = asyncio.Event()
        self.ending = False
        for _ in range(in_flight):
            self.ask()

    def ask(self) -> None:
        self.count += 1
        count, lease = self.count, os.urandom(16)
        charges = [Charge(limit, keys[count % KEYS], 1) for limit, keys in self.limits]
        if self.slots is not None:
            charges.append(Charge(self.slots, self.held[count % KEYS], 1))
        began = time.perf_counter()

        def done(admission: Admission) -> None:
            if not count % 16:
                self.took.append(time.perf_counter() - began)
            if admission.by != "store":
                self.away += 1
            if self.slots is not None and admission.allowed:
                back = [Change(c.quota, c.key, -1, v.stamp) for c, v in zip(charges, admission.verdicts, strict=True)]
                self.store.settle(back, lease)
            if not self.ending:
                self.loop.call_soon(self.ask)
                return
            self.live -= 1
            if not self.live:
                self.over.set()

        self.store.admit(charges, lease, done)


async def measure(url: str, name: str, shape: str, in_flight: int, seconds: float, aim: float | None) -> Figure:
    clock = steady_clock()
    store = open_redis(url, Settings(prefix="bench:", deadline=DEADLINE), Memory(clock()), clock)
    if not await store.ready(10):
        raise RuntimeError(f"{name}: no answer")
    load = Load(store, shape, in_flight)
    await asyncio.sleep(WARM)
    before, used, began, sent, away = load.count, cpu(), time.monotonic(), store.stats.batches, load.away
    load.took.clear()
    await asyncio.sleep(seconds)
    count, took = load.count - before, time.monotonic() - began
    cost = (cpu() - used) / count * 1e6
    batch, away, median = count / max(store.stats.batches - sent, 1), load.away - away, statistics.median(load.took) * 1e3
    load.ending = True
    await load.over.wait()
    store.close()
    await asyncio.sleep(0)
    return Figure(f"{name}, {shape}, {in_flight} in flight", cost, count / took, median, batch, away, aim)


@contextmanager
def servers(kind: str, core: int | None) -> Iterator[str]:
    """Started as the tests start them."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from support import redis_server

    start = redis_server.running_server if kind == "redis" else redis_server.running_cluster
    with start() as running:
        for server in getattr(running, "servers", [running]):
            if core is not None:
                os.sched_setaffinity(server.process.pid, {core})
        yield running.url


def figures(seconds: float, cores: list[int]) -> list[Figure]:
    made = []
    if cores:
        os.sched_setaffinity(0, {cores[0]})
    for kind, aim in (("redis", 15.0), ("cluster", 30.0)):
        with servers(kind, cores[1] if cores else None) as url:
            for shape in SHAPES:
                for in_flight in (1, 8, 16, 64):
                    saturated = aim if shape == SHAPES[0] and in_flight >= 16 else None
                    made.append(uvloop.run(measure(url, kind, shape, in_flight, seconds, saturated)))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.limits_redis", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--cores", type=lambda text: [int(n) for n in text.split(",")], default=[], help="of the worker, of the servers"
    )
    options = parser.parse_args()
    rounds = [figures(options.seconds, options.cores) for _ in range(options.rounds)]
    head = f"{'CPU µs':>8} {'spread':>13} {'checks/s':>10} {'p50 ms':>8} {'batch':>6} {'aim':>5} {'local':>6}"
    print(f"{'':52} {head}")
    for row in zip(*rounds, strict=True):
        costs = [figure.cost for figure in row]
        spread = f"{min(costs):.1f}–{max(costs):.1f}"
        aim = "" if row[0].aim is None else f"{row[0].aim:.0f}"
        rate, median = statistics.median(f.rate for f in row), statistics.median(f.median for f in row)
        batch, away = statistics.median(f.batch for f in row), sum(f.away for f in row)
        line = f"{statistics.median(costs):8.2f} {spread:>13} {rate:10,.0f} {median:8.3f} {batch:6.1f} {aim:>5} {away:6}"
        print(f"{row[0].name:52} {line}")


if __name__ == "__main__":
    main()
