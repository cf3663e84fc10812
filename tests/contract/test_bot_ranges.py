# Published networks that change under open connections: what was known of a client follows, over every protocol.
from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeproxy import scoring

from .stand import Stand, stand
from .test_bots import bots
from .test_rules import hits, ruled

GPTBOT = [(b"user-agent", b"Mozilla/5.0; compatible; GPTBot/1.2; +https://openai.com/gptbot")]
RULES = ruled("""
- {id: verified, expression: 'cf.client.bot and cf.verified_bot_category ne ""', action: log}
- {id: impostor, expression: 'any(cf.bot_management.detection_ids[*] eq 7001)', action: log}
""")


def publish(folder: Path, name: str, *networks: str) -> None:
    beside = folder / "new"
    beside.write_text(json.dumps({"prefixes": [{"ipv4Prefix": network} for network in networks]}))
    beside.replace(folder / f"{name}.json")


async def looked(s: Stand) -> None:
    """What the timer does."""
    await s.edge.data_plane._following.look()


async def test_who_is_known_follows_the_files(protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "_HOLDS", 0.0)  # else what is known holds for a second, which the test would have to wait
    publish(tmp_path, "gptbot", "192.0.2.0/24")
    section = bots(log=0, identity={"dns": False, "known_agents": False, "ranges": str(tmp_path)})
    async with stand(protocol, bots=section, rules=RULES) as s:
        wire = await s.dial()

        async def found() -> dict[str, int]:
            """The rules that the same head hits, on the same connection, so that its plan is used again."""
            before = hits(s)
            assert (await wire.get("/", GPTBOT)).status == 200
            return {rule: count - before.get(rule, 0) for rule, count in hits(s).items() if count > before.get(rule, 0)}

        assert await found() == await found() == {"impostor": 1}
        publish(tmp_path, "gptbot", "127.0.0.0/16")
        assert await found() == {"impostor": 1}, "nobody has looked"
        await looked(s)
        assert await found() == await found() == {"verified": 1}
        (tmp_path / "gptbot.json").write_text("{broken")
        await looked(s)
        assert await found() == {"verified": 1}
        assert s.edge.stats.bots.ranges_broken == 1 and s.edge.stats.bots.range_reads == {"found": 2, "failed": 1}
        s.reload(bots=section, rules=RULES)
        assert await found() == {"verified": 1}, "a reload does not forget the last good file"
        publish(tmp_path, "gptbot", "192.0.2.0/24")
        await looked(s)
        assert await found() == {"impostor": 1}
        (tmp_path / "gptbot.json").unlink()
        await looked(s)
        assert await found() == {}, "without its file nothing is known"
        assert s.edge.stats.bots.failures == 0
