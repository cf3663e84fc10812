# Clearances and sessions on paper: what can be told of them, what cannot, and what the edge itself makes of the same request.
"""explaining/carried.py, scored.py and ruled.py."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from support.bots import PAGE
from support.explaining import asked, config_with, rule

from edgeproxy.config.challenge import Challenge
from edgeproxy.config.model import Config
from edgeproxy.config.secret import Secret
from edgeproxy.explaining import carried
from edgeproxy.explaining.answer import Explanation, Stage
from edgeproxy.policy import challenge, seals
from edgeproxy.policy.challenge import SOLVED, WAITED, Challenger, holder
from edgeproxy.policy.session import Sessions

ASK = {"id": "ask", "expression": "ssl", "action": "managed_challenge"}
JS = {"id": "js", "expression": "ssl", "action": "js_challenge"}
LATER = {"id": "later", "expression": "ssl", "action": "block"}
JA4 = "t13d1516h2_8daaf6152771_d8a2da3f94cd"
OTHER = "t13d1715h2_5b57614c22b0_5c2c66f702b0"
QUIC = "q13d0310h3_55b375c5d22e_cd85d2d88918"
HOST, CLIENT = "example.org", "192.0.2.1"
WORN = [(name.decode(), value.decode()) for name, value in PAGE]


def with_secret(config: Config, secret: bytes = b"s" * 32) -> Config:
    section = Challenge().model_copy(update={"secrets": (Secret(secret),)})
    return config.model_copy(update={"challenge": section})


def cookie(config: Config, *, level: int = SOLVED, address: str = CLIENT, ja4: str = JA4, host: str = HOST, ago: int = 0) -> Any:
    value = Challenger(config.challenge).clear(level, holder(address, ja4, host), ja4, time.time() - ago)
    return "Cookie", "a=b; " + value.partition(b";")[0].decode()


def bots(**changes: Any) -> dict[str, Any]:
    return {"enabled": True, "identity": {"dns": False, "known_agents": False}, **changes}


def stage(found: Explanation) -> Stage:
    return next(each for each in found.stages if each.name == "bots")


def row(found: Explanation, name: str) -> str:
    return next((each.value for each in stage(found).details if each.name == name), "")


CONFIG = with_secret(config_with(ASK, LATER))


def test_a_clearance_that_holds_lets_a_rule_pass_and_later_ones_are_asked() -> None:
    found = asked(CONFIG, headers=[cookie(CONFIG)], ja4=JA4)
    assert (rule(found, "ask").state, found.outcome.rule, found.outcome.hits) == ("passed", "later", ["later"])
    assert "its clearance holds" in rule(found, "ask").says


@pytest.mark.parametrize(("about", "ja4", "said"), [
    ({"ago": 4000}, JA4, "has ended"), ({"host": "other.example"}, JA4, "is for another host"),
    ({"address": "192.0.2.9"}, JA4, "is another address's"), ({}, OTHER, "if it was not made for another fingerprint than --ja4"),
    ({}, "", "if the client has the fingerprint that it was made for"), ({"ago": 4000}, "", "has ended"),
])  # fmt: skip
def test_why_one_does_not_or_may_not(about: dict[str, Any], ja4: str, said: str) -> None:
    found = asked(CONFIG, headers=[cookie(CONFIG, **about)], ja4=ja4)
    assert found.outcome.rule == "ask" and "; the one that it carries " in found.outcome.says
    assert said in found.outcome.says


def test_what_another_edge_has_made_or_nobody() -> None:
    other = with_secret(CONFIG, b"t" * 32)
    for line in (cookie(other), ("Cookie", "__Host-edge_clearance=rubbish")):
        assert "is none that this edge has made" in asked(CONFIG, headers=[line], ja4=JA4).outcome.says
    assert "the one that it carries" not in asked(CONFIG, headers=[("Cookie", "a=__Host-edge_clearance")]).outcome.says


def test_without_a_secret_of_its_own_it_cannot_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_with(ASK)
    line = cookie(config)
    assert rule(asked(config, headers=[line], ja4=JA4), "ask").state == "passed", "in the same process it can"
    monkeypatch.setattr(seals, "OF_THIS_START", b"another start's")
    assert "cannot be checked here: without challenge.secret_file" in asked(config, headers=[line], ja4=JA4).outcome.says


def test_who_waited_does_not_pass_what_needs_a_script() -> None:
    config = with_secret(config_with(ASK, JS))
    found = asked(config, headers=[cookie(config, level=WAITED)], ja4=JA4)
    assert (rule(found, "ask").state, found.outcome.rule) == ("passed", "js")
    assert "has waited, and solved nothing" in found.outcome.says


def test_over_quic_there_is_another_cookie() -> None:
    for ja4, state in ((QUIC, "passed"), (JA4, "acts")):
        found = asked(CONFIG, headers=[cookie(CONFIG, ja4=ja4)], ja4=QUIC, http="3")
        assert rule(found, "ask").state == state
    assert "the fingerprint that it was made for" in asked(CONFIG, headers=[cookie(CONFIG, ja4=QUIC)], http="3").outcome.says


def test_behind_a_trusted_proxy_no_fingerprint_is_compared() -> None:
    config = with_secret(config_with(ASK, trusted_proxies=["10.0.0.0/8"]))
    for ja4, state in (("", "passed"), (JA4, "acts")):
        headers = [cookie(config, ja4=ja4), ("X-Forwarded-For", CLIENT)]
        found = asked(config, headers=headers, client="10.0.0.1")
        assert rule(found, "ask").state == state
    assert "its fingerprint is not this one" in found.outcome.says


def test_a_preflight_is_not_challenged() -> None:
    headers = [("Origin", "https://a.example"), ("Access-Control-Request-Method", "PUT")]
    found = asked(CONFIG, headers=headers, method="OPTIONS")
    assert (rule(found, "ask").state, found.outcome.rule) == ("passed", "later") and "a preflight" in rule(found, "ask").says
    for section, says in ((bots(model="off", mode="act", challenge=1), "preflights are spared"),
                          (bots(model="off", mode="act", block=1), "403: score 1")):  # fmt: skip
        config = config_with(bots=section)
        shown = stage(asked(config, headers=[*headers, ("User-Agent", "curl/8")], method="OPTIONS"))
        assert says in shown.says


# -- scores ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Config:
    """Everybody whom no heuristic catches has a score of 50."""
    knots = ((0.0, 2.0), (1.0, 98.0))
    model = SimpleNamespace(predict=lambda vector: 0.5, manifest=SimpleNamespace(knots=knots))
    monkeypatch.setattr("edgeproxy.scoring.load_once", lambda *_: model)
    return with_secret(config_with(bots=bots(mode="act", challenge=60, block=9)))


def test_a_clearance_raises_the_score_as_it_does_at_the_edge(scored: Config) -> None:
    bare, worn = asked(scored, headers=WORN), asked(scored, headers=[*WORN, cookie(scored)], ja4=JA4)
    assert stage(bare).says.startswith("score 50 (Machine Learning): a challenge has to be passed")
    assert stage(worn).says == "score 82 (JS Fingerprinting): nothing is done" and row(worn, "clearance") == "holds"
    unknown = asked(scored, headers=[*WORN, cookie(scored)])
    assert row(unknown, "clearance").endswith("; it could raise the score to 82") and stage(unknown).effect == "waits"


def test_who_waited_passes_the_challenge_and_keeps_the_score(scored: Config) -> None:
    found = asked(scored, headers=[*WORN, cookie(scored, level=WAITED)], ja4=JA4)
    assert stage(found).says == "score 50 (Machine Learning): challenge, and its clearance holds"
    assert stage(found).effect == "passes"


def test_what_behaviour_could_come_to(scored: Config) -> None:
    bare = asked(scored, headers=WORN)
    assert row(bare, "behaviour") == "not known: it could bring the score down to 5 (block), or up to 60 (challenge)"
    sessions = Sessions([b"s" * 32])
    now = time.time()
    line = sessions.write(sessions.begin(now - 90)._replace(requests=7), now).partition(b";")[0].decode()
    known = asked(scored, headers=[*WORN, ("Cookie", line)])
    assert row(known, "session").startswith("7 requests or so, since 9")
    assert row(known, "behaviour") == "not known: it could bring the score down to 2 (block), or up to 75 (nothing)"
    old = asked(scored, headers=[*WORN, ("Cookie", "__Host-edge_session=rubbish")])
    assert "known by its address" in row(old, "session")
    assert row(old, "behaviour") == row(bare, "behaviour"), "it is nobody's session"


def test_what_would_be_done_is_what_the_edge_would_do(scored: Config) -> None:
    waited = asked(scored, headers=[*WORN, cookie(scored, level=WAITED)], ja4=JA4)
    assert row(waited, "behaviour").endswith("5 (block), or up to 60 (nothing)"), "the clearance holds for any score"
    headers = [*WORN, ("Origin", "https://a.example"), ("Access-Control-Request-Method", "PUT")]
    first = asked(scored, headers=headers, method="OPTIONS")
    assert row(first, "behaviour").endswith("5 (nothing), or up to 60 (nothing)"), "preflights are spared"


def test_nothing_moves_what_is_certain_or_where_that_is_off(scored: Config) -> None:
    assert row(asked(scored, headers=[("User-Agent", "curl/8")]), "behaviour") == ""
    off = scored.model_copy(update={"bots": scored.bots.model_copy(update={
        "behaviour": scored.bots.behaviour.model_copy(update={"enabled": False})})})  # fmt: skip
    assert row(asked(off, headers=WORN), "behaviour") == ""


def test_who_comes_through_a_corporate_proxy() -> None:
    config = config_with(bots=bots(model="off", corporate_proxies=["192.0.2.0/24"]))
    assert "bots.corporate_proxies" in row(asked(config, headers=WORN, ja4=JA4), "corporate proxy")
    assert row(asked(config, headers=WORN, client="198.51.100.1"), "corporate proxy") == ""


def test_the_reasons_are_those_that_clearances_are_refused_with() -> None:
    kinds = {challenge.UNREADABLE, challenge.EXPIRED, challenge.OTHER_HOST, challenge.OTHER_ADDRESS, challenge.OTHER_CLIENT}
    assert carried._REASONS.keys() == kinds
