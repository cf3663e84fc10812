# What is measured over HTTP/3, one function per case; the load Envoy between wrk and the server is not in the figures.
"""The cases over HTTP/3, built like those of cases.py; only what differs is said here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from bench import h3_load, load, probe, proc
from bench.cases import WARM, Bench, Client, Running, Window, client, figures, started, total, window
from bench.children import Child, Failure
from bench.h3_load import Front
from bench.peers import Peer
from bench.report import Run
from bench.upstream import CHUNKS, LARGE

REQUESTS = 64  # under way at a time, over h3_load.CONNECTIONS QUIC connections
STREAMS = 128  # with the 256 of `sse` the load core is full, and what comes late comes merged
PACE = STREAMS * CHUNKS / (CHUNKS * 0.0105)  # chunks a second when nothing is late: 10 ms each and a little for nginx
HANDSHAKES = 600
READY = 15.0  # s from the start to the first right answer


@contextlib.contextmanager
def behind(bench: Bench, peer: Peer, connections: int = h3_load.CONNECTIONS) -> Iterator[tuple[Running, Front]]:
    """A started peer with a load Envoy before it, through which the right answer has come over HTTP/3."""
    at = bench.place(h3=True)
    with (
        started(peer, at, bench.proxy_cores) as run,
        h3_load.front(at.folder, bench.load_cores, at.port, at.cert, connections) as before,
    ):
        probe.until_ready(run.child, before.port, READY, plain=True, bare=peer.bare)
        bench.tls.add("QUIC with TLSv1.3")
        yield run, before


@contextlib.contextmanager
def loaded(bench: Bench, run: Running, before: Front, connections: int, stream: bool = False) -> Iterator[list[load.Result]]:
    """wrk through the load Envoy, warmed up; its result is in the list when the block and wrk have ended."""
    length = WARM + round(bench.seconds + 0.5) + 1
    results: list[load.Result] = []
    with load.wrk(
        run.place.folder,
        before.port,
        cores=bench.load_cores,
        connections=connections,
        seconds=length,
        stream=stream,
        plain=True,
    ) as generator:
        time.sleep(WARM)
        yield results
        generator.wait(length + 20)
        results.append(load.parse_wrk(generator.log.read_text()))


def watched(bench: Bench, run: Running, before: Front, count: Callable[[], int]) -> tuple[Window, dict[str, float]]:
    """The window, and what tells how the load did it."""
    cpu, drops = proc.usage(before.child.pid).cpu, proc.udp_drops()
    seen = window(run.child, count, bench.seconds, bench.proxy_cores)
    cpu, drops = proc.usage(before.child.pid).cpu - cpu, proc.udp_drops() - drops
    return seen, {
        "load Envoy busy %": 100 * cpu / seen.wall,
        "QUIC connections": before.counters()["upstream_cx_active"],
        "UDP drops": drops,
    }


class Meter:
    """CPU seconds of the server under test, of its `load` and of anything else on its cores, since it was made.

    For the cases that do a number of things instead of watching a window.
    """

    def __init__(self, bench: Bench, run: Running, load: Child) -> None:
        self.run, self.load = run, load
        self.cores = proc.core_list(bench.proxy_cores)
        self.began = self.now()

    def now(self) -> tuple[float, ...]:
        pids = (self.run.child.pid, self.load.pid)
        return (time.monotonic(), *(proc.usage(pid).cpu for pid in pids), proc.busy(self.cores), proc.udp_drops())

    def read(self, rest: float = 0.0) -> tuple[float, float, float, dict[str, float]]:
        """CPU of the server and of the load, wall seconds, and figures for the table.

        `rest` seconds more are given to the server for what it does afterwards; they are not in the wall time.
        """
        wall = time.monotonic() - self.began[0]
        time.sleep(rest)
        _, cpu, load, busy, drops = (now - then for now, then in zip(self.now(), self.began, strict=True))
        return (
            cpu,
            load,
            wall,
            {
                "core busy %": 100 * cpu / wall,
                "others %": 100 * max(0.0, busy - cpu) / wall,
                "RSS MB": proc.usage(self.run.child.pid).rss / 1e6,
                "UDP drops": drops,
            },
        )


def broken(before: Front, failed: int) -> list[str]:
    """Flags about QUIC connections that were not as they should be; `failed` connects were before the server listened."""
    counters = before.counters()
    found = {
        "failed QUIC connects": counters["upstream_cx_connect_fail"] - failed,
        "QUIC connections cut by the server": counters["upstream_cx_destroy_remote_with_active_rq"],
    }
    return [f"{count} {text}" for text, count in found.items() if count > 0]


def h3(bench: Bench, peer: Peer) -> Run:
    """The request of `h1` and `h2`: 64 under way over 8 QUIC connections, as fast as it goes."""
    with behind(bench, peer) as (run, before):
        failed = before.counters()["upstream_cx_connect_fail"]  # those from before it listened
        served = bench.upstream.requests()
        with loaded(bench, run, before, REQUESTS) as results:
            seen, more = watched(bench, run, before, before.requests)
        done = figures(seen, results[0], "requests")
        done.more |= more | {"p99 ms": results[0].p99 / 1e3}
        done.flags += broken(before, failed)
        if not peer.bare:
            done.flags += total(bench, served, results[0], REQUESTS)
        return done


def h3_sse(bench: Bench, peer: Peer) -> Run:
    """STREAMS streams of 100 chunks 10 ms apart, begun again as they end; every finished stream's length is compared."""
    if not bench.upstream.lua:
        raise Failure("no lua module in the upstream")
    with behind(bench, peer) as (run, before):
        failed = before.counters()["upstream_cx_connect_fail"]
        arrivals = probe.stream(before.port, plain=True)
        with loaded(bench, run, before, STREAMS, stream=True) as results:
            seen, more = watched(bench, run, before, bench.upstream.chunks)
        done = figures(seen, results[0], "chunks")
        done.more |= more | {"pace %": 100 * seen.units / seen.wall / PACE, "pieces of 100": arrivals}
        done.flags += broken(before, failed)
        if seen.units / seen.wall < 0.5 * PACE:  # as in `sse`: it would merge chunks
            done.flags.append("too slow for the pace")
        return done


def h3_download(bench: Bench, peer: Peer) -> Run:
    """CPU ms for 64 MiB: one download after the other on one QUIC connection until the window's length is over.

    Every byte is compared, by a digest that is made on the load core while it comes in.
    """
    digest = bench.upstream.large()
    with behind(bench, peer, connections=1) as (run, before):
        failed = before.counters()["upstream_cx_connect_fail"]
        probe.download(before.port)
        meter = Meter(bench, run, before.child)
        flags, count = [], 0
        while time.monotonic() - meter.began[0] < bench.seconds:
            if probe.download(before.port) != digest:
                flags = ["the download is not the file"]
            count += 1
        cpu, front_cpu, wall, rest = meter.read()
        size = count * LARGE / 1e6
        more = {"MB/s": size / wall, "MB per CPU s": size / max(cpu, 0.01), **rest, "load Envoy busy %": 100 * front_cpu / wall}
        return Run(1e3 * cpu / count, more, flags + broken(before, failed))


def ready(made: Client, run: Running, bare: bool) -> None:
    """Until a connection with the right answer was made; raises Failure when none is in time."""
    deadline = time.monotonic() + READY
    while True:
        _, flags = made.do("handshakes", port=run.place.port, n=1, bare=bare)
        if not flags:
            return
        if not run.child.alive():
            raise Failure(f"ended with {run.child.process.returncode}:\n{run.child.tail()}")
        if time.monotonic() > deadline:
            raise Failure(f"{flags[0]}\n{run.child.tail()}")
        time.sleep(0.05)


def h3_handshake(bench: Bench, peer: Peer) -> Run:
    """CPU ms of a new QUIC connection: full handshake, one request, close. Eight at a time, a bounded number."""
    if reason := h3_load.missing_client():
        raise Failure(reason)
    at = bench.place(h3=True)
    with started(peer, at, bench.proxy_cores) as run, client(bench, at.folder, "bench.h3_holder") as made:
        ready(made, run, peer.bare)
        bench.tls.add("QUIC with TLSv1.3")
        made.do("handshakes", port=at.port, n=HANDSHAKES // 10, bare=peer.bare)
        time.sleep(0.3)
        meter = Meter(bench, run, made.child)
        count, flags = made.do("handshakes", port=at.port, n=HANDSHAKES, bare=peer.bare)
        cpu, client_cpu, wall, rest = meter.read(rest=0.3)  # the closes are part of it
        more = {"handshakes/s": count / wall, **rest, "client ms": 1e3 * client_cpu / count}
        return Run(1e3 * cpu / count, more, flags)
