# What the official SDKs do to an upstream that is down: they try again, and say so; the edge says when it is enough.
from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from openai._base_client import BaseClient
from running import until as until_now
from support.edge import certificates
from support.upstream import Connection, running_upstream
from support.waiting import until
from test_limits import serve

USER: Any = [{"role": "user", "content": "Hello"}]
CAP = 4


async def down(connection: Connection) -> None:
    """As a provider that has too much to do, and whose clients need not wait long for the test's sake."""
    while True:
        await connection.request()
        connection.write(b"HTTP/1.1 503 Service Unavailable\r\nretry-after-ms: 1\r\ncontent-length: 0\r\n\r\n")


@asynccontextmanager
async def edge(folder: Path, *targets: dict[str, str], dialect: str = "openai", **retries: int) -> AsyncIterator[tuple[str, Any]]:
    """The edge's URL, and what the upstream got."""
    async with running_upstream(down) as upstream:
        main = {"targets": list(targets) or [{"url": f"http://127.0.0.1:{upstream.port}"}], "retries": retries}
        routes = [{"path": "/", "upstream": "main", "dialect": dialect}]
        process, https, admin = serve(folder, upstream.port, upstreams={"main": main}, routes=routes, workers=1)
        try:
            await until(lambda: "ready after" in process.said(), 60)
            yield f"https://localhost:{https}", (upstream, admin)
        finally:
            process.stop()


def client() -> httpx2.Client:
    return httpx2.Client(verify=ssl.create_default_context(cafile=str(certificates().ca)), trust_env=False)


def ask_openai(url: str, retries: int) -> openai.APIStatusError:
    with client() as http, pytest.raises(openai.APIStatusError) as caught:
        openai.OpenAI(base_url=f"{url}/v1", api_key="x", http_client=http, max_retries=retries).chat.completions.create(
            model="m", messages=USER
        )
    return caught.value


def ask_anthropic(url: str, retries: int) -> anthropic.APIStatusError:
    with client() as http, pytest.raises(anthropic.APIStatusError) as caught:
        anthropic.Anthropic(base_url=url, api_key="x", http_client=http, max_retries=retries).messages.create(
            model="m", messages=USER, max_tokens=5
        )
    return caught.value


@pytest.mark.parametrize(("ask", "dialect"), [(ask_openai, "openai"), (ask_anthropic, "anthropic")])
async def test_an_sdk_that_tries_on_is_told_to_stop(tmp_path: Path, ask: Any, dialect: str) -> None:
    async with edge(tmp_path, dialect=dialect, max_attempts=CAP) as (url, (upstream, _)):
        error = await asyncio.to_thread(ask, url, 9)
        assert type(error).__name__ == "RateLimitError" and "tried 4 times before" in str(error)
        counts = [seen.values(b"x-stainless-retry-count") for seen in upstream.requests]
        assert counts == [[b"0"], [b"1"], [b"2"], [b"3"]], "cap attempts, and the SDK took the 429 for an end"
        error = await asyncio.to_thread(ask, url, 2)
        assert error.status_code == 503 and len(upstream.requests) == CAP + 3, "another request has its own attempts"


async def test_a_dead_upstream_with_several_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BaseClient, "_calculate_retry_timeout", lambda *_a, **_k: 0.001)  # else 15 s of sleep
    # Ports below 1024 of loopback, where no test listens.
    targets = [{"url": f"http://127.0.0.1:{port}"} for port in (1, 2, 3)]
    async with edge(tmp_path, *targets) as (url, (_, admin)):

        def attempts() -> float:
            with httpx2.Client(trust_env=False) as http:
                text = http.get(f"http://127.0.0.1:{admin}/metrics").text
            lines = [line for line in text.splitlines() if line.startswith("edgeproxy_upstream_connect_failures_total")]
            return sum(float(line.rpartition(" ")[2]) for line in lines)

        error = await asyncio.to_thread(ask_openai, url, 5)
        assert error.status_code == 429
        await asyncio.to_thread(until_now, lambda: attempts() == 6, 30)
