# An explanation as lines for a terminal. Nothing is decided or computed here.
"""`render`: plain text, aligned; in colour only where it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from edgeproxy.explaining.answer import Effect, Explanation, Named, Node, RuleTrace, Stage, State

_MARKS: Final[dict[Effect, str]] = {"passes": "ok", "changes": "->", "answers": "==", "waits": "??"}
_COLOURS: Final[dict[str, str]] = {
    "passes": "32", "changes": "36", "answers": "31;1", "waits": "33", "acts": "31;1", "logs": "36", "failed": "31", "true": "32",
    "dim": "2", "bold": "1",
}  # fmt: skip
_QUIET: Final[frozenset[State]] = frozenset({"no match", "not reached", "skipped", "disabled"})
_WIDEST: Final = 90  # columns of an expression's text before its answer stops being aligned


def render(explanation: Explanation, *, colour: bool = False, brief: bool = False) -> str:
    """The text.

    Args:
        brief: of rules that did nothing only their state.
    """
    paint = _Paint(colour)
    lines: list[str] = list(_request(explanation.request, paint))
    lines.append("")
    width = max(len(stage.name) for stage in explanation.stages)
    for stage in explanation.stages:
        lines += _stage(stage, width, paint, brief)
    lines += ["", f"{paint('bold', 'Outcome:')} {explanation.outcome.says}"]
    return "\n".join(lines) + "\n"


class _Paint:
    def __init__(self, colour: bool) -> None:
        self.colour = colour

    def __call__(self, kind: str, text: str) -> str:
        code = _COLOURS.get(kind)
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and code is not None else text


def _request(rows: list[Named], paint: _Paint) -> Iterator[str]:
    first, *rest = rows
    yield paint("bold", first.value)
    width = max((len(row.name) for row in rest), default=0)
    for row in rest:
        yield f"  {row.name:<{width}}  {row.value}"


def _stage(stage: Stage, width: int, paint: _Paint, brief: bool) -> Iterator[str]:
    yield f"{paint(stage.effect, _MARKS[stage.effect])} {paint('bold', f'{stage.name:<{width}}')}  {stage.says}"
    inner = max((len(row.name) for row in stage.details), default=0)
    for row in stage.details:
        yield paint("dim", f"     {row.name:<{inner}}  {row.value}")
    names = max((len(rule.id) for rule in stage.rules), default=0)
    for rule in stage.rules:
        yield from _rule(rule, names, paint, brief)


def _rule(rule: RuleTrace, width: int, paint: _Paint, brief: bool) -> Iterator[str]:
    label = f"{rule.action}, mode {rule.mode}" if rule.mode != "act" else rule.action
    says = f": {rule.says}" if rule.says and rule.state != "no match" else ""
    yield f"     {rule.id:<{width}}  {paint(rule.state, rule.state)} [{label}]{says}"
    for row in rule.changes:
        yield f"         {row.name}: {row.value}" if row.name[0] in "+-" else f"         {row.name}  {row.value}"
    if rule.expression is not None and not (brief and rule.state in _QUIET):
        rows = list(_node(rule.expression, 0))
        most = min(_WIDEST, max(len(text) for text, _, _ in rows))
        for text, answer, values in rows:
            told = f"   ({values})" if values else ""
            yield f"         {text:<{most}}  → {paint(answer, answer)}{told}"


def _node(node: Node, depth: int) -> Iterator[tuple[str, str, str]]:
    """Rows of text, answer and values. A joined test is named by its operator: its parts stand below it."""
    text = node.text if not node.parts else _short(node)
    if node.error:
        answer = f"failed: {node.error}"
    elif isinstance(node.answer, list):
        answer = f"[{', '.join(map(_word, node.answer))}]"
    else:
        answer = _word(bool(node.answer))
    yield "  " * depth + text, answer, ", ".join(f"{each.name} = {each.value}" for each in node.values)
    for part in node.parts:
        yield from _node(part, depth + 1)


def _short(node: Node) -> str:
    if len(node.parts) > 1:
        return node.join
    return f"{node.join}(…)" if node.join in ("any", "all") else node.join


def _word(answer: bool) -> str:
    return "true" if answer else "false"
