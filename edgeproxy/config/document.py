# YAML text becomes plain values that remember where they stood. Knows YAML, and no key of the configuration.
"""Reads one YAML document within bounds, by the node tree of PyYAML, and keeps the place of every key and value.

Scalars are read by the YAML 1.2 core schema, not by YAML 1.1: only `true` and `false` are booleans, so that `on`, `no`
and `off` stay text; `8:30` is text and not the number 510; `0777` and `1_000` are text and not numbers; keys are always
text. The types of the model then say what was expected. Tags and merge keys are refused, aliases are bounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from edgeproxy.config.problems import ConfigError, Problem, quote

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 32
MAX_NODES: Final = 50_000  # nodes after aliases are followed: "billion laughs" ends here

Path = tuple[str | int, ...]
Place = tuple[int, int]  # line and column, 1-based

_TEXT: Final = "tag:yaml.org,2002:str"
_PLAIN_TAGS: Final = frozenset({_TEXT, "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE: Final = frozenset({"true", "True", "TRUE"})
_FALSE: Final = frozenset({"false", "False", "FALSE"})
# 18 digits fit every integer of the model; more is text, and then refused with the text shown.
_INT: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT: Final = re.compile(r"[-+]?[0-9]{1,18}\.[0-9]{1,18}")
# The line breaks that PyYAML counts (YAML 1.1 §5.4); str.splitlines knows more.
_BREAK: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
# PyYAML on characters: what is outside is a ReaderError.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_BLANKS: Final = re.compile("[\t\r\n]")


@dataclass(slots=True)
class Document:
    """Plain data (dict, list, str, int, float, bool, None) and where each part stood; `problems` as they were found."""

    file: str
    lines: list[str]
    data: Any = None
    multiline: bool = False  # values may have several lines
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def report(self, place: Place, message: str, hint: str = "") -> None:
        """Adds a problem at a place of the text."""
        self.problems.append(self.problem(place, message, hint))

    def problem(self, place: Place, message: str, hint: str = "") -> Problem:
        """A problem at a place of the text, with its source line."""
        line, column = place
        source = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        return Problem(self.file, line, column, message, hint, source)

    def value_at(self, path: Path) -> Place:
        """Where a value stands; for one that is not written there, where the nearest enclosing value stands."""
        while path not in self.values and path:
            path = path[:-1]
        return self.values.get(path, (1, 1) if self.lines else (0, 0))

    def key_at(self, path: Path) -> Place:
        """Where a key stands; for an item of a list, where the item stands."""
        return self.keys.get(path) or self.value_at(path)


def parse(raw: bytes, file: str, *, rules: bool = False, starts: str = "") -> Document:
    """Reads the bytes of a configuration file, or (`rules`) of a rule file, whose expressions may have several lines.

    Args:
        starts: of a file that is neither: the key it starts with.

    Raises ConfigError when no mapping can be had from them.
    """
    text = _decode(raw, file)
    document = Document(file, _BREAK.split(text), multiline=rules)
    try:
        root = _compose(text)
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax(document, error)]) from error
    except yaml.reader.ReaderError as error:
        raise ConfigError([_unreadable(document, text, error)]) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML lets Python's own errors out for escapes and version numbers beyond every range.
        raise ConfigError([Problem(file, 0, 0, "not YAML: an escape or a number is out of range")]) from error
    if root is None or (isinstance(root, yaml.ScalarNode) and root.value in _NULL):
        what = "the rule file" if rules else "the file" if starts else "the configuration"
        raise ConfigError([Problem(file, 0, 0, f"{what} is empty", "docs/configuration.md has a first one")])
    if not isinstance(root, yaml.MappingNode):
        kind = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
        first = "the key 'rules:'" if rules else f"the key '{starts}:'" if starts else "keys like 'listen:' and 'routes:'"
        hint = f"the file starts with {first}"
        raise ConfigError([document.problem(_place(root), f"expected a mapping, not {kind}", hint)])
    reader = _Reader(document)
    document.data = reader.read(root, (), 0)
    return document


def _decode(raw: bytes, file: str) -> str:
    if len(raw) > MAX_BYTES:
        raise ConfigError([Problem(file, 0, 0, "larger than 1 MiB", "is this the configuration?")])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise ConfigError([Problem(file, 0, 0, "not UTF-8: the file is UTF-16", "save it as UTF-8")]) from error
        before = _BREAK.split(raw[: error.start].decode("utf-8-sig", "replace"))
        source = _BREAK.split(raw.decode("utf-8-sig", "replace"))[len(before) - 1]
        message = f"not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start}"
        where = (len(before), len(before[-1]) + 1)
        raise ConfigError([Problem(file, *where, message, "save the file as UTF-8", source)]) from error


class _Loader(yaml.SafeLoader):
    """PyYAML's composer with a bound on depth and on nodes, and without YAML 1.1's guesses about plain scalars."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own attribute, never changed

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._nodes += 1
        self._depth += 1
        if self._depth > MAX_DEPTH or self._nodes > MAX_NODES:
            problem = "nested too deeply" if self._depth > MAX_DEPTH else "too many values"
            # Checked before anything recursive happens: neither PyYAML nor we can run out of stack.
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=_mark(self))
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _compose(text: str) -> yaml.Node | None:
    loader = _Loader(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
        return node
    finally:
        loader.dispose()


class _Reader:
    """Walks the node tree once; problems that leave a value readable are added to the document."""

    __slots__ = ("_document", "_full", "_nodes")

    def __init__(self, document: Document) -> None:
        self._document = document
        self._nodes = 0
        self._full = False

    def read(self, node: yaml.Node, path: Path, depth: int) -> Any:
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            if not self._full:
                self._full = True
                what = "nested too deeply" if depth > MAX_DEPTH else "too many values"
                self._document.report(_place(node), f"{what}, once aliases are followed", "write it without aliases")
            return None
        self._document.values[path] = _place(node)
        if node.tag not in _PLAIN_TAGS:
            self._document.report(_place(node), f"tag {quote(node.tag)} is not supported", "write the plain value")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            items = enumerate(node.value)
            return [self.read(item, (*path, index), depth + 1) for index, item in items if not self._full]
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: Path, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if self._full:
                break
            if not isinstance(key_node, yaml.ScalarNode):
                # `{{ name }}` of a template reads as a mapping for a key.
                hint = "is this a template's {{ }}? put it in quotes"
                self._document.report(_place(key_node), "a key must be text", hint)
                continue
            key = str(key_node.value)
            where = (*path, key)
            if key == "<<" and key_node.style is None:
                self._document.report(_place(key_node), "merge keys ('<<') are not supported", "write the keys out")
                continue
            if key in mapping:
                line = self._document.keys[where][0]
                self._document.report(_place(key_node), f"key {quote(key)} is given twice", f"first on line {line}")
                continue
            self._document.keys[where] = _place(key_node)
            self._check_text(key_node, "key")
            mapping[key] = self.read(value_node, where, depth + 1)
        return mapping

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text = str(node.value)
        if node.style is not None:  # quoted or a block: text, whatever it looks like
            self._check_text(node, "value")
            return text
        if text in _NULL:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if _INT.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
        self._check_text(node, "value")
        return text

    def _check_text(self, node: yaml.ScalarNode, what: str) -> None:
        # No value of the model has a use for them, and paths, headers and log lines are made of these values.
        # Rule files have expressions of several lines and bodies of pages, with whatever blanks their authors like.
        text = _BLANKS.sub("", node.value) if self._document.multiline and what == "value" else node.value
        if found := _UNPRINTABLE.search(text):
            message = f"the {what} contains the control character U+{ord(found[0]):04X}"
            self._document.report(_place(node), message, "write it on one line")


def _place(node: yaml.Node) -> Place:
    return (node.start_mark.line + 1, node.start_mark.column + 1)


def _mark(loader: _Loader) -> yaml.Mark:
    mark: yaml.Mark = loader.peek_event().start_mark  # type: ignore[no-untyped-call]  # the stubs leave it out
    return mark


def _syntax(document: Document, error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    message = str(error.problem or error.context or "not YAML")
    if error.context and error.problem:
        message = f"{error.problem} {error.context}"
    hint = ""
    for sign, help_text in _SYNTAX_HINTS:
        if sign in message:
            hint = help_text
            break
    place = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    return document.problem(place, f"not YAML: {quote(message, 200)[1:-1]}", hint)


_SYNTAX_HINTS: Final = (
    (r"'\t'", "indent with spaces, not tabs"),
    ("'\\\\t'", "indent with spaces, not tabs"),
    ("mapping values are not allowed", "is the line above indented alike? put text with ': ' in quotes"),
    ("could not find expected ':'", "a key ends with ': '"),
    ("found undefined alias", "a value that starts with '*' needs quotes"),
    ("while scanning an alias", "a value that starts with '*' needs quotes"),
    ("while scanning an anchor", "a value that starts with '&' needs quotes"),
    ("cannot start any token", "put the value in quotes"),
    ("expected a single document", "one document a file: remove the '---'"),
    ("<block end>", "is the indentation the same as on the lines above?"),
    ("found unknown escape character", "in double quotes '\\' escapes: use single quotes"),
    ("while scanning a quoted scalar", "a closing quote is missing"),
    ("',' or ']'", "a ']' or ',' is missing"),
    ("',' or '}'", "a '}' or ',' is missing"),
    ("nested too deeply", f"at most {MAX_DEPTH} levels"),
    ("too many values", f"at most {MAX_NODES}"),
)


def _unreadable(document: Document, text: str, error: yaml.reader.ReaderError) -> Problem:
    before = _BREAK.split(text[: int(error.position)])
    code = error.character if isinstance(error.character, int) else ord(error.character[:1] or "\0")
    place = (len(before), len(before[-1]) + 1)
    return document.problem(place, f"the character U+{code:04X} is not allowed", "remove it")
