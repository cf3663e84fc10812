# The expressions of `limits` are read here once, so that what is wrong in one is told with its place in the file.
"""`limit_problems` looks at the plain data of a configuration, also of one that has other problems."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edgeproxy.config.document import Document, Path
from edgeproxy.config.problems import Problem
from edgeproxy.rules.errors import RuleError
from edgeproxy.rules.fields import FIELDS
from edgeproxy.rules.files import locate
from edgeproxy.rules.parser import parse, parse_any
from edgeproxy.rules.syntax import Test, Type, Value, fields_of


def limit_problems(document: Document, types: Mapping[str, Type]) -> Iterator[Problem]:
    """What is wrong in the expressions of limits.

    Args:
        types: of the lists that rule files define, by name.
    """
    limits = document.data.get("limits") if isinstance(document.data, dict) else None
    for index, limit in enumerate(limits if isinstance(limits, list | tuple) else ()):
        for path, text, read in _expressions(limit, types):
            try:
                _known(read(text))
            except RuleError as error:
                whole: Path = ("limits", index, *path)
                place = locate(document, whole, text, error.offset) if document.lines else (0, 0)
                message = error.message if document.lines else f"limits[{index}].{path[0]}: {error.message}"
                yield document.problem(place, message, error.hint) if document.lines else Problem(
                    document.file, 0, 0, message, error.hint
                )


def _known(tree: Test | Value) -> None:
    """Raises: RuleError for what reads a body: limits are asked before there is one."""
    for name in fields_of(tree):
        if FIELDS[name].needs_body and not FIELDS[name].declared:
            raise RuleError(f"'{name}' is not known where limits are asked", 0, "let a rule name the limit: set: {limits: […]}")


def _expressions(limit: Any, types: Mapping[str, Type]) -> Iterator[tuple[Path, str, Callable[[str], Test | Value]]]:
    if not isinstance(limit, dict):
        return
    if isinstance(limit.get("expression"), str):
        yield ("expression",), limit["expression"], lambda text: parse(text, types)
    if isinstance(limit.get("counting_expression"), str):
        yield ("counting_expression",), limit["counting_expression"], lambda text: parse(text, types, phase="response")
    keys = limit.get("key")
    if isinstance(keys, str):
        yield ("key",), keys, lambda text: parse_any(text, types)
    for place, key in enumerate(keys if isinstance(keys, list | tuple) else ()):
        if isinstance(key, str):
            yield ("key", place), key, lambda text: parse_any(text, types)
