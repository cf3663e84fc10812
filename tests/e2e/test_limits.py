# Limits with real processes: several workers count together, exactly, and a counting process that dies stops nobody.
"""Two workers, clients over h1, h2 and h3, the store in the control process."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from contract.wires import WIRES
from running import Process, free_ports
from support.edge import certificates
from support.redis_server import running_server
from support.upstream import Connection, running_upstream
from support.waiting import until

CLIENTS = 50
LIMIT = 137


def serve(folder: Path, upstream: int, *limits: dict[str, Any], **changes: Any) -> tuple[Process, int, int]:
    https, admin = free_ports(2)
    paths = certificates()
    (folder / "edge.yaml").write_text(yaml.safe_dump({
        "listen": {"https": f"127.0.0.1:{https}", "admin": f"127.0.0.1:{admin}"},
        "workers": 2,
        "tls": {"certificates": [{"cert": str(paths.cert), "key": str(paths.key)}]},
        "upstreams": {"main": {"targets": [{"url": f"http://127.0.0.1:{upstream}"}]}},
        "routes": [{"upstream": "main"}],
        "limits": list(limits),
        **changes,
    }))  # fmt: skip
    process = Process([sys.executable, "-m", "edgeproxy", "serve", "-c", "edge.yaml"], folder / "said", folder)
    return process, https, admin


async def answers(connection: Connection) -> None:
    while True:
        await connection.request()
        connection.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


async def ask_on(wire: Any, times: int) -> list[int]:
    return [await wire.call("GET", "/", (), None).reply(20) for _ in range(times)]


@pytest.mark.parametrize("algorithm", ["gcra", "sliding-window"])
async def test_never_one_more_than_the_limit(tmp_path: Path, algorithm: str) -> None:
    async with running_upstream(answers) as upstream:
        # An hour: nothing comes back while the test runs (a window may turn, but not within what came of it).
        limit = {"name": "all", "requests": LIMIT, "key": "http.host", "period": "10h", "algorithm": algorithm}
        process, https, _ = serve(tmp_path, upstream.port, limit, store_deadline="10s")  # however busy this machine is
        try:
            await until(lambda: "ready after" in process.said(), 20)
            names = ("h1", "h2", "h3")
            wires = [await WIRES[names[n % 3]].open(https) for n in range(CLIENTS)]
            found = [status for each in await asyncio.gather(*(ask_on(wire, 6) for wire in wires)) for status in each]
            assert (found.count(200), found.count(429), len(found)) == (LIMIT, CLIENTS * 6 - LIMIT, CLIENTS * 6)
            for wire in wires:
                await wire.leave()
        finally:
            process.stop()


async def test_the_counting_process_dies(tmp_path: Path) -> None:
    async with running_upstream(answers) as upstream:
        process, https, _ = serve(tmp_path, upstream.port, {"name": "all", "requests": 1000, "key": "http.host", "period": "10h"})
        try:
            await until(lambda: "ready after" in process.said(), 20)
            wires = [await WIRES["h1"].open(https) for _ in range(8)]
            running = asyncio.gather(*(ask_on(wire, 60) for wire in wires))
            control = int(re.findall(r"control (\d+)", process.said())[0])  # pids: … control N
            os.kill(control, signal.SIGKILL)
            found = {status for each in await running for status in each}
            assert found == {200}, "nobody is refused, and no request fails, while there is room in every share"
            await until(lambda: "control is back" in process.said(), 20)
            assert set(await ask_on(wires[0], 20)) == {200}
            for wire in wires:
                await wire.leave()
        finally:
            process.stop()


@pytest.mark.skipif(not shutil.which("redis-server"), reason="no redis-server here")
async def test_two_edges_count_in_redis(tmp_path: Path) -> None:
    with running_server() as server:
        async with running_upstream(answers) as upstream:
            edges = []
            for name in ("one", "two"):
                folder = tmp_path / name
                folder.mkdir()
                limit = {"name": "all", "requests": LIMIT, "key": "http.host", "period": "10h"}
                edges.append(serve(folder, upstream.port, limit, store=server.url, store_shares=2, store_deadline="10s"))
            try:
                for process, _, _ in edges:
                    await until(lambda process=process: "ready after" in process.said(), 20)
                wires = [await WIRES["h1"].open(edges[n % 2][1]) for n in range(CLIENTS)]
                found = [status for each in await asyncio.gather(*(ask_on(wire, 6) for wire in wires)) for status in each]
                assert (found.count(200), found.count(429)) == (LIMIT, CLIENTS * 6 - LIMIT)
                for wire in wires:
                    await wire.leave()
            finally:
                for process, _, _ in edges:
                    process.stop()
