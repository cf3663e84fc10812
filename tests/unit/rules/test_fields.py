# Every field is in docs/rules.md: those with a value here by their names, those without in the list of missing ones.
"""fields.py, sources.py and the page that speaks of them."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

from edgeproxy.rules.fields import FIELDS
from edgeproxy.rules.sources import SOURCES

PAGE = (Path(__file__).parents[3] / "docs/rules.md").read_text("utf-8")
SECTION = PAGE.partition("## Fields\n")[2].partition("\n## ")[0]
TABLE, MISSING = SECTION.split("These are accepted and are missing")


def test_every_source_is_a_field() -> None:
    assert SOURCES.keys() <= FIELDS.keys()
    assert {name for name, info in FIELDS.items() if info.known} == SOURCES.keys()


def test_the_page_names_every_field_that_has_a_value() -> None:
    named = [name for row in TABLE.splitlines() for name in re.findall(r"`([^`]+)`", row.split("|")[1] if "|" in row else "")]
    assert len(named) == len(set(named))
    assert set(named) == SOURCES.keys()


def test_the_page_names_every_field_that_has_none() -> None:
    patterns = re.findall(r"`([^`]+)`", MISSING)
    unknown = {name for name, info in FIELDS.items() if not info.known}
    assert {name for name in FIELDS if any(fnmatchcase(name, each) for each in patterns)} == unknown
    assert all(any(fnmatchcase(name, each) for name in unknown) for each in patterns)


def test_slots_are_distinct() -> None:
    assert len({info.slot for info in FIELDS.values()}) == len(FIELDS)
