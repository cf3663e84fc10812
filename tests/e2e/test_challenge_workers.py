# Clearances over several processes: any worker takes them, also one that was started again, and a reload changes nothing.
from __future__ import annotations

import json
import os
import signal
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from running import Edge, until
from support.puzzles import solution

RULE = "rules:\n- {id: ask, expression: 'http.request.method eq \"GET\"', action: managed_challenge}\n"


@pytest.fixture(scope="module")
def changes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("rules") / "ask.yaml"
    file.write_text(RULE)
    return {"workers": 2, "rules": [str(file)], "challenge": {"unscored_bits": 10}}


def call(edge: Edge, path: str, data: bytes | None = None, cookie: str = "") -> tuple[int, str | None, bytes]:
    """Status, cookie and content; each call has a connection of its own, and so any worker."""
    request = urllib.request.Request(f"{edge.url}{path}", data, {"cookie": cookie} if cookie else {})
    try:
        with urllib.request.urlopen(request, context=edge.tls(), timeout=10) as answer:
            return answer.status, answer.headers["set-cookie"], answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["set-cookie"], error.read()


def passed(edge: Edge) -> str:
    challenge = json.loads(call(edge, "/v1/models")[2])["edge_challenge"]
    form = f"token={challenge['token']}&solution={solution(challenge)}".encode()
    status, cookie, _ = call(edge, challenge["path"], form)
    assert status == 200 and cookie is not None
    assert [call(edge, challenge["path"], form)[0] for _ in range(8)] == [403] * 8, "no worker takes it again"
    return cookie.partition(";")[0]


def workers(edge: Edge) -> set[int]:
    """Process ids of the workers that serve: those that have the https port open."""
    with urllib.request.urlopen(f"http://127.0.0.1:{edge.admin}/metrics", timeout=5) as answer:
        up = answer.read().decode().count('edgeproxy_worker_up{process="worker')
    assert up == 2
    children = Path(f"/proc/{edge.process.popen.pid}/task/{edge.process.popen.pid}/children").read_text().split()
    return {int(child) for child in children}


def test_any_worker_takes_a_clearance(edge: Edge) -> None:
    assert isinstance(edge.tls(), ssl.SSLContext)
    cookie = passed(edge)
    assert [call(edge, "/v1/models", cookie=cookie)[0] for _ in range(12)] == [200] * 12
    before = workers(edge)
    edge.process.popen.send_signal(signal.SIGHUP)
    until(lambda: "generation 2 is in use" in edge.process.said(), 20)
    assert [call(edge, "/v1/models", cookie=cookie)[0] for _ in range(8)] == [200] * 8, "behind a reload"
    os.kill(min(before), signal.SIGKILL)
    until(lambda: len(workers(edge)) == len(before) and workers(edge) != before, 20)
    assert [call(edge, "/v1/models", cookie=cookie)[0] for _ in range(8)] == [200] * 8, "of one that was started again"


def test_the_edge_explains_clearances_of_its_own(edge: Edge) -> None:
    """There is no secret_file: nobody else could read them."""
    asked = {"url": f"{edge.url}/v1/models", "client": "127.0.0.1", "headers": {"cookie": passed(edge)}}
    request = urllib.request.Request(f"http://127.0.0.1:{edge.admin}/api/explain", json.dumps(asked).encode())
    with urllib.request.urlopen(request, timeout=20) as answer:
        says = json.loads(answer.read())["outcome"]["says"]
    assert "the one that it carries holds, if the client has the fingerprint that it was made for" in says
