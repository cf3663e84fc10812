# The bench of limits in Redis measures something: each shape of exchange runs on a real server and is decided by it.
from __future__ import annotations

import pytest
from support import redis_server

from bench import limits_redis


@pytest.mark.skipif(redis_server.MISSING is not None, reason=str(redis_server.MISSING))
@pytest.mark.parametrize("shape", limits_redis.SHAPES)
async def test_each_shape(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_redis, "WARM", 0.05)
    monkeypatch.setattr(limits_redis, "DEADLINE", 10.0)
    with limits_redis.servers("redis", None) as url:
        figure = await limits_redis.measure(url, "redis", shape, 4, 0.2, None)
    assert figure.cost > 0.1 and figure.rate > 10 and figure.median > 0 and figure.away == 0
    assert 1 <= figure.batch <= 5 or "settled" in shape
