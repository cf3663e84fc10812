# Rule files become one RuleBook, or problems of all of them at once, each with file, line, column and caret.
"""`read_rules(patterns)`: the only place that opens rule files. It raises nothing: what is wrong is in what it returns."""

from __future__ import annotations

import glob
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Final

from pydantic import ValidationError

from edgeproxy.config import explain
from edgeproxy.config.checks import Finding
from edgeproxy.config.document import MAX_BYTES, Document, Path
from edgeproxy.config.document import parse as parse_yaml
from edgeproxy.config.problems import ConfigError, Problem, quote, suggest
from edgeproxy.config.units import FROM_FILE
from edgeproxy.rules import lists
from edgeproxy.rules.actions import action_findings
from edgeproxy.rules.errors import RuleError
from edgeproxy.rules.model import ListModel, LoadedList, RuleBook, RuleFile, RuleModel
from edgeproxy.rules.parser import parse, parse_value
from edgeproxy.rules.syntax import Type

CASES: Final = (".cases.yaml", ".cases.yml")  # golden cases lie beside rule files, and are none
MAX_FILES: Final = 1000
_VALUES: Final = ("location_expression", "path_expression", "query_expression")


@dataclass(slots=True)
class Loaded:
    """What reading came to.

    Attributes:
        book: every rule that is right in itself; not to be used when there are problems.
        problems: of the rule files and lists.
        findings: of the patterns, by their index.
        files: what was read, in order.
    """

    book: RuleBook = field(default_factory=RuleBook)
    problems: list[Problem] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


def read_rules(patterns: tuple[str, ...], upstreams: Collection[str] | None = None) -> Loaded:
    """Reads every file that the patterns name (relative to the working directory), in their order, then by name.

    Args:
        upstreams: that rules may name; None: nobody knows them.
    """
    loaded = Loaded()
    documents: list[tuple[Document, RuleFile | None]] = []
    for path in _paths(patterns, loaded):
        document = _document(path, loaded)
        if document is not None:
            documents.append((document, _validated(document, loaded)))
    known, book_lists = _lists(documents, loaded)
    _rules(documents, known, upstreams, loaded)
    if not loaded.problems:
        rules = tuple(rule for _, model in documents if model is not None for rule in model.rules)
        loaded.book = RuleBook(rules=rules, lists=tuple(book_lists))
    return loaded


def _paths(patterns: tuple[str, ...], loaded: Loaded) -> Iterator[str]:
    seen: set[str] = set()
    for index, pattern in enumerate(patterns):
        if not pattern:
            continue  # no text: the model says so
        magic = glob.has_magic(pattern)
        # glob, not Path.glob: that one takes no absolute patterns.
        found = sorted(glob.glob(pattern, recursive=True)) if magic else [pattern]  # noqa: PTH207
        found = [each for each in found if not each.endswith(CASES)]
        if not found:
            hint = "is the working directory right?"
            loaded.findings.append(Finding(("rules", index), f"{quote(pattern)} names no file", hint))
        for path in found:
            if path not in seen and len(seen) < MAX_FILES:
                seen.add(path)
                loaded.files.append(path)
                yield path


def _document(path: str, loaded: Loaded) -> Document | None:
    try:
        with FilePath(path).open("rb") as opened:
            document = parse_yaml(opened.read(MAX_BYTES + 1), path, rules=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        loaded.problems.append(Problem(path, 0, 0, f"cannot be read: {reason}"))
        return None
    except ConfigError as error:
        loaded.problems += error.problems
        return None
    loaded.problems += document.problems
    return document


def _validated(document: Document, loaded: Loaded) -> RuleFile | None:
    try:
        return RuleFile.model_validate(document.data, context=FROM_FILE)
    except ValidationError as error:
        for finding in explain.findings(error, RuleFile):
            loaded.problems.append(placed(document, finding))
        return None


def placed(document: Document, finding: Finding) -> Problem:
    """A finding where it stands in the file."""
    at = document.key_at if finding.on_key else document.value_at
    return document.problem(at(finding.path) if finding.path else (0, 0), finding.message, finding.hint)


# -- lists -----------------------------------------------------------------------------------------------------------


def _lists(documents: list[tuple[Document, RuleFile | None]], loaded: Loaded) -> tuple[dict[str, Type], list[LoadedList]]:
    """The lists of all files. One that has problems is still known by name, so that its users have none of their own."""
    known: dict[str, Type] = {}
    found: list[LoadedList] = []
    first: dict[str, str] = {}
    for document, _ in documents:
        for name, raw in _mapping(document.data, "lists").items():
            if name in first:
                where = f"the first one is in {first[name]}"
                loaded.problems.append(placed(document, Finding(("lists", name), f"list '{name}' is there twice", where, True)))
                continue
            first[name] = document.file
            one = _list(document, name, raw, loaded)
            if one is not None:
                known[name] = lists.TYPES[one.kind]
                found.append(one)
    return known, found


def _list(document: Document, name: str, raw: Any, loaded: Loaded) -> LoadedList | None:
    try:
        model = ListModel.model_validate({"items": raw} if isinstance(raw, list) else raw, context=FROM_FILE)
    except ValidationError:
        return None  # said by the validation of the whole file
    if (model.file is None) == (not model.items):
        finding = Finding(("lists", name), f"list '{name}' needs either 'items' or 'file'", on_key=True)
        loaded.problems.append(placed(document, finding))
        return None
    if model.file is not None:
        return _list_of_file(document, name, model, loaded)
    kind = model.kind or lists.kind_of(model.items)
    base: Path = ("lists", name) if isinstance(raw, list) else ("lists", name, "items")
    for index, item in enumerate(model.items):
        wrong = lists.item_problem(item, kind)
        if wrong is not None:
            loaded.problems.append(placed(document, Finding((*base, index), wrong)))
    return LoadedList(name=name, kind=kind, items=model.items)


def _list_of_file(document: Document, name: str, model: ListModel, loaded: Loaded) -> LoadedList | None:
    assert model.file is not None
    path = FilePath(document.file).parent / model.file
    try:
        kind, items, problems = lists.read(path, model.kind)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        finding = Finding(("lists", name, "file"), f"{quote(model.file)} cannot be read: {reason}")
        loaded.problems.append(placed(document, finding))
        return None
    loaded.problems += problems
    return LoadedList(name=name, kind=kind, items=items)


# -- rules -----------------------------------------------------------------------------------------------------------


def _rules(
    documents: list[tuple[Document, RuleFile | None]], known: dict[str, Type], upstreams: Collection[str] | None, loaded: Loaded
) -> None:
    """Everything about rules that the model does not say, also of rules that have other problems."""
    first: dict[str, str] = {}
    total = 0
    for document, _ in documents:
        for index, raw in enumerate(_sequence(document.data, "rules")):
            if not isinstance(raw, dict):
                continue
            total += 1
            name = raw.get("id")
            if isinstance(name, str):
                where = f"{document.file}:{document.value_at(('rules', index, 'id'))[0]}"
                if first.setdefault(name, where) != where:
                    message, hint = f"id {quote(name)} is there twice", f"the first one is at {first[name]}"
                    loaded.problems.append(placed(document, Finding(("rules", index, "id"), message, hint)))
            _expressions(document, index, raw, known, loaded)
            loaded.problems += [placed(document, finding) for finding in action_findings(("rules", index), raw)]
    for document, model in documents:
        for index, rule in enumerate(model.rules if model is not None else ()):
            loaded.problems += [placed(document, finding) for finding in _skips(index, rule, first)]
            if upstreams is not None and rule.upstream is not None and rule.upstream not in upstreams:
                message, hint = f"unknown upstream {quote(rule.upstream)}", suggest(rule.upstream, upstreams)
                loaded.problems.append(placed(document, Finding(("rules", index, "upstream"), message, hint)))


def _expressions(document: Document, index: int, raw: dict[str, Any], known: dict[str, Type], loaded: Loaded) -> None:
    phase = "response" if raw.get("phase") == "response" else "request"
    for path, text, reader in _texts(raw):
        try:
            reader(text, known, phase=phase)
        except RuleError as error:
            place = locate(document, ("rules", index, *path), text, error.offset)
            loaded.problems.append(document.problem(place, error.message, error.hint))


def _texts(raw: dict[str, Any]) -> Iterator[tuple[Path, str, Callable[..., Any]]]:
    """Every expression of a rule: where it stands, its text, and what reads it."""
    for key, reader in (("expression", parse), *((key, parse_value) for key in _VALUES)):
        if isinstance(raw.get(key), str):
            yield (key,), raw[key], reader
    for part in ("set", "add"):
        for name, value in _mapping(raw.get("headers"), part).items():
            if isinstance(value, dict) and isinstance(value.get("expression"), str):
                yield ("headers", part, name, "expression"), value["expression"], parse_value


def _skips(index: int, rule: RuleModel, known: dict[str, str]) -> Iterator[Finding]:
    for place, name in enumerate(rule.skip.rules if rule.skip is not None else ()):
        if name not in known:
            yield Finding(("rules", index, "skip", "rules", place), f"unknown rule {quote(name)}", suggest(name, known))


def locate(document: Document, path: Path, text: str, offset: int) -> tuple[int, int]:
    """Line and column of a character of a value: its text is followed through quotes, escapes and line breaks of the YAML.

    Where the YAML spells a character otherwise (`\\u00e9`), the place is the nearest before it.
    """
    line, column = document.value_at(path)
    row, at = line - 1, column - 1
    first = document.lines[row][at : at + 1] if row < len(document.lines) else ""
    if first in ("|", ">"):
        row, at = row + 1, 0
    elif first in ("'", '"'):
        at += 1
    for char in text[: offset + 1]:
        if char in (" ", "\n"):
            continue  # how many blanks there are, and whether one is a line break, is the YAML's business
        found = _find(document.lines, row, at, char)
        if found is None:
            break
        row, at = found[0], found[1] + 1
    exact = offset < len(text) and text[offset] not in (" ", "\n")
    return row + 1, at if exact else at + 1


def _find(lines: list[str], row: int, at: int, char: str) -> tuple[int, int] | None:
    """The next place of a character, from a place on."""
    while row < len(lines):
        found = lines[row].find(char, at)
        if found >= 0:
            return row, found
        row, at = row + 1, 0
    return None


def _mapping(data: Any, name: str) -> dict[str, Any]:
    value = data.get(name) if isinstance(data, dict) else None
    return value if isinstance(value, dict) else {}


def _sequence(data: Any, name: str) -> list[Any]:
    value = data.get(name) if isinstance(data, dict) else None
    return value if isinstance(value, list) else []
