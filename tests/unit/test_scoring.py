# The score of a head: what is kept of it, what is asked again, and that nothing of it breaks a request.
"""scoring.py, with botting.py in the pipeline."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.bots import CHROME, PAGE, prints_of
from support.edge import configuration
from support.pipeline import Stand

from edgeproxy import scoring
from edgeproxy.bots.catalogue import Bot
from edgeproxy.bots.identity import NOBODY, Verified
from edgeproxy.config.bots import BotBehaviour
from edgeproxy.message import Peer
from edgeproxy.policy.session import NAME
from edgeproxy.scoring import Scored
from edgeproxy.watching import Watch

BOT = Bot("Goodbot", "Good Inc.", "Search Engine Crawler")
GOOD = NOBODY._replace(bot=BOT, verified=True, claimed=BOT, how="dns")
FIELDS = b"".join(b"%b: %b\r\n" % field for field in PAGE)
CURL = b"User-Agent: curl/8.14.1\r\nAccept: */*\r\n"


class Clock:
    """Both clocks of scoring.py."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now - 1_000_000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(scoring, "time", made)
    return made


class Who:
    """An Identity that answers what it is told to, and remembers how often it was asked."""

    def __init__(self, *answers: Verified | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0

    def of(self, request: Any, client: str, now: float) -> Verified:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def examine(self, request: Any, client: str, now: float) -> tuple[Verified, None]:
        return self.of(request, client, now), None


def stand(identity: Who | None = None, *, trusted: bool = False, **bots: Any) -> Stand:
    section = {"enabled": True, "model": "off", "identity": {"dns": False, "known_agents": False}} | bots
    made = Stand(configuration(bots=section))
    settings = made.snapshot.bots
    assert settings is not None
    settings.stats, settings.watch, settings.identity = made.stats.bots, made.gateway.watch, cast("Any", identity)
    made.gateway.log = cast("Any", SimpleNamespace(lines=[], flush=lambda: None))

    def peer(*, secure: bool = True) -> Peer:
        found = Peer("192.0.2.1", trusted=trusted, secure=secure)
        found.prints = prints_of("chromium") if not trusted else None
        return found

    made.peer = peer  # type: ignore[method-assign, assignment]
    return made


def get(made: Stand, fields: bytes = FIELDS, path: bytes = b"/", times: int = 1) -> bytes:
    """All answers of one connection to the same head, so that its plan is used again."""
    driver = made.h1()
    for _ in range(times):
        driver.feed(b"GET %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (path, fields))
    return driver.link.written


def logged(made: Stand) -> list[dict[str, Any]]:
    return [json.loads(line) for line in made.gateway.log.lines]  # type: ignore[union-attr]


def cookies(written: bytes) -> list[bytes]:
    return re.findall(rb"set-cookie: (%b=[^;]+)" % NAME, written)


def plan_of(made: Stand) -> Scored:
    scored = made.pool.jobs[-1].exchange.plan.scored
    assert scored is not None
    return scored


def test_a_score_in_the_log_and_in_the_counters(clock: Clock) -> None:
    made = stand()
    get(made, CURL, times=3)
    get(made)
    lines = logged(made)
    assert [line["bot_score"] for line in lines] == [1, 1, 1, 0]
    assert lines[0]["bot_detections"] == [1003] and "bot_detections" not in lines[3]
    assert (lines[0]["bot_source"], lines[0]["bot_reasons"]) == ("Heuristics", ["declared_library"])
    assert lines[3]["bot_source"] == "Not Computed" and not {"bot_reasons", "verified_bot", "challenge_passed"} & lines[3].keys()
    assert lines[3]["ja4"] == prints_of("chromium").ja4
    assert made.stats.bots.scores[:2] == [1, 3] and made.stats.bots.detections == {"declared_library": 3}
    assert made.stats.bots.acts == {("log", "act"): 3} and made.stats.bots.failures == 0


def test_a_verified_bot_is_named_in_the_log(clock: Clock) -> None:
    made = stand(Who(GOOD))
    get(made, CURL)
    (line,) = logged(made)
    assert (line["verified_bot"], line["bot_source"], line["bot_score"]) == ("Goodbot", "Heuristics", 1)
    assert "verified_bot" not in logged_of(NOBODY._replace(claimed=BOT, failed=True)), "it only says so"


def logged_of(who: Verified) -> dict[str, Any]:
    made = stand(Who(who))
    get(made, CURL)
    (line,) = logged(made)
    return line


def test_a_challenge_that_was_passed_is_in_the_log(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "cleared", lambda *_: True)
    made = stand()
    cookie = b"Cookie: __Host-edge_clearance=x\r\n"
    get(made, CURL + cookie)
    get(made, FIELDS + cookie)
    get(made, FIELDS)
    assert [(line["bot_score"], line.get("challenge_passed")) for line in logged(made)] == [(1, True), (0, True), (0, None)]


def test_a_line_is_written_once_a_connection_and_kept(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    made, asked = stand(), list[tuple[Any, ...]]()

    def piece(*about: Any) -> bytes:
        asked.append(about)
        return b',"bot_score":1}\n'

    monkeypatch.setattr(scoring, "score_piece", piece)
    driver = made.h1()
    for path in (b"/a", b"/a", b"/b", b"/c", b"/a"):
        driver.feed(b"GET %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (path, CURL))
    assert len(asked) == 1 and [line["path"] for line in logged(made)] == ["/a", "/a", "/b", "/c", "/a"]


def test_one_score_on_two_connections_shows_the_fingerprint_of_each(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*_: Any) -> Any:
        raise RuntimeError

    made = stand()
    monkeypatch.setattr("edgeproxy.bots.score.detect", raises)  # so that all have the one score that nobody computed
    get(made)
    monkeypatch.setattr(made, "peer", lambda *, secure=True: other)
    other = Peer("192.0.2.1", trusted=False, secure=True)
    other.prints = prints_of("curl")
    get(made)
    assert [line["ja4"] for line in logged(made)] == [prints_of("chromium").ja4, prints_of("curl").ja4]


def test_who_is_not_known_yet_is_asked_about_again(clock: Clock) -> None:
    pending = NOBODY._replace(claimed=BOT, pending=True)
    who = Who(pending, pending, GOOD)
    made = stand(who)
    get(made, CURL, times=5)
    assert who.asked == 3, "an answer is kept, and no answer is not"
    score = plan_of(made).current()
    assert score.verified and score.value == 1, "beside the score, never inside it"
    assert made.stats.bots.acts == {("log", "act"): 2}, "verified bots pass"


def test_a_signed_head_is_asked_about_once_an_exchange(clock: Clock) -> None:
    who = Who(GOOD._replace(how="signature", signed=True), NOBODY._replace(refusal="replayed"))
    made = stand(who)
    get(made, CURL + b'Signature-Input: sig1=("@authority");tag="web-bot-auth"\r\n', times=3)
    assert who.asked == 3
    assert made.stats.bots.acts == {("log", "act"): 2}, "the second one is nobody's"


def test_other_networks_make_another_identity_which_is_asked_anew(clock: Clock) -> None:
    first, second = Who(NOBODY._replace(claimed=BOT, failed=True)), Who(GOOD)
    made = stand(first)
    driver = made.h1()
    driver.feed(b"GET / HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % CURL)
    scored, settings = plan_of(made), made.snapshot.bots
    assert settings is not None and scored.current().ids == [1003, 7001]
    settings.identity = cast("Any", second)
    clock.now += 1.5
    assert scored.current().verified and scored.current().ids == [1003] and (first.asked, second.asked) == (1, 1)
    signed = scored.again()
    signed.signed = True
    assert signed.current().verified
    settings.identity = cast("Any", first)
    clock.now += 1.5
    assert signed.current().verified, "its nonce is spent: it would be taken for a replay"


def test_a_slowed_plan_is_not_shared_by_signed_heads(clock: Clock) -> None:
    who = Who(NOBODY)
    made = stand(who, mode="act", slow={"score": 1, "upstream": "main"})
    get(made, CURL + b'Signature-Input: sig1=("@authority");tag="web-bot-auth"\r\n', times=2)
    assert made.stats.bots.acts == {("slow", "act"): 2}
    assert made.pool.jobs[0].exchange.plan is not made.pool.jobs[1].exchange.plan
    get(made, CURL, times=2)
    assert made.pool.jobs[0].exchange.plan is made.pool.jobs[1].exchange.plan


@pytest.mark.parametrize("broken", ["identity", "watch.moved", "watch.ended", "watch.signal", "watch.kept", "sessions", "scorer"])
def test_nothing_that_breaks_breaks_a_request(broken: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*_: Any, **__: Any) -> Any:
        raise RuntimeError(broken)

    made = stand(Who(RuntimeError("identity")) if broken == "identity" else None)
    settings = made.snapshot.bots
    assert settings is not None
    if broken == "sessions":
        monkeypatch.setattr(type(settings.sessions), "begin", raises)
    elif broken == "scorer":
        monkeypatch.setattr("edgeproxy.bots.score.detect", raises)
    elif broken.startswith("watch"):
        monkeypatch.setattr(type(settings.watch), broken.partition(".")[2], raises)
    written = get(made, FIELDS.replace(b"Chrome/", b"HeadlessChrome/"), times=2)
    if broken == "watch.signal":
        assert plan_of(made).signal() is None
    assert written.count(b"HTTP/1.1 200 OK") == 2 and len(made.pool.jobs) == 2
    assert made.stats.bots.failures >= 1
    assert len(logged(made)) == 2 and sum(made.stats.bots.scores) == 2


# -- sessions --------------------------------------------------------------------------------------------------------


def test_browsers_get_a_cookie_and_bring_it_back(clock: Clock) -> None:
    made = stand()
    (cookie,) = cookies(get(made))
    assert cookies(get(made, FIELDS + b"Cookie: a=b; %b\r\n" % cookie)) == [], "it is young"
    first = plan_of(made).marks().keys.session
    clock.now += 61
    (again,) = cookies(get(made, FIELDS + b"Cookie: %b\r\n" % cookie))
    assert again != cookie and plan_of(made).marks().keys.session == first, "written anew, and the same one"
    clock.now += 3600
    (new,) = cookies(get(made, FIELDS + b"Cookie: %b\r\n" % again))
    assert new and plan_of(made).marks().keys.session == b"", "too old"


@pytest.mark.parametrize(("fields", "path", "wanted"), [
    (FIELDS, b"/", True), (FIELDS, b"/app.js", False), (FIELDS, b"/a/b.PNG?x=1", False), (CURL, b"/", False),
    (FIELDS + b"Cookie: %b=forged\r\n" % NAME, b"/", True), (b"", b"/", False),
])  # fmt: skip
def test_who_gets_one(clock: Clock, fields: bytes, path: bytes, wanted: bool) -> None:
    assert len(cookies(get(stand(), fields, path))) == wanted


def test_nobody_gets_one_where_that_is_off(clock: Clock) -> None:
    assert cookies(get(stand(session_cookie=False))) == []


def test_each_client_of_a_shared_head_gets_its_own(clock: Clock) -> None:
    first, second = cookies(get(stand(), times=2))
    assert first != second


# -- behaviour -------------------------------------------------------------------------------------------------------


def test_what_a_client_did_moves_its_score(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stand()
    settings = made.snapshot.bots
    assert settings is not None
    settings.scorer.model = cast("Any", SimpleNamespace(
        predict=lambda vector: 0.5, manifest=SimpleNamespace(knots=((0.0, 2.0), (1.0, 98.0)))))  # fmt: skip
    get(made)
    scored = plan_of(made)
    assert (scored.current().value, scored.current().source) == (50, "Machine Learning")
    moved = [-2.0]
    monkeypatch.setattr(type(settings.watch), "moved", lambda *_: moved[0])
    assert scored.current().value == 50, "for a second what was looked up holds"
    clock.now += 1.5
    assert scored.current().value == 12 and scored.current().source == "Behavioral Analysis"
    moved[0], clock.now = 0.5, clock.now + 1.5
    assert scored.current().value == 62


def drawn() -> tuple[Stand, bytes]:
    """A stand whose model says what it is told to, and the fields of a browser with a session there."""
    made = stand()
    settings = made.snapshot.bots
    assert settings is not None
    made.gateway.watch.weigh(BotBehaviour(rate=0, many_agents=0))
    said = [0.9]
    knots = SimpleNamespace(knots=((0.0, 2.0), (1.0, 98.0)))
    settings.scorer.model = cast("Any", SimpleNamespace(predict=lambda vector: said[0], manifest=knots))
    made.says = said  # type: ignore[attr-defined]  # for the tests
    (cookie,) = cookies(get(made))
    return made, FIELDS + b"Cookie: %b\r\n" % cookie


def score_of_one(made: Stand, fields: bytes, chance: float, name: bytes) -> int:
    """Of a request that is like no other."""
    made.says[0] = chance  # type: ignore[attr-defined]  # see drawn
    get(made, fields + b"X-Name: %b\r\n" % name)
    value = logged(made)[-1]["bot_score"]
    assert isinstance(value, int)
    return value


def test_a_session_draws_the_score_of_one_request(clock: Clock) -> None:
    made, fields = drawn()
    before = [score_of_one(made, fields, 0.9, b"%d" % n) for n in range(12)]
    assert set(before) == {88}
    assert score_of_one(made, fields, 0.2, b"odd") == 30, "of 21, and not what the session is like"
    assert score_of_one(made, fields, 0.9, b"again") == 86, "a little less"
    other = fields.replace(b"Chrome/156", b"Chrome/155")
    assert score_of_one(made, other, 0.2, b"other") == 21, "the cookie is not worth anything to another program"


def test_what_a_session_was_like_travels_in_its_cookie(clock: Clock) -> None:
    made, fields = drawn()
    for n in range(12):
        score_of_one(made, fields, 0.9, b"%d" % n)
    clock.now += 61
    (cookie,) = cookies(get(made, fields))
    settings = made.snapshot.bots
    assert settings is not None and settings.sessions is not None
    session = settings.sessions.read([(b"cookie", cookie)], clock.now)
    assert session is not None and session.requests == 13 and session.odds == pytest.approx(1.992, abs=1e-3) and session.whose
    made.gateway.watch = settings.watch = Watch(made.gateway, made.gateway.deadlines)  # of another worker
    assert score_of_one(made, FIELDS + b"Cookie: %b\r\n" % cookie, 0.2, b"odd") == 30


def test_the_same_head_is_not_drawn_again_within_its_second(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    made, fields = drawn()
    calls: list[int] = []
    pull = Watch.pull
    monkeypatch.setattr(Watch, "pull", lambda *given: calls.append(1) or pull(*given))
    get(made, fields, times=50)
    assert len(calls) == 1
    clock.now += 1.5
    get(made, fields, times=50)
    assert len(calls) == 2


def test_a_session_that_cannot_be_drawn_breaks_nothing(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*_: Any) -> float:
        raise RuntimeError("pull")

    made, fields = drawn()
    monkeypatch.setattr(Watch, "pull", raises)
    assert score_of_one(made, fields, 0.2, b"odd") == 21
    assert made.stats.bots.failures == 1


def test_a_proxy_that_is_trusted_is_not_who_is_scored(clock: Clock) -> None:
    made = stand(trusted=True)
    get(made, b"User-Agent: %b\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n" % CHROME)
    (line,) = logged(made)
    assert line["bot_detections"] == [6001, 6004] and not line.get("ja4")
    assert plan_of(made).marks().keys.program == ""
