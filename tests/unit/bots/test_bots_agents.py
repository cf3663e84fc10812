# User-Agents as numbers.
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.bots.agents import CHROMIUM, FIREFOX, NOBODY, OTHER, SAFARI, age, read_agent

KIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
NOVEMBER = 1_795_305_600.0  # 2026-11-22
WEEK = 604_800


@pytest.mark.parametrize(
    ("text", "family", "major", "system", "brand"),
    [
        (f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {KIT} Chrome/156.0.0.0 Safari/537.36", CHROMIUM, 156, "windows", ""),
        (f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {KIT} Chrome/147.0.0.0 Safari/537.36 Edg/147.0.0.0", CHROMIUM, 147, "mac", "edge"),  # noqa: E501
        (f"Mozilla/5.0 (Linux; Android 10; K) {KIT} Chrome/151.0.0.0 Mobile Safari/537.36", CHROMIUM, 151, "android", ""),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0", FIREFOX, 153, "linux", ""),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.4 Safari/605.1.15", SAFARI, 18, "mac", ""),  # noqa: E501
        # Every browser on iOS is WebKit, whatever its name.
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/147.0.0.0 Mobile/15E148 Safari/604.1", SAFARI, 18, "ios", ""),  # noqa: E501
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) FxiOS/150.0 Mobile/15E148 Safari/605.1.15", SAFARI, 18, "ios", ""),  # noqa: E501
        ("curl/8.5.0", OTHER, 0, "", ""),
        ("python-requests/2.32.0", OTHER, 0, "", ""),
    ],
)  # fmt: skip
def test_families(text: str, family: int, major: int, system: str, brand: str) -> None:
    agent = read_agent(text.encode())
    assert (agent.family, agent.major, agent.system, agent.brand) == (family, major, system, brand)
    assert agent.tool == (family == OTHER)


def test_a_headless_browser_says_so() -> None:
    agent = read_agent(f"Mozilla/5.0 (X11; Linux x86_64) {KIT} HeadlessChrome/156.0.0.0 Safari/537.36".encode())
    assert (agent.family, agent.major, agent.tool) == (CHROMIUM, 156, True)


def test_ages_are_weeks_since_the_release() -> None:
    def of(family: str) -> float:
        return age(read_agent(family.encode()), NOVEMBER)

    chrome = f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {KIT} Chrome/%d.0.0.0 Safari/537.36"
    assert of(chrome % 153) == pytest.approx(75 / 7, abs=1)  # released on 2026-09-08
    assert of(chrome % 147) == pytest.approx(of(chrome % 153) + 24, abs=0.1)
    assert of(chrome % 155) == pytest.approx(of(chrome % 153) - 4, abs=0.1)
    assert of(chrome % 900) == -10.0  # a version to come
    assert of("curl/8") == -10.0
    firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0"
    assert of(firefox) == pytest.approx((NOVEMBER - 1_776_729_600) / WEEK, abs=0.1)


@given(st.binary(max_size=1024))
def test_anything_can_be_read(text: bytes) -> None:
    agent = read_agent(text)
    assert -10.0 <= age(agent, NOVEMBER) <= 400.0


def test_nobody() -> None:
    assert read_agent(None) is NOBODY
    assert read_agent(b"") is NOBODY


def test_what_is_remembered_is_bounded() -> None:
    from edgeproxy.bots import agents

    for number in range(agents._KEPT + 10):
        read_agent(b"agent/%d" % number)
    assert len(agents._known) <= agents._KEPT


def test_long_texts_are_read_and_not_kept() -> None:
    from edgeproxy.bots import agents

    text = b"Mozilla/5.0 (X11; Linux x86_64) Chrome/156.0.0.0 Safari/537.36 " + b"x" * 4000
    assert read_agent(text).family == CHROMIUM
    assert text not in agents._known
