# From a section of the configuration to somebody who is verified, and over a reload.
"""lookups/identifying.py and config/identity.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.signing import NOW, Signer, request

from edgeproxy.bots.catalogue import shipped
from edgeproxy.bots.keys import read_directory
from edgeproxy.config.identity import BotIdentity, identity_problems
from edgeproxy.lookups.identifying import Identifying, known

SIGNER = Signer()
GOOGLEBOT = (b"user-agent", b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)")


def section(**fields: Any) -> BotIdentity:
    return BotIdentity.model_validate(fields)


def held(identifying: Identifying) -> None:
    keys = read_directory(SIGNER.directory())
    assert isinstance(keys, dict) and identifying.lookups is not None
    identifying.lookups.keyring.put("https://agent.example", keys, 3600, NOW)


async def test_by_default_the_agents_and_host_names_of_the_catalogue() -> None:
    found = known(section())
    assert set(found.agents) == set(shipped().agents) and found.dns and found.once
    identifying = Identifying(lambda: NOW)
    identity = identifying.identity(found)
    assert identifying.lookups is not None and "https://chatgpt.com" in identifying.lookups.keyring
    await identifying.close()
    assert identity.of(request([GOOGLEBOT]), "", NOW).claimed is not None


async def test_files_of_networks(tmp_path: Path) -> None:
    (tmp_path / "googlebot.json").write_text('{"prefixes":[{"ipv4Prefix":"192.0.2.0/24"}]}')
    found = known(section(ranges=str(tmp_path), dns=False, known_agents=False))
    assert "gptbot" in found.published.missing and found.agents == {}
    identifying = Identifying()
    identity = identifying.identity(found)
    assert identifying.lookups is None, "nobody is asked for anything"
    assert identity.of(request([GOOGLEBOT]), "192.0.2.1", NOW).how == "range"
    outside = identity.of(request([GOOGLEBOT]), "198.51.100.1", NOW)
    assert not outside.verified and not outside.pending and not outside.failed, "its host name was never asked for"
    await identifying.close()


async def test_a_reload_keeps_what_is_known() -> None:
    identifying = Identifying(lambda: NOW)
    first = identifying.identity(known(section(agents=["https://Agent.example/"], dns=False)))
    held(identifying)
    fields = SIGNER.usual(more=';nonce="n"')
    assert first.of(request(fields), "", NOW).verified
    second = identifying.identity(known(section(agents=["https://agent.example"], dns=False)))
    assert second.of(request(fields), "", NOW).refusal == "replayed"
    assert second.of(request(SIGNER.usual()), "", NOW).verified
    third = identifying.identity(known(section(agents=["https://agent.example"], dns=False, nonces="reuse")))
    assert third.of(request(fields), "", NOW).verified
    gone = identifying.identity(known(section(dns=False)))
    assert gone.of(request(SIGNER.usual()), "", NOW).refusal == "agent not allowed"
    assert first.of(request(SIGNER.usual()), "", NOW).refusal == "agent not allowed", "no snapshot outlives its agents"
    await identifying.close()


@pytest.mark.parametrize(
    "agents", [["http://a.example"], ["https://127.0.0.1"], ["https://a.example/x"], [5], ["https://a.example"] * 257]
)
def test_agents_that_are_none(agents: list[object]) -> None:
    with pytest.raises(ValidationError):
        section(agents=agents)


def test_problems(tmp_path: Path) -> None:
    assert list(identity_problems(section())) == [] == list(identity_problems(section(ranges=str(tmp_path))))
    assert [field for field, _, _ in identity_problems(section(ranges=str(tmp_path / "absent")))] == ["ranges"]


async def test_a_machine_where_nothing_can_be_asked(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: Any) -> Any:
        raise OSError("no servers")

    monkeypatch.setattr("edgeproxy.lookups.dns.Resolver", broken)
    identifying = Identifying(lambda: NOW)
    identity = identifying.identity(known(section()))
    found = identity.of(request([GOOGLEBOT]), "192.0.2.1", NOW)
    assert found.claimed is not None and not found.verified and not found.failed
    assert identifying.lookups is not None and identifying.lookups.counts["name", "refused"] == 1 and "no servers" in caplog.text
    await identifying.close()
