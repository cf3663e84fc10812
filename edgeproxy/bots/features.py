# A request as the numbers that the model reads. Pure: a request and a time in, floats out; no address, path, cookie or JA3.
"""`vector(request, now)`: NAMES in order. The connection's part comes from `wire`; what a head says is compared with its claim.

A claim is the User-Agent. Where something is compared with it, 1 agrees, 0 contradicts and 0.5 cannot be said; elsewhere -1
stands for what is not known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeproxy.bots import wire
from edgeproxy.bots.agents import CHROMIUM, FIREFOX, OTHER, SAFARI, Agent, age, read_agent
from edgeproxy.bots.hints import hinted, hints_order
from edgeproxy.bots.orders import disorder

if TYPE_CHECKING:
    from edgeproxy.message import Request

FACTS: Final = (
    "protocol", "post", "agent_family", "agent_tool", "agent_mozilla", "agent_mobile", "agent_age", "agent_frozen", "order",
    "accept", "coding", "fetch_fields", "fetch_site", "referer", "hints", "tls_era",
)  # fmt: skip
AGREEMENTS: Final = (
    "agent_browser", "agent_plain", "accept_agrees", "coding_agrees", "language_agrees", "fetch_legal", "fetch_expected",
    "hints_expected", "hints_version",
    "hints_grease", "hints_brand", "hints_order", "hints_platform", "hints_mobile", "upgrade_agrees", "priority_agrees",
    "origin_agrees", "referer_agrees", "body_agrees", "tls_agrees", "h2_agrees", "h3_agrees", "layers_agree", "alpn_agrees",
)  # fmt: skip
"""Features of 0, 0.5 and 1: more of them speaks for a human, never against one."""
REQUEST_NAMES: Final = (*FACTS, *AGREEMENTS, "contradictions")
NAMES: Final = wire.NAMES + REQUEST_NAMES
"""The features' list; a model says which list it was trained with."""
VERSION: Final = 1
UNKNOWN: Final = wire.UNKNOWN
UNSAID: Final = 0.5  # between contradiction and agreement
_BLANK: Final = (0.0, *[UNKNOWN] * (len(wire.NAMES) - 1))  # without prints: plain HTTP, or behind a trusted proxy
_HINTS: Final = {"windows": b"Windows", "mac": b"macOS", "linux": b"Linux", "android": b"Android", "chromeos": b"Chrom"}
_SITES: Final = {b"none": 1.0, b"same-origin": 2.0, b"same-site": 3.0, b"cross-site": 4.0}
_MODES: Final = frozenset({b"navigate", b"cors", b"no-cors", b"same-origin", b"websocket"})
_PAGES: Final = frozenset({b"document", b"iframe", b"frame", b"embed", b"object", b"fencedframe"})
UNHINTED: Final = frozenset({b"serviceworker", b"sharedworker", b"worker"})
_PARTS: Final = frozenset({
    b"audio", b"audioworklet", b"empty", b"font", b"image", b"json", b"manifest", b"paintworklet", b"report", b"script",
    b"serviceworker", b"sharedworker", b"style", b"text", b"track", b"video", b"webidentity", b"worker", b"xslt", b"object",
    b"embed",
})  # fmt: skip
_SINCE_FETCH: Final = {CHROMIUM: 80, FIREFOX: 90, SAFARI: 17}  # majors that send sec-fetch-* with every request over TLS


def vector(
    request: Request, now: float, fields: dict[bytes, bytes] | None = None, *, hidden: bool = False
) -> list[float]:  # fmt: skip
    """One row.

    Args:
        request: as the client sent it.
        now: seconds since 1970.
        fields: its headers as a dict, where somebody has made it already.
        hidden: the connection is not the client's own.
    """
    prints = None if hidden else request.peer.prints
    if fields is None:
        fields = dict(request.headers)  # of a field that comes twice the last, where the first one came
    agent = read_agent(fields.get(b"user-agent"))
    # Of Safari's QUIC nothing was measured: what it looks like must not be held against it.
    numbers = _BLANK if prints is None or (prints.h3 is not None and agent.family == SAFARI) else wire.connection(prints)
    return [*numbers, *_request(request, fields, agent, numbers, now)]


def _request(
    request: Request, fields: dict[bytes, bytes], agent: Agent, numbers: tuple[float, ...], now: float
) -> tuple[float, ...]:
    get, family, secure = fields.get, agent.family, request.peer.secure
    browser = family != OTHER
    site, mode, dest, user = get(b"sec-fetch-site"), get(b"sec-fetch-mode"), get(b"sec-fetch-dest"), get(b"sec-fetch-user")
    hints, platform, small = get(b"sec-ch-ua"), get(b"sec-ch-ua-platform"), get(b"sec-ch-ua-mobile")
    accept, kind = get(b"accept"), get(b"content-type")
    passed_on = mode == b"navigate" and dest == b"empty"  # by a service worker: it writes the fields anew, as for a script
    navigates = mode == b"navigate" and not passed_on
    writes = request.method not in _READING
    names = tuple(fields)
    of_itself = reports(request, fields, family)
    hinting = secure and family == CHROMIUM and not of_itself
    bits = _coding(get(b"accept-encoding"))
    agreements = (
        float(browser and agent.mozilla),
        0.0 if agent.tool or (hints is not None and b"Headless" in hints) else UNSAID,
        _agree(b"image/apng" in accept, family == CHROMIUM) if navigates and accept is not None and browser else UNSAID,
        _coding_agrees(bits, agent, dest),
        _language(get(b"accept-language"), family),
        UNSAID if passed_on else _fetch_legal(site, mode, dest, user, accept),
        _present(mode, secure and agent.major >= _SINCE_FETCH.get(family, 10_000) and not (request.upgrade or of_itself), family),
        _present(hints, hinting and agent.major >= 90 and not _unhinted(request, dest), family, SAFARI, FIREFOX),
        *(hinted(hints, agent) if hints is not None and family == CHROMIUM else _NO_HINTS),
        hints_order(names, navigates) if hints is not None and mode is not None and family == CHROMIUM else UNSAID,
        _platform(platform, agent),
        _agree(small == b"?1", agent.mobile) if small is not None else UNSAID,
        _agree(b"upgrade-insecure-requests" in fields, navigates)
        if mode is not None and family in _UPGRADING and not passed_on
        else UNSAID,
        _priority(get(b"priority"), agent, request.protocol == 0, mode, dest),
        _origin(b"origin" in fields, writes, mode, site) if browser else UNSAID,
        0.0 if site == b"none" and b"referer" in fields else UNSAID,
        float(kind.startswith(_FORMS)) if navigates and writes and kind is not None else UNSAID,
        *_layers(request, numbers, family),
    )
    return (
        float(request.protocol),
        float(writes),
        float(family),
        float(agent.tool),
        float(agent.mozilla),
        float(agent.mobile),
        age(agent, now),
        float(agent.frozen) if family == CHROMIUM else UNKNOWN,
        disorder(family, names),
        _accept(accept),
        bits,
        float((site is not None) + (mode is not None) + (dest is not None) + (user is not None)),
        _SITES.get(site, 5.0) if site is not None else 0.0,
        float(b"referer" in fields),
        float((hints is not None) + (platform is not None) + (small is not None)),
        _era(numbers, agent) if numbers[_TLS] == 1.0 else 0.0,
        *agreements,
        float(agreements.count(0.0)),
    )


def _layers(request: Request, numbers: tuple[float, ...], family: int) -> tuple[float, float, float, float, float]:
    """Whether TLS, HTTP/2 and HTTP/3 are built like the claimed browser's, are one browser's, and offer what it would."""
    tls, h2, h3 = numbers[_TLS_FAMILY], numbers[_H2_FAMILY], numbers[_H3_FAMILY]
    has_tls, has_h2, has_h3 = numbers[_TLS] == 1.0, numbers[_H2] == 1.0, numbers[_H3] == 1.0
    # Only for WebSockets a browser offers HTTP/1.1 alone.
    offers = has_tls and family != OTHER and request.protocol < 2 and not request.upgrade
    return (
        _layer(tls, family) if has_tls else UNSAID,
        _layer(h2, family) if has_h2 else UNSAID,
        _layer(h3, family) if has_h3 else UNSAID,
        _agree(tls == (h2 if has_h2 else h3), True) if has_tls and (has_h2 or has_h3) else UNSAID,
        _agree(numbers[_ALPN] == 2.0, True) if offers else UNSAID,
    )


_NO_HINTS: Final = (UNSAID, UNSAID, UNSAID)
_UPGRADING: Final = frozenset({CHROMIUM, FIREFOX})  # Safari does not say it over TLS
_FORMS: Final = (b"application/x-www-form-urlencoded", b"multipart/form-data", b"text/plain")  # what a form can send
_READING: Final = frozenset({b"GET", b"HEAD"})
_AT: Final = {name: at for at, name in enumerate(wire.NAMES)}
_TLS_FAMILY, _H2_FAMILY, _H3_FAMILY = _AT["tls_family"], _AT["h2_family"], _AT["h3_family"]
_TLS, _H2, _H3, _ALPN = _AT["tls_known"], _AT["h2"], _AT["h3"], _AT["tls_alpn"]
_PQ, _ALPS_NEW, _ALPS_OLD, _ECH = _AT["tls_pq_share"], _AT["tls_alps_new"], _AT["tls_alps_old"], _AT["tls_ech"]


def _unhinted(request: Request, dest: bytes | None) -> bool:
    """What Chromium sends without client hints: preflights, handshakes of WebSockets, and for scripts of workers."""
    return request.upgrade or dest in UNHINTED or request.method == b"OPTIONS"


def reports(request: Request, fields: dict[bytes, bytes], family: int) -> bool:
    """Chromium tells of errors (Reporting API, Network Error Logging), or asks first whether it may. Its network stack does so by
    itself: without Accept, client hints and Sec-Fetch fields (measured with 156; the Fetch standard's would have them)."""
    if family != CHROMIUM or b"origin" not in fields:
        return False
    if request.method == b"OPTIONS":
        asked = fields.get(b"access-control-request-method"), fields.get(b"access-control-request-headers")
        return asked == (b"POST", b"content-type") and b"sec-fetch-mode" not in fields
    return request.method not in _READING and fields.get(b"content-type") == b"application/reports+json"


def _agree(one: bool, other: bool) -> float:
    return 1.0 if one == other else 0.0


def _layer(built: float, family: int) -> float:
    """A layer built like that family's, or like no browser's where none is claimed (libraries: nothing is said)."""
    if family == OTHER and built == OTHER:
        return UNSAID
    return _agree(built == family, True)


def _present(value: bytes | None, expected: bool, family: int, *never: int) -> float:
    """A field that a claimed browser sends with everything, or never; nobody but browsers has a reason to send it."""
    if family == OTHER:
        return UNSAID if value is None else 0.0
    if value is None:
        return 0.0 if expected else UNSAID
    return 0.0 if family in never else 1.0


def _accept(value: bytes | None) -> float:
    """0 none, 1 anything, 2 a page, 3 JSON, 4 a picture, 5 events, 6 something else."""
    if value is None:
        return 0.0
    if value == b"*/*":
        return 1.0
    if value.startswith(b"text/html"):
        return 2.0
    if value.startswith(b"application/json"):
        return 3.0
    if value.startswith(b"image/"):
        return 4.0
    return 5.0 if value.startswith(b"text/event-stream") else 6.0


def _coding(value: bytes | None) -> float:
    """Codings as bits: gzip 1, deflate 2, br 4, zstd 8, others 16; -1 for none."""
    if value is None:
        return UNKNOWN
    found = _KNOWN_CODINGS.get(value)
    if found is not None:
        return found
    bits = 0
    for word in value.split(b",", 8):
        bits |= _CODINGS.get(word.strip(), 16)
    return float(bits)


def _coding_agrees(bits: float, agent: Agent, dest: bytes | None) -> float:
    """Whether the claimed browser would say so."""
    family, major = agent.family, agent.major
    if family == OTHER or dest in _MEDIA:  # ranges of media are asked for as they are
        return UNSAID
    if family == SAFARI:
        return float(bits in {7.0, 15.0})
    zstd = (family == CHROMIUM and major >= 123) or (family == FIREFOX and major >= 126)
    return float(bits == (15.0 if zstd else 7.0))


_MEDIA: Final = frozenset({b"video", b"audio"})
_KNOWN_CODINGS: Final = {b"gzip, deflate, br, zstd": 15.0, b"gzip, deflate, br": 7.0}
_CODINGS: Final = {b"gzip": 1, b"deflate": 2, b"br": 4, b"zstd": 8}


def _language(value: bytes | None, family: int) -> float:
    """Whether languages are weighed as browsers do; every person has some. Which they are must not matter."""
    if family == OTHER:
        return UNSAID
    if not value:
        return 0.0
    found = _languages.get(value)
    if found is None:
        if len(_languages) >= _KEPT:
            _languages.clear()
        found = _weighed(value)
        if len(value) <= _LONGEST:
            _languages[value] = found
    return found


def _weighed(value: bytes) -> float:
    if b", " in value or b"; " in value or b"*" in value:
        return 0.0
    parts = value.split(b",", 16)
    return float(b";q=" not in parts[0] and all(b";q=0." in each for each in parts[1:]))


_KEPT: Final = 1024  # texts that are remembered; more, and all are forgotten
_LONGEST: Final = 128  # bytes of one
_languages: dict[bytes, float] = {}


def _fetch_legal(site: bytes | None, mode: bytes | None, dest: bytes | None, user: bytes | None, accept: bytes | None) -> float:
    """Whether sec-fetch-* together are what the Fetch standard can make."""
    if site is None and mode is None and dest is None and user is None:
        return UNSAID
    if site not in _SITES or mode not in _MODES or dest is None:
        return 0.0
    if mode == b"navigate":
        return float(dest in _PAGES and (user is None or user == b"?1") and accept is not None and b"html" in accept)
    # Without a page there is nobody who could ask for a part of one; icons are the one exception.
    return float(user is None and (dest in _PARTS or mode == b"websocket") and (site != b"none" or dest == b"image"))


def _platform(platform: bytes | None, agent: Agent) -> float:
    if platform is None or agent.family != CHROMIUM:
        return UNSAID
    expected = _HINTS.get(agent.system)
    return UNSAID if expected is None else float(expected in platform)


def _priority(value: bytes | None, agent: Agent, first: bool, mode: bytes | None, dest: bytes | None) -> float:
    """RFC 9218's field: pages have the highest urgency and scripts' requests a lower one, in Chromium since 124, in Firefox since
    128; over HTTP/1.1 only in Firefox. Of Safari not enough was measured."""
    family, major = agent.family, agent.major
    since = _SINCE_PRIORITY.get(family)
    if since is None or mode is None:
        return UNSAID
    page = mode == b"navigate" and dest == b"document"
    if value is None:
        return 0.0 if page and major >= since and not first else UNSAID
    if major < since - 2 or (first and family == CHROMIUM):
        return 0.0
    if page:
        return float(value == b"u=0, i")
    return float(value != b"u=0, i") if dest == b"empty" else UNSAID


_SINCE_PRIORITY: Final = {CHROMIUM: 124, FIREFOX: 128}


def _origin(present: bool, writes: bool, mode: bytes | None, site: bytes | None) -> float:
    """Scripts' writing requests have an Origin, what a person asks for has none (the Fetch standard, §3.2)."""
    if mode == b"cors" and writes:
        return float(present)
    return 0.0 if present and site == b"none" else UNSAID


def _era(numbers: tuple[float, ...], agent: Agent) -> float:
    """How many changes of its TLS the claimed version has missed, or has too early."""
    major, wrong = agent.major, 0
    if agent.family == CHROMIUM:
        desktop = not agent.mobile
        wrong += numbers[_PQ] == 0.0 and major >= 131
        wrong += numbers[_PQ] == 1.0 and major < 116
        wrong += numbers[_ALPS_NEW] == 0.0 and numbers[_ALPS_OLD] == 1.0 and major >= 138
        wrong += numbers[_ALPS_NEW] == 1.0 and major < 131
        wrong += numbers[_ECH] == 0.0 and major >= 120 and desktop
    elif agent.family == FIREFOX:
        wrong += numbers[_PQ] == 0.0 and major >= 135
        wrong += numbers[_PQ] == 1.0 and major < 124
        wrong += numbers[_ECH] == 0.0 and major >= 120
    elif agent.family == SAFARI:
        wrong += numbers[_PQ] == 1.0 and major < 26
    else:
        return 0.0
    return float(wrong)
