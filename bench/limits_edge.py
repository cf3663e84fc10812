# What a limit adds to a proxied request: an edge with one limit beside the same edge without, both up at the same time.
"""`tables(bench, measured)`: added CPU at saturation, and added latency at a low, fixed rate.

Both edges are started afresh for each run. For the CPU each has its own wrk, of which one is stopped at any time: they take
turns every half second (without, with, with, without), and what is shown is the median of the differences of neighbours. The
edge that is not asked costs next to nothing. For the latency one client asks both in turn.

The limit is of requests by ip.src and refuses nobody. What the store did not decide would be refused
(`on_store_failure: closed`), and a run with an error is left out; so that a busy machine does not make one, the deadline is
long.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import http.client
import json
import math
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import cases, load, peers, probe, proc, redis_servers, upstream
from bench.cases import Bench, Running
from bench.children import Child, Failure, watched
from bench.limit_load import Others, percentiles
from bench.peers import Launch, Peer, Place
from bench.redis_servers import Redis
from bench.report import Run, Table, Target

LIMIT = """\
limits:
  - {name: everybody, key: [ip.src], requests: 1000000000, period: 60s}
on_store_failure: closed
store_deadline: 1s
"""
WARM = 2.0  # s of load before the first slice
SLICE, SETTLE = 0.4, 0.1  # s that one of the two is asked and looked at; s before the look
RATE = 100.0  # requests a second to each of the two edges
ONE, TWO, REDIS = "embedded, one worker", "embedded, two workers", "Redis, one worker"
ADDED_P50 = 0.3  # ms

Actions = dict[str, Callable[[], Run]]


def configured(more: str) -> Peer:
    """edgeproxy with more in its configuration."""
    plain = peers.edgeproxy()

    def launch(at: Place) -> Launch:
        made = plain.launch(at)
        with (at.folder / "edge.yaml").open("a") as file:
            file.write(more)
        return made

    return dataclasses.replace(plain, launch=launch)


def limited(store: str | None) -> Peer:
    """edgeproxy with one limit more."""
    return configured(LIMIT + (f"store: {json.dumps(store)}\n" if store else ""))


def told(port: int) -> bool:
    """Whether an answer tells the client of a limit: then there is one, and it was asked."""
    connection = probe.connect(port, 10)
    try:
        connection.request("POST", "/v1/chat/completions", upstream.QUESTION, probe.HEADERS)
        answer = connection.getresponse()
        answer.read()
        return "RateLimit" in answer.headers
    except (OSError, http.client.HTTPException) as error:
        raise Failure(f"no answer: {error!r}") from error
    finally:
        connection.close()


@contextlib.contextmanager
def pair(bench: Bench, workers: int, store: str | None) -> Iterator[tuple[Running, Running]]:
    """An edge without limits, and one with.

    Raises: Failure.
    """
    plain, more = peers.edgeproxy(), limited(store)
    with cases.running(bench, plain, workers) as without, cases.running(bench, more, workers) as having:
        for run, expected in ((without, False), (having, True)):
            if told(run.place.port) != expected:
                raise Failure("an answer tells of a limit where there is none, or of none where there is one")
        yield without, having


@dataclass(frozen=True, slots=True)
class Slice:
    """What happened while one of the two was asked: CPU seconds of its processes and of redis-server, requests, seconds."""

    cpu: float
    server: float
    requests: int
    wall: float


class Loads:
    """Two wrk, of which one runs at a time; the other is stopped (SIGSTOP), its connections stay."""

    def __init__(
        self, bench: Bench, edges: tuple[Running, Running], seconds: int, stack: contextlib.ExitStack, script: str = ""
    ) -> None:
        self.bench = bench
        self.pids = [proc.tree(edge.child.pid, proc.stats()) for edge in edges]
        self.children = [
            stack.enter_context(
                load.wrk(
                    edge.place.folder,
                    edge.place.port,
                    cores=bench.load_cores,
                    connections=cases.H1_CONNECTIONS,
                    seconds=seconds,
                    more=script,
                )
            )
            for edge in edges
        ]
        stack.callback(self.go_on)  # before they are ended: what is stopped hears no SIGTERM

    def stop(self, which: int) -> None:
        self.children[which].process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        for child in self.children:
            child.process.send_signal(signal.SIGCONT)

    def look(self, which: int, redis: Redis | None) -> Slice:
        """Totals until now, as a slice from the beginning of time."""
        used = sum(proc.spent(pid) for pid in self.pids[which])
        server = redis.cpu() if redis is not None else 0.0
        return Slice(used, server, self.bench.upstream.requests(), time.monotonic())

    def slice(self, which: int, seconds: float, redis: Redis | None) -> Slice:
        """One of them runs; its beginning, and what is left of the other's requests, are not in the figures."""
        self.children[which].process.send_signal(signal.SIGCONT)
        time.sleep(SETTLE)
        a = self.look(which, redis)
        time.sleep(seconds)
        b = self.look(which, redis)
        self.stop(which)
        return Slice(b.cpu - a.cpu, b.server - a.server, b.requests - a.requests, b.wall - a.wall)

    def errors(self, seconds: float) -> list[str]:
        """Flags, when both have come to their end."""
        self.go_on()
        found = set()
        for child in self.children:
            child.wait(seconds)
            found |= set(load.parse_wrk(child.log.read_text()).errors)
        return [f"{kind} errors" for kind in sorted(found)]


def turns(seconds: float) -> list[int]:
    """Which of the two is asked: 0 1 1 0 0 1 1 0 …, each for `seconds` in total at least."""
    return [0, 1, 1, 0] * max(1, math.ceil(seconds / SLICE / 2))


def added_cpu(bench: Bench, workers: int, redis: Redis | None) -> Run:
    """CPU µs that the limit adds to a request, all processes of the edge counted."""
    with pair(bench, workers, redis.url if redis is not None else None) as edges:
        return in_turn(bench, edges, redis)


def in_turn(bench: Bench, edges: tuple[Running, Running], redis: Redis | None = None, script: str = "") -> Run:
    """CPU µs that the second of two edges takes more for a request than the first.

    Args:
        script: see `load.wrk`.
    """
    order = turns(bench.seconds)
    length = math.ceil(WARM + len(order) * (SETTLE + SLICE) * 1.2) + 1
    with contextlib.ExitStack() as stack:
        loads = Loads(bench, edges, length, stack, script)
        time.sleep(WARM)  # both: handshakes, the pools and the interpreter's specialisation are behind them
        loads.stop(0)
        loads.stop(1)
        others = Others(proc.core_list(bench.proxy_cores))
        slices = [loads.slice(which, SLICE, redis) for which in order]
        share = others.share(0.0)
        flags = loads.errors(length + 20)
    run = compared(order, slices, redis=redis is not None)
    busy = run.more.get("core busy %", 0.0)
    run.more["others %"] = max(0.0, share["others %"] - busy)
    run.flags += flags
    return run


def compared(order: list[int], slices: list[Slice], *, redis: bool) -> Run:
    """The median of the differences of neighbours, of which one is without and one with: what drifts cancels out."""
    if any(slice.requests <= 0 for slice in slices):
        return Run(None, flags=["nothing was relayed"])
    costs = [1e6 * slice.cpu / slice.requests for slice in slices]
    pairs = [costs[at : at + 2] if order[at] == 0 else costs[at : at + 2][::-1] for at in range(0, len(order), 2)]
    having = [slice for which, slice in zip(order, slices, strict=True) if which]
    more = {"without": statistics.median(a for a, _ in pairs), "with": statistics.median(b for _, b in pairs)}
    if redis:
        more["redis-server µs"] = statistics.median(1e6 * slice.server / slice.requests for slice in having)
    more["core busy %"] = statistics.median(100 * slice.cpu / slice.wall for slice in slices)
    return Run(statistics.median(b - a for a, b in pairs), more)


def paced(bench: Bench, folder: Path, ports: list[int], each: int) -> list[list[float]]:
    """Seconds that answers took, by port.

    Raises: Failure.
    """
    env = {"PYTHONPATH": str(peers.ROOT)}
    command, log = [sys.executable, "-m", "bench.pacer"], folder / "pacer.log"
    with Child(command, cores=bench.load_cores, cwd=folder, log=log, env=env, pipes=True) as child:
        stdin, stdout = child.process.stdin, child.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"ports": ports, "each": each, "rate": RATE}).encode() + b"\n")
        stdin.close()
        with watched(child, 30 + 3 * each / RATE):
            text = stdout.read()
        try:
            found = json.loads(text)
        except ValueError:
            raise Failure(f"the pacer gave no figures: {child.tail(3)}") from None
    if "error" in found:
        raise Failure(f"the pacer: {found['error']}")
    seconds: list[list[float]] = found["seconds"]
    return seconds


def added_latency(bench: Bench, workers: int, redis: Redis | None) -> Run:
    """Milliseconds that the limit adds to the median of the answers' times."""
    each = max(int(RATE * bench.seconds), 100)
    with pair(bench, workers, redis.url if redis is not None else None) as edges:
        pids, others = [edge.child.pid for edge in edges], Others(proc.core_list(bench.proxy_cores))
        used = sum(proc.usage(pid).cpu for pid in pids)
        took = paced(bench, edges[0].place.folder, [edge.place.port for edge in edges], each)
        share = others.share(sum(proc.usage(pid).cpu for pid in pids) - used)
    run = difference(*(percentiles(times) for times in took))
    run.more |= share
    return run


def difference(without: dict[str, float], having: dict[str, float]) -> Run:
    """The difference of the medians in ms, of the 99th percentiles beside it, and all four."""
    more = {"added p99 ms": having["p99 ms"] - without["p99 ms"]}
    for name in ("p50", "p99"):
        more |= {f"{name} without": without[f"{name} ms"], f"{name} with": having[f"{name} ms"]}
    return Run(having["p50 ms"] - without["p50 ms"], more)


def _rows(bench: Bench, action: Callable[[Bench, int, Redis | None], Run], redis: Redis | None) -> Actions:
    rows: Actions = {ONE: functools.partial(action, bench, 1, None), TWO: functools.partial(action, bench, 2, None)}
    if redis is not None:
        rows[REDIS] = functools.partial(action, bench, 1, redis)
    return rows


def tables(bench: Bench, measured: Callable[[Table, Actions], Table]) -> list[Table]:
    """Both tables.

    Args:
        measured: runs the actions of a table in turns and shows it.
    """
    cpu = Table("limits, added CPU", "one limit of requests by ip.src", "added CPU µs/request", against="")
    cpu.targets += [Target(None, most, who, who) for who, most in ((ONE, 8.0), (TWO, 20.0), (REDIS, 15.0))]
    cpu.notes.append("the load of `h1`; all processes of the edge are counted, on the proxy's core; Redis is on the load's")
    cpu.notes.append("everything is in it: finding the limit, making its key, asking, counting, the fields that tell of it")
    late = Table("limits, added latency", "one limit of requests by ip.src", "added p50 ms", against="")
    late.targets.append(Target(None, ADDED_P50, REDIS, REDIS))
    late.notes.append(f"{RATE:.0f} requests a second to each of both edges, over one connection each, in turn")
    with contextlib.ExitStack() as stack:
        redis = None
        if redis_servers.binary() is None:
            cpu.notes.append(redis_servers.MISSING)
            late.notes.append(redis_servers.MISSING)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-bench-redis-")))
            redis = stack.enter_context(redis_servers.server(folder, bench.load_cores))
        return [measured(cpu, _rows(bench, added_cpu, redis)), measured(late, _rows(bench, added_latency, redis))]
