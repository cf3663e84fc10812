# The section `bots`: whether requests are scored, by what, and what becomes of them. Nothing here scores.
"""Pydantic models of `bots` and of `routes[].bots`."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, PlainValidator, StrictBool, StrictInt, StrictStr, WithJsonSchema, model_validator

from edgeproxy.config import names
from edgeproxy.config.identity import BotIdentity
from edgeproxy.config.problems import Invalid
from edgeproxy.config.section import Section
from edgeproxy.config.units import describe

ScoreBound = Annotated[StrictInt, Field(ge=0, le=99)]
Name = Annotated[StrictStr, Field(min_length=1, max_length=64)]
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(names.network), WithJsonSchema({"type": "string"})]


def _model(value: object) -> object:
    if value in {"shipped", "off"} if isinstance(value, str) else isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value.strip():
        raise Invalid(f"expected 'shipped', 'off' or the path of a file, not {describe(value)}")
    return Path(value)


# Not a union: its errors would be two for one mistake, one of them about words that nobody meant.
_WORDS: Final[dict[str, Any]] = {"anyOf": [{"enum": ["shipped", "off"], "type": "string"}, {"type": "string"}]}
ModelFile = Annotated[Literal["shipped", "off"] | Path, PlainValidator(_model), WithJsonSchema(_WORDS)]


class Slow(Section):
    """What requests with a low score get less of."""

    score: ScoreBound = Field(description="Scores from 1 to this one.")
    limits: tuple[Name, ...] = Field(
        default=(), max_length=16, description="Names of limits (with `named: true`) that hold for them, of tokens for example."
    )
    upstream: StrictStr | None = Field(default=None, description="Where they go instead: to a smaller model, for example.")
    priority: Literal["normal", "low"] = Field(
        default="normal", description="low: they wait behind all others for a connection to the upstream, and leave some free."
    )


Odds = Annotated[float, Field(ge=-3, le=3, allow_inf_nan=False)]


class BotBehaviour(Section):
    """How much what a client did counts, in log-odds at its full effect; below 0: towards automated."""

    enabled: StrictBool = Field(default=True, description="false: what clients did counts for nothing.")
    rate: Odds = Field(default=-1.5, description="More than a request a second, fully from five on.")
    regular: Odds = Field(default=-1.2, description="Always the same time between requests.")
    errors: Odds = Field(default=-1.5, description="Answers of 400 to 499: from a fifth of all, fully from seven tenths on.")
    spread: Odds = Field(default=-0.8, description="Many paths, evenly, without what pages are made of.")
    no_cookies: Odds = Field(default=-0.8, description="Ten answers to an address had a session cookie, and none came back.")
    many_agents: Odds = Field(default=-1.0, description="Several User-Agents of one session, or fingerprint at one address.")
    pages: Odds = Field(default=0.6, description="Scripts, styles and pictures are loaded as pages need them.")
    smooth: StrictBool = Field(
        default=True,
        description="true: what the model says of a session's request is drawn towards what it said before, by 0.5 up and 1 down "
        "at most.",
    )


class BotPolicy(Section):
    """What a score does. 0 (not computed) does nothing."""

    mode: Literal["log", "act"] = Field(
        default="log", description="log: what would be done is counted and logged, and nobody is refused."
    )
    block: ScoreBound = Field(default=0, description="Scores from 1 to this one are refused; 0: none.")
    challenge: ScoreBound = Field(default=0, description="Scores from 1 to this one have to pass a challenge; 0: none.")
    log: ScoreBound = Field(default=29, description="Scores from 1 to this one tell a security event; 0: none.")
    slow: Slow | None = Field(default=None, description="What low scores get less of.")
    verified: Literal["allow", "score"] = Field(
        default="allow", description="allow: verified bots pass, whatever their score; score: they are bots like others."
    )
    keyed: Literal["allow", "score"] = Field(
        default="allow", description="allow: requests with a valid key of the edge pass: a program is what sends them."
    )


class Bots(BotPolicy):
    """Scores of bots, and what they do."""

    enabled: StrictBool = Field(default=False, description="true: every request has a score.")
    model: ModelFile = Field(
        default="shipped", description="The model that scores what no heuristic catches; or the path of your own, off: none."
    )

    behaviour: BotBehaviour = Field(default_factory=BotBehaviour, description="How much what a client did before counts.")
    session_cookie: StrictBool = Field(
        default=True,
        description="true: browsers get a cookie (__Host-edge_session, for 30 minutes), by which their requests belong together.",
    )
    identity: BotIdentity = Field(default_factory=BotIdentity, description="By what declared bots are verified.")
    corporate_proxies: tuple[Network, ...] = Field(
        default=(),
        max_length=1024,
        description="Networks of proxies that open their users' TLS: a handshake from there counts for nothing, it is theirs.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.challenge and self.block > self.challenge:
            raise Invalid("'block' is above 'challenge', so that nobody is ever challenged", "make 'challenge' the larger one")
        return self


class RouteBots(Section):
    """The policy of one route, where it differs."""

    enabled: StrictBool = Field(default=True, description="false: scores do nothing here.")
    mode: Literal["log", "act"] | None = Field(default=None, description="As 'bots.mode'.")
    block: ScoreBound | None = Field(default=None, description="As 'bots.block'.")
    challenge: ScoreBound | None = Field(default=None, description="As 'bots.challenge'.")
    log: ScoreBound | None = Field(default=None, description="As 'bots.log'.")
    slow: Slow | None = Field(default=None, description="As 'bots.slow'.")
    verified: Literal["allow", "score"] | None = Field(default=None, description="As 'bots.verified'.")
    keyed: Literal["allow", "score"] | None = Field(default=None, description="As 'bots.keyed'.")


def model_path(bots: Bots) -> Path | None:
    """Of the operator's own model; None where it is not."""
    return bots.model if isinstance(bots.model, Path) else None
