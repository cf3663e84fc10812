# Who is scored, and for how long what was found out of a client holds for it and for nobody else.
"""scoring.py, botting.py and ruling.py in the pipeline: clearances, signatures, bots not known yet, sessions, preflights."""

from __future__ import annotations

import re
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.edge import configuration
from support.pipeline import Stand

from edgeproxy.bots.catalogue import Bot
from edgeproxy.bots.identity import NOBODY, Verified
from edgeproxy.bots.score import Scorer
from edgeproxy.message import Headers, Peer, Reply, Request
from edgeproxy.policy.challenge import SOLVED, WAITED, holder
from edgeproxy.policy.session import NAME
from edgeproxy.rules.model import RuleBook, RuleFiles, RuleModel
from edgeproxy.watching import Marks

CHROME = b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36\r\n"
FIELDS = CHROME + b"Accept: */*\r\nAccept-Encoding: gzip\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-origin\r\n"
BOT = Bot("Goodbot", "Good Inc.", "Search Engine Crawler")
GOOD = NOBODY._replace(bot=BOT, verified=True, claimed=BOT, how="signature", signed=True)


class Who:
    """An Identity that answers what it is told to, the last answer for ever."""

    def __init__(self, *answers: Verified) -> None:
        self.answers = list(answers)

    def of(self, *_: Any) -> Verified:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def examine(self, *_: Any) -> tuple[Verified, None]:
        return self.of(), None


def stand(*rules: dict[str, Any], identity: Who | None = None, chance: float = 0.5, **bots: Any) -> Stand:
    section = {"enabled": True, "model": "off", "identity": {"dns": False, "known_agents": False}} | bots
    config = configuration(bots=section)
    if rules:
        book = RuleBook(rules=tuple(RuleModel.model_validate(rule) for rule in rules))
        config = config.model_copy(update={"rules": RuleFiles(book=book)})
    made = Stand(config)
    settings = made.snapshot.bots
    assert settings is not None
    settings.stats, settings.watch, settings.identity = made.stats.bots, made.gateway.watch, cast("Any", identity)
    manifest = SimpleNamespace(knots=((0.0, 2.0), (1.0, 98.0)))
    settings.scorer.model = cast("Any", SimpleNamespace(predict=lambda _: chance, manifest=manifest))
    return made


def get(made: Stand, fields: bytes = FIELDS, times: int = 1, method: bytes = b"GET") -> list[bytes]:
    """Status codes."""
    driver = made.h1()
    for _ in range(times):
        driver.feed(b"%b / HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (method, fields))
    return re.findall(rb"HTTP/1.1 (\d+)", driver.link.written)


# -- clearances ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cookie", [b"x=edge_clearance", b"__Host-edge_clearance_h3=x", b"__Host-edge_clearance=forged"])
def test_a_cookie_that_is_no_clearance_passes_nothing(cookie: bytes) -> None:
    made = stand(mode="act", challenge=98)
    assert get(made, FIELDS + b"Cookie: %b\r\n" % cookie) == [b"401"]
    assert made.stats.bots.acts == {("challenge", "act"): 1}


@pytest.mark.parametrize(("level", "value"), [(SOLVED, 82), (WAITED, 50)])
def test_who_waited_has_shown_nothing_of_a_browser(level: int, value: int) -> None:
    made = stand(mode="act", challenge=98)
    whom = holder("192.0.2.1", "", "localhost")
    cookie = made.snapshot.challenger.clear(level, whom, "", time.time()).partition(b";")[0]
    assert get(made, FIELDS + b"Cookie: %b\r\n" % cookie) == [b"200"], "but it may pass"
    assert made.stats.bots.scores[value] == 1


# -- identity --------------------------------------------------------------------------------------------------------


def test_who_may_yet_be_a_known_bot_does_not_score_1() -> None:
    pending = NOBODY._replace(claimed=BOT, pending=True)
    peer = Peer("192.0.2.1", trusted=False, secure=True)
    request = Request(b"GET", b"example.org", b"/", [(b"user-agent", b"Goodbot/1.0")], 0, 0, peer)
    scorer = Scorer(None, lambda error: None)
    assert scorer.score(request, 0.0, pending).value == 2
    assert scorer.score(request, 0.0, NOBODY._replace(claimed=BOT)).value == 1
    made = stand(identity=Who(pending, GOOD), mode="act", block=1)
    assert get(made, b"User-Agent: Goodbot/1.0\r\n", times=2) == [b"200", b"200"]


SIGNED = FIELDS + b'Signature-Input: sig1=("@authority");tag="web-bot-auth"\r\n'
SCORE = "cf.bot_management.score gt 0"


@pytest.mark.parametrize("phase", ["request", "response"])
def test_a_signature_is_not_believed_again_where_rules_hit(phase: str) -> None:
    """One that was used up: the plan of the first exchange with the same hits is not the second one's."""
    rule = {"id": "told", "expression": SCORE, "action": "log"}
    if phase == "response":
        rule |= {"phase": "response", "expression": "http.response.code eq 200"}
    made = stand(rule, identity=Who(GOOD, NOBODY._replace(refusal="replayed")), mode="act", block=97)
    assert get(made, SIGNED, times=3) == [b"200", b"403", b"403"]


# -- sessions --------------------------------------------------------------------------------------------------------


def cookies_of(reply: Headers, fields: bytes = FIELDS) -> bool:
    """Whether the reply of an upstream gets a session."""
    made = stand()
    made.pool.answers = False
    driver = made.h1().feed(b"GET / HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % fields)
    exchange = made.pool.jobs[0].exchange
    made.gateway.reply(exchange, Reply(200, reply, 0), b"", True)
    return NAME in driver.link.written


@pytest.mark.parametrize(("said", "given"), [
    (None, True), (b"private, max-age=60", True), (b"no-store", True), (b"no-cache", True), (b"public", False),
    (b"max-age=60", False), (b"S-MaxAge=60", False),
])  # fmt: skip
def test_what_caches_share_has_no_session_of_one(said: bytes | None, given: bool) -> None:
    assert cookies_of([(b"cache-control", said)] if said is not None else []) is given


def test_other_sites_pages_get_none() -> None:
    """SameSite=Lax: it would not come back, and that would speak against who asks."""
    assert not cookies_of([], FIELDS.replace(b"same-origin", b"cross-site"))
    assert cookies_of([], FIELDS.replace(b"same-origin", b"cross-site").replace(b": cors", b": navigate"))


# -- addresses and preflights ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other", "same"), [
    ("2001:db8::1", "2001:db8::ffff:1:2:3", True), ("2001:db8::1", "2001:db8:0:1::1", False), ("192.0.2.1", "192.0.2.2", False),
    ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False), ("", "", True),
])  # fmt: skip
def test_an_ipv6_client_is_its_network(one: str, other: str, same: bool) -> None:
    peer = Peer("192.0.2.1", trusted=True, secure=True)
    request = Request(b"GET", b"example.org", b"/", [], 0, 0, peer)
    marks = [Marks(request, address, b"") for address in (one, other)]
    assert (marks[0].keys == marks[1].keys) is same


@pytest.mark.parametrize("act", ["block", "challenge"])
def test_preflights_are_not_stopped(act: str) -> None:
    made = stand(mode="act", log=0, **{act: 98})
    fields = FIELDS + b"Origin: https://www.example\r\n"
    preflight = fields + b"Access-Control-Request-Method: POST\r\n"
    assert get(made, preflight, method=b"OPTIONS") == [b"200"]
    assert get(made, fields, method=b"OPTIONS")[0] in (b"401", b"403"), "only a preflight is one"
    curl = preflight.replace(b"Mozilla/5.0", b"curl/8.0")
    certain = get(stand(mode="act", **{act: 98}), curl, method=b"OPTIONS")
    assert certain == ([b"403"] if act == "block" else [b"200"]), "what is certain is refused; no browser could pass a challenge"


def test_being_challenged_is_nothing_that_a_client_did() -> None:
    made = stand(mode="act", challenge=98)
    assert get(made, times=12) == [b"401"] * 12
    watch = made.gateway.watch
    marks = Marks(Request(b"GET", b"example.org", b"/", [], 0, 0, made.peer()), "192.0.2.1", b"")
    (track,) = watch._behaviour.tracks(marks.keys, 0.0)
    assert track.requests == 12 and track.errors == 0
