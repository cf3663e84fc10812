# What the tables of the case `limits` have in common: the quotas and keys, the exchanges, and whoever keeps so many under way.
"""`SHAPES`, `Load` (asks a store through its contract, again and again) and `timed` (calls a function again and again).

A checked request makes its Charge tuples, asks, and gets its answer; in the shapes that settle it is then settled, with one
Change for each charge. A callback asks for the next one, so that `in flight` requests are always under way. The loop's own
time and the system's share of sockets are in the figures. Keys are drawn from 10,000, as many as a busy minute brings.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import resource
import statistics
import time
from collections.abc import Callable

from bench import proc
from bench.report import Run
from edgeproxy.state.ports import Admission, Change, Charge, Kind, Quota, Store, Verdict

KEYS = 10_000
RATE = "checks/s"
PLENTY = 1_000_000  # so that nobody is refused
MINUTE = 60_000_000
REQUESTS, TOKENS, SLOT, THREE = "requests", "tokens", "tokens and a slot", "three limits of requests"
SHAPES = (REQUESTS, TOKENS, SLOT, THREE)


def cpu() -> float:
    """CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def quotas(kind: Kind, count: int) -> list[Quota]:
    return [Quota(f"limit-{i}", kind, PLENTY, MINUTE) for i in range(count)]


def keys() -> list[bytes]:
    return [random.randbytes(16) for _ in range(KEYS)]


class Exchanges:
    """Exchanges of one shape, with keys of their own for each limit, as a hash of its name with the characteristics gives."""

    __slots__ = ("limits", "settled", "start")

    def __init__(self, shape: str) -> None:
        self.start = random.randbytes(8)
        made = quotas(Kind.GCRA, 3 if shape == THREE else 1)
        if shape == SLOT:
            made.append(Quota("slots", Kind.LEASES, PLENTY, MINUTE))
        self.limits = [(quota, keys(), 2 if shape in (TOKENS, SLOT) and quota.kind == Kind.GCRA else 1) for quota in made]
        self.settled = shape in (TOKENS, SLOT)

    def charges(self, number: int) -> list[Charge]:
        at = number % KEYS
        return [Charge(quota, keys[at], cost) for quota, keys, cost in self.limits]

    def lease(self, number: int) -> bytes:
        """Its name; cheap, as for the edge, which takes the request's id."""
        return self.start + number.to_bytes(8, "big")


def changes(charges: list[Charge], verdicts: tuple[Verdict, ...]) -> list[Change]:
    """A token less than was set aside, and the slot back."""
    return [Change(c.quota, c.key, -1, v.stamp) for c, v in zip(charges, verdicts, strict=True)]


class Load:
    """Requests that are always under way.

    Attributes:
        count: asked until now.
        away: decided without the store; then the machine was too busy, and the figures are not to be trusted.
        took: seconds from asking to the answer, of one in 16 where many are under way.
    """

    def __init__(self, store: Store, shape: str, in_flight: int) -> None:
        self.store = store
        self.loop = asyncio.get_event_loop()
        self.exchanges = Exchanges(shape)
        self.count = 0
        self.away = 0
        self.took: list[float] = []
        self.every = 16 if in_flight >= 16 else 1
        self.live = in_flight
        self.over = asyncio.Event()
        self.ending = False
        for _ in range(in_flight):
            self.ask()

    def ask(self) -> None:
        self.count += 1
        count, exchanges = self.count, self.exchanges
        charges, lease = exchanges.charges(count), exchanges.lease(count)
        began = time.perf_counter()

        def done(admission: Admission) -> None:
            if not count % self.every:
                self.took.append(time.perf_counter() - began)
            if admission.by != "store":
                self.away += 1
            if exchanges.settled and admission.allowed:
                self.store.settle(changes(charges, admission.verdicts), lease)
            if not self.ending:
                self.loop.call_soon(self.ask)
                return
            self.live -= 1
            if not self.live:
                self.over.set()

        self.store.admit(charges, lease, done)


def percentiles(took: list[float]) -> dict[str, float]:
    """Median and 99th percentile in ms; nothing of too few."""
    if len(took) < 100:
        return {}
    cuts = statistics.quantiles(took, n=100)
    return {"p50 ms": 1e3 * cuts[49], "p99 ms": 1e3 * cuts[98]}


class Others:
    """What anything else takes from some cores, from its making on."""

    def __init__(self, cores: set[int] | None = None) -> None:
        self.cores = cores or os.sched_getaffinity(0)
        self.busy, self.began = proc.busy(self.cores), time.monotonic()

    def share(self, used: float) -> dict[str, float]:
        """The further figure of a run: percent of these cores, those CPU seconds left out that are the run's own."""
        took = proc.busy(self.cores) - self.busy - used
        return {"others %": 100 * max(0.0, took) / (time.monotonic() - self.began) / len(self.cores)}


def timed(step: Callable[[int], None], seconds: float) -> Run:
    """Calls `step` with 0, 1, … for as long: CPU µs a call, calls a second."""
    for number in range(2000):
        step(number)
    gc.collect()
    gc.freeze()  # as a worker does: what was there before is not looked through again
    try:
        others, count, began, used = Others(), 0, time.monotonic(), cpu()
        while time.monotonic() - began < seconds:
            for number in range(count, count + 500):
                step(number)
            count += 500
        used = cpu() - used
        return Run(1e6 * used / count, {RATE: count / (time.monotonic() - began), **others.share(used)})
    finally:
        gc.unfreeze()


def ignore(_answer: object) -> None:
    """Nothing more is to be done with it."""
