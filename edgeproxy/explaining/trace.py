# An expression part by part, with what each part comes to: asked of the compiler, so that there is no second opinion.
"""`trace` makes a `Node` of a test and the facts of a request; `Veil` writes values, and keeps quiet about credentials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from edgeproxy.explaining.answer import Named, Node
from edgeproxy.rules.addresses import show_ip
from edgeproxy.rules.compiler import Container, compile_test, compile_value
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.reads import credential, reads, root, secret_header
from edgeproxy.rules.syntax import (
    IP,
    BitAnd,
    Call,
    Combine,
    Compare,
    Constant,
    Each,
    Field,
    Index,
    Literal,
    Not,
    Quantifier,
    Test,
    Truth,
    Value,
    is_vector,
    quoted,
    show,
    show_value,
)  # fmt: skip

MAX_TEXT: Final = 200  # bytes shown of a string
MAX_ITEMS: Final = 12  # items shown of an array or map
MISSING: Final = "missing"


class Veil:
    """How values are written.

    Args of the constructor:
        show: credentials, too.
    """

    __slots__ = ("show",)

    def __init__(self, show: bool) -> None:
        self.show = show

    def header(self, name: bytes, value: bytes) -> str:
        """The value of a field line."""
        if not self.show and secret_header(name):
            return hidden(value)
        return clean(value)

    def value(self, value: Value, found: Any) -> str:
        """A value of an expression."""
        if self.show or not isinstance(found, bytes | list | dict) or not any(map(credential, reads(value))):
            return shown(found, address=_scalar(value) == IP)
        if isinstance(found, dict) and isinstance(value, Field) and value.name.endswith(".headers"):
            lines = {key: [hidden(each) for each in lines] if secret_header(key) else [shown(each) for each in lines]
                     for key, lines in found.items()}  # fmt: skip
            return _joined("{", (f"{quoted(key)}: [{', '.join(each)}]" for key, each in lines.items()), len(lines), "}")
        return hidden(found)


def hidden(value: Any) -> str:
    """Instead of a credential."""
    what = f"{len(value)} bytes" if isinstance(value, bytes) else f"{len(value)} items"
    return f"<hidden, {what}>"


def clean(value: bytes) -> str:
    """Bytes as text for people, nothing in it that moves a cursor."""
    text = "".join(
        char if char.isprintable() else f"\\x{ord(char):02x}" for char in value[:MAX_TEXT].decode("utf-8", "replace")
    )
    return text + "…" if len(value) > MAX_TEXT else text


def shown(found: Any, *, address: bool = False) -> str:
    """A value as an expression would write it."""
    if found is None:
        return MISSING
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, int):
        return show_ip(found) if address else str(found)
    if isinstance(found, bytes):
        return quoted(found[:MAX_TEXT]) + ("…" if len(found) > MAX_TEXT else "")
    if isinstance(found, dict):
        return _joined("{", (f"{quoted(key)}: {shown(each)}" for key, each in found.items()), len(found), "}")
    return _joined("[", (shown(each, address=address) for each in found), len(found), "]")


def _joined(start: str, items: Iterator[str], count: int, end: str) -> str:
    first = [item for item, _ in zip(items, range(MAX_ITEMS), strict=False)]
    more = [f"… {count - MAX_ITEMS} more"] if count > MAX_ITEMS else []
    return f"{start}{', '.join([*first, *more])}{end}"


def _scalar(value: Value) -> Any:
    kind = value.type
    while kind.of is not None:
        kind = kind.of
    return kind


def trace(test: Test, facts: Facts, lists: Mapping[str, Container], veil: Veil) -> Node:
    """What a test and each of its parts come to. All parts are asked, also those that the engine need not ask."""
    node = Node(show(test), None)
    try:
        answer = compile_test(test, lists)(facts)
        node.answer = [bool(each) for each in answer] if is_vector(test) else bool(answer)
    except Exception as error:  # a rule that fails counts as not matching, and here is where one sees why
        node.error = f"{type(error).__name__}: {error}"
    match test:
        case Combine(op, parts):
            node.join, node.parts = op, [trace(part, facts, lists, veil) for part in parts]
        case Not(inner):
            node.join, node.parts = "not", [trace(inner, facts, lists, veil)]
        case Quantifier(every, inner):
            node.join, node.parts = "all" if every else "any", [trace(inner, facts, lists, veil)]
        case Constant():
            pass
        case _:
            node.values = [value_of(value, facts, lists, veil) for value in dict.fromkeys(_values(test))]
            # `ssl → true (ssl = true)` says it twice.
            node.values = [each for each in node.values if each.name != node.text]
    return node


def value_of(value: Value, facts: Facts, lists: Mapping[str, Container], veil: Veil) -> Named:
    """A value by its text."""
    name = show_value(value)
    try:
        found = compile_value(value, lists)(facts)
        if found is not None and not isinstance(found, bool | int | bytes | dict | list):
            found = list(found)
        return Named(name, veil.value(value, found))
    except Exception as error:
        return Named(name, f"failed: {type(error).__name__}: {error}")


def _values(test: Test) -> Iterator[Value]:
    match test:
        case Truth(value):
            yield from _inside(value)
        case Compare(_, left, right) | BitAnd(left, right):
            yield from _inside(left)
            yield from _inside(right)
        case Constant() | Not() | Combine() | Quantifier():
            return
        case _:
            yield from _inside(test.left)


def _inside(value: Value) -> Iterator[Value]:
    """A value and those that it is made of, from the outside in; literals say themselves what they are."""
    match value:
        case Literal():
            return
        case Field():
            yield value
        case Index() | Each():
            yield value
            base = root(value)
            if isinstance(base, Call):
                yield from _inside(base)
        case Call(_, args):
            yield value
            for arg in args:
                yield from _inside(arg)
