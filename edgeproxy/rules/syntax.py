# What an expression means, as data: types and nodes. Nothing here reads text, knows a field or runs anything.
"""The typed syntax tree of the rules language, and `show`, which writes a tree as text that reads back to the same tree.

Values (`Field`, `Index`, `Each`, `Call`, `Literal`) have a type. Tests (everything else) are true or false; a test below
which an `Each` (`[*]`) stands is a vector: one answer for each element, to be taken together by `any` or `all`.
`at` is where a node begins in the text; it is no part of what a node is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final
from typing import Literal as OneOf

from edgeproxy.rules.addresses import Range, show_ip, show_range


class Kind(Enum):
    """Kinds of values; the words are those of messages."""

    BYTES = "String"
    INT = "Integer"
    BOOL = "Boolean"
    IP = "IP"
    ARRAY = "Array"
    MAP = "Map"


@dataclass(frozen=True, slots=True)
class Type:
    """A kind, and what is inside an array or map. Strings are bytes: nothing says what encoding a client uses."""

    kind: Kind
    of: Type | None = None

    def __str__(self) -> str:
        return self.kind.value if self.of is None else f"{self.kind.value}<{self.of}>"


BYTES: Final = Type(Kind.BYTES)
INT: Final = Type(Kind.INT)
BOOL: Final = Type(Kind.BOOL)
IP: Final = Type(Kind.IP)


def array(of: Type) -> Type:
    """`Array<of>`."""
    return Type(Kind.ARRAY, of)


def mapping(of: Type) -> Type:
    """`Map<of>`; keys are strings."""
    return Type(Kind.MAP, of)


def _at() -> int:
    return field(default=0, compare=False)


# -- values ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Literal:
    """A value that is written down; an IP is its code (addresses.py)."""

    value: bytes | int
    type: Type
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Field:
    """A field by its name."""

    name: str
    type: Type
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Index:
    """`base[0]` or `base["key"]`."""

    base: Value
    key: int | bytes
    type: Type
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Each:
    """`base[*]`; the type is that of one element."""

    base: Value
    type: Type
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Call:
    """`name(args…)`. `mapped`: the first argument is a vector, the function is called for each element, and the type is
    an array of the results."""

    name: str
    args: tuple[Value, ...]
    type: Type
    mapped: bool = False
    at: int = _at()


Value = Literal | Field | Index | Each | Call

# -- tests -----------------------------------------------------------------------------------------------------------

Join = OneOf["and", "xor", "or"]
Ordering = OneOf["eq", "ne", "lt", "le", "gt", "ge"]


@dataclass(frozen=True, slots=True)
class Constant:
    """`true` or `false`."""

    value: bool
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Truth:
    """A Boolean value, or an array of them (a vector), that stands alone."""

    value: Value
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Compare:
    """`left op right`."""

    op: Ordering
    left: Value
    right: Value
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Contains:
    """`left contains "needle"`."""

    left: Value
    needle: bytes
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Matches:
    """`left matches "pattern"`; the pattern as the regex engine is to see it."""

    left: Value
    pattern: str
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Wildcard:
    """`left wildcard "pattern"`, or `strict wildcard`: letters as they are written."""

    left: Value
    pattern: bytes
    strict: bool
    at: int = _at()


@dataclass(frozen=True, slots=True)
class In:
    """`left in {…}`: strings, or ranges of numbers or of codes of addresses (one value is a range of one)."""

    left: Value
    items: tuple[bytes | Range, ...]
    at: int = _at()


@dataclass(frozen=True, slots=True)
class InList:
    """`left in $name`."""

    left: Value
    name: str
    at: int = _at()


@dataclass(frozen=True, slots=True)
class BitAnd:
    """`left & right`: whether a bit of the right one is set in the left one."""

    left: Value
    right: Value
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Not:
    """`not test`."""

    test: Test
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Combine:
    """Two or more tests joined by one operator."""

    op: Join
    tests: tuple[Test, ...]
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Quantifier:
    """`any(vector)` or `all(vector)`."""

    every: bool
    test: Test
    at: int = _at()


Test = Constant | Truth | Compare | Contains | Matches | Wildcard | In | InList | BitAnd | Not | Combine | Quantifier
Comparison = Compare | Contains | Matches | Wildcard | In | InList | BitAnd


def each_in(value: Value) -> bool:
    """Whether a value stands for many: an `[*]` is in its own chain of indices."""
    while isinstance(value, Index | Each):
        if isinstance(value, Each):
            return True
        value = value.base
    return False


def is_vector(test: Test) -> bool:
    """Whether a test has one answer for each element."""
    if isinstance(test, Constant | Quantifier):
        return False
    if isinstance(test, Not):
        return is_vector(test.test)
    if isinstance(test, Combine):
        return is_vector(test.tests[0])
    if isinstance(test, Truth):
        return test.value.type.kind is Kind.ARRAY or each_in(test.value)
    return each_in(test.left)


def fields_of(node: Test | Value) -> frozenset[str]:
    """The names of all fields that a test or value reads."""
    match node:
        case Field(name):
            return frozenset({name})
        case Literal() | Constant():
            return frozenset()
        case Index(base) | Each(base):
            return fields_of(base)
        case Call(_, parts) | Combine(_, parts):
            return frozenset().union(*map(fields_of, parts))
        case Truth(inner) | Not(inner):
            return fields_of(inner)
        case Quantifier(_, inner):
            return fields_of(inner)
        case Compare(_, left, right) | BitAnd(left, right):
            return fields_of(left) | fields_of(right)
        case _:
            return fields_of(node.left)


# -- as text ---------------------------------------------------------------------------------------------------------

_BINDING: Final = {"or": 1, "xor": 2, "and": 3}


def show(test: Test) -> str:
    """The expression as text, in one canonical spelling."""
    match test:
        case Constant(value):
            return "true" if value else "false"
        case Truth(value):
            return show_value(value)
        case Not(inner):
            return f"not ({show(inner)})" if isinstance(inner, Combine) else f"not {show(inner)}"
        case Combine(op, tests):
            return f" {op} ".join(_operand(op, each) for each in tests)
        case Quantifier(every, inner):
            name = "all" if every else "any"
            # Only a single test may stand there bare.
            return f"{name}(({show(inner)}))" if isinstance(inner, Combine) else f"{name}({show(inner)})"
        case _:
            return f"{show_value(test.left)} {_right(test)}"


def _operand(op: str, test: Test) -> str:
    bracketed = isinstance(test, Combine) and _BINDING[test.op] <= _BINDING[op]
    return f"({show(test)})" if bracketed else show(test)


def _right(test: Comparison) -> str:
    match test:
        case Compare(op, _, right):
            return f"{op} {show_value(right)}"
        case Contains(_, needle):
            return f"contains {quoted(needle)}"
        case Matches(_, pattern):
            return f"matches {_raw(pattern)}"
        case Wildcard(_, pattern, strict):
            return f"{'strict ' if strict else ''}wildcard {quoted(pattern)}"
        case In(left, items):
            return f"in {{{' '.join(_item(item, left.type) for item in items)}}}"
        case InList(_, name):
            return f"in ${name}"
        case BitAnd(_, right):
            return f"& {show_value(right)}"


def show_value(value: Value) -> str:
    """A value as text."""
    match value:
        case Literal(number, kind):
            return quoted(number) if isinstance(number, bytes) else show_ip(number) if kind is IP else str(number)
        case Field(name):
            return name
        case Index(base, key):
            return f"{show_value(base)}[{quoted(key) if isinstance(key, bytes) else key}]"
        case Each(base):
            return f"{show_value(base)}[*]"
        case Call(name, args):
            return f"{name}({', '.join(show_value(arg) for arg in args)})"


def _item(item: bytes | Range, kind: Type) -> str:
    if isinstance(item, bytes):
        return quoted(item)
    first, last = item
    if kind == IP:
        return show_range(first, last)
    return str(first) if first == last else f"{first}..{last}"


def quoted(value: bytes) -> str:
    """A string literal: printable ASCII as it is, everything else as \\xNN."""
    text = "".join(
        f"\\{chr(byte)}" if byte in b'"\\' else chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}" for byte in value
    )
    return f'"{text}"'


def _raw(pattern: str) -> str:
    hashes = ""
    while f'"{hashes}' in pattern:
        hashes += "#"
    return f'r{hashes}"{pattern}"{hashes}'
