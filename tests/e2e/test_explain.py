# Explanations and events of a real edge: /api/explain by the configuration that is in use, events in their file.
from __future__ import annotations

import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import Edge, stopped_edge, until


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
