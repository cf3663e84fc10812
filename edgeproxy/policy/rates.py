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
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from edgeproxy.message import Headers

if TYPE_CHECKING:
    from edgeproxy.state.ports import Verdict

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

    __slots__ = ("_amount", "_state", "counts", "limit", "policy")

    def __init__(self, name: str, counts: str, limit: int, window: int) -> None:
        """Compile; `window` in microseconds, 0 for none (concurrency)."""
        said = b'"%b"' % name.encode("ascii")
        self._state = said.replace(b"%", b"%%") + b";r=%d;t=%d"
        self._amount = b"%d" % limit
        self.counts = counts
        self.limit = limit
        seconds = b";w=%d" % max(1, -(-window // _SECOND)) if window else b""
        unit = b"" if counts == "requests" else b';qu="%b"' % _quota_unit(counts)
        self.policy = said + b";q=%d" % limit + unit + seconds

    def state(self, remaining: int, reset: int) -> bytes:
        """Its part of RateLimit."""
        return self._state % (remaining, -(-reset // _SECOND))

    def openai(self, unit: bytes, remaining: int, reset: int) -> Headers:
        """Its fields for OpenAI's SDKs; `unit` is `requests` or `tokens`."""
        return [
            (b"x-ratelimit-limit-" + unit, self._amount),
            (b"x-ratelimit-remaining-" + unit, b"%d" % remaining),
            (b"x-ratelimit-reset-" + unit, go_duration(reset)),
        ]

    def anthropic(self, unit: bytes, remaining: int, reset: int, now: float) -> Headers:
        """The same for Anthropic's; `now` in seconds since the epoch."""
        name = b"anthropic-ratelimit-" + unit
        return [
            (name + b"-limit", self._amount),
            (name + b"-remaining", b"%d" % remaining),
            (name + b"-reset", moment(now + min(reset, _FAR) / _SECOND)),
        ]


def _quota_unit(counts: str) -> bytes:
    # The draft names `requests` (the default), `content-bytes` and `concurrent-requests`; others are private.
    return {"bytes": b"content-bytes", "concurrent": b"concurrent-requests"}.get(counts, counts.encode("ascii"))


class Rates:
    """The limits that one answer tells of."""

    __slots__ = ("_policy", "_rates", "_units")

    def __init__(self, rates: Sequence[Rate]) -> None:
        """Keep them; there is at least one."""
        self._rates = tuple(rates)
        self._policy = (b"ratelimit-policy", b", ".join([rate.policy for rate in rates]))
        places = {unit: [at for at, rate in enumerate(rates) if rate.counts == counts] for counts, unit in _UNITS.items()}
        self._units = tuple([(unit, found) for unit, found in places.items() if found])

    def fields(self, verdicts: Sequence[Verdict], dialect: str | None, clock: Callable[[], float] = time.time) -> Headers:
        """The fields that tell where a client stands.

        Args:
            verdicts: of each of the limits.
            clock: seconds since the epoch.
        """
        rates = self._rates
        if len(rates) == 1:
            verdict = verdicts[0]
            state = rates[0].state(verdict[1], verdict[2])
        else:
            state = b", ".join([rate.state(each[1], each[2]) for rate, each in zip(rates, verdicts, strict=True)])
        fields: Headers = [self._policy, (b"ratelimit", state)]
        if dialect is None:
            return fields
        for unit, places in self._units:
            place = places[0]
            if len(places) > 1:  # SDKs know one: the tightest
                place = min(places, key=lambda at: verdicts[at][1])
            rate, verdict = rates[place], verdicts[place]
            if dialect == "anthropic":
                fields += rate.anthropic(unit, verdict[1], verdict[2], clock())
            else:
                fields += rate.openai(unit, verdict[1], verdict[2])
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
    return _moment(int(-(-seconds // 1)))


@lru_cache(maxsize=256)  # 3 µs a time, and many answers tell of the same second
def _moment(seconds: int) -> bytes:
    at = datetime.fromtimestamp(0, UTC) + timedelta(seconds=seconds)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ").encode("ascii")
