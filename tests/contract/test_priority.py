# Low priority over every protocol: whoever is slowed waits behind those who came later, and leaves connections free.
from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.upstream import ok
from support.waiting import until

from .stand import stand, upstream_settings
from .test_bots import CURL, OWN, bots
from .test_pool import gated
from .test_rules import ruled

SLOW = bots(mode="act", slow={"score": 1, "priority": "low"})
RULE = ruled("- {id: low, expression: 'http.user_agent contains \"curl\"', action: set, priority: low}")
WAYS: dict[str, dict[str, Any]] = {"bots": {"bots": SLOW}, "rules": {"rules": RULE}}


def paths(s: Any) -> list[bytes]:
    return [seen.line.split()[1] for seen in s.upstream.requests]


@pytest.mark.parametrize("way", WAYS)
async def test_a_later_request_is_served_before_one_that_is_slowed(protocol: str, way: str) -> None:
    gate = asyncio.Event()
    async with stand(protocol, gated(gate), upstreams=upstream_settings(max_connections=1), **WAYS[way]) as s:
        calls = [(await s.dial()).call("GET", "/0", OWN)]
        await until(lambda: s.upstream.requests)
        for number, fields in enumerate((CURL, OWN, CURL, OWN), 1):
            calls.append((await s.dial()).call("GET", f"/{number}", fields))
            await until(lambda number=number: s.target().pending == number)
        assert s.target().pending_low == 2
        gate.set()
        for call in calls:
            assert await call.reply() == 200
        assert paths(s) == [b"/0", b"/2", b"/4", b"/1", b"/3"]
        assert (s.target().pending, s.target().pending_low) == (0, 0)


async def test_who_is_slowed_makes_place_in_a_full_queue(protocol: str) -> None:
    gate = asyncio.Event()
    settings = upstream_settings(max_connections=1, max_pending=1)
    async with stand(protocol, gated(gate), upstreams=settings, bots=SLOW) as s:
        first = (await s.dial()).call("GET", "/0", OWN)
        await until(lambda: s.upstream.requests)
        slowed = (await s.dial()).call("GET", "/1", CURL)
        await until(lambda: s.target().pending_low == 1)
        second = (await s.dial()).call("GET", "/2", OWN)
        assert await slowed.reply() == 503
        assert slowed.values(b"retry-after") == [b"1"] and s.records[0]["outcome"] == "edge: upstream_full"
        assert (s.target().pending, s.target().pending_low) == (1, 0)
        gate.set()
        assert await first.reply() == await second.reply() == 200
        assert paths(s) == [b"/0", b"/2"]


async def test_some_connections_are_kept_for_others(protocol: str) -> None:
    gate = asyncio.Event()
    async with stand(protocol, gated(gate), upstreams=upstream_settings(max_connections=4, reserved=50), bots=SLOW) as s:
        slowed = []
        for number in range(3):
            slowed.append((await s.dial()).call("GET", f"/slow/{number}", CURL))
            await until(lambda number=number: len(s.upstream.requests) + s.target().pending == number + 1)
        assert (len(s.upstream.requests), s.target().pending_low) == (2, 1)
        others = [(await s.dial()).call("GET", "/", OWN) for _ in range(2)]
        await until(lambda: len(s.upstream.requests) == 4)
        gate.set()
        for call in (*slowed, *others):
            assert await call.reply() == 200


async def test_with_nobody_else_there_nothing_is_different(protocol: str) -> None:
    async with stand(protocol, ok, bots=SLOW) as s:
        wire = await s.dial()
        for _ in range(3):
            assert (await wire.get("/", CURL)).status == 200
        assert s.target().reused == 2 and s.edge.stats.bots.acts == {("slow", "act"): 3}


async def test_one_that_leaves_and_one_that_waits_too_long(protocol: str) -> None:
    gate = asyncio.Event()
    settings = upstream_settings(max_connections=1, timeouts={"connect": "10s"})
    async with stand(protocol, gated(gate), upstreams=settings, bots=SLOW) as s:
        first = (await s.dial()).call("GET", "/0", OWN)
        await until(lambda: s.upstream.requests)
        leaving = (await s.dial()).call("GET", "/1", CURL)
        waiting = (await s.dial()).call("GET", "/2", CURL)
        await until(lambda: s.target().pending_low == 2)
        leaving.cancel()
        await until(lambda: s.target().pending_low == 1)
        s.edge.after(11)
        assert await waiting.reply() == 503
        assert s.records[-1]["outcome"] == "edge: upstream_full" and s.target().pending_low == 0
        gate.set()
        assert await first.reply() == 200
