"""The demonstration backend over HTTP, called directly: paths, errors, streaming, cancellation, echo."""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from edgeproxy.demo import page
from edgeproxy.demo.backend import COUNTERS, MAX_BODY, MAX_WEBSOCKET_MESSAGE, MODELS, Counters, create_app, start

USER = [{"role": "user", "content": "Hello there"}]
CHAT: dict[str, Any] = {"model": "edge-demo", "messages": USER}
MESSAGES: dict[str, Any] = {**CHAT, "max_tokens": 500}
RESPONSES: dict[str, Any] = {"model": "edge-demo", "input": "Hello there"}
ASKS = {"/v1/chat/completions": CHAT, "/v1/messages": MESSAGES, "/v1/responses": RESPONSES}
ANTHROPIC = {"anthropic-version": "2023-06-01"}
Start = Callable[[float], Awaitable[tuple[aiohttp.ClientSession, Counters]]]


@pytest.fixture
async def backend() -> AsyncIterator[Start]:
    """Starts a backend with a pace; gives a client whose base is the backend, and its counters."""
    runners: list[web.AppRunner] = []
    clients: list[aiohttp.ClientSession] = []

    async def begin(pace: float) -> tuple[aiohttp.ClientSession, Counters]:
        app = create_app(pace)
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        runners.append(await start(app, listener))
        clients.append(aiohttp.ClientSession(f"http://127.0.0.1:{port}"))
        return clients[-1], app[COUNTERS]

    yield begin
    for client in clients:
        await client.close()
    for runner in runners:
        await runner.cleanup()


async def until(condition: Callable[[], bool], within: float = 1.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("path", ASKS)
async def test_whole_answers(backend: Start, path: str) -> None:
    client, counters = await backend(0)
    async with client.post(path, json=ASKS[path]) as got:
        body = await got.json()
        assert got.status == 200 and got.headers["Server"] == "edgeproxy-demo"
        assert got.headers["request-id" if path == "/v1/messages" else "x-request-id"].startswith("req_")
    assert "Hello there" in json.dumps(body, ensure_ascii=False)
    assert (counters.started, counters.completed, counters.active, counters.cancelled) == (1, 1, 0, 0)


@pytest.mark.parametrize(
    ("path", "end"),
    [
        ("/v1/chat/completions", b"data: [DONE]\n\n"),
        ("/v1/messages", b'event: message_stop\ndata: {"type":"message_stop"}\n\n'),
        ("/v1/responses", b'"metadata":{}}}\n\n'),
    ],
)
async def test_streams(backend: Start, path: str, end: bytes) -> None:
    client, _ = await backend(0)
    async with client.post(path, json={**ASKS[path], "stream": True}) as got:
        assert got.status == 200
        assert got.headers["Content-Type"] == "text/event-stream"
        assert got.headers["Cache-Control"] == "no-cache, no-transform"
        assert got.headers["X-Accel-Buffering"] == "no"
        assert "Content-Length" not in got.headers
        assert (await got.read()).endswith(end)


async def test_a_stream_comes_at_its_pace(backend: Start) -> None:
    client, _ = await backend(0.01)
    began = time.monotonic()
    async with client.post("/v1/chat/completions", json={**CHAT, "stream": True, "max_tokens": 20}) as got:
        first = await got.content.readany()
        assert b'"role":"assistant"' in first and b"[DONE]" not in first
        await got.read()
    assert time.monotonic() - began >= 0.2


async def test_the_instant_model_does_not_wait(backend: Start) -> None:
    client, _ = await backend(3600)
    ask = {**CHAT, "model": "edge-demo-instant"}
    async with asyncio.timeout(5), client.post("/v1/chat/completions", json=ask) as got:
        assert got.status == 200


@pytest.mark.parametrize("path", ASKS)
@pytest.mark.parametrize("streaming", [True, False])
async def test_a_client_that_leaves_stops_the_work_at_once(backend: Start, path: str, streaming: bool) -> None:
    client, counters = await backend(3600 if not streaming else 0.01)
    call = asyncio.create_task(client.post(path, json={**ASKS[path], "stream": streaming}))
    await until(lambda: counters.active == 1)
    if streaming:
        got = await call
        await got.content.readany()
        got.close()
    else:
        call.cancel()
    await until(lambda: counters.cancelled == 1)
    assert counters.active == 0 and counters.completed == 0


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/v1/chat/completions", b"{", 400, "invalid_request_error"),
        ("/v1/chat/completions", b"{}", 400, "invalid_request_error"),
        ("/v1/chat/completions", json.dumps({**CHAT, "model": "other"}).encode(), 404, "invalid_request_error"),
        ("/v1/chat/completions", b" " * (MAX_BODY + 1), 413, "invalid_request_error"),
        ("/v1/chat/completions", json.dumps({**CHAT, "model": "edge-demo-limited"}).encode(), 429, "requests"),
        ("/v1/chat/completions", json.dumps({**CHAT, "model": "edge-demo-overloaded"}).encode(), 503, "server_error"),
        ("/v1/nothing", b"{}", 404, "invalid_request_error"),
        ("/v1/models", b"{}", 405, "invalid_request_error"),
        ("/v1/messages", b"{", 400, "invalid_request_error"),
        ("/v1/messages", json.dumps({**MESSAGES, "model": "other"}).encode(), 404, "not_found_error"),
        ("/v1/messages", b" " * (MAX_BODY + 1), 413, "request_too_large"),
        ("/v1/messages", json.dumps({**MESSAGES, "model": "edge-demo-limited"}).encode(), 429, "rate_limit_error"),
        ("/v1/messages", json.dumps({**MESSAGES, "model": "edge-demo-overloaded"}).encode(), 529, "overloaded_error"),
        ("/v1/responses", json.dumps({**RESPONSES, "model": "other"}).encode(), 404, "invalid_request_error"),
    ],
)
async def test_errors(backend: Start, path: str, body: bytes, status: int, kind: str) -> None:
    client, counters = await backend(0)
    async with client.post(path, data=io.BytesIO(body)) as got:
        found = await got.json()
        assert got.status == status
        assert found["error"]["type"] == kind
        assert ("request_id" in found) == (path == "/v1/messages")
        if path == "/v1/messages":
            assert got.headers["request-id"] == found["request_id"]
        assert got.headers.get("Retry-After") == ("1" if status == 429 else None)
    assert counters.active == 0 and counters.cancelled == 0
    assert counters.refused == counters.started


@pytest.mark.parametrize("streaming", [True, False])
async def test_the_broken_model_resets(backend: Start, streaming: bool) -> None:
    client, counters = await backend(0)
    received = b""

    async def receive() -> None:
        nonlocal received
        ask = {**MESSAGES, "model": "edge-demo-broken", "stream": streaming}
        async with client.post("/v1/messages", json=ask) as got:
            async for chunk in got.content.iter_any():
                received += chunk

    with pytest.raises(aiohttp.ClientError):
        await receive()
    assert b"message_stop" not in received
    await until(lambda: counters.broken == 1)
    assert (counters.active, counters.completed, counters.cancelled) == (0, 0, 0)


async def test_a_failure_of_its_own_is_told_in_the_dialect(backend: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("edgeproxy.demo.backend.answer", broken)
    client, counters = await backend(0)
    async with client.post("/v1/messages", json=MESSAGES) as got:
        assert got.status == 500
        assert (await got.json())["error"]["type"] == "api_error"
    assert counters.active == 0


async def test_models_in_both_dialects(backend: Start) -> None:
    client, _ = await backend(0)
    async with client.get("/v1/models") as got:
        found = await got.json()
        assert found["object"] == "list" and [m["id"] for m in found["data"]] == list(MODELS)
        first = {"id": "edge-demo", "object": "model", "created": 1767225600, "owned_by": "edgeproxy"}
        assert found["data"][0] == first
    async with client.get("/v1/models", headers=ANTHROPIC) as got:
        found = await got.json()
        assert found["has_more"] is False and found["first_id"] == "edge-demo"
        assert found["data"][0]["type"] == "model" and found["data"][0]["display_name"]
    async with client.get("/v1/models/edge-demo") as got:
        assert (await got.json())["id"] == "edge-demo"
    async with client.get("/v1/models/none") as got:
        assert got.status == 404 and (await got.json())["error"]["code"] == "model_not_found"
    async with client.get("/v1/models/none", headers=ANTHROPIC) as got:
        assert got.status == 404 and (await got.json())["error"]["type"] == "not_found_error"


async def test_the_page_allows_nothing_from_elsewhere(backend: Start) -> None:
    client, _ = await backend(0)
    async with client.get("/") as got:
        text = await got.text()
        assert got.status == 200 and got.content_type == "text/html"
        policy = got.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and policy.count("'sha256-") == 2
    assert re.findall(r"""(?:src=|href=|url\(|@import)\s*["']?([^"'\s>)]*)""", text) == ["data:,"]
    for need in ('lang="en"', '<label for="prompt">', '<label for="model">', 'role="log"', 'role="status"'):
        assert need in text
    assert text == page.HTML
    async with client.head("/") as got:
        assert got.status == 200 and int(got.headers["Content-Length"]) == len(page.HTML.encode())
    async with client.get("/nothing") as got:
        assert got.status == 404


async def test_websocket_echo(backend: Start) -> None:
    client, _ = await backend(0)
    async with client.ws_connect("/ws") as ws:
        for text in ("Hello", "", "é" * 100_000):
            await ws.send_str(text)
            assert await ws.receive_str() == text
        await ws.send_bytes(bytes(range(256)))
        assert await ws.receive_bytes() == bytes(range(256))
        await ws.close(code=4001)
        assert ws.close_code == 4001
    async with client.ws_connect("/ws") as ws:
        await ws.send_bytes(bytes(MAX_WEBSOCKET_MESSAGE + 1))
        assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE and ws.close_code == 1009


async def test_websockets_are_told_when_it_ends() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/ws"
    runner = await start(create_app(0), listener)
    async with aiohttp.ClientSession() as client, client.ws_connect(url) as ws:
        ending = asyncio.create_task(runner.cleanup())
        message = await ws.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE and ws.close_code == 1001
        await ending


async def test_health_and_counters(backend: Start) -> None:
    client, _ = await backend(0)
    async with client.get("/health") as got:
        assert got.status == 200
    async with client.get("/counters") as got:
        assert await got.json() == dict.fromkeys(Counters.__slots__, 0)
