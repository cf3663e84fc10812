# Who is blocked is refused over every protocol, at once, also where a plan and a connection are older than the block.
from __future__ import annotations

import json
import time

import pytest

from edgeproxy.policy.blocks import Block, Blocks, Kind

from .stand import routed, stand


def blocks(kind: Kind = "network", value: str = "127.0.0.0/8", seconds: float = 60.0) -> Blocks:
    return Blocks([Block(kind, value, time.monotonic() + seconds, time.time(), "test")])


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
async def test_a_refusal_on_an_open_connection(protocol: str, dialect: str) -> None:
    async with stand(protocol, routes=routed(dialect=dialect)) as s:
        wire = await s.dial()
        for _ in range(2):
            assert (await wire.get()).status == 200
        s.edge.data_plane.block(blocks())
        for method in ("GET", "HEAD", "POST"):
            call = wire.call(method, "/", body=b"content" if method == "POST" else None)
            assert await call.reply() == 403
            if method != "HEAD":
                said = json.loads(call.body)
                assert "refused for now" in said["error"]["message"]
                assert dialect == "anthropic" or said["error"]["code"] == "blocked"
        s.edge.data_plane.block(blocks(seconds=-1.0))  # it is over, and nobody has said so yet
        assert (await wire.get()).status == 200
        s.edge.data_plane.block(None)
        assert (await wire.get()).status == 200
        assert s.edge.stats.blocked == {"network": 3} and s.edge.faults == {("edge", "blocked"): 3}
        assert [each["outcome"] for each in s.records].count("edge: blocked") == 3


async def test_others_pass(protocol: str) -> None:
    async with stand(protocol) as s:
        wire = await s.dial()
        others: list[tuple[Kind, str]] = [
            ("network", "10.0.0.0/8"), ("ip", "127.0.0.2"), ("key", "Ab3dEf9h"), ("ja4", "t13d1516h2"),
        ]  # fmt: skip
        for kind, value in others:
            s.edge.data_plane.block(blocks(kind, value))
            assert (await wire.get()).status == 200
        assert s.edge.stats.blocked == {}


async def test_the_client_behind_a_trusted_proxy(protocol: str) -> None:
    async with stand(protocol, trusted_proxies=["127.0.0.0/8"]) as s:
        wire = await s.dial()
        s.edge.data_plane.block(blocks("ip", "203.0.113.7"))
        for client, status in ((b"203.0.113.7", 403), (b"203.0.113.8", 200)):
            assert (await wire.get("/", [(b"x-forwarded-for", client)])).status == status
