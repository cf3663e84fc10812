# What people's browsers send beside pages, as Chromium 156 was seen to send it: nothing of it is held against them.
"""heuristics.py, features.py and agents.py with workers, preflights, WebSockets, pages inside of applications, rare browsers."""

from __future__ import annotations

import pytest

from edgeproxy.bots.agents import FIREFOX, SAFARI, read_agent
from edgeproxy.bots.features import NAMES, vector
from edgeproxy.bots.heuristics import detect, said
from edgeproxy.bots.score import shape
from edgeproxy.bots.view import View
from edgeproxy.message import Headers, Peer, Request

NOW = 1_795_000_000.0
CHROME = b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
FOX = b"Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0"
HINTS: Headers = [
    (b"sec-ch-ua", b'"Not:A-Brand";v="8", "Chromium";v="156", "Google Chrome";v="156"'), (b"sec-ch-ua-mobile", b"?0"),
    (b"sec-ch-ua-platform", b'"Linux"'),
]  # fmt: skip
TAIL: Headers = [(b"accept-encoding", b"gzip, deflate, br, zstd"), (b"accept-language", b"en-US,en;q=0.9")]


def fetched(mode: bytes, dest: bytes, site: bytes = b"same-origin") -> Headers:
    return [(b"sec-fetch-site", site), (b"sec-fetch-mode", mode), (b"sec-fetch-dest", dest)]


PASSED_ON: Headers = [
    HINTS[2], (b"user-agent", CHROME), (b"accept", b"text/html,application/xhtml+xml,image/apng,*/*;q=0.8"), HINTS[0],
    (b"upgrade-insecure-requests", b"1"), HINTS[1], *fetched(b"navigate", b"empty"), (b"referer", b"https://example.org/"), *TAIL,
]  # fmt: skip
SCRIPT: Headers = [
    (b"accept", b"*/*"), (b"service-worker", b"script"), (b"user-agent", CHROME), *fetched(b"same-origin", b"serviceworker"),
    *TAIL,
]  # fmt: skip
PREFLIGHT: Headers = [
    (b"accept", b"*/*"), (b"access-control-request-method", b"POST"), (b"access-control-request-headers", b"content-type"),
    (b"origin", b"https://www.example"), (b"user-agent", CHROME), *fetched(b"cors", b"empty", b"same-site"),
    (b"referer", b"https://www.example/"), *TAIL,
]  # fmt: skip
SOCKET: Headers = [
    (b"connection", b"Upgrade"), (b"pragma", b"no-cache"), (b"cache-control", b"no-cache"), (b"user-agent", CHROME),
    (b"upgrade", b"websocket"), (b"origin", b"https://example.org"), (b"sec-websocket-version", b"13"), *TAIL,
    (b"sec-websocket-key", b"YQ=="), (b"sec-websocket-extensions", b"permessage-deflate; client_max_window_bits"),
]  # fmt: skip


# Its network stack reports by itself (Reporting API, NEL), not by the rules of the Fetch standard, which would have Accept.
REPORT: Headers = [
    (b"content-type", b"application/reports+json"), (b"origin", b"https://www.example"), (b"user-agent", CHROME), *TAIL,
    (b"priority", b"u=4, i"),
]  # fmt: skip
REPORTS_PREFLIGHT: Headers = [
    (b"origin", b"https://www.example"), (b"access-control-request-method", b"POST"),
    (b"access-control-request-headers", b"content-type"), (b"user-agent", CHROME), *TAIL,
]  # fmt: skip


def request(headers: Headers, method: bytes = b"GET", *, upgrade: bool = False, protocol: int = 0) -> Request:
    made = Request(method, b"example.org", b"/", headers, 0, protocol, Peer("192.0.2.1", trusted=False, secure=True))
    made.upgrade = upgrade
    return made


@pytest.mark.parametrize("made", [
    request(PASSED_ON), request(SCRIPT),
    request([each if each[1] != b"serviceworker" else (each[0], b"worker") for each in SCRIPT]),
    request(PREFLIGHT, b"OPTIONS"), request(SOCKET, upgrade=True),
    request(REPORT, b"POST", protocol=1), request(REPORT[:-1], b"POST"), request(REPORTS_PREFLIGHT, b"OPTIONS"),
], ids=["passed on by a service worker", "its script", "script of a worker", "preflight", "WebSocket", "report", "over HTTP/1.1",
        "its preflight"])  # fmt: skip
def test_nothing_contradicts_itself(made: Request) -> None:
    assert detect(View(made, None)) == ()
    row = dict(zip(NAMES, vector(made, NOW), strict=True))
    assert row["contradictions"] == 0, [name for name, value in row.items() if value == 0.0]


@pytest.mark.parametrize(("headers", "method", "found"), [
    (REPORT, b"GET", [6001, 6004, 6006]), ([*REPORT[1:], (b"content-type", b"application/json")], b"POST", [6001, 6004, 6006]),
    ([each for each in REPORT if each[0] != b"origin"], b"POST", [6001, 6004, 6006]),
    ([each for each in REPORT if each[0] != b"accept-encoding"], b"POST", [6006]),
    ([(name, FOX if name == b"user-agent" else value) for name, value in REPORT], b"POST", [6004, 6006]),
    ([each for each in REPORTS_PREFLIGHT if each[0] != b"access-control-request-headers"], b"OPTIONS", [6004, 6006]),
    (REPORTS_PREFLIGHT, b"GET", [6001, 6004, 6006]),
    ([*REPORT, (b"user-agent", b"curl/8.14.1")], b"POST", [1003, 6007]),
])  # fmt: skip
def test_what_is_no_report_of_chromiums_is_judged_as_ever(headers: Headers, method: bytes, found: list[int]) -> None:
    assert [each.id for each in detect(View(request(headers, method), None))] == found


def test_reports_lend_their_score_to_nothing_else() -> None:
    assert shape(request(REPORT, b"POST")) != shape(request(REPORT, b"GET"))
    assert shape(request(REPORTS_PREFLIGHT, b"OPTIONS")) != shape(request(REPORTS_PREFLIGHT, b"POST"))


def test_a_page_without_its_hints_still_does() -> None:
    page = [each for each in PASSED_ON if each not in HINTS and each[0] != b"sec-fetch-dest"] + [(b"sec-fetch-dest", b"document")]
    row = dict(zip(NAMES, vector(request(page), NOW), strict=True))
    assert row["hints_expected"] == 0
    assert [each.id for each in detect(View(request(page), None))] == [6001]


@pytest.mark.parametrize("agent", [
    b"Mozilla/5.0 (Linux; Android 13; SM-A536B; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/140.0.0.0 Mobile "
    b"Safari/537.36 [FBAN/EMA;FBLC/en_US;FBAV/345.0.0.9.107;FBPN/com.facebook.katana;]",
])  # fmt: skip
def test_names_of_telephones_and_applications(agent: bytes) -> None:
    assert said(agent) == frozenset() and not read_agent(agent).tool


def test_scanners_are_still_known() -> None:
    assert said(b"Katana/1.1") == said(b"Mozilla/5.0 katana") == {1004}
    assert not read_agent(b"Mozilla/5.0 (Linux; Android 13; TECNO PHANTOM X2) Chrome/140.0.0.0").tool
    assert read_agent(b"Mozilla/5.0 PhantomJS/2.1").tool


@pytest.mark.parametrize(("rest", "brand"), [
    (b"Mobile/15E148 Instagram 330.0.0.0", "webview"), (b"Mobile/15E148", "webview"),
    (b"Version/17.5 Mobile/15E148 Safari/604.1", ""), (b"CriOS/140.0.0.0 Mobile/15E148 Safari/604.1", ""),
])  # fmt: skip
def test_pages_inside_of_applications_of_ios_are_webkit(rest: bytes, brand: str) -> None:
    agent = read_agent(b"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) " + rest)
    assert (agent.family, agent.major, agent.brand) == (SAFARI, 17, brand)


def test_forks_that_left_firefox_are_not_held_to_its_handshake() -> None:
    text = b"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Goanna/6.7 Firefox/128.0 PaleMoon/33.2.0"
    view = View(request([(b"user-agent", text)]), None)
    assert view.agent.family == FIREFOX and not view.browser


def test_fields_that_are_sent_twice() -> None:
    twice = detect(View(request([(b"user-agent", b"curl/8"), *PASSED_ON]), None))
    assert [each.id for each in twice] == [6007]
    assert detect(View(request([*PASSED_ON, (b"cookie", b"a=1"), (b"cookie", b"b=2")]), None)) == ()


def test_a_preflight_lends_its_score_to_nothing_else() -> None:
    assert shape(request(PREFLIGHT, b"OPTIONS")) != shape(request(PREFLIGHT, b"POST"))
