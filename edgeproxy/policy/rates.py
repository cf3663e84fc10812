# How limits are told to clients: header fields on answers that were allowed and on refusals, in each dialect's own words.
"""Rate-limit headers.

- IETF (draft-ietf-httpapi-ratelimit-headers): `RateLimit-Policy: "name";q=100;w=60`, `RateLimit: "name";r=50;t=30`.
- OpenAI: `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, resets as Go writes durations (`12ms`, `6m0s`).
- Anthropic: `anthropic-ratelimit-{requests,tokens}-{limit,remaining,reset}`, resets as times (RFC 3339).
- Refusals: `retry-after` in whole seconds, `retry-after-ms`, `x-should-retry`. SDKs of OpenAI wait for at most 60 s, and
  Anthropic's wait for whatever is said, so beyond a minute clients are told not to retry by themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from edgeproxy.message import Headers

_SECOND: Final = 1_000_000
_FAR: Final = 10 * 365 * 86400 * _SECOND  # what is owed for longer is told as this
_PATIENCE: Final = 60  # seconds of retry-after beyond which nobody shall wait for it by itself
_UNITS: Final = {"requests": b"requests", "tokens": b"tokens"}


class Rate:
    """One limit as an answer tells it; what does not change is bytes already.

    Attributes:
        counts: `requests`, `tokens`, `bytes`, `score` or `concurrent`.
        limit: units in a window.
        policy: its part of RateLimit-Policy.
    """

    __slots__ = ("_name", "counts", "limit", "policy")

    def __init__(self, name: str, counts: str, limit: int, window: int) -> None:
        """Compile; `window` in microseconds, 0 for none (concurrency)."""
        self._name = b'"%b"' % name.encode("ascii")
        self.counts = counts
        self.limit = limit
        seconds = b";w=%d" % max(1, -(-window // _SECOND)) if window else b""
        unit = b"" if counts == "requests" else b';qu="%b"' % _quota_unit(counts)
        self.policy = self._name + b";q=%d" % limit + unit + seconds

    def state(self, remaining: int, reset: int) -> bytes:
        """Its part of RateLimit."""
        return b"%b;r=%d;t=%d" % (self._name, remaining, -(-reset // _SECOND))


def _quota_unit(counts: str) -> bytes:
    # The draft names `requests` (the default), `content-bytes` and `concurrent-requests`; others are private.
    return {"bytes": b"content-bytes", "concurrent": b"concurrent-requests"}.get(counts, counts.encode("ascii"))


State = tuple[Rate, int, int]
"""A rate, what remains of it, and microseconds until all of it is back."""


def rate_fields(states: Sequence[State], dialect: str | None, clock: Callable[[], float] = time.time) -> Headers:
    """The fields that tell where a client stands.

    Args:
        states: of the limits that the request was under; not empty.
        clock: seconds since the epoch.
    """
    fields: Headers = [
        (b"ratelimit-policy", b", ".join([rate.policy for rate, _, _ in states])),
        (b"ratelimit", b", ".join([rate.state(remaining, reset) for rate, remaining, reset in states])),
    ]
    if dialect is None:
        return fields
    for counts, unit in _UNITS.items():
        tightest = None
        for state in states:
            if state[0].counts == counts and (tightest is None or state[1] < tightest[1]):
                tightest = state
        if tightest is None:
            continue
        rate, remaining, reset = tightest
        if dialect == "anthropic":
            fields += [
                (b"anthropic-ratelimit-%b-limit" % unit, b"%d" % rate.limit),
                (b"anthropic-ratelimit-%b-remaining" % unit, b"%d" % remaining),
                (b"anthropic-ratelimit-%b-reset" % unit, moment(clock() + min(reset, _FAR) / _SECOND)),
            ]
        else:
            fields += [
                (b"x-ratelimit-limit-%b" % unit, b"%d" % rate.limit),
                (b"x-ratelimit-remaining-%b" % unit, b"%d" % remaining),
                (b"x-ratelimit-reset-%b" % unit, go_duration(reset)),
            ]
    return fields


def retry_fields(retry: int) -> Headers:
    """The fields of a refusal that say when to come again.

    Args:
        retry: microseconds until the same request could pass.
    """
    milliseconds = max(1, -(-retry // 1000))
    seconds = -(-milliseconds // 1000)
    if seconds > _PATIENCE:
        return [(b"retry-after", b"%d" % seconds), (b"x-should-retry", b"false")]
    return [(b"retry-after", b"%d" % seconds), (b"retry-after-ms", b"%d" % milliseconds), (b"x-should-retry", b"true")]


def go_duration(microseconds: int) -> bytes:
    """A duration as Go's `time.Duration.String` writes it, in whole milliseconds, rounded up: `12ms`, `8.64s`, `6m0s`."""
    milliseconds = -(-microseconds // 1000)
    if milliseconds < 1000:
        return b"%dms" % milliseconds if milliseconds else b"0s"
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    text = b"%d" % seconds + ((b".%03d" % rest).rstrip(b"0") if rest else b"") + b"s"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return b"%dh%dm%b" % (hours, minutes, text)
    return b"%dm%b" % (minutes, text) if minutes else text


def moment(seconds: float) -> bytes:
    """A time in RFC 3339, in whole seconds, rounded up."""
    at = datetime.fromtimestamp(0, UTC) + timedelta(seconds=-(-seconds // 1))
    return at.strftime("%Y-%m-%dT%H:%M:%SZ").encode("ascii")
