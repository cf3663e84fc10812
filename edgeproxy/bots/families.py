# Which family of programs a User-Agent names, and which one a connection looks like. Structure only: no list of hashes ages here.
"""`claim(agent)` says what a User-Agent claims; `tls_family`, `h2_family` and `h3_family` what speaks.

Families: `chromium`, `firefox`, `safari` (every browser on iOS is one of these: WebKit speaks for it), and of libraries
`openssl`, `gnutls`, `go`, `other`. What is not certain is "": nobody is accused of what cannot be told.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from edgeproxy.listen.hello import Hello
    from edgeproxy.prints import H2Print, H3Print

CHROMIUM, FIREFOX, SAFARI = "chromium", "firefox", "safari"
OPENSSL, GNUTLS, GO, OTHER = "openssl", "gnutls", "go", "other"
_MOST: Final = 512  # characters of a User-Agent that are read
_KEPT: Final = 4096  # User-Agents that are remembered

# Extension types (IANA's registry of TLS ExtensionType values).
_STATUS, _ENCRYPT_THEN_MAC, _SCT, _COMPRESS, _RECORD_SIZE, _DELEGATED = 0x05, 0x16, 0x12, 0x1B, 0x1C, 0x22
_TICKET, _ALPS, _ALPS_NEW = 0x23, 0x4469, 0x44CD
_BROTLI, _ZLIB = 2, 1

_CHROME: Final = re.compile(rb"\b(?:Chrome|Chromium)/(\d{1,4})")
_GECKO: Final = re.compile(rb"\bGecko/\d+ Firefox/(\d{1,4})")
_VERSION: Final = re.compile(rb"\bVersion/(\d{1,3})[.\d]* (?:Mobile/\w+ )?Safari/")
_IOS: Final = re.compile(rb"\((?:iPhone|iPad|iPod)\b")
_IOS_VERSION: Final = re.compile(rb"\bOS (\d{1,3})_")
_PLATFORMS: Final = (
    (b"Android", "Android"), (b"iPhone", "iOS"), (b"iPad", "iOS"), (b"iPod", "iOS"), (b"Windows", "Windows"),
    (b"CrOS", "Chrome OS"), (b"Macintosh", "macOS"), (b"Linux", "Linux"),
)  # fmt: skip


class Claim(NamedTuple):
    """What a User-Agent says.

    Attributes:
        family: of browsers, "" where it names none.
        major: version of the family's engine; 0 unknown.
        platform: as `Sec-CH-UA-Platform` names it; "" unknown.
        mobile: it says `Mobile`.
        embedded: a web view or another program with an engine inside, which leaves out some of what browsers send.
    """

    family: str
    major: int
    platform: str
    mobile: bool
    embedded: bool


NOTHING: Final = Claim("", 0, "", False, False)


@lru_cache(maxsize=_KEPT)
def claim(agent: bytes) -> Claim:
    """What a User-Agent claims; the same object for the same text, while it is remembered."""
    text = agent[:_MOST]
    if not text.startswith(b"Mozilla/5.0 ("):
        return NOTHING
    platform = next((name for word, name in _PLATFORMS if word in text), "")
    mobile = b"Mobile" in text
    embedded = b"; wv)" in text or b"Electron/" in text or b"compatible;" in text
    if _IOS.search(text) is not None:
        version = _VERSION.search(text) or _IOS_VERSION.search(text)
        return Claim(SAFARI, int(version[1]) if version is not None else 0, platform, mobile, embedded or b"Safari/" not in text)
    found = _CHROME.search(text)
    if found is not None and b"AppleWebKit/537.36" in text:
        return Claim(CHROMIUM, int(found[1]), platform, mobile, embedded)
    found = _GECKO.search(text)
    if found is not None:
        return Claim(FIREFOX, int(found[1]), platform, mobile, embedded)
    found = _VERSION.search(text)
    if found is not None and b"Macintosh" in text and b"AppleWebKit/" in text:
        return Claim(SAFARI, int(found[1]), platform, mobile, embedded)
    return Claim("", 0, platform, mobile, True)


def _greased(values: tuple[int, ...]) -> bool:
    return any(value & 0x0F0F == 0x0A0A and value >> 8 == value & 0xFF for value in values)


def tls_family(hello: Hello) -> str:
    """Who wrote a ClientHello. Imitations of browsers are told from browsers elsewhere, if at all."""
    extensions = hello.extensions
    if _greased(hello.ciphers):
        if _ALPS in extensions or _ALPS_NEW in extensions:
            return CHROMIUM
        # Chromium leaves ALPS out where it offers no h2 (WebSockets), and compresses with Brotli; Apple with zlib, or not at all.
        if _COMPRESS in extensions and _BROTLI in hello.compressions:
            return CHROMIUM
        return SAFARI if _TICKET not in extensions and _SCT in extensions else ""
    if _RECORD_SIZE in extensions and _ENCRYPT_THEN_MAC not in extensions:
        return FIREFOX
    if _ENCRYPT_THEN_MAC in extensions:
        return GNUTLS if _RECORD_SIZE in extensions or _STATUS in extensions else OPENSSL
    if _STATUS in extensions and _SCT in extensions and _COMPRESS not in extensions:
        return GO
    return OTHER


def h2_family(h2: H2Print) -> str:
    """Who began HTTP/2 like this: by the order of pseudo-header fields and the settings that only browsers send."""
    settings = dict(h2.settings)
    match h2.pseudo:
        case "m,a,s,p":
            return CHROMIUM if settings.get(4) == 6291456 and h2.window == 15663105 else OTHER
        case "m,p,a,s":
            return FIREFOX if settings.get(5) == 16384 and h2.window == 12517377 else OTHER
        case "m,s,p,a" | "m,s,a,p":
            return SAFARI if settings.get(3) == 100 or 9 in settings else OTHER
        case "":
            return ""
        case _:
            return OTHER


_QUIC_CHROMIUM: Final = frozenset({0x11, 0x3128, 0x4752})  # version_information, google_connection_options, google_version


def h3_family(h3: H3Print) -> str:
    """Who began QUIC like this; "" where it may be anybody but Chromium."""
    names = {name for name, _ in h3.parameters}
    if not names:
        return ""
    return CHROMIUM if len(names & _QUIC_CHROMIUM) >= 2 else OTHER if h3.pseudo == "m,a,s,p" else ""
