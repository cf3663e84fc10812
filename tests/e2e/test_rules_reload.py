# Rule files that change under load: real processes, two workers, clients over h1, h2 and h3 that never stop asking.
"""Each generation's rules are in use together or not at all, no request fails, bad rules change nothing, and old ones go."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from contract.clients import Wire
from contract.wires import WIRES
from running import Process, free_ports
from support.edge import certificates
from support.upstream import Connection, running_upstream
from support.waiting import until

RELOADS = 12
NAMES = (b"x-head", b"x-late", b"x-reply")
# Three rules of one generation, asked at three times: for the head, for the request, for the reply.
RULES = """
- {{id: head, expression: ssl, action: rewrite, headers: {{set: {{x-head: g{0}}}}}}}
- {{id: late, expression: http.request.timestamp.sec gt 0, action: rewrite, headers: {{set: {{x-late: g{0}}}}}}}
- {{id: gone-{0}, expression: 'http.request.uri.path eq "/none"', action: block}}
- {{id: reply, phase: response, expression: http.response.code eq 200, action: rewrite, headers: {{set: {{x-reply: g{0}}}}}}}
"""


class Running:
    """An edge with two workers whose rule file can be written anew."""

    def __init__(self, folder: Path, upstream: int) -> None:
        self.file, self.rules = folder / "edge.yaml", folder / "rules.yaml"
        self.https, self.admin = free_ports(2)
        paths = certificates()
        self.file.write_text(yaml.safe_dump({
            "listen": {"https": f"127.0.0.1:{self.https}", "admin": f"127.0.0.1:{self.admin}"},
            "workers": 2,
            "tls": {"certificates": [{"cert": str(paths.cert), "key": str(paths.key)}]},
            "upstreams": {"main": {"targets": [{"url": f"http://127.0.0.1:{upstream}"}]}},
            "routes": [{"upstream": "main"}],
            "rules": ["rules.yaml"],
        }))  # fmt: skip
        self.write(1)
        self.process = Process([sys.executable, "-m", "edgeproxy", "serve", "-c", str(self.file)], folder / "said", folder)

    def write(self, mark: int, more: str = "", fill: int = 60) -> None:
        filler = (
            f"- {{id: f{n}, expression: 'http.request.uri.path matches \"^/f{n}/[a-z]+$\"', action: log}}" for n in range(fill)
        )
        self.rules.write_text("\n".join(["rules:", *filler, RULES.format(mark), more]))

    async def said(self, text: str) -> None:
        await until(lambda: text in self.process.said(), 20)

    async def reload(self, result: str) -> None:
        self.process.popen.send_signal(signal.SIGHUP)
        await self.said(result)

    def ask(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as e:
            with e:
                return e.code, e.read().decode()

    async def admin_says(self, path: str) -> tuple[int, str]:
        return await asyncio.to_thread(self.ask, path)

    def rss(self) -> dict[str, int]:
        """Resident MiB of supervisor and workers."""
        pids = re.findall(r"(supervisor|worker-\d+) (\d+)", self.process.said())
        return {name: int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) >> 10 for name, pid in pids}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    said = tmp_path / "said"
    sys.stderr.write(said.read_text() if said.exists() else "")


async def shows_its_head(connection: Connection) -> None:
    """Sends back as headers what it was sent, and the body as it came."""
    while True:
        received = await connection.request()
        fields = b"".join(name + b": " + b",".join(received.values(name)) + b"\r\n" for name in NAMES[:2])
        length = b"content-length: %d\r\n\r\n" % len(received.body)
        connection.write(b"HTTP/1.1 200 OK\r\n" + fields + length + received.body)


class Client:
    """One connection that asks on and on. `marks`: the generations it saw, in order."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.marks: list[int] = []
        self.mixed: list[Any] = []
        self.count = 0

    async def run(self, done: asyncio.Event) -> None:
        while not done.is_set():
            self.count += 1
            # Sometimes the same head again, whose plan the edge keeps, sometimes another.
            call = self.wire.call("POST", f"/{self.count // 3}", (), b"content")
            assert await call.reply(20) == 200
            assert call.body == b"content"
            seen = {name: call.values(name) for name in NAMES}
            marks = {values[0] for values in seen.values() if len(values) == 1}
            if len(marks) != 1 or any(len(values) != 1 for values in seen.values()):
                self.mixed.append(seen)
                continue
            mark = int(marks.pop()[1:])
            if not self.marks or self.marks[-1] != mark:
                self.marks.append(mark)


async def test_reloads_under_load(folder: Path) -> None:
    async with running_upstream(shows_its_head) as upstream:
        edge = Running(folder, upstream.port)
        try:
            await edge.said("ready after")
            clients = [Client(await WIRES[name].open(edge.https)) for name in ("h1", "h2", "h3") for _ in range(4)]
            done = asyncio.Event()
            running = [asyncio.create_task(client.run(done)) for client in clients]
            generation = 1
            for number in range(2, RELOADS + 2):
                if number == 4:
                    edge.write(1000, "- {id: bad, expression: 'http.hosst eq \"x\"', action: block}")
                    await edge.reload(f"generation {generation} stays in use: rules.yaml:")
                edge.write(number)
                generation += 1
                await edge.reload(f"generation {generation} is in use")
                counts = [client.count for client in clients]
                await until(lambda counts=counts: all(c.count > n + 1 for c, n in zip(clients, counts, strict=True))
                            or any(task.done() for task in running), 20)  # fmt: skip
                assert not any(task.done() for task in running)
                assert {client.marks[-1] for client in clients} == {number}, "all of them, now"
            done.set()
            await asyncio.gather(*running)
            assert [client.mixed for client in clients if client.mixed] == []
            for client in clients:
                assert client.marks == sorted(client.marks) and 1000 not in client.marks
            assert sum(client.count for client in clients) > 500
            _, text = await edge.admin_says("/metrics")
            assert "edgeproxy_config_generation 13.0" in text
            assert 'edgeproxy_reloads_total{result="failed"} 1.0' in text and 'edgeproxy_faults_total{' not in text
            for client in clients:
                await client.wire.leave()
        finally:
            edge.process.stop()


async def test_a_bad_rule_keeps_the_old_ones_and_says_so(folder: Path) -> None:
    async with running_upstream(shows_its_head) as upstream:
        edge = Running(folder, upstream.port)
        try:
            await edge.said("ready after")
            wire = await WIRES["h1"].open(edge.https)
            assert (await wire.get()).values(b"x-reply") == [b"g1"]
            bad = "- {id: bad, expression: 'http.hosst eq \"x\"', action: block}\n- {id: head, expression: ssl, action: log}"
            edge.write(2, bad)
            await edge.reload("reload failed, generation 1 stays in use: ")
            assert (await wire.get()).values(b"x-reply") == [b"g1"]

            def told() -> bool:
                return edge.ask("/readyz")[1].find('"failed"') > 0

            while not await asyncio.to_thread(told):  # noqa: ASYNC110  it is another process that is waited for
                await asyncio.sleep(0.02)
            status, text = await edge.admin_says("/readyz")
            last = json.loads(text)["last_reload"]
            assert status == 200 and last["result"] == "failed"
            for part in ("rules.yaml:", "unknown field 'http.hosst' (did you mean 'http.host'", "id 'head' is there twice"):
                assert part in last["reason"] and part in edge.process.said()
            assert 'edgeproxy_reloads_total{result="failed"} 1.0' in (await edge.admin_says("/metrics"))[1]
            edge.write(3)
            await edge.reload(" is in use")
            assert (await wire.get()).values(b"x-reply") == [b"g3"]
            await wire.leave()
        finally:
            edge.process.stop()


async def test_memory_does_not_grow_with_reloads(folder: Path) -> None:
    """Fifty reloads of two hundred rules: some megabytes each if they stayed."""
    async with running_upstream(shows_its_head) as upstream:
        edge = Running(folder, upstream.port)
        try:
            await edge.said("ready after")
            wires = [await WIRES[name].open(edge.https) for name in ("h1", "h2", "h3") for _ in range(2)]
            before: dict[str, int] = {}
            for number in range(2, 52):
                edge.write(number, fill=200)
                await edge.reload(f"generation {number} is in use")
                for wire in wires:
                    assert (await wire.get()).values(b"x-reply") == [b"g%d" % number]
                if number == 12:
                    before = edge.rss()
            after = edge.rss()
            assert before.keys() == {"supervisor", "worker-0", "worker-1"}
            assert all(after[name] - before[name] <= 6 for name in before), (before, after)
            sys.stdout.write(f"MiB after 10 and 50 reloads: {before} {after}\n")
            for wire in wires:
                await wire.leave()
        finally:
            edge.process.stop()
