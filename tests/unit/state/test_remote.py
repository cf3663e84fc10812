# The embedded store over a socket, when things go wrong: late, gone, restarted, slow, lying, too much at once.
from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from support.stores import admit, answer, change, name, quota, remaining
from support.waiting import until

from edgeproxy.state import refusals, remote, wire
from edgeproxy.state.fallback import Mode
from edgeproxy.state.memory import Memory
from edgeproxy.state.ports import Admission, Charge, Kind
from edgeproxy.state.remote import RemoteStore
from edgeproxy.state.server import StoreServer

DEADLINE = 0.05  # where it is about being late; elsewhere a busy machine must not make it so


class Gate:
    """Between workers and a server: a path that can be closed, held up and opened again."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.server: StoreServer | None = None
        self._flow = asyncio.Event()
        self._flow.set()
        self._opened = 0
        self.delay = 0.0
        self._front: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    def hold(self, held: bool) -> None:
        """While it is held nothing passes, and nothing ends: a server that hangs."""
        if held:
            self._flow.clear()
        else:
            self._flow.set()

    @property
    def back(self) -> str:
        """Where the server itself listens."""
        return f"{self.path}.{self._opened}"

    async def open(self, memory: Memory | None = None) -> StoreServer:
        """A fresh server, as a control process that was started again has it."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._opened += 1
        listening.bind(self.back)
        listening.listen()
        self.server = StoreServer(memory)
        await self.server.start(listening)
        if self._front is None:
            self._front = await asyncio.start_unix_server(self._connected, self.path)
        return self.server

    def shut(self) -> None:
        """The server dies: its memory is gone, and so are all connections."""
        if self.server is not None:
            self.server.close()
            self.server = None
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def close(self) -> None:
        self.shut()
        if self._front is not None:
            self._front.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back_reader, back_writer = await asyncio.open_unix_connection(self.back)
        except OSError:
            writer.transport.abort()
            return
        self._writers += [writer, back_writer]
        for source, target in ((reader, back_writer), (back_reader, writer)):
            task = asyncio.create_task(self._pump(source, target))
            self._tasks.add(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if self.delay:
                    await asyncio.sleep(self.delay)
                await self._flow.wait()
                writer.write(data)
        writer.transport.abort()


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gate]:
    gate = Gate(tmp_path / "store")
    await gate.open()
    yield gate
    await gate.close()


@asynccontextmanager
async def workers(gate: Gate, mode: Mode, count: int = 2, deadline: float = 10.0) -> AsyncIterator[list[RemoteStore]]:
    loop = asyncio.get_running_loop()
    stores = [RemoteStore(loop, gate.path, mode, count, deadline=deadline) for _ in range(count)]
    for store in stores:
        await store.start()
    try:
        yield stores
    finally:
        for store in stores:
            store.close()


async def many(store: RemoteStore, charge: Charge, count: int) -> list[Admission]:
    return await asyncio.gather(*(admit(store, charge) for _ in range(count)))


def allowed(admissions: list[Admission]) -> int:
    return sum(admission.allowed for admission in admissions)


@pytest.mark.parametrize(("mode", "through"), [("open", 20), ("closed", 0), ("local", 5)])
async def test_a_server_that_hangs_costs_one_deadline_in_total(gate: Gate, mode: Mode, through: int) -> None:
    loop = asyncio.get_running_loop()
    async with workers(gate, mode, deadline=DEADLINE) as (store, _):
        charge = Charge(quota(limit=10), name(), 1)
        gate.hold(True)
        began = loop.time()
        admissions = await many(store, charge, 20)
        first = loop.time() - began
        assert {a.by for a in admissions} == {mode} and allowed(admissions) == through
        assert DEADLINE * 0.9 <= first < DEADLINE * 4
        began = loop.time()
        for _ in range(200):
            assert (await admit(store, charge._replace(key=name()))).by == mode
            assert await answer(store.peek, [charge]) is None
            assert not await answer(store.put, name(), b"x", 1000, once=True)
        assert loop.time() - began < DEADLINE
        gate.hold(False)
        await until(lambda: store.connected)
        assert (await admit(store, charge._replace(key=name()))).by == "store"


async def test_what_is_admitted_too_late_is_given_back(gate: Gate) -> None:
    async with workers(gate, "open", deadline=DEADLINE) as (store, other):
        charges = [Charge(quota(kind, limit=10), name(), 3) for kind in Kind]
        gate.hold(True)
        assert (await admit(store, *charges)).by == "open"
        gate.hold(False)
        await until(lambda: store.connected and other.connected)
        for _ in range(100):
            if await remaining(other, *charges) == (10, 10, 10, 10):
                return
        pytest.fail("the units did not come back")


async def test_a_server_that_ends_is_noticed_at_once_and_found_again(gate: Gate) -> None:
    loop = asyncio.get_running_loop()
    async with workers(gate, "local") as (store, _):
        charge = Charge(quota(limit=10), name(), 1)
        assert allowed(await many(store, charge, 10)) == 10
        pending = answer(store.admit, [charge._replace(key=name())], name())
        await asyncio.sleep(0)
        began = loop.time()
        gate.shut()
        assert (await pending).by in {"local", "store"}
        await until(lambda: not store.connected)
        assert loop.time() - began < DEADLINE
        assert (await admit(store, charge._replace(key=name()))).by == "local"
        await gate.open()
        await until(lambda: store.connected)
        assert (await admit(store, charge._replace(key=name()))).by == "store"


@pytest.mark.parametrize("kind", [Kind.GCRA, Kind.FIXED, Kind.SLIDING])
async def test_the_bound_on_over_admission(gate: Gate, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    """The limit, once more for each memory that was lost, and once more for all shares together: no more, however
    often the server comes and goes."""
    monkeypatch.setattr(refusals, "LEAST", 10**18)  # what is known to be refused would hide what is not bounded
    rand = random.Random(kind)
    async with workers(gate, "local", 3) as stores:
        charge = Charge(quota(kind, limit=100), name(), 1)
        total, restarts = 0, 3
        fresh = [charge._replace(key=name()) for _ in range(5)]  # which the store never judges
        outages = dict.fromkeys(fresh, 0)
        for round_ in range(restarts + 1):
            for store in rand.choices(stores, k=6):
                total += allowed(await many(store, charge, 50))
            gate.shut()
            await until(lambda: not any(s.connected for s in stores))
            for store in rand.choices(stores, k=12):
                total += allowed(await many(store, charge, 50))
                for other in fresh:
                    outages[other] += allowed(await many(store, other, 50))
            if round_ < restarts:
                await gate.open()
                await until(lambda: all(s.connected for s in stores))
        assert 100 * (restarts + 1) <= total <= 100 * (restarts + 2)
        assert all(66 <= count <= 100 for count in outages.values())


async def test_a_slow_server_is_left_alone_until_it_is_fast(gate: Gate) -> None:
    """Late every time: only what was sent before that was known had to wait."""
    loop = asyncio.get_running_loop()
    async with workers(gate, "open", deadline=DEADLINE) as (store, _):
        gate.delay = DEADLINE
        waits = []
        end = loop.time() + 0.6
        while loop.time() < end:
            began = loop.time()
            await admit(store, Charge(quota(), name(), 1))
            waits.append(loop.time() - began)
            await asyncio.sleep(0.001)
        assert len([w for w in waits if w > DEADLINE / 2]) == 1
        gate.delay = 0.0
        await until(lambda: store.connected)


async def test_settling_of_what_was_admitted_here_stays_here(gate: Gate) -> None:
    async with workers(gate, "local") as (store, other):
        charge, lease = Charge(quota(limit=100), name(), 20), name()
        assert (await admit(other, charge)).by == "store"
        gate.shut()
        await until(lambda: not store.connected)
        local = await admit(store, charge, lease=lease)
        assert local.by == "local" and local.allowed
        memory = (await gate.open()).memory
        await until(lambda: store.connected and other.connected)
        assert (await admit(other, charge)).by == "store"
        for _ in range(2):
            store.settle([change(charge, -20, local)], lease)
        assert await remaining(store, charge) == (80,)
        assert len(memory) == 1


async def test_a_settling_from_before_a_restart_refunds_nothing(gate: Gate) -> None:
    async with workers(gate, "closed") as (store, other):
        charge, lease = Charge(quota(limit=100), name(), 60), name()
        admission = await admit(store, charge, lease=lease)
        gate.shut()
        await until(lambda: not store.connected and not other.connected)
        await gate.open()
        await until(lambda: store.connected and other.connected)
        assert (await admit(other, charge)).allowed
        store.settle([change(charge, -60, admission)], lease)
        assert await remaining(store, charge) == (40,)


async def test_open_leaves_no_charge_and_refunds_none(gate: Gate) -> None:
    async with workers(gate, "open", deadline=DEADLINE) as (store, other):
        charge, lease = Charge(quota(limit=100), name(), 60), name()
        gate.hold(True)
        admission = await admit(store, charge, lease=lease)
        assert admission.by == "open"
        gate.hold(False)
        await until(lambda: store.connected and other.connected)
        assert (await admit(other, charge)).allowed
        store.settle([change(charge, -60, admission)], lease)
        await remaining(store, charge)
        assert await remaining(other, charge) == (40,)


async def test_too_much_at_once_is_answered_by_the_failure_mode(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MAX_WAITING", 100)
    async with workers(gate, "closed") as (store, _):
        charge = Charge(quota(limit=1000), name(), 1)
        answers = await many(store, charge, 150)
        assert [a.by for a in answers] == ["store"] * 100 + ["closed"] * 50


async def test_answers_come_in_the_order_of_the_questions(gate: Gate) -> None:
    async with workers(gate, "closed") as (store, _):
        order: list[int] = []
        charge = Charge(quota(limit=1000), name(), 1)
        asks: list[Callable[[int], None]] = [
            lambda i: store.admit([charge], name(), lambda _: order.append(i)),
            lambda i: store.peek([charge], lambda _: order.append(i)),
            lambda i: store.get(name(), lambda _: order.append(i)),
            lambda i: store.put(name(), b"x" * 60_000, 10**6, once=False, done=lambda _: order.append(i)),
        ]
        for i in range(400):
            asks[i % 4](i)
        await until(lambda: len(order) == 400)
        assert order == list(range(400))
        assert store.late == 0


async def test_a_callback_that_fails_takes_no_other_with_it(gate: Gate) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with workers(gate, "closed") as (store, _):
        charge, answers = Charge(quota(), name(), 1), list[Admission]()
        store.admit([charge], name(), lambda _: answers[99])  # type: ignore[arg-type, return-value]
        store.admit([charge], name(), answers.append)
        await until(lambda: answers)
        assert isinstance(complaints[0]["exception"], IndexError)


async def test_known_refusals_are_not_asked_about(gate: Gate) -> None:
    async with workers(gate, "closed") as (store, _):
        charge = Charge(quota(Kind.FIXED, limit=2), name(), 1)
        by = [(await admit(store, charge)).by for _ in range(5)]
        assert by == ["store", "store", "store", "known", "known"]
        assert await answer(store.reset, [charge])
        assert (await admit(store, charge)).allowed


async def test_many_reloads_on_one_connection(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MAX_QUOTAS", 50)
    async with workers(gate, "local") as (store, _):
        for _ in range(200):
            await admit(store, Charge(quota(), name(), 1))
        await until(lambda: store.connected)
        assert len(store._numbers) <= 50


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        struct.pack("<I", 3) + b"abc",
        wire.frame(b"\x91\x93\x01\x91\x93\x07\xc4\x01k\x01\xc4\x01l"),  # a charge of a quota that nobody defined
        wire.frame(b"\x91\x92\x63\x01"),
    ],
)
async def test_garbage_ends_the_connection_and_nothing_else(gate: Gate, data: bytes) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with workers(gate, "closed") as (store, _):
        reader, writer = await asyncio.open_unix_connection(gate.path)
        writer.write(data)
        assert await reader.read() == b""
        writer.close()
        assert complaints and "embedded store" in complaints[0]["message"]
        assert (await admit(store, Charge(quota(), name(), 1))).by == "store"


async def test_a_worker_that_does_not_read_is_let_go(gate: Gate) -> None:
    server = gate.server
    assert server is not None
    async with workers(gate, "closed") as (store, _):
        key = name()
        assert await answer(store.put, key, b"x" * 65_000, 10**9, once=False)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.connect(gate.back)
        await until(lambda: len(server._peers) == 3)
        ask = wire.frame(wire.encoder(lambda _: 0).encode([wire.Get(key)] * 16))
        for _ in range(50):
            with suppress(OSError):
                sock.send(ask)
            await asyncio.sleep(0)
        await until(lambda: len(server._peers) == 2)
        sock.close()


async def test_a_connected_socket_is_not_connected_again(gate: Gate) -> None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(gate.path)
    sock.setblocking(False)
    store = RemoteStore(asyncio.get_running_loop(), sock, "local", 2)
    assert await store.start()
    assert (await admit(store, Charge(quota(), name(), 1))).by == "store"
    gate.shut()
    await until(lambda: not store.connected)
    assert (await admit(store, Charge(quota(), name(), 1))).by == "local"
    store.close()


async def test_without_a_server_it_starts_by_the_failure_mode(tmp_path: Path) -> None:
    store = RemoteStore(asyncio.get_running_loop(), str(tmp_path / "nobody"), "local", 2)
    assert not await store.start(within=0.01)
    assert (await admit(store, Charge(quota(), name(), 1))).by == "local"
    gate = Gate(tmp_path / "nobody")
    await gate.open()
    await until(lambda: store.connected)
    store.close()
    await gate.close()
