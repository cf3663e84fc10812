# What liars say: whole header sets that a person copies out of a browser's tools, and names of declared robots.
"""`lies()`: name → kind → header lines. Runs in every client's own virtual environment: standard library only."""

from __future__ import annotations

Lines = "list[tuple[str, str]]"

_KIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
_PLATFORMS = {
    "Windows": "Windows NT 10.0; Win64; x64",
    "macOS": "Macintosh; Intel Mac OS X 10_15_7",
    "Linux": "X11; Linux x86_64",
    "Android": "Linux; Android 10; K",
}
_PAGE = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)
_PLAIN_PAGE = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def _chromium(brand: str, major: int, platform: str) -> dict[str, list[tuple[str, str]]]:
    mobile = platform == "Android"
    agent = f"Mozilla/5.0 ({_PLATFORMS[platform]}) {_KIT} Chrome/{major}.0.0.0 {'Mobile ' if mobile else ''}Safari/537.36"
    if brand == "Microsoft Edge":
        agent += f" Edg/{major}.0.0.0"
    hints = [
        ("sec-ch-ua", f'"Chromium";v="{major}", "{brand}";v="{major}", "Not_A Brand";v="24"'),
        ("sec-ch-ua-mobile", "?1" if mobile else "?0"),
        ("sec-ch-ua-platform", f'"{platform}"'),
    ]
    coding = ("accept-encoding", "gzip, deflate, br, zstd" if major >= 123 else "gzip, deflate, br")
    return {
        "navigate": [
            *hints,
            ("upgrade-insecure-requests", "1"),
            ("user-agent", agent),
            ("accept", _PAGE),
            ("sec-fetch-site", "none"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-user", "?1"),
            ("sec-fetch-dest", "document"),
            coding,
            ("accept-language", "en-US,en;q=0.9"),
        ],
        "fetch": [
            *hints,
            ("user-agent", agent),
            ("accept", "*/*"),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-mode", "cors"),
            ("sec-fetch-dest", "empty"),
            ("referer", "https://edge.test/"),
            coding,
            ("accept-language", "en-US,en;q=0.9"),
        ],
    }


def _firefox(major: int) -> dict[str, list[tuple[str, str]]]:
    agent = f"Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:{major}.0) Gecko/20100101 Firefox/{major}.0"
    coding = ("accept-encoding", "gzip, deflate, br, zstd")
    return {
        "navigate": [
            ("user-agent", agent),
            ("accept", _PLAIN_PAGE),
            ("accept-language", "en-US,en;q=0.5"),
            coding,
            ("upgrade-insecure-requests", "1"),
            ("sec-fetch-dest", "document"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-site", "none"),
            ("sec-fetch-user", "?1"),
        ],
        "fetch": [
            ("user-agent", agent),
            ("accept", "*/*"),
            ("accept-language", "en-US,en;q=0.5"),
            coding,
            ("referer", "https://edge.test/"),
            ("sec-fetch-dest", "empty"),
            ("sec-fetch-mode", "cors"),
            ("sec-fetch-site", "same-origin"),
        ],
    }


def _safari(version: str, phone: bool) -> dict[str, list[tuple[str, str]]]:
    system = "iPhone; CPU iPhone OS 18_5 like Mac OS X" if phone else "Macintosh; Intel Mac OS X 10_15_7"
    mobile = "Mobile/15E148 " if phone else ""
    agent = f"Mozilla/5.0 ({system}) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/{version} {mobile}Safari/604.1"
    tail = [("accept-language", "en-US,en;q=0.9"), ("accept-encoding", "gzip, deflate, br")]
    return {
        "navigate": [
            ("sec-fetch-dest", "document"),
            ("user-agent", agent),
            ("accept", _PLAIN_PAGE),
            ("sec-fetch-site", "none"),
            ("sec-fetch-mode", "navigate"),
            *tail,
        ],
        "fetch": [
            ("accept", "*/*"),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-mode", "cors"),
            ("sec-fetch-dest", "empty"),
            ("user-agent", agent),
            ("referer", "https://edge.test/"),
            *tail,
        ],
    }


def lies() -> dict[str, dict[str, list[tuple[str, str]]]]:
    """Name → `navigate` and `fetch` → header lines as that browser sends them over HTTP/2."""
    return {
        "chrome-156": _chromium("Google Chrome", 156, "Windows"),
        "chrome-147": _chromium("Google Chrome", 147, "macOS"),
        "chrome-120": _chromium("Google Chrome", 120, "Linux"),
        "chrome-151-phone": _chromium("Google Chrome", 151, "Android"),
        "edge-155": _chromium("Microsoft Edge", 155, "Windows"),
        "firefox-152": _firefox(152),
        "firefox-128": _firefox(128),
        "safari-18.4": _safari("18.4", False),
        "safari-26.1-phone": _safari("26.1", True),
    }


ROBOTS = (
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; ClaudeBot/1.0; +claudebot@anthropic.com)",
    "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
    "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)",
    "CCBot/2.0 (https://commoncrawl.org/faq/)",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "Twitterbot/1.0",
    "Mozilla/5.0 (compatible; SemrushBot/7~bl; +http://www.semrush.com/bot.html)",
    "sqlmap/1.8.2#stable (https://sqlmap.org)",
    "Mozilla/5.0 zgrab/0.x",
)
"""User agents of declared robots and scanners, as their operators publish them."""
