# Keys that reach a worker at an awkward moment: while another configuration is compiled, lies prepared, or takes over.
from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from edgeproxy import worker
from edgeproxy.config.keys import KeyBook
from edgeproxy.config.keys_shared import with_book
from edgeproxy.config.model import Config
from edgeproxy.config.secret import TO_WORKERS, Secret
from edgeproxy.ipc import TICKET_KEYS, Switch, ToSupervisor, ToWorker, pair

BASE: dict[str, Any] = {
    "listen": {"https": "127.0.0.1:8443"},
    "tls": {"certificates": [{"cert": "edge.pem", "key": "edge-key.pem"}]},
    "upstreams": {"web": {"targets": [{"url": "http://127.0.0.1:9000"}]}},
    "routes": [{"upstream": "web"}],
}


def book(name: str) -> KeyBook:
    key = {"id": "Ab3dEf9h", "name": name, "hash": "blake2b:" + "0" * 64}
    return KeyBook.model_validate({"pepper": Secret(b"00"), "keys": [key]})


def config(name: str, place: str = "redis://127.0.0.1:1/0", **changes: Any) -> Config:
    return with_book(Config.model_validate({**BASE, "keys": {"redis": place}, **changes}), book(name))


def text(whole: Config | KeyBook) -> bytes:
    return whole.model_dump_json(context=TO_WORKERS).encode()


class Snapshot:
    """What is compiled; it waits for the gate in the thread."""

    gate = threading.Event()
    waiting = threading.Semaphore(0)

    def __init__(self, drain: float, keys: KeyBook) -> None:
        self.drain = drain
        self.name = keys.keys[0].name

    def with_keys(self, keys: KeyBook) -> Snapshot:
        self.waiting.release()
        assert self.gate.wait(20)
        return Snapshot(self.drain, keys)


class Plane:
    def __init__(self) -> None:
        self.seen: list[tuple[float, str]] = []

    @staticmethod
    def prepare(config: Config, _ticket_keys: bytes, _instance: str | None = None) -> Snapshot:
        Snapshot.waiting.release()
        assert Snapshot.gate.wait(20)
        assert config.keys is not None and config.keys.book is not None
        return Snapshot(config.drain, config.keys.book)

    def switch(self, snapshot: Snapshot) -> None:
        self.seen.append((snapshot.drain, snapshot.name))


class Stand:
    def __init__(self) -> None:
        Snapshot.gate, Snapshot.waiting = threading.Event(), threading.Semaphore(0)
        self.ours, theirs = pair(ToSupervisor, ToWorker)
        self.theirs = theirs
        plane: Any = Plane
        task = worker.Task(0, config("start"), b"", 1, "i", [], [], [], None, theirs, None, None, plane)
        self.worker: Any = worker._Worker(task, asyncio.get_running_loop())
        self.plane = self.worker._plane = Plane()
        self.worker._snapshot = Snapshot(30.0, book("start"))

    def rekey(self, name: str) -> asyncio.Task[None]:
        return asyncio.create_task(self.worker._rekey(text(book(name))))

    def prepare(self, whole: Config) -> asyncio.Task[None]:
        return asyncio.create_task(self.worker._prepare(2, bytes(TICKET_KEYS) + text(whole)))

    async def in_thread(self) -> None:
        assert await asyncio.to_thread(Snapshot.waiting.acquire, timeout=20)

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()
        self.worker._thread.shutdown()


@pytest.fixture
async def stand() -> Any:
    made = Stand()
    yield made
    made.close()


async def test_a_worker_takes_other_keys(stand: Stand) -> None:
    Snapshot.gate.set()
    await stand.rekey("second")
    assert stand.plane.seen == [(30.0, "second")]


async def test_the_newest_of_several_wins(stand: Stand) -> None:
    steps = [stand.rekey("second")]
    await stand.in_thread()
    steps.append(stand.rekey("third"))
    await asyncio.sleep(0)
    Snapshot.gate.set()
    await asyncio.gather(*steps)
    assert stand.plane.seen[-1] == (30.0, "third") and stand.worker._keys[1] == book("third")


async def test_keys_that_come_while_a_configuration_is_compiled(stand: Stand) -> None:
    """What is compiled has the keys of when it began; what it is switched to must not bring them back."""
    preparing = stand.prepare(config("start", drain=5.0))
    await stand.in_thread()
    rekeying = stand.rekey("second")
    await asyncio.sleep(0)
    Snapshot.gate.set()
    await asyncio.gather(preparing, rekeying)
    stand.worker._obey(type("M", (), {"head": Switch(2), "blob": b""}))
    assert stand.plane.seen == [(30.0, "second"), (5.0, "second")]


async def test_a_configuration_that_comes_while_keys_are_read(stand: Stand) -> None:
    rekeying = stand.rekey("second")
    preparing = stand.prepare(config("second", drain=5.0))
    await stand.in_thread()
    await asyncio.sleep(0.05)  # so that the first step stands behind the second one in the thread; no matter if not
    Snapshot.gate.set()
    await asyncio.gather(rekeying, preparing)
    stand.worker._switch(2)
    assert stand.plane.seen == [(30.0, "second"), (5.0, "second")]


async def test_keys_that_come_when_one_lies_prepared(stand: Stand) -> None:
    Snapshot.gate.set()
    await stand.prepare(config("start", drain=5.0))
    await stand.rekey("second")
    stand.worker._switch(2)
    assert stand.plane.seen == [(30.0, "second"), (5.0, "second")]


async def test_a_switch_while_keys_are_compiled(stand: Stand) -> None:
    Snapshot.gate.set()
    await stand.prepare(config("start", drain=5.0))
    Snapshot.gate.clear()
    while Snapshot.waiting.acquire(blocking=False):
        pass
    rekeying = stand.rekey("second")
    await stand.in_thread()
    stand.worker._switch(2)
    Snapshot.gate.set()
    await rekeying
    assert stand.plane.seen == [(5.0, "start"), (5.0, "second")]


async def test_keys_are_for_the_place_that_they_came_from(stand: Stand) -> None:
    Snapshot.gate.set()
    await stand.prepare(config("elsewhere", "redis://127.0.0.1:1/1", drain=5.0))
    await stand.rekey("second")
    stand.worker._switch(2)
    assert stand.plane.seen == [(30.0, "second"), (5.0, "elsewhere")]
