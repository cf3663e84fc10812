# Lists of addresses, strings and numbers: how their items are written and what they become for look-ups.
"""From the items of a list to a container that answers `in` in well under a microsecond, whatever its size."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Literal

from edgeproxy.config.problems import Problem, quote
from edgeproxy.rules.addresses import Range, Ranges, parse_range
from edgeproxy.rules.model import LoadedList
from edgeproxy.rules.syntax import BYTES, INT, IP, Type

MAX_BYTES: Final = 8 << 20  # of one list's file
MAX_ITEMS: Final = 500_000
MAX_PROBLEMS: Final = 20  # of one list; more say nothing new
_NUMBER: Final = re.compile(r"-?[0-9]{1,18}")
# Looks like an address, so that a wrong one is an error and not a string.
_ADDRESS: Final = re.compile(r"(?=.*[0-9])(?=.*[.:])[0-9A-Fa-f.:]+(?:/[0-9]+)?")

ListKind = Literal["ip", "string", "number"]
TYPES: Final[dict[str, Type]] = {"ip": IP, "string": BYTES, "number": INT}


def kind_of(items: Iterable[str]) -> ListKind:
    """What a list holds that does not say it."""
    words = list(items)
    if words and all(_NUMBER.fullmatch(word) for word in words):
        return "number"
    if words and all(_ADDRESS.fullmatch(word) for word in words):
        return "ip"
    return "string"


def item_problem(item: str, kind: ListKind) -> str | None:
    """Why an item does not fit its list, None when it does."""
    if kind == "number":
        return None if _NUMBER.fullmatch(item) else f"{quote(item)} is not a number"
    if kind == "ip":
        found = parse_range(item)
        return found if isinstance(found, str) else None
    return None if item else "an item is empty"


def container(loaded: LoadedList) -> frozenset[bytes] | frozenset[int] | Ranges:
    """What the compiler gives to `in`."""
    if loaded.kind == "string":
        return frozenset(item.encode("utf-8", "surrogatepass") for item in loaded.items)
    if loaded.kind == "number":
        return frozenset(int(item) for item in loaded.items)
    return Ranges(_ranges(loaded.items))


def _ranges(items: Iterable[str]) -> Iterator[Range]:
    for item in items:
        found = parse_range(item)
        if isinstance(found, tuple):
            yield found


def read(path: Path, kind: ListKind | None) -> tuple[ListKind, tuple[str, ...], list[Problem]]:
    """The items of a list's file, one a line; what is wrong with them has lines of that file.

    Raises: OSError when it cannot be read.
    """
    with path.open("rb") as opened:
        raw = opened.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        return kind or "string", (), [Problem(str(path), 0, 0, f"larger than {MAX_BYTES >> 20} MiB")]
    try:
        lines = raw.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        return kind or "string", (), [Problem(str(path), 0, 0, "not UTF-8", "save the file as UTF-8")]
    placed = [(number, item) for number, line in enumerate(lines, 1) if (item := line.partition("#")[0].strip())]
    if len(placed) > MAX_ITEMS:
        return kind or "string", (), [Problem(str(path), 0, 0, f"more than {MAX_ITEMS} items")]
    kind = kind or kind_of(item for _, item in placed)
    problems: list[Problem] = []
    for number, item in placed:
        wrong = item_problem(item, kind)
        if wrong is not None and len(problems) < MAX_PROBLEMS:
            source = lines[number - 1]
            problems.append(Problem(str(path), number, source.index(item) + 1, wrong, source=source))
    return kind, tuple(item for _, item in placed), problems
