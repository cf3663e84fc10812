# The rule files that come with the edge: where they lie, which path is one of them, and what the configuration makes of them.
"""`baseline` and `chat`, on by default; `shipped: {baseline: false}` in the configuration turns one off, `log` tries it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

from edgeproxy.rules import syntax
from edgeproxy.rules.model import RuleModel
from edgeproxy.rules.parser import parse

NAMES: Final = ("baseline", "chat")
# In the repository a link to rules/, where operators look for them; in a wheel the files themselves.
DIRECTORY: Final = Path(__file__).parent.parent / "shipped"

Wanted = Mapping[str, bool | Literal["log"]]


def path(name: str) -> str:
    """The file of a name."""
    return str(DIRECTORY / f"{name}.yaml")


def name_of(file: str) -> str | None:
    """Which shipped file a path leads to, also by a link or as an unchanged copy; None for any other file."""
    found = Path(file)
    if found.suffix != ".yaml" or found.stem not in NAMES:
        return None
    try:
        ours = Path(path(found.stem))
        return found.stem if found.samefile(ours) or found.read_bytes() == ours.read_bytes() else None
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None


def as_wanted(rules: tuple[RuleModel, ...], wanted: bool | Literal["log"]) -> tuple[RuleModel, ...]:
    """The rules of a file, none of them acting where they shall only be tried."""
    return tuple(rule.model_copy(update={"mode": "log"}) for rule in rules) if wanted == "log" else rules


def can_hold(rule: RuleModel, most: int) -> bool:
    """False for a rule that asks for bodies larger than any route takes: the edge refuses these itself, and a rule about a
    size is asked for every request, though it is the same for all others.

    Args:
        most: bytes that the most generous route takes.
    """
    return all(least < most for least in _sizes(parse(rule.expression, {})))


def _sizes(test: syntax.Test) -> Iterator[int]:
    """What the body has to be larger than for the test to hold."""
    for part in test.tests if isinstance(test, syntax.Combine) and test.op == "and" else (test,):
        match part:
            case syntax.Compare("gt", syntax.Field("http.request.body.size"), syntax.Literal(int() as size)):
                yield size
