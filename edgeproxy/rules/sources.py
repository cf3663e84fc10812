# Where the value of each field of the rules language comes from; nothing here is kept, that is the business of facts.py.
"""`SOURCES`: by the name of a field, a function of `Facts` that gives its value, None where it is missing.

A header that was not sent is missing, but `http.host`, `http.user_agent`, `http.referer`, `http.cookie` and
`http.x_forwarded_for` are empty strings then, as at Cloudflare.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from edgeproxy.rules import body
from edgeproxy.rules.addresses import client_code
from edgeproxy.rules.client import CLIENT

if TYPE_CHECKING:
    from edgeproxy.bots.score import Score
    from edgeproxy.bots.signals import Signal
    from edgeproxy.message import Headers
    from edgeproxy.rules.facts import Facts

Source = Callable[["Facts"], Any]

_VERSIONS: Final = (b"HTTP/1.1", b"HTTP/2", b"HTTP/3")  # by the indices of observe.metrics.PROTOCOLS
_QUALITY: Final = re.compile(rb"[01](?:\.[0-9]{0,3})?")
_MAX_LANGUAGES: Final = 64
# Fields of bots/signals.py below edge.ja4, by the names that Cloudflare gives to its JA4 signals; ratios are percent here.
SIGNALS: Final = {
    "browser_percent_1h": "browser", "h2h3_percent_1h": "h2h3", "heuristic_percent_1h": "heuristic",
    "ips_quantile_1h": "addresses_quantile", "ips_rank_1h": "addresses_rank", "paths_rank_1h": "paths_rank",
    "reqs_quantile_1h": "requests_quantile", "reqs_rank_1h": "requests_rank", "uas_rank_1h": "agents_rank",
}  # fmt: skip
# What Cloudflare lists as static by its extension.
STATIC: Final = frozenset(
    b"""ai avi avif bin bmp cab css csv doc docx dmg dot eot eps exe f4v flv gif gz heic htc html ico ipa jar jpeg jpg
    js json less m4a m4v map mid midi mov mp3 mp4 mpeg mpg msi ogg ogv otf pdf pict pls png ppt pptx ps psd rar
    rtf scss sfnt sh sit sitx svg svgz swf tar tgz tif tiff ttf txt wav webm webp wma wmv woff woff2 xls xlsx xml
    zip"""
    .split()
)


def _joined(name: bytes, separator: bytes = b", ") -> Source:
    """All lines of a header as one; empty when it was not sent."""

    def value(facts: Facts) -> bytes:
        lines, headers = facts.header_lines, facts.request.headers
        if len(lines) == len(headers):  # no name twice
            return lines.get(name, b"")  # type: ignore[no-any-return]  # a slot: a dict of bytes
        return separator.join(each for key, each in headers if key == name)

    return value


def _headers(facts: Facts) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {b"host": [facts.request.authority]}
    lines, headers = facts.header_lines, facts.request.headers
    if len(lines) == len(headers) and b"host" not in lines:  # no name twice
        for name, value in headers:
            found[name] = [value]
        return found
    return _grouped([(b"host", facts.request.authority), *headers])


def header_text(facts: Facts) -> bytes:
    """The values of all headers, a line for each."""
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


def _names(slot: str) -> Source:
    return lambda facts: [name for name, values in getattr(facts, slot).items() for _ in values]


def _values(slot: str) -> Source:
    return lambda facts: [value for values in getattr(facts, slot).values() for value in values]


def _header_names(facts: Facts) -> list[bytes]:
    lines, headers = facts.header_lines, facts.request.headers
    if len(lines) == len(headers) and b"host" not in lines:  # no name twice
        return [b"host", *lines]
    return [name for name, values in facts.http_request_headers.items() for _ in values]


def _header_values(facts: Facts) -> list[bytes]:
    lines, headers = facts.header_lines, facts.request.headers
    if len(lines) == len(headers) and b"host" not in lines:  # no name twice
        return [facts.request.authority, *lines.values()]
    return [value for values in facts.http_request_headers.values() for value in values]


def _cookies(facts: Facts) -> dict[bytes, list[bytes]]:
    """The names decoded (two that are one then have their values together), the values as they are: as at Cloudflare."""
    found: dict[bytes, list[bytes]] = {}
    for name, values in _pairs(facts.http_cookie, b";").items():
        found.setdefault(unquote_to_bytes(name) if b"%" in name else name, []).extend(values)
    return found


def _header(facts: Facts, name: bytes) -> list[bytes] | None:
    lines, headers = facts.header_lines, facts.request.headers
    if len(lines) == len(headers) and name != b"host":  # no name twice
        value = lines.get(name)
        return [value] if value is not None else None
    return facts.http_request_headers.get(name)  # type: ignore[no-any-return]  # a slot: the map of these


def _cookie(facts: Facts, name: bytes) -> list[bytes] | None:
    text = facts.http_cookie
    # Names are decoded: where nothing is encoded, one that is not in the text is no name.
    if name not in text and b"%" not in text:
        return None
    return facts.http_request_cookies.get(name)  # type: ignore[no-any-return]  # a slot: the map of these


# One entry of a map, for which the whole of it need not be made.
ENTRIES: Final[dict[str, Callable[[Facts, bytes], list[bytes] | None]]] = {
    "http.request.cookies": _cookie,
    "http.request.headers": _header,
}


def _extension(facts: Facts) -> bytes:
    """What follows the last dot of the last segment; nothing where that dot begins the segment."""
    stem, _, extension = facts.http_request_uri_path.rpartition(b"/")[2].rpartition(b".")
    return extension.lower() if stem else b""


def _languages(facts: Facts) -> list[bytes]:
    """Accept-Language, the most wanted first (RFC 9110 §12.5.4); `*` is no language."""
    ranked = []
    for part in _joined(b"accept-language")(facts).split(b",")[:_MAX_LANGUAGES]:
        tag, *parameters = part.split(b";")
        if tag.strip() not in (b"", b"*"):
            ranked.append((-_quality(parameters), tag.strip()))
    return [tag for _, tag in sorted(ranked, key=lambda each: each[0])]


def _quality(parameters: list[bytes]) -> float:
    """Cut and not searched for: a regex that may begin with blanks takes quadratic time over a header of blanks."""
    for parameter in parameters:
        name, _, value = parameter.partition(b"=")
        found = _QUALITY.match(value.strip()) if name.strip() in (b"q", b"Q") else None
        if found is not None:
            return float(found[0])
    return 1.0


def moment(facts: Facts) -> int:
    """Milliseconds since the epoch: both fields of the time are of one moment."""
    return int(facts.clock() * 1000)


# -- the reply -------------------------------------------------------------------------------------------------------


def _grouped(lines: Iterable[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in lines:
        found.setdefault(name, []).append(value)
    return found


def _reply(value: Callable[[Headers], Any], slot: str) -> Source:
    """Something of a reply's field lines; missing while there is no reply."""

    def source(facts: Facts) -> Any:
        reply = getattr(facts, slot)
        return value(reply.headers) if reply is not None else None

    return source


def _replies(prefix: str, slot: str) -> dict[str, Source]:
    return {
        f"{prefix}http.response.headers": _reply(_grouped, slot),
        f"{prefix}http.response.headers.names": _reply(lambda lines: [name for name, _ in lines], slot),
        f"{prefix}http.response.headers.values": _reply(lambda lines: [value for _, value in lines], slot),
    }


def _reply_type(lines: Headers) -> bytes | None:
    return body.media_type(next((value for name, value in lines if name == b"content-type"), None))


def _key(facts: Facts, what: str) -> bytes | None:
    return getattr(facts.key, what).encode("ascii") if facts.key is not None else None


def _score(pick: Callable[[Score], Any]) -> Source:
    """Something of the score; missing where nobody scores."""
    return lambda facts: pick(facts.bot) if facts.bot is not None else None


def _signal(pick: Callable[[Signal], int]) -> Source:
    """Something of how the programs of a fingerprint behave; missing where nothing is known of it."""
    return lambda facts: pick(facts.signal) if facts.signal is not None else None


def _category(score: Score) -> bytes:
    bot = score.identity.bot if score.identity is not None and score.identity.verified else None
    return bot.category.encode("ascii") if bot is not None else b""


def _dialect(facts: Facts) -> bytes | None:
    return facts.dialect.encode("ascii") if facts.dialect is not None else None


# -- the table -------------------------------------------------------------------------------------------------------

_OWN: Final[dict[str, Source]] = {
    "cf.bot_management.corporate_proxy": lambda facts: facts.scored.proxied if facts.scored is not None else None,
    "cf.bot_management.detection_ids": _score(lambda score: score.ids),
    "cf.bot_management.js_detection.passed": _score(lambda score: score.passed),
    "cf.bot_management.score": _score(lambda score: score.value),
    "cf.bot_management.signed_agent": _score(lambda score: score.identity is not None and score.identity.signed),
    "cf.bot_management.static_resource": lambda facts: facts.http_request_uri_path_extension in STATIC,
    "cf.bot_management.verified_bot": _score(lambda score: score.verified),
    "cf.client.bot": _score(lambda score: score.verified),
    "cf.verified_bot_category": _score(_category),
    "cf.random_seed": lambda _: os.urandom(32),
    "cf.ray_id": lambda facts: facts.ray,
    "cf.threat_score": lambda _: 0,  # retired by Cloudflare: always 0
    "cf.worker.upstream_zone": lambda _: b"",  # as at Cloudflare where no Worker asks
    "edge.bot.score_source": _score(lambda score: score.source.encode("ascii")),
    **{f"edge.ja4.{name}": _signal(attrgetter(slot)) for name, slot in SIGNALS.items()},
    "edge.key.id": lambda facts: _key(facts, "id"),
    "edge.key.name": lambda facts: _key(facts, "name"),
    "edge.model": body.model,
    "edge.route.dialect": _dialect,
    "http.cookie": _joined(b"cookie", b"; "),
    "http.host": lambda facts: facts.host.encode("ascii"),
    "http.referer": _joined(b"referer"),
    "http.request.accepted_languages": _languages,
    "http.request.body.form": lambda facts: _grouped(facts.form) if facts.form is not None else None,
    "http.request.body.form.names": lambda facts: [name for name, _ in facts.form] if facts.form is not None else None,
    "http.request.body.form.values": lambda facts: [value for _, value in facts.form] if facts.form is not None else None,
    "http.request.body.mime": lambda facts: body.media_type(facts.request.header(b"content-type")),
    "http.request.body.raw": body.raw,
    "http.request.body.size": body.size,
    "http.request.body.truncated": body.truncated,
    "http.request.cookies": _cookies,
    "http.request.full_uri": lambda facts: (
        (b"https://" if facts.ssl else b"http://") + facts.http_host + facts.http_request_uri
    ),
    "http.request.headers": _headers,
    "http.request.headers.names": _header_names,
    "http.request.headers.truncated": lambda _: False,  # longer heads are refused before rules
    "http.request.headers.values": _header_values,
    "http.request.method": lambda facts: facts.request.method,
    "http.request.timestamp.msec": lambda facts: facts.moment % 1000,
    "http.request.timestamp.sec": lambda facts: facts.moment // 1000,
    "http.request.uri": lambda facts: facts.request.target,
    "http.request.uri.args": lambda facts: _pairs(facts.http_request_uri_query, b"&"),
    "http.request.uri.args.names": _names("http_request_uri_args"),
    "http.request.uri.args.values": _values("http_request_uri_args"),
    "http.request.uri.path": lambda facts: facts.request.target.partition(b"?")[0],
    "http.request.uri.path.extension": _extension,
    "http.request.uri.query": lambda facts: facts.request.target.partition(b"?")[2],
    "http.request.version": lambda facts: _VERSIONS[facts.request.protocol],
    "http.response.code": lambda facts: facts.reply.status if facts.reply is not None else None,
    "http.response.content_type.media_type": _reply(_reply_type, "reply"),
    **_replies("", "reply"),
    **_replies("raw.", "original_reply"),
    "http.user_agent": _joined(b"user-agent"),
    "http.x_forwarded_for": _joined(b"x-forwarded-for"),
    "ip.src": lambda facts: client_code(facts.client),
    "ssl": lambda facts: facts.request.peer.secure,
}


def _raw(slot: str) -> Source:
    """The same of the request as it came: of other facts, when a rule has rewritten it since."""
    return lambda facts: getattr(facts if facts.original is facts.request else facts.first, slot)


_RAW: Final = ("http.request.full_uri", "http.request.headers", "http.request.uri")  # what rewrites change
SOURCES: Final[dict[str, Source]] = {
    **CLIENT,
    **_OWN,
    **{f"raw.{name}": _raw(name.replace(".", "_")) for name in _OWN if name.startswith(_RAW) and "truncated" not in name},
}
