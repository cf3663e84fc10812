# Published networks that are replaced while a whole edge runs: all workers take them, nobody reloads anything.
"""Two workers, files put in place as `edgeproxy bots fetch` does it, and clients that claim to be a bot."""

from __future__ import annotations

import http.client
import re
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from running import Process, free_ports, until
from support.edge import certificates, client_context

GPTBOT = {"User-Agent": "Mozilla/5.0; compatible; GPTBot/1.2; +https://openai.com/gptbot"}
RULES = """
rules:
- {id: verified, expression: 'cf.client.bot and cf.verified_bot_category eq "AI Crawler"', action: block, status: 418}
- {id: impostor, expression: 'any(cf.bot_management.detection_ids[*] eq 7001)', action: block, status: 451}
"""


class Edge:
    """Two workers; whatever they do not refuse goes to a port where nobody listens."""

    def __init__(self, folder: Path) -> None:
        self.ranges = folder / "ranges"
        self.ranges.mkdir()
        self.opened: list[http.client.HTTPSConnection] = []
        self.https, self.admin = free_ports(2)
        paths, file = certificates(), folder / "edge.yaml"
        (folder / "rules.yaml").write_text(RULES)
        identity = {"ranges": str(self.ranges), "refresh": "1s", "dns": False, "known_agents": False}
        file.write_text(yaml.safe_dump({
            "listen": {"https": f"127.0.0.1:{self.https}", "admin": f"127.0.0.1:{self.admin}"},
            "workers": 2,
            "tls": {"certificates": [{"cert": str(paths.cert), "key": str(paths.key)}]},
            "upstreams": {"main": {"targets": [{"url": "http://127.0.0.1:1"}]}},
            "routes": [{"upstream": "main"}],
            "rules": ["rules.yaml"],
            "bots": {"enabled": True, "model": "off", "identity": identity},
        }))  # fmt: skip
        self.publish('{"prefixes": [{"ipv4Prefix": "192.0.2.0/24"}]}')
        self.process = Process([sys.executable, "-m", "edgeproxy", "serve", "-c", str(file)], folder / "said", folder)

    def publish(self, text: str) -> None:
        beside = self.ranges / ".gptbot.new"
        beside.write_text(text)
        beside.replace(self.ranges / "gptbot.json")

    def dial(self) -> http.client.HTTPSConnection:
        """A connection, closed at the end."""
        self.opened.append(http.client.HTTPSConnection("localhost", self.https, context=client_context(), timeout=20))
        return self.opened[-1]

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=10) as answer:
            found = re.search(rf"^{re.escape(name)} (\S+)$", answer.read().decode(), re.MULTILINE)
        return float(found[1]) if found is not None else 0.0

    def read(self, outcome: str) -> float:
        return self.metric(f'edgeproxy_bot_range_reads_total{{outcome="{outcome}"}}')


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    made = Edge(tmp_path)
    try:
        assert made.process.wait_for(f"http://127.0.0.1:{made.admin}/readyz")
        yield made
    finally:
        for each in made.opened:
            each.close()
        made.process.stop()
        sys.stderr.write(made.process.said())


def status(connection: http.client.HTTPConnection) -> int:
    connection.request("GET", "/", headers=GPTBOT)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def test_all_workers_take_what_was_replaced(edge: Edge) -> None:
    # Of sixteen connections all lead to the same worker once in 32,768 runs.
    opened = [edge.dial() for _ in range(16)]
    assert {status(each) for each in opened} == {451}
    edge.publish('{"prefixes": [{"ipv4Prefix": "127.0.0.0/16"}]}')
    until(lambda: {status(each) for each in opened} == {418}, 20)
    until(lambda: edge.read("found") == 4, 20)
    edge.publish('{"prefixes": [\n  oops]}')
    until(lambda: edge.read("failed") == 2, 20)
    assert edge.metric("edgeproxy_bot_range_files_broken") == 1
    assert edge.metric("edgeproxy_bot_range_oldest_timestamp_seconds") > 0
    told = [line for line in edge.process.said().splitlines() if "gptbot.json" in line]
    assert len(told) == 2 and all("line 2, column 3: no JSON" in line and "stay in use" in line for line in told), "once each"
    assert {status(each) for each in (*opened, edge.dial())} == {418}
    edge.publish('{"prefixes": [{"ipv4Prefix": "192.0.2.0/24"}]}')
    until(lambda: {status(each) for each in opened} == {451}, 20)
    until(lambda: edge.metric("edgeproxy_bot_range_files_broken") == 0, 20)
    assert edge.metric("edgeproxy_bot_failures_total") == 0
