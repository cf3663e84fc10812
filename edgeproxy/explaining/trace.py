# An expression part by part, with what each part comes to: asked of the compiler, so that there is no second opinion.
"""`Sheet` makes a `Node` of a test and the facts of a request; `Veil` writes values, and keeps quiet about credentials."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from edgeproxy.explaining.answer import Named, Node
from edgeproxy.explaining.literals import SIGNED, secret, veiled, veiled_value, written
from edgeproxy.rules.addresses import show_ip
from edgeproxy.rules.compiler import Check, Container, compile_test, compile_value
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.reads import credential, reads, root, secret_header, source
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


class Sheet:
    """A test and its parts, ready to be asked about many requests: what is compiled is kept.

    All parts are asked, also those that the engine need not ask.
    """

    __slots__ = ("_check", "_lists", "_test", "_text", "_veil", "join", "parts", "values")

    def __init__(self, test: Test, lists: Mapping[str, Container], veil: Veil, check: Check | None = None) -> None:
        """Args: check: the compiled test, if it is at hand."""
        self._test = test
        self._lists = lists
        self._veil = veil
        self._check = check
        self._text = show(test if veil.show else veiled(test))
        self.join = ""
        self.parts: tuple[Sheet, ...] = ()
        self.values: tuple[_Wanted, ...] = ()
        match test:
            case Combine(op, parts):
                self.join, self.parts = op, tuple(Sheet(part, lists, veil) for part in parts)
            case Not(inner):
                self.join, self.parts = "not", (Sheet(inner, lists, veil),)
            case Quantifier(every, inner):
                self.join, self.parts = "all" if every else "any", (Sheet(inner, lists, veil),)
            case Constant():
                pass
            case _:
                hide = not veil.show and secret(test)
                wanted = (_Wanted(value, lists, veil, hide) for value in dict.fromkeys(_values(test)))
                # `ssl → true (ssl = true)` says it twice.
                self.values = tuple(each for each in wanted if each.name != self._text)

    def ask(self, facts: Facts) -> Node:
        """What it and each of its parts come to."""
        node = Node(self._text, None, join=self.join)
        try:
            if self._check is None:
                self._check = compile_test(self._test, self._lists)
            answer = self._check(facts)
            node.answer = [bool(each) for each in answer] if is_vector(self._test) else bool(answer)
        except Exception as error:  # a rule that fails counts as not matching, and here is where one sees why
            node.error = f"{type(error).__name__}: {error}"
        node.parts = [part.ask(facts) for part in self.parts]
        node.values = [value.ask(facts) for value in self.values]
        return node


class _Wanted:
    """A value of an expression, by its text.

    Attributes:
        hide: it stands beside a credential.
    """

    __slots__ = ("_ask", "_hidden", "_lists", "_value", "_veil", "name")

    def __init__(self, value: Value, lists: Mapping[str, Container], veil: Veil, hide: bool) -> None:
        self._value = value
        self._lists = lists
        self._veil = veil
        self.name = show_value(value if veil.show else veiled_value(value, hide))
        self._hidden = not veil.show and hide and written(value)
        # What is only read needs no compiler.
        plain = isinstance(value, Field | Index | Each) and isinstance(root(value), Field)
        self._ask: Callable[[Facts], Any] | None = source(value) if plain else None  # type: ignore[arg-type]  # just asked

    def ask(self, facts: Facts) -> Named:
        try:
            if self._ask is None:
                self._ask = compile_value(self._value, self._lists)
            found = self._ask(facts)
            if found is not None and not isinstance(found, bool | int | bytes | dict | list):
                found = list(found)
            if self._hidden and isinstance(found, bytes | list | dict):
                return Named(self.name, hidden(found))
            return Named(self.name, self._veil.value(self._value, found))
        except Exception as error:
            return Named(self.name, f"failed: {type(error).__name__}: {error}")


def trace(test: Test, facts: Facts, lists: Mapping[str, Container], veil: Veil) -> Node:
    """What a test and each of its parts come to, asked once."""
    return Sheet(test, lists, veil).ask(facts)


def value_of(value: Value, facts: Facts, lists: Mapping[str, Container], veil: Veil) -> Named:
    """A value by its text."""
    return _Wanted(value, lists, veil, False).ask(facts)


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
        case Call(name, args):
            yield value
            # The key of a signature is nobody's business, also where it has to be computed.
            for arg in args[name == SIGNED :]:
                yield from _inside(arg)
