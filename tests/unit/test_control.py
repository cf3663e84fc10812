from __future__ import annotations

import asyncio
import os
import socket
from typing import Any, cast

import msgspec
import pytest

from edgeproxy import control
from edgeproxy.control import Ledger, process, readiness
from edgeproxy.ipc import Blocked, ProcessState, Report, State
from edgeproxy.observe.metrics import H1, Dump, WorkerStats, record


def dump(requests: int, open_connections: int = 0) -> Dump:
    stats = WorkerStats()
    for _ in range(requests):
        record(stats.route("*/"), H1, 200, 0.01, 1, 1)
    stats.connections_open[H1] = open_connections
    return stats.dump()


def requests(ledger: Ledger) -> int:
    return sum(sum(row[0]) for row in ledger.total()["routes"].values())


def report(incarnation: str, slot: int = 0, pid: int = 10) -> Report:
    return Report(incarnation, slot, pid, 0)


def test_a_dump_replaces_the_one_before_and_processes_add_up() -> None:
    ledger = Ledger()
    ledger.report(report("a"), dump(3), 1.0)
    ledger.report(report("a"), dump(5), 2.0)
    ledger.report(report("b", slot=1, pid=11), dump(7), 2.5)
    assert requests(ledger) == 12
    assert ledger.ages(3.0) == {"worker-0": 1.0, "worker-1": 0.5}


def test_counters_survive_a_worker() -> None:
    ledger = Ledger()
    ledger.report(report("a"), dump(5, open_connections=2), 1.0)
    assert not ledger.bury({10}, set())
    assert ledger.bury({12}, set())
    assert requests(ledger) == 5
    assert ledger.total()["connections_open"] == [0, 0, 0]
    assert ledger.ages(1.0) == {}
    ledger.report(report("c", pid=12), dump(1, open_connections=1), 2.0)
    assert requests(ledger) == 6
    assert ledger.total()["connections_open"][H1] == 1
    assert not ledger.bury({12}, set())


def test_one_that_is_connected_is_not_dead_whatever_the_list_says() -> None:
    ledger = Ledger()
    ledger.report(report("a"), dump(5), 1.0)
    assert not ledger.bury(set(), {"a"})  # the list is older than its birth
    ledger.report(report("a"), dump(6), 2.0)
    assert requests(ledger) == 6


def test_counters_survive_control() -> None:
    ledger = Ledger()
    ledger.report(report("a"), dump(5), 1.0)
    ledger.report(report("b", pid=11), dump(7), 1.0)
    ledger.bury({11}, set())
    successor = Ledger(ledger.kept())
    assert requests(successor) == 5
    successor.report(report("b", pid=11), dump(8), 2.0)  # the living send everything again
    assert requests(successor) == 13


def targets(**connects: int) -> Dump:
    """A dump that names these targets."""
    stats = WorkerStats()
    for name, n in connects.items():
        stats.upstream("chat", name).connects = n
    return stats.dump()


def connects(ledger: Ledger) -> dict[str, int]:
    return {row["target"]: row["connects"] for row in ledger.total()["upstreams"]}


def test_a_target_that_no_worker_names_is_forgotten() -> None:
    ledger = Ledger()
    ledger.report(report("a"), targets(x=1, y=2), 1.0)
    ledger.report(report("b", slot=1, pid=11), targets(x=10, y=20), 1.0)
    assert not ledger.prune({10, 11})
    assert ledger.report(report("a"), targets(x=1), 2.0)  # a reload took y away …
    assert not ledger.prune({10, 11})
    assert connects(ledger) == {"x": 11, "y": 22}, "… but b still has a connection there: no total may fall"
    assert ledger.report(report("b", slot=1, pid=11), targets(x=10), 3.0)
    assert ledger.prune({10, 11})
    assert connects(ledger) == {"x": 11}
    assert connects(Ledger(ledger.kept())) == {}
    assert not ledger.prune({10, 11})


def test_nothing_is_forgotten_while_a_worker_is_being_replaced() -> None:
    ledger = Ledger()
    ledger.report(report("a"), targets(x=1), 1.0)
    assert ledger.bury({0}, set())
    assert not ledger.prune({0}) and not ledger.prune(set()) and not ledger.prune({12})
    assert connects(ledger) == {"x": 1}
    ledger.report(report("c", pid=12), targets(x=0), 2.0)
    assert not ledger.prune({12})
    assert connects(ledger) == {"x": 1}


def test_the_dead_s_targets_go_with_the_configuration() -> None:
    ledger = Ledger()
    ledger.report(report("a"), targets(x=1, y=1), 1.0)
    ledger.bury({0}, set())
    ledger.report(report("c", pid=12), targets(y=0), 2.0)
    assert ledger.prune({12})
    assert connects(ledger) == {"y": 1}


def worker(slot: int, **changes: Any) -> ProcessState:
    return msgspec.structs.replace(ProcessState(f"worker-{slot}", 10 + slot, "ready", 2, slot), **changes)


READY = State(1, False, True, 2, (worker(0), worker(1)), 1, {}, {}, None)


def test_ready() -> None:
    ready, detail = readiness(READY)
    assert ready
    assert msgspec.json.decode(msgspec.json.encode(detail))["workers"][1]["name"] == "worker-1"


@pytest.mark.parametrize(
    "changes",
    [
        {"draining": True},
        {"started": False},
        {"workers": (worker(0), worker(1, generation=1))},
        {"workers": (worker(0), worker(1, state="starting", served_by=None))},
        {"workers": (worker(0, state="back-off", served_by=1), worker(1, state="back-off", served_by=None))},
    ],
)
def test_not_ready(changes: dict[str, Any]) -> None:
    assert not readiness(msgspec.structs.replace(READY, **changes))[0]


def test_ready_while_a_slot_is_lent() -> None:
    state = msgspec.structs.replace(READY, workers=(worker(0), worker(1, state="back-off", pid=0, served_by=0)))
    assert readiness(state)[0]


async def test_a_worker_that_hangs_is_not_waited_for_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "_BACKLOG", 1 << 20)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    class Control:
        def on_peer(self, _peer: Any, connected: bool) -> None:
            if not connected:
                ended.set()

    ours, theirs = socket.socketpair()
    with theirs:
        _, peer = await loop.create_connection(lambda: control._Peer(cast("Any", Control())), sock=ours)
        for _ in range(8):
            peer.say(Blocked(), bytes(500_000))
        await asyncio.wait_for(ended.wait(), 5)
        peer.say(Blocked(), b"")  # to nobody


def test_own_process_is_seen() -> None:
    seen = process("me", os.getpid())
    assert seen is not None
    assert seen.rss > 1 << 20 and seen.cpu > 0 and seen.fds > 2
    assert process("nobody", 2**22 + 1) is None
