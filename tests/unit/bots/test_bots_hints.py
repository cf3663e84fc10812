# Brands and order of client hints; the lists are from real browsers (apify-fingerprint-datapoints, and the Chromium of Debian).
from __future__ import annotations

import pytest

from edgeproxy.bots.agents import read_agent
from edgeproxy.bots.hints import AGREES, CONTRADICTS, UNSAID, hinted, hints_order

PLACES = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/%d.0.0.0 Safari/537.36%s"


@pytest.mark.parametrize(
    ("major", "brand", "hints"),
    [
        (147, "", '"Google Chrome";v="147", "Not.A/Brand";v="8", "Chromium";v="147"'),
        (147, " Edg/147.0.0.0", '"Microsoft Edge";v="147", "Not.A/Brand";v="8", "Chromium";v="147"'),
        (147, "", '"Chromium";v="147", "Not.A/Brand";v="8"'),
        (146, "", '"Chromium";v="146", "Not-A.Brand";v="24", "Google Chrome";v="146"'),
        (136, "", '"Chromium";v="136", "Google Chrome";v="136", "Not.A/Brand";v="99"'),
        (131, "", '"Google Chrome";v="131", "Chromium";v="131", "Not_A Brand";v="24"'),
        (124, "", '"Chromium";v="124", "Google Chrome";v="124", "Not-A.Brand";v="99"'),
        (145, "", '"Not:A-Brand";v="99", "Google Chrome";v="145", "Chromium";v="145"'),
    ],
)
def test_real_browsers_agree(major: int, brand: str, hints: str) -> None:
    assert hinted(hints.encode(), read_agent((PLACES % (major, brand)).encode())) == (AGREES, AGREES, AGREES)


def test_who_changes_the_number_alone_contradicts_itself() -> None:
    agent = read_agent((PLACES % (156, "")).encode())
    assert hinted(b'"Chromium";v="156", "Google Chrome";v="156", "Not_A Brand";v="24"', agent) == (AGREES, CONTRADICTS, AGREES)
    assert hinted(b'"Google Chrome";v="147", "Not.A/Brand";v="8", "Chromium";v="147"', agent)[0] == CONTRADICTS
    assert hinted(b'"Chromium";v="156", "HeadlessChrome";v="156", "Not(A:Brand";v="8"', agent)[2] == CONTRADICTS
    old = read_agent((PLACES % (103, "")).encode())
    assert hinted(b'".Not/A)Brand";v="99", "Google Chrome";v="103", "Chromium";v="103"', old)[1] == UNSAID


def test_order_by_what_asks() -> None:
    page = (b"sec-ch-ua", b"sec-ch-ua-mobile", b"sec-ch-ua-platform", b"upgrade-insecure-requests", b"user-agent", b"accept")
    script = (b"sec-ch-ua-platform", b"user-agent", b"sec-ch-ua", b"content-type", b"sec-ch-ua-mobile", b"accept")
    assert hints_order(page, True) == hints_order(script, False) == AGREES
    assert hints_order(page, False) == hints_order(script, True) == CONTRADICTS
