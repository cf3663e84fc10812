# Every heuristic is true of what it is about, and of no browser: neither of those captured nor of those in the signatures.
"""bots/heuristics.py and bots/view.py."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.bots import (
    CHROME,
    CHROME_H2,
    CURL_H2,
    FIREFOX,
    FIREFOX_H2,
    FIREFOX_PAGE,
    H1,
    H2,
    H3,
    PAGE,
    SAFARI,
    but,
    ids,
    prints_of,
    request,
)  # fmt: skip
from support.hellos import VECTORS, alpn, made, records, sigalgs, versions
from support.shared import shared

from edgeproxy.bots.heuristics import BY_ID, HEURISTICS, detect, said
from edgeproxy.bots.identity import NOBODY
from edgeproxy.bots.score import Scorer
from edgeproxy.bots.view import View
from edgeproxy.message import Headers
from edgeproxy.prints import Prints
from tools.bots.humans import hello_of, signatures

BROWSERS = ("chromium", "firefox", "chromium, HTTP/3")
POSING = ("curl_cffi chrome", "curl_cffi firefox", "curl_cffi chrome, HTTP/3")
LIBRARIES = tuple(each["client"] for each in VECTORS if each["client"] not in BROWSERS + POSING)
NAVIGATE = but(PAGE, b"sec-fetch-user")


def found(headers: Headers, prints: Prints | None = None, protocol: int = H2, **more: Any) -> set[int]:
    return ids(detect(View(request(headers, prints, protocol, **more), prints)))


def of_browser(client: str) -> tuple[Headers, Prints, int]:
    """What the program itself sends."""
    if "HTTP/3" in client:
        return PAGE, prints_of(client), H3
    return (FIREFOX_PAGE, prints_of(client, FIREFOX_H2), H2) if client == "firefox" else (PAGE, prints_of(client, CHROME_H2), H2)


def test_numbers_and_names_are_their_own() -> None:
    assert len(BY_ID) == len(HEURISTICS) == len({each.name for each in HEURISTICS})
    assert [each.id for each in HEURISTICS] == sorted(BY_ID)
    assert all(each.reason.endswith(".") and len(each.reason) < 100 for each in HEURISTICS)


def test_the_table_in_the_docs_is_this_one() -> None:
    lines = (Path(__file__).parents[3] / "docs" / "bots.md").read_text().splitlines()
    rows = [line for line in lines if re.match(r"\| \d", line)]
    assert rows == [
        f"| {each.id} | `{each.name}` | {each.reason}{'' if each.certain else ' Not certain.'} |" for each in HEURISTICS
    ]  # fmt: skip


def test_every_heuristic_has_its_case_below() -> None:
    assert {number for number, _, _ in CASES} | {3003, 3004, 4002, 7001} == set(BY_ID)


def agent(text: bytes) -> Headers:
    return [(b"user-agent", text), (b"accept", b"*/*"), (b"accept-encoding", b"gzip")]


def chrome(major: bytes) -> bytes:
    return CHROME.replace(b"156", major)


CHROMIUM, FOX, CURL = prints_of("chromium", CHROME_H2), prints_of("firefox", FIREFOX_H2), prints_of("curl", CURL_H2)
HINT = b'"Chromium";v="140", "Google Chrome";v="140"'
Row = tuple[Headers, Prints | None, int]
CASES: list[tuple[int, Row, Row]] = [
    (1001, ([(b"accept", b"*/*")], CURL, H2), (agent(b"x"), CURL, H2)),
    (1001, (agent(b"  "), None, H1), (agent(b"a"), None, H1)),
    (1002, (agent(b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"), None, H1), (PAGE, CHROMIUM, H2)),
    (1002, (agent(b"SomeCrawler/1.0"), None, H1), (agent(b"CUBOT_NOTE_S"), None, H1)),
    (1003, (agent(b"curl/8.14.1"), CURL, H2), (but(PAGE, user_agent=CHROME + b" curl/8"), CHROMIUM, H2)),
    (1003, (agent(b"nghttp3/ngtcp2 client"), None, H3), (agent(b"http"), None, H3)),
    (1003, (agent(b"python-requests/2.32"), None, H1), (agent(b"Pythonic/1"), None, H1)),
    (1003, (agent(b"OpenAI/Python 1.0"), None, H1), (agent(b"Openair/1"), None, H1)),
    (1004, (agent(b"sqlmap/1.9#stable"), None, H1), (agent(b"mapping/1"), None, H1)),
    (1005, (but(PAGE, user_agent=CHROME.replace(b"Chrome", b"HeadlessChrome")), CHROMIUM, H2), (PAGE, CHROMIUM, H2)),
    (1005, (but(PAGE, sec_ch_ua=b'"HeadlessChrome";v="156"'), CHROMIUM, H2), (PAGE, CHROMIUM, H2)),
    (3001, (PAGE, CURL, H2), (PAGE, CHROMIUM, H2)),
    (3002, (but(PAGE, user_agent=FIREFOX), CHROMIUM, H2), (FIREFOX_PAGE, FOX, H2)),
    (3002, (PAGE, FOX, H2), (PAGE, None, H2)),
    (4001, (PAGE, prints_of("chromium", CURL_H2), H2), (PAGE, prints_of("chromium"), H1)),
    (4001, (PAGE, prints_of("chromium", FIREFOX_H2), H2), (PAGE, CHROMIUM, H2)),
    (4001, (FIREFOX_PAGE, prints_of("firefox", CHROME_H2), H2), (FIREFOX_PAGE, FOX, H2)),
    (5001, (PAGE, prints_of("gtlsclient, HTTP/3"), H3), (PAGE, prints_of("chromium, HTTP/3"), H3)),
    (5001, (FIREFOX_PAGE, prints_of("chromium, HTTP/3"), H3), (agent(b"curl/8"), prints_of("curl_cffi, HTTP/3"), H3)),
    (6001, (but(PAGE, b"sec-ch-ua"), CHROMIUM, H2), (but(PAGE, b"sec-ch-ua", user_agent=chrome(b"80")), CHROMIUM, H2)),
    (6001, (but(PAGE, b"sec-ch-ua"), None, H2), (but(PAGE, b"sec-ch-ua", upgrade=b"websocket"), None, H1)),
    (6002, (but(PAGE, sec_ch_ua=HINT), CHROMIUM, H2), (but(PAGE, sec_ch_ua=HINT, user_agent=chrome(b"140")), CHROMIUM, H2)),
    (6002, (but(PAGE, sec_ch_ua_platform=b'"Windows"'), CHROMIUM, H2),
     (but(PAGE, sec_ch_ua_platform=b'"Android"'), CHROMIUM, H2)),
    (6003, (but(FIREFOX_PAGE, sec_ch_ua=HINT), FOX, H2), (FIREFOX_PAGE, FOX, H2)),
    (6004, (but(PAGE, b"sec-fetch-site", b"sec-fetch-mode"), CHROMIUM, H2), (but(PAGE, b"sec-fetch-site"), CHROMIUM, H2)),
    (6004, (but(FIREFOX_PAGE, b"sec-fetch-site", b"sec-fetch-mode"), FOX, H2),
     (but(FIREFOX_PAGE, b"sec-fetch-site", b"sec-fetch-mode", user_agent=FIREFOX.replace(b"153", b"78")), FOX, H2)),
    (6005, (but(PAGE, sec_fetch_site=b"nowhere"), CHROMIUM, H2), (but(PAGE, sec_fetch_site=b"same-site"), CHROMIUM, H2)),
    (6005, (but(PAGE, sec_fetch_mode=b"fetch"), CHROMIUM, H2), (but(NAVIGATE, sec_fetch_mode=b"cors"), CHROMIUM, H2)),
    (6005, (but(PAGE, sec_fetch_dest=b"image"), CHROMIUM, H2), (but(PAGE, sec_fetch_dest=b"iframe"), CHROMIUM, H2)),
    (6005, (but(PAGE, sec_fetch_mode=b"cors"), CHROMIUM, H2), (PAGE, CHROMIUM, H2)),
    (6007, ([(b"user-agent", b"curl/8"), *PAGE], CHROMIUM, H2), ([(b"te", b"a"), (b"te", b"b"), *PAGE], CHROMIUM, H2)),
    (6006, (but(PAGE, b"accept"), CHROMIUM, H2), (PAGE, CHROMIUM, H2)),
    (6006, (but(PAGE, b"accept-encoding"), CHROMIUM, H2), (but(PAGE, b"accept", upgrade=b"websocket"), None, H1)),
]  # fmt: skip


@pytest.mark.parametrize(("number", "true", "false"), CASES, ids=lambda each: str(each) if isinstance(each, int) else "")
def test_true_and_false(number: int, true: Row, false: Row) -> None:
    assert number in found(*true)
    assert number not in found(*false)


OF_HANDSHAKES = {3001, 3002, 3003, 3004, 4001, 4002, 5001}


@pytest.mark.parametrize(("number", "true"), [
    *((number, true) for number, true, _ in CASES),
    (3003, (agent(b"x"), Prints(records(made([0x1301], [alpn(b"h3"), versions(0x0304)]))), H1)),
    (3004, (PAGE, Prints(records(made([0xC02B], [alpn(b"h2"), versions(0x0303)]))), H2)),
    (4002, (PAGE, Prints(records(made([0x1301], [alpn(b"http/1.1"), versions(0x0304)]))), H1)),
], ids=lambda each: str(each) if isinstance(each, int) else "")  # fmt: skip
def test_a_proxys_handshake_counts_for_nothing(number: int, true: Row) -> None:
    headers, prints, protocol = true
    scorer = Scorer(None, pytest.fail)
    seen, hidden = (set(scorer.score(request(headers, prints, protocol), 0.0, hidden=each).ids) for each in (False, True))
    assert number in seen
    assert hidden == seen - OF_HANDSHAKES


def hello(*names: bytes, tls: tuple[int, ...] = (0x0304, 0x0303)) -> Prints:
    return Prints(records(made([0x1301, 0xC02B], [(0, b""), alpn(*names), versions(*tls), sigalgs(0x0403)])))


def test_what_the_hello_offers() -> None:
    assert 3003 in found(agent(b"curl/8"), hello(b"h3"), H1)
    assert 3003 not in found(agent(b"curl/8"), prints_of("curl_cffi, HTTP/3"), H3)
    assert 3004 in found(PAGE, hello(b"h2", tls=(0x0303,)))
    assert 3004 not in found(PAGE, hello(b"h2")) and 3004 not in found(agent(b"curl/8"), hello(b"h2", tls=(0x0303,)))
    assert 3004 not in found(but(PAGE, user_agent=chrome(b"60")), hello(b"h2", tls=(0x0303,)))
    assert 4002 in found(PAGE, hello(b"http/1.1"), H1)
    assert 4002 not in found(PAGE, hello(b"h2", b"http/1.1"), H1), "a browser that was answered so"
    assert 4002 not in found(but(PAGE, upgrade=b"websocket"), hello(b"http/1.1"), H1), "its WebSockets do not"


def test_who_uses_the_name_of_a_bot() -> None:
    claimed = request(agent(b"Googlebot/2.1"))
    for identity in (None, NOBODY, NOBODY._replace(pending=True)):
        assert 7001 not in ids(detect(View(claimed, None, identity)))
    assert 7001 in ids(detect(View(claimed, None, NOBODY._replace(failed=True))))


@pytest.mark.parametrize("client", BROWSERS)
def test_captured_browsers_are_not_caught(client: str) -> None:
    assert found(*of_browser(client)) == set()


@pytest.mark.parametrize("client", LIBRARIES)
@pytest.mark.parametrize("page", [PAGE, FIREFOX_PAGE], ids=["chrome", "firefox"])
def test_libraries_with_a_browsers_head_are(client: str, page: Headers) -> None:
    protocol = H3 if "HTTP/3" in client else H1
    assert found(page, prints_of(client), protocol) & {3001, 3002, 5001}


@pytest.mark.parametrize("client", POSING)
def test_who_poses_well_is_not_caught_by_the_hello(client: str) -> None:
    """That it lies is the model's to find; but as another browser than it poses as, it is caught."""
    honest = client.removeprefix("curl_cffi ").replace("chrome", "chromium")
    headers, prints, protocol = of_browser(honest)
    prints.hello = prints_of(client).hello
    assert not found(headers, prints, protocol) & {3001, 3002}
    other = FIREFOX_PAGE if headers is PAGE else PAGE
    assert found(other, prints, protocol) & {3002}


def test_a_browser_behind_a_trusted_proxy_has_no_prints() -> None:
    assert found(PAGE, None, H1) == found(FIREFOX_PAGE, None, H1) == set()


def test_websockets_and_plain_connections() -> None:
    upgrade: Headers = [
        (b"user-agent", CHROME),
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"origin", b"https://a"),
    ]
    assert found(upgrade, prints_of("chromium"), H1) == set()
    plain = [(name, value) for name, value in PAGE if not name.startswith(b"sec-")]
    assert found(plain, None, H1, secure=False) == set(), "hints and Sec-Fetch are of https"


@pytest.mark.parametrize("text", [
    b"Mozilla/5.0 (Linux; Android 10; CUBOT X18) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Mobile Safari/537.36",
    CHROME, FIREFOX, SAFARI, CHROME + b" Edg/156.0.0.0", CHROME + b" OPR/120.0.0.0",
    b"Mozilla/5.0 (iPhone; CPU iPhone OS 18_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/140.0 Safari/604.1",
    b"Mozilla/5.0 (SMART-TV; Linux; Tizen 8.0) AppleWebKit/537.36 (KHTML, like Gecko) Version/6.0 TV Safari/538.1",
])  # fmt: skip
def test_names_of_browsers_say_nothing(text: bytes) -> None:
    assert said(text) == frozenset()


NAMES, VALUES = st.sampled_from([name for name, _ in PAGE]), st.binary(max_size=40) | st.sampled_from([v for _, v in PAGE])


@given(
    st.lists(st.tuples(NAMES, VALUES), max_size=12),
    st.sampled_from([None, *[each["client"] for each in VECTORS]]), st.sampled_from([H1, H2, H3]),
)  # fmt: skip
def test_nothing_raises(headers: Headers, client: str | None, protocol: int) -> None:
    found(headers, prints_of(client) if client is not None else None, protocol)


# -- signatures of real browsers -------------------------------------------------------------------------------------


def signature_heads() -> list[tuple[str, Headers]]:
    """What they send for a page, by name."""
    heads = []
    for path in sorted(shared("browser-signatures").glob("*.yaml")):
        frames = yaml.safe_load(path.read_text())["signature"]["http2"]["frames"]
        lines = next(each for each in frames if each["frame_type"] == "HEADERS")["headers"]
        pairs = (line.encode().partition(b":") for line in lines)
        heads.append((path.stem, [(name, value.strip()) for name, _, value in pairs]))
    return heads


def test_no_head_of_a_real_browser_is_caught() -> None:
    heads = signature_heads()
    assert len(heads) > 30
    for name, headers in heads:
        for protocol in (H1, H2, H3):
            assert (name, found(headers, None, protocol)) == (name, set())


def test_no_connection_of_a_real_browser_is_caught() -> None:
    heads, known = dict(signature_heads()), signatures(shared("browser-signatures"))
    assert len(known) > 15
    for one in known:
        for seed in range(5):
            prints = Prints(b"")
            prints.hello, prints.h2 = hello_of(one.hello, random.Random(seed)), one.h2
            assert (one.name, found(heads[one.name], prints, H2)) == (one.name, set())
