# Redis is killed and paused under load, with real processes: nobody notices but by the share of a limit that is left.
"""Two workers and one Redis; clients over h1, h2 and h3 ask without end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from contract.wires import WIRES
from running import Process
from support.redis_server import MISSING, Server, running_server
from support.upstream import running_upstream
from support.waiting import until
from test_limits import answers, serve

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

DEADLINE = 0.2  # seconds; the default is 25 ms, which a busy machine may take for anything
SLACK = 0.25  # of a busy machine
SMALL = 20  # of a limit that tests use up
LIMITS: list[dict[str, Any]] = [
    {"name": "load", "requests": 1_000_000, "key": "http.host", "period": "10h"},
    {"name": "places", "concurrent": 1000, "key": "http.host"},
    {"name": "small", "requests": SMALL, "period": "10h", "key": 'http.request.headers["x-key"][0]',
     "expression": 'any(http.request.headers.names[*] eq "x-key")'},
]  # fmt: skip


class Load:
    """Clients that ask one request after the other.

    Attributes:
        told: (when it was asked, seconds until the answer, status), for each client.
    """

    def __init__(self, https: int, clients: int = 9) -> None:
        self.told: list[list[tuple[float, float, int]]] = [[] for _ in range(clients)]
        self._https = https
        self._running = True
        self._tasks: list[asyncio.Task[None]] = []
        self._keys = 0
        self._late = 0.0

    async def start(self) -> None:
        for number, told in enumerate(self.told):
            wire = await WIRES[("h1", "h2", "h3")[number % 3]].open(self._https)
            self._tasks.append(asyncio.create_task(self._ask(wire, told)))
        self._tasks.append(asyncio.create_task(self._watch()))
        await self.goes_on()

    async def _watch(self) -> None:
        while self._running:
            began = time.monotonic()
            await asyncio.sleep(0.002)
            self._late = max(self._late, time.monotonic() - began - 0.002)

    async def _ask(self, wire: Any, told: list[tuple[float, float, int]]) -> None:
        while self._running:
            asked = time.monotonic()
            status = await wire.call().reply(20)
            told.append((asked, time.monotonic() - asked, status))
            await asyncio.sleep(0.002)
        await wire.leave()

    async def stop(self) -> None:
        self._running = False
        await asyncio.gather(*self._tasks)

    async def goes_on(self) -> None:
        """Every client gets twenty more answers."""
        counts = [len(told) for told in self.told]
        await until(lambda: all(len(told) >= count + 20 for told, count in zip(self.told, counts, strict=True)), 30)

    @property
    def statuses(self) -> set[int]:
        return {status for told in self.told for _, _, status in told}

    def slow(self, since: float) -> list[int]:
        """For each client, answers that took as long as a deadline."""
        return [sum(took > 0.9 * DEADLINE for asked, took, _ in told if asked + took >= since) for told in self.told]

    def slowest(self) -> float:
        """Seconds, without those for which this process itself was late."""
        return max(took for told in self.told for _, took, _ in told) - self._late

    async def small(self) -> int:
        """How many requests of one connection, so of one worker, pass a limit of SMALL for a key that is new."""
        self._keys += 1
        wire = await WIRES["h1"].open(self._https)
        fields = [(b"x-key", b"%d" % self._keys)]
        found = [await wire.call("GET", "/", fields).reply(20) for _ in range(SMALL + 3)]
        await wire.leave()
        assert set(found) <= {200, 429}
        return found.count(200)

    async def decided(self, by: Callable[[int], bool]) -> None:
        """Waits until the number that passes is right: all of them with a store, a worker's share without."""
        end = time.monotonic() + 20
        while not by(found := await self.small()):
            assert time.monotonic() < end, found


@asynccontextmanager
async def loaded(folder: Path, server: Server, **changes: Any) -> AsyncIterator[tuple[Load, Process]]:
    async with running_upstream(answers) as upstream:
        process, https, _ = serve(folder, upstream.port, *LIMITS, store=server.url, store_deadline=f"{DEADLINE}s", **changes)
        try:
            await until(lambda: "ready after" in process.said(), 20)
            load = Load(https)
            await load.start()
            yield load, process
            await load.stop()
            assert "Traceback" not in process.said(), process.said()
        finally:
            process.stop()


def all_of_it(passed: int) -> bool:
    return passed == SMALL


def a_share(passed: int) -> bool:
    return passed == SMALL // 2


def command(server: Server, text: str) -> None:
    with server.client as client:
        client.execute_command(text)


def leases(server: Server) -> int:
    """Places that are taken, as the server has them."""
    with server.client as client:
        keys: Any = client.keys("edge:*:l")
        return sum(int(client.zcard(key)) for key in keys)  # type: ignore[arg-type]


async def test_redis_is_killed(tmp_path: Path) -> None:
    with running_server() as server:
        async with loaded(tmp_path, server) as (load, _):
            assert await load.small() == SMALL
            for _ in range(2):
                await asyncio.to_thread(server.kill)
                await load.goes_on()
                await load.decided(a_share)
                await asyncio.to_thread(server.restart)
                await load.decided(all_of_it)
            await load.goes_on()
        assert load.statuses == {200}
        assert load.slowest() < DEADLINE + SLACK
        await until(lambda: leases(server) == 0)


async def test_redis_hangs(tmp_path: Path) -> None:
    with running_server() as server:
        async with loaded(tmp_path, server) as (load, _):
            assert await load.small() == SMALL
            server.pause()
            paused = time.monotonic()
            await load.goes_on()
            await load.decided(a_share)
            await load.goes_on()
            slow = load.slow(paused)
            server.resume()
            await load.decided(all_of_it)
            await load.goes_on()
        assert load.statuses == {200}
        assert max(slow) <= 1 <= sum(slow), "one deadline in all, not one a request"
        assert load.slowest() < DEADLINE + SLACK
        await until(lambda: leases(server) == 0)


@pytest.mark.parametrize(("mode", "status"), [("open", 200), ("closed", 503)])
async def test_other_modes(tmp_path: Path, mode: str, status: int) -> None:
    with running_server() as server:
        async with loaded(tmp_path, server, on_store_failure=mode) as (load, _):
            await asyncio.to_thread(server.kill)
            killed = time.monotonic()
            await until(lambda: time.monotonic() > killed + 2 * SLACK)
            await load.goes_on()
            late = {found for told in load.told for asked, _, found in told if asked > killed + SLACK}
            await asyncio.to_thread(server.restart)
            await load.decided(all_of_it) if mode == "open" else await until_allowed(load)
            restored = time.monotonic()
            await load.goes_on()
        assert late == {status} and load.statuses <= {200, status}
        assert {found for told in load.told for asked, _, found in told if asked > restored} == {200}


async def until_allowed(load: Load) -> None:
    """Waits until both workers have let requests pass again."""
    def passes() -> bool:
        return all(told[-1][2] == 200 for told in load.told)

    await until(passes, 20)
    await load.goes_on()
    await until(passes, 20)


async def test_redis_forgets(tmp_path: Path) -> None:
    """It is another one from one moment to the next, and has neither keys nor scripts."""
    with running_server() as server:
        async with loaded(tmp_path, server) as (load, process):
            await load.goes_on()
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.restart)  # in an instant: nobody may have noticed
            await load.decided(all_of_it)
            for forget in ("FLUSHALL", "SCRIPT FLUSH"):
                await asyncio.to_thread(command, server, forget)
            await load.goes_on()
            await load.decided(all_of_it)
        assert load.statuses == {200} and load.slowest() < DEADLINE + SLACK
        await until(lambda: leases(server) == 0)
        assert process.popen.returncode == 0


async def test_clients_that_leave_while_redis_is_asked_are_charged_nothing(tmp_path: Path) -> None:
    limits = [{"name": "all", "requests": 1000, "key": "http.host", "period": "10h", "algorithm": "fixed-window"}, LIMITS[1]]
    with running_server() as server:
        async with running_upstream(answers) as upstream:
            process, https, _ = serve(tmp_path, upstream.port, *limits, store=server.url, store_deadline="20s")
            try:
                await until(lambda: "ready after" in process.said(), 20)
                asking = await WIRES["h1"].open(https)
                assert await asking.call().reply(20) == 200
                command(server, "CLIENT PAUSE 30000 WRITE")  # a script may write
                wires = [await WIRES[("h1", "h2", "h3")[number % 3]].open(https) for number in range(6)]
                for wire in wires:
                    wire.call()
                await until(lambda: stopped(server), 20)
                for wire in wires:
                    wire.close()
                command(server, "CLIENT UNPAUSE")
                asked, end = 1, time.monotonic() + 20
                while True:
                    call = asking.call()
                    assert await call.reply(20) == 200
                    asked += 1
                    if call.values(b"ratelimit")[0].startswith(b'"all";r=%d;' % (1000 - asked)):
                        break
                    assert time.monotonic() < end, call.fields
                assert len(upstream.requests) == asked and leases(server) == 0
                await asking.leave()
            finally:
                process.stop()


def stopped(server: Server) -> bool:
    """Whether the script of a worker stands at the server."""
    with server.client as client:
        clients: Any = client.client_list()
        return any(each["cmd"] == "evalsha" and "b" in each["flags"] for each in clients)
