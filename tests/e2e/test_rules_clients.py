"""Rules as real clients see them: curl, the official SDKs and Chromium, before an edge that reads rule files."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from browser import chromium
from contract.test_rules import ruled
from running import Backend, Edge, until
from support.edge import certificates, running_edge
from support.upstream import Connection, running_upstream

RULES = """
lists:
  secrets: [sk-live-1, sk-live-2]
rules:
  - id: leak
    expression: edge.route.dialect in {"openai" "anthropic" "responses"} and http.request.body.raw contains "sk-live-1"
    action: block
  - id: enough
    expression: any(http.request.headers["x-tenant"][*] in $secrets)
    action: block
    status: 429
  - id: short
    expression: http.request.uri.path eq "/api/chat"
    action: rewrite
    path: /v1/chat/completions
  - id: api
    expression: starts_with(http.request.uri.path, "/api/v0/")
    action: rewrite
    path_expression: concat("/v1/", substring(http.request.uri.path, 8))
  - id: moved
    expression: starts_with(http.request.uri.path, "/old/")
    action: redirect
    status: 301
    location_expression: concat("/v1/", substring(http.request.uri.path, 5))
    preserve_query: true
  - id: stamp
    phase: response
    expression: http.response.code lt 400
    action: rewrite
    headers: {set: {x-edge: seen}}
"""
SAY: Any = [{"role": "user", "content": "Hello through the edge"}]
LEAK: Any = [{"role": "user", "content": "my key is sk-live-1"}]
MESSAGE = "blocked by a rule"
VERSIONS = {"h1": "HTTP/1.1", "h2": "HTTP/2"}
CURL = ("curl", "-sS", "--noproxy", "*", "--max-time", "20")


@pytest.fixture(scope="module")
def changes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("rules") / "own.yaml"
    file.write_text(RULES)
    return {"rules": [str(file)]}


@pytest.fixture(params=VERSIONS)
def http(edge: Edge, request: pytest.FixtureRequest) -> Iterator[httpx2.Client]:
    """A client for the SDKs; every answer must come by the wanted version."""
    seen: set[str] = set()
    hooks = {"response": [lambda response: seen.add(response.http_version)]}
    with httpx2.Client(verify=edge.tls(), http2=request.param == "h2", event_hooks=hooks, trust_env=False) as client:
        yield client
    assert seen == {VERSIONS[request.param]}


def gpt(edge: Edge, http: httpx2.Client, base: str = "/v1") -> openai.OpenAI:
    return openai.OpenAI(base_url=edge.url + base, api_key="test", http_client=http, max_retries=0)


def claude(edge: Edge, http: httpx2.Client) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=edge.url, api_key="test", http_client=http, max_retries=0)


def test_a_block_is_the_right_exception_of_openai(edge: Edge, http: httpx2.Client) -> None:
    client = gpt(edge, http)
    with pytest.raises(openai.PermissionDeniedError) as denied:
        client.chat.completions.create(model="edge-demo-instant", messages=LEAK)
    assert MESSAGE in denied.value.message and denied.value.code == "rule_block"
    with pytest.raises(openai.PermissionDeniedError, match=MESSAGE):
        client.chat.completions.create(model="edge-demo-instant", messages=LEAK, stream=True)
    with pytest.raises(openai.PermissionDeniedError, match=MESSAGE):
        client.responses.create(model="edge-demo-instant", input="my key is sk-live-1")
    with pytest.raises(openai.RateLimitError, match=MESSAGE):
        client.models.list(extra_headers={"x-tenant": "sk-live-2"})
    answer = client.chat.completions.create(model="edge-demo-instant", messages=SAY)
    assert (answer.choices[0].message.content or "").startswith("You wrote")


def test_a_block_is_the_right_exception_of_anthropic(edge: Edge, http: httpx2.Client) -> None:
    client = claude(edge, http)
    with pytest.raises(anthropic.PermissionDeniedError, match=MESSAGE) as denied:
        client.messages.create(model="edge-demo-instant", max_tokens=20, messages=LEAK)
    assert denied.value.body["error"]["type"] == "permission_error"  # type: ignore[index]
    with pytest.raises(anthropic.RateLimitError, match=MESSAGE):
        client.messages.create(
            model="edge-demo-instant", max_tokens=20, messages=SAY, extra_headers={"x-tenant": "sk-live-2"}
        )
    with client.messages.stream(model="edge-demo-instant", max_tokens=20, messages=SAY) as stream:
        assert stream.get_final_text().startswith("You wrote")


def test_a_rewritten_path_streams(edge: Edge, http: httpx2.Client, backend: Backend) -> None:
    client = gpt(edge, http, "/api/v0")
    with client.chat.completions.create(model="edge-demo", messages=SAY, stream=True, max_tokens=12) as stream:
        pieces = iter(stream)
        for _ in range(3):
            next(pieces)
        assert backend.counters()["active"] == 1, "the backend is still writing what we already read the start of"
        assert len(list(pieces)) == 12 + 2 - 3
    assert stream.response.headers["x-edge"] == "seen"


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl(edge: Edge, tmp_path: Path, version: str) -> None:
    def curl(*arguments: str) -> tuple[str, bytes]:
        body = tmp_path / "body"
        command = [*CURL, version, "--cacert", edge.ca, "-o", str(body), "-w", "%{http_code} %{url_effective}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout, body.read_bytes()

    said, answer = curl("-L", f"{edge.url}/old/models?a=b")
    assert said == f"200 {edge.url}/v1/models?a=b" and b"edge-demo" in answer
    ask = json.dumps({"model": "edge-demo-instant", "stream": True, "messages": SAY})
    said, answer = curl("-H", "content-type: application/json", "-d", ask, f"{edge.url}/api/chat")
    assert said.startswith("200 ") and answer.endswith(b"data: [DONE]\n\n")
    said, answer = curl("-d", '{"model": "m", "messages": "sk-live-1"}', f"{edge.url}/v1/chat/completions")
    assert said.startswith("403 ") and MESSAGE in json.loads(answer)["error"]["message"]
    # A megabyte of which the head says enough: curl is still sending when it is told (with 100-continue, and without).
    big = tmp_path / "big"
    big.write_bytes(bytes(1 << 20))
    for expect in ("expect: 100-continue", "expect:"):
        said, answer = curl("-H", expect, "-H", "x-tenant: sk-live-2", "--data-binary", f"@{big}", f"{edge.url}/v1/models")
        assert said.startswith("429 ") and MESSAGE in json.loads(answer)["error"]["message"]


def test_what_was_counted_and_logged(edge: Edge) -> None:
    """After the tests above."""
    subprocess.run([*CURL, "--cacert", edge.ca, "-o", "/dev/null", f"{edge.url}/old/x"], check=True)

    def text() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{edge.admin}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    until(lambda: 'edgeproxy_rule_hits_total{action="redirect",rule="moved"}' in text(), 5)
    log = edge.process.cwd / "access.jsonl"
    until(lambda: '"rules":["moved","stamp"]' in log.read_text(), 5)


async def test_chromium_follows_a_redirect(tmp_path: Path) -> None:
    page = b"<!doctype html><title>edge</title><link rel=icon href=data:,><p>"

    async def handler(connection: Connection) -> None:
        while True:
            content = page + (await connection.request()).line
            connection.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n" % len(content) + content)

    rules = ruled("""
- {id: old, expression: 'http.request.uri.path eq "/old"', action: redirect, location: /new, preserve_query: true}
- {id: new, expression: 'http.request.uri.path eq "/new"', action: rewrite, path: /inside}
- {id: stop, expression: 'http.request.uri.path eq "/stop"', action: block}
""")
    async with running_upstream(handler) as upstream, running_edge(upstream.port, rules=rules) as edge:
        site = f"https://localhost:{edge.https_port}"
        async with chromium(tmp_path, certificates().cert, f"--origin-to-force-quic-on=localhost:{edge.https_port}") as tab:
            await tab.open(f"{site}/old?a=b")
            assert await tab.run("[location.href, document.body.innerText.trim()]") == [
                f"{site}/new?a=b", "GET /inside?a=b HTTP/1.1",
            ]  # fmt: skip
            assert await tab.run("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h3"
            assert await tab.run("fetch('/stop', {method: 'POST', body: new Uint8Array(3000000)}).then(a => a.status)") == 403
            await tab.open(f"{site}/stop")
            assert MESSAGE in await tab.run("document.body.innerText")
