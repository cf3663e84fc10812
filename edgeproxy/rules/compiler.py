# A syntax tree becomes a Python function here: built as Python's own tree, so that no text of a rule is ever run.
"""`compile_test` and `compile_value`: code objects that read slots of `Facts` and nothing else of a request.

Every constant of a rule (strings, numbers, sets, patterns) is a global of the made function under a name of ours; nothing
is written into source text. What can be missing is tested for None once, where it is used; the fields that never are
missing are compared directly. Tests that `and` and `or` join run cheapest first: they have no effects and do not fail, so
only the time depends on their order.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgeproxy.rules.addresses import Ranges
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.fields import FIELDS, lower_slot, text_slot
from edgeproxy.rules.functions import FUNCTIONS, runner
from edgeproxy.rules.nodes import Swap, function, node_call, node_generator, node_loop, node_name, node_store, shared
from edgeproxy.rules.optimise import always, cost, simplify
from edgeproxy.rules.regexes import compile_pattern, literals, searcher
from edgeproxy.rules.required import required
from edgeproxy.rules.runtime import ZIPPED, Separately, entry, item, leaves, negated, unless_missing
from edgeproxy.rules.sources import ENTRIES
from edgeproxy.rules.syntax import (
    BitAnd,
    Call,
    Combine,
    Compare,
    Constant,
    Contains,
    Each,
    Field,
    In,
    Index,
    InList,
    Literal,
    Matches,
    Not,
    Quantifier,
    Test,
    Truth,
    Value,
    Wildcard,
    each_in,
    is_vector,
)  # fmt: skip
from edgeproxy.rules.wildcards import Pattern, split

_FACTS: Final = "facts"
_ARGS: Final = (_FACTS, "found", "broken")  # of a batch
_OPERATORS: Final[dict[str, ast.cmpop]] = {
    "eq": ast.Eq(), "ne": ast.NotEq(), "lt": ast.Lt(), "le": ast.LtE(), "gt": ast.Gt(), "ge": ast.GtE(),
}  # fmt: skip
_MANY_LITERALS: Final = 12  # words of a pattern that are looked for one after the other; more are one scan of RE2
_MANY_NEEDED: Final = 4  # words of a pattern one of which must be there; more cost as much as the pattern
_SHORT: Final = 3  # bytes of such a word that is found too often
Container = frozenset[Any] | Ranges
Check = Callable[[Facts], Any]


def container(items: tuple[Any, ...]) -> Container:
    """A set for `in`: hashed when every item is one value, ranges otherwise."""
    if all(isinstance(item, bytes) for item in items):
        return frozenset(items)
    if all(first == last for first, last in items):
        return frozenset(first for first, _ in items)
    return Ranges(items)


def compile_test(test: Test, lists: Mapping[str, Container]) -> Check:
    """A function of `Facts` whose result is true where the test holds (of a vector: an iterable of its answers)."""
    maker = _Maker(lists)
    return maker.answer(maker.vector(simplify(test)) if is_vector(test) else maker.test(simplify(test)))


def compile_value(value: Value, lists: Mapping[str, Container]) -> Check:
    """A function of `Facts` that gives the value, None where it is missing (with `[*]`: an iterable of the elements)."""
    maker = _Maker(lists)
    return maker.answer(maker.elements(value) if each_in(value) else maker.value(value))


@dataclass(frozen=True, slots=True)
class Batched:
    """One rule of a batch: its test, what `found` and `broken` are told of it, and how long it was as text."""

    test: Test
    rule: Any
    length: int = 0


def compile_batch(rules: list[Batched], lists: Mapping[str, Container]) -> Callable[..., None]:
    """A function `(facts, found, broken)` that calls `found(rule)` for each rule that holds, in order, and
    `broken(rule, error)` for one that raises. One function for several rules saves a call for each."""
    maker = _Maker(lists)
    tests = [maker.test(simplify(each.test)) for each in rules]
    names = shared(tests, _FACTS)
    body: list[ast.stmt] = []
    if names:
        # Who cannot read them ahead reads them where they are used: there it is one rule that fails.
        alone = Separately([each.rule for each in rules], lambda: [compile_test(each.test, lists) for each in rules])
        again = ast.Return(node_call(maker.constant(alone), *map(node_name, _ARGS)))
        reads: list[ast.stmt] = [
            ast.Assign([node_store(name)], ast.Attribute(node_name(_FACTS), slot, ast.Load())) for slot, name in names.items()
        ]
        body.append(ast.Try(reads, [ast.ExceptHandler(node_name("Exception"), None, [again])], [], []))
        swap = Swap(names, _FACTS)
        tests = [swap.visit(test) for test in tests]
    for each, test in zip(rules, tests, strict=True):
        rule = maker.constant(each.rule)
        hit = ast.Expr(node_call(node_name("found"), rule))
        told = ast.Expr(node_call(node_name("broken"), rule, node_name("error")))
        caught = ast.ExceptHandler(node_name("Exception"), "error", [told])
        body.append(ast.Try([ast.If(test, [hit], [])], [caught], [], []))
    return maker.build(body, _ARGS)


class _Maker:
    """Builds one function: its tree, and the globals that its constants are."""

    def __init__(self, lists: Mapping[str, Container]) -> None:
        self.lists = lists
        self.globals: dict[str, Any] = {}
        self.known: dict[Any, str] = {}
        self.count = 0
        self.inside = 0  # iterables of comprehensions around: Python allows no assignment there

    # -- the function ------------------------------------------------------------------------------------------------

    def answer(self, result: ast.expr) -> Check:
        return self.build([ast.Return(result)], (_FACTS,))

    def build(self, body: list[ast.stmt], args: tuple[str, ...]) -> Callable[..., Any]:
        return function(body, args, self.globals)

    def constant(self, value: Any) -> ast.expr:
        """A constant by name. Equal strings and numbers share one."""
        key = (type(value), value) if isinstance(value, bytes | str | int | frozenset) else id(value)
        if key not in self.known:
            self.known[key] = name = f"c{len(self.known)}"
            self.globals[name] = value
        return node_name(self.known[key])

    def fresh(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def present(self, value: Value, use: Callable[[ast.expr], ast.expr]) -> ast.expr:
        """`use` of a value, false where the value is missing."""
        if always(value):
            return use(self.value(value))
        name = self.fresh()
        there = ast.Compare(ast.NamedExpr(node_store(name), self.value(value)), [ast.IsNot()], [ast.Constant(None)])
        return ast.BoolOp(ast.And(), [there, use(node_name(name))])

    # -- tests -------------------------------------------------------------------------------------------------------

    def test(self, test: Test) -> ast.expr:
        """An expression whose truth is that of the test; not for vectors."""
        match test:
            case Constant(value):
                return ast.Constant(value)
            case Truth(value):
                return self.value(value)
            case Not(inner):
                return ast.UnaryOp(ast.Not(), self.test(inner))
            case Combine("xor", tests):
                return self._xor([self.test(each) for each in tests])
            case Combine(op, tests):
                ordered = sorted(tests, key=cost)
                return ast.BoolOp(ast.And() if op == "and" else ast.Or(), [self.test(each) for each in ordered])
            case Quantifier(every, inner):
                return self._quantifier(every, inner)
            case Compare(op, left, right):
                return self._compare(op, left, right)
            case _:
                return self._comparison(test)

    def _xor(self, parts: list[ast.expr]) -> ast.expr:
        result = parts[0]
        for part in parts[1:]:
            result = ast.Compare(ast.UnaryOp(ast.Not(), result), [ast.NotEq()], [ast.UnaryOp(ast.Not(), part)])
        return result

    def _compare(self, op: str, left: Value, right: Value) -> ast.expr:
        if op == "eq" and isinstance(right, Literal):
            return ast.Compare(self.value(left), [ast.Eq()], [self.value(right)])  # None is equal to no literal
        return self.present(left, lambda one: self.present(right, lambda other: ast.Compare(one, [_OPERATORS[op]], [other])))

    def _comparison(self, test: Test) -> ast.expr:
        """A comparison with a literal, a set or a pattern."""
        assert isinstance(test, Contains | Matches | Wildcard | In | InList | BitAnd)
        if isinstance(test, In | InList):
            return ast.Compare(self.value(test.left), [ast.In()], [self.constant(self._set(test))])
        if isinstance(test, Contains | Matches) and (found := self._in_text(test)) is not None:
            return found
        if isinstance(test, Wildcard) and not test.strict and isinstance(test.left, Field):
            return self._lowered(test)
        return self.present(test.left, lambda value: self.applied(test, value))

    def _in_text(self, test: Contains | Matches) -> ast.expr | None:
        """Words that are looked for in a field, or in a field in lower case; None for anything else."""
        words = [test.needle] if isinstance(test, Contains) else literals(test.pattern)
        lowered = isinstance(test.left, Call) and test.left.name == "lower"
        field = test.left.args[0] if isinstance(test.left, Call) and lowered else test.left
        if not isinstance(field, Field):
            return None
        info = FIELDS[field.name]
        if words is not None and len(words) <= _MANY_LITERALS:
            return self._any_word(lower_slot(info) if lowered else info.slot, words, info.always)
        needed = required(test.pattern) if isinstance(test, Matches) and isinstance(test.left, Field) else None
        if not isinstance(test, Matches) or needed is None or len(needed) > _MANY_NEEDED or min(map(len, needed)) < _SHORT:
            return None
        # A look for a word costs a tenth of what RE2 does.
        search = node_call(self.constant(searcher(compile_pattern(test.pattern, captures=False))), self.value(field))
        return ast.BoolOp(ast.And(), [self._any_word(lower_slot(info), needed, info.always), search])

    def _any_word(self, slot: str, words: Sequence[bytes], sure: bool) -> ast.expr:
        """Whether one of some words is in the string at a slot, false where it is missing."""
        text: ast.expr = ast.Attribute(node_name(_FACTS), text_slot(slot), ast.Load())
        name = self.fresh()
        there = ast.Compare(ast.NamedExpr(node_store(name), text), [ast.IsNot()], [ast.Constant(None)])
        text = text if sure else node_name(name)
        tests: list[ast.expr] = [ast.Compare(self.constant(word.decode("latin-1")), [ast.In()], [text]) for word in words]
        found = tests[0] if len(tests) == 1 else ast.BoolOp(ast.Or(), tests)
        return found if sure else ast.BoolOp(ast.And(), [there, found])

    def _set(self, test: In | InList) -> Container:
        return self.lists[test.name] if isinstance(test, InList) else container(test.items)

    def _lowered(self, test: Wildcard) -> ast.expr:
        """A field's lower-case twin is computed once, whatever number of rules compares it."""
        assert isinstance(test.left, Field)
        info = FIELDS[test.left.name]
        value = ast.Attribute(node_name(_FACTS), lower_slot(info), ast.Load())
        strict = Wildcard(test.left, test.pattern.lower(), True)
        if info.always:
            return self.applied(strict, value)
        name = self.fresh()
        there = ast.Compare(ast.NamedExpr(node_store(name), value), [ast.IsNot()], [ast.Constant(None)])
        return ast.BoolOp(ast.And(), [there, self.applied(strict, node_name(name))])

    def applied(self, test: Test, value: ast.expr) -> ast.expr:
        """A comparison of a value that is there (its expression may be written twice: it is a name or an attribute)."""
        match test:
            case Contains(_, needle):
                # `in` of bytes takes the needle for a number first, and an exception tells it better.
                place = node_call(ast.Attribute(value, "find", ast.Load()), self.constant(needle))
                return ast.Compare(place, [ast.GtE()], [self.constant(0)])
            case Matches(_, pattern):
                return self._matches(pattern, value)
            case Wildcard(_, pattern, strict):
                return self._wildcard(pattern, strict, value)
            case BitAnd(_, right):
                return self.present(right, lambda mask: ast.Compare(
                    ast.BinOp(value, ast.BitAnd(), mask), [ast.NotEq()], [self.constant(0)]))  # fmt: skip
            case In() | InList():
                return ast.Compare(value, [ast.In()], [self.constant(self._set(test))])
            case Compare(op, _, right):
                return self.present(right, lambda other: ast.Compare(value, [_OPERATORS[op]], [other]))
        raise AssertionError(test)

    def _matches(self, pattern: str, value: ast.expr) -> ast.expr:
        words = literals(pattern)
        if words is not None and len(words) <= _MANY_LITERALS and isinstance(value, ast.Name | ast.Attribute):
            tests: list[ast.expr] = [ast.Compare(self.constant(word), [ast.In()], [value]) for word in words]
            return tests[0] if len(tests) == 1 else ast.BoolOp(ast.Or(), tests)
        return node_call(self.constant(searcher(compile_pattern(pattern, captures=False))), value)

    def _wildcard(self, pattern: bytes, strict: bool, value: ast.expr) -> ast.expr:
        pieces = split(pattern)
        assert isinstance(pieces, list)
        if strict and len(pieces) == 1:
            return ast.Compare(value, [ast.Eq()], [self.constant(pieces[0])])
        if strict and len(pieces) == 2 and not pieces[1]:
            return node_call(ast.Attribute(value, "startswith", ast.Load()), self.constant(pieces[0]))
        if strict and len(pieces) == 2 and not pieces[0]:
            return node_call(ast.Attribute(value, "endswith", ast.Load()), self.constant(pieces[1]))
        if strict and len(pieces) == 3 and not pieces[0] and not pieces[2]:
            return ast.Compare(self.constant(pieces[1]), [ast.In()], [value])
        return node_call(self.constant(Pattern(pieces, strict=strict).matches), value)

    # -- vectors -----------------------------------------------------------------------------------------------------

    def _quantifier(self, every: bool, test: Test) -> ast.expr:
        if not every and isinstance(test, Compare) and test.op == "eq" and isinstance(test.right, Literal):
            items = self._plain_elements(test.left)
            if items is not None:
                return ast.Compare(self.value(test.right), [ast.In()], [items])
        if not every and isinstance(test, Contains):
            # A list of a few answers is made faster than a generator; answers of `find` are truth values.
            name = self.fresh()
            answers = ast.ListComp(self.applied(test, node_name(name)), [node_loop(name, self.elements(test.left))])
            return ast.Compare(ast.Constant(True), [ast.In()], [answers])
        return node_call(node_name("all" if every else "any"), self.vector(test))

    def _plain_elements(self, value: Value) -> ast.expr | None:
        """The elements of `array[*]` as they are, () where the array is missing; None for anything else."""
        if not isinstance(value, Each) or each_in(value.base) or value.base.type.kind.value != "Array":
            return None
        return self._or_nothing(value.base)

    def _or_nothing(self, base: Value) -> ast.expr:
        items = self._iterable(base)
        return items if always(base) else ast.BoolOp(ast.Or(), [items, ast.Tuple([], ast.Load())])

    def elements(self, value: Value) -> ast.expr:
        """An iterable of what a chain with `[*]` in it stands for, inner ones one after the other."""
        plain = self._plain_elements(value)
        if plain is not None:
            return plain
        path: list[int | bytes | None] = []
        while isinstance(value, Index | Each) and each_in(value):
            path.append(value.key if isinstance(value, Index) else None)
            value = value.base
        return node_call(self.constant(leaves), self._iterable(value), self.constant(tuple(reversed(path))))

    def _iterable(self, value: Value) -> ast.expr:
        self.inside += 1
        made = self.value(value)
        self.inside -= 1
        return made

    def vector(self, test: Test) -> ast.expr:
        """An iterable of the answers, one for each element."""
        match test:
            case Not(inner):
                return node_call(self.constant(negated), self.vector(inner))
            case Combine(op, tests):
                return node_call(self.constant(ZIPPED[op]), *(self.vector(each) for each in tests))
            case Truth(value):
                return self._or_nothing(value)
            case _:
                assert isinstance(test, Compare | Contains | Matches | Wildcard | In | InList | BitAnd)
                name = self.fresh()
                return node_generator(self.applied(test, node_name(name)), name, self.elements(test.left))

    # -- values ------------------------------------------------------------------------------------------------------

    def value(self, value: Value) -> ast.expr:
        """An expression that gives the value, None where it is missing."""
        match value:
            case Literal(number):
                return self.constant(number)
            case Field(name):
                return ast.Attribute(node_name(_FACTS), FIELDS[name].slot, ast.Load())
            case Index(base, key):
                return self._index(base, key)
            case Call():
                return self._call(value)
            case Each():
                raise AssertionError("elements have no single value")

    def _index(self, base: Value, key: int | bytes) -> ast.expr:
        if isinstance(key, bytes) and isinstance(base, Field) and base.name in ENTRIES:
            return node_call(self.constant(ENTRIES[base.name]), node_name(_FACTS), self.constant(key))
        if isinstance(key, bytes) and always(base):
            return node_call(ast.Attribute(self.value(base), "get", ast.Load()), self.constant(key))
        return node_call(self.constant(item if isinstance(key, int) else entry), self.value(base), self.constant(key))

    def _call(self, call: Call) -> ast.expr:
        function, args = FUNCTIONS[call.name], call.args
        first = args[0]
        if call.name == "lower" and isinstance(first, Field):
            return ast.Attribute(node_name(_FACTS), lower_slot(FIELDS[first.name]), ast.Load())
        if call.name == "has_key" and isinstance(first, Field) and first.name in ENTRIES and isinstance(args[1], Literal):
            return ast.Compare(self._index(first, args[1].value), [ast.IsNot()], [ast.Constant(None)])
        run = self.constant(runner(call.name, first.type))
        prepared: list[Any] = [arg.value if isinstance(arg, Literal) else None for arg in args]
        if function.prepare is not None:
            prepared = function.prepare(prepared)
        rest = [
            self.constant(made) if isinstance(arg, Literal) else self.value(arg)
            for arg, made in zip(args[1:], prepared[1:], strict=False)  # `prepare` may use up the last ones (flags)
        ]
        if call.mapped:
            name = self.fresh()
            return ast.ListComp(node_call(run, node_name(name), *rest), [node_loop(name, self.elements(first))])
        head = self.constant(prepared[0]) if isinstance(first, Literal) else self.value(first)
        if function.takes_missing or all(always(arg) for arg in args):
            return node_call(run, head, *rest)
        return self._guarded(run, [head, *rest], [always(arg) for arg in args[: len(rest) + 1]])

    def _guarded(self, run: ast.expr, args: list[ast.expr], sure: list[bool]) -> ast.expr:
        """A call that gives None where one of its arguments is None."""
        if self.inside:
            return node_call(self.constant(unless_missing), run, *args)
        tests: list[ast.expr] = []
        names: list[ast.expr] = []
        for arg, is_there in zip(args, sure, strict=True):
            if is_there:
                names.append(arg)
                continue
            name = self.fresh()
            tests.append(ast.Compare(ast.NamedExpr(node_store(name), arg), [ast.IsNot()], [ast.Constant(None)]))
            names.append(node_name(name))
        test = tests[0] if len(tests) == 1 else ast.BoolOp(ast.And(), tests)
        return ast.IfExp(test, node_call(run, *names), ast.Constant(None))
