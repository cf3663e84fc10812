# How declared bots prove who they are: the section `bots.identity`. Nothing is fetched or asked here.
"""`BotIdentity`: the pydantic model; `identity_problems`: what only the disk can tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictStr

from edgeproxy.bots.keys import origin
from edgeproxy.config.keys import FilePath
from edgeproxy.config.problems import Invalid
from edgeproxy.config.section import Section
from edgeproxy.config.units import Duration

MAX_AGENTS: Final = 256


def _agent(text: str) -> str:
    found = origin(text)
    if found is None:
        raise Invalid(f"'{text}' is not an agent", "write the origin of its key directory, like https://agent.example")
    return found


Agent = Annotated[StrictStr, AfterValidator(_agent)]


class BotIdentity(Section):
    """By what declared bots are verified."""

    ranges: FilePath | None = Field(
        default=None, description="A folder of networks that operators publish; 'edgeproxy bots fetch DIR' fills it."
    )
    refresh: Annotated[Duration, Field(ge=1, le=86400)] = Field(
        default=60.0,
        description="How often that folder is looked at for files that have changed.",
        json_schema_extra={"default": "60s"},
    )
    dns: StrictBool = Field(default=True, description="true: the host name of an address that claims to be a bot is asked for.")
    known_agents: StrictBool = Field(
        default=True, description="true: signatures of the agents that the edge knows are looked at ('edgeproxy bots list')."
    )
    agents: tuple[Agent, ...] = Field(
        default=(), max_length=MAX_AGENTS, description="Origins of other agents whose signatures are looked at."
    )
    nonces: Literal["once", "reuse"] = Field(
        default="once", description="once: a signature with a nonce counts once, which the store says; reuse: until it expires."
    )


def identity_problems(section: BotIdentity) -> Iterator[tuple[str, str, str]]:
    """(field, message, hint) of what is not as the section says."""
    if section.ranges is not None and not section.ranges.is_dir():
        yield "ranges", f"the folder {section.ranges} does not exist", f"edgeproxy bots fetch {section.ranges}"
