"""The edge as curl sees it: HTTP/1.1 and HTTP/2, streaming, HEAD, redirects, and HSTS on every https answer."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from running import Backend, Edge, until

VERSIONS = {"--http1.1": "1.1", "--http2": "2"}
JSON = ("-H", "content-type: application/json")
ASK = '{"model": "edge-demo-instant", "messages": [{"role": "user", "content": "Hello"}]}'
STREAM = '{"model": "edge-demo", "max_tokens": 20, "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'
LONG = json.dumps({"model": "edge-demo", "stream": True, "messages": [{"role": "user", "content": "Hello"}]})
CURL = ("curl", "-sS", "--noproxy", "*", "--max-time", "20")
HSTS = "max-age=63072000; includeSubDomains"


@dataclass
class Answer:
    """What curl got: status, protocol version, field lines with lower-case names, body."""

    status: int
    version: str
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """curl's option for an HTTP version."""
    return str(request.param)


def curl(edge: Edge, folder: Path, *arguments: str) -> Answer:
    """Runs curl with the development CA; fails when curl does."""
    head, body = folder / "head", folder / "body"
    body.write_bytes(b"")
    command = [*CURL, "--cacert", edge.ca, "-D", str(head), "-o", str(body), "-w", "%{http_version}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    status, *lines = head.read_text("latin-1").replace("\r", "").strip().split("\n\n")[-1].split("\n")
    fields = [line.split(":", 1) for line in lines]
    headers = [(name.lower(), value.strip()) for name, value in fields]
    return Answer(int(status.split()[1]), done.stdout, headers, body.read_bytes())


def test_post_with_a_body(edge: Edge, tmp_path: Path, version: str) -> None:
    got = curl(edge, tmp_path, version, *JSON, "-d", ASK, f"{edge.url}/v1/chat/completions")
    assert (got.status, got.version) == (200, VERSIONS[version])
    assert json.loads(got.body)["choices"][0]["message"]["content"].startswith("You wrote “Hello”")
    assert got.all("content-type") == ["application/json; charset=utf-8"]


def test_post_with_a_chunked_body(edge: Edge, tmp_path: Path, version: str) -> None:
    """Without a length: chunked over HTTP/1.1, plain DATA frames over HTTP/2."""
    big = tmp_path / "big.json"
    big.write_text(ASK.replace("Hello", "word " * 100_000))
    arguments = (version, *JSON, "-T", "-", "-X", "POST", f"{edge.url}/v1/chat/completions")
    with big.open("rb") as source:
        body = tmp_path / "answer"
        done = subprocess.run(
            [*CURL, "--cacert", edge.ca, "-o", str(body), *arguments],
            stdin=source, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(body.read_bytes())["usage"]["prompt_tokens"] >= 100_000


def test_a_body_over_the_backends_limit_is_refused_by_it(edge: Edge, tmp_path: Path, version: str) -> None:
    big = tmp_path / "big.json"
    big.write_bytes(b" " * 1_200_000)
    got = curl(edge, tmp_path, version, *JSON, "-d", f"@{big}", f"{edge.url}/v1/messages")
    assert got.status == 413
    assert json.loads(got.body)["error"]["type"] == "request_too_large"
    assert got.all("strict-transport-security") == [HSTS]


def test_streaming_without_buffering(edge: Edge, version: str) -> None:
    """Each event is here long before the last one is made (twenty tokens take a second)."""
    command = [*CURL, "-N", "--cacert", edge.ca, version, *JSON, "-d", STREAM]
    with subprocess.Popen([*command, f"{edge.url}/v1/chat/completions"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        times = [time.monotonic() for line in process.stdout if line.startswith(b"data: ")]
    assert process.returncode == 0
    assert len(times) == 1 + 20 + 1 + 1  # the role, the tokens, the finish reason, [DONE]
    assert times[-1] - times[0] > 0.6
    # Were they held back, most would come at the same moment.
    apart = sum(later - earlier > 0.01 for earlier, later in pairwise(times))
    assert apart >= 12


def test_stream_heads(edge: Edge, tmp_path: Path, version: str) -> None:
    got = curl(edge, tmp_path, version, "-N", *JSON, "-d", STREAM, f"{edge.url}/v1/chat/completions")
    assert got.status == 200 and got.body.endswith(b"data: [DONE]\n\n")
    assert got.all("content-type") == ["text/event-stream"]
    assert got.all("content-length") == []
    assert got.all("cache-control") == ["no-cache, no-transform"]
    assert got.all("strict-transport-security") == [HSTS]


def test_curl_that_is_killed_stops_the_backend(edge: Edge, backend: Backend, version: str) -> None:
    before = backend.counters()["cancelled"]
    command = [*CURL, "-N", "--cacert", edge.ca, version, *JSON, "-d", LONG]
    with subprocess.Popen([*command, f"{edge.url}/v1/chat/completions"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        until(lambda: backend.counters()["cancelled"] == before + 1, 1.0)


def test_head(edge: Edge, tmp_path: Path, version: str) -> None:
    whole = curl(edge, tmp_path, version, f"{edge.url}/v1/models")
    head = curl(edge, tmp_path, version, "-I", f"{edge.url}/v1/models")
    assert (head.status, head.body) == (200, b"") or head.body.startswith(b"HTTP/")  # -I may write the head as output
    assert head.all("content-length") == [str(len(whole.body))]
    assert head.all("strict-transport-security") == [HSTS]


ANSWERS: list[tuple[str, tuple[str, ...], int]] = [
    ("/v1/models", (), 200),
    ("/v1/models/none", (), 404),  # the backend's
    ("/no/route", (), 404),  # the edge's own
    ("/v1/models", ("-X", "DELETE"), 405),
    ("/dead/", (), 502),
    ("/dead/openai/", (), 502),
    ("/dead/anthropic/", ("-d", "{}"), 502),
    ("/v1/chat/completions", (*JSON, "-d", "{"), 400),
]


@pytest.mark.parametrize("asked", ANSWERS)
def test_hsts_is_on_every_https_answer_exactly_once(
    edge: Edge, tmp_path: Path, version: str, asked: tuple[str, tuple[str, ...], int]
) -> None:
    path, arguments, status = asked
    got = curl(edge, tmp_path, version, *arguments, f"{edge.url}{path}")
    assert got.status == status
    assert got.all("strict-transport-security") == [HSTS]


def test_hsts_is_not_for_addresses(edge: Edge, tmp_path: Path, version: str) -> None:
    """RFC 6797 §8.1.1: an IP-literal host is never noted; the header would be noise."""
    got = curl(edge, tmp_path, version, f"https://127.0.0.1:{edge.https}/v1/models")
    assert got.status == 200 and got.all("strict-transport-security") == []


@pytest.mark.parametrize("arguments", [(), ("-I",), ("-d", ASK)])
def test_the_plain_port_redirects_and_says_nothing_of_hsts(
    edge: Edge, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    got = curl(edge, tmp_path, *arguments, f"http://localhost:{edge.http}/v1/models?a=b%20c")
    assert got.status == 308
    assert got.all("location") == [f"{edge.url}/v1/models?a=b%20c"]
    assert got.all("strict-transport-security") == []


def test_a_redirect_keeps_method_and_body(edge: Edge, tmp_path: Path) -> None:
    got = curl(edge, tmp_path, "-L", *JSON, "-d", ASK, f"http://localhost:{edge.http}/v1/chat/completions")
    assert got.status == 200 and b"chat.completion" in got.body


def test_every_answer_has_a_ray_of_its_own(edge: Edge, tmp_path: Path, version: str) -> None:
    rays = []
    for path in ("/v1/models", "/v1/models", "/no/route"):
        got = curl(edge, tmp_path, version, f"{edge.url}{path}")
        (ray,) = [value for name, value in got.headers if "ray" in name]
        rays.append(ray)
    assert len(set(rays)) == 3


def test_errors_of_the_edge_are_json_or_html_by_accept(edge: Edge, tmp_path: Path, version: str) -> None:
    page = curl(edge, tmp_path, version, "-H", "accept: text/html", f"{edge.url}/dead/")
    assert page.status == 502 and page.all("content-type")[0].startswith("text/html")
    assert b"<html" in page.body.lower()
    data = curl(edge, tmp_path, version, "-H", "accept: application/json", f"{edge.url}/dead/")
    assert data.all("content-type")[0].startswith("application/json") and json.loads(data.body)


def test_connections_are_reused(edge: Edge, version: str) -> None:
    """Five requests of one curl, errors among them, need one handshake."""
    urls = [f"{edge.url}{path}" for path in ("/v1/models", "/no/route", "/dead/", "/v1/models/none", "/v1/models")]
    done = subprocess.run(
        [*CURL, "--cacert", edge.ca, version, "-w", "\\n%{num_connects}\\n", *urls],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line in {"0", "1"}] == ["1", "0", "0", "0", "0"]


def test_the_access_log_has_every_request_and_no_query(edge: Edge, tmp_path: Path, version: str) -> None:
    mark = f"/v1/models/log-{version.strip('-')}-{tmp_path.name}"
    curl(edge, tmp_path, version, f"{edge.url}{mark}?key=secret-of-the-query")
    log = edge.process.cwd / "access.jsonl"
    until(lambda: log.exists() and mark in log.read_text(), 3.0)
    (entry,) = [json.loads(line) for line in log.read_text().splitlines() if mark in line]
    assert entry["status"] == 404 and entry["path"] == urlsplit(mark).path
    assert "secret-of-the-query" not in log.read_text()
