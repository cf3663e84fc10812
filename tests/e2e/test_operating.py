# What an operator does through the admin address, with real processes: blocks on open connections, limits looked up and reset.
"""One, and two workers; clients over h1, h2 and h3; two edges with one Redis."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import urllib.error
import urllib.request
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from contract.wires import WIRES
from running import Process
from support.redis_server import MISSING, running_server
from support.upstream import running_upstream
from support.waiting import until
from test_limits import answers, serve

import edgeproxy

HERE = {"ip": "127.0.0.1"}


class Stand:
    """An edge with real processes."""

    def __init__(self, process: Process, https: int, admin: int, folder: Path) -> None:
        self.process = process
        self.https = https
        self.admin = admin
        self.folder = folder

    async def api(self, path: str, content: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON; POST where there is content."""
        return await asyncio.to_thread(self._api, path, content, headers)

    def _api(self, path: str, content: Any, headers: dict[str, str]) -> tuple[int, Any]:
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}{path}", data)
        for name, value in {"content-type": "application/json", **headers}.items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    async def metric(self, name: str) -> float:
        """One sample of /metrics, 0.0 where there is none."""

        def read() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=10) as answer:
                return str(answer.read().decode())

        found = re.search(rf"^{re.escape(name)} (\S+)$", await asyncio.to_thread(read), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def events(self) -> list[dict[str, Any]]:
        file = self.folder / "events.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@asynccontextmanager
async def running(folder: Path, *limits: dict[str, Any], **changes: Any) -> AsyncIterator[Stand]:
    async with running_upstream(answers) as upstream:
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103  that of Path may not be called here
        files = {"events": {"file": "events.jsonl"}, "access_log": {"file": "access.jsonl"}}
        process, https, admin = serve(folder, upstream.port, *limits, **{"store_deadline": "10s", **files, **changes})
        try:
            await until(lambda: "ready after" in process.said(), 20)
            yield Stand(process, https, admin, folder)
        finally:
            process.stop()


async def ask(wire: Any) -> int:
    return int(await wire.call().reply(20))


async def all_say(wires: list[Any], wanted: int, within: float) -> None:
    """Every connection is answered so, from within so many seconds on."""
    clock = asyncio.get_running_loop().time
    end = clock() + within
    while True:
        if {await ask(wire) for wire in wires} == {wanted}:
            return
        assert clock() < end, f"not {wanted} on all connections"


async def test_a_block_holds_on_open_connections_of_all_workers(tmp_path: Path) -> None:
    async with running(tmp_path, workers=2) as stand:
        wires = [await WIRES[("h1", "h2", "h3")[n % 3]].open(stand.https) for n in range(12)]
        await all_say(wires, 200, 5)
        status, said = await stand.api("/api/blocks", {**HERE, "seconds": 3600, "reason": "test"})
        assert (status, said["ip"], said["seconds"], said["reason"]) == (200, "127.0.0.1", 3600, "test")
        await all_say(wires, 403, 1)
        new = await WIRES["h2"].open(stand.https)
        assert await ask(new) == 403
        status, said = await stand.api("/api/blocks")
        assert (status, [each["ip"] for each in said["blocks"]]) == (200, ["127.0.0.1"])
        assert await stand.metric('edgeproxy_blocks{kind="ip"}') == 1
        assert await stand.metric('edgeproxy_blocked_total{kind="ip"}') >= 13
        assert await stand.metric('edgeproxy_faults_total{reason="blocked",source="edge"}') >= 13
        status, said = await stand.api("/api/blocks", {**HERE, "seconds": 0})
        assert (status, said["removed"]) == (200, True)
        await all_say([*wires, new], 200, 1)
        assert (await stand.api("/api/blocks"))[1] == {"blocks": []}
        for wire in (*wires, new):
            await wire.leave()
        kinds = {"block_added", "blocked", "block_removed"}
        await until(lambda: kinds <= {event["event"] for event in stand.events()}, 5)
        blocked = [event for event in stand.events() if event["event"] == "blocked"]
        assert len(blocked) <= 2  # one a worker and minute
        assert blocked[0]["block"] == "ip 127.0.0.1" and blocked[0]["reason"] == "test"


async def test_a_block_ends_by_itself(tmp_path: Path) -> None:
    async with running(tmp_path, workers=1) as stand:
        wire = await WIRES["h1"].open(stand.https)
        await stand.api("/api/blocks", {"network": "127.0.0.0/8", "seconds": 1})
        await all_say([wire], 403, 1)
        await all_say([wire], 200, 5)
        await until(lambda: True, 1)
        assert (await stand.api("/api/blocks"))[1] == {"blocks": []}
        await wire.leave()


async def test_blocks_outlive_workers_and_control(tmp_path: Path) -> None:
    async with running(tmp_path, workers=2) as stand:
        await stand.api("/api/blocks", {**HERE, "seconds": 3600})
        pids = [int(pid) for pid in re.findall(r"(?:control|worker-\d) (\d+)", stand.process.said())]
        assert len(pids) == 3
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: stand.process.said().count("is back") == 3, 20)

        async def refused() -> bool:
            wire = await WIRES["h1"].open(stand.https)
            status = await ask(wire)
            await wire.leave()
            return status == 403

        clock = asyncio.get_running_loop().time
        end = clock() + 5
        while not all([await refused() for _ in range(8)]):
            assert clock() < end
        assert len((await stand.api("/api/blocks"))[1]["blocks"]) == 1


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_worker_that_starts_while_control_is_away_refuses_from_its_first_request(tmp_path: Path, workers: int) -> None:
    async with running(tmp_path, workers=workers) as stand:
        await stand.api("/api/blocks", {**HERE, "seconds": 3600})
        pids = dict(re.findall(r"(control|worker-\d) (\d+)", stand.process.said()))
        control = int(pids.pop("control"))
        os.kill(control, signal.SIGSTOP)  # it is there, and says nothing
        try:
            for pid in pids.values():
                os.kill(int(pid), signal.SIGKILL)
            await until(lambda: stand.process.said().count("is back") == workers, 20)
            for _ in range(4 * workers):
                wire = await WIRES["h1"].open(stand.https)
                assert await ask(wire) == 403
                await wire.leave()
        finally:
            os.kill(control, signal.SIGCONT)


LIMIT = {"name": "per-ip", "requests": 10, "period": "10h"}


@pytest.mark.parametrize("where", ["one worker", "two workers", "redis"])
async def test_limits_are_looked_up_and_reset(tmp_path: Path, where: str) -> None:
    if where == "redis" and MISSING:
        pytest.skip(MISSING)
    changes: dict[str, Any] = {"workers": 1 if where == "one worker" else 2}
    question = {"limit": "per-ip", "request": {"url": "https://localhost/", "client": "127.0.0.1"}}
    if where == "redis":
        with running_server() as server:
            await _looked_up(tmp_path, question, {**changes, "store": server.url})
    else:
        await _looked_up(tmp_path, question, changes)


async def _looked_up(folder: Path, question: dict[str, Any], changes: dict[str, Any]) -> None:
    async with running(folder, LIMIT, **changes) as stand:
        wire = await WIRES["h1"].open(stand.https)
        assert [await ask(wire) for _ in range(12)].count(200) == 10
        status, said = await stand.api("/api/limits", question)
        assert status == 200, said
        assert [(row["limit"], row["remaining"], row["most"]) for row in said["limits"]] == [("per-ip", 0, 10)]
        assert 30_000 < said["limits"][0]["reset"] <= 36_000
        other = {"request": {"url": "https://localhost/", "client": "192.0.2.9"}}
        assert (await stand.api("/api/limits", other))[1]["limits"][0]["remaining"] == 10
        assert await stand.api("/api/limits/reset", question) == (200, {"reset": ["per-ip"]})
        assert (await stand.api("/api/limits", question))[1]["limits"][0]["remaining"] == 10
        await all_say([wire], 200, 3)  # a refusal is believed for a second
        await wire.leave()
        await until(lambda: {"limits_reset", "limit"} <= {event["event"] for event in stand.events()}, 5)
        seen = next(event for event in stand.events() if event["event"] == "limit")
        assert (seen["limit"], seen["mode"], seen["client"], seen["status"]) == ("per-ip", "act", "127.0.0.1", 429)
        lines = [json.loads(line) for line in (folder / "access.jsonl").read_text().splitlines()]
        assert {tuple(line.get("limits", ())) for line in lines if line["status"] == 429} == {("per-ip",)}
        assert not any("limits" in line for line in lines if line["status"] == 200)


@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
async def test_blocks_hold_on_all_nodes_of_a_store(tmp_path: Path) -> None:
    with running_server() as server:
        first, second = running(tmp_path / "a", store=server.url), running(tmp_path / "b", store=server.url)
        async with first as one, second as other:
            wires = [await WIRES["h1"].open(stand.https) for stand in (one, other)]
            both = [{**HERE, "seconds": 3600}, {"network": "10.0.0.0/8", "seconds": 3600}]
            await asyncio.gather(one.api("/api/blocks", both[0]), other.api("/api/blocks", both[1]))
            await all_say(wires, 403, 5)

            async def listed() -> list[int]:
                return [len((await stand.api("/api/blocks"))[1]["blocks"]) for stand in (one, other)]

            end = asyncio.get_running_loop().time() + 6
            while await listed() != [2, 2]:
                assert asyncio.get_running_loop().time() < end, await listed()
            await other.api("/api/blocks", {**HERE, "seconds": 0})
            await all_say(wires, 200, 5)
            for wire in wires:
                await wire.leave()


async def test_other_sites_and_forms_are_refused(tmp_path: Path) -> None:
    async with running(tmp_path, workers=1) as stand:
        for path in ("/api/blocks", "/api/limits", "/api/limits/reset"):
            content = {**HERE, "seconds": 1}
            assert (await stand.api(path, content, origin="https://elsewhere.example"))[0] == 403
            assert (await stand.api(path, content, host="edge.example"))[0] == 403
            assert (await stand.api(path, content, **{"content-type": "text/plain"}))[0] == 415
        assert (await stand.api("/api/blocks", {"seconds": 1}))[0] == 400
        assert (await stand.api("/api/limits", {}))[0] == 400


async def test_commands(tmp_path: Path) -> None:
    async with running(tmp_path, LIMIT, workers=1) as stand:

        async def run(*words: str, code: int = 0) -> str:
            command = [sys.executable, "-m", "edgeproxy", *words, "-c", str(tmp_path / "edge.yaml")]
            environment = {**os.environ, "PYTHONPATH": str(Path(edgeproxy.__file__).parents[1])}
            made = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT, env=environment)
            said, _ = await made.communicate()
            assert made.returncode == code, said
            return said.decode()

        wire = await WIRES["h1"].open(stand.https)
        said = await run("block", "add", "127.0.0.0/8", "--for", "1h", "--reason", "test")
        assert "network 127.0.0.0/8 is blocked until" in said
        await all_say([wire], 403, 1)
        assert "ip 2001:db8::1 is blocked" in await run("block", "add", "2001:db8::1")
        assert "key ep-Ab3dEf9h is blocked" in await run("block", "add", "ep-Ab3dEf9h")
        listed = (await run("block", "list")).splitlines()
        assert listed[0].split() == ["WHAT", "UNTIL", "SINCE", "REASON"] and len(listed) == 4 and listed[1].endswith(" test")
        assert len(json.loads(await run("block", "list", "--json"))["blocks"]) == 3
        assert "is blocked no more" in await run("block", "remove", "127.0.0.0/8")
        assert "is not blocked" in await run("block", "remove", "127.0.0.0/8", code=1)
        assert "a prefix length is" in await run("block", "add", "10.0.0.0/99", code=1)
        await all_say([wire], 200, 1)
        here = ("https://localhost/", "--client", "127.0.0.1")
        row = (await run("limits", "show", *here)).splitlines()[1]
        assert row.startswith("per-ip  10 requests in 10h  ") and " of 10 " in row
        assert await run("limits", "reset", *here, "--limit", "per-ip") == "reset: per-ip\n"
        assert "10 of 10" in await run("limits", "show", *here)
        assert "there is no such key" in await run("limits", "show", "--key", "ep-AAAAAAAA", code=1)
        await wire.leave()
        stand.process.stop()
        assert "no edge answers" in await run("block", "list", code=1)
