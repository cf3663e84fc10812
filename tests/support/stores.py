# The implementations that the contract suite of shared state runs over. One joins by a factory in FACTORIES.
"""A `Stand` is one state with several stores on it, as the workers of one edge (or two edges) have it."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from edgeproxy.state.embedded import EmbeddedStore, steady_clock
from edgeproxy.state.memory import Memory
from edgeproxy.state.ports import Admission, Change, Charge, Kind, Level, Quota, Store
from edgeproxy.state.redis import RedisStore, Settings
from edgeproxy.state.redis_open import open_redis
from edgeproxy.state.remote import RemoteStore
from edgeproxy.state.server import StoreServer
from support import redis_server

MS = 1000
SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR  # so long that hardly a test run sees one end
NOON = 1_800_014_400 * SECOND  # a full hour and a full day's half: windows begin at multiples of their length


class Hand:
    """A clock that tests set."""

    def __init__(self, now: int = NOON) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


@dataclass
class Stand:
    """One state.

    Attributes:
        stores: at least two, all on that state.
        hand: its clock; None: it is a server's own.
        keys: the most keys that may be in it; None: memory is the server's business.
        size: how many keys are in it now.
    """

    stores: Sequence[Store]
    hand: Hand | None = None
    keys: int | None = None
    size: Callable[[], int] | None = None

    @property
    def store(self) -> Store:
        return self.stores[0]

    async def later(self, microseconds: int) -> None:
        """Lets time pass on the store's clock (by waiting, where it is a server's own: keep it short)."""
        if self.hand is not None:
            self.hand.now += microseconds
        else:
            # The server's clock cannot be set. The loop's timers may fire a millisecond early.
            await asyncio.sleep(microseconds / SECOND + 0.002)


Factory = Callable[[], AbstractAsyncContextManager[Stand]]
KEYS = 4000


@asynccontextmanager
async def embedded() -> AsyncIterator[Stand]:
    hand = Hand()
    memory = Memory(hand.now, keys=KEYS)
    yield Stand([EmbeddedStore(memory, hand), EmbeddedStore(memory, hand)], hand, KEYS, lambda: len(memory))


@asynccontextmanager
async def embedded_socket() -> AsyncIterator[Stand]:
    hand = Hand()
    loop = asyncio.get_running_loop()
    server = StoreServer(Memory(hand.now, keys=KEYS), hand)
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        path = f"{folder}/store"
        listening.bind(path)
        listening.listen()
        await server.start(listening)
        # The suite is about answers: a busy machine must not make one late.
        stores = [RemoteStore(loop, path, "closed", 2, hand, deadline=20) for _ in range(2)]
        for store in stores:
            assert await store.start()
        try:
            yield Stand(stores, hand, KEYS, lambda: len(server.memory))
        finally:
            for store in stores:
                store.close()
            server.close()


@asynccontextmanager
async def on_redis(url: str, **options: Any) -> AsyncIterator[Stand]:
    """Two stores on a server that runs. The deadline is long: these tests are of what the store says, on a busy machine."""
    stores = [open_store(url, **{"deadline": 5.0, **options}) for _ in range(2)]
    try:
        for store in stores:
            assert await store.ready(10)
        yield Stand(stores)
    finally:
        await close_all(stores)


async def close_all(stores: Sequence[Store]) -> None:
    for store in stores:
        store.close()
    await settled_down()


async def settled_down() -> None:
    """Transports that were closed are gone after a few rounds of the loop."""
    for _ in range(5):
        await asyncio.sleep(0)


def open_store(url: str, **options: Any) -> RedisStore:
    """A store as a worker has it, with a table and a prefix of its own."""
    clock = steady_clock()
    return open_redis(url, Settings(**options), Memory(clock()), clock)


_servers = contextlib.ExitStack()  # of this test process: starting a cluster takes seconds, so tests share them
atexit.register(_servers.close)


@functools.cache
def _url(kind: str) -> str:
    """Of servers that run until this process ends; each stand has a prefix of its own in them."""
    start: dict[str, Callable[[], Any]] = {
        "redis": redis_server.running_server,
        "sentinel": redis_server.running_sentinel,
        "cluster": redis_server.running_cluster,
    }
    url: str = _servers.enter_context(start[kind]()).url
    return url


def shared(kind: str) -> Factory:
    """A stand on the servers of this process; skips, and says so, where there are none to be started."""

    @asynccontextmanager
    async def factory() -> AsyncIterator[Stand]:
        if redis_server.MISSING:
            pytest.skip(redis_server.MISSING)
        async with on_redis(_url(kind), prefix=f"t{os.urandom(4).hex()}:") as stand:
            yield stand

    return factory


FACTORIES: dict[str, Factory] = {
    "embedded": embedded,
    "embedded-socket": embedded_socket,
    **{kind: shared(kind) for kind in ("redis", "sentinel", "cluster")},
}


# What tests ask with


def name() -> bytes:
    """A key, or a lease, that nobody has used."""
    return os.urandom(16)


def quota(kind: Kind = Kind.GCRA, limit: int = 10, window: int = DAY, burst: int = 0, mitigation: int = 0) -> Quota:
    return Quota(f"quota-{os.urandom(4).hex()}", kind, limit, window, burst, mitigation)


def answer(call: Callable[..., None], *args: Any, **options: Any) -> asyncio.Future[Any]:
    """What the store calls back with. A second call of the callback is an error that fails the test."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    call(*args, **options, done=future.set_result)
    return future


async def admit(store: Store, *charges: Charge, lease: bytes | None = None) -> Admission:
    admission: Admission = await answer(store.admit, charges, lease or name())
    assert len(admission.verdicts) == len(charges)
    assert admission.allowed == all(verdict.allowed for verdict in admission.verdicts)
    return admission


async def peek(store: Store, *charges: Charge) -> tuple[Level, ...]:
    levels: tuple[Level, ...] | None = await answer(store.peek, charges)
    assert levels is not None
    return levels


async def remaining(store: Store, *charges: Charge) -> tuple[int, ...]:
    return tuple(level.remaining for level in await peek(store, *charges))


def change(charge: Charge, delta: int, admission: Admission, index: int = 0) -> Change:
    return Change(charge.quota, charge.key, delta, admission.verdicts[index].stamp)


async def until_remaining(store: Store, charges: list[Charge], wanted: tuple[int, ...]) -> None:
    """Refunds may be under way for a moment after the answer."""
    for _ in range(200):
        if await remaining(store, *charges) == wanted:
            return
        await asyncio.sleep(0.005)
    assert await remaining(store, *charges) == wanted
