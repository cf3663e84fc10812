from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestClient, TestServer
from test_collector import scrape

from edgeproxy.explaining.question import Busy, Unclear
from edgeproxy.observe.admin import application, refuse
from edgeproxy.observe.collector import Scrape


class Source:
    ready = True

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        return self.ready, {"generation": 3}

    async def explain(self, content: bytes) -> bytes:
        if content == b"{}":
            raise Unclear("give 'url' or 'curl'")
        if content == b"[]":
            raise Busy("ask again")
        return b'{"outcome":{}}'

    async def scrape(self) -> Scrape:
        return scrape()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def client(source: Source) -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(application(source, "127.0.0.1"))) as client:
        yield client


async def test_health(client: TestClient[Any, Any]) -> None:
    answer = await client.get("/healthz")
    assert answer.status == 200
    assert await answer.json() == {"status": "ok"}
    assert answer.headers["Cache-Control"] == "no-store"


async def test_readiness_is_the_status_and_the_detail_json(client: TestClient[Any, Any], source: Source) -> None:
    answer = await client.get("/readyz")
    assert (answer.status, await answer.json()) == (200, {"ready": True, "generation": 3})
    source.ready = False
    answer = await client.get("/readyz")
    assert (answer.status, await answer.json()) == (503, {"ready": False, "generation": 3})


async def test_metrics(client: TestClient[Any, Any]) -> None:
    answer = await client.get("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "edgeproxy_requests_total" in await answer.text()


async def test_explanations(client: TestClient[Any, Any]) -> None:
    answer = await client.post("/api/explain", data=b'{"url": "https://x/"}')
    assert (answer.status, answer.headers["Content-Type"], await answer.json()) == (200, "application/json", {"outcome": {}})
    answer = await client.post("/api/explain", data=b"{}")
    assert (answer.status, await answer.json()) == (400, {"error": "give 'url' or 'curl'"})
    answer = await client.post("/api/explain", data=b"[]")
    assert (answer.status, answer.headers["Retry-After"], await answer.json()) == (503, "1", {"error": "ask again"})
    answer = await client.post("/api/explain", data=b"x" * (64 * 1024 + 1))
    assert (answer.status, await answer.json()) == (413, {"error": "at most 65536 bytes"})
    assert (await client.get("/api/explain")).status == 405
    answer = await client.post("/api/explain", data=b"{}", headers={"Origin": "https://elsewhere.example"})
    assert answer.status == 403


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/nothing"])
async def test_foreign_names_and_sites_are_refused_everywhere(client: TestClient[Any, Any], path: str) -> None:
    answer = await client.get(path, headers={"Host": "rebound.example"})
    assert answer.status == 403
    answer = await client.get(path, headers={"Origin": "https://evil.example"})
    assert answer.status == 403


async def test_other_methods_and_paths(client: TestClient[Any, Any]) -> None:
    assert (await client.post("/metrics")).status == 405
    assert (await client.get("/")).status == 404
    assert (await client.head("/healthz")).status == 200
    assert isinstance(client.session, ClientSession)


@pytest.mark.parametrize(
    ("host", "configured", "local"),
    [
        ("localhost", "10.0.0.5", "10.0.0.5"),
        ("LOCALHOST:9180", None, None),
        ("127.0.0.1:9180", "127.0.0.1", "127.0.0.1"),
        ("127.8.8.8", None, None),
        ("[::1]:9180", None, None),
        ("10.0.0.5:9180", None, "10.0.0.5"),  # 0.0.0.0 was configured, it came in on this one
        ("admin.internal:9180", "admin.internal", "10.0.0.5"),
        ("[fd00::5]:9180", None, "fd00::5"),
    ],
)
def test_own_names(host: str, configured: str | None, local: str | None) -> None:
    assert refuse(host, None, configured, local) is None
    assert refuse(host, f"http://{host}", configured, local) is None


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        (None, None),
        ("", None),
        ("evil.example", None),
        ("localhost.evil.example", None),
        ("10.0.0.6", None),
        ("0.0.0.0", None),
        ("[::1", "null"),
        ("localhost", "null"),
        ("localhost:9180", "http://localhost:80"),
        ("localhost", "https://localhost"),
        ("localhost", ""),
    ],
)
def test_foreign_names_and_origins(host: str | None, origin: str | None) -> None:
    assert refuse(host, origin, None, "10.0.0.5") is not None
