# What pydantic objects to, in the words of somebody who writes a configuration file.
"""Turns a pydantic ValidationError into findings: one for each error, with what would be right.

Knows the kinds of pydantic's errors and the shape of the model (to suggest keys); no rule of any key.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import ErrorDetails

from edgeproxy.config.checks import Finding
from edgeproxy.config.document import Path
from edgeproxy.config.model import Config
from edgeproxy.config.problems import Invalid, nearest, one_of, quote, suggest
from edgeproxy.config.units import describe, format_duration, format_size, size_from

# Sections that DESIGN.md's contract has and this version has not: each would protect something, so none is ignored.
NOT_BUILT: Final[dict[Path, str]] = {
    ("routes", 0, "cache"): "caching",
}
Model = type[BaseModel]
MAX_FINDINGS: Final = 500
_BOUNDS: Final = {
    "greater_than": "more than",
    "greater_than_equal": "at least",
    "less_than": "less than",
    "less_than_equal": "at most",
}
_SWITCH_WORDS: Final = {"on": "true", "yes": "true", "y": "true", "off": "false", "no": "false", "n": "false"}


def findings(error: ValidationError, root: Model = Config) -> Iterator[Finding]:
    """Every error of a validation of `root`; after MAX_FINDINGS the rest is counted."""
    details = [detail for detail in error.errors(include_url=False) if not _follows_from_others(detail)]
    unknown = [_file_path(detail) for detail in details[:MAX_FINDINGS] if detail["type"] == "extra_forbidden"]
    meant = {(path[:-1], _meant(path, root)) for path in unknown}
    details = [detail for detail in details if detail["type"] != "missing" or _split(detail) not in meant]
    for detail in details[:MAX_FINDINGS]:
        yield _finding(detail, root)
    if len(details) > MAX_FINDINGS:
        yield Finding((), f"{len(details) - MAX_FINDINGS} more problems, not listed")


def dotted(path: Path) -> str:
    """`routes[0].upstream`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def keys_below(path: Path, root: Model = Config) -> dict[str, Any]:
    """The keys that may stand in the mapping at a path of the file; empty where it is none of the model's."""
    kind = _kind_at(path, root)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _written(kind)
    return {}


def _written(kind: Model) -> dict[str, Any]:
    """The keys that a file may have; what is filled in after reading has no schema."""
    fields = kind.model_fields.items()
    return {name: each.annotation for name, each in fields if not any(type(mark) is SkipJsonSchema for mark in each.metadata)}


def _file_path(detail: ErrorDetails) -> Path:
    """The path in the file: pydantic marks an error of a key itself by one more step."""
    return tuple(part for part in detail["loc"] if part != "[key]")


def _split(detail: ErrorDetails) -> tuple[Path, str]:
    path = _file_path(detail)
    return path[:-1], str(path[-1])


def _meant(path: Path, root: Model) -> str:
    """The key that an unknown one seems to stand for: where that is missing too, one problem says it all."""
    return nearest(str(path[-1]), keys_below(path[:-1], root))


def _follows_from_others(detail: ErrorDetails) -> bool:
    """A list whose items are all wrong is also "too short" to pydantic, which counts the right ones."""
    return detail["type"] == "too_short" and bool(detail["input"])


def _finding(detail: ErrorDetails, root: Model) -> Finding:
    path = _file_path(detail)
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    on_key = "[key]" in detail["loc"]
    cause = context.get("error")
    if isinstance(cause, Invalid):
        return Finding(path, cause.message, cause.hint, on_key)
    if kind == "extra_forbidden":
        return _unknown_key(path, root)
    if kind == "missing":
        return Finding(path[:-1], f"{_subject(path[:-1], root)} needs the key '{path[-1]}'", _example(path), on_key=True)
    name = dotted(path)
    if given is None and kind != "none_required":
        return Finding(path, f"'{name}' is empty", "remove the key, or give it a value", on_key=True)
    message, hint = _in_words(kind, given, context, path, root)
    return Finding(path, f"'{name}' {message}", hint, on_key)


def _in_words(kind: str, given: Any, context: dict[str, Any], path: Path, root: Model) -> tuple[str, str]:
    expected = f"not {describe(given)}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"must be a mapping, {expected}", _mapping_hint(given, path, root)
    if kind in ("tuple_type", "list_type"):
        return f"must be a list, {expected}", "write '- ' before each item, or [a, b]"
    if kind == "string_type":
        return f"must be text, {expected}", f'put it in quotes: "{given}"' if isinstance(given, int | float) else ""
    if kind in ("bool_type", "bool_parsing"):
        word = _SWITCH_WORDS.get(given.lower()) if isinstance(given, str) else None
        return f"must be true or false, {expected}", f"write {word}" if word else ""
    if kind in ("int_type", "int_parsing", "int_from_float"):
        return f"must be a whole number, {expected}", _number_hint(given)
    if kind == "literal_error":
        words = _literals(path, root)
        return f"must be {one_of(words)}, {expected}", suggest(given, words) if isinstance(given, str) else ""
    if kind in _BOUNDS:
        return _bound(kind, context, path, root), ""
    if kind in ("too_short", "string_too_short"):
        return "is empty", "at least one is needed" if kind == "too_short" else ""
    return f"is not usable: {kind}", quote(given)


def _unknown_key(path: Path, root: Model) -> Finding:
    key = str(path[-1])
    generic: Path = tuple(0 if isinstance(part, int) else part for part in path)
    if root is Config and generic in NOT_BUILT:
        hint = "a protection that is silently ignored would be worse than an error"
        return Finding(path, f"'{key}' ({NOT_BUILT[generic]}) is not built yet: remove it", hint, on_key=True)
    hint = suggest(key, keys_below(path[:-1], root)) or _elsewhere(key, root)
    if not hint and (known := keys_below(path[:-1], root)):
        hint = f"known here: {', '.join(known)}"
    return Finding(path, f"unknown key {quote(key)}", hint, on_key=True)


def _elsewhere(key: str, root: Model) -> str:
    """Where a key that is right in itself belongs."""
    sections = list(_sections(root, ""))
    meant = nearest(key, [name for _, names in sections for name in names], cutoff=0.8)
    places = [where for where, names in sections if meant in names and where]
    if not meant:
        return ""
    return f"'{meant}' belongs below {one_of(places[:3])}" if places else f"'{meant}' belongs at the top level"


def _sections(kind: type[BaseModel], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    written = _written(kind)
    yield where, written
    for name, annotation in written.items():
        inner, suffix = _unwrapped(annotation), ""
        if get_origin(inner) is tuple:
            inner, suffix = _unwrapped(get_args(inner)[0]), "[]"
        elif get_origin(inner) is dict:
            inner, suffix = _unwrapped(get_args(inner)[1]), ".<name>"
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _sections(inner, f"{where}.{name}{suffix}".lstrip("."))


def _kind_at(path: Path, root: Model) -> Any:
    kind: Any = root
    for part in path:
        kind = _unwrapped(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel) and part in kind.model_fields:
            kind = kind.model_fields[str(part)].annotation
        elif get_origin(kind) is tuple:
            kind = get_args(kind)[0]
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
        else:
            return None
    return _unwrapped(kind)


def _unwrapped(kind: Any) -> Any:
    """The type below Annotated and `| None`."""
    while True:
        if hasattr(kind, "__metadata__"):
            kind = kind.__origin__
            continue
        options = [option for option in get_args(kind) if option is not type(None)]
        if len(options) == 1 and len(get_args(kind)) == 2 and get_origin(kind) not in (tuple, dict):
            kind = options[0]
            continue
        return kind


def _literals(path: Path, root: Model) -> list[str]:
    return [str(word) for word in get_args(_kind_at(path, root))]


def _subject(path: Path, root: Model) -> str:
    return f"'{dotted(path)}'" if path else "the configuration" if root is Config else "the file"


def _example(path: Path) -> str:
    examples = {
        "listen": 'listen: {https: "0.0.0.0:8443"}',
        "tls": "tls: {certificates: [{cert: certs/edge.pem, key: certs/edge-key.pem}]}",
        "upstreams": 'upstreams: {chat: {targets: [{url: "http://127.0.0.1:9000"}]}}',
        "routes": "routes: [{path: /, upstream: chat}]",
        "https": 'https: "0.0.0.0:8443"',
        "url": 'url: "http://127.0.0.1:9000"',
        "targets": 'targets: [{url: "http://127.0.0.1:9000"}]',
        "certificates": "certificates: [{cert: certs/edge.pem, key: certs/edge-key.pem}]",
    }
    example = examples.get(str(path[-1]), "")
    return f"like {example}" if example else ""


def _mapping_hint(given: Any, path: Path, root: Model) -> str:
    known = keys_below(path, root)
    if given is False and "enabled" in known:
        return "to turn it off: {enabled: false}"
    if isinstance(given, str) and "url" in known:
        return f"write {{url: {quote(given)}}}"
    if isinstance(given, str) and "file" in known:
        return f"write {{file: {quote(given)}}}"
    return f"its keys are: {', '.join(known)}" if known else ""


def _number_hint(given: Any) -> str:
    if not isinstance(given, str):
        return ""
    digits = given.replace("_", "").replace(",", "")
    if given.isascii() and digits.isdigit():
        plain = digits.lstrip("0") or "0"
        return f"write {plain}" if given != plain else f"without quotes: {plain}"
    return "one number, not a range" if "-" in given else ""


def _bound(kind: str, context: dict[str, Any], path: Path, root: Model) -> str:
    limit = context.get("gt", context.get("ge", context.get("lt", context.get("le"))))
    word = _BOUNDS[kind]
    show = format_duration if _kind_at(path, root) is float and root is Config else format_size if _is_size(path, root) else str
    return f"must be {word} {show(limit) if limit is not None else '?'}"


def _is_size(path: Path, root: Model) -> bool:
    """Whether the model has a size there: by then both a size and a count are plain integers."""
    section = _kind_at(path[:-1], root)
    if not isinstance(section, type) or not issubclass(section, BaseModel):
        return False
    field = section.model_fields.get(str(path[-1]))
    return field is not None and any(getattr(mark, "func", None) is size_from for mark in field.metadata)
