# What a conversion says and writes: one rule checked as a file would be, the YAML, and the list of what was left out.
"""`wrong(rule)` is why a converted rule would not load; `text(…)` the rule file; `Left` one thing that was not carried."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from pydantic import ValidationError

from edgeproxy.config import explain
from edgeproxy.config.problems import Problem, printable
from edgeproxy.config.units import FROM_FILE
from edgeproxy.rules.actions import action_findings
from edgeproxy.rules.errors import RuleError
from edgeproxy.rules.files import expressions_of
from edgeproxy.rules.model import RuleModel

# What no rule file may contain (config/document.py); lone surrogates cannot be written at all.
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_LONGEST: Final = 200  # characters of a description or a name from outside


@dataclass(frozen=True, slots=True)
class Left:
    """What was left out.

    Attributes:
        name: the rule's id here, or the ruleset's name.
        description: of the rule.
        reason: why; may have several lines, the last with a caret.
    """

    name: str
    description: str
    reason: str

    def lines(self) -> list[str]:
        """As it is shown."""
        first, *rest = self.reason.split("\n")
        about = f" ({self.description})" if self.description else ""
        return [f"{self.name}{about}: {first}", *rest]


@dataclass(slots=True)
class Converted:
    """What became of an export.

    Attributes:
        rules: as in a rule file, in order.
        left: what was left out, or of which a part was.
        upstreams: names that rules route to and the configuration has to define, with the address Cloudflare used.
        total: rules in the export.
    """

    rules: list[dict[str, Any]] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    upstreams: dict[str, str] = field(default_factory=dict)
    total: int = 0


def said(value: Any) -> str:
    """A text from outside on one line, bounded; empty for anything but text."""
    text = printable(" ".join(value.split())) if isinstance(value, str) else ""
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def wrong(rule: dict[str, Any]) -> str | None:
    """Why a rule would not load, None when it would. Rules it names are not looked for."""
    for path, expression, reader in expressions_of(rule):
        try:
            reader(expression, {}, phase=rule.get("phase", "request"))
        except RuleError as error:
            return _pointed(".".join(map(str, path)), expression, error)
    if any(_CONTROL.search(each) for each in _texts(rule)):
        return "a value has a control character"
    try:
        RuleModel.model_validate(rule, context=FROM_FILE)
    except ValidationError as error:
        return "; ".join(finding.message for finding in explain.findings(error, RuleModel))
    found = [finding.message for finding in action_findings((), rule)]
    return "; ".join(found) if found else None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _pointed(where: str, expression: str, error: RuleError) -> str:
    """The problem, the line it is in, and a caret."""
    before = expression[: error.offset].split("\n")
    source = expression.split("\n")[len(before) - 1]
    return Problem(where, len(before), len(before[-1]) + 1, error.message, error.hint, source).render()


class _Dumper(yaml.SafeDumper):
    """Without anchors; lists within mappings are indented."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - PyYAML's signature
        super().increase_indent(flow, False)


def text(source: str, rules: list[dict[str, Any]], notes: Iterable[str]) -> str:
    """A rule file, with the notes as comments at its end."""
    head = f"# Converted from {said(source)} by `edgeproxy rules convert`.\n"
    # Without line breaks inside values: places in the file and in an expression agree then.
    body = yaml.dump({"rules": rules}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 20)
    comments = "".join(f"#{' ' if line else ''}{printable(line)}\n" for line in notes)
    return head + body + (f"\n{comments}" if comments else "")


def summary(made: Converted) -> list[str]:
    """Lines for people: how many rules there are, what they need, and what could not be carried."""
    lines = [f"{len(made.rules)} of {made.total} rules carried"]
    if made.upstreams:
        needs = ", ".join(f"{name} ({said(address)})" for name, address in made.upstreams.items())
        lines.append(f"to be defined below 'upstreams' of the configuration: {needs}")
    if made.left:
        lines.append("left out:")
        lines += [f"  {line}" for left in made.left for line in left.lines()]
    return lines
