# Things that no person's browser does: each a small test with a number, a name and a reason. One that is certain scores 1.
"""`HEURISTICS`, by number, and `detect(view)`.

A test is certain only if it is false for everything that real browsers are known to send (tests/unit/bots/test_heuristics.py asks
every browser signature at hand, tools/bots every corpus): of a thousand people about three have changed their User-Agent.
Numbers are never used again for something else: rules and logs name them.
1000: what a client says of itself. 3000: TLS. 4000: HTTP/2. 5000: QUIC. 6000: header fields. 7000: who it claims to be.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

from edgeproxy.bots.agents import CHROMIUM, FIREFOX, OTHER, SAFARI
from edgeproxy.bots.features import UNHINTED, reports
from edgeproxy.bots.view import H1, H2, H3, NONE, View

# What a User-Agent says of its sender, by number of the heuristic. One text is looked at once.
# CUBOT makes telephones.
_SAID: Final[dict[int, re.Pattern[bytes]]] = {
    1002: re.compile(
        rb"(?i)(?<!cu)bot\b|(?<!cu)bot[/;,_-]|crawl|spider|scrap(?:er|y)|slurp|archiver|\bfetcher\b|facebookexternalhit|\+https?://|"
        rb"feed ?parser|monitor(?:ing)?\b"
    ),
    1003: re.compile(
        rb"(?i)^(?:curl|wget|python-|python/|aiohttp|httpx|urllib|requests|niquests|go-http-client|java/|apache-http|okhttp|axios|"
        rb"node\b|undici|got\b|deno|bun/|libwww|lwp|perl|php|guzzle|ruby|faraday|rest-client|postmanruntime|insomnia|httpie|"
        rb"powershell|winhttp|mechanize|reqwest|hyper/|ureq|dart/|cpprestsdk|libcurl|lua-|k6/|wrk|nghttp|h2load|hey/|ab/|apachebench|siege|"
        rb"jmeter|locust|vegeta|(?:async)?openai/|(?:async)?anthropic/|litellm|langchain|llamaindex)"
    ),
    1004: re.compile(
        rb"(?i)sqlmap|nikto|nessus|openvas|acunetix|netsparker|w3af|dirbuster|gobuster|feroxbuster|wfuzz|\bffuf|masscan|zgrab|"
        rb"\bnmap|nuclei|wpscan|joomscan|whatweb|censys|shodan|httprobe|subfinder|(?<!facebook\.)katana|commix|jaeles|"
        rb"arachni|skipfish|zmeu|morfeus|\bburp"
    ),
    1005: re.compile(rb"(?i)headless|phantomjs|slimerjs|puppeteer|playwright|selenium|webdriver|cypress/|nightmare"),
}
_SYSTEMS: Final = {
    b"Windows": "windows", b"macOS": "mac", b"Linux": "linux", b"Android": "android", b"Chrome OS": "chromeos",
    b"Chromium OS": "chromeos", b"iOS": "ios",
}  # fmt: skip
# What the hint and the User-Agent may say of one device: a phone that asks for desktop pages is Linux in one of them.
_ALIKE: Final = ({"android", "linux"}, {"chromeos", "linux"})
_MOST_AGENT: Final = 512  # bytes of a User-Agent that are read
_KEPT: Final = 4096  # User-Agents that are remembered
_HINT_VERSION: Final = re.compile(rb'"(?:Chromium|Google Chrome|Microsoft Edge|HeadlessChrome|Brave|Opera)";v="(\d{1,4})')
_SITES: Final = frozenset({b"none", b"same-origin", b"same-site", b"cross-site"})
_MODES: Final = frozenset({b"navigate", b"cors", b"no-cors", b"same-origin", b"websocket"})
_HINTS_SINCE: Final = 90  # Chromium with client hints on every request over TLS
_FETCH_SINCE: Final = {CHROMIUM: 80, FIREFOX: 90, SAFARI: 17}  # versions with Sec-Fetch-* fields (Fetch Metadata)


class Heuristic(NamedTuple):
    """One test.

    Attributes:
        id: its number.
        name: for metrics and rules.
        reason: for people.
        certain: it scores 1 by itself. What some people's browsers were seen to do is only told, and the model weighs it.
    """

    id: int
    name: str
    reason: str
    test: Callable[[View], bool]
    certain: bool = True


@lru_cache(maxsize=_KEPT)
def said(agent: bytes) -> frozenset[int]:
    """Numbers of the heuristics that a User-Agent alone makes true."""
    text = agent[:_MOST_AGENT]
    return frozenset(number for number, pattern in _SAID.items() if pattern.search(text) is not None)


def _upgrades(view: View) -> bool:
    """A WebSocket's handshake leaves out most of what browsers send."""
    return view.request.upgrade or b"upgrade" in view.headers or view.get(b"sec-fetch-mode") == b"websocket"


def _reports(view: View) -> bool:
    return reports(view.request, view.headers, view.agent.family)


def _unmeasured(view: View) -> bool:
    """Safari over QUIC: how it shakes hands there was never measured."""
    return view.request.protocol == H3 and view.agent.family == SAFARI


def _speaks_otherwise(view: View, spoken: int) -> bool:
    """Whether a layer is that of another program than the browser that is claimed. Safari's next versions may begin HTTP/2 and
    QUIC in ways that are not known yet: only what is another browser's speaks against it."""
    if view.agent.family == SAFARI:
        return spoken in (CHROMIUM, FIREFOX)
    return spoken not in (NONE, view.agent.family)


def _foreign_tls(view: View) -> bool:
    return view.browser and view.tls == OTHER and not _unmeasured(view)


def _other_tls(view: View) -> bool:
    return view.browser and view.tls in (CHROMIUM, FIREFOX, SAFARI) and view.tls != view.agent.family and not _unmeasured(view)


def _quic_alpn(view: View) -> bool:
    hello = view.prints.hello if view.prints is not None else None
    return hello is not None and view.request.protocol != H3 and any(name.startswith(b"h3") for name in hello.alpn)


def _old_tls(view: View) -> bool:
    hello = view.prints.hello if view.prints is not None else None
    modern = view.agent.major >= (17 if view.agent.family == SAFARI else 90)
    return hello is not None and view.browser and modern and 0x0304 not in hello.versions


def _other_h2(view: View) -> bool:
    return view.request.protocol == H2 and view.browser and _speaks_otherwise(view, view.h2)


def _h1_only(view: View) -> bool:
    hello = view.prints.hello if view.prints is not None else None
    if hello is None or not view.browser or view.request.protocol != H1 or _upgrades(view):
        return False
    return b"h2" not in hello.alpn


def _other_quic(view: View) -> bool:
    return view.request.protocol == H3 and view.browser and _speaks_otherwise(view, view.h3)


def _no_hints(view: View) -> bool:
    claim = view.agent
    if not view.browser or claim.family != CHROMIUM or claim.major < _HINTS_SINCE or _upgrades(view):
        return False
    if view.request.method == b"OPTIONS" or view.get(b"sec-fetch-dest") in UNHINTED:
        return False  # Chromium sends none with these
    return view.request.peer.secure and b"sec-ch-ua" not in view.headers and not _reports(view)


def _other_hints(view: View) -> bool:
    """Chromium's version in both places is the same number, and so are the platform and whether it is a phone."""
    claim, hints = view.agent, view.get(b"sec-ch-ua")
    if claim.family != CHROMIUM or not view.browser or not hints:
        return False
    versions = {int(each) for each in _HINT_VERSION.findall(hints)}
    if b'"Chromium"' in hints and versions and claim.major not in versions:
        return True
    platform = view.get(b"sec-ch-ua-platform").strip(b'"')
    said = _SYSTEMS.get(platform, "")
    return said != "" and claim.system not in ("", said) and {said, claim.system} not in _ALIKE


def _foreign_hints(view: View) -> bool:
    return view.browser and view.agent.family in (FIREFOX, SAFARI) and b"sec-ch-ua" in view.headers


def _no_fetch(view: View) -> bool:
    claim = view.agent
    if not view.browser or claim.major < _FETCH_SINCE.get(claim.family, 1 << 16) or _upgrades(view):
        return False
    missing = b"sec-fetch-mode" not in view.headers and b"sec-fetch-site" not in view.headers
    return missing and view.request.peer.secure and not _reports(view)


def _wrong_fetch(view: View) -> bool:
    """Combinations that the Fetch Metadata specification cannot give."""
    site, mode, dest = view.get(b"sec-fetch-site"), view.get(b"sec-fetch-mode"), view.get(b"sec-fetch-dest")
    if (site and site not in _SITES) or (mode and mode not in _MODES):
        return True
    # With `empty` a service worker passes on what a page asked for: fetch(event.request) drops the destination.
    if mode == b"navigate" and dest in (b"script", b"style", b"image", b"font"):
        return True
    return view.get(b"sec-fetch-user") == b"?1" and mode not in (b"", b"navigate")


def _bare(view: View) -> bool:
    if not view.browser or (b"accept" in view.headers and b"accept-encoding" in view.headers) or _upgrades(view):
        return False
    return b"accept-encoding" not in view.headers or not _reports(view)


def _doubled(view: View) -> bool:
    """We read one of them, and who is behind us perhaps the other."""
    headers = view.request.headers
    if len(view.headers) == len(headers):
        return False
    names = [name for name, _ in headers if name == b"user-agent" or name.startswith((b"sec-ch-", b"sec-fetch-"))]
    return len(set(names)) != len(names)


def _impostor(view: View) -> bool:
    return view.identity is not None and view.identity.failed


HEURISTICS: Final = tuple(Heuristic(*row) for row in (
    (1001, "no_user_agent", "No User-Agent was sent.", lambda view: not view.text.strip()),
    (1002, "declared_bot", "The User-Agent says that it is a bot.", lambda view: 1002 in said(view.text)),
    (1003, "declared_library", "The User-Agent is that of a program or a library.", lambda view: 1003 in said(view.text)),
    (1004, "scanner", "The User-Agent is that of a security scanner.", lambda view: 1004 in said(view.text)),
    (1005, "declared_automation", "The User-Agent is that of an automated browser.",
     lambda view: 1005 in said(view.text) or b"Headless" in view.get(b"sec-ch-ua")),
    (3001, "tls_not_a_browser", "A browser is claimed, and the TLS handshake is that of a library.", _foreign_tls),
    (3002, "tls_other_browser", "One browser is claimed, and the TLS handshake is that of another.", _other_tls),
    (3003, "tls_h3_over_tcp", "HTTP/3 was offered over TCP, where it cannot be spoken.", _quic_alpn),
    (3004, "tls_too_old", "A current browser is claimed, and TLS 1.3 was not offered.", _old_tls),
    (4001, "h2_other_browser", "HTTP/2 begins otherwise than in the browser that is claimed.", _other_h2),
    (4002, "h2_not_offered", "A browser is claimed that offers HTTP/2, and it was not offered.", _h1_only),
    (5001, "quic_other_browser", "QUIC begins otherwise than in the browser that is claimed.", _other_quic),
    (6001, "no_client_hints", "Chromium is claimed, and its client hints are missing.", _no_hints, False),
    (6002, "client_hints_differ", "Client hints and User-Agent tell of different browsers.", _other_hints, False),
    (6003, "foreign_client_hints", "Client hints were sent by a browser that has none.", _foreign_hints),
    (6004, "no_fetch_metadata", "A current browser is claimed, and its Sec-Fetch fields are missing.", _no_fetch, False),
    (6005, "impossible_fetch_metadata", "The Sec-Fetch fields contradict each other.", _wrong_fetch),
    (6006, "no_accept", "A browser is claimed, and Accept or Accept-Encoding is missing.", _bare),
    (6007, "doubled_fields", "User-Agent, a client hint or a Sec-Fetch field was sent twice.", _doubled),
    (7001, "impostor", "The User-Agent is that of a known bot, and the client is not it.", _impostor),
))  # fmt: skip
BY_ID: Final = {each.id: each for each in HEURISTICS}


# Those that only somebody who claims to be a browser can make true: of others they need not be asked.
OF_BROWSERS: Final = frozenset({3001, 3002, 3004, 4001, 4002, 5001, 6001, 6002, 6003, 6004, 6006})
_OTHERS: Final = tuple(each for each in HEURISTICS if each.id not in OF_BROWSERS)


def detect(view: View) -> tuple[Heuristic, ...]:
    """Those that are true."""
    return tuple([each for each in (HEURISTICS if view.browser else _OTHERS) if each.test(view)])
