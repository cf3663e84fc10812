# The short figures of docs/bots.md are those of docs/bot-model.md: made from them, and never by hand.
from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.bots.summary import MARKS, between, put, short

DOCS = Path(__file__).parents[3] / "docs"
LONG = between((DOCS / "bot-model.md").read_text())
SHOWN = (DOCS / "bots.md").read_text()


def test_the_two_pages_agree() -> None:
    assert LONG and between(SHOWN) == short(LONG), "make bots-eval writes both"


def test_each_tier_has_its_numbers_with_intervals() -> None:
    for title in ("The model alone", "With heuristics"):
        table = between(SHOWN).partition(title)[2].partition("\n\n")[2].partition("\n\n")[0].splitlines()[2:]
        assert [line.split()[1] for line in table] == ["declared", "library", "impersonator", "automation"]
        for line in table:
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert re.fullmatch(r"[01]\.\d{4}", cells[3])
            assert all(re.fullmatch(r"\d+\.\d % \(\d+\.\d–\d+\.\d\)", cell) for cell in cells[4:]) and len(cells) == 7


def test_what_was_to_be_reached() -> None:
    """Of issue 6: declared and libraries 99 % below every human, impersonators an AUC of 0.95. Against the humans that do not
    contradict themselves; that whole scores do less against all of them is told beside it."""
    table = between(SHOWN).partition("With heuristics")[2].partition("\n\n")[2].partition("\n\n")[0].splitlines()
    rows = {line.split("|")[1].strip(): line.split("|") for line in table}
    for tier in ("declared", "library"):
        assert float(rows[tier][5].split()[0]) >= 99
    assert float(rows["impersonator"][4]) >= 0.95
    assert "(score 1: none of the humans)" in LONG and "Below every human, those included that contradict" in between(SHOWN)


def test_figures_without_what_is_wanted() -> None:
    with pytest.raises(ValueError, match="no row 'declared'"):
        short("nothing")
    with pytest.raises(ValueError, match="no row 'library'"):
        short(LONG.replace("| library |", "| libraries |"))


def test_a_page_keeps_what_is_around_its_figures(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nbehind\n")
    put(page, "new\n")
    assert page.read_text() == f"before\n{MARKS[0]}\nnew\n{MARKS[1]}\nbehind\n" and between(page.read_text()) == "new\n"
    new = tmp_path / "new.md"
    put(new, "all\n")
    assert new.read_text() == "all\n"
