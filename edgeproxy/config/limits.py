# The section `limits` as data: every key of a limit, its type and bound. How it counts is policy/limits.py's business.
"""Pydantic models of `limits`. Expressions are text here; config/load.py reads them with positions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictBool, StrictInt, StrictStr

from edgeproxy.config.checks import AMOUNTS
from edgeproxy.config.problems import Invalid
from edgeproxy.config.section import Section
from edgeproxy.config.units import Duration, Size, Wait
from edgeproxy.rules.model import AnswerBody, ContentType, HeaderName, RuleId

MAX_LIMITS = 256
MAX_UNITS = 1_000_000_000_000
MAX_PERIOD = 31 * 86400.0

Units = Annotated[StrictInt, Field(ge=1, le=MAX_UNITS)]


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _lease(value: float) -> float:
    if not 2.0 <= value <= 3600.0:
        raise Invalid("a lease is 2s to 1h long")
    return value


def _period(value: float) -> float:
    if not 0.1 <= value <= MAX_PERIOD:
        raise Invalid("a period is 100ms to 31d long")
    return value


class Limit(Section):
    """How much of something a client may have in a time."""

    name: RuleId = Field(description="A name; it stands in metrics, logs and answers.")
    expression: StrictStr | None = Field(
        default=None, description="Which requests it is about, in the rules language; absent: all that have a route."
    )
    key: Annotated[tuple[StrictStr, ...], Field(min_length=1, max_length=8), BeforeValidator(_as_tuple)] = Field(
        default=("ip.src",),
        description="What is counted apart: expressions. A missing value is a value of its own, not the empty text.",
        json_schema_extra={"default": ["ip.src"]},
    )
    ipv6_prefix: StrictInt = Field(
        default=64, ge=16, le=128,
        description="A key that is ip.src alone counts an IPv6 network of so many bits as one client; 128: each address.",
    )
    requests: Units | None = Field(default=None, description="Requests in a period.")
    tokens: Units | None = Field(default=None, description="Prompt and completion tokens in a period; on chat routes.")
    reserve: Units = Field(
        default=1024,
        description="tokens: completion tokens set aside for an answer whose request sets no bound; what was used counts.",
    )
    bytes: Size | None = Field(default=None, description="Bytes of bodies, both ways, in a period.")
    score: Units | None = Field(default=None, description="Points in a period, as replies tell them in 'score_header'.")
    concurrent: Units | None = Field(default=None, description="Requests at the same time.")
    lease: Annotated[Duration, AfterValidator(_lease)] = Field(
        default=60.0,
        description="concurrent: after so long the places are free that a worker held which was killed.",
        json_schema_extra={"default": "60s"},
    )
    score_header: HeaderName | None = Field(default=None, description="The reply's header that holds its points.")
    period: Annotated[Duration, AfterValidator(_period)] = Field(
        default=60.0, description="The time that the number is about.", json_schema_extra={"default": "60s"}
    )
    burst: Units | None = Field(
        default=None, description="gcra: how many at once; absent: as many as in a period."
    )
    algorithm: Literal["gcra", "fixed-window", "sliding-window"] = Field(
        default="gcra", description="gcra is smooth; windows begin at multiples of the period."
    )
    mitigation_timeout: Wait = Field(
        default=0.0,
        description="For how long a client that was over the limit is refused everything; 0s: only what is too much.",
        json_schema_extra={"default": "0s"},
    )
    counting_expression: StrictStr | None = Field(
        default=None, description="Which replies count (it may read http.response.*); absent: every request counts."
    )
    status: StrictInt = Field(default=429, ge=400, le=499, description="Of the refusal.")
    body: AnswerBody | None = Field(default=None, description="Of the refusal; absent: the edge's own, in the route's dialect.")
    content_type: ContentType | None = Field(default=None, description="What the body is; absent: as it begins.")
    mode: Literal["act", "log"] = Field(default="act", description="log: counted and logged, nobody is refused.")
    named: StrictBool = Field(default=False, description="true: it applies only where a rule's `set: {limits: […]}` names it.")


def amount(limit: Limit) -> tuple[str, int] | None:
    """What a limit counts, and how much of it is allowed; None when it does not say exactly one thing."""
    given = [(name, getattr(limit, name)) for name in AMOUNTS]
    said = [(name, number) for name, number in given if number is not None]
    return said[0] if len(said) == 1 else None
