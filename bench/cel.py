# Rules as expressions of CEL, for the engines that the case `rules` compares with; what CEL has no word for is left out.
"""`translate(test)`: the same test in CEL, or None; `variables(facts)`: what such expressions read.

Strings are text, a character for each byte. An address is a text of fixed width, so that ranges are comparisons. Fields in
lower case are variables, because CEL's own library has no `lower`. A header, argument or cookie is asked for before it is
read: a missing key is an error in CEL.
"""

from __future__ import annotations

import json
import re
from typing import Any

from edgeproxy.rules import syntax as s
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.fields import FIELDS, lower_slot
from edgeproxy.rules.wildcards import split

_ORDER = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_LISTS = ("http.request.uri.args.names", "http.request.uri.args.values", "http.request.headers.values")
_MAPS = ("http.request.uri.args", "http.request.headers", "http.request.cookies")
_LOWERED = ("http.request.uri.args.values",)  # lists whose elements are asked for in lower case
_STRINGS = ("http.user_agent", "http.host", "http.referer", "http.cookie", "http.request.method", "http.request.version",
            "http.request.uri", "http.request.uri.path", "http.request.uri.query")  # fmt: skip
_OTHERS = ("ssl", "cf.threat_score")
_KNOWN = frozenset({*_LISTS, *_MAPS, *_STRINGS, *_OTHERS, "ip.src"})


class _UnsayableError(Exception):
    """CEL has no word for it."""


def variables(facts: Facts) -> dict[str, Any]:
    """All that any translated rule may read."""
    found: dict[str, Any] = {_slot(name): _text(getattr(facts, _slot(name))) for name in (*_STRINGS, *_LISTS, *_MAPS, *_OTHERS)}
    found.update({lower_slot(FIELDS[name]): _text(getattr(facts, lower_slot(FIELDS[name]))) for name in _STRINGS})
    found.update({f"lower_{_slot(name)}": [value.lower() for value in found[_slot(name)]] for name in _LOWERED})
    found["ip_src"] = _address(facts.ip_src)
    return found


def _slot(name: str) -> str:
    return FIELDS[name].slot


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, dict):
        return {_text(key): _text(each) for key, each in value.items()}
    return [_text(each) for each in value] if isinstance(value, list) else value


def _address(code: int) -> str:
    return f"{code:033x}"


def translate(test: s.Test) -> str | None:
    """The test in CEL, None when it cannot be said there."""
    if not s.fields_of(test) <= _KNOWN:
        return None
    try:
        return _test(test)
    except _UnsayableError:
        return None


def _test(test: s.Test) -> str:
    match test:
        case s.Not(inner):
            return f"!({_test(inner)})"
        case s.Combine("xor", (one, other)):
            return f"({_test(one)}) != ({_test(other)})"
        case s.Combine(op, tests) if op != "xor":
            return (" && " if op == "and" else " || ").join(f"({_test(each)})" for each in tests)
        case s.Truth(s.Call("starts_with" | "ends_with" as name, (first, s.Literal(bytes(literal))))):
            return f"{_value(first)}.{'startsWith' if name == 'starts_with' else 'endsWith'}({_quoted(literal)})"
        case s.Truth(s.Field(name)):
            return _slot(name)
        case s.Quantifier(False, inner) if not isinstance(inner, s.Combine | s.Not | s.Truth | s.Constant | s.Quantifier):
            return _any(inner)
        case s.Compare() | s.Contains() | s.Matches() | s.Wildcard() | s.In():
            return _first(test) if isinstance(test.left, s.Index) else _compared(test, _value(test.left))
    raise _UnsayableError


def _any(test: s.Comparison) -> str:
    match test.left:
        case s.Each(s.Index(s.Field(name), bytes(key))):
            where = f"{_slot(name)}[{_quoted(key)}]"
            return f"{_quoted(key)} in {_slot(name)} && {where}.exists(v, {_compared(test, 'v')})"
        case s.Each(s.Field(name)) if name in _LISTS:
            return f"{_slot(name)}.exists(v, {_compared(test, 'v')})"
        case s.Each(s.Call("lower", (s.Each(s.Field(name)),))) if name in _LOWERED:
            return f"lower_{_slot(name)}.exists(v, {_compared(test, 'v')})"
    raise _UnsayableError


def _first(test: s.Comparison) -> str:
    match test.left:
        case s.Index(s.Index(s.Field(name), bytes(key)), 0):
            return f"{_quoted(key)} in {_slot(name)} && {_compared(test, f'{_slot(name)}[{_quoted(key)}][0]')}"
    raise _UnsayableError


def _compared(test: s.Comparison, value: str) -> str:
    match test:
        case s.Contains(_, needle):
            return f"{value}.contains({_quoted(needle)})"
        case s.Matches(_, pattern):
            return f"{value}.matches({_quoted(pattern.encode())})"
        case s.Wildcard(_, pattern, strict):
            return f"{value}.matches({_quoted(_regex(pattern, strict).encode('latin-1'))})"
        case s.Compare(op, _, s.Literal(wanted)):
            return f"{value} {_ORDER[op]} {_quoted(wanted) if isinstance(wanted, bytes) else wanted}"
        case s.In(left, items):
            return _among(value, left, items)
    raise _UnsayableError


def _among(value: str, left: s.Value, items: tuple[Any, ...]) -> str:
    if left.type == s.IP:
        return " || ".join(f'({value} >= "{_address(first)}" && {value} <= "{_address(last)}")' for first, last in items)
    if all(isinstance(each, bytes) for each in items):
        return f"{value} in [{', '.join(map(_quoted, items))}]"
    raise _UnsayableError


def _regex(pattern: bytes, strict: bool) -> str:
    pieces = split(pattern)
    assert isinstance(pieces, list)
    return ("(?s)^" if strict else "(?is)^") + ".*".join(re.escape(each.decode("latin-1")) for each in pieces) + "$"


def _value(value: s.Value) -> str:
    match value:
        case s.Field(name):
            return _slot(name)
        case s.Call("lower", (s.Field(name),)) if name in _STRINGS:
            return lower_slot(FIELDS[name])
        case s.Call("len", (inner,)):
            return f"size({_value(inner)})"
    raise _UnsayableError


def _quoted(value: bytes) -> str:
    """A string literal: JSON's escapes are CEL's, too."""
    return json.dumps(value.decode("latin-1"))
