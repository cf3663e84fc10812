# The composition root of one worker: everything a worker is made of is put together here, and nothing of it is decided
# here. The supervisor's messages are the only way to command a worker; signals are left to the supervisor.
"""One worker process: event loop, counters, access log, data plane, the channel, reports."""

from __future__ import annotations

import asyncio
import gc
import math
import socket
import sys
import traceback
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec
import uvloop

from edgeproxy import preparing
from edgeproxy.config.keys import KeyBook
from edgeproxy.config.model import Config
from edgeproxy.counting import begun, open_store
from edgeproxy.ipc import (
    Abort,
    Channel,
    ChannelClosed,
    Drain,
    Failed,
    Forget,
    GiveBack,
    IpcError,
    Kept,
    Lend,
    Message,
    Prepare,
    Prepared,
    Ready,
    Rekey,
    Reopen,
    Switch,
    Switched,
    ToWorker,
)
from edgeproxy.observe.access import AccessLogWriter
from edgeproxy.observe.events import Events
from edgeproxy.observe.lines import FLUSH_INTERVAL, LineWriter
from edgeproxy.observe.metrics import WorkerStats
from edgeproxy.observe.reporter import Reporter
from edgeproxy.orders import Obeying, Orders
from edgeproxy.quic.ids import Seat
from edgeproxy.state.ports import Store
from edgeproxy.state.redis import RedisStore
from edgeproxy.state.remote import RemoteStore

_SETTLE: Final = 0.5  # seconds for resets to reach the clients
_POLL: Final = 0.02  # seconds between two looks at the number of connections while draining


class Plane(Obeying, Protocol):
    """What a worker needs of the data plane (edgeproxy.dataplane.DataPlane; tests bring one of their own)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stats: WorkerStats, log: AccessLogWriter | None) -> None: ...
    @staticmethod
    def prepare(config: Config, ticket_keys: bytes, instance: str | None = None) -> Any: ...
    async def close(self) -> None: ...
    def tell(self, events: Events) -> None:
        """Called once, before anything is served, where events are wanted."""

    def count(self, store: Store) -> None:
        """Called once, before anything is served, where several workers count together."""

    def switch(self, snapshot: Any) -> None: ...
    async def listen(self, https: list[socket.socket], http: list[socket.socket]) -> None:
        """Also called again, with the sockets of a slot that is lent to this worker."""

    def listen_quic(self, sockets: list[socket.socket], seat: Seat) -> None:
        """Called once, with bound UDP sockets; what else is said about listening and connections covers them."""

    async def release(self, sockets: list[socket.socket]) -> None:
        """Stops listening on these alone and closes this process's copies; their connections go on."""

    async def stop_accepting(self) -> None: ...
    def drain(self) -> None: ...
    @property
    def connections(self) -> int: ...
    def abort(self) -> None: ...


@dataclass(slots=True)
class Task:
    """What a worker is given at its fork."""

    slot: int
    config: Config
    ticket_keys: bytes
    generation: int
    instance: str  # the same for all workers of this edge, at all times
    https: list[socket.socket]
    http: list[socket.socket]
    quic: list[socket.socket]  # UDP; empty without h3
    seat: Seat | None  # this worker's place among those that speak h3
    channel: Channel[ToWorker]
    control: str | None  # path of control's socket
    store: str | None  # and of its store; None: this worker counts alone
    plane: type[Plane]
    kept: bytes = b""  # MessagePack of Kept; empty: control has kept nothing yet


def run(task: Task) -> int:
    """Runs a worker to its end; returns the exit code. Called in the child, right after the fork."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Worker(task, runner.get_loop()).run())


class _Worker:
    __slots__ = (
        "_aside",
        "_channel",
        "_config",
        "_deadline",
        "_end",
        "_events",
        "_generation",
        "_keys",
        "_lent",
        "_log",
        "_loop",
        "_plane",
        "_reporter",
        "_snapshot",
        "_stats",
        "_steps",
        "_store",
        "_task",
        "_thread",
        "_wanted",
    )

    def __init__(self, task: Task, loop: asyncio.AbstractEventLoop) -> None:
        self._task = task
        self._loop = loop
        self._channel = task.channel
        self._generation = task.generation
        self._stats = WorkerStats()
        self._log: AccessLogWriter | None = None
        self._events: Events | None = None
        self._store: Store | None = None
        self._plane: Plane | None = None
        self._reporter: Reporter | None = None
        self._aside: tuple[int, Config, Any] | None = None  # prepared, not yet in use
        self._config = task.config  # in use
        self._snapshot: Any = None  # of it
        self._keys: tuple[Config, KeyBook] | None = None  # the newest, and whose they are
        self._lent: dict[int, list[socket.socket]] = {}
        self._end: asyncio.Future[float] = loop.create_future()  # seconds that streams may still take
        self._deadline = math.inf
        self._wanted = 0  # generation being prepared
        # One thread: two preparations at a time would only fight for the interpreter lock with the loop.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        self._steps: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        self._loop.set_exception_handler(self._complain)
        try:
            plane = await self._start()
        except Exception as e:  # the supervisor is told, and gives up or tries again
            if not isinstance(e, OSError | ValueError):  # those speak for themselves
                traceback.print_exc()
            self._send(Failed(0, _reason(e)))
            return 1
        self._loop.add_reader(self._channel.fileno(), self._on_channel)
        self._send(Ready(self._generation))
        # What exists now lives as long as the process: the collector need not walk over it again, and what a request
        # makes is freed by reference counting.
        gc.enable()
        gc.set_threshold(20_000, 20, 50)
        gc.collect()
        gc.freeze()
        seconds = await self._end
        await self._leave(plane, seconds)
        return 0

    async def _start(self) -> Plane:
        task = self._task
        if task.config.access_log is not None:
            self._log = AccessLogWriter(task.config.access_log.file, self._stats)
        if task.config.events is not None:
            self._events = Events(task.config.events.file, self._stats)
        if self._writers():
            self._loop.call_later(FLUSH_INTERVAL, self._flush)
        plane = self._plane = task.plane(self._loop, self._stats, self._log)
        if self._events is not None:
            plane.tell(self._events)
        if (store := self._count_together(task.config)) is not None:
            await begun(store)
        self._snapshot = task.plane.prepare(task.config, task.ticket_keys, task.instance)
        plane.switch(self._snapshot)
        orders = Orders(self._loop, plane)
        if task.kept:  # control may be away, and in any case says so only when this worker serves already
            orders.begin(msgspec.msgpack.decode(task.kept, type=Kept).blocks)
        await plane.listen(task.https, task.http)
        if task.seat is not None:
            plane.listen_quic(task.quic, task.seat)
        if task.control is not None:
            self._reporter = Reporter(self._loop, self._stats, task.slot, task.control, orders.obey)
            self._reporter.connect()
        return plane

    def _count_together(self, config: Config) -> RemoteStore | RedisStore | None:
        """Who counts with others does so from when there is something to count. Returns: the store, if it is new."""
        if self._store is not None or self._plane is None:
            return None
        self._store = store = open_store(self._loop, config, self._task.store, self._stats.store)
        if store is not None:
            self._plane.count(store)
        return store

    # The supervisor's messages

    def _on_channel(self) -> None:
        try:
            for message in self._channel.receive():
                self._obey(message)
        except (ChannelClosed, IpcError):
            # The supervisor is gone, and with it whoever could replace or stop this process.
            self._loop.remove_reader(self._channel.fileno())
            self._finish(0.0)

    def _obey(self, message: Message[ToWorker]) -> None:
        match message.head:
            case Prepare(generation):
                self._step(self._prepare(generation, message.blob))
            case Switch(generation):
                self._switch(generation)
            case Forget():
                self._aside = None
                self._wanted = 0
            case Rekey():
                self._step(self._rekey(message.blob))
            case Lend(slot, https):
                self._step(self._borrow(slot, https, message.fds))
            case GiveBack(slot):
                self._step(self._give_back(slot))
            case Reopen():
                for writer in self._writers():
                    writer.reopen()
            case Drain(seconds):
                self._finish(seconds)
            case Abort():
                self._deadline = 0.0
                self._finish(0.0)

    def _finish(self, seconds: float) -> None:
        if not self._end.done():
            self._end.set_result(seconds)

    def _step(self, step: Coroutine[Any, Any, None]) -> None:
        running = self._loop.create_task(step)
        self._steps.add(running)
        running.add_done_callback(self._steps.discard)  # an error of it reaches _complain

    async def _prepare(self, generation: int, blob: bytes) -> None:
        self._aside = None
        self._wanted = generation
        try:
            config, snapshot = await self._loop.run_in_executor(self._thread, preparing.compiled, self._task, blob)
        except Exception as e:  # the old configuration stays, and the supervisor says why
            self._send(Failed(generation, _reason(e)))
            return
        if self._wanted != generation:
            return  # forgotten, or overtaken by a later reload, while it was compiled
        self._aside = (generation, config, snapshot)
        self._send(Prepared(generation))

    async def _rekey(self, blob: bytes) -> None:
        """Other keys, for the snapshot in use and for one that lies prepared; neither is compiled anew. One that is still being
        prepared lies there when these keys are read, because there is one thread; or it was sent later, and has them."""
        book = await self._loop.run_in_executor(self._thread, preparing.keys_of, blob)
        newest = self._keys = (self._config, book)
        while newest is self._keys and self._plane is not None:
            snapshot, aside = self._snapshot, self._aside
            made = await self._loop.run_in_executor(self._thread, preparing.with_keys, self._config, snapshot, newest)
            if aside is not None:
                other = await self._loop.run_in_executor(self._thread, preparing.with_keys, aside[1], aside[2], newest)
            if snapshot is self._snapshot and aside is self._aside and newest is self._keys:  # no switch came meanwhile
                self._snapshot = made
                self._aside = None if aside is None else (*aside[:2], other)
                self._plane.switch(made)
                return

    def _switch(self, generation: int) -> None:
        if self._aside is None or self._aside[0] != generation or self._plane is None:
            self._send(Failed(generation, "told to switch to what was not prepared"))
            return
        _, config, snapshot = self._aside
        self._aside = None
        if (store := self._count_together(config)) is not None:
            self._step(begun(store))
        self._plane.switch(snapshot)
        self._config, self._snapshot, self._generation = config, snapshot, generation
        if self._log is not None and config.access_log is not None:
            self._log.reopen(config.access_log.file)
        if self._events is not None and config.events is not None:
            self._events.writer.reopen(config.events.file)
        self._send(Switched(generation))

    async def _borrow(self, slot: int, https: int, fds: list[int]) -> None:
        sockets = [socket.socket(fileno=fd) for fd in fds]
        self._lent[slot] = sockets
        for sock in sockets:
            sock.setblocking(False)
        if self._plane is not None and not self._end.done():
            await self._plane.listen(sockets[:https], sockets[https:])

    async def _give_back(self, slot: int) -> None:
        sockets = self._lent.pop(slot, None)
        if sockets and self._plane is not None and not self._end.done():
            await self._plane.release(sockets)

    def _send(self, head: msgspec.Struct) -> None:
        try:
            self._channel.send(head)
            if self._channel.wants_write:
                self._loop.add_writer(self._channel.fileno(), self._on_writable)
        except ChannelClosed:
            self._finish(0.0)

    def _on_writable(self) -> None:
        try:
            self._channel.flush()
        except ChannelClosed:
            self._finish(0.0)
        if not self._channel.wants_write:
            self._loop.remove_writer(self._channel.fileno())

    # The end

    async def _leave(self, plane: Plane, seconds: float) -> None:
        await plane.stop_accepting()
        plane.drain()
        self._deadline = min(self._deadline, self._loop.time() + seconds)
        await self._emptied(plane)
        if plane.connections:
            plane.abort()
            self._deadline = self._loop.time() + _SETTLE
            await self._emptied(plane)
        await plane.close()
        for writer in self._writers():
            writer.close()
        if self._store is not None:
            self._store.close()
        if self._reporter is not None:
            await self._reporter.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _emptied(self, plane: Plane) -> None:
        """Waits until no connection is left, or the deadline (which an Abort brings forward)."""
        while plane.connections and self._loop.time() < self._deadline:  # noqa: ASYNC110  an event costs each connection
            await asyncio.sleep(_POLL)

    def _writers(self) -> list[LineWriter]:
        writers: list[LineWriter | None] = [self._log, self._events.writer if self._events is not None else None]
        return [writer for writer in writers if writer is not None]

    def _flush(self) -> None:
        for writer in self._writers():
            writer.flush()
        self._loop.call_later(FLUSH_INTERVAL, self._flush)

    def _complain(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        print(f"edgeproxy: worker {self._task.slot}: {context.get('message')}", file=sys.stderr)  # noqa: T201
        error = context.get("exception")
        if error is not None:
            traceback.print_exception(error)


def _reason(e: BaseException) -> str:
    return f"{e}" if isinstance(e, OSError | ValueError) and str(e) else f"{type(e).__name__}: {e}"
