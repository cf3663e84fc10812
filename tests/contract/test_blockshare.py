# The list that nodes share, on real servers: one Redis, sentinels, a cluster.
from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from support.stores import FACTORIES, Stand

from edgeproxy.blocklist import BlockList, Shared
from edgeproxy.blockshare import SharedList
from edgeproxy.policy.blocks import Block
from edgeproxy.state.redis import RedisStore


@pytest.fixture(params=["redis", "sentinel", "cluster"])
async def stand(request: pytest.FixtureRequest) -> AsyncIterator[Stand]:
    async with FACTORIES[request.param]() as stand:
        yield stand


class Node:
    """One node's list."""

    def __init__(self, store: object) -> None:
        assert isinstance(store, RedisStore)
        self.blocks = BlockList()
        self.blocks.shared = True
        self._share = SharedList(store, time.monotonic)

    async def sync(self) -> Shared | None:
        said = self.blocks.unsaid()
        answer: asyncio.Future[Shared | None] = asyncio.get_running_loop().create_future()
        self._share.sync(said, self.blocks.epoch, self.blocks.version, answer.set_result)
        shared = await answer
        if shared is not None:
            self.blocks.heard(shared, said, time.monotonic())
        return shared

    def put(self, value: str, seconds: float, reason: str = "") -> None:
        now = time.monotonic()
        self.blocks.put(Block("network", value, now + seconds, time.time(), reason), now)

    @property
    def values(self) -> dict[str, str]:
        return {each.value: each.reason for each in self.blocks.blocks}


async def test_both_nodes_keep_what_either_adds(stand: Stand) -> None:
    one, other = (Node(store) for store in stand.stores[:2])
    one.put("10.0.0.0/8", 60, "one")
    other.put("2001:db8::/32", 60, 'a "reason": ü')
    await asyncio.gather(one.sync(), other.sync())
    await one.sync()
    await other.sync()
    wanted = {"10.0.0.0/8": "one", "2001:db8::/32": 'a "reason": ü'}
    assert one.values == other.values == wanted
    assert all(58 < each.until - time.monotonic() <= 60.1 for each in other.blocks.blocks)
    again = await other.sync()
    assert again is not None and again.blocks is None  # nothing has changed: nothing is sent
    other.put("10.0.0.0/8", -1)
    await other.sync()
    await one.sync()
    assert one.values == other.values == {"2001:db8::/32": 'a "reason": ü'}


async def test_entries_end_and_are_removed(stand: Stand) -> None:
    one, other = (Node(store) for store in stand.stores[:2])
    one.put("10.0.0.0/8", 0.2)
    one.put("11.0.0.0/8", 60)
    await one.sync()
    await asyncio.sleep(0.25)
    await other.sync()
    assert set(other.values) == {"11.0.0.0/8"}


async def test_ten_thousand(stand: Stand) -> None:
    one, other = (Node(store) for store in stand.stores[:2])
    for n in range(10_000):
        one.put(f"10.{n >> 8}.{n & 255}.0/24", 60)
    while one.blocks.unsaid():
        assert await one.sync() is not None
    assert await other.sync() is not None
    assert other.values == one.values and len(other.values) == 10_000
