# The values of an expression are read here: literals, fields, indices and calls, with their types.
"""`Operands`: the half of the parser that reads values, and the words in which messages speak of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from edgeproxy.config.problems import one_of, quote, suggest
from edgeproxy.rules.addresses import parse_range
from edgeproxy.rules.errors import RuleError
from edgeproxy.rules.fields import FIELDS, Phase
from edgeproxy.rules.functions import FUNCTIONS, Function, Param
from edgeproxy.rules.lexer import Lexer
from edgeproxy.rules.syntax import BYTES, INT, IP, Call, Each, Field, Index, Kind, Literal, Type, Value, array, each_in

MAX_DEPTH: Final = 50  # brackets, negations and calls inside each other
MAX_INDEX: Final = 1 << 20
SCALARS: Final = (BYTES, INT, IP)
_T = TypeVar("_T")


class Operands:
    """A place in an expression, the lists that it may name, and what reads values."""

    def __init__(self, text: str, lists: Mapping[str, Type], phase: Phase) -> None:
        self.lexer = Lexer(text)
        self.lists = lists
        self.phase = phase
        self.depth = 0

    def deeper(self, at: int, step: Callable[[], _T]) -> _T:
        """A step that may come to itself again; so deep and no deeper."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise RuleError(f"nested more than {MAX_DEPTH} deep", at, "split the rule")
        result = step()
        self.depth -= 1
        return result

    # -- values ------------------------------------------------------------------------------------------------------

    def operand(self, wanted: Type | None) -> Value:
        """A value; with `wanted` it may be a literal of that type."""
        start = self.lexer.skip()
        literal = self.literal(wanted) if wanted is not None else None
        if literal is not None:
            return literal
        if not self.lexer.at_name():
            if wanted is not None:
                raise self.lexer.error(f"expected {_article(wanted)}")
            if self.lexer.at_string() or self.lexer.text[start : start + 1].isdigit():
                raise self.lexer.error("a comparison begins with a field or function", "swap the sides")
        name = self.lexer.name()
        value: Value = self._call(name, start) if self._is_call(name, start) else self._field(name, start)
        while self.lexer.take_bare("["):
            value = self._index(value, start)
        return value

    def literal(self, wanted: Type) -> Literal | None:
        start = self.lexer.skip()
        if wanted == BYTES and self.lexer.at_string():
            return Literal(self.lexer.string(), BYTES, start)
        if wanted == INT and (self.lexer.peek("-") or self.lexer.text[start : start + 1].isdigit()):
            return Literal(self.lexer.integer(), INT, start)
        if wanted == IP:
            text = self.lexer.address()
            if text is not None:
                found = parse_range(text)
                if isinstance(found, str):
                    raise RuleError(found, start)
                if "/" in text or ".." in text:
                    raise RuleError(f"{quote(text)} is more than one address", start, f"write: in {{{text}}}")
                return Literal(found[0], IP, start)
        return None

    def _is_call(self, name: str, start: int) -> bool:
        if name in FUNCTIONS:
            return True
        if name in FIELDS or not self.lexer.peek("("):
            return False
        raise RuleError(f"unknown function {quote(name)}", start, suggest(name, FUNCTIONS))

    def _field(self, name: str, start: int) -> Field:
        info = FIELDS.get(name)
        if info is None:
            # `ip.src` of `ip.srcx`: difflib sees 500 names at most, and there are fewer.
            raise RuleError(f"unknown field {quote(name)}", start, suggest(name, FIELDS))
        if info.phase == "response" and self.phase == "request":
            raise RuleError(f"'{name}' is known in the response phase only", start, "set phase: response")
        if info.needs_body and not info.declared and self.phase == "response":
            raise RuleError(f"'{name}' is known in the request phase only", start, "let a rule of the request phase decide")
        return Field(name, info.type, start)

    def _index(self, base: Value, start: int) -> Value:
        at = self.lexer.at - 1
        kind = base.type
        if self.lexer.take("*"):
            if kind.of is None:
                raise RuleError(f"{show_type(base)} has no elements", at)
            value: Value = Each(base, kind.of, start)
        elif self.lexer.peek('"'):
            key = self.lexer.string()
            if kind.kind is not Kind.MAP or kind.of is None:
                raise RuleError(f"{show_type(base)} has no keys", at)
            value = Index(base, key, kind.of, start)
        else:
            number = self.lexer.integer()
            if kind.kind is not Kind.ARRAY or kind.of is None:
                hint = 'a map is indexed by a name: ["name"]' if kind.kind is Kind.MAP else ""
                raise RuleError(f"{show_type(base)} has no numbered elements", at, hint)
            if not 0 <= number <= MAX_INDEX:
                raise RuleError("an index counts from 0", at)
            value = Index(base, number, kind.of, start)
        self.lexer.expect("]", "to close the index")
        return value

    # -- calls -------------------------------------------------------------------------------------------------------

    def _call(self, name: str, start: int) -> Call:
        function = FUNCTIONS[name]
        self.lexer.expect("(", f"after '{name}'")
        args: list[Value] = []
        while not self.lexer.peek(")"):
            if args:
                self.lexer.expect(",", "between arguments")
            if len(args) >= function.most:
                raise self.lexer.error(f"'{name}' takes {_count(function)}")
            param = function.params[min(len(args), len(function.params) - 1)]
            at = self.lexer.skip()
            args.append(self.deeper(at, lambda: self._argument(name, param, args)))  # noqa: B023  called at once
        if len(args) < function.least:
            raise self.lexer.error(f"'{name}' takes {_count(function)}, not {len(args)}")
        self.lexer.expect(")", f"to close '{name}'")
        self._prepared(function, args)
        kind = function.returns or args[0].type
        mapped = each_in(args[0])
        return Call(name, tuple(args), array(kind) if mapped else kind, mapped, start)

    def _argument(self, name: str, param: Param, before: list[Value]) -> Value:
        start = self.lexer.skip()
        wanted = [each for each in param.types if each in SCALARS and param.literal is not False]
        if not before and self.lexer.at_string() and param.literal is False:
            raise self.lexer.error(f"'{name}' works on a value of the request, not on a literal")
        value: Value | None = next((found for each in wanted if (found := self.literal(each)) is not None), None)
        if value is None:
            if param.literal is True:
                raise self.lexer.error(f"'{name}' takes {' or '.join(_article(each) for each in wanted)} here")
            value = self.operand(None)
        if value.type not in param.types:
            expected = " or ".join(str(each) for each in param.types)
            raise RuleError(f"'{name}' takes {expected} here, not {value.type}", start)
        if before and each_in(value):
            raise RuleError("only the first argument may be [*]", start)
        if before and name == "concat" and value.type != before[0].type:
            raise RuleError(f"'concat' joins values of one type: {before[0].type}, not {value.type}", start)
        return value

    def _prepared(self, function: Function, args: list[Value]) -> None:
        if function.prepare is not None:
            try:
                function.prepare([arg.value if isinstance(arg, Literal) else None for arg in args])
            except RuleError as e:
                raise RuleError(e.message, args[e.offset].at, e.hint) from None


def kind_of(value: Value) -> str:
    """The type of a value in a message."""
    return f"each of {value.type}" if each_in(value) else str(value.type)


def show_type(value: Value) -> str:
    """A value in a message: `'ip.src' (IP)`."""
    inner: Value = value
    while isinstance(inner, Index | Each):
        inner = inner.base
    name = inner.name if isinstance(inner, Field | Call) else "the value"
    return f"'{name}{'[…]' if inner is not value else ''}' ({value.type})"


def _article(kind: Type) -> str:
    return {BYTES: "a string in quotes", INT: "a number", IP: "an IP address"}.get(kind, one_of([str(kind)]))


def _count(function: Function) -> str:
    if function.least == function.most:
        return f"{function.least} argument{'s' if function.least > 1 else ''}"
    return f"{function.least} to {function.most} arguments"
