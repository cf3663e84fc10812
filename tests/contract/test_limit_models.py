# Limits of models over every protocol: the body says which one it is, and it is held for that.
from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from .stand import routed, stand

REQUESTS: dict[str, Any] = {
    "name": "per-model", "requests": 2, "key": ["edge.model"], "algorithm": "fixed-window", "period": "10h",
}  # fmt: skip
LARGE: dict[str, Any] = {**REQUESTS, "name": "large", "requests": 1, "key": ["ssl"], "expression": 'edge.model eq "large"'}


def ask(model: str | None) -> bytes:
    content: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    if model is not None:
        content["model"] = model
    return json.dumps(content).encode()


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
async def test_each_model_has_its_own_count(protocol: str, dialect: str) -> None:
    async with stand(protocol, limits=[REQUESTS], routes=routed(dialect=dialect)) as s:
        wire = await s.dial()
        for model, statuses in (("small", (200, 200, 429)), ("large", (200, 200, 429)), (None, (200, 200, 429))):
            body = ask(model)
            assert [await wire.call("POST", "/", body=body).reply() for _ in statuses] == list(statuses)
        assert s.upstream.requests[0].body == ask("small")
        # No body asks of no model: the missing one's count.
        assert (await wire.get()).status == 429


async def test_one_model_has_a_limit(protocol: str) -> None:
    async with stand(protocol, limits=[LARGE], routes=routed(dialect="openai")) as s:
        wire = await s.dial()
        for _ in range(2):
            assert await wire.call("POST", "/", body=ask("small")).reply() == 200
        assert await wire.call("POST", "/", body=ask("large")).reply() == 200
        coded = wire.call("POST", "/", [(b"content-encoding", b"gzip")], body=gzip.compress(ask("large")))
        assert await coded.reply() == 429, "what is coded is read, too"
        assert await wire.call("POST", "/", body=ask("small")).reply() == 200


async def test_a_body_that_is_too_long_is_of_no_model(protocol: str) -> None:
    async with stand(protocol, limits=[REQUESTS], routes=routed(dialect="openai", preview="64B")) as s:
        wire = await s.dial()
        long = ask("large" * 30)
        assert [await wire.call("POST", "/", body=long).reply() for _ in range(3)] == [200, 200, 429]
        assert s.upstream.requests[-1].body == long
        assert await wire.call("POST", "/", body=ask("small")).reply() == 429, "64 bytes are not enough for this one either"


async def test_tokens_of_a_model(protocol: str) -> None:
    limit = {**REQUESTS, "tokens": 1000, "reserve": 10}
    del limit["requests"]
    async with stand(protocol, limits=[limit], routes=routed(dialect="openai")) as s:
        wire = await s.dial()
        call = wire.call("POST", "/", body=ask("small"))
        assert await call.reply() == 200 and call.values(b"x-ratelimit-limit-tokens") == [b"1000"]
        greedy = json.loads(ask("small")) | {"max_tokens": 995}
        assert await wire.call("POST", "/", body=json.dumps(greedy).encode()).reply() == 429
        other = json.dumps(greedy | {"model": "other", "max_tokens": 900}).encode()
        assert await wire.call("POST", "/", body=other).reply() == 200


async def test_on_trial_nobody_is_refused(protocol: str) -> None:
    async with stand(protocol, limits=[{**REQUESTS, "mode": "log"}], routes=routed(dialect="openai")) as s:
        wire = await s.dial()
        assert [await wire.call("POST", "/", body=ask("small")).reply() for _ in range(4)] == [200] * 4
        assert s.edge.stats.limits["per-model", "limited"] == 2


async def test_where_nobody_knows_bodies_none_is_held(protocol: str) -> None:
    async with stand(protocol, limits=[REQUESTS]) as s:
        wire = await s.dial()
        assert [await wire.call("POST", "/", body=ask(name)).reply() for name in ("a", "b", "c")] == [200, 200, 429]


async def test_rules_read_the_model(protocol: str) -> None:
    rule = {"id": "large", "expression": 'edge.model eq "large"', "action": "block"}
    async with stand(protocol, rules={"book": {"rules": [rule]}}, routes=routed(dialect="openai")) as s:
        wire = await s.dial()
        assert await wire.call("POST", "/", body=ask("large")).reply() == 403
        assert await wire.call("POST", "/", body=ask("small")).reply() == 200
        assert await wire.call("POST", "/", body=b"no JSON").reply() == 200
