# Text becomes a typed tree or one RuleError: grammar and types are decided here, by the tables of fields and functions.
"""A recursive-descent parser of the rules language.

Precedence: `not !` > `and &&` > `xor ^^` > `or ||`. A comparison is `value operator literal`; `eq ne lt le gt ge` also take
a value of the same type. What wirefilter (Cloudflare's parser) accepts is accepted, with these additions: `true` and
`false`, tabs as blanks, `substring` without end, and the other types that Cloudflare's pages give for `to_string`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from edgeproxy.config.problems import quote, suggest
from edgeproxy.rules.addresses import Range, parse_range
from edgeproxy.rules.errors import RuleError
from edgeproxy.rules.fields import FIELDS, Phase
from edgeproxy.rules.functions import FUNCTIONS
from edgeproxy.rules.lexer import WORD, Lexer
from edgeproxy.rules.operands import SCALARS, Operands, kind_of, show_type
from edgeproxy.rules.regexes import compile_pattern
from edgeproxy.rules.syntax import (
    BOOL,
    BYTES,
    IP,
    BitAnd,
    Combine,
    Compare,
    Constant,
    Contains,
    In,
    InList,
    Join,
    Kind,
    Matches,
    Not,
    Ordering,
    Quantifier,
    Test,
    Truth,
    Type,
    Value,
    Wildcard,
    array,
    each_in,
    is_vector,
)  # fmt: skip
from edgeproxy.rules.wildcards import split

MAX_LENGTH: Final = 4096  # characters of an expression, as at Cloudflare
MAX_ITEMS: Final = 2000  # of one set

_JOINS: Final[tuple[tuple[Join, tuple[str, ...]], ...]] = (
    ("or", ("or", "||")), ("xor", ("xor", "^^")), ("and", ("and", "&&")),
)  # fmt: skip
_ORDERINGS: Final[tuple[tuple[str, Ordering], ...]] = (
    ("eq", "eq"), ("==", "eq"), ("ne", "ne"), ("!=", "ne"), ("le", "le"), ("<=", "le"), ("lt", "lt"), ("<", "lt"),
    ("ge", "ge"), (">=", "ge"), ("gt", "gt"), (">", "gt"),
)  # fmt: skip
_OPERATORS: Final[tuple[tuple[str, str], ...]] = (
    *_ORDERINGS, ("contains", "contains"), ("matches", "matches"), ("~", "matches"), ("wildcard", "wildcard"),
    ("strict wildcard", "strict"), ("in", "in"), ("bitwise_and", "mask"), ("&", "mask"),
)  # fmt: skip
_WORDS: Final = (
    "eq", "ne", "lt", "le", "gt", "ge", "contains", "matches", "wildcard", "strict wildcard", "in", "and", "or", "xor", "not",
)  # fmt: skip
_OF_TYPE: Final = {
    "contains": Kind.BYTES, "matches": Kind.BYTES, "wildcard": Kind.BYTES, "strict": Kind.BYTES, "mask": Kind.INT,
}  # fmt: skip


def parse(text: str, lists: Mapping[str, Type], phase: Phase = "request") -> Test:
    """The tree of an expression.

    Args:
        lists: the lists that may be named, with the type of their items.
        phase: of the rule: what is known of a reply is refused before there is one.

    Raises: RuleError, and nothing else.
    """
    if len(text) > MAX_LENGTH:
        raise RuleError(f"an expression has at most {MAX_LENGTH} characters, not {len(text)}", MAX_LENGTH)
    parser = _Parser(text, lists, phase)
    test = parser.whole()
    if not parser.lexer.ended:
        raise parser.stray()
    if is_vector(test):
        raise RuleError("this has one answer for each element", 0, "wrap it: any(…) or all(…)")
    return test


def parse_value(text: str, lists: Mapping[str, Type], phase: Phase = "request") -> Value:
    """The tree of an expression that gives a string (a redirect's location).

    Raises: RuleError, and nothing else.
    """
    value = parse_any(text, lists, phase)
    if value.type != BYTES:
        raise RuleError(f"a String is needed here, not {kind_of(value)}", 0)
    return value


def parse_any(text: str, lists: Mapping[str, Type], phase: Phase = "request") -> Value:
    """The tree of an expression that gives a value of any type, but one value.

    Raises: RuleError, and nothing else.
    """
    if len(text) > MAX_LENGTH:
        raise RuleError(f"an expression has at most {MAX_LENGTH} characters, not {len(text)}", MAX_LENGTH)
    parser = _Parser(text, lists, phase)
    value = parser.operand(None)
    if not parser.lexer.ended:
        raise parser.lexer.error("this does not belong to the expression")
    if each_in(value):
        raise RuleError(f"a single value is needed here, not {kind_of(value)}", 0, "join the elements: join(…, \",\")")
    return value


class _Parser(Operands):
    """Logic and comparisons; values are below."""

    # -- logic -------------------------------------------------------------------------------------------------------

    def whole(self) -> Test:
        if self.lexer.ended:
            raise self.lexer.error("expected a test", "an expression that always holds is: true")
        return self._joined(0)

    def _joined(self, level: int) -> Test:
        """Tests joined by operators of this level and below."""
        if level == len(_JOINS):
            return self._unary()
        op, tokens = _JOINS[level]
        start = self.lexer.skip()
        tests = [self._joined(level + 1)]
        while any(self.lexer.take(token) for token in tokens):
            at = self.lexer.skip()
            tests.append(self._joined(level + 1))
            if is_vector(tests[-1]) != is_vector(tests[0]):
                hint = "take the elements together first: any(…) or all(…)"
                raise RuleError("one side has an answer for each element, the other a single one", at, hint)
        return tests[0] if len(tests) == 1 else Combine(op, tuple(tests), start)

    def _unary(self) -> Test:
        start = self.lexer.skip()
        if (self.lexer.peek("not") and self.lexer.word() not in FIELDS) or self.lexer.peek("!"):
            self.lexer.take("not") or self.lexer.take("!")
            return Not(self.deeper(start, self._unary), start)
        if self.lexer.take("("):
            test = self.deeper(start, lambda: self._joined(0))
            self.lexer.expect(")", "to close the bracket")
            return test
        return self._single()

    # -- comparisons -------------------------------------------------------------------------------------------------

    def _single(self) -> Test:
        start = self.lexer.skip()
        word = self.lexer.word()
        if word in ("true", "false"):
            self.lexer.at += len(word)
            return Constant(word == "true", start)
        if word in ("any", "all") and self._called(word):
            return self._quantifier(word == "all", start)
        left = self.operand(None)
        if left.type == BOOL and each_in(left):
            raise RuleError("there is one answer for each element already", start, "leave out the [*]")
        if left.type in (BOOL, array(BOOL)):
            return Truth(left, start)
        operator = self._operator()
        if operator is None:
            raise self._no_operator(left)
        at = self.lexer.at
        self._check_type(left, operator, at)
        self.lexer.at += len(operator[0])
        return self._right(left, operator[1], start)

    def _called(self, word: str) -> bool:
        return self.lexer.text[self.lexer.at + len(word) :].lstrip(" \t\r\n")[:1] == "("

    def _quantifier(self, every: bool, start: int) -> Test:
        name = self.lexer.name()
        self.lexer.expect("(", f"after '{name}'")
        at = self.lexer.skip()
        # As in wirefilter, several tests need brackets of their own.
        test = self.deeper(at, self._unary)
        if not is_vector(test):
            hint = f"like {name}(http.request.headers.names[*] eq \"a\")"
            raise RuleError(f"'{name}' needs one answer for each element", at, hint)
        if not self.lexer.take(")"):
            message = f"expected ')' to close '{name}'"
            raise self.lexer.error(message, f"several tests need brackets: {name}((… or …))")
        return Quantifier(every, test, start)

    def _operator(self) -> tuple[str, str] | None:
        at, text = self.lexer.skip(), self.lexer.text
        found = [each for each in _OPERATORS if text.startswith(each[0], at) and self._ends(at + len(each[0]))]
        return max(found, key=lambda each: len(each[0]), default=None)  # the longest one: `<` begins `<=`

    def _ends(self, at: int) -> bool:
        """Whether a word may end here: wirefilter asks for no blank behind an operator (`gt1`, `eqhttp.host`). One that goes
        on as a word that means nothing (`equals`) is no operator: the message shall say so."""
        if self.lexer.text[at - 1] not in WORD or self.lexer.text[at : at + 1] not in WORD:
            return True
        rest = Lexer(self.lexer.text)
        rest.at = at
        if rest.at_string() or rest.text[at].isdigit() or rest.word() in FIELDS or rest.word() in FUNCTIONS:
            return True
        return ":" in (rest.address() or "")

    def _no_operator(self, left: Value) -> RuleError:
        at, word = self.lexer.skip(), self.lexer.word()
        what = show_type(left)
        if word and (hint := suggest(word, _WORDS)):
            return RuleError(f"{quote(word)} is not an operator", at, hint)
        if self.lexer.peek("="):
            return RuleError("'=' is not an operator", at, "write eq or ==")
        return self.lexer.error(f"expected an operator after {what}", "like eq, ne, contains, matches, in")

    def _check_type(self, left: Value, operator: tuple[str, str], at: int) -> None:
        token, name = operator
        if left.type in SCALARS and left.type.kind is _OF_TYPE.get(name, left.type.kind):
            return
        hint = ""
        if left.type.kind in (Kind.ARRAY, Kind.MAP):
            hint = "take one with [0], or all: any(…[*] …)" if left.type.kind is Kind.ARRAY else 'take one: ["name"]'
        raise RuleError(f"'{token}' does not work on {left.type}", at, hint)

    def _right(self, left: Value, name: str, start: int) -> Test:
        if name == "in":
            return self._membership(left, start)
        if name == "contains":
            return Contains(left, self.lexer.string(), start)
        if name == "matches":
            pattern, places = self.lexer.pattern()
            compile_pattern(pattern, places)
            return Matches(left, pattern, start)
        if name in ("wildcard", "strict"):
            at = self.lexer.skip()
            if not (self.lexer.peek('"') or self.lexer.peek("r")):
                raise self.lexer.error("expected a pattern in quotes")
            pattern_bytes = self.lexer.string()
            pieces = split(pattern_bytes)
            if isinstance(pieces, str):
                raise RuleError(pieces, at)
            return Wildcard(left, pattern_bytes, name == "strict", start)
        at = self.lexer.skip()
        right = self.operand(left.type)
        if right.type != left.type or each_in(right):
            raise RuleError(f"{show_type(left)} is compared with {kind_of(right)}", at)
        if name == "mask":
            return BitAnd(left, right, start)
        return Compare(cast("Ordering", name), left, right, start)

    # -- sets --------------------------------------------------------------------------------------------------------

    def _membership(self, left: Value, start: int) -> Test:
        at = self.lexer.skip()
        if self.lexer.take("$"):
            name = self.lexer.list_name()
            if name not in self.lists:
                hint = suggest(name, self.lists) or "lists are named below 'lists:'"
                raise RuleError(f"unknown list {quote('$' + name)}", at, hint)
            if self.lists[name] != left.type:
                raise RuleError(f"the list '${name}' has items of type {self.lists[name]}, not {left.type}", at)
            return InList(left, name, start)
        self.lexer.expect("{", "or the name of a list like $name")
        items: list[bytes | Range] = []
        while not self.lexer.take("}"):
            if self.lexer.peek(","):
                raise self.lexer.error("items of a set are separated by blanks, not commas")
            if len(items) >= MAX_ITEMS:
                raise self.lexer.error(f"a set has at most {MAX_ITEMS} items", "use a list: $name")
            items.append(self._item(left.type))
        return In(left, tuple(items), start)

    def _item(self, kind: Type) -> bytes | Range:
        start = self.lexer.skip()
        if kind == BYTES:
            return self.lexer.string()
        if kind == IP:
            text = self.lexer.address()
            found = parse_range(text) if text is not None else "expected an IP address, a network or a range"
            if isinstance(found, str):
                raise RuleError(found, start)
            return found
        first = last = self.lexer.integer()
        if self.lexer.take_bare(".."):
            last = self.lexer.integer()
        if last < first:
            raise RuleError("the range ends before it begins", start)
        return first, last

    def stray(self) -> RuleError:
        """What stands behind a complete expression."""
        if self.lexer.peek(")"):
            return self.lexer.error("a ')' that nothing opened")
        if self._operator() is not None:
            return self.lexer.error("a Boolean stands alone", "write the field, or: not field")
        word = self.lexer.word()
        hint = suggest(word, ("and", "or", "xor")) if word else ""
        return self.lexer.error(f"expected 'and', 'or' or the end, not {quote(word or self.lexer.text[self.lexer.at])}", hint)
