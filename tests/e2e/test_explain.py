# Explanations and events of a real edge: /api/explain by the configuration that is in use, events in their file.
from __future__ import annotations

import json
import os
import signal
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import Edge, stopped_edge, until
from running import Process, free_ports

from edgeproxy.certs import make_development


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    with stopped_edge(tmp_path) as edge:
        yield edge


def explained(edge: Edge, **about: Any) -> tuple[int, dict[str, Any]]:
    url = f"http://127.0.0.1:{edge.port('admin http')}/api/explain"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, json.dumps(about).encode()), timeout=15) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as e:
        with e:
            return e.code, json.loads(e.read())


def rules(edge: Edge, name: str) -> str:
    file = edge.directory / "rules.yaml"
    file.write_text(f"rules: [{{id: {name}, expression: 'http.user_agent contains \"sqlmap\"', action: block}}]")
    return str(file)


def test_the_admin_address_explains_by_what_is_in_use(edge: Edge) -> None:
    edge.write(rules=[rules(edge, "first")])
    edge.start()
    curl = "curl https://chat.example/ -A sqlmap"
    status, found = explained(edge, curl=curl, client="203.0.113.7")
    assert (status, found["outcome"]["status"], found["outcome"]["rule"]) == (200, 403, "first")
    assert explained(edge, curl="curl --form a=b https://x/") == (400, {"error": "the option '--form' of curl is not understood"})
    assert explained(edge, url="https://x/", body="x" * 70_000)[0] == 413

    edge.write(rules=[rules(edge, "second")])
    assert explained(edge, curl=curl)[1]["outcome"]["rule"] == "first", "files alone change nothing"
    edge.signal(signal.SIGHUP)
    until(lambda: edge.ready()[1]["generation"] == 2, "told to control")
    assert explained(edge, curl=curl)[1]["outcome"]["rule"] == "second"

    # A control that starts later has the newest configuration, too.
    os.kill(edge.pids()["control"], signal.SIGKILL)
    edge.wait_for("control is back")
    assert explained(edge, curl=curl)[1]["outcome"]["rule"] == "second"
    assert not [line for line in edge.log if "Traceback" in line], sys.stderr


def test_events_of_a_real_edge(tmp_path: Path) -> None:
    """From a request over TLS to the file, and to another one after a rotation."""
    https, admin = free_ports(2)
    paths = make_development(tmp_path / "certs")
    (tmp_path / "rules.yaml").write_text("rules: [{id: no, expression: 'http.user_agent contains \"sqlmap\"', action: block}]")
    (tmp_path / "edge.yaml").write_text(yaml.safe_dump({
        "listen": {"https": f"127.0.0.1:{https}", "admin": f"127.0.0.1:{admin}"}, "rules": "rules.yaml",
        "tls": {"certificates": [{"cert": str(paths.cert), "key": str(paths.key)}]}, "events": {"file": "events.jsonl"},
        "upstreams": {"web": {"targets": [{"url": "http://127.0.0.1:9"}]}}, "routes": [{"upstream": "web"}],
    }))  # fmt: skip
    process = Process([sys.executable, "-m", "edgeproxy", "serve", "-c", "edge.yaml"], tmp_path / "log", tmp_path)
    context = ssl.create_default_context(cafile=str(paths.ca))

    def ask(path: str) -> None:
        wanted = urllib.request.Request(f"https://localhost:{https}{path}", headers={"User-Agent": "sqlmap/1"})
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(wanted, timeout=10, context=context)
        caught.value.close()
        assert caught.value.code == 403

    def lines(name: str) -> list[dict[str, Any]]:
        file = tmp_path / name
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    try:
        assert process.wait_for(f"http://127.0.0.1:{admin}/readyz"), process.said()
        ask("/first?key=1")
        until(lambda: len(lines("events.jsonl")) == 1, "an event in the file")
        (event,) = lines("events.jsonl")
        assert (event["rule"], event["path"], event["status"]) == ("no", "/first", 403)
        assert event["fields"] == {"http.user_agent": "sqlmap/1"}
        (tmp_path / "events.jsonl").rename(tmp_path / "rotated")
        process.popen.send_signal(signal.SIGHUP)
        until((tmp_path / "events.jsonl").exists, "opened anew")
        ask("/second")
        until(lambda: len(lines("events.jsonl")) == 1, "an event in the new file")
        assert lines("events.jsonl")[0]["path"] == "/second" and len(lines("rotated")) == 1
    finally:
        assert process.stop() == 0, process.said()
