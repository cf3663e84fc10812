# 'edgeproxy bots': what it prints, and which files it writes.
"""bots_cli.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.bots.catalogue import shipped
from edgeproxy.lookups import https
from edgeproxy.lookups.answers import NotFetched
from edgeproxy.lookups.https import Fetched, Fetcher

GOOD = b'{"prefixes":[{"ipv4Prefix":"192.0.2.0/24"}]}'


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["bots", *arguments])
    return result.exit_code, result.output


def test_list() -> None:
    code, output = run("list")
    lines = output.splitlines()
    assert code == 0 and len(lines) == len(shipped().bots) and all(line.count("\t") == 3 for line in lines)
    assert "Googlebot\tGoogle\tSearch Engine Crawler\tnetworks googlebot; host *.googlebot.com" in lines
    claude = "ClaudeBot\tAnthropic\tAI Crawler\tnot verifiable\n"
    assert run("list", "-A", "Mozilla/5.0 (compatible; ClaudeBot/1.0)") == (0, claude)
    assert run("list", "-A", "curl/8") == (1, "it names no known bot\n")


def test_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def get(_self: Fetcher, url: str, limit: int, accept: str = "") -> Fetched:
        asked.append(url)
        https.check(url)
        assert limit > 0 and not accept
        if "bing" in url:
            raise NotFetched("answered 500")
        return Fetched({}, GOOD)

    monkeypatch.setattr(Fetcher, "get", get)
    folder = tmp_path / "new" / "ranges"
    code, output = run("fetch", str(folder))
    assert code == 1 and "googlebot: 1 networks" in output
    assert "bingbot: https://www.bing.com/toolbox/bingbot.json answered 500" in output
    assert sorted(asked) == sorted(shipped().sources.values())
    assert {path.stem for path in folder.iterdir()} == set(shipped().sources) - {"bingbot"}
    assert (folder / "googlebot.json").read_bytes() == GOOD
    assert run("fetch", str(folder), "--only", "gptbot") == (0, "gptbot: 1 networks\n")
    assert run("fetch", str(folder), "--only", "nobody")[0] == 2
    (tmp_path / "file").write_text("")
    assert run("fetch", str(tmp_path / "file"))[0] == 1


def test_help() -> None:
    for command in ("fetch", "list"):
        code, output = run(command, "--help")
        assert code == 0 and f"edgeproxy bots {command}" in output
