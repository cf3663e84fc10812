# Control's side of blocks and limits without processes: whom it tells what and when, and what a worker does with it.
from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from support.edge import configuration
from support.waiting import until

from edgeproxy import operating
from edgeproxy.explaining.counter import Counter
from edgeproxy.explaining.desk import Desk
from edgeproxy.explaining.question import Busy
from edgeproxy.ipc import Blocked, Look, Looked
from edgeproxy.operating import Operations
from edgeproxy.orders import ASIDE, Orders
from edgeproxy.policy.blocks import Block, Blocks, Refused
from edgeproxy.state import lookup
from edgeproxy.state.ports import Charge, Level
from edgeproxy.state.server import StoreServer

HERE = {"ip": "192.0.2.1", "seconds": 60}
LIMIT = {"name": "per-ip", "requests": 10}
QUESTION = json.dumps({"request": {"url": "https://localhost/"}}).encode()


class Worker:
    """The data plane of a worker, as far as orders go.

    Attributes:
        held: what it refuses; deaf: it answers nothing.
    """

    def __init__(self) -> None:
        self.held: Blocks | None = None
        self.lists = 0
        self.deaf = False
        self.looked: list[tuple[Sequence[Charge], bool]] = []
        self.orders = Orders(asyncio.get_running_loop(), self)

    def block(self, blocks: Blocks | None) -> None:
        self.held = blocks
        self.lists += 1

    def look(self, charges: Sequence[Charge], reset: bool, done: Callable[[tuple[Level, ...] | None], None]) -> None:
        self.looked.append((charges, reset))
        if not self.deaf:
            done(() if reset else tuple(Level(7, 1_000_000, 0) for _ in charges))


class Edge:
    """Operations, and workers that are told at once."""

    def __init__(self, folder: Path, kept: bytes = b"", workers: int = 1) -> None:
        self.loop = asyncio.get_running_loop()
        self.config = configuration(limits=[LIMIT], workers=workers, events={"file": str(folder / "events.jsonl")})
        self.counter = Counter(Desk(self.config), self.loop)
        self.workers = [Worker()]
        self.kept: list[bytes] = []
        self.operations = Operations(
            self.loop, self.config, self.counter, kept, self._everybody, self._one,
            lambda: self.kept.append(self.operations.kept()),
        )  # fmt: skip
        self.operations.start(self.config, StoreServer())

    def _everybody(self, head: msgspec.Struct, blob: bytes) -> bool:
        for worker in self.workers:
            self._say(worker, head, blob)
        return True

    def _one(self, head: msgspec.Struct, blob: bytes) -> bool:
        return bool(self.workers) and self._say(self.workers[-1], head, blob)

    def _say(self, worker: Worker, head: msgspec.Struct, blob: bytes) -> bool:
        def send(head: msgspec.Struct, blob: bytes) -> None:
            self.operations.looked(cast(Looked, head), blob)

        worker.orders.obey(cast("Blocked | Look", head), blob, send)
        return True

    async def block(self, **content: Any) -> dict[str, Any]:
        return await self.operations.block(json.dumps(content).encode())

    def close(self) -> None:
        self.operations.close()
        self.counter.close()


async def test_a_block_is_kept_and_told_before_its_answer(tmp_path: Path) -> None:
    edge = Edge(tmp_path)
    said = await edge.block(**HERE)
    assert (said["blocked"], said["ip"], said["seconds"]) == (True, "192.0.2.1", 60)
    held = edge.workers[0].held
    assert held is not None and held.client("192.0.2.1", time.monotonic()) is not None
    successor = Edge(tmp_path, edge.kept[-1])
    assert [each["ip"] for each in successor.operations.shown()] == ["192.0.2.1"]
    late = Worker()
    late.orders.obey(*cast("tuple[Blocked, bytes]", successor.operations.greeting()), lambda head, blob: None)
    assert late.held is not None and late.held.client("192.0.2.1", time.monotonic()) is not None
    assert (await edge.block(ip="192.0.2.1", seconds=0))["removed"] is True
    assert edge.workers[0].held is None and edge.operations.shown() == []
    assert (await edge.block(ip="192.0.2.1", seconds=0))["removed"] is False
    with pytest.raises(Refused):
        await edge.block(ip="x", seconds=1)
    events = tmp_path / "events.jsonl"
    await until(lambda: events.exists() and events.read_text().count("\n") == 3, 5)
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert {line["event"] for line in lines} == {"block_added", "block_removed"} and lines[0]["time"] > 1.7e9
    edge.close()
    successor.close()


async def test_what_was_kept_is_told_and_kept_before_the_start(tmp_path: Path) -> None:
    """Control's socket is open before its operations begin."""
    loop, config = asyncio.get_running_loop(), configuration(limits=[LIMIT])
    held = msgspec.msgpack.encode([Block("ip", "192.0.2.1", time.monotonic() + 60, 0.0, "why")])
    for kept, names in ((held, ["192.0.2.1"]), (b"", [])):
        made = Operations(loop, config, Counter(Desk(config), loop), kept, lambda *_: True, lambda *_: True, lambda: None)
        for blob in (made.greeting()[1], made.kept()):
            assert [block.value for block in msgspec.msgpack.decode(blob, type=list[Block])] == names


async def test_many_at_once_are_told_together(tmp_path: Path) -> None:
    edge = Edge(tmp_path)
    await asyncio.gather(*(edge.block(ip=f"192.0.2.{n}", seconds=60) for n in range(100)))
    assert len(edge.kept) == edge.workers[0].lists == 1
    edge.close()


async def test_long_lists_are_made_ready_aside_and_the_last_one_holds(tmp_path: Path) -> None:
    worker, end = Worker(), time.monotonic() + 60

    def say(count: int) -> None:
        found = [Block("ip", f"10.0.{n >> 8}.{n & 255}", end, 0.0, "") for n in range(count)]
        worker.orders.obey(Blocked(), msgspec.msgpack.encode(found), lambda head, blob: None)

    say(ASIDE + 1)
    assert worker.held is None
    await until(lambda: worker.held is not None, 5)
    say(ASIDE + 2)
    say(0)
    assert worker.held is None
    await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0)
    await asyncio.sleep(0.05)
    assert worker.held is None


async def test_limits_are_asked_where_they_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = Edge(tmp_path)
    (row,) = (await alone.operations.limits(QUESTION, reset=False))["limits"]
    assert (row["limit"], row["remaining"], row["reset"]) == ("per-ip", 7, 1.0)
    assert (await alone.operations.limits(QUESTION, reset=True)) == {"reset": ["per-ip"]}
    (charges, reset), (again, forgotten) = alone.workers[0].looked
    assert (reset, forgotten) == (False, True) and charges[0].key == again[0].key
    monkeypatch.setattr(operating, "WAIT", 0.05)
    alone.workers[0].deaf = True
    with pytest.raises(Busy):
        await alone.operations.limits(QUESTION, reset=False)
    alone.workers.clear()
    with pytest.raises(Busy):
        await alone.operations.limits(QUESTION, reset=True)
    together = Edge(tmp_path, workers=2)
    (row,) = (await together.operations.limits(QUESTION, reset=False))["limits"]
    assert row["remaining"] == 10 and not together.workers[0].looked
    alone.close()
    together.close()


async def test_a_store_that_is_away_stops_no_block(tmp_path: Path) -> None:
    edge = Edge(tmp_path)
    edge.operations.use(json.dumps({"store": "redis://127.0.0.1:1/0", "events": None, "more": [1]}).encode())
    assert (await edge.block(**HERE))["blocked"] is True
    assert edge.workers[0].held is not None and edge.operations.blocks.unsaid()
    with pytest.raises(Busy):
        await edge.operations.limits(QUESTION, reset=False)
    edge.close()


def test_charges_and_levels_travel() -> None:
    levels = (Level(1, 2, 3), Level(0, 0, 0))
    assert lookup.unpack_levels(lookup.pack_levels(levels)) == levels
    for nonsense in (b"", b"\xc1", b"\x91\x90"):
        with pytest.raises(msgspec.DecodeError):
            lookup.unpack(nonsense)
