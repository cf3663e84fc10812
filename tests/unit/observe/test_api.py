# The admin address's API as HTTP: statuses, content types, and that its guard stands before all of it.
from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from test_admin import Source

from edgeproxy.explaining.question import Busy, Unclear
from edgeproxy.observe.admin import application
from edgeproxy.policy.blocks import Refused

PATHS = ("/api/blocks", "/api/limits", "/api/limits/reset")


class Operator:
    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes]] = []

    def shown(self) -> list[dict[str, Any]]:
        return [{"ip": "192.0.2.1"}]

    async def block(self, content: bytes) -> dict[str, Any]:
        self.asked.append(("block", content))
        if content == b"[]":
            raise Refused("give one")
        return {"blocked": True}

    async def limits(self, content: bytes, *, reset: bool) -> dict[str, Any]:
        self.asked.append(("reset" if reset else "look", content))
        if content == b"[]":
            raise Unclear("give a request")
        if content == b"1":
            raise Busy("later")
        return {"limits": []}


@pytest.fixture
def operator() -> Operator:
    return Operator()


@pytest.fixture
async def client(operator: Operator) -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(application(Source(), "127.0.0.1", operator))) as client:
        yield client


JSON = {"content-type": "application/json; charset=utf-8"}


async def test_answers(client: TestClient[Any, Any], operator: Operator) -> None:
    answer = await client.get("/api/blocks")
    assert (answer.status, await answer.json()) == (200, {"blocks": [{"ip": "192.0.2.1"}]})
    assert answer.headers["Cache-Control"] == "no-store"
    for path, wanted in zip(PATHS, ({"blocked": True}, {"limits": []}, {"limits": []}), strict=True):
        answer = await client.post(path, data=b"{}", headers=JSON)
        assert (answer.status, await answer.json()) == (200, wanted)
        answer = await client.post(path, data=b"[]", headers=JSON)
        assert answer.status == 400 and "give" in (await answer.json())["error"]
        assert (await client.post(path, data=b"x" * (64 * 1024 + 1), headers=JSON)).status == 413
    answer = await client.post("/api/limits", data=b"1", headers=JSON)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert [kind for kind, _ in operator.asked] == ["block"] * 2 + ["look"] * 2 + ["reset"] * 2 + ["look"]


@pytest.mark.parametrize("path", PATHS)
async def test_nothing_happens_for_others(client: TestClient[Any, Any], operator: Operator, path: str) -> None:
    for headers in ({"Origin": "https://elsewhere.example"}, {"Origin": "null"}, {"Host": "edge.example"}):
        assert (await client.post(path, data=b"{}", headers={**JSON, **headers})).status == 403
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"):
        assert (await client.post(path, data=b"{}", headers={"content-type": content_type})).status == 415
    assert operator.asked == []


async def test_without_an_operator_there_is_nothing() -> None:
    async with TestClient(TestServer(application(Source(), "127.0.0.1"))) as client:
        assert (await client.get("/api/blocks")).status == 404
