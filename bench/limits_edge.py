# What a limit adds to a proxied request: an edge with one limit beside the same edge without, both up at the same time.
"""`tables(bench, measured)`: added CPU at saturation, and added latency at a low, fixed rate.

Both edges are started afresh for each run. For the CPU, wrk asks one of them after the other (without, with, with, without),
so that a machine that becomes slower favours neither; the one that is not asked costs next to nothing. For the latency one
client asks both in turn. The limit is of requests by ip.src and refuses nobody. What the store did not decide would be
refused (`on_store_failure: closed`), and a run with an error is left out; so that a busy machine does not make one, the
deadline is long.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import http.client
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
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
WARM = 1.0  # s of load before each look
TURNS = (False, True, True, False)
RATE = 100.0  # requests a second to each of the two edges
ONE, TWO, REDIS = "embedded, one worker", "embedded, two workers", "Redis, one worker"
ADDED_P50 = 0.3  # ms

Actions = dict[str, Callable[[], Run]]


def limited(store: str | None) -> Peer:
    """edgeproxy with one limit more."""
    plain = peers.edgeproxy()

    def launch(at: Place) -> Launch:
        made = plain.launch(at)
        with (at.folder / "edge.yaml").open("a") as file:
            file.write(LIMIT + (f"store: {json.dumps(store)}\n" if store else ""))
        return made

    return dataclasses.replace(plain, launch=launch)


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


def _turn(bench: Bench, run: Running, seconds: float, redis: Redis | None) -> tuple[Run, float]:
    """wrk asks one edge; CPU µs per request, and redis-server's."""
    length = math.ceil(WARM + seconds + 0.5)
    server = [0.0, 0.0]
    units = []

    def count() -> int:
        server[:] = [server[1], redis.cpu() if redis is not None else 0.0]
        units.append(bench.upstream.requests())
        return units[-1]

    with load.wrk(
        run.place.folder, run.place.port, cores=bench.load_cores, connections=cases.H1_CONNECTIONS, seconds=length
    ) as generator:
        time.sleep(WARM)
        seen = cases.window(run.child, count, seconds, bench.proxy_cores)
        generator.wait(length + 20)
        result = load.parse_wrk(generator.log.read_text())
    return cases.figures(seen, result, "requests"), 1e6 * (server[1] - server[0]) / max(seen.units, 1)


def added_cpu(bench: Bench, workers: int, redis: Redis | None) -> Run:
    """CPU µs that the limit adds to a request, all processes of the edge counted."""
    seconds = max(bench.seconds / 2, 0.5)
    with pair(bench, workers, redis.url if redis is not None else None) as edges:
        turns = [(having, *_turn(bench, edges[having], seconds, redis)) for having in TURNS]
    flags = sorted({flag for _, run, _ in turns for flag in run.flags})
    if any(run.value is None for _, run, _ in turns):
        return Run(None, flags=flags)
    # The smaller of both turns: what disturbs a machine only ever adds.
    least = [min(run.value or 0.0 for having, run, _ in turns if having is which) for which in (False, True)]
    more = {"without": least[0], "with": least[1]}
    if redis is not None:
        more["redis-server µs"] = statistics.mean(server for having, _, server in turns if having)
    more["core busy %"] = min(run.more["core busy %"] for _, run, _ in turns)
    more["others %"] = max(run.more["others %"] for _, run, _ in turns)
    return Run(least[1] - least[0], more, flags)


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
