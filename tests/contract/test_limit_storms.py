# Hundreds of clients leave at every point of an exchange, over every protocol: no place leaks, and nothing is charged twice.
from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.limits import WatchedStore, watched
from support.upstream import Connection
from support.waiting import until

from edgeproxy.chat.asking import read_ask

from .clients import Call, Wire
from .stand import STREAM, Stand, chunk, routed, stand

EACH = 40  # exchanges at each of the points below
WIRES = 4  # connections for them, where a connection carries many
POINTS = ("answered", "streaming", "silent", "uploading", "asking")
LIMITS: list[dict[str, Any]] = [
    {"name": "requests", "requests": 1_000_000},
    {"name": "tokens", "tokens": 1_000_000_000, "reserve": 5000},
    {"name": "places", "concurrent": 1000},
    {"name": "bytes", "bytes": "1GiB"},
    {"name": "trial", "requests": 1_000_000, "mode": "log"},
    {"name": "trial-places", "concurrent": 1000, "mode": "log"},
]
for each in LIMITS:
    each["key"] = "http.host"
    if "concurrent" not in each:
        each.update(algorithm="fixed-window", period="10h")
SETTINGS: dict[str, Any] = {
    "limits": LIMITS, "routes": routed(dialect="openai"), "upstreams": {"main": {"max_connections": 4000}},
}  # fmt: skip

BODY = b'{"model":"m","messages":[{"role":"user","content":"how are you?"}],"max_tokens":700,"stream":true,"stream_options":' \
       b'{"include_usage":true}}'  # fmt: skip
EVENT = b'data: {"choices":[{"delta":{"content":"x"}}],"usage":{"prompt_tokens":9,"completion_tokens":%d,"total_tokens":%d}}\n\n'
BEGUN, ENDED = EVENT % (2, 11), EVENT % (21, 30)
ask = read_ask("openai", BODY)
assert ask is not None
PROMPT = ask.prompt
TOKENS = {"answered": 30, "streaming": 11, "silent": PROMPT, "uploading": 0, "asking": 0}
HOWS = ("cancel", "reset", "close", "abort", "mixed")


class Storm:
    """Exchanges that stand at every point, until `over` lets those end that were not left.

    Attributes:
        calls: point → what stands there.
    """

    def __init__(self, s: Stand, store: WatchedStore, gate: asyncio.Event) -> None:
        self.s = s
        self.store = store
        self.gate = gate
        self.calls: dict[str, list[Call]] = {}
        self.wires: list[Wire] = []

    async def gather(self, points: tuple[str, ...] = POINTS) -> None:
        """Brings them there."""
        for point in points:
            if point == "asking":
                self.store.waits = True
            self.calls[point] = [await self._begin(point, number) for number in range(EACH)]
            if point == "answered":
                for call in self.calls[point]:
                    assert await call.reply(20) == 200
            elif point == "streaming":
                for call in self.calls[point]:
                    assert await call.received(len(BEGUN), 20) == BEGUN
            elif point == "silent":
                before = len(self.s.upstream.requests)
                await until(lambda: sum(each.line.startswith(b"POST /silent") for each in self.s.upstream.requests) == EACH, 20)
                assert before <= len(self.s.upstream.requests)
            elif point == "uploading":
                await until(lambda: self.s.edge.data_plane._gateway.held == EACH * 20, 20)
            else:
                await until(lambda: len(self.store.waiting) == EACH, 20)

    async def _begin(self, point: str, number: int) -> Call:
        if point == "answered" and self.wires and not self.wires[0].multiplexed:
            wire = self.wires[0]
            if number:
                await until(lambda: wire.calls[-1].over)
        elif len(self.wires) < WIRES or not self.wires[0].multiplexed:
            wire = await self.s.dial()
            self.wires.append(wire)
        else:
            wire = self.wires[number % WIRES]
        if point != "uploading":
            return wire.call("POST", f"/{point}", body=BODY)
        call = wire.call("POST", f"/{point}", end=False, length=len(BODY) if number % 2 else None)
        call.send(BODY[:20])
        return call

    def leave(self, how: str) -> None:
        """Every client leaves, at once."""
        for number, wire in enumerate(self.wires):
            way = HOWS[number % 4] if how == "mixed" else how
            if way != "cancel":
                getattr(wire, way)()
                continue
            for call in wire.calls:
                if not call.over:
                    call.cancel()

    async def check(self, records: int) -> None:
        """No place is taken, and every exchange is charged once, with what it came to."""
        s, store = self.s, self.store
        await until(lambda: len(s.records) == records, 20)
        store.answer()
        served = sum(len(self.calls.get(point, ())) for point in ("answered", "streaming", "silent"))
        assert store.used("places") == store.used("trial-places") == 0
        assert store.used("requests") == served
        assert store.used("trial") == served, "only who is let through is tried"
        assert store.used("tokens") == sum(TOKENS[point] * len(calls) for point, calls in self.calls.items())
        taken = [record for record in s.records if record["path"] not in {"/uploading", "/asking"}]
        assert store.used("bytes") == sum(record["bytes_in"] + record["bytes_out"] for record in taken)
        assert set(store.settled.values()) == {1}
        assert s.edge.data_plane._gateway.held == 0


def upstream(gate: asyncio.Event) -> Any:
    async def handler(connection: Connection) -> None:
        while True:
            received = await connection.request()
            if b"/silent" in received.line:
                await gate.wait()
            connection.write(STREAM + chunk(BEGUN))
            if b"/streaming" in received.line:
                await gate.wait()
            connection.write(chunk(ENDED) + b"0\r\n\r\n")

    return handler


@pytest.mark.parametrize("how", HOWS)
async def test_clients_leave(protocol: str, how: str) -> None:
    gate = asyncio.Event()
    async with stand(protocol, upstream(gate), **SETTINGS) as s:
        storm = Storm(s, watched(s), gate)
        await storm.gather()
        assert storm.store.used("places") == 3 * EACH - EACH, "answered: given back; uploading and asking: not taken yet"
        storm.leave(how)
        await storm.check(5 * EACH)
        await until(lambda: s.upstream.open <= EACH)
        again = await s.dial()
        assert await again.call("POST", "/answered", body=BODY).reply() == 200


async def test_clients_leave_one_after_the_other_while_all_goes_on(protocol: str) -> None:
    """In rounds that overlap: some leave before the store answers, some while the edge connects, some are answered."""
    gate = asyncio.Event()
    async with stand(protocol, upstream(gate), **SETTINGS) as s:
        store = watched(s)
        calls: list[Call] = []
        for number in range(60):
            wire = await s.dial(wait=number % 3 > 0)
            store.waits = number % 2 == 0
            calls += [wire.call("POST", f"/{POINTS[number % 3]}", body=BODY) for _ in range(4 if wire.multiplexed else 1)]
            if number % 5 == 4:
                store.answer()
            if number % 4 == 3:
                for call in calls[-6:-3]:
                    if not call.over:
                        call.cancel()
        store.answer()
        gate.set()
        for call in calls:
            await until(lambda call=call: call.over, 20)
        for wire in s.wires:
            await wire.leave()
        await until(lambda: s.edge.stats.streams_open == 0)
        store.answer()
        assert store.used("places") == store.used("trial-places") == 0
        reached = [record for record in s.records if record["upstream"] is not None]
        assert len(reached) <= store.used("requests") <= len(s.records)
        assert store.used("tokens") <= 30 * len(reached)
        assert set(store.settled.values()) == {1}
        limits = s.edge.stats.limits
        assert limits[("requests", "allowed")] - limits.get(("requests", "refunded"), 0) == store.used("requests")


async def test_upstreams_die(protocol: str) -> None:
    gate = asyncio.Event()
    async with stand(protocol, upstream(gate), **SETTINGS) as s:
        storm = Storm(s, watched(s), gate)
        await storm.gather(("streaming", "silent"))
        for connection in s.upstream.connections:
            connection.reset()
        for call in storm.calls["silent"]:
            assert await call.reply(20) == 502
        for call in storm.calls["streaming"]:
            await until(lambda call=call: call.over, 20)
            assert not call.complete
        await storm.check(2 * EACH)


@pytest.mark.parametrize("limits", [
    LIMITS, [], [{**limit, "name": f"new-{limit['name']}"} for limit in LIMITS],
    [{**limit, "algorithm": "gcra"} if "concurrent" not in limit else {**limit, "concurrent": 1} for limit in LIMITS],
], ids=["same", "none", "renamed", "changed"])  # fmt: skip
async def test_the_configuration_changes(protocol: str, limits: list[dict[str, Any]]) -> None:
    """Who has begun is settled with what it was charged by."""
    gate = asyncio.Event()
    async with stand(protocol, upstream(gate), **SETTINGS) as s:
        storm = Storm(s, watched(s), gate)
        await storm.gather(("streaming", "silent", "uploading", "asking"))
        s.reload(**{**SETTINGS, "limits": limits})
        storm.store.answer()
        gate.set()
        for point, calls in storm.calls.items():
            for call in calls:
                if point == "uploading":
                    call.send(BODY[20:], end=True)
                assert await call.reply(20) == 200
                assert call.body == BEGUN + ENDED
        await until(lambda: len(s.records) == 4 * EACH)
        store = storm.store
        assert (store.used("places"), store.used("requests"), store.used("tokens")) == (0, 4 * EACH, 30 * 4 * EACH)
        assert store.used("trial") == 4 * EACH and store.used("trial-places") == 0
        assert set(store.settled.values()) == {1}


@pytest.mark.parametrize("cut", [False, True])
async def test_the_worker_ends(protocol: str, cut: bool) -> None:
    gate = asyncio.Event()
    async with stand(protocol, upstream(gate), **SETTINGS) as s:
        storm = Storm(s, watched(s), gate)
        await storm.gather(("streaming", "silent", "uploading", "asking"))
        await s.edge.data_plane.stop_accepting()
        s.edge.data_plane.drain()
        if cut:
            s.edge.data_plane.abort()
            await storm.check(4 * EACH)
            return
        storm.store.answer()
        gate.set()
        for point, calls in storm.calls.items():
            for call in calls:
                if point == "uploading":
                    call.send(BODY[20:], end=True)
                assert await call.reply(20) == 200
        await until(lambda: len(s.records) == 4 * EACH)
        store = storm.store
        assert (store.used("places"), store.used("requests"), store.used("tokens")) == (0, 4 * EACH, 30 * 4 * EACH)
