# The request that is asked about: what somebody says of it becomes what the pipeline sees. Nothing is decided here.
"""`Question`, and `understand`, which makes a `Request` of it as a listener would."""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from edgeproxy.faults import Fault, client_fault
from edgeproxy.message import Headers, Peer, Request
from edgeproxy.observe.metrics import H1
from edgeproxy.policy.headers import REQUEST_FIELDS, nominated, underscored
from edgeproxy.prints import Prints

if TYPE_CHECKING:
    from edgeproxy.config.model import Client

MAX_HEADERS: Final = 10_000
MAX_HEAD: Final = 1 << 20  # bytes of a question's URL and headers together
MAX_BODY: Final = 16 << 20
_JA4: Final = re.compile(r"[tq][0-9a-z]{2}[di][0-9]{4}[0-9A-Za-z]{2}_[0-9a-f]{12}_[0-9a-f]{12}")
HTTP: Final = {"1": 0, "1.0": 0, "1.1": 0, "2": 1, "2.0": 1, "3": 2, "3.0": 2}


class Unclear(Exception):
    """What was asked is not a request; the message says why, for people."""


class Busy(Exception):
    """There is no answer now; the message says why, for people."""


class Question(msgspec.Struct):
    """A request as somebody tells it.

    Attributes:
        url: with scheme and host.
        method: None: GET, or POST when there is a body.
        headers: in order, names as written.
        body: None: there is none, or it is not known.
        client: address of the connection's other end.
        http: version, like `1.1`, `2` or `3`; empty: what clients mostly speak, 2 over TLS and else 1.1.
        ja4: of the client; empty: not known.
        status, reply_headers: of the reply, as far as it is known; None: it is not.
    """

    url: str
    method: str | None = None
    headers: list[tuple[str, str]] = []
    body: bytes | None = None
    client: str = "192.0.2.1"
    http: str = ""
    ja4: str = ""
    status: int | None = None
    reply_headers: list[tuple[str, str]] | None = None


class Understood(msgspec.Struct):
    """A question's request, and why a listener would refuse it (None: it would not)."""

    request: Request
    fault: Fault | None


Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]


def understand(question: Question, trusted: Networks, bounds: Client) -> Understood:
    """The request of a question.

    Args:
        trusted: networks of proxies whose word counts.
        bounds: of the configuration, on what clients send.

    Raises: Unclear.
    """
    authority, target, secure = _split(question.url)
    peer = _peer(question.client, trusted, secure)
    peer.prints = _prints(question.ja4, peer)
    headers, size = _headers(question.headers), 0
    body = question.body
    if body is not None and len(body) > MAX_BODY:
        raise Unclear(f"the body is larger than {MAX_BODY >> 20} MiB")
    method = question.method or ("GET" if body is None else "POST")
    if not method.isascii() or not method.isprintable() or not method or " " in method:
        raise Unclear(f"{method!r} is not a method")
    version = question.http or ("2" if secure else "1.1")
    if version not in HTTP:
        raise Unclear(f"{version!r} is not a version of HTTP: there are 1.1, 2 and 3")
    protocol = HTTP[version]
    kept: Headers = []
    length: int | None = 0 if body is None else len(body)
    dropped: list[bytes] = []
    for name, value in headers:
        size += len(name) + len(value) + 4
        if name == b"host":
            authority = value
        elif name == b"content-length" and body is None and value.isdigit() and len(value) < 16:
            length = int(value)
        elif name == b"connection":
            dropped.append(value)
        if name not in REQUEST_FIELDS:
            kept.append((name, value))
    named = nominated(dropped) if protocol == H1 else set()
    request = Request(
        method.encode("ascii"), authority, target, [line for line in kept if line[0] not in named], length, protocol, peer
    )
    fault = _bounds(request, len(headers), size + len(target), bounds) or underscored(request.headers)
    return Understood(request, fault)


def basic(user: str) -> tuple[str, str]:
    """The field of `curl -u name:password`."""
    return "Authorization", f"Basic {base64.b64encode(encoded(user)).decode('ascii')}"


def _split(url: str) -> tuple[bytes, bytes, bool]:
    """Authority, target and whether it is https. As clients do it, what is behind `#` stays at home."""
    if len(url) > MAX_HEAD:
        raise Unclear(f"the URL is longer than {MAX_HEAD >> 20} MiB")
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise Unclear(f"{_cut(url)!r} is not a URL like https://chat.example/v1/models")
    rest = rest.partition("#")[0]
    end = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    authority = rest[:end].rpartition("@")[2]
    target = rest[end:]
    if not target.startswith("/"):
        target = "/" + target
    if not authority:
        raise Unclear(f"{_cut(url)!r} has no host")
    return encoded(authority), encoded(target), scheme.lower() == "https"


def user_of(url: str) -> str | None:
    """`name:password` of a URL that has it in front of its host.

    Raises: Unclear when it is no URL.
    """
    try:
        return urlsplit(url).netloc.rpartition("@")[0] or None
    except ValueError as error:  # a bracket without another, a character that stands for '/'
        raise Unclear(f"{_cut(url)!r} is not a URL: {error}") from None


def encoded(text: str) -> bytes:
    """Text as bytes: UTF-8, and surrogates from U+DC80 to U+DCFF as the bytes that Python reads as them.

    Raises: Unclear for other surrogates.
    """
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise Unclear(f"there is half a character (U+{ord(text[error.start]):04X}) in what was asked") from None


def _cut(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "…"


def _headers(given: list[tuple[str, str]]) -> Headers:
    if len(given) > MAX_HEADERS:
        raise Unclear(f"there are more than {MAX_HEADERS} headers")
    made: Headers = []
    for name, value in given:
        if name.startswith(":"):
            continue  # pseudo-headers, as HAR files have them: method, URL and version say the same
        raw = encoded(value.strip(" \t"))
        if not name or not name.isascii() or any(byte in b' \t\r\n"(),/:;<=>?@[\\]{}' or byte < 33 for byte in name.encode()):
            raise Unclear(f"{_cut(name)!r} is not the name of a header")
        if any(byte in b"\r\n\0" for byte in raw):
            raise Unclear(f"the value of '{name}' has a line break or NUL in it")
        made.append((name.lower().encode("ascii"), raw))
    if sum(len(name) + len(value) for name, value in made) > MAX_HEAD:
        raise Unclear(f"the headers are larger than {MAX_HEAD >> 20} MiB")
    return made


def _peer(client: str, trusted: Networks, secure: bool) -> Peer:
    if not client:
        return Peer("", trusted=False, secure=secure)
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        raise Unclear(f"{_cut(client)!r} is not an IP address") from None
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    return Peer(str(address), trusted=any(address in network for network in trusted), secure=secure)


def _prints(ja4: str, peer: Peer) -> Prints | None:
    """As listeners have them: none of a proxy's connection."""
    if not ja4:
        return None
    if _JA4.fullmatch(ja4) is None:
        raise Unclear(f"{_cut(ja4)!r} is not a JA4 like t13d1516h2_8daaf6152771_d8a2da3f94cd")
    if peer.trusted or not peer.secure:
        return None
    prints = Prints(b"")
    prints.ja4 = prints.ja4n = ja4  # but for padding and resumption they are the same
    return prints


def _bounds(request: Request, count: int, size: int, client: Client) -> Fault | None:
    """The bounds of `client:`, with the words of the listeners."""
    if len(request.target) > client.max_url:
        return client_fault(414, "url_too_long", "The request target is too long.")
    if count > client.max_headers:
        return client_fault(431, "too_many_fields", "The request has too many header fields.")
    if size > client.max_head:
        return client_fault(431, "head_too_large", "The request head is too large.")
    return None
