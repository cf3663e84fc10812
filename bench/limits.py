# What a checked request costs with the embedded store: called directly, and over its socket with two workers.
"""`python -m bench.limits [--seconds S] [--charges 1,2] [--rounds N]`: CPU µs per checked request, all processes counted.

A checked request makes its Charge tuples, asks, and gets its answer; then a callback asks for the next one. Over the socket
two worker processes have `IN_FLIGHT` requests each under way and share one server process, as `edgeproxy serve --workers 2`
has them; the loops' own time is in the figure. Keys are drawn from 10,000, as many as a busy minute brings.

No peers yet: LiteLLM's limiter and the library `limits` join with the Redis store (issue 5).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop

from edgeproxy.state.embedded import EmbeddedStore
from edgeproxy.state.ports import Charge, Kind, Quota, Verdict
from edgeproxy.state.refusals import Refusals
from edgeproxy.state.remote import RemoteStore
from edgeproxy.state.server import StoreServer

KEYS = 10_000
IN_FLIGHT = 32
WARM = 0.3
MINUTE = 60_000_000
LEASE = bytes(16)


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    cost: float  # CPU µs per checked request
    rate: float  # checked requests per second
    aim: float | None = None
    away: int = 0  # that had no answer in time: the machine was busy, the figure is not to be trusted


def cpu() -> float:
    """CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def quotas(kind: Kind, count: int) -> list[Quota]:
    """Large enough that nobody is refused."""
    return [Quota(f"limit-{i}", kind, 1_000_000, MINUTE) for i in range(count)]


def keys() -> list[bytes]:
    return [random.randbytes(16) for _ in range(KEYS)]


def timed(step: Callable[[int], None], seconds: float) -> tuple[float, float]:
    """Calls `step` for as long; CPU µs a call, calls a second."""
    for i in range(2000):
        step(i)
    count, began, used = 0, time.monotonic(), cpu()
    while time.monotonic() - began < seconds:
        for i in range(count, count + 500):
            step(i)
        count += 500
    return (cpu() - used) / count * 1e6, count / (time.monotonic() - began)


def direct(kind: Kind, charges: int, seconds: float) -> Figure:
    store, limits, known = EmbeddedStore(), quotas(kind, charges), keys()
    cost, rate = timed(lambda i: store.admit([Charge(q, known[i % KEYS], 1) for q in limits], LEASE, ignore), seconds)
    return Figure(f"direct, {kind.name.lower()}, {charges} charge(s)", cost, rate, 8.0)


def direct_settled(seconds: float) -> Figure:
    """Tokens and a slot: reserved, and settled when the exchange is over."""
    store, known = EmbeddedStore(), keys()
    tokens, slots = quotas(Kind.GCRA, 1)[0], Quota("slots", Kind.LEASES, 1000, MINUTE)

    def step(i: int) -> None:
        lease, key = os.urandom(16), known[i % KEYS]

        def done(admission: Any) -> None:
            stamp = admission.verdicts[0].stamp
            store.settle([(tokens, key, -1, stamp), (slots, key, -1, stamp)], lease)  # type: ignore[list-item]  # as Change

        store.admit([Charge(tokens, key, 2), Charge(slots, key, 1)], lease, done)

    cost, rate = timed(step, seconds)
    return Figure("direct, tokens and a lease, settled", cost, rate)


def flooded(seconds: float) -> Figure:
    """Nobody comes twice, and the memory is full."""
    store, (quota,) = EmbeddedStore(), [Quota("limit", Kind.FIXED, 100, 86400_000_000)]
    for _ in range(200_000):
        store.admit([Charge(quota, random.randbytes(16), 1)], LEASE, ignore)
    cost, rate = timed(lambda _: store.admit([Charge(quota, random.randbytes(16), 1)], LEASE, ignore), seconds)
    return Figure("direct, a flood of new keys", cost, rate)


def known(seconds: float) -> Figure:
    refusals, (quota,), now = Refusals(lambda _: Verdict(True, 0, 0, 0, 0)), quotas(Kind.GCRA, 1), time.time_ns() // 1000
    over = keys()
    for key in over:
        refusals.learn([Charge(quota, key, 1)], [Verdict(False, 0, MINUTE, MINUTE, now)], now)

    def step(i: int) -> None:
        if refusals.check([Charge(quota, over[i % KEYS], 1)], now + i % 1000) is None:
            raise RuntimeError("a known refusal was not found")

    cost, rate = timed(step, seconds)
    return Figure("refused locally", cost, rate, 10.0)


def ignore(_answer: Any) -> None:
    """Nothing more is to be done with it."""


# Over the socket


def serve(listening: socket.socket, pipe: Connection) -> None:
    loop = uvloop.new_event_loop()
    server = StoreServer()
    loop.run_until_complete(server.start(listening))
    loop.add_reader(pipe.fileno(), lambda: _told(loop, pipe))
    loop.run_forever()


def work(path: str, charges: int, in_flight: int, pipe: Connection) -> None:
    loop = uvloop.new_event_loop()
    store = RemoteStore(loop, path, "closed", 2)
    if not loop.run_until_complete(store.start()):
        raise RuntimeError("no server")
    limits, drawn, count, away = quotas(Kind.GCRA, charges), keys(), 0, 0

    def ask() -> None:
        nonlocal count
        count += 1
        key = drawn[count % KEYS]
        store.admit([Charge(q, key, 1) for q in limits], LEASE, done)

    def done(admission: Any) -> None:
        nonlocal away
        if admission.by == "store":
            loop.call_soon(ask)
        else:  # the machine was too busy for a deadline; wait until the store is back
            away += 1
            loop.call_later(0.02, ask)

    for _ in range(in_flight):
        ask()
    loop.add_reader(pipe.fileno(), lambda: _told(loop, pipe, lambda: (count - away, away)))
    loop.run_forever()


def _told(loop: Any, pipe: Connection, count: Callable[[], tuple[int, int]] = lambda: (0, 0)) -> None:
    if pipe.recv() == "end":
        loop.stop()
    else:
        pipe.send((cpu(), *count()))


def over_socket(charges: int, in_flight: int, seconds: float) -> Figure:
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "store")
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(path)
        listening.listen()
        pipes = [context.Pipe() for _ in range(3)]
        tasks = [(serve, (listening, pipes[0][1])), *((work, (path, charges, in_flight, p[1])) for p in pipes[1:])]
        processes = [context.Process(target=target, args=args, daemon=True) for target, args in tasks]
        for process in processes:
            process.start()
        try:
            time.sleep(WARM)
            began, before = time.monotonic(), _ask_all(pipes)
            time.sleep(seconds)
            took, after = time.monotonic() - began, _ask_all(pipes)
        finally:
            for pipe in pipes:
                pipe[0].send("end")
            for process in processes:
                process.join(5)
            listening.close()
    checks = sum(a[1] - b[1] for a, b in zip(after, before, strict=True))
    used = sum(a[0] - b[0] for a, b in zip(after, before, strict=True))
    away = sum(a[2] - b[2] for a, b in zip(after, before, strict=True))
    name = f"socket, 2 workers, {in_flight} in flight each, {charges} charge(s)"
    return Figure(name, used / checks * 1e6, checks / took, 20.0, away)


def _ask_all(pipes: list[tuple[Connection, Connection]]) -> list[tuple[float, int, int]]:
    for pipe in pipes:
        pipe[0].send("now")
    return [pipe[0].recv() for pipe in pipes]


def figures(charges: list[int], seconds: float) -> list[Figure]:
    return [
        *(direct(kind, n, seconds) for n in charges for kind in (Kind.GCRA, Kind.FIXED, Kind.SLIDING)),
        direct_settled(seconds),
        flooded(seconds),
        known(seconds),
        *(over_socket(n, in_flight, seconds) for n in charges for in_flight in (IN_FLIGHT, 4, 1)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.limits", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--charges", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    options = parser.parse_args()
    rounds = [figures(options.charges, options.seconds) for _ in range(options.rounds)]
    print(f"{'':52} {'CPU µs':>8} {'spread':>13} {'checks/s':>10} {'aim':>6} {'late':>6}")
    for row in zip(*rounds, strict=True):
        costs = [figure.cost for figure in row]
        spread = f"{min(costs):.1f}–{max(costs):.1f}"
        aim = "" if row[0].aim is None else f"{row[0].aim:.0f}"
        rate, late = statistics.median(figure.rate for figure in row), sum(figure.away for figure in row)
        print(f"{row[0].name:52} {statistics.median(costs):8.2f} {spread:>13} {rate:10,.0f} {aim:>6} {late:6}")


if __name__ == "__main__":
    main()
