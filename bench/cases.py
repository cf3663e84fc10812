# What is measured in each case, one function per case: a fresh start of one peer, a warm-up, a window, the checks.
"""The cases. Each function runs one peer once and returns a `Run`; interleaving and medians are done by the caller."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench import load, peers, probe, proc
from bench.children import Child, Failure
from bench.peers import Peer, Place
from bench.report import Run
from bench.upstream import CHUNKS, Upstream

WARM = 2  # s of load before the window: handshakes, the pool and the interpreter's specialisation are behind it
H1_CONNECTIONS = 64
H2_CONNECTIONS, H2_STREAMS = 16, 8
STREAMS = 256
HANDSHAKES = 1500
IDLE, STREAMING = 5000, 1000
SETTLE = 2.0  # s before memory is read: batches, timers and allocators come to rest
UNIT_US = 1e6


@dataclass(slots=True)
class Bench:
    """What all runs share. `cores` are taskset lists; on two cores the load shares its core with the upstream."""

    folder: Path
    certs: Path
    upstream: Upstream
    seconds: float = 5.0
    proxy_cores: str = "0"
    load_cores: str = "1"
    tls: set[str] = field(default_factory=set)
    runs: int = 0

    def place(self, workers: int = 1, h3: bool = False) -> Place:
        self.runs += 1
        return peers.place(self.folder / f"run{self.runs}", self.upstream.port, self.certs, workers, h3)


@dataclass(slots=True)
class Running:
    """A started peer."""

    child: Child
    place: Place


@contextlib.contextmanager
def started(peer: Peer, at: Place, cores: str) -> Iterator[Running]:
    child = peer.start(at, cores)
    try:
        yield Running(child, at)
        if not child.alive():
            raise Failure(f"the proxy ended in the run: {child.tail(3)}")
    finally:
        child.stop()
        for path in at.folder.glob("access.jsonl*"):  # the only file that grows
            path.unlink()


@contextlib.contextmanager
def running(bench: Bench, peer: Peer, workers: int = 1, cores: str | None = None) -> Iterator[Running]:
    """A started peer that has given the right answer."""
    with started(peer, bench.place(workers), cores or bench.proxy_cores) as run:
        probe.until_ready(run.child, run.place.port)
        bench.tls.add(probe.ask(run.place.port))
        yield run


@dataclass(frozen=True, slots=True)
class Window:
    """What happened between two looks: units at the upstream, CPU seconds of the proxy's tree, wall seconds, memory.

    `others` are the CPU seconds that anything else took from the proxy's cores.
    """

    units: int
    cpu: float
    wall: float
    rss: int
    others: float


def window(child: Child, count: Callable[[], int], seconds: float, cores: str) -> Window:
    """Look twice at the counter and at /proc while the load goes on: beginning and end are not in the figures."""
    pinned = proc.core_list(cores)
    units, before, busy, began = count(), proc.usage(child.pid), proc.busy(pinned), time.monotonic()
    time.sleep(seconds)
    after_units, after, after_busy, ended = count(), proc.usage(child.pid), proc.busy(pinned), time.monotonic()
    cpu = after.cpu - before.cpu
    return Window(after_units - units, cpu, ended - began, after.rss, max(0.0, after_busy - busy - cpu))


def figures(seen: Window, result: load.Result, unit: str) -> Run:
    """A run from its window; flagged when the generator saw errors or nothing moved."""
    flags = [f"{count} {kind} errors" for kind, count in result.errors.items()]
    if seen.units <= 0:
        return Run(None, flags=[*flags, "nothing was relayed"])
    if result.requests == 0:
        flags.append("no request came to its end")
    more = {
        f"{unit}/s": seen.units / seen.wall,
        "core busy %": 100 * seen.cpu / seen.wall,
        "others %": 100 * seen.others / seen.wall,
        "RSS MB": seen.rss / 1e6,
    }
    return Run(UNIT_US * seen.cpu / seen.units, more, flags)


def total(bench: Bench, before: int, result: load.Result, in_flight: int) -> list[str]:
    """A flag when the upstream's count and the generator's differ by more than what may be under way at the end."""
    served = bench.upstream.requests() - before
    if abs(served - result.requests) > in_flight + 0.005 * served + 50:
        return [f"{served} requests at the upstream, {result.requests} at the client"]
    return []


def h1(bench: Bench, peer: Peer) -> Run:
    """POST with a short body and a JSON answer, 64 keep-alive connections over TLS, as fast as it goes."""
    with running(bench, peer) as run:
        return h1_load(bench, run)


def h1_heads(bench: Bench, peer: Peer) -> Run:
    """The same with another target in each request: nothing that a proxy keeps of heads helps it."""
    with running(bench, peer) as run:
        return h1_load(bench, run, load.PATHS)


def h1_load(bench: Bench, run: Running, more: str = "") -> Run:
    """Args: `more`: see `load.wrk`."""
    length = WARM + round(bench.seconds + 0.5) + 1
    before = bench.upstream.requests()
    with load.wrk(
        run.place.folder, run.place.port, cores=bench.load_cores, connections=H1_CONNECTIONS, seconds=length, more=more
    ) as generator:
        time.sleep(WARM)
        seen = window(run.child, bench.upstream.requests, bench.seconds, bench.proxy_cores)
        generator.wait(length + 20)
        result = load.parse_wrk(generator.log.read_text())
    done = figures(seen, result, "requests")
    done.more["p99 ms"] = result.p99 / 1e3
    done.flags += total(bench, before, result, H1_CONNECTIONS)
    return done


def h2(bench: Bench, peer: Peer) -> Run:
    """The same request over HTTP/2: 16 connections with 8 streams each."""
    with running(bench, peer) as run:
        length = WARM + round(bench.seconds + 0.5) + 1
        before = bench.upstream.requests()
        with load.h2load(
            run.place.folder,
            run.place.port,
            cores=bench.load_cores,
            connections=H2_CONNECTIONS,
            streams=H2_STREAMS,
            seconds=length,
        ) as generator:
            time.sleep(WARM)
            seen = window(run.child, bench.upstream.requests, bench.seconds, bench.proxy_cores)
            generator.wait(length + 20)
            result = load.parse_h2load(generator.log.read_text())
        done = figures(seen, result, "requests")
        done.flags += total(bench, before, result, H2_CONNECTIONS * H2_STREAMS)
        return done


def sse(bench: Bench, peer: Peer) -> Run:
    """256 streams of 100 chunks 10 ms apart, begun again as they end; every finished stream's length is compared."""
    if not bench.upstream.lua:
        raise Failure("no lua module in the upstream")
    with running(bench, peer) as run:
        arrivals = probe.stream(run.place.port)
        length = WARM + round(bench.seconds + 0.5) + 1
        with load.wrk(
            run.place.folder, run.place.port, cores=bench.load_cores, connections=STREAMS, seconds=length, stream=True
        ) as generator:
            time.sleep(WARM)
            seen = window(run.child, bench.upstream.chunks, bench.seconds, bench.proxy_cores)
            generator.wait(length + 20)
            result = load.parse_wrk(generator.log.read_text())
        done = figures(seen, result, "chunks")
        done.more["pieces of 100"] = arrivals
        # A core that is out of time merges chunks into fewer writes, which looks cheap: the pace must have been kept.
        if seen.units / seen.wall < 0.5 * STREAMS * CHUNKS / (CHUNKS * 0.0105):
            done.flags.append("too slow for the pace")
        return done


class Client:
    """The holder process (or another `module` of its kind), spoken to in JSON lines."""

    def __init__(self, bench: Bench, folder: Path, module: str = "bench.holder") -> None:
        command = [sys.executable, "-m", module]
        env = {"PYTHONPATH": str(peers.ROOT)}
        log = folder / "holder.log"
        self.child = Child(command, cores=bench.load_cores, cwd=folder, log=log, env=env, pipes=True)

    def do(self, step: str, **values: int) -> tuple[int, list[str]]:
        """How many were done and flags about errors; raises Failure when the holder is gone."""
        stdin, stdout = self.child.process.stdin, self.child.process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps({"do": step, **values}).encode() + b"\n")
            stdin.flush()
            line = stdout.readline()
        except OSError as error:
            raise Failure(f"the holder is gone: {error}") from error
        if not line:
            raise Failure(f"the holder ended: {self.child.tail(3)}")
        answer = json.loads(line)
        return answer["done"], [f"{step}: {count}× {text}" for text, count in answer["errors"].items()]


@contextlib.contextmanager
def client(bench: Bench, folder: Path, module: str = "bench.holder") -> Iterator[Client]:
    made = Client(bench, folder, module)
    try:
        yield made
    finally:
        made.child.stop()


def handshake(bench: Bench, peer: Peer) -> Run:
    """CPU ms of a new connection: full handshake, one request, close. Eight at a time, a bounded number."""
    with running(bench, peer) as run, client(bench, run.place.folder) as made:
        made.do("handshakes", port=run.place.port, n=150)
        time.sleep(0.3)
        before = proc.usage(run.child.pid)
        count, flags = made.do("handshakes", port=run.place.port, n=HANDSHAKES)
        time.sleep(0.3)  # the closes are part of it
        after = proc.usage(run.child.pid)
        return Run(1e3 * (after.cpu - before.cpu) / count, {"RSS MB": after.rss / 1e6}, flags)


def memory(run: Running) -> int:
    time.sleep(SETTLE)
    return proc.usage(run.child.pid).rss


def grown(run: Running, base: int, count: int, flags: list[str]) -> Run:
    """KB of RSS per connection, and what the whole tree weighs."""
    now = memory(run)
    return Run((now - base) / 1e3 / count, {"base MB": base / 1e6, "RSS MB": now / 1e6}, flags)


@contextlib.contextmanager
def held(bench: Bench, peer: Peer, count: int) -> Iterator[tuple[Running, Client, int, list[str]]]:
    """A fresh peer whose memory was read after some use, then `count` connections with one request each."""
    with running(bench, peer) as run, client(bench, run.place.folder) as made:
        made.do("handshakes", port=run.place.port, n=50)
        base = memory(run)
        _, flags = made.do("open", port=run.place.port, n=count)
        yield run, made, base, flags


def conns_idle(bench: Bench, peer: Peer) -> Run:
    """RSS per idle TLS connection after one request on each, all at the same time (so each had an upstream connection).

    Beside it the figure after one request on each, one after another: Envoy's differs by a factor of three.
    """
    with held(bench, peer, IDLE) as (run, made, base, flags):
        calm = grown(run, base, IDLE, flags)
        done = grown(run, base, IDLE, flags + made.do("burst")[1])
        done.more["KB one by one"] = calm.value or 0.0
        return done


def conns_streaming(bench: Bench, peer: Peer) -> Run:
    """RSS per TLS connection with a slow stream on it (one chunk a second)."""
    with held(bench, peer, STREAMING) as (run, made, base, flags):
        return streaming(run, made, base, flags)


def streaming(run: Running, made: Client, base: int, flags: list[str]) -> Run:
    flags = flags + made.do("stream")[1]
    done = grown(run, base, STREAMING, flags)
    done.flags += made.do("verify")[1]
    return done


def conns_bulk_idle(bench: Bench, peer: Peer) -> Run:
    """RSS per idle connection after 1 MiB up and 1 MiB down on each: buffers that never shrink show here."""
    with held(bench, peer, STREAMING) as (run, made, base, flags):
        return grown(run, base, STREAMING, flags + made.do("bulk")[1])


def conns_bulk_streaming(bench: Bench, peer: Peer) -> Run:
    """RSS per streaming connection after 1 MiB up and 1 MiB down on each."""
    with held(bench, peer, STREAMING) as (run, made, base, flags):
        return streaming(run, made, base, flags + made.do("bulk")[1])


def start(bench: Bench, peer: Peer) -> Run:
    """Milliseconds from exec to readiness (edgeproxy: /readyz; the others: the first right answer over TLS)."""
    at = bench.place()
    began = time.monotonic()
    child = peer.start(at, bench.proxy_cores)
    more: dict[str, float] = {}
    try:
        if peer.ready:
            while not probe.ready_page(at.admin, peer.ready):
                if time.monotonic() - began > 15 or not child.alive():
                    raise Failure(f"{peer.ready} never answered 200: {child.tail(3)}")
                time.sleep(0.005)
            more["ready page ms"] = 1e3 * (time.monotonic() - began)
        while True:
            try:
                probe.ask(at.port, timeout=5)
                break
            except Failure:
                if time.monotonic() - began > 15 or not child.alive():
                    raise
                time.sleep(0.005)
        more["first answer ms"] = 1e3 * (time.monotonic() - began)
        more["RSS MB"] = proc.usage(child.pid).rss / 1e6
        more["PSS MB"] = proc.pss(child.pid) / 1e6
        return Run(more.get("ready page ms", more["first answer ms"]), more)
    finally:
        child.stop()


def workers(bench: Bench, peer: Peer, count: int, cores: str) -> Run:
    """`h1` with `count` workers, and the largest worker's share of the 64 connections."""
    with running(bench, peer, workers=count, cores=cores) as run:
        done: list[Run] = []
        shares: list[float] = []
        count_before = bench.upstream.requests

        def sampled() -> int:
            held = proc.connections(proc.tree(run.child.pid, proc.stats()), run.place.port)
            if held:
                shares.append(100 * max(held.values()) / sum(held.values()))
            return count_before()

        length = WARM + round(bench.seconds + 0.5) + 1
        with load.wrk(
            run.place.folder, run.place.port, cores=bench.load_cores, connections=H1_CONNECTIONS, seconds=length
        ) as generator:
            time.sleep(WARM)
            seen = window(run.child, sampled, bench.seconds, cores)
            generator.wait(length + 20)
            done.append(figures(seen, load.parse_wrk(generator.log.read_text()), "requests"))
        done[0].more["largest share %"] = max(shares, default=0.0)
        return done[0]
