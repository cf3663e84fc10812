# Rule files become one RuleBook, or problems of all of them at once, each with file, line, column and caret.
"""`read_rules`: the only place that opens rule files. It raises nothing: what is wrong is in what it returns.

Own files come first, in their order, then the shipped ones: what an own rule allows or skips, no shipped rule stops
(Cloudflare's order: custom rules before managed ones).
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path as FilePath
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from edgeproxy.config import explain
from edgeproxy.config.checks import Finding
from edgeproxy.config.document import MAX_BYTES, Document, Path
from edgeproxy.config.document import parse as parse_yaml
from edgeproxy.config.problems import ConfigError, Problem, quote, suggest
from edgeproxy.config.units import FROM_FILE
from edgeproxy.rules import lists, shipped
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
        files: what the patterns named and was read, in order.
        shipped: ids of rules in the book that come with the edge.
        types: of the lists, by name.
    """

    book: RuleBook = field(default_factory=RuleBook)
    problems: list[Problem] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    shipped: frozenset[str] = frozenset()
    types: dict[str, Type] = field(default_factory=dict)


class _Source(NamedTuple):
    """One rule file.

    Attributes:
        shipped: its name if it comes with the edge: it was checked by itself.
        document: of an own file; of a shipped one, no more than its path.
        rules: None when they are not all right.
    """

    shipped: str
    document: Document
    rules: tuple[RuleModel, ...] | None


def read_rules(
    patterns: tuple[str, ...], upstreams: Collection[str] | None = None, limits: Collection[str] | None = None,
    *, wanted: shipped.Wanted | None = None,
) -> Loaded:  # fmt: skip
    """Reads every file that the patterns name (relative to the working directory), in their order, then by name.

    Args:
        upstreams: names that rules may route to; None: whatever they say.
        limits: the same for limits that rules may set.
        wanted: which shipped files run behind these, or where the patterns name them in full; a pattern with `*` leaves
            them out. None: there are none, and their files are files like others.
    """
    loaded = Loaded()
    sources = [source for path, name in _paths(patterns, wanted, loaded) if (source := _source(path, name, loaded))]
    if wanted is not None:
        named = {source.shipped for source in sources}
        rest = [name for name in shipped.NAMES if wanted.get(name, True) is not False and name not in named]
        sources += [source for name in rest if (source := _source(shipped.path(name), name, loaded))]
    own = [source for source in sources if not source.shipped]
    known, book_lists = _lists([source.document for source in own], loaded)
    loaded.types = known
    ids = _rules(own, known, loaded)
    for source in sources:
        if source.shipped:
            _distinct(source, ids, loaded)
    _named(own, {*ids, *_shipped_ids(wanted)}, upstreams, limits, loaded)
    if not loaded.problems:
        rules: list[RuleModel] = []
        for source in sources:
            how = wanted.get(source.shipped, True) if wanted is not None else True
            rules += shipped.as_wanted(source.rules or (), how)
        loaded.shipped = frozenset(rule.id for source in sources if source.shipped for rule in source.rules or ())
        loaded.book = RuleBook(rules=tuple(rules), lists=tuple(book_lists))
    return loaded


def _paths(patterns: tuple[str, ...], wanted: shipped.Wanted | None, loaded: Loaded) -> Iterator[tuple[str, str]]:
    """What the patterns name, each file once: its path, and its name if it is a shipped one."""
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
            name = (shipped.name_of(path) if wanted is not None else None) or ""
            if name and magic:
                continue  # `shipped` says what becomes of it
            if name and wanted is not None and wanted.get(name, True) is False:
                message = f"{quote(pattern)} comes with the edge, and 'shipped' turns it off"
                loaded.findings.append(Finding(("rules", index), message, "remove one of the two"))
            elif (name or path) not in seen and len(seen) < MAX_FILES:
                seen.add(name or path)
                loaded.files.append(path)
                yield path, name


def _source(path: str, name: str, loaded: Loaded) -> _Source | None:
    if name:
        ours = _shipped(name)
        loaded.problems += ours.problems
        return _Source(name, Document(path, []), ours.book.rules)
    document = _document(path, loaded)
    if document is None:
        return None
    model = _validated(document, loaded)
    return _Source("", document, model.rules if model is not None else None)


def _shipped(name: str) -> Loaded:
    path = shipped.path(name)
    try:
        state = FilePath(path).stat()
    except OSError:
        return read_rules((path,))  # which says so
    return _shipped_as(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4)
def _shipped_as(path: str, _mtime: int, _size: int) -> Loaded:
    """A shipped file is the same for every configuration: read and checked once."""
    return read_rules((path,))


def _shipped_ids(wanted: shipped.Wanted | None) -> Iterator[str]:
    """The ids of all shipped rules, those of files that are turned off, too: what skips them stays right."""
    for name in shipped.NAMES if wanted is not None else ():
        yield from (rule.id for rule in _shipped(name).book.rules)


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


def _lists(documents: list[Document], loaded: Loaded) -> tuple[dict[str, Type], list[LoadedList]]:
    """The lists of all files. One that has problems is still known by name, so that its users have none of their own."""
    known: dict[str, Type] = {}
    found: list[LoadedList] = []
    first: dict[str, str] = {}
    for document in documents:
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


def _rules(sources: list[_Source], known: dict[str, Type], loaded: Loaded) -> dict[str, tuple[Document, int]]:
    """Everything about own rules that the model does not say, also of rules that have other problems.

    Returns: where each id is.
    """
    first: dict[str, tuple[Document, int]] = {}
    for _, document, _ in sources:
        for index, raw in enumerate(_sequence(document.data, "rules")):
            if not isinstance(raw, dict):
                continue
            name = raw.get("id")
            there, at = first.setdefault(name, (document, index)) if isinstance(name, str) else (document, index)
            if there is not document or at != index:
                where = f"the first one is at {there.file}:{there.value_at(('rules', at, 'id'))[0]}"
                problem = Finding(("rules", index, "id"), f"id {quote(str(name))} is there twice", where)
                loaded.problems.append(placed(document, problem))
            _expressions(document, index, raw, known, loaded)
            loaded.problems += [placed(document, finding) for finding in action_findings(("rules", index), raw)]
    return first


def _distinct(source: _Source, own: dict[str, tuple[Document, int]], loaded: Loaded) -> None:
    """The ids of shipped rules are taken."""
    for rule in source.rules or ():
        if rule.id in own:
            document, index = own[rule.id]
            message = f"id {quote(rule.id)} is that of a rule that comes with the edge"
            hint = f"'shipped: {{{source.shipped}: false}}' in the configuration turns those off"
            loaded.problems.append(placed(document, Finding(("rules", index, "id"), message, hint)))


def _named(
    sources: list[_Source], ids: set[str], upstreams: Collection[str] | None, limits: Collection[str] | None, loaded: Loaded
) -> None:
    """What rules name exists."""
    for _, document, rules in sources:
        for index, rule in enumerate(rules or ()):
            for place, name in enumerate(rule.skip.rules if rule.skip is not None else ()):
                if name not in ids:
                    path = ("rules", index, "skip", "rules", place)
                    loaded.problems.append(placed(document, Finding(path, f"unknown rule {quote(name)}", suggest(name, ids))))
            for place, name in enumerate(rule.limits if limits is not None else ()):
                if limits is not None and name not in limits:
                    message = f"there is no limit {quote(name)} with 'named: true'"
                    found = Finding(("rules", index, "limits", place), message, suggest(name, limits))
                    loaded.problems.append(placed(document, found))
            if upstreams is not None and rule.upstream is not None and rule.upstream not in upstreams:
                message, hint = f"unknown upstream {quote(rule.upstream)}", suggest(rule.upstream, upstreams)
                loaded.problems.append(placed(document, Finding(("rules", index, "upstream"), message, hint)))


def _expressions(document: Document, index: int, raw: dict[str, Any], known: dict[str, Type], loaded: Loaded) -> None:
    phase = "response" if raw.get("phase") == "response" else "request"
    for path, text, reader in expressions_of(raw):
        try:
            reader(text, known, phase=phase)
        except RuleError as error:
            place = locate(document, ("rules", index, *path), text, error.offset)
            loaded.problems.append(document.problem(place, error.message, error.hint))


def expressions_of(raw: dict[str, Any]) -> Iterator[tuple[Path, str, Callable[..., Any]]]:
    """Every expression of a rule: where it stands, its text, and what reads it."""
    for key, reader in (("expression", parse), *((key, parse_value) for key in _VALUES)):
        if isinstance(raw.get(key), str):
            yield (key,), raw[key], reader
    for part in ("set", "add"):
        for name, value in _mapping(raw.get("headers"), part).items():
            if isinstance(value, dict) and isinstance(value.get("expression"), str):
                yield ("headers", part, name, "expression"), value["expression"], parse_value


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
