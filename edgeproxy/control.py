# The composition root of the control process: admin endpoints, and the sum of what workers report. It serves no
# traffic; when it dies nothing stops but the view, and its successor has all numbers again within a second.
"""The control process.

Counters must not fall when a worker dies or when this process does. So: a worker's last dump is kept when it goes
(folded into one sum of the dead), that sum is given to the supervisor to keep (as bytes it doesn't look into), and the
living send whole dumps, never differences.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec
import uvloop
from aiohttp import web

from edgeproxy.config.model import Config
from edgeproxy.explaining.counter import Counter
from edgeproxy.explaining.desk import Desk
from edgeproxy.ipc import (
    Abort,
    Ask,
    Channel,
    ChannelClosed,
    Decoder,
    Drain,
    FromReporter,
    IpcError,
    Keep,
    Kept,
    Looked,
    ProcessState,
    Ready,
    Report,
    Seen,
    State,
    ToControl,
    Use,
    encode,
)
from edgeproxy.observe.admin import application
from edgeproxy.observe.collector import Process, Scrape
from edgeproxy.observe.metrics import Dump, WorkerStats, counters_only, empty, merge
from edgeproxy.operating import Operations
from edgeproxy.state.server import StoreServer

_BACKLOG: Final = 16 << 20  # bytes that wait for a worker
SCRAPE_DEADLINE: Final = 0.25  # seconds for workers to report when somebody scrapes
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICK: Final = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Task:
    """What control is given at its fork. ``kept``: what its predecessor asked the supervisor to keep, or nothing;
    ``config``: what is in use then (later ones come by ``Use``)."""

    state: State
    reports: socket.socket
    store: socket.socket
    admin: socket.socket
    admin_host: str | None
    channel: Channel[ToControl]
    kept: bytes
    config: Config


def run(task: Task) -> int:
    """Runs control to its end; returns the exit code. Called in the child, right after the fork."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Control(task, runner.get_loop()).run())


class Ledger:
    """The dumps of all workers, living and dead. Pure: no I/O, time comes in."""

    __slots__ = ("_dead", "_live")

    def __init__(self, kept: bytes = b"") -> None:
        self._dead: Dump = msgspec.json.decode(kept) if kept else empty()
        self._live: dict[str, tuple[Report, Dump, float]] = {}

    def report(self, head: Report, dump: Dump, now: float) -> bool:
        """The newest dump of an incarnation takes the place of the one before.

        A target that it no longer names was taken away by a reload; what it had counted there joins the dead until no
        worker names it (``prune``). Returns: the sum of the dead changed.
        """
        before = self._live.get(head.incarnation)
        self._live[head.incarnation] = (head, dump, now)
        if before is None:
            return False
        names = _targets(dump)
        gone = [t for t in before[1]["upstreams"] if (t["name"], t["target"]) not in names]
        if gone:
            self._dead = merge((self._dead, counters_only({**WorkerStats().dump(), "upstreams": gone})))
        return bool(gone)

    def prune(self, alive: set[int]) -> bool:
        """Forgets the dead's counters of targets that no worker names; says whether there were any.

        Only while every process in ``alive`` has reported: one that is about to may name them still."""
        if not alive or not alive <= {head.pid for head, _, _ in self._live.values()}:
            return False
        names: set[tuple[str, str]] = set()
        for _, dump, _ in self._live.values():
            names |= _targets(dump)
        rows = self._dead["upstreams"]
        left = [t for t in rows if (t["name"], t["target"]) in names]
        self._dead["upstreams"] = left
        return len(left) < len(rows)

    def bury(self, alive: set[int], connected: set[str]) -> bool:
        """Folds the dumps of processes that are no more into the sum of the dead; says whether there were any.

        Being absent from ``alive`` (pids) is not enough: a worker may report before the supervisor's word of its birth
        is read, and one that is buried and reports again would count twice. A closed connection alone says nothing."""
        gone = [key for key, (head, _, _) in self._live.items() if head.pid not in alive and key not in connected]
        for key in gone:
            _, dump, _ = self._live.pop(key)
            self._dead = merge((self._dead, counters_only(dump)))
        return bool(gone)

    def kept(self) -> bytes:
        """The sum of the dead, for the supervisor to keep."""
        return msgspec.json.encode(self._dead)

    def total(self) -> Dump:
        return merge((self._dead, *(dump for _, dump, _ in self._live.values())))

    def ages(self, now: float) -> dict[str, float]:
        """Seconds from each living worker's report to ``now``, by process name; 0 for one that came later."""
        return {f"worker-{head.slot}": max(0.0, now - at) for head, _, at in self._live.values()}


def _targets(dump: Dump) -> set[tuple[str, str]]:
    return {(t["name"], t["target"]) for t in dump["upstreams"]}


def readiness(state: State) -> tuple[bool, dict[str, Any]]:
    """Ready: not draining, every worker was up once, and each slot is served by a worker of the current generation (its
    own, or one that its sockets are lent to while its own is being replaced)."""
    fit = {int(w.name.rpartition("-")[2]) for w in state.workers if _is_fit(w, state.generation)}
    ready = state.started and not state.draining and all(w.served_by in fit for w in state.workers)
    last = state.last_reload
    return ready, {
        "draining": state.draining,
        "generation": state.generation,
        "workers": [msgspec.to_builtins(w) for w in state.workers],
        "last_reload": msgspec.to_builtins(last) if last is not None else None,
    }


def _is_fit(worker: ProcessState, generation: int) -> bool:
    return worker.state == "ready" and worker.generation == generation


class _Control:
    __slots__ = (
        "_asked", "_asks", "_channel", "_counter", "_desk", "_end", "_ledger", "_loop", "_operations", "_peers", "_state",
        "_task",
    )  # fmt: skip

    def __init__(self, task: Task, loop: asyncio.AbstractEventLoop) -> None:
        self._task = task
        self._loop = loop
        self._channel = task.channel
        self._state = task.state
        kept = msgspec.msgpack.decode(task.kept, type=Kept) if task.kept else Kept()
        self._ledger = Ledger(kept.own)
        self._peers: dict[_Peer, None] = {}  # as they came
        self._asks = 0
        # Of each Ask that is waited for: the peers that have not answered yet.
        self._asked: dict[int, tuple[set[_Peer], asyncio.Future[None]]] = {}
        self._end: asyncio.Future[None] = loop.create_future()
        self._desk = Desk(task.config)
        self._counter = Counter(self._desk, loop)
        self._operations = Operations(
            loop, task.config, self._counter, kept.blocks, self._say_to_all, self._say_to_last, self._remember
        )  # fmt: skip

    async def run(self) -> int:
        server = await self._loop.create_unix_server(lambda: _Peer(self), sock=self._task.reports)
        runner = web.AppRunner(
            application(self, self._task.admin_host, self._operations),
            access_log=None, handle_signals=False, shutdown_timeout=0.5,
        )  # fmt: skip
        await runner.setup()
        await web.SockSite(runner, self._task.admin).start()
        store = StoreServer()  # nobody connects to it but where several workers count together
        await store.start(self._task.store)
        self._operations.start(self._task.config, store)
        self._loop.add_reader(self._channel.fileno(), self._on_channel)
        self._send(Ready(self._state.generation))
        await self._end
        server.close()
        self._operations.close()
        store.close()
        await runner.cleanup()
        self._counter.close()
        return 0

    # The supervisor

    def _on_channel(self) -> None:
        try:
            for message in self._channel.receive():
                match message.head:
                    case State():
                        self._take(message.head)
                    case Use():
                        self._desk.use(message.blob)
                        self._operations.use(message.blob)
                    case Drain() | Abort():
                        self._finish()
        except (ChannelClosed, IpcError):
            self._loop.remove_reader(self._channel.fileno())
            self._finish()

    def _finish(self) -> None:
        if not self._end.done():
            self._end.set_result(None)

    def _take(self, state: State) -> None:
        self._state = state
        self._bury()
        self._send(Seen(state.number))

    def _bury(self) -> None:
        if self._ledger.bury({w.pid for w in self._state.workers}, {peer.incarnation for peer in self._peers}):
            self._remember()

    def _remember(self) -> None:
        """What the next control is to know."""
        self._send(Keep(), msgspec.msgpack.encode(Kept(self._ledger.kept(), self._operations.kept())))

    def _count(self, report: Report, dump: Dump) -> None:
        changed = self._ledger.report(report, dump, time.monotonic())
        # A pid of 0 is a worker that is still to come: nothing is forgotten before it has reported, too.
        if self._ledger.prune({w.pid for w in self._state.workers}) or changed:
            self._remember()

    def _send(self, head: msgspec.Struct, blob: bytes = b"") -> None:
        try:
            self._channel.send(head, blob)
            if self._channel.wants_write:
                self._loop.add_writer(self._channel.fileno(), self._on_writable)
        except ChannelClosed:
            self._finish()

    def _on_writable(self) -> None:
        with suppress(ChannelClosed):
            self._channel.flush()
        if not self._channel.wants_write:
            self._loop.remove_writer(self._channel.fileno())

    # Workers

    def on_peer(self, peer: _Peer, connected: bool) -> None:
        if connected:
            self._peers[peer] = None
            peer.say(*self._operations.greeting())
            return
        self._peers.pop(peer, None)
        for number in list(self._asked):
            self._answered(number, peer)
        self._bury()

    def on_report(self, peer: _Peer, report: Report, blob: bytes) -> None:
        peer.incarnation = report.incarnation
        self._count(report, msgspec.json.decode(blob))
        if report.answers:
            self._answered(report.answers, peer)

    def on_looked(self, head: Looked, blob: bytes) -> None:
        self._operations.looked(head, blob)

    def _say_to_all(self, head: msgspec.Struct, blob: bytes) -> bool:
        for peer in self._peers:
            peer.say(head, blob)
        return bool(self._peers)

    def _say_to_last(self, head: msgspec.Struct, blob: bytes) -> bool:
        for peer in reversed(self._peers):
            peer.say(head, blob)
            return True
        return False

    def _answered(self, number: int, peer: _Peer) -> None:
        asked = self._asked.get(number)
        if asked is None:
            return  # too late: its last report was used
        waiting, done = asked
        waiting.discard(peer)
        if not waiting and not done.done():
            done.set_result(None)

    async def _ask(self) -> None:
        """A report of every worker that gives one within SCRAPE_DEADLINE."""
        if not self._peers:
            return
        self._asks += 1
        number = self._asks
        done: asyncio.Future[None] = self._loop.create_future()
        self._asked[number] = (set(self._peers), done)
        for peer in self._peers:
            peer.say(Ask(number))
        try:
            await asyncio.wait_for(done, SCRAPE_DEADLINE)
        except TimeoutError:
            pass  # its age is a metric
        finally:
            del self._asked[number]

    # admin.Source

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        return readiness(self._state)

    async def explain(self, content: bytes) -> bytes:
        return await self._counter.ask(content)

    async def scrape(self) -> Scrape:
        asked = time.monotonic()
        await self._ask()
        state = self._state
        pids = {"supervisor": state.supervisor, "control": os.getpid()}
        pids |= {w.name: w.pid for w in state.workers if w.pid}
        seen = (process(name, pid) for name, pid in pids.items())
        return Scrape(
            total=self._ledger.total(),
            state=state,
            ready=readiness(state)[0],
            processes=[p for p in seen if p is not None],
            ages=self._ledger.ages(asked),
            blocks=self._operations.blocks.counts(),
        )


class _Peer(asyncio.Protocol):
    """One worker's connection."""

    __slots__ = ("_control", "_decoder", "_transport", "incarnation")

    def __init__(self, control: _Control) -> None:
        self._control = control
        self.incarnation = ""
        self._decoder: Decoder[Report | Looked] = Decoder(FromReporter)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._control.on_peer(self, True)

    def data_received(self, data: bytes) -> None:
        try:
            for head, blob in self._decoder.feed(data):
                if isinstance(head, Report):
                    self._control.on_report(self, head, blob)
                else:
                    self._control.on_looked(head, blob)
        except (IpcError, msgspec.DecodeError):
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        self._control.on_peer(self, False)

    def say(self, head: msgspec.Struct, blob: bytes = b"") -> None:
        transport = self._transport
        if transport is not None:
            transport.write(encode(head, blob))
            if transport.get_write_buffer_size() > _BACKLOG:
                transport.abort()  # a worker that hangs; if it goes on, it connects anew and is told all that is blocked then


def process(name: str, pid: int) -> Process | None:
    """What /proc says of a process; None where it is gone, or where there is no /proc."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  read on each scrape
            # The command may contain spaces and brackets; the fields after it don't.
            fields = file.read().rpartition(b") ")[2].split()
        fds = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
    except OSError:
        return None
    # proc_pid_stat(5): utime and stime are fields 14 and 15, rss (pages) is 24; state, the first one here, is 3.
    return Process(name, int(fields[21]) * _PAGE, (int(fields[11]) + int(fields[12])) / _TICK, fds)
