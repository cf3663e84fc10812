# What edges and workers that share a store know of fingerprints together, on real stores and through rules.
from __future__ import annotations

import pytest
from support.bots import FIREFOX
from support.stores import FACTORIES
from support.waiting import until

from edgeproxy.signalling import EVERY, SLOTS

from .stand import Stand, stand
from .test_bots import bots
from .test_rules import ruled

RULES = ruled("- {id: many, expression: 'edge.ja4.browser_percent_1h ge 50', action: block}")
CURL, BROWSER = [(b"user-agent", b"curl/8.14.1")], [(b"user-agent", FIREFOX)]


async def rounds(*stands: Stand) -> None:
    """Each looks at all slots and tells what it knows, twice: the first hears of the last."""
    for s in stands * 2:
        signalling = s.edge.data_plane._gateway.watch.signalling
        assert signalling in s.edge.deadlines.members
        for n in range(SLOTS + 1):
            signalling.expire(s.edge.deadlines.now + n * EVERY)
            await until(lambda: not signalling._asked)  # noqa: B023  it is over before the next one


@pytest.mark.parametrize("kind", ["embedded-socket", "redis", "cluster"])
async def test_edges_add_up_what_they_saw(kind: str) -> None:
    # A browser's name is claimed by one client in ten at one edge, and by all at the other.
    async with (
        FACTORIES[kind]() as shared,
        stand("h1", bots=bots(), rules=RULES) as one,
        stand("h1", bots=bots(), rules=RULES) as other,
    ):
        for s, store in zip((one, other), shared.stores, strict=False):
            s.edge.data_plane.count(store)
        wire = await one.dial()
        assert [(await wire.get("/", CURL)).status for _ in range(2)] == [200, 200]
        for _ in range(12):
            await (await other.dial()).get("/", BROWSER)
        await rounds(one, other)
        ja4 = one.records[0]["ja4"]
        assert ja4 == other.records[0]["ja4"]
        for s in (one, other):
            numbers = s.edge.data_plane._gateway.watch._signals._numbers(ja4)
            assert numbers is not None and numbers[0] == 14
            assert s.edge.stats.bots.lookups["signals", "found"] >= 1 and ("signals", "failed") not in s.edge.stats.bots.lookups
        assert (await (await one.dial()).get("/", CURL)).status == 403, "what the other edge saw decides here"


async def test_who_reads_no_signals_pays_nothing(protocol: str) -> None:
    async with FACTORIES["embedded"]() as shared, stand(protocol, bots=bots()) as s:
        s.edge.data_plane.count(Asked(shared.store))
        signalling = s.edge.data_plane._gateway.watch.signalling
        assert signalling not in s.edge.deadlines.members
        s.reload(bots=bots(), rules=RULES)
        assert signalling in s.edge.deadlines.members
        s.reload(bots=bots(enabled=False), rules=RULES)
        assert signalling not in s.edge.deadlines.members
        s.reload(bots=bots(), limits=[{"name": "a", "requests": 9, "expression": "edge.ja4.ips_rank_1h le 3"}])
        assert signalling in s.edge.deadlines.members


class Asked:
    """A store that is not this process's own, as far as anybody can tell."""

    def __init__(self, inner: object) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)
