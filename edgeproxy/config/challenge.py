# The section `challenge` as data: lifetimes, difficulties, and where its secret is. What they do is policy/challenge.py's.
"""Pydantic models of `challenge`. Its file is read by config/challenge_file.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, StrictBool, StrictInt, StrictStr, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema

from edgeproxy.config.problems import Invalid, quote
from edgeproxy.config.secret import Secret, SecretValue
from edgeproxy.config.section import Section
from edgeproxy.config.units import Duration, describe

MAX_CLEARANCE: Final = 86_400.0  # a day: as long as keys are known (policy/seals.py)
_PATH: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/")

Bits = Annotated[StrictInt, Field(ge=8, le=26)]


def _not_written(value: Any) -> Any:
    if isinstance(value, tuple) and all(isinstance(each, Secret) for each in value):
        return value
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return value  # on its way to the workers
    raise Invalid("the secret itself has no place in the configuration", "secret_file: path")


def _file(value: Any) -> Any:
    if value is None or isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value:
        raise Invalid(f"expected the path of a file, not {describe(value)}")
    return Path(value)


def _path(value: str) -> str:
    if not _PATH.issuperset(value) or value[0] != "/" or not {"", ".", ".."}.isdisjoint(value[1:].split("/")):
        raise Invalid(f"{quote(value)} is no path for this", "like /.edge/challenge: letters, digits and - . _ ~")
    return value


def _clearance(value: float) -> float:
    if not 10 <= value <= MAX_CLEARANCE:
        raise Invalid("a clearance holds for 10s to 1d")
    return value


def _wait(value: float) -> float:
    if not 1 <= value <= 120:
        raise Invalid("waiting takes 1s to 2m")
    return value


class Difficulty(Section):
    """How hard puzzles are for some scores."""

    up_to: Annotated[StrictInt, Field(ge=1, le=99)] = Field(description="The highest score of a client that it is for.")
    bits: Bits = Field(description="2 to the power of this is how many hashes a puzzle takes on average.")


def _table(value: tuple[Difficulty, ...]) -> tuple[Difficulty, ...]:
    steps = [each.up_to for each in value]
    if steps != sorted(set(steps)) or steps[-1:] != [99]:
        raise Invalid("'up_to' rises from row to row, and the last is 99")
    return value


class NoScript(Section):
    """What browsers without JavaScript can do."""

    enabled: StrictBool = Field(default=True, description="They may wait instead; false: they do not pass.")
    wait: Annotated[Duration, AfterValidator(_wait)] = Field(
        default=15.0, description="How long they wait.", json_schema_extra={"default": "15s"}
    )
    clearance: Annotated[Duration, AfterValidator(_clearance)] = Field(
        default=300.0, description="How long what they get holds; js_challenge does not accept it.",
        json_schema_extra={"default": "5m"},
    )  # fmt: skip
    least_score: Annotated[StrictInt, Field(ge=1, le=99)] = Field(
        default=2, description="The lowest score of a client that may wait; one that has no score may."
    )


_DIFFICULTIES: Final = ({"up_to": 9, "bits": 22}, {"up_to": 29, "bits": 20}, {"up_to": 99, "bits": 18})


class Challenge(Section):
    """What clients have to do whom a rule challenges."""

    path: Annotated[StrictStr, Field(min_length=2, max_length=64), AfterValidator(_path)] = Field(
        default="/.edge/challenge",
        description="Where solutions are handed in, on every host, before all rules; the script is there with '.js' behind it.",
    )
    secret_file: Annotated[Path | None, PlainValidator(_file), WithJsonSchema({"type": "string"})] = Field(
        default=None,
        description="A file with a secret of at least 32 characters on each of up to four lines: the first makes clearances and "
        "session cookies, all of them are believed. Absent: a random one, until the edge is started again.",
    )
    clearance: Annotated[Duration, AfterValidator(_clearance)] = Field(
        default=1800.0, description="How long who solved a puzzle is not asked again.", json_schema_extra={"default": "30m"}
    )
    difficulties: Annotated[tuple[Difficulty, ...], Field(min_length=1, max_length=16), AfterValidator(_table)] = Field(
        default=tuple(Difficulty(**each) for each in _DIFFICULTIES),
        description="How hard puzzles are, by the client's score.",
        json_schema_extra={"default": [dict(each) for each in _DIFFICULTIES]},
    )
    unscored_bits: Bits = Field(default=19, description="The same where a client has no score.")
    no_script: NoScript = Field(default_factory=NoScript, description="What browsers without JavaScript can do.")
    secrets: SkipJsonSchema[Annotated[tuple[SecretValue, ...], BeforeValidator(_not_written)]] = ()  # by challenge_file.py
