# Who a User-Agent names, and that the file says nothing twice.
"""bots/catalogue.py and catalogue.yaml."""

from __future__ import annotations

import typing
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.bots.catalogue import FILE, MAX_AGENT, MAX_KEPT, Bot, Catalogue, Category, read, shipped
from edgeproxy.bots.keys import origin
from edgeproxy.bots.names import candidates
from edgeproxy.bots.ranges import is_name

_KIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
BROWSERS = [
    f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_KIT} Chrome/156.0.0.0 Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0",
    f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) {_KIT} Version/18.1 Mobile/15E148 Safari/604.1",
    f"Mozilla/5.0 (Linux; Android 14; Pixel 8) {_KIT} Chrome/130.0.0.0 Mobile Safari/537.36",
    f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {_KIT} Version/17.4 Safari/605.1.15",
    f"Mozilla/5.0 (Linux; Android 10; K) {_KIT} SamsungBrowser/26.0 Chrome/122.0.0.0 Mobile Safari/537.36",
    f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_KIT} Chrome/124.0 YaBrowser/24.4.0 Yowser/2.5 Safari/537.36",
    "Mozilla/5.0 (compatible; Baidubrowser)",
    "Yetisports/1.0", "MyGooglebotTester", "", "Mozilla/5.0", "curl/8.5.0", "python-httpx/0.28",
]  # fmt: skip
BOTS = {
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)": "Googlebot",
    "Googlebot-Image/1.0": "Googlebot",
    "AdsBot-Google (+http://www.google.com/adsbot.html)": "AdsBot-Google",
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)": "Bingbot",
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko); compatible; GPTBot/1.2; +https://openai.com/gptbot": "GPTBot",
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko); compatible; ChatGPT-User/1.0; +https://openai.com/bot": "ChatGPT-User",
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; ClaudeBot/1.0; +claudebot@anthropic.com)": "ClaudeBot",
    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; Claude-User/1.0; +Claude-User@anthropic.com)": "Claude-User",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)": "facebookexternalhit",
    "Mozilla/5.0 (compatible; SemrushBot-BA; +http://www.semrush.com/bot.html)": "SemrushBot",
    "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)": "YandexBot",
    "Mozilla/5.0 (compatible; YandexDirect/3.0; +http://yandex.com/bots)": "Yandex Ads",
    "Mozilla/5.0 (compatible; dotbot/1.2; +https://opensiteexplorer.org/dotbot)": "DotBot",
    "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)": "Slackbot",
    "Mozilla/5.0 (compatible; Yeti/1.1; +https://naver.me/spd)": "Yeti",
    "Mastodon/4.3.0 (http.rb/5.2.0; +https://mastodon.example/)": "Mastodon",
    "GOOGLEBOT": "Googlebot",
}  # fmt: skip


def test_browsers_and_libraries_name_nobody() -> None:
    assert [text for text in BROWSERS if shipped().claimed(text.encode()) is not None] == []


def test_bots() -> None:
    found = {text: shipped().claimed(text.encode()) for text in BOTS}
    assert {text: bot.name if bot else None for text, bot in found.items()} == BOTS


def test_every_bot_is_found_by_each_of_its_tokens() -> None:
    catalogue = shipped()
    for bot in catalogue.bots:
        for token in bot.tokens:
            for text in (token, f"Mozilla/5.0 (compatible; {token}/1.0)", token.upper()):
                assert catalogue.claimed(text.encode()) is bot, (bot.name, text)


def test_the_file() -> None:
    catalogue = shipped()
    assert catalogue.version >= 1 and len(catalogue.bots) > 150
    names = [bot.name for bot in catalogue.bots]
    assert len(set(names)) == len(names)
    for bot in catalogue.bots:
        assert bot.tokens or bot.agents, bot.name
        for suffix in bot.dns:
            assert candidates([f"host.{suffix}."], catalogue.suffixes) == (f"host.{suffix}",), bot.name
        assert all(origin(agent) == agent for agent in bot.agents), bot.name
    assert {bot.category for bot in catalogue.bots} <= set(typing.get_args(Category))
    for name, url in catalogue.sources.items():
        assert is_name(name) and urlsplit(url).scheme == "https" and not urlsplit(url).query, name
    assert set(catalogue.sources) == {name for bot in catalogue.bots for name in bot.ranges}, "none is there for nobody"


def test_catalogues_that_are_none() -> None:
    text = FILE.read_text("utf-8")
    for wrong in ("", "x", "[", "version: 1\nsources: {}\nbots: [{name: x}]",
                  text.replace("category: Security", "category: Safety", 1),
                  text + "  - {name: Other, operator: Other, category: Other, tokens: [googlebot]}",
                  text + "  - {name: Other, operator: Other, category: Other, tokens: [OtherBot], ranges: [nowhere]}",
                  text + "  - {name: Other, operator: Other, category: Other, tokens: [OtherBot], dns_name: [x]}"):  # fmt: skip
        with pytest.raises(ValueError, match=r"."):
            read(wrong.encode())
    assert read(text.encode()).version == shipped().version


def test_memory_is_bounded() -> None:
    catalogue = Catalogue([Bot("A", "A", "Other", ("abot",))])
    for number in range(MAX_KEPT + 100):
        assert catalogue.claimed(b"abot/%d" % number) is not None
    assert len(catalogue._kept) == MAX_KEPT
    long = b"x" * MAX_AGENT + b" abot"
    assert catalogue.claimed(long) is None, "what stands behind MAX_AGENT is not looked at"
    assert long not in catalogue._kept
    assert Catalogue([]).claimed(b"abot") is None


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    found = shipped().claimed(data)
    assert found is shipped().claimed(data)
    assert found is None or any(token.lower().encode() in data.lower() for token in found.tokens)
