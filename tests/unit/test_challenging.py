# Challenges in the pipeline, without sockets: who is asked, who passes, what is told, and that nothing of it breaks a request.
from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlencode

import pytest
from support.edge import configuration
from support.pipeline import Stand
from support.puzzles import solution

from edgeproxy import challenging
from edgeproxy.config.challenge import Challenge
from edgeproxy.message import Peer
from edgeproxy.observe.events import Events
from edgeproxy.policy.challenge import PARTS
from edgeproxy.policy.challenge_page import FIELDS, SCRIPT, language, local, page
from edgeproxy.rules.model import RuleBook, RuleFiles, RuleModel

ASK = {"id": "ask", "expression": 'starts_with(http.request.uri.path, "/ask")', "action": "managed_challenge"}
JS = {"id": "js", "expression": 'starts_with(http.request.uri.path, "/js")', "action": "js_challenge"}
HTML = b"Accept: text/html\r\n"
JA4 = "t13d1517h2_8daaf6152771_cb7bf5808d99"


class Printed(Peer):
    """A client whose fingerprints are known."""

    __slots__ = ("prints",)


def stand(*rules: dict[str, Any], ja4: str = "", trusted: bool = False, **changes: Any) -> Stand:
    settings = {"unscored_bits": 8, "no_script": {"wait": "30s"}} | changes.pop("challenge", {})
    config = configuration(**{"routes": [{"path": "/", "upstream": "main"}, {"path": "/ask/v1/", "upstream": "main",
                                                                             "dialect": "openai"}], **changes})  # fmt: skip
    book = RuleBook(rules=tuple(RuleModel.model_validate(rule) for rule in rules or (ASK, JS)))
    made = Stand(config.model_copy(update={"rules": RuleFiles(book=book), "challenge": Challenge.model_validate(settings)}))
    made.gateway.log = cast("Any", SimpleNamespace(lines=[], flush=lambda: None))

    def peer(*, secure: bool = True) -> Peer:
        found = Printed("192.0.2.1", trusted=trusted, secure=secure)
        found.prints = SimpleNamespace(ja4n=ja4)  # type: ignore[attr-defined]
        return found

    made.peer = peer  # type: ignore[method-assign, assignment]
    return made


def get(made: Stand, path: bytes, fields: bytes = b"", method: bytes = b"GET") -> bytes:
    return made.h1().feed(b"%b %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (method, path, fields)).link.written


def post(made: Stand, form: dict[str, str], path: bytes = b"/.edge/challenge") -> bytes:
    content = urlencode(form).encode()
    head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (path, len(content))
    return made.h1().feed(head + content).link.written


def status(written: bytes) -> int:
    return int(written.split(b" ", 2)[1])


def challenge_in(written: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(written.partition(b"\r\n\r\n")[2])["edge_challenge"]
    return found


def solved(challenge: dict[str, Any]) -> dict[str, str]:
    return {"token": challenge["token"], "solution": solution(challenge)}


def cookie_in(written: bytes) -> bytes:
    found = re.search(rb"\r\nset-cookie: ([^;]*);", written)
    assert found is not None, written
    return b"Cookie: x=y; %b\r\n" % found[1]


def cleared(made: Stand, path: bytes = b"/ask") -> bytes:
    return cookie_in(post(made, solved(challenge_in(get(made, path)))))


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(challenging, "time", SimpleNamespace(time=lambda: time.time() + seconds))


def test_scripts_are_told_in_json_and_people_get_a_page() -> None:
    made = stand()
    written = get(made, b"/ask")
    assert status(written) == 401
    assert b"\r\nedge-mitigated: challenge\r\n" in written and b"\r\ncache-control: no-store\r\n" in written
    assert b'\r\nwww-authenticate: Edge-Challenge path="/.edge/challenge"\r\n' in written
    assert challenge_in(written)["count"] == PARTS
    written = get(made, b"/ask", HTML)
    assert status(written) == 403 and b"\r\nedge-mitigated: challenge\r\n" in written
    assert b"\r\ncontent-security-policy: default-src 'none'; " in written
    assert status(get(made, b"/ask", HTML + b"Sec-Fetch-Mode: cors\r\n")) == 401
    written = get(made, b"/ask/v1/chat", HTML)
    assert status(written) == 401
    assert json.loads(written.partition(b"\r\n\r\n")[2])["error"]["code"] == "rule_challenge"
    assert made.pool.jobs == [] and made.stats.challenges == {("json", ""): 3, ("page", ""): 1}
    lines = [json.loads(line) for line in made.gateway.log.lines]  # type: ignore[union-attr]
    assert {(line["outcome"], tuple(line["rules"])) for line in lines} == {("edge: rule_challenge", ("ask",))}


def test_a_head_request_has_no_content() -> None:
    assert get(stand(), b"/ask", HTML, b"HEAD").endswith(b"\r\n\r\n")


def test_who_passes_is_not_asked_again_and_later_rules_go_on() -> None:
    block = {"id": "later", "expression": 'http.request.uri.path eq "/ask/blocked"', "action": "block"}
    made = stand(ASK, JS, block)
    cookie = cleared(made)
    assert status(get(made, b"/ask", cookie)) == 200
    assert status(get(made, b"/js", cookie)) == 200
    assert b"blocked by a rule" in get(made, b"/ask/blocked", cookie)
    assert made.stats.rule_hits == {("ask", "managed_challenge"): 1, ("later", "block"): 1}


@pytest.mark.parametrize("action", ["challenge", "js_challenge", "managed_challenge"])
def test_preflights_are_not_challenged_and_what_follows_is(action: str) -> None:
    """A browser could not pass it: it sends no cookie with one, and shows nobody the answer."""
    block = {"id": "later", "expression": 'http.request.uri.path eq "/ask/blocked"', "action": "block"}
    made = stand({**ASK, "action": action}, block)
    origin = b"Origin: https://other.example\r\n"
    preflight = origin + b"Access-Control-Request-Method: POST\r\n"
    assert status(get(made, b"/ask", preflight, b"OPTIONS")) == 200
    assert b"blocked by a rule" in get(made, b"/ask/blocked", preflight, b"OPTIONS"), "later rules are asked"
    assert made.stats.challenges == {} and made.stats.rule_hits == {("later", "block"): 1}
    for method, fields in ((b"OPTIONS", origin), (b"OPTIONS", b""), (b"GET", preflight), (b"DELETE", preflight)):
        assert status(get(made, b"/ask", fields, method)) == 401, "only a preflight is one"
    for more in (b"Cookie: a=b\r\n", b"Authorization: Bearer x\r\n", b"Content-Length: 2\r\n", b"Transfer-Encoding: chunked\r\n"):
        assert status(get(made, b"/ask", preflight + more, b"OPTIONS")) == 401, "browsers send none of these with one"


def test_the_same_connection_is_asked_again_when_its_clearance_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """What equal heads come to is kept with the connection: not this."""
    made = stand()
    head = b"GET /ask HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % cleared(made)
    driver = made.h1()
    for _ in range(3):
        driver.feed(head)
    assert driver.link.written.count(b"HTTP/1.1 200 ") == 3
    later(monkeypatch, 1801)
    driver.feed(head)
    assert driver.link.written.count(b"HTTP/1.1 401 ") == 1
    assert made.stats.challenges["refused", "expired"] == 1


def test_a_clearance_is_bound_to_the_fingerprint() -> None:
    browser, curl = stand(ja4=JA4), stand(ja4="t13d3112h2_e8f1e7e78f70_b26ce05bbdd6")
    cookie = cleared(browser)
    assert status(get(browser, b"/ask", cookie)) == 200
    assert status(get(curl, b"/ask", cookie)) == 401
    assert curl.stats.challenges["refused", "other_client"] == 1
    given = challenge_in(get(browser, b"/ask"))
    written = post(curl, solved(given))
    assert status(written) == 403
    again = challenge_in(written)
    assert again["token"] != given["token"], "another one comes with the refusal: connections change"
    assert status(post(curl, solved(again))) == 200


def test_the_fingerprint_of_a_trusted_proxy_is_nobodys() -> None:
    one, other = stand(ja4=JA4, trusted=True), stand(ja4="t13d3112h2_e8f1e7e78f70_b26ce05bbdd6", trusted=True)
    assert status(get(other, b"/ask", cleared(one))) == 200


def test_a_solution_is_good_once() -> None:
    made = stand()
    form = solved(challenge_in(get(made, b"/ask")))
    assert status(post(made, form)) == 200
    written = post(made, form)
    assert status(written) == 403 and b"set-cookie" not in written
    assert made.stats.challenges["refused", "replayed"] == 1
    assert status(post(made, solved(challenge_in(written)))) == 200


class Away:
    """A store that cannot be asked."""

    def put(self, key: bytes, value: bytes, ttl: int, *, once: bool, done: Callable[[bool], None]) -> None:
        assert once and len(key) == 16 and 0 < ttl <= 330_000_000
        done(False)

    def get(self, key: bytes, done: Callable[[bytes | None], None]) -> None:
        done(None)


@pytest.mark.parametrize(("mode", "first", "second"), [("local", 200, 403), ("open", 200, 200), ("closed", 503, 503)])
def test_while_the_store_is_away(mode: str, first: int, second: int) -> None:
    made = stand(on_store_failure=mode)
    form = solved(challenge_in(get(made, b"/ask")))
    made.gateway.store = cast("Any", Away())
    assert [status(post(made, form)), status(post(made, form))] == [first, second]
    assert made.stats.challenges["unasked", mode] == 2


def test_a_client_that_leaves_while_the_store_is_asked() -> None:
    made = stand()
    form = solved(challenge_in(get(made, b"/ask")))
    waiting: list[Callable[[bool], None]] = []
    made.gateway.store = cast("Any", SimpleNamespace(put=lambda *_, once, done: waiting.append(done)))
    content = urlencode(form).encode()
    driver = made.h1()
    driver.feed(b"POST /.edge/challenge HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
    driver.h1.connection_lost(None)
    waiting[0](True)
    assert driver.link.written == b"" and made.stats.challenges["solved", ""] == 1


def test_without_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    made = stand()
    token = re.search(rb'name="token" value="([^"]*)"', get(made, b"/ask?a=b", HTML))
    assert token is not None
    form = {"token": token[1].decode(), "to": "/ask?a=b"}
    written = post(made, form)
    assert status(written) == 403 and token[1] in written, "too early: the same token"
    later(monkeypatch, 31)
    written = post(made, form)
    assert status(written) == 303 and b"\r\nlocation: /ask?a=b\r\n" in written
    assert b"Max-Age=300;" in written
    cookie = cookie_in(written)
    assert status(get(made, b"/ask", cookie)) == 200
    assert status(get(made, b"/js", cookie)) == 401, "waiting is not enough there"
    assert status(post(made, form)) == 403, "once"
    assert b"needs JavaScript" in get(made, b"/js", HTML) and b"<form" not in get(made, b"/js", HTML)
    assert made.stats.challenges["waited", ""] == 1 and made.stats.challenges["refused", "early"] == 1


@pytest.mark.parametrize("form", [
    {}, {"token": "x"}, {"token": "x" * 5000, "solution": "y"}, {"solution": "y"}, {"token": "é", "solution": "\x00"},
    {str(number): "" for number in range(50)}, {"token": "", "to": "//evil.example"},
])  # fmt: skip
def test_rubbish_is_answered(form: dict[str, str]) -> None:
    made = stand()
    written = post(made, form)
    assert status(written) == 403 and b"evil.example" not in written
    assert made.stats.challenges["refused", "unreadable"] == 1


def test_what_the_path_takes() -> None:
    made = stand()
    large = b"POST /.edge/challenge HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n"
    assert status(made.h1().feed(large).link.written) == 413
    assert status(get(made, b"/.edge/challenge", method=b"DELETE")) == 405
    written = get(made, b"/.edge/challenge.js")
    assert status(written) == 200 and written.endswith(SCRIPT) and b"content-type: text/javascript" in written
    assert b"allow: GET, HEAD\r\n" in get(made, b"/.edge/challenge.js", method=b"OPTIONS")
    written = get(made, b"/.edge/challenge")
    assert status(written) == 403
    cookie = cookie_in(post(made, solved(challenge_in(written))))
    assert status(get(made, b"/.edge/challenge", cookie)) == 204
    assert status(get(made, b"/.edge/challenge.jsx")) == 200, "that is the upstream's"
    assert len(made.pool.jobs) == 1


def test_the_path_is_there_whatever_rules_say_and_can_be_another() -> None:
    everything = {"id": "all", "expression": "true", "action": "challenge"}
    made = stand(everything, challenge={"path": "/check"})
    challenge = challenge_in(get(made, b"/any"))
    assert challenge["path"] == "/check"
    content = urlencode(solved(challenge)).encode()
    head = b"POST /check HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(content)
    written = made.h1().feed(head + content).link.written
    assert status(written) == 200 and status(get(made, b"/any", cookie_in(written))) == 200
    page = get(made, b"/any", HTML)
    assert b'data-press="1"' in page and b'action="/check"' in page


def test_rules_about_replies_do_not_touch_a_challenge() -> None:
    out = {"id": "out", "phase": "response", "expression": "true", "action": "rewrite",
           "headers": {"set": {"content-security-policy": "script-src 'none'"}}}  # fmt: skip
    made = stand(ASK, out)
    assert b"script-src 'none'" not in get(made, b"/ask", HTML)
    assert b"script-src 'none'" in get(made, b"/ask", cleared(made))


def test_a_rule_that_tries_challenges_nobody() -> None:
    made = stand(ASK | {"mode": "log"})
    assert status(get(made, b"/ask")) == 200 and made.stats.challenges == {}


def test_a_failure_of_ours_lets_requests_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    made = stand()

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("boom")

    monkeypatch.setattr(challenging, "page", broken)
    assert status(get(made, b"/ask", HTML)) == 200
    assert made.stats.challenges == {("failed", "internal"): 1}
    monkeypatch.setattr(challenging, "holder", broken)
    assert status(get(made, b"/ask")) == 200
    assert made.stats.challenges["failed", "internal"] == 2
    assert status(get(made, b"/.edge/challenge")) == 500
    assert status(post(made, {"token": "x"})) == 500


def test_events(tmp_path: Any) -> None:
    made = stand()
    made.gateway.events = Events(str(tmp_path / "events.jsonl"), made.stats)
    form = solved(challenge_in(get(made, b"/ask")))
    post(made, form)
    post(made, form)
    events = [json.loads(line) for line in made.gateway.events.writer.lines]
    assert [(each["event"], each.get("outcome"), each.get("reason")) for each in events] == [
        ("rule", None, None), ("challenge", "solved", ""), ("challenge", "refused", "replayed"),
    ]  # fmt: skip
    assert "status" not in events[0] and events[1]["bits"] == 8 and events[1]["client"] == "192.0.2.1"
    assert form["token"] not in json.dumps(events)


# -- the page --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("accept", "spoken"), [
    (None, "en"), (b"", "en"), (b"de", "de"), (b"de-CH,de;q=0.9,en;q=0.8", "de"), (b"en-US,en;q=0.9,de;q=0.8", "en"),
    (b"fr,de;q=0.3,en;q=0.2", "de"), (b"fr", "en"), (b"de;q=0", "en"), (b"DE", "de"), (b"\xff;,;q=1" * 99, "en"),
])  # fmt: skip
def test_languages(accept: bytes | None, spoken: str) -> None:
    assert language(accept) == spoken


@pytest.mark.parametrize("target", [
    "//evil.example", "/\\evil.example", "https://evil.example", "", "e", "/a b", "/a\r\nx: y", "/é", "/" + "a" * 5000, "/a\\b",
])  # fmt: skip
def test_nobody_is_sent_elsewhere(target: str) -> None:
    assert local(target) == "/"
    assert local("/a?b=c&d=//e") == "/a?b=c&d=//e"


def test_what_clients_send_is_no_markup() -> None:
    evil = '"><script>alert(1)</script>'
    made = page({"path": "/p", "token": "t"}, None, host=evil, target="/" + evil, ray="r", wait=5, press=False, sent=True)
    assert b"alert(1)</script>" not in made.replace(b"&lt;/script&gt;", b"")
    assert made.count(b"<script>") == 1


def test_the_policy_allows_what_is_on_the_page_and_nothing_else() -> None:
    made = page({"path": "/p", "token": "t"}, b"de", host="h", target="/", ray="r", wait=0, press=True, sent=False)
    policy = dict(FIELDS)[b"content-security-policy"]
    for tag in (b"script", b"style"):
        (content,) = re.findall(b"<%b>(.*?)</%b>" % (tag, tag), made, re.DOTALL)
        assert base64.b64encode(hashlib.sha256(content).digest()) in policy
    assert b"unsafe" not in policy and b"http" not in policy
    assert not re.search(rb"(src|href)=\"(?!data:,)", made) and b" style=" not in made and b" onclick=" not in made
    assert b'<html lang="de">' in made and b'role="status"' in made and len(made) < 16_384
