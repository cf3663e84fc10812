# The short table of an evaluation, made from the long one: pages that say the same thing cannot differ. Text in, text out.
"""`short(figures)`: what docs/bots.md shows of docs/bot-model.md; `put` and `between`: figures in a page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tools.bots.matrix import TIERS

MARKS: Final = ("<!-- figures: made by make bots-eval -->", "<!-- end of figures -->")
_TABLES: Final = (
    ("**The model alone**", "The model alone, one request, against all humans:"),
    ("**With heuristics**", "With heuristics, one request, against the humans whose head does not contradict itself:"),
)
_AFTER: Final = (
    "nothing",
    "as fast as a driven browser can, cookies kept, with parts",
    "every 2 s by a timer, cookies kept, pages alone",
    "every 2 s by a timer, no cookies, pages alone, half of them 404",
    "random, like a reader's, cookies kept, with parts",
    "a challenge alone",
    "a challenge; as fast as a driven browser can, cookies kept, with parts",
)


def short(figures: str) -> str:
    """The tiers, and automation after 20 requests and after a challenge.

    Raises: ValueError (what it is made of is not there).
    """
    lines = [figures.partition("\n")[0]]
    for begins, title in _TABLES:
        rows = dict(_rows(figures, begins))
        head = "| tier | implementations | requests | AUC | recall below every human | recall at 0.1 % FPR | recall at 1 % FPR |"
        lines += ["", title, "", head, "|---|---|---|---|---|---|---|"]
        lines += [f"| {tier} | {' | '.join(_of(rows, tier))} |" for tier in TIERS]
    # What the second table leaves out: humans that contradict themselves.
    lines += ["", *(line for line in figures.splitlines() if line.startswith("Below every human,"))]
    rows = dict(_rows(figures, "| automation, after |"))
    lines += ["", "Automation, after twenty requests of a session, and after a challenge that was passed:", ""]
    lines += ["| automation, after | below 30 | AUC | recall at 0.1 % FPR | recall at 1 % FPR | median score |"]
    lines += ["|---|---|---|---|---|---|"]
    lines += [f"| {name} | {' | '.join(_of(rows, name))} |" for name in _AFTER]
    return "\n".join([*lines, ""])


def _rows(figures: str, begins: str) -> Iterator[tuple[str, list[str]]]:
    """Of the first table at or behind the line that begins so: the first cell, and the others."""
    lines = iter(figures.splitlines())
    line = next((line for line in lines if line.startswith(begins)), "")
    while not line.startswith("| "):
        line = next(lines, "| ")
    next(lines, "")  # the rule below the head
    for line in lines:
        if not line.startswith("| "):
            return
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        yield name, cells


def _of(rows: dict[str, list[str]], name: str) -> list[str]:
    if name not in rows:
        raise ValueError(f"the figures have no row '{name}'")
    return rows[name]


def put(path: Path, text: str) -> None:
    """Between the marks of a page, or as the whole of a new one."""
    if not path.exists():
        path.write_text(text)
        return
    page = path.read_text()
    before, _, rest = page.partition(MARKS[0])
    _, _, behind = rest.partition(MARKS[1])
    path.write_text(f"{before}{MARKS[0]}\n{text}{MARKS[1]}{behind}")


def between(page: str) -> str:
    """The figures of a page, as they were put."""
    _, _, rest = page.partition(f"{MARKS[0]}\n")
    return rest.partition(MARKS[1])[0]
