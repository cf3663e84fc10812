# docs/keys.md says what the code does: every key of a file of keys, every kind of refusal, and the scanner's expression.
from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from pydantic import BaseModel

from edgeproxy.config.keys import Budget, KeyModel, Previous
from edgeproxy.policy.keys import KeyProblem, Kind
from edgeproxy.policy.keytext import make

PAGE = (Path(__file__).parents[3] / "docs/keys.md").read_text("utf-8")


def rows(kind: type[BaseModel], prefix: str = "") -> list[str]:
    found: list[str] = []
    for name, field in kind.model_fields.items():
        found.append(f"| `{prefix}{name}` | {field.description} |")
        inner = {"budget": Budget, "previous": Previous}.get(name)
        found += rows(inner, f"{name}.") if inner is not None else []
    return found


def test_every_key_of_a_key() -> None:
    section = PAGE.partition("## keys.yaml")[2].partition("\n## ")[0]
    assert [line for line in section.splitlines() if line.startswith("| `")] == rows(KeyModel)


def test_every_kind_of_refusal() -> None:
    section = PAGE.partition("## What is refused")[2].partition("\n## ")[0]
    written = re.findall(r"^\| `(\w+)` \|.*\| (\d+) \| `(\w+)` \|$", section, re.MULTILINE)
    made = [KeyProblem(kind) for kind in get_args(Kind)]
    assert written == [(each.kind, str(each.fault.status), each.fault.reason) for each in made]


def test_the_scanners_expression() -> None:
    found = re.search(r"^\\bep-.*$", PAGE, re.MULTILINE)
    assert found is not None and re.search(found[0], f"key={make().text};")
