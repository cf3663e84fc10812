# Nonces of signed requests over every protocol: once with one edge, once with two edges and a store that they share.
from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis import Redis
from support import redis_server
from support.client import connected
from support.edge import Edge
from support.signing import Signer
from support.stores import FACTORIES, close_all, open_store
from support.upstream import Handler, echo, ok
from support.waiting import until

from edgeproxy.bots.keys import read_directory
from edgeproxy.state.embedded import EmbeddedStore

from .stand import Stand, stand
from .test_bots import bots
from .test_rules import ruled
from .test_tunnel import ASK, mirror

SIGNER = Signer()
AGENT = "https://agent.example"
BOTS = bots(identity={"dns": False, "known_agents": False, "agents": [AGENT]})
ONLY = ruled("- {id: only, expression: 'not cf.bot_management.signed_agent', action: block}")


class HeldStore:
    """A store that answers when it is told to: as the one in it, or that it is away."""

    def __init__(self) -> None:
        self.inner = EmbeddedStore()
        self.waiting: list[tuple[Callable[[], None], Callable[[], None]]] = []
        self.away = False

    def put(self, key: bytes, value: bytes, ttl: int, *, once: bool, done: Callable[[bool], None]) -> None:
        self.asking: Any = done.__self__  # type: ignore[attr-defined]
        self.waiting.append((lambda: self.inner.put(key, value, ttl, once=once, done=done), lambda: done(False)))

    def get(self, key: bytes, done: Callable[[bytes | None], None]) -> None:
        done(None) if self.away else self.inner.get(key, done)

    @property
    def received(self) -> int:
        """Bytes of the body of who waits."""
        return int(self.asking._exchange.body.received)

    def answer(self, *, away: bool = False) -> None:
        waiting, self.waiting, self.away = self.waiting, [], away
        for says, fails in waiting:
            fails() if away else says()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@asynccontextmanager
async def knowing(protocol: str, handler: Handler = ok, **changes: Any) -> AsyncIterator[Stand]:
    """A stand whose edge has the agent's keys, and lets nobody through who is not the agent."""
    async with stand(protocol, handler, bots=BOTS, rules=ONLY, **changes) as s:
        keys, lookups = read_directory(SIGNER.directory()), s.edge.data_plane._identifying.lookups
        assert isinstance(keys, dict) and lookups is not None
        lookups.keyring.put(AGENT, keys, 3600, time.time())
        try:
            yield s
        finally:
            await s.edge.data_plane.close()


def held(s: Stand) -> HeldStore:
    store = HeldStore()
    s.edge.data_plane.count(store)  # type: ignore[arg-type]
    return store


def signed(nonce: str = "n") -> list[tuple[bytes, bytes]]:
    covered = [('"@authority"', "localhost"), ('"signature-agent";key="sig1"', f'"{AGENT}"')]
    now = int(time.time())
    return SIGNER.fields(covered, created=now - 10, expires=now + 300, more=f';nonce="{nonce}"')


def nonces(edge: Edge) -> dict[str, int]:
    return {outcome: n for (what, outcome), n in edge.stats.bots.lookups.items() if what == "nonce"}


async def test_first_and_replayed(protocol: str) -> None:
    async with knowing(protocol) as s:
        wire, fields = await s.dial(), signed()
        assert [(await wire.get("/", fields)).status for _ in range(3)] == [200, 403, 403]
        assert (await (await s.dial()).get("/", fields)).status == 403
        assert (await wire.get("/", signed("m"))).status == 200
        assert (await wire.get("/", ())).status == 403
        assert nonces(s.edge) == {"first": 2, "spent": 3} and s.edge.stats.bots.failures == 0


async def test_who_waits_for_the_store(protocol: str) -> None:
    """Only who has something to prove; and both who have sent the same are asked about, of which one is the first."""
    async with knowing(protocol, echo) as s:
        store = held(s)
        fields = signed()
        calls = [(await s.dial()).call("POST", "/", fields, b"content") for _ in range(2)]
        await until(lambda: len(store.waiting) == 2)
        assert (await (await s.dial()).get("/", ())).status == 403, "nobody else waits"
        assert s.upstream.connections == [] and not any(call.over for call in calls)
        store.answer()
        assert sorted([await call.reply() for call in calls]) == [200, 403]
        assert [request.body for request in s.upstream.requests] == [b"content"]


async def test_a_store_that_is_away(protocol: str) -> None:
    async with knowing(protocol) as s:
        store, fields = held(s), signed()
        for wanted in (200, 403):
            call = (await s.dial()).call("GET", "/", fields)
            await until(lambda: store.waiting)
            store.answer(away=True)
            assert await call.reply() == wanted
        assert nonces(s.edge) == {"failed": 2} and s.edge.stats.bots.failures == 0


@pytest.mark.parametrize("how", ["cancel", "reset", "close"])
async def test_a_client_leaves_while_it_waits(protocol: str, how: str) -> None:
    async with knowing(protocol) as s:
        store, wire = held(s), await s.dial()
        call = wire.call("POST", "/", signed(), b"content")
        await until(lambda: store.waiting)
        {"cancel": call.cancel, "reset": wire.reset, "close": wire.close}[how]()
        assert (await s.record())["outcome"] == "client_gone"
        store.answer()
        call = (await s.dial()).call("GET", "/", signed())
        await until(lambda: store.waiting)
        store.answer()
        assert await call.reply() == 403, "it was spent all the same"
        assert s.upstream.requests == []


async def test_a_body_comes_while_it_waits(protocol: str) -> None:
    async with knowing(protocol, echo) as s:
        store, wire = held(s), await s.dial()
        call = wire.call("POST", "/", signed(), end=False)
        call.send(b"a" * 10_000)
        await until(lambda: store.waiting and store.received == 10_000)
        call.send(b"b" * 10_000)
        await until(lambda: store.received == 20_000)
        store.answer()
        call.send(b"c" * 10_000, end=True)
        assert await call.reply() == 200
        assert call.body == b"a" * 10_000 + b"b" * 10_000 + b"c" * 10_000


async def test_a_body_that_comes_while_it_waits_is_bounded(protocol: str) -> None:
    async with knowing(protocol, client={"max_body": "16KiB"}) as s:
        store, wire = held(s), await s.dial()
        call = wire.call("POST", "/", signed(), end=False)
        call.send(b"x" * (32 << 20))
        await until(lambda: store.waiting)
        before = -1
        while store.received != before:
            before = store.received
            await asyncio.sleep(0.1)
        assert 64 << 10 <= before < 4 << 20, "what nobody takes is not let in"
        store.answer()
        assert await call.head() == 413 and s.upstream.requests == []


async def test_reloads_and_drains_meanwhile(protocol: str) -> None:
    async with knowing(protocol) as s:
        store, wires = held(s), [await s.dial() for _ in range(2)]
        calls = [wire.call("GET", "/", signed(name)) for wire, name in zip(wires, "ab", strict=True)]
        await until(lambda: len(store.waiting) == 2)
        s.reload(bots=BOTS, rules=ruled("- {id: all, expression: 'true', action: block}"))
        s.edge.data_plane.drain()
        store.answer()
        assert [await call.reply() for call in calls] == [200, 200], "they go on as they began"


async def test_a_tunnel_is_asked_for() -> None:
    """What the client sends into it too early comes when it is open."""
    async with knowing("h1", mirror) as s:
        store = held(s)
        lines = b"".join(b"%b: %b\r\n" % field for field in signed())
        async with connected(s.edge.https_port) as client:
            await client.send(ASK[:-2] + lines + b"\r\n" + b"early")
            await until(lambda: store.waiting)
            await client.send(b" bytes")
            assert s.upstream.connections == []
            store.answer()
            head = await client.take_until(b"\r\n\r\n")
            assert head is not None and head.startswith(b"HTTP/1.1 101 ")
            assert await client.take(11) == b"early bytes"


@pytest.mark.parametrize("kind", ["embedded-socket", "redis", "cluster"])
async def test_edges_and_workers_that_share_a_store(kind: str) -> None:
    """What the first has taken the second refuses, and neither knew it of itself."""
    async with FACTORIES[kind]() as shared, knowing("h2") as one, knowing("h1") as other:
        for s, store in zip((one, other), shared.stores, strict=False):
            s.edge.data_plane.count(store)
        fields = signed()
        assert (await _get(one, fields)).status == 200
        assert (await _get(other, fields)).status == 403
        assert (await _get(other, signed("m"))).status == 200
        assert (await _get(one, signed("m"))).status == 403
        assert nonces(one.edge) == nonces(other.edge) == {"first": 1, "spent": 1}
        for store in shared.stores:
            store.close()
        assert [(await _get(other, signed("k"))).status for _ in range(2)] == [200, 403], "each by itself then"
        assert nonces(other.edge)["failed"] == 2


async def test_a_server_that_hangs_is_waited_for_once_and_not_for_long() -> None:
    if redis_server.MISSING:
        pytest.skip(redis_server.MISSING)
    with redis_server.running_server() as server:
        store = open_store(server.url, deadline=0.5)
        assert await store.ready(10)
        async with knowing("h2") as s:
            s.edge.data_plane.count(store)
            wire, fields, loop = await s.dial(), signed(), asyncio.get_running_loop()
            assert (await wire.get("/", signed("before"))).status == 200
            with Redis.from_url(server.url) as client:
                client.execute_command("CLIENT", "PAUSE", 5000, "ALL")
            began = loop.time()
            assert [(await wire.get("/", fields)).status for _ in range(2)] == [200, 403]
            assert loop.time() - began < 2, "the deadline, once, on a busy machine"
            assert nonces(s.edge) == {"first": 1, "failed": 2}
        await close_all([store])


async def _get(s: Stand, fields: list[tuple[bytes, bytes]]) -> Any:
    return await (await s.dial()).get("/", fields)
