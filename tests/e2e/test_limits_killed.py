# Workers that hold places and tokens are killed: the places come back after their lease, and nothing is charged twice.
"""Two workers; the store in the control process, or in Redis."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from contract.wires import WIRES
from support.redis_server import MISSING, running_server
from support.upstream import Connection, running_upstream
from support.waiting import until
from test_limits import serve

PLACES, LEASE, TOKENS = 6, 4.0, 1_000_000
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":1000}'
WHOLE = b'{"choices":[{"message":{"content":"well"}}],"usage":{"prompt_tokens":40,"completion_tokens":2}}'
HOUR = {"key": "http.host", "period": "10h", "algorithm": "fixed-window"}
LIMITS: list[dict[str, Any]] = [
    {"name": "places", "concurrent": PLACES, "key": "http.host", "lease": f"{LEASE:.0f}s"},
    {"name": "tokens", "tokens": TOKENS, **HOUR}, {"name": "requests", "requests": 1000, **HOUR},
]  # fmt: skip


async def model(connection: Connection) -> None:
    """Answers, but for /hold."""
    while True:
        received = await connection.request()
        if b"/hold" in received.line:
            await connection.gone()
            return
        connection.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(WHOLE) + WHOLE)


def workers(said: str) -> list[int]:
    """The process ids of the first ones."""
    return [int(pid) for pid in re.findall(r"worker-\d (\d+)", said)]


def left(call: Any) -> tuple[int, int]:
    """Requests and tokens, as the answer tells them."""
    told = dict(call.fields)
    return int(told[b"x-ratelimit-remaining-requests"]), int(told[b"x-ratelimit-remaining-tokens"])


@pytest.fixture(params=["control", "redis"])
def store(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    if request.param == "redis" and MISSING is not None:
        pytest.skip(MISSING)
    with running_server() if request.param == "redis" else nullcontext() as server:
        yield {} if server is None else {"store": server.url}


async def test_workers_that_hold_places_are_killed(tmp_path: Path, store: dict[str, Any]) -> None:
    routes = [{"upstream": "main", "dialect": "openai"}]
    async with running_upstream(model) as upstream:
        process, https, _ = serve(tmp_path, upstream.port, *LIMITS, routes=routes, store_deadline="10s", **store)
        try:
            await until(lambda: "ready after" in process.said(), 20)
            first = (await WIRES["h1"].open(https)).call("POST", "/", (), BODY)
            assert await first.reply(20) == 200
            before = left(first)
            aside = TOKENS - before[1]
            held = [(await WIRES["h1"].open(https)).call("POST", "/hold", (), BODY) for _ in range(PLACES)]
            await until(lambda: sum(b"/hold" in each.line for each in upstream.requests) == PLACES, 20)
            full = (await WIRES["h1"].open(https)).call("POST", "/", (), BODY)
            assert await full.reply(20) == 429
            now = left(full)
            assert now == (before[0] - PLACES, TOKENS - 42 - PLACES * aside) and aside > 1000, "tokens are set aside for each"
            for pid in workers(process.said()):
                os.kill(pid, signal.SIGKILL)
            died = time.monotonic()
            for call in held:
                await call.failed(20)
            await until(lambda: upstream.open == 0, 20)
            found = await _served(https)
            assert time.monotonic() - died > LEASE / 2, "prolonged at last a third of a lease before, they live on for the rest"
            # Those that were refused took nothing, and what was set aside stays so, once.
            assert left(found) == (now[0] - 1, now[1] - aside)
            again = (await WIRES["h1"].open(https)).call("POST", "/", (), BODY)
            assert await again.reply(20) == 200
            assert left(again) == (now[0] - 2, now[1] - 42 - aside), "the new workers settle"
        finally:
            process.stop()


async def _served(https: int) -> Any:
    """Asks until there is a place."""
    end = time.monotonic() + 30
    while True:
        try:
            wire = await WIRES["h1"].open(https)
        except OSError:  # the new workers are not there yet
            assert time.monotonic() < end
            await asyncio.sleep(0.05)
            continue
        call = wire.call("POST", "/", (), BODY)
        await until(lambda call=call: call.over, 20)
        if call.status == 200:
            return call
        assert call.status in {0, 429} and time.monotonic() < end, call.status
        await wire.leave()
        await asyncio.sleep(0.05)
