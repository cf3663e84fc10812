# The case `limits` measures something: stores answer, what they were asked is counted, doubts are said.
"""bench/limits.py, limits_redis.py, limit_load.py and limits_tables.py."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench import limit_load, limits, limits_redis, limits_tables, redis_servers
from bench.limit_load import RATE, SHAPES, SLOT, THREE, TOKENS, Exchanges, Load
from bench.redis_servers import Redis
from bench.report import Run
from edgeproxy.state.embedded import EmbeddedStore
from edgeproxy.state.ports import Admission, Admitted, Charge, Kind

NO_REDIS = pytest.mark.skipif(redis_servers.binary() is None, reason=redis_servers.MISSING)


def sound(run: Run) -> bool:
    return run.value is not None and 0.1 < run.value < 10_000 and run.more[RATE] > 10 and not run.flags


@pytest.mark.parametrize("shape", SHAPES)
def test_direct(shape: str) -> None:
    assert sound(limits.direct(shape, 0.02))


@pytest.mark.parametrize("measure", [limits.known, limits.refused])
def test_refusals(measure: Any) -> None:
    assert sound(measure(0.02))


@pytest.mark.parametrize("shape", [TOKENS, SLOT])
async def test_each_exchange_is_settled_once(shape: str) -> None:
    settled: list[bytes] = []

    class Store(EmbeddedStore):
        __slots__ = ()

        def settle(self, changes: Sequence[Any], lease: bytes) -> None:
            assert [change.delta for change in changes] == [-1] * len(changes)
            assert len(changes) == (2 if shape == SLOT else 1)
            settled.append(lease)
            super().settle(changes, lease)

    store = Store()
    load = Load(store, shape, 4)
    await asyncio.sleep(0)
    load.ending = True
    await load.over.wait()
    assert len(set(settled)) == len(settled) == load.count >= 8
    assert load.away == 0


async def test_what_the_store_did_not_decide_is_counted() -> None:
    class Away(EmbeddedStore):
        __slots__ = ()

        def admit(self, charges: Sequence[Charge], lease: bytes, done: Admitted) -> None:
            done(Admission(True, (), "open"))

    load = Load(Away(), THREE, 2)
    load.ending = True
    await load.over.wait()
    assert load.away == load.count > 0
    assert limits.undecided(load.away) and not limits.undecided(0)


def test_keys_of_limits_differ_and_costs_are_what_is_settled() -> None:
    made = Exchanges(SLOT)
    (tokens, slot), again = made.charges(7), made.charges(7 + limit_load.KEYS)
    assert [tokens, slot] == again and tokens.key != slot.key
    assert (tokens.cost, slot.cost, slot.quota.kind) == (2, 1, Kind.LEASES)
    assert made.lease(1) != made.lease(2) and len(made.lease(1)) == 16
    assert made.lease(1) != Exchanges(SLOT).lease(1)


def test_percentiles_are_of_enough() -> None:
    assert limit_load.percentiles([0.001] * 99) == {}
    found = limit_load.percentiles([0.001] * 980 + [0.5] * 20)
    assert found["p50 ms"] == pytest.approx(1) and found["p99 ms"] == pytest.approx(500)


def test_over_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WARM", 0.05)
    monkeypatch.setattr(limits, "DEADLINE", 10.0)
    run = limits.over_socket(TOKENS, 4, 0.2, os.sched_getaffinity(0))
    assert sound(run) and run.more["p50 ms"] > 0


@NO_REDIS
@pytest.mark.parametrize("shape", SHAPES)
def test_redis(shape: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(limits_redis, "WARM", 0.05)
    monkeypatch.setattr(limits_redis, "DEADLINE", 10.0)
    with redis_servers.server(tmp_path, cores()) as servers:
        run = limits_redis.measure(servers, shape, 4, 0.2)
    assert sound(run) and run.more["redis-server µs"] > 0.1
    assert 1 <= run.more["batch"] <= 5 or shape in (TOKENS, SLOT)


@NO_REDIS
def test_a_cluster_forms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(limits_redis, "WARM", 0.05)
    monkeypatch.setattr(limits_redis, "DEADLINE", 10.0)
    with redis_servers.cluster(tmp_path, cores()) as servers:
        assert len(servers.children) == 3
        assert sound(limits_redis.measure(servers, TOKENS, 4, 0.2))
    assert not any(child.alive() for child in servers.children)


def test_whether_a_cluster_is_whole() -> None:
    info = "cluster_state:ok\r\ncluster_slots_ok:16384\r\ncluster_known_nodes:3\r\ncluster_size:3\r\n"
    assert redis_servers.whole(info)
    assert not redis_servers.whole(info.replace("ok:16384", "ok:163"))
    assert not redis_servers.whole(info.replace("nodes:3", "nodes:2"))


def cores() -> str:
    return ",".join(map(str, sorted(os.sched_getaffinity(0))))


def test_every_aim_is_set_for_a_row_that_is_there() -> None:
    nowhere = Redis("redis://127.0.0.1:1/0", [])
    setting = limits_tables.Setting(1.0, "0", "0", None, nowhere, nowhere)
    aims = set()
    for make in (
        limits_tables.embedded,
        limits_tables.embedded_settled,
        limits_tables.refused,
        limits_tables.redis,
        limits_tables.redis_settled,
    ):
        table, actions = make(setting)
        assert table.targets and {target.who for target in table.targets} <= set(actions)
        aims |= {(target.least, target.factor) for target in table.targets}
    assert aims == {(None, 8.0), (None, 20.0), (None, 15.0), (None, 30.0), (RATE, 20_000), (RATE, 100_000)}


def test_without_redis_the_other_tables_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_servers, "binary", lambda: None)
    done = limits_tables.tables(1.0, "0", "0", None, lambda table, _: table)
    assert [table.case for table in done] == [
        "limits, embedded", "limits, embedded, settled", "limits, refused", "limits, other limiters in memory",
    ]  # fmt: skip
    assert redis_servers.MISSING in done[0].notes
