# The case `limits` without a proxy around it: which rows stand in which table, and what is to be reached.
"""`tables(…)`: what a check costs through the contract of the stores, what a refusal costs, and other people's limiters.

The worker (this process, and theirs) is on the proxy's core, redis-server on the load's. The two workers that share a store
over its socket, and the process they share, have both.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import limit_peers, limits, limits_redis, proc, redis_servers
from bench.limit_load import RATE, REQUESTS, SLOT, THREE, TOKENS
from bench.redis_servers import Redis
from bench.report import EDGE, Run, Table, Target

WINDOW = 0.2  # of --seconds; there are many rows
UNIT = "CPU µs/check"
ONE, TWO, SERVER, CLUSTER = "one worker", "two workers", "one server", "cluster of three"
MANY, SOCKET = 64, 32  # in flight where the aims are set: saturation
SETTLED = "a check is an admission and a settlement of it; a slot is a place of a limit of concurrency"
HOW_LITELLM = "LiteLLM takes part with --litellm PYTHON, an interpreter that has it (see bench/README.md)"

Actions = dict[str, Callable[[], Run]]
Measured = Callable[[Table, Actions], Table]


@dataclass(frozen=True, slots=True)
class Setting:
    """What the tables share.

    Attributes:
        seconds: of a window.
        litellm: an interpreter that has LiteLLM, if one was named.
        one: Redis that runs; None: there is none.
        several: a cluster that runs.
    """

    seconds: float
    proxy_cores: str
    load_cores: str
    litellm: str | None
    one: Redis | None = None
    several: Redis | None = None

    @property
    def all_cores(self) -> set[int]:
        return proc.core_list(self.proxy_cores) | proc.core_list(self.load_cores)


def row(who: str, in_flight: int, shape: str = REQUESTS) -> str:
    """A row's name; the shapes that are not said are those that the aims are set for."""
    more = "" if shape in (REQUESTS, TOKENS) else f", {shape}"
    return f"{who}, {in_flight} in flight{' each' if who == TWO else ''}{more}"


def _embedded(table: Table, setting: Setting, shapes: dict[str, tuple[int, ...]]) -> Actions:
    """Rows by shape, with how many are under way over the socket; their first are the ones with aims."""
    table.against = ""
    actions: Actions = {}
    for shape, numbers in shapes.items():
        alone = ONE if shape in (REQUESTS, TOKENS) else f"{ONE}, {shape}"
        actions[alone] = functools.partial(limits.direct, shape, setting.seconds)
        for number in numbers:
            actions[row(TWO, number, shape)] = functools.partial(
                limits.over_socket, shape, number, setting.seconds, setting.all_cores
            )
    two = row(TWO, SOCKET)
    table.targets += [Target(None, 8.0, ONE, ONE), Target(None, 20.0, two, two)]
    table.targets.append(Target(None, 20_000, ONE, ONE, RATE))
    table.notes.append(
        "one worker has its answer from inside the call; two share a third process, whose CPU time is counted, too"
    )
    return actions


def _redis(table: Table, setting: Setting, shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> Actions:
    """Rows by shape, with how many are under way at one server and at the cluster."""
    table.against = ""
    actions: Actions = {}
    for shape, (single, cluster) in shapes.items():
        for who, servers, numbers in ((SERVER, setting.one, single), (CLUSTER, setting.several, cluster)):
            if servers is None:
                continue
            for number in numbers:
                actions[row(who, number, shape)] = functools.partial(
                    limits_redis.measure, servers, shape, number, setting.seconds
                )
    for who, most in ((SERVER, 15.0), (CLUSTER, 30.0)):
        table.targets.append(Target(None, most, row(who, MANY), row(who, MANY)))
    table.notes.append("CPU of the worker; that of redis-server, of all three in a cluster, stands beside it")
    table.notes.append("batch: exchanges in a script call; in a cluster there is a call for each slot")
    return actions


def embedded(setting: Setting) -> tuple[Table, Actions]:
    """One limit of requests: asked, and answered; nothing of it is settled."""
    table = Table("limits, embedded", "one limit of requests", UNIT)
    return table, _embedded(table, setting, {REQUESTS: (SOCKET, 4, 1), THREE: (SOCKET,)})


def embedded_settled(setting: Setting) -> tuple[Table, Actions]:
    """Admitted with what is set aside, and settled with what was used."""
    table = Table("limits, embedded, settled", "one limit of tokens", UNIT, notes=[SETTLED])
    return table, _embedded(table, setting, {TOKENS: (SOCKET, 4), SLOT: (SOCKET,)})


def redis(setting: Setting) -> tuple[Table, Actions]:
    table = Table("limits, Redis", "one limit of requests", UNIT)
    shapes = {REQUESTS: ((MANY, 16, 8, 1), (MANY, 16, 8)), THREE: ((MANY,), (MANY,))}
    return table, _redis(table, setting, shapes)


def redis_settled(setting: Setting) -> tuple[Table, Actions]:
    table = Table("limits, Redis, settled", "one limit of tokens", UNIT, notes=[SETTLED])
    return table, _redis(table, setting, {TOKENS: ((MANY, 16), (MANY, 16)), SLOT: ((MANY,), (MANY,))})


def refused(setting: Setting) -> tuple[Table, Actions]:
    known, own, flood = "known to be over the limit", "refused by the embedded store", "the embedded store, only new keys"
    table = Table("limits, refused", "refused by the worker", UNIT, against=known)
    table.targets.append(Target(None, 100_000, known, known, RATE))
    table.notes.append(f"{known}: the store said so before and is not asked again")
    table.notes.append("only new keys: nobody comes twice and the memory is full; they are admitted")
    measures = ((known, limits.known), (own, limits.refused), (flood, limits.flooded))
    return table, {name: functools.partial(measure, setting.seconds) for name, measure in measures}


def _packages(setting: Setting, notes: list[str]) -> tuple[str | None, str | None]:
    """Interpreters that have `limits` and LiteLLM; what is not there is noted."""
    reason = limit_peers.why_not(sys.executable, "limits (the extra `bench`)", "limits")
    if reason:
        notes.append(reason)
    mine = setting.litellm or sys.executable
    absent = limit_peers.why_not(mine, "LiteLLM", "litellm")
    if absent:
        notes.append(absent if setting.litellm else HOW_LITELLM)
    return (None if reason else sys.executable), (None if absent else mine)


def versions(litellm: str | None) -> dict[str, str]:
    """Of the other limiters, for the record; and of the server."""
    found = {"limits": limit_peers.version(sys.executable, "limits")}
    found["litellm"] = limit_peers.version(litellm or sys.executable, "litellm")
    found["redis-server"] = redis_servers.version()
    return {name: version for name, version in found.items() if version}


def beside_in_memory(setting: Setting) -> tuple[Table, Actions]:
    table = Table("limits, other limiters in memory", "one limit of requests, in memory", UNIT)
    table.notes.append("one after the other, nobody is refused; asyncio: awaited in one task, on uvloop")
    found = limit_peers.in_memory(*_packages(setting, table.notes))
    actions: Actions = {EDGE: functools.partial(limits.direct, REQUESTS, setting.seconds)}
    for other in found:
        actions[other.name] = functools.partial(limit_peers.run, other, setting.seconds, setting.proxy_cores)
    return table, actions


def beside_in_redis(setting: Setting) -> tuple[Table, Actions]:
    table = Table("limits, other limiters in Redis", "one limit of requests, in Redis", UNIT)
    assert setting.one is not None
    packages = _packages(setting, table.notes)
    table.against = row(EDGE, MANY)
    actions: Actions = {}
    for in_flight in (MANY, 1):
        actions[row(EDGE, in_flight)] = functools.partial(limits_redis.measure, setting.one, REQUESTS, in_flight, setting.seconds)
        for other in limit_peers.in_redis(*packages, in_flight):
            actions[other.name] = functools.partial(
                limit_peers.run, other, setting.seconds, setting.proxy_cores, setting.one.cpu, setting.one.url
            )
    return table, actions


@contextlib.contextmanager
def _servers(cores: str) -> Iterator[tuple[Redis | None, Redis | None]]:
    if redis_servers.binary() is None:
        yield None, None
        return
    with tempfile.TemporaryDirectory(prefix="edge-bench-redis-") as name:
        folder = Path(name)
        with redis_servers.server(folder / "one", cores) as one, redis_servers.cluster(folder / "three", cores) as several:
            yield one, several


def tables(seconds: float, proxy_cores: str, load_cores: str, litellm: str | None, measured: Measured) -> list[Table]:
    """All tables that need no upstream.

    Args:
        measured: runs the actions of a table in turns and shows it.

    Raises: Failure (redis-server is there, and does not come up).
    """
    log = logging.getLogger("edgeproxy")
    before = log.level
    log.setLevel(logging.ERROR)  # a store says that it answers: once for each row
    try:
        with _servers(load_cores) as (one, several):
            setting = Setting(max(WINDOW * seconds, 0.1), proxy_cores, load_cores, litellm, one, several)
            makes = [embedded, embedded_settled, refused, beside_in_memory]
            makes += [redis, redis_settled, beside_in_redis] if one is not None else []
            done = [measured(*make(setting)) for make in makes]
            if one is None:
                done[0].notes.append(redis_servers.MISSING)
            return done
    finally:
        log.setLevel(before)
