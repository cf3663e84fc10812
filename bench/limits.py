# What a checked request costs with the embedded store: called directly, over its socket with two workers, and when refused.
"""`direct`, `over_socket`, `known`, `refused` and `flooded`: one `Run` each, all processes counted.

Over the socket two worker processes have so many requests under way each and share one server process, as
`edgeproxy serve --workers 2` has them. Called directly the answer comes from inside the call: nothing is ever under way.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import socket
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import uvloop

from bench.children import Failure
from bench.limit_load import KEYS, MINUTE, RATE, Exchanges, Load, Others, changes, cpu, ignore, keys, percentiles, quotas, timed
from bench.report import Run
from edgeproxy.state.embedded import EmbeddedStore
from edgeproxy.state.ports import Admission, Charge, Kind, Quota, Verdict
from edgeproxy.state.refusals import Refusals
from edgeproxy.state.remote import RemoteStore
from edgeproxy.state.server import StoreServer

WARM = 0.3
DEADLINE = 2.0  # s: a busy machine must not make the bench measure what is decided without the store
LEASE = bytes(16)


def direct(shape: str, seconds: float) -> Run:
    """One worker that has the store to itself."""
    store, exchanges = EmbeddedStore(), Exchanges(shape)

    def step(number: int) -> None:
        lease, charges = exchanges.lease(number), exchanges.charges(number)

        def done(admission: Admission) -> None:
            if exchanges.settled:
                store.settle(changes(charges, admission.verdicts), lease)

        store.admit(charges, lease, done)

    return timed(step, seconds)


def known(seconds: float) -> Run:
    """A store elsewhere has said of all keys that they are over their limit: the worker refuses them by itself."""
    refusals, (quota,), now = Refusals(lambda _: Verdict(True, 0, 0, 0, 0)), quotas(Kind.GCRA, 1), time.time_ns() // 1000
    over = keys()
    for key in over:
        refusals.learn([Charge(quota, key, 1)], [Verdict(False, 0, MINUTE, MINUTE, now)], now)

    def step(number: int) -> None:
        if refusals.check([Charge(quota, over[number % KEYS], 1)], now + number % 1000) is None:
            raise Failure("a known refusal was not found")

    return timed(step, seconds)


def refused(seconds: float) -> Run:
    """Every key is over its limit, and the worker's own store says so."""
    store, quota, over = EmbeddedStore(), Quota("limit", Kind.FIXED, 1, 86400_000_000), keys()
    for key in over:
        store.admit([Charge(quota, key, 1)], LEASE, ignore)

    def done(admission: Admission) -> None:
        if admission.allowed:
            raise Failure("somebody was admitted who is over the limit")

    return timed(lambda number: store.admit([Charge(quota, over[number % KEYS], 1)], LEASE, done), seconds)


def flooded(seconds: float) -> Run:
    """Nobody comes twice, and the memory is full."""
    store, quota = EmbeddedStore(), Quota("limit", Kind.FIXED, 100, 86400_000_000)
    for _ in range(200_000):
        store.admit([Charge(quota, random.randbytes(16), 1)], LEASE, ignore)
    return timed(lambda _: store.admit([Charge(quota, random.randbytes(16), 1)], LEASE, ignore), seconds)


# Over the socket: three processes, spoken to through pipes


def serve(listening: socket.socket, cores: set[int], pipe: Connection) -> None:
    os.sched_setaffinity(0, cores)
    loop = uvloop.new_event_loop()
    server = StoreServer()
    loop.run_until_complete(server.start(listening))
    loop.add_reader(pipe.fileno(), lambda: _told(loop, pipe, None))
    loop.run_forever()


def work(path: str, shape: str, in_flight: int, cores: set[int], pipe: Connection) -> None:
    os.sched_setaffinity(0, cores)
    loop = uvloop.new_event_loop()

    async def begin() -> Load:
        store = RemoteStore(loop, path, "closed", 2, deadline=DEADLINE)
        if not await store.start(10):
            raise RuntimeError("no server")
        return Load(store, shape, in_flight)

    load = loop.run_until_complete(begin())
    loop.add_reader(pipe.fileno(), lambda: _told(loop, pipe, load))
    loop.run_forever()


def _told(loop: Any, pipe: Connection, load: Load | None) -> None:
    """Say CPU seconds, requests, and those decided without the store until now, and how long some took since asked before."""
    if pipe.recv() == "end":
        loop.stop()
    elif load is None:
        pipe.send((cpu(), 0, 0, []))
    else:
        os.set_blocking(pipe.fileno(), True)  # the loop wants it otherwise, and thousands of times do not fit at once
        pipe.send((cpu(), load.count, load.away, load.took))
        os.set_blocking(pipe.fileno(), False)
        load.took = []


def over_socket(shape: str, in_flight: int, seconds: float, cores: set[int]) -> Run:
    """Two workers and the process that counts for them.

    Raises: Failure (one of them does not answer).
    """
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as folder, socket.socket(socket.AF_UNIX) as listening:
        path = str(Path(folder) / "store")
        listening.bind(path)
        listening.listen()
        pipes = [context.Pipe() for _ in range(3)]
        processes = [context.Process(target=serve, args=(listening, cores, pipes[0][1]), daemon=True)]
        for pipe in pipes[1:]:
            args = (path, shape, in_flight, cores, pipe[1])
            processes.append(context.Process(target=work, args=args, daemon=True))
        for process in processes:
            process.start()
        try:
            _look([pipe[0] for pipe in pipes])  # until all are there
            time.sleep(WARM)
            before, began, others = _look([pipe[0] for pipe in pipes]), time.monotonic(), Others(cores)
            time.sleep(seconds)
            after, took = _look([pipe[0] for pipe in pipes]), time.monotonic() - began
            used = sum(a[0] - b[0] for a, b in zip(after, before, strict=True))
            share = others.share(used)
        finally:
            for pipe in pipes:
                pipe[0].send("end")
            for process in processes:
                process.join(5)
                if process.is_alive():
                    process.kill()
    checks = sum(a[1] - b[1] for a, b in zip(after, before, strict=True))
    away = sum(a[2] - b[2] for a, b in zip(after, before, strict=True))
    times = [seconds for row in after for seconds in row[3]]
    return Run(1e6 * used / checks, {RATE: checks / took, **percentiles(times), **share}, undecided(away))


def _look(pipes: list[Connection]) -> list[tuple[float, int, int, list[float]]]:
    for pipe in pipes:
        pipe.send("now")
    found = []
    for pipe in pipes:
        if not pipe.poll(20):
            raise Failure("a process of the socket's bench did not answer")
        found.append(pipe.recv())
    return found


def undecided(away: int) -> list[str]:
    """A flag when the store did not decide all: the machine was busy with something else."""
    return [f"{away} decided without the store"] if away else []
