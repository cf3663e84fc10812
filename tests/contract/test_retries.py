# Clients that say that they try again: how often an upstream is reached, and what they are told when it is enough.
from __future__ import annotations

import json
import socket
from contextlib import AsyncExitStack
from typing import Any

import pytest
from support.upstream import Connection, ok

from .stand import routed, stand, upstream_settings
from .test_pool import dies_on_second


async def busy(connection: Connection) -> None:
    while True:
        await connection.request()
        connection.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")


def again(tried: int | str) -> list[tuple[bytes, bytes]]:
    return [(b"x-stainless-retry-count", str(tried).encode())]


async def test_an_upstream_is_reached_so_often_and_no_more(protocol: str) -> None:
    changes: dict[str, Any] = {"routes": routed(dialect="openai"), "upstreams": upstream_settings(retries={"max_attempts": 3})}
    async with stand(protocol, busy, **changes) as s:
        wire = await s.dial()
        found = [await wire.call("POST", "/v1/chat/completions", again(tried), b"{}").reply() for tried in range(6)]
        assert found == [503, 503, 503, 429, 429, 429]
        assert len(s.upstream.requests) == 3
        call = wire.call("POST", "/v1/chat/completions", again(7), b"{}")
        assert await call.reply() == 429
        assert call.values(b"x-should-retry") == [b"false"]
        error = json.loads(call.body)["error"]
        assert (error["code"], error["type"]) == ("too_many_attempts", "rate_limit_error") and "7 times" in error["message"]
        assert (s.target().client_retries, s.target().client_retries_refused) == (6, 4)
        assert s.edge.stats.faults["edge", "too_many_attempts"] == 4
        assert s.records[-1]["outcome"] == "edge: too_many_attempts"


@pytest.mark.parametrize("said", ["", "-1", "x", "99999", "1;2"])
async def test_garbage_is_no_count(protocol: str, said: str) -> None:
    async with stand(protocol, upstreams=upstream_settings(retries={"max_attempts": 1})) as s:
        wire = await s.dial()
        assert await wire.call("GET", "/", again(said)).reply() == 200
        assert s.target().client_retries == 0


async def test_one_who_waited_for_a_connection_is_counted_once(protocol: str) -> None:
    settings = upstream_settings(max_connections=1, retries={"max_attempts": 2})
    async with stand(protocol, ok, upstreams=settings) as s:
        wires = [await s.dial() for _ in range(3)]
        calls = [wire.call("GET", "/", again(1)) for wire in wires]
        assert [await call.reply() for call in calls] == [200, 200, 200]
        assert s.target().client_retries == 3


def dead(stack: AsyncExitStack, count: int) -> list[dict[str, str]]:
    """Targets where nobody listens, and nobody will."""
    found = []
    for _ in range(count):
        held = stack.enter_context(socket.socket())
        held.bind(("127.0.0.1", 0))
        found.append({"url": f"http://127.0.0.1:{held.getsockname()[1]}"})
    return found


@pytest.mark.parametrize("cap", [1, 2, 6, 7])
async def test_attempts_of_both_together(protocol: str, cap: int) -> None:
    async with AsyncExitStack() as stack:
        settings = upstream_settings(targets=dead(stack, 4), retries={"max_attempts": cap})
        async with stand(protocol, upstreams=settings) as s:
            wire = await s.dial()
            found = [await wire.call("GET", "/", again(tried)).reply() for tried in range(cap + 2)]
            assert set(found) == {502, 429} and found == sorted(found, reverse=True)
            assert sum(target.connect_failures for target in s.edge.stats.upstreams.values()) == cap
            assert sum(target.retries for target in s.edge.stats.upstreams.values()) == cap - found.count(502)


async def test_in_a_storm_the_edge_does_not_join_in(protocol: str) -> None:
    """What would be tried again on a new connection fails at once while most requests are retries."""
    died: list[int] = []
    settings = upstream_settings(retries={"floor": 0, "budget": 20, "max_attempts": 50})
    async with stand(protocol, dies_on_second(died), upstreams=settings) as s:
        wire = await s.dial()
        assert await wire.call("GET", "/first", again(1)).reply() == 200
        assert await wire.call("GET", "/again", ()).reply() == 502
        assert (died, s.target().retries, s.target().retries_withheld) == ([1], 0, 1)


async def test_a_single_retry_of_the_edge_is_no_storm(protocol: str) -> None:
    died: list[int] = []
    async with stand(protocol, dies_on_second(died), upstreams=upstream_settings(retries={"floor": 1})) as s:
        wire = await s.dial()
        await wire.get("/first")
        assert await wire.call("GET", "/again", ()).reply() == 200
        assert (s.target().retries, s.target().retries_withheld) == (1, 0)
