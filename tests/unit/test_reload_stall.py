# A reload of a thousand upstreams must not hold up a worker's loop. Milliseconds depend on the machine, so what is held
# here is what they follow from: where the work is done, and how many calls it is.
"""worker.py and dataplane.py: preparing off the loop and in small steps, switching in few steps for each upstream."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.edge import configuration, prepared
from support.waiting import until

from edgeproxy import worker
from edgeproxy.config.model import Config
from edgeproxy.dataplane import DataPlane
from edgeproxy.ipc import TICKET_KEYS, Drain, Prepare, Prepared, Ready, Switch, Switched, ToSupervisor, ToWorker, pair
from edgeproxy.observe.metrics import WorkerStats

KEYS = bytes(TICKET_KEYS)


class SlowPlane:
    """A data plane whose `prepare` takes as long as the test likes.

    Attributes:
        hold: prepare waits for it.
        threads: where prepare ran.
    """

    hold = threading.Event()
    threads: list[int] = []  # noqa: RUF012  filled by each test anew
    connections = 0

    def __init__(self, loop: Any, stats: Any, log: Any) -> None:
        self.switched: list[str] = []

    @staticmethod
    def prepare(config: Config, ticket_keys: bytes, instance: str | None = None) -> str:
        SlowPlane.threads.append(threading.get_ident())
        assert SlowPlane.hold.wait(10), "the loop, which would let it go on, stands still"
        return "snapshot"

    def switch(self, snapshot: str) -> None:
        self.switched.append(snapshot)

    async def listen(self, https: Any, http: Any) -> None: ...
    async def release(self, sockets: Any) -> None: ...
    async def stop_accepting(self) -> None: ...
    def drain(self) -> None: ...
    def abort(self) -> None: ...
    async def close(self) -> None: ...


@pytest.fixture
def slow() -> Iterator[type[SlowPlane]]:
    SlowPlane.hold.set()
    SlowPlane.threads = []
    yield SlowPlane
    SlowPlane.hold.set()


async def test_the_loop_turns_while_a_worker_prepares(slow: type[SlowPlane], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.gc, "freeze", lambda: None)  # this process is not only a worker
    thresholds = worker.gc.get_threshold()
    ours, theirs = pair(ToSupervisor, ToWorker)
    config = configuration(access_log=None)
    loop = asyncio.get_running_loop()
    task = worker.Task(0, config, KEYS, 1, "0123456789ab", [], [], [], None, theirs, None, None, slow)  # type: ignore[arg-type]
    running = loop.create_task(worker._Worker(task, loop).run())
    said: list[Any] = []
    loop.add_reader(ours.fileno(), lambda: said.extend(message.head for message in ours.receive()))
    try:
        await until(lambda: said == [Ready(1)])
        slow.hold.clear()
        ours.send(Prepare(2), KEYS + config.model_dump_json().encode())
        await until(lambda: len(slow.threads) == 2)
        for _ in range(100):  # turns of the loop, while prepare stands
            await asyncio.sleep(0)
        assert said == [Ready(1)]
        assert slow.threads[1] != threading.get_ident()
        slow.hold.set()
        await until(lambda: said[1:] == [Prepared(2)])
        ours.send(Switch(2))
        await until(lambda: said[2:] == [Switched(2)])
        ours.send(Drain(0.0))
        assert await running == 0
    finally:
        worker.gc.set_threshold(*thresholds)
        loop.remove_reader(ours.fileno())
        running.cancel()
        ours.close()
        theirs.close()


def many(count: int, *, port: int = 10_000) -> Config:
    """A configuration of `count` upstreams with two targets and a route each."""
    raw = configuration().model_dump(mode="json")
    raw["upstreams"] = {
        f"u{n}": {"targets": [{"url": f"http://127.0.0.1:{port + n}"}, {"url": f"http://127.0.0.2:{port + n}"}]}
        for n in range(count)
    }
    raw["routes"] = [{"host": f"h{n}.test", "path": "/", "upstream": f"u{n}"} for n in range(count)]
    return Config.model_validate(raw)


def calls(work: Callable[[], object]) -> tuple[int, int]:
    """How many functions `work` calls, in Python and in C. Each of the former lets another thread have the interpreter."""
    counts = {"call": 0, "c_call": 0}

    def count(_frame: Any, event: str, _argument: Any) -> None:
        if event in counts:
            counts[event] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return counts["call"], counts["c_call"]


async def test_switching_is_linear_with_a_small_constant() -> None:
    cost: dict[str, list[int]] = {}
    for count in (100, 1000):
        plane = DataPlane(asyncio.get_running_loop(), WorkerStats(), None)
        for name, config in (
            ("new", many(count)), ("same", many(count)), ("moved", many(count, port=20_000)), ("gone", configuration()),
        ):  # fmt: skip
            snapshot = prepared(config)
            cost.setdefault(name, []).append(sum(calls(lambda plane=plane, snapshot=snapshot: plane.switch(snapshot))))
    for name, (few, thousand) in cost.items():
        # About 20 to 40 calls for an upstream with its targets and route: a few microseconds each, so that a thousand
        # take a few milliseconds. One look at every other upstream would make it a thousand calls.
        assert thousand <= 1000 * 40, name
        assert thousand <= few * 11, name


@pytest.mark.parametrize("step", ["validate", "prepare"])
def test_preparing_gives_way_at_every_upstream(step: str) -> None:
    """The thread that prepares shares the interpreter with the loop: it can be asked to let go wherever a function of
    Python is entered, so no upstream, target or route may be dealt with in C alone."""
    counts = []
    for count in (100, 400):
        config = many(count)
        text = config.model_dump_json()
        work: dict[str, Callable[[], object]] = {
            "validate": lambda text=text: Config.model_validate_json(text), "prepare": lambda config=config: prepared(config),
        }  # type: ignore[misc]  # fmt: skip
        counts.append(calls(work[step])[0])
    few, more = counts
    assert more - few >= 300 * 4, "an upstream, its two targets and its route"
    assert more <= few * 4.4
