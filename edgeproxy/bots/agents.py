# What a User-Agent claims to be: family of engine, version, system, age. Pure text; nothing is believed and nothing is decided.
"""`read_agent`: a User-Agent as numbers. Results are kept per text, so that a client that comes again costs a look-up."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

OTHER, CHROMIUM, FIREFOX, SAFARI = range(4)  # families of engines; browsers on iOS are SAFARI whatever their name (WebKit)

_WEEK: Final = 7 * 86_400
_LONGEST: Final = 512  # bytes that are looked at
_KEPT: Final = 4096  # texts that are remembered; more, and all are forgotten

# Releases, in weeks since 1970. Chromium: 153 on 2026-09-08, one in 4 weeks before and in 2 afterwards. Firefox: 150 on
# 2026-04-21, 4 weeks. Safari: a major a year in mid-September; 18 in 2024, then named after the year to come (26 in 2025).
_CHROMIUM_153: Final = 1_788_825_600 / _WEEK
_FIREFOX_150: Final = 1_776_729_600 / _WEEK
_SAFARI_18: Final = 1_726_444_800 / _WEEK
_YEAR: Final = 365.25 / 7

_CHROME = re.compile(rb"(?:Headless)?Chrom(?:e|ium)/(\d{1,4})(?:\.(\d{1,6}\.\d{1,6}\.\d{1,6}))?")
_GECKO = re.compile(rb"Firefox/(\d{1,4})\.(\d{1,4})")
_WEBKIT = re.compile(rb"Version/(\d{1,4})\.(\d{1,4})")
_IOS = re.compile(rb"(?:CriOS|FxiOS|EdgiOS|OPiOS|GSA)/")
_TOOL = re.compile(
    rb"(?<!cu)bot\b|bot/|spider|crawl|headless|curl|wget|python|java\b|okhttp|go-http|node|axios|perl|ruby|php|scan|http-?client|\+http|phantomjs",
    re.IGNORECASE,
)


class Agent(NamedTuple):
    """What a User-Agent says.

    Attributes:
        family: OTHER, CHROMIUM, FIREFOX or SAFARI.
        major: version of the engine's browser; 0 unknown.
        minor: behind it; Chromium's frozen `0.0.0` is 0.
        frozen: Chromium says `.0.0.0`, as all do since version 101.
        mobile: it says so.
        system: windows, mac, linux, android, ios, chromeos or "".
        tool: a word in it that no browser says.
        mozilla: it begins as browsers do.
        brand: edge, opera, samsung, … or "" for the plain browser of the family.
        released: weeks since 1970 when that version came out, about; 0.0 unknown.
    """

    family: int
    major: int
    minor: int
    frozen: bool
    mobile: bool
    system: str
    tool: bool
    mozilla: bool
    brand: str
    released: float


NOBODY: Final = Agent(OTHER, 0, 0, False, False, "", False, False, "", 0.0)
_known: dict[bytes, Agent] = {}
_SYSTEMS: Final = (
    (b"Windows", "windows"), (b"iPhone", "ios"), (b"iPad", "ios"), (b"iPod", "ios"), (b"Android", "android"), (b"CrOS",
    "chromeos"),
    (b"Macintosh", "mac"), (b"Linux", "linux"), (b"X11", "linux"),
)  # fmt: skip
_BRANDS: Final = (
    (b" Edg/", "edge"), (b" EdgA/", "edge"), (b" OPR/", "opera"), (b"SamsungBrowser/", "samsung"), (b"YaBrowser/", "yandex"),
    (b" Vivaldi/", "vivaldi"), (b"UCBrowser/", "uc"), (b"DuckDuckGo/", "duckduckgo"), (b"Brave", "brave"), (b"; wv)", "webview"),
    (b"QtWebEngine/", "qt"),
    (b"Goanna/", "goanna"), (b"SeaMonkey/", "seamonkey"),
)  # fmt: skip


def read_agent(text: bytes | None) -> Agent:
    """The agent of a text as sent; never raises."""
    if not text:
        return NOBODY
    if len(text) > _LONGEST:
        return _read(text[:_LONGEST])  # nobody sends it twice; it is not worth its memory
    found = _known.get(text)
    if found is None:
        if len(_known) >= _KEPT:
            _known.clear()
        found = _known[text] = _read(text)
    return found


def _read(text: bytes) -> Agent:
    family, major, minor, frozen = _family(text)
    system = next((name for token, name in _SYSTEMS if token in text), "")
    mobile = b"Mobile" in text or system == "ios"
    brand = next((name for token, name in _BRANDS if token in text), "")
    if not brand and family == SAFARI and b"Version/" not in text and _IOS.search(text) is None:
        brand = "webview"
    return Agent(
        family, major, minor, frozen, mobile, system, _TOOL.search(text) is not None, text.startswith(b"Mozilla/5.0 ("), brand,
        _released(family, major, minor),
    )  # fmt: skip


def _family(text: bytes) -> tuple[int, int, int, bool]:
    """Family, major, minor, frozen."""
    on_ios = b"iPhone" in text or b"iPad" in text
    if not on_ios and (found := _CHROME.search(text)) is not None:
        rest = found[2] or b""
        return CHROMIUM, int(found[1]), int(rest.rsplit(b".", 1)[-1] or 0), rest == b"0.0.0"
    if not on_ios and (found := _GECKO.search(text)) is not None:
        return FIREFOX, int(found[1]), int(found[2]), False
    if b"AppleWebKit/" in text and (found := _WEBKIT.search(text)) is not None:
        return SAFARI, int(found[1]), int(found[2]), False
    if on_ios and b"AppleWebKit/" in text:
        # Other browsers, and applications with a page inside: these give the system's version alone.
        version = re.search(rb"OS (\d{1,3})_(\d{1,3})", text)
        return (SAFARI, int(version[1]), int(version[2]), False) if version is not None else (SAFARI, 0, 0, False)
    return OTHER, 0, 0, False


def _released(family: int, major: int, minor: int) -> float:
    if major == 0 or major > 999:
        return 0.0
    if family == CHROMIUM:
        return _CHROMIUM_153 + (major - 153) * (4 if major < 153 else 2)
    if family == FIREFOX:
        return _FIREFOX_150 + (major - 150) * 4
    if family == SAFARI:
        return _SAFARI_18 + ((major - 18) if major <= 18 else (major - 25)) * _YEAR + min(minor, 9) * 5
    return 0.0


def age(agent: Agent, now: float) -> float:
    """Weeks since the claimed version came out, -10..400; -10 also when it is not known."""
    if agent.released == 0.0:
        return -10.0
    return min(max(now / _WEEK - agent.released, -10.0), 400.0)
