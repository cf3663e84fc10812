# What callers of a Redis store see while servers die, hang, forget and change places: an answer, in time, within the bound.
"""Traffic runs on two stores (two workers) over keys that they share; something is done to the servers; then all is counted.

`FIXED` quotas with a window of a day count exactly, so what the store has charged can be compared with what callers were told.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support import redis_server
from support.redis_server import Server, running_cluster, running_sentinel, running_server
from support.stores import DAY, SECOND, answer, close_all, name, open_store, peek, quota, settled_down

from edgeproxy.state.ports import Admission, Change, Charge, Kind
from edgeproxy.state.redis import RedisStore
from edgeproxy.state.redis_cluster import slot_of

pytestmark = pytest.mark.skipif(redis_server.MISSING is not None, reason=str(redis_server.MISSING))

DEADLINE = 0.2  # seconds: far above what a busy machine takes for an answer
SLACK = 0.4  # seconds that the machine may be busy with something else
LIMIT = 1_000_000


class Traffic:
    """Clients that ask, hold a lease for a moment, and give it back.

    Attributes:
        told: what they were told: (when it was asked, seconds it took, the answer, which key).
    """

    def __init__(self, stores: list[RedisStore], keys: int = 4, limit: int = LIMIT) -> None:
        self.stores = stores
        counted = quota(Kind.FIXED, limit, DAY)
        self.leases = Charge(quota(Kind.LEASES, 100, 30 * SECOND), name(), 1)
        self.counted = [Charge(counted, name(), 1) for _ in range(keys)]
        self.told: list[tuple[float, float, Admission, int]] = []
        self._clients: list[asyncio.Task[None]] = []
        self._running = True

    def start(self, each: int = 4) -> None:
        self._clients = [asyncio.create_task(self._client(store, n)) for store in self.stores for n in range(each)]

    async def _client(self, store: RedisStore, number: int) -> None:
        while self._running:
            number += 1
            index = number % len(self.counted)
            await self.ask(store, index)
            await asyncio.sleep(0.002)

    async def ask(self, store: RedisStore, index: int) -> Admission:
        lease, charges = name(), [self.counted[index], self.leases]
        asked = time.monotonic()
        admission: Admission = await answer(store.admit, charges, lease)
        self.told.append((asked, time.monotonic() - asked, admission, index))
        await asyncio.sleep(0.001)
        if admission.allowed:
            store.settle([Change(self.leases.quota, self.leases.key, -1, admission.verdicts[1].stamp)], lease)
        return admission

    async def stop(self) -> None:
        self._running = False
        await asyncio.wait_for(asyncio.gather(*self._clients), 5)

    def by(self, since: float = 0.0) -> Counter[str]:
        return Counter(admission.by for asked, _, admission, _ in self.told if asked >= since)

    def allowed(self, by: str | None = None) -> int:
        return sum(a.allowed and by in {None, a.by} for _, _, a, _ in self.told)

    def slowest(self, since: float = 0.0) -> float:
        return max(took for asked, took, _, _ in self.told if asked >= since)

    async def all_by_store(self) -> None:
        """Waits until the store decides again, for all keys and both workers."""

        async def settled() -> bool:
            asked = [self.ask(store, i) for store in self.stores for i in range(len(self.counted))]
            return {admission.by for admission in await asyncio.gather(*asked)} == {"store"}

        await holds(settled, "the store to decide again")

    async def charged(self) -> int:
        """What the store has charged to all keys."""
        levels = await peek(self.stores[0], *self.counted)
        return sum(charge.quota.limit - level.remaining for charge, level in zip(self.counted, levels, strict=True))

    async def leases_are_free(self) -> None:
        async def free() -> bool:
            return (await peek(self.stores[0], self.leases))[0].remaining == 100

        await holds(free, "all leases to be given back")


async def holds(condition: Callable[[], Any], what: str, seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def running_traffic(url: str, **options: Any) -> AsyncIterator[Traffic]:
    stores = [open_store(url, shares=2, **{"deadline": DEADLINE, **options}) for _ in range(2)]
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    try:
        for store in stores:
            assert await store.ready(10)
        traffic = Traffic(stores)
        traffic.start()
        yield traffic
        await traffic.stop()
    finally:
        await close_all(stores)
    assert not complaints  # such as of an answer that came twice


async def a_while() -> None:
    await asyncio.sleep(0.3)


async def test_a_killed_server_costs_no_deadline_and_is_back_when_it_is_back() -> None:
    with running_server() as server:
        async with running_traffic(server.url) as traffic:
            await a_while()
            assert traffic.by().keys() == {"store"}
            server.kill()
            died = time.monotonic()
            await a_while()
            assert traffic.by(died + 0.1).keys() == {"local"}
            # A closed connection says so at once.
            assert traffic.slowest() < DEADLINE
            await asyncio.to_thread(server.restart)
            await traffic.all_by_store()
            await traffic.stop()
            assert all(a.allowed for _, _, a, _ in traffic.told)
            await traffic.leases_are_free()


async def test_a_paused_server_costs_one_deadline_once_and_charges_nobody_afterwards() -> None:
    with running_server() as server:
        async with running_traffic(server.url) as traffic:
            await a_while()
            server.pause()
            paused = time.monotonic()
            await asyncio.sleep(DEADLINE + SLACK + 0.3)
            # Who asked when it was already known that it does not answer was answered at once.
            assert traffic.slowest(paused + DEADLINE + SLACK) < SLACK / 2
            assert traffic.slowest() < DEADLINE + SLACK
            assert traffic.by(paused + DEADLINE + SLACK).keys() == {"local"}
            server.resume()
            await traffic.all_by_store()
            await traffic.stop()
            await traffic.leases_are_free()
            assert await traffic.charged() == traffic.allowed("store")


async def test_an_answer_that_comes_too_late_is_undone() -> None:
    """A server that executes late, but not so late that it would not look at the batch any more (twice the deadline)."""
    with running_server("--hz", "200") as server:  # how often it looks whether the pause is over
        async with running_traffic(server.url) as traffic:
            undone = 0
            for _ in range(20):  # it may be that only settlements were on their way
                await a_while()
                with server.client as client:
                    client.execute_command("CLIENT", "PAUSE", int(DEADLINE * 1300), "ALL")
                await asyncio.sleep(2 * DEADLINE)
                await traffic.all_by_store()
                if undone := sum(store.stats.undone for store in traffic.stores):
                    break
            await traffic.stop()
            await traffic.leases_are_free()
            assert undone
            assert await traffic.charged() == traffic.allowed("store")


@pytest.mark.parametrize("command", ["SCRIPT FLUSH", "FLUSHALL"])
async def test_a_server_that_forgets_is_reminded(command: str) -> None:
    with running_server() as server:
        async with running_traffic(server.url) as traffic:
            await a_while()
            with server.client as client:
                client.execute_command(command)
            await a_while()
            await traffic.stop()
            assert traffic.by().keys() == {"store"}
            assert all(a.allowed for _, _, a, _ in traffic.told)
            await traffic.leases_are_free()


async def test_lost_connections_leak_no_lease_and_charge_nobody_twice() -> None:
    with running_server() as server:
        async with running_traffic(server.url) as traffic:
            for _ in range(5):
                await a_while()
                with server.client as client:
                    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await traffic.all_by_store()
            await traffic.stop()
            await traffic.leases_are_free()
            # What was on its way may have been charged, though nobody heard of it: 4 clients a worker, five times.
            assert 0 <= await traffic.charged() - traffic.allowed("store") <= 5 * 8


async def test_a_way_that_swallows_everything_is_left() -> None:
    """Packets are dropped: neither answers nor an end of the connection."""
    with running_server() as server:
        async with running_relay(server) as relay, running_traffic(f"redis://127.0.0.1:{relay.port}/0") as traffic:
            await a_while()
            relay.deaf = True
            dropped = time.monotonic()
            await asyncio.sleep(DEADLINE + SLACK + 0.3)
            assert traffic.slowest() < DEADLINE + SLACK
            assert traffic.slowest(dropped + DEADLINE + SLACK) < SLACK / 2
            relay.deaf = False  # for new connections; those of before stay dead
            await traffic.all_by_store()
            await traffic.stop()
            assert all(a.allowed for _, _, a, _ in traffic.told)


async def test_over_admission_stays_within_the_published_bound() -> None:
    """A limit of 60 for each key; the server dies when it has admitted 60, and comes back with nothing."""
    with running_server() as server:
        stores = [open_store(server.url, shares=2, deadline=DEADLINE) for _ in range(2)]
        try:
            for store in stores:
                assert await store.ready(10)
            key = Charge(quota(Kind.FIXED, 60, DAY), name(), 1)
            fresh = Charge(key.quota, name(), 1)

            async def allowed(charge: Charge) -> int:
                asked = [answer(stores[i % 2].admit, [charge], name()) for i in range(200)]
                return sum([a.allowed for a in await asyncio.gather(*asked)])

            assert await allowed(key) == 60
            server.kill()

            async def away() -> bool:
                return not any(lane.up for store in stores for lane in store.lanes)

            await holds(away, "both workers to notice")
            # Known to have nothing left: nothing. Not known: the limit, in two shares.
            assert await allowed(key) == 0
            assert await allowed(fresh) == 60
            assert await allowed(fresh) == 0
            await asyncio.to_thread(server.restart)
            for store in stores:

                async def back(store: RedisStore = store) -> bool:
                    return store.lanes[0].up

                await holds(back, "the store to be back")
            assert await allowed(fresh) == 60  # its data are lost: one limit more
            assert await allowed(fresh) == 0
        finally:
            await close_all(stores)


async def test_sentinels_fail_over() -> None:
    with running_sentinel() as watched:
        async with running_traffic(watched.url) as traffic:
            await a_while()
            primary = watched.primary()
            primary.kill()
            await traffic.all_by_store()
            assert watched.primary() is not primary
            await traffic.stop()
            assert traffic.slowest() < DEADLINE + SLACK
            assert all(a.allowed for _, _, a, _ in traffic.told)
            await traffic.leases_are_free()


async def test_a_primary_of_a_cluster_fails_over_and_the_others_do_not_notice() -> None:
    with running_cluster(replicas=True) as cluster:
        async with running_traffic(cluster.url) as traffic:
            await a_while()
            victim = cluster.of_slot(slot_of(traffic.leases.key))
            unharmed = Charge(quota(Kind.FIXED, LIMIT, DAY), other_key(victim, cluster.of_slot), 1)
            victim.kill()
            died = time.monotonic()
            admission: Admission = await answer(traffic.stores[0].admit, [unharmed], name())
            assert admission.by == "store"
            await traffic.all_by_store()
            await traffic.stop()
            assert traffic.slowest() < DEADLINE + SLACK
            assert traffic.by(died)["local"] > 0
            assert all(a.allowed for _, _, a, _ in traffic.told)
            await traffic.leases_are_free()


async def test_a_paused_primary_of_a_cluster_costs_one_deadline_once() -> None:
    with running_cluster(replicas=True) as cluster:
        async with running_traffic(cluster.url) as traffic:
            await a_while()
            victim = cluster.of_slot(slot_of(traffic.leases.key))
            victim.pause()
            paused = time.monotonic()
            try:
                await asyncio.sleep(DEADLINE + SLACK + 0.3)
                assert traffic.slowest() < DEADLINE + SLACK
                assert traffic.slowest(paused + DEADLINE + SLACK) < SLACK / 2
                await traffic.all_by_store()  # its replica has taken over
            finally:
                victim.resume()
            await a_while()
            await traffic.all_by_store()
            await traffic.stop()
            assert traffic.slowest() < DEADLINE + SLACK
            assert all(a.allowed for _, _, a, _ in traffic.told)
            await traffic.leases_are_free()


async def test_a_paused_primary_that_comes_back_as_a_replica_is_left() -> None:
    with running_sentinel() as watched:
        async with running_traffic(watched.url) as traffic:
            await a_while()
            primary = watched.primary()
            primary.pause()
            try:
                await traffic.all_by_store()
            finally:
                primary.resume()
            assert watched.primary() is not primary
            await a_while()
            await traffic.all_by_store()
            await traffic.stop()
            assert traffic.slowest() < DEADLINE + SLACK
            await traffic.leases_are_free()


def other_key(victim: Server, of_slot: Callable[[int], Server]) -> bytes:
    """A key of another node."""
    while True:
        key = name()
        if of_slot(slot_of(key)) is not victim:
            return key


async def test_a_slot_that_moves_is_followed() -> None:
    with running_cluster() as cluster:
        async with running_traffic(cluster.url) as traffic:
            await a_while()
            slot = slot_of(traffic.leases.key)
            source = cluster.of_slot(slot)
            target = next(server for server in cluster.servers if server is not source)
            await asyncio.to_thread(move_slot, slot, source, target, cluster.servers)
            await traffic.all_by_store()
            await traffic.stop()
            assert all(a.allowed for _, _, a, _ in traffic.told)
            await traffic.leases_are_free()


def move_slot(slot: int, source: Server, target: Server, servers: list[Server]) -> None:
    """As redis-cli does it."""
    with source.client as old, target.client as new, contextlib.ExitStack() as stack:
        old_name, new_name = old.execute_command("CLUSTER MYID"), new.execute_command("CLUSTER MYID")
        new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", old_name)
        old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", new_name)
        while keys := old.execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
            old.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        clients = [stack.enter_context(server.client) for server in servers]
        for client in [new, old, *clients]:
            client.execute_command("CLUSTER SETSLOT", slot, "NODE", new_name)


class Relay:
    """Stands between a store and a server. Connections that were open while it was deaf stay dead."""

    def __init__(self) -> None:
        self.port = 0
        self.deaf = False
        self.tasks: set[asyncio.Task[None]] = set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dead = False
        try:
            while data := await reader.read(65536):
                dead = dead or self.deaf
                if not dead:
                    writer.write(data)
        finally:
            writer.close()


@asynccontextmanager
async def running_relay(server: Server) -> AsyncIterator[Relay]:
    relay = Relay()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", server.port)
        for ends in ((reader, there[1]), (there[0], writer)):
            task = asyncio.create_task(relay.carry(*ends))
            relay.tasks.add(task)

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    relay.port = listening.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        listening.close()
        for task in relay.tasks:
            task.cancel()
        await asyncio.gather(*relay.tasks, return_exceptions=True)
        await settled_down()
