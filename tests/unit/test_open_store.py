# Where a worker's limits count: alone, with the edge's other workers, or in Redis; and when nothing is counted at all.
from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.edge import configuration
from support.keys import DERIVED, model
from support.stores import settled_down

from edgeproxy.config.keys import KeyBook, Keys
from edgeproxy.config.model import Config
from edgeproxy.config.secret import Secret
from edgeproxy.counting import open_store
from edgeproxy.policy.keytext import make
from edgeproxy.rules.model import RuleBook, RuleFiles, RuleModel
from edgeproxy.state.redis import RedisStore
from edgeproxy.state.redis_cluster import ClusterStore
from edgeproxy.state.remote import RemoteStore

LIMITS = [{"name": "all", "requests": 5, "period": "1m"}]


def with_key(config: Config, **fields: Any) -> Config:
    book = KeyBook(pepper=Secret(DERIVED.hex().encode("ascii")), keys=(model(make()), model(make(), **fields)))
    return config.model_copy(update={"keys": Keys().model_copy(update={"book": book})})


async def test_one_worker_counts_alone_and_several_together(tmp_path: Path) -> None:
    loop, path = asyncio.get_running_loop(), str(tmp_path / "store")
    config = configuration(limits=LIMITS)
    assert open_store(loop, config, None) is None
    store = open_store(loop, config, path)
    assert isinstance(store, RemoteStore)
    store.close()


@pytest.mark.parametrize(("change", "counts"), [({}, True), ({"enabled": False}, False), ({"mode": "log"}, False)])
async def test_that_a_puzzle_is_used_once_is_known_to_all_workers(tmp_path: Path, change: dict[str, Any], counts: bool) -> None:
    rule = RuleModel.model_validate({"id": "a", "expression": "ssl", "action": "js_challenge", **change})
    config = configuration().model_copy(update={"rules": RuleFiles(book=RuleBook(rules=(rule,)))})
    store = open_store(asyncio.get_running_loop(), config, str(tmp_path / "store"))
    assert (store is not None) is counts
    if store is not None:
        store.close()


async def test_nothing_is_opened_where_nothing_is_counted(tmp_path: Path) -> None:
    loop, path = asyncio.get_running_loop(), str(tmp_path / "store")
    for config in (configuration(), configuration(store="redis://127.0.0.1:1"), with_key(configuration(), limits=["x"])):
        assert open_store(loop, config, path) is None


@pytest.mark.parametrize("budget", [{"tokens_per_day": 5}, {"tokens_per_month": 5}])
async def test_a_budget_of_a_key_is_counted_together_although_there_are_no_limits(
    tmp_path: Path, budget: dict[str, int]
) -> None:
    config = with_key(configuration(), budget=budget)
    store = open_store(asyncio.get_running_loop(), config, str(tmp_path / "store"))
    assert isinstance(store, RemoteStore)
    store.close()


async def test_a_store_that_is_named_is_where_it_counts(tmp_path: Path) -> None:
    url = "redis+cluster://user:p%40ss@127.0.0.1:1"
    store = open_store(asyncio.get_running_loop(), configuration(limits=LIMITS, store=url), str(tmp_path / "store"))
    assert isinstance(store, ClusterStore)
    assert isinstance(store, RedisStore) and store.place.login.password == "p@ss"
    store.close()
    await settled_down()
