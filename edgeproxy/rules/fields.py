# Every field of the rules language: its type, where its value comes from, and what may change between equal heads.
"""`FIELDS` by name, and `Facts`: the values of one request, each computed when it is first asked for and then kept.

A field that Cloudflare has and this edge does not know (yet) is a missing value, and so is a header that was not sent;
`http.host`, `http.user_agent`, `http.referer`, `http.cookie` and `http.x_forwarded_for` are empty strings then, as there.
A field is *stable* if it follows from the head, the client and the configuration: rules that read nothing else are
decided once for all equal heads of a connection (plan.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from edgeproxy.message import Request
from edgeproxy.rules.addresses import client_code
from edgeproxy.rules.syntax import BOOL, BYTES, INT, IP, Type, array, mapping

STRINGS: Final = array(BYTES)
_MULTI: Final = mapping(STRINGS)
_VERSIONS: Final = (b"HTTP/1.1", b"HTTP/2", b"HTTP/3")  # by the indices of observe.metrics.PROTOCOLS
_EXTENSION: Final = re.compile(rb"/[^/]*\.([A-Za-z0-9]{1,16})$")
_QUALITY: Final = re.compile(rb"\s*;\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*", re.IGNORECASE)
_MAX_LANGUAGES: Final = 64


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """One field.

    Attributes:
        slot: the attribute of `Facts` that holds it.
        stable: see the module.
        always: never a missing value.
        cost: about how dear the first look is (a comparison is 1).
        refused: why rules cannot use it, empty when they can.
        known: this edge has a value for it at all.
    """

    name: str
    type: Type
    slot: str
    stable: bool = True
    always: bool = False
    cost: int = 1
    refused: str = ""
    known: bool = True


# -- values ----------------------------------------------------------------------------------------------------------


def _joined(name: bytes) -> Callable[[Facts], bytes]:
    """All lines of a header as one; empty when it was not sent."""

    def value(facts: Facts) -> bytes:
        lines, headers = facts.header_lines, facts.request.headers
        if len(lines) == len(headers):  # no name twice
            return lines.get(name, b"")  # type: ignore[no-any-return]  # a slot: a dict of bytes
        return b", ".join(each for key, each in headers if key == name)

    return value


def _cookie(facts: Facts) -> bytes:
    lines, headers = facts.header_lines, facts.request.headers
    if len(lines) == len(headers):
        return lines.get(b"cookie", b"")  # type: ignore[no-any-return]  # a slot: a dict of bytes
    return b"; ".join(value for name, value in facts.request.headers if name == b"cookie")


def _headers(facts: Facts) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {b"host": [facts.request.authority]}
    lines, headers = facts.header_lines, facts.request.headers
    if len(lines) == len(headers) and b"host" not in lines:  # no name twice
        for name, value in headers:
            found[name] = [value]
        return found
    for name, value in headers:
        found.setdefault(name, []).append(value)
    return found


def _header_text(facts: Facts) -> bytes:
    lines, headers = facts.header_lines, facts.request.headers
    values = lines.values() if len(lines) == len(headers) else [value for _, value in headers]
    return b"\n".join([facts.request.authority, *values])


def _pairs(text: bytes, separator: bytes) -> dict[bytes, list[bytes]]:
    """`a=1&b=2` as a map; a name without `=` has an empty value. Nothing is decoded: Cloudflare does not either."""
    found: dict[bytes, list[bytes]] = {}
    for part in text.split(separator):
        name, _, value = part.strip(b" ").partition(b"=") if separator == b";" else part.partition(b"=")
        if part:
            found.setdefault(name, []).append(value)
    return found


def _names(slot: str) -> Callable[[Facts], list[bytes]]:
    return lambda facts: [name for name, values in getattr(facts, slot).items() for _ in values]


def _values(slot: str) -> Callable[[Facts], list[bytes]]:
    return lambda facts: [value for values in getattr(facts, slot).values() for value in values]


def _extension(facts: Facts) -> bytes | None:
    found = _EXTENSION.search(facts.http_request_uri_path)
    return found[1].lower() if found is not None else None


def _languages(facts: Facts) -> list[bytes]:
    """Accept-Language, the most wanted first (RFC 9110 §12.5.4)."""
    ranked = []
    for part in _joined(b"accept-language")(facts).split(b",")[:_MAX_LANGUAGES]:
        tag, _, _ = part.partition(b";")
        quality = _QUALITY.search(part)
        if tag.strip():
            ranked.append((-float(quality[1]) if quality is not None else -1.0, tag.strip()))
    return [tag for _, tag in sorted(ranked, key=lambda each: each[0])]


def _seconds(facts: Facts) -> int:
    return facts.http_request_timestamp_msec // 1000  # type: ignore[no-any-return]  # a field: an int


_OWN: Final[dict[str, Callable[[Facts], Any]]] = {
    "cf.random_seed": lambda _: os.urandom(32),
    "cf.ray_id": lambda facts: facts.ray,
    "cf.threat_score": lambda _: 0,  # retired by Cloudflare: always 0
    "http.cookie": _cookie,
    "http.host": lambda facts: facts.host.encode("ascii"),
    "http.referer": _joined(b"referer"),
    "http.request.accepted_languages": _languages,
    "http.request.cookies": lambda facts: _pairs(facts.http_cookie, b";"),
    "http.request.full_uri": lambda facts: (
        (b"https://" if facts.ssl else b"http://") + facts.http_host + facts.http_request_uri
    ),
    "http.request.headers": _headers,
    "http.request.headers.names": _names("http_request_headers"),
    "http.request.headers.truncated": lambda _: False,  # longer heads are refused before rules
    "http.request.headers.values": _values("http_request_headers"),
    "http.request.method": lambda facts: facts.request.method,
    "http.request.timestamp.msec": lambda facts: int(facts.clock() * 1000),
    "http.request.timestamp.sec": _seconds,
    "http.request.uri": lambda facts: facts.request.target,
    "http.request.uri.args": lambda facts: _pairs(facts.http_request_uri_query, b"&"),
    "http.request.uri.args.names": _names("http_request_uri_args"),
    "http.request.uri.args.values": _values("http_request_uri_args"),
    "http.request.uri.path": lambda facts: facts.request.target.partition(b"?")[0],
    "http.request.uri.path.extension": _extension,
    "http.request.uri.query": lambda facts: facts.request.target.partition(b"?")[2],
    "http.request.version": lambda facts: _VERSIONS[facts.request.protocol],
    "http.user_agent": _joined(b"user-agent"),
    "http.x_forwarded_for": _joined(b"x-forwarded-for"),
    "ip.src": lambda facts: client_code(facts.client),
    "ssl": lambda facts: facts.request.peer.secure,
}
_URIS: Final = ("http.request.full_uri", "http.request.uri")
# Nothing rewrites a request yet, so both say the same; when something does, these keep the request as it came.
_RAW: Final = {f"raw.{name}": source for name, source in _OWN.items() if name.startswith(_URIS)}
_SOURCES: Final = {**_OWN, **_RAW}

# -- the table -------------------------------------------------------------------------------------------------------

_BODY: Final = "request bodies are not read for rules yet"
_RESPONSE: Final = "it is known in the response phase only, which is not built yet"
_UNSTABLE: Final = frozenset({
    "cf.random_seed", "cf.ray_id", "http.request.timestamp.msec", "http.request.timestamp.sec",
})  # fmt: skip
_MAY_MISS: Final = frozenset({"http.request.uri.path.extension", "ip.src", "raw.http.request.uri.path.extension", "cf.ray_id"})
_COSTS: Final = {
    "http.request.accepted_languages": 8, "http.request.cookies": 6, "http.request.headers": 4,
    "http.request.headers.names": 6, "http.request.headers.values": 6, "http.request.uri.args": 4,
    "http.request.uri.args.names": 6, "http.request.uri.args.values": 6, "http.request.uri.path.extension": 3,
    "ip.src": 2, "cf.random_seed": 3, "http.request.full_uri": 2,
}  # fmt: skip
_TYPES: Final[dict[Type, str]] = {
    BYTES: """
        cf.bot_management.ja3_hash cf.bot_management.ja4 cf.random_seed cf.ray_id cf.tls_cipher
        cf.tls_client_auth.cert_fingerprint_sha1 cf.tls_client_auth.cert_fingerprint_sha256
        cf.tls_client_auth.cert_issuer_dn cf.tls_client_auth.cert_issuer_dn_legacy cf.tls_client_auth.cert_issuer_dn_rfc2253
        cf.tls_client_auth.cert_issuer_serial cf.tls_client_auth.cert_issuer_ski cf.tls_client_auth.cert_not_after
        cf.tls_client_auth.cert_not_before cf.tls_client_auth.cert_serial cf.tls_client_auth.cert_ski
        cf.tls_client_auth.cert_subject_dn cf.tls_client_auth.cert_subject_dn_legacy
        cf.tls_client_auth.cert_subject_dn_rfc2253 cf.tls_client_random cf.tls_version cf.verified_bot_category http.cookie
        http.host http.referer http.request.body.mime http.request.body.raw http.request.full_uri http.request.method
        http.request.uri http.request.uri.path http.request.uri.path.extension http.request.uri.query http.request.version
        http.response.content_type.media_type http.user_agent http.x_forwarded_for ip.src.city ip.src.continent
        ip.src.country ip.src.region ip.src.region_code raw.http.request.full_uri raw.http.request.uri
        raw.http.request.uri.path raw.http.request.uri.path.extension raw.http.request.uri.query""",
    INT: """
        cf.bot_management.score cf.edge.server_port cf.llm.prompt.injection_score cf.llm.prompt.token_count cf.threat_score
        cf.timings.client_quic_rtt_msec cf.timings.client_tcp_rtt_msec cf.timings.edge_msec cf.timings.origin_ttfb_msec
        cf.timings.worker_msec cf.tls_client_hello_length http.request.body.size http.request.timestamp.msec
        http.request.timestamp.sec http.response.code ip.src.asnum""",
    BOOL: """
        cf.bot_management.corporate_proxy cf.bot_management.js_detection.passed cf.bot_management.signed_agent
        cf.bot_management.static_resource cf.bot_management.verified_bot cf.client.bot cf.edge.client_tcp cf.llm.prompt.detected
        cf.llm.prompt.pii_detected cf.tls_client_auth.cert_presented cf.tls_client_auth.cert_revoked
        cf.tls_client_auth.cert_verified http.request.body.truncated http.request.headers.truncated
        ip.src.is_in_european_union ssl""",
    IP: "cf.edge.server_ip ip.src",
    STRINGS: """
        cf.llm.prompt.pii_categories http.request.accepted_languages http.request.body.form.names
        http.request.body.form.values http.request.headers.names http.request.headers.values
        http.request.jwt.claims.aud.names http.request.jwt.claims.aud.values http.request.jwt.claims.iat.sec.names
        http.request.jwt.claims.iss.names http.request.jwt.claims.iss.values http.request.jwt.claims.jti.names
        http.request.jwt.claims.jti.values http.request.jwt.claims.nbf.sec.names http.request.jwt.claims.sub.names
        http.request.jwt.claims.sub.values http.request.uri.args.names http.request.uri.args.values
        http.response.headers.names http.response.headers.values raw.http.request.uri.args.names
        raw.http.request.uri.args.values raw.http.response.headers.names raw.http.response.headers.values""",
    array(INT): """
        cf.bot_management.detection_ids http.request.jwt.claims.iat.sec.values http.request.jwt.claims.nbf.sec.values""",
    _MULTI: """
        http.request.body.form http.request.cookies http.request.headers http.request.jwt.claims.aud
        http.request.jwt.claims.iss http.request.jwt.claims.jti http.request.jwt.claims.sub http.request.uri.args
        http.response.headers raw.http.request.uri.args raw.http.response.headers""",
    mapping(array(INT)): "http.request.jwt.claims.iat.sec http.request.jwt.claims.nbf.sec",
}


def _info(name: str, kind: Type) -> FieldInfo:
    known = name in _SOURCES
    body, response = name.startswith("http.request.body."), name.startswith(("http.response.", "raw.http.response."))
    return FieldInfo(
        name,
        kind,
        name.replace(".", "_"),
        stable=name not in _UNSTABLE,
        always=known and name not in _MAY_MISS,
        cost=_COSTS.get(name.removeprefix("raw."), 1),
        refused=_BODY if body else _RESPONSE if response else "",
        known=known,
    )


FIELDS: Final[dict[str, FieldInfo]] = {name: _info(name, kind) for kind, names in _TYPES.items() for name in names.split()}


def lower_slot(info: FieldInfo) -> str:
    """Where a string field is kept in lower case: most rules that look at one twice do so."""
    return f"lower_{info.slot}"


def text_slot(slot: str) -> str:
    """Where a string is kept as Python's text, a character for each byte: `in` is seven times as fast there."""
    return f"text_{slot}"


# Fields that are mostly looked at as text or in lower case, and cost less to make again than to keep.
_MADE_AGAIN: Final = frozenset({
    "http.cookie", "http.referer", "http.request.uri.query", "http.user_agent", "http.x_forwarded_for",
})  # fmt: skip


def _reader(info: FieldInfo) -> Callable[[Facts], bytes | None]:
    return _SOURCES[info.name] if info.name in _MADE_AGAIN else attrgetter(info.slot)


def _lowered(info: FieldInfo) -> Callable[[Facts], bytes | None]:
    read = _reader(info)

    def value(facts: Facts) -> bytes | None:
        content = read(facts)
        return content.lower() if content is not None else None

    return value


def _as_text(info: FieldInfo) -> Callable[[Facts], str | None]:
    read = _reader(info)

    def value(facts: Facts) -> str | None:
        content = read(facts)
        return content.decode("latin-1") if content is not None else None

    return value


def _lowered_text(info: FieldInfo) -> Callable[[Facts], str | None]:
    read = _reader(info)

    def value(facts: Facts) -> str | None:
        content = read(facts)
        return content.lower().decode("latin-1") if content is not None else None  # not str.lower: it knows É

    return value


_STRINGS: Final = [info for info in FIELDS.values() if info.type == BYTES]
_BY_SLOT: Final[dict[str, Callable[[Facts], Any]]] = {
    # No fields, but what others are made of or looked for in: the last line of each name, and all values as one text.
    "header_lines": lambda facts: dict(facts.request.headers),
    "lower_header_text": lambda facts: _header_text(facts).lower(),
    "text_lower_header_text": lambda facts: _header_text(facts).lower().decode("latin-1"),
    **{info.slot: _SOURCES.get(info.name, lambda _: None) for info in FIELDS.values()},
    **{lower_slot(info): _lowered(info) for info in _STRINGS},
    **{text_slot(info.slot): _as_text(info) for info in _STRINGS},
    **{text_slot(lower_slot(info)): _lowered_text(info) for info in _STRINGS},
}


class _Slot:
    """Where a field is on `Facts`: asked when the instance has no such attribute yet, it computes the value and keeps it there.

    No `__set__`: Python then finds the instance's own attribute first, so that every later look is a plain one.
    """

    __slots__ = ("name", "source")

    def __init__(self, name: str, source: Callable[[Facts], Any]) -> None:
        self.name = name
        self.source = source

    def __get__(self, facts: Facts, owner: type[Facts]) -> Any:
        value = self.source(facts)
        setattr(facts, self.name, value)
        return value


class Facts:
    """The fields of one request, by slot. Reading one that is not there yet computes and keeps it.

    No `__slots__`: an object with room for every field costs five times as much to make and to free as one that holds the
    few fields that were read.

    Attributes:
        request: as received.
        host: of the authority, lower case, without port.
        client: textual address of the client; empty for Unix sockets.
        ray: id of the exchange; None while a plan is made, which no exchange owns.
        clock: gives seconds since the epoch.
    """

    request: Request
    host: str
    client: str
    ray: bytes | None
    clock: Callable[[], float]

    def __init__(self, request: Request, host: str, client: str, ray: bytes | None, clock: Callable[[], float]) -> None:
        self.request = request
        self.host = host
        self.client = client
        self.ray = ray
        self.clock = clock

    if TYPE_CHECKING:

        def __getattr__(self, slot: str) -> Any:
            """The fields: their names are data."""


for _name, _source in _BY_SLOT.items():
    setattr(Facts, _name, _Slot(_name, _source))
