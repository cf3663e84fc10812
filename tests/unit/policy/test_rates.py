# What clients are told about their limits, byte for byte.
"""policy/rates.py."""

from __future__ import annotations

import pytest

from edgeproxy.message import Headers
from edgeproxy.policy.rates import Rate, Rates, go_duration, moment, retry_fields
from edgeproxy.state.ports import Verdict

REQUESTS = Rate("per-key", "requests", 600, 60_000_000)
TOKENS = Rate("tokens", "tokens", 100_000, 86_400_000_000)
AT_ONCE = Rate("at-once", "concurrent", 10, 0)


def rate_fields(states: list[tuple[Rate, int, int]], dialect: str | None, now: float = 0.0) -> Headers:
    verdicts = [Verdict(True, remaining, reset, 0, 1) for _, remaining, reset in states]
    return Rates([rate for rate, _, _ in states]).fields(verdicts, dialect, lambda: now)


@pytest.mark.parametrize(("microseconds", "text"), [
    (0, b"0s"), (1, b"1ms"), (12_000, b"12ms"), (999_001, b"1s"), (1_000_000, b"1s"), (8_640_000, b"8.64s"),
    (1_005_000, b"1.005s"),
    (60_000_000, b"1m0s"), (360_000_000, b"6m0s"), (90_500_000, b"1m30.5s"), (3_600_000_000, b"1h0m0s"),
    (86_400_000_000, b"24h0m0s"),
])  # fmt: skip
def test_durations_as_go_writes_them(microseconds: int, text: bytes) -> None:
    assert go_duration(microseconds) == text


def test_moments() -> None:
    assert moment(1_750_000_000.0) == b"2025-06-15T15:06:40Z"
    assert moment(1_750_000_000.001) == b"2025-06-15T15:06:41Z"


def test_without_a_dialect() -> None:
    assert rate_fields([(REQUESTS, 599, 100_000), (TOKENS, 0, 3_000_001), (AT_ONCE, 9, 0)], None) == [
        (b"ratelimit-policy", b'"per-key";q=600;w=60, "tokens";q=100000;qu="tokens";w=86400, '
                              b'"at-once";q=10;qu="concurrent-requests"'),
        (b"ratelimit", b'"per-key";r=599;t=1, "tokens";r=0;t=4, "at-once";r=9;t=0'),
    ]  # fmt: skip


def test_the_tightest_limit_is_told_to_sdks() -> None:
    wide = Rate("wide", "requests", 10_000, 3_600_000_000)
    states = [(wide, 9_000, 1_000_000), (REQUESTS, 5, 59_500_000), (TOKENS, 7, 360_000_000)]
    assert rate_fields(states, "openai")[2:] == [
        (b"x-ratelimit-limit-requests", b"600"), (b"x-ratelimit-remaining-requests", b"5"),
        (b"x-ratelimit-reset-requests", b"59.5s"),
        (b"x-ratelimit-limit-tokens", b"100000"), (b"x-ratelimit-remaining-tokens", b"7"),
        (b"x-ratelimit-reset-tokens", b"6m0s"),
    ]  # fmt: skip
    assert rate_fields(states[:2], "anthropic", 1_750_000_000.0)[2:] == [
        (b"anthropic-ratelimit-requests-limit", b"600"), (b"anthropic-ratelimit-requests-remaining", b"5"),
        (b"anthropic-ratelimit-requests-reset", b"2025-06-15T15:07:40Z"),
    ]  # fmt: skip


@pytest.mark.parametrize(("retry", "fields"), [
    (0, [(b"retry-after", b"1"), (b"retry-after-ms", b"1"), (b"x-should-retry", b"true")]),
    (1_500_000, [(b"retry-after", b"2"), (b"retry-after-ms", b"1500"), (b"x-should-retry", b"true")]),
    (60_000_000, [(b"retry-after", b"60"), (b"retry-after-ms", b"60000"), (b"x-should-retry", b"true")]),
    (60_000_001, [(b"retry-after", b"61"), (b"x-should-retry", b"false")]),
])  # fmt: skip
def test_when_to_come_again(retry: int, fields: list[tuple[bytes, bytes]]) -> None:
    assert retry_fields(retry) == fields
