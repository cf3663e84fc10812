# The other way to run rules: a closure for each node of a tree, put together once. The case `rules` compares with it.
"""`compile_closure(test)`: a function of `Facts`, of the same trees, fields, sets, patterns and order as the compiler's.

As good as closures get: constants are bound when they are made, literals, fields and pairs have closures of their own,
words are searched in text, cheap tests come first. What they cannot have is one code object for a rule, or for many.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter, eq, ge, gt, le, lt, ne
from typing import Any

from edgeproxy.rules import syntax as s
from edgeproxy.rules.compiler import container
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.fields import FIELDS, lower_slot, text_slot
from edgeproxy.rules.functions import FUNCTIONS, runner
from edgeproxy.rules.optimise import cost, simplify
from edgeproxy.rules.regexes import compile_pattern, literals, searcher
from edgeproxy.rules.runtime import ZIPPED, entry, item, leaves, negated, unless_missing
from edgeproxy.rules.wildcards import Pattern, split

Read = Callable[[Facts], Any]
_ORDER = {"eq": eq, "ne": ne, "lt": lt, "le": le, "gt": gt, "ge": ge}


def compile_closure(test: s.Test) -> Read:
    """True where the test holds."""
    return _test(simplify(test))


def _test(test: s.Test) -> Read:
    match test:
        case s.Constant(value):
            return lambda _: value
        case s.Truth(value):
            return _value(value)
        case s.Not(inner):
            asked = _test(inner)
            return lambda facts: not asked(facts)
        case s.Combine(op, tests):
            return _combined(op, [_test(each) for each in (tests if op == "xor" else sorted(tests, key=cost))])
        case s.Quantifier(every, inner):
            answers, over = _vector(inner), all if every else any
            return lambda facts: over(answers(facts))
        case s.Contains(left, needle) if (text := _text(left)) is not None:
            return _any_word(text, [needle.decode("latin-1")])
        case s.Matches(left, pattern) if (text := _text(left)) is not None and (words := literals(pattern)) is not None:
            return _any_word(text, [word.decode("latin-1") for word in words])
        case s.Compare("eq", left, s.Literal(wanted)):
            read = _value(left)
            return lambda facts: read(facts) == wanted
        case s.In(left, items):
            read, among = _value(left), container(items)
            return lambda facts: read(facts) in among
        case _:
            read, holds = _value(test.left), _applied(test)

            def there(facts: Facts) -> Any:
                value = read(facts)
                return value is not None and holds(value, facts)

            return there


def _combined(op: str, parts: list[Read]) -> Read:
    if op == "xor":
        return lambda facts: sum(bool(part(facts)) for part in parts) % 2 == 1
    if len(parts) == 2:
        one, other = parts
        return (lambda facts: one(facts) and other(facts)) if op == "and" else (lambda facts: one(facts) or other(facts))
    stop = op == "or"

    def combined(facts: Facts) -> bool:
        for part in parts:
            if bool(part(facts)) is stop:
                return stop
        return not stop

    return combined


def _text(left: s.Value) -> Read | None:
    """Text to look for words in, of a field or of one in lower case."""
    lowered = isinstance(left, s.Call) and left.name == "lower"
    field = left.args[0] if isinstance(left, s.Call) and lowered else left
    if not isinstance(field, s.Field):
        return None
    info = FIELDS[field.name]
    return attrgetter(text_slot(lower_slot(info) if lowered else info.slot))


def _any_word(text: Read, words: list[str]) -> Read:
    if len(words) == 1:
        word = words[0]

        def one(facts: Facts) -> bool:
            value = text(facts)
            return value is not None and word in value

        return one

    def some(facts: Facts) -> bool:
        value = text(facts)
        if value is not None:
            for each in words:
                if each in value:
                    return True
        return False

    return some


def _applied(test: Any) -> Callable[[Any, Facts], Any]:
    """A comparison of a value that is there."""
    match test:
        case s.Contains(_, needle):
            return lambda value, _: value.find(needle) >= 0
        case s.Matches(_, pattern):
            search = searcher(compile_pattern(pattern, captures=False))
            return lambda value, _: search(value)
        case s.Wildcard(_, pattern, strict):
            pieces = split(pattern)
            assert isinstance(pieces, list)
            matches = Pattern(pieces, strict=strict).matches
            return lambda value, _: matches(value)
        case s.In(_, items):
            among = container(items)
            return lambda value, _: value in among
        case s.BitAnd(_, right):
            mask = _value(right)
            return lambda value, facts: (bits := mask(facts)) is not None and value & bits != 0
        case s.Compare(op, _, s.Literal(wanted)):
            order = _ORDER[op]
            return lambda value, _: order(value, wanted)
        case s.Compare(op, _, right):
            order, other = _ORDER[op], _value(right)

            def compared(value: Any, facts: Facts) -> Any:
                against = other(facts)
                return against is not None and order(value, against)

            return compared
    raise AssertionError(test)


def _vector(test: s.Test) -> Read:
    match test:
        case s.Not(inner):
            answers = _vector(inner)
            return lambda facts: negated(answers(facts))
        case s.Combine(op, tests):
            vectors, zipped = [_vector(each) for each in tests], ZIPPED[op]
            return lambda facts: zipped(*(vector(facts) for vector in vectors))
        case s.Truth(value):
            read = _value(value)
            return lambda facts: read(facts) or ()
        case s.Contains(left, needle):
            elements = _elements(left)
            return lambda facts: [value.find(needle) >= 0 for value in elements(facts)]
        case s.Compare("eq", left, s.Literal(wanted)):
            elements = _elements(left)
            return lambda facts: [value == wanted for value in elements(facts)]
        case _:
            assert not isinstance(test, s.Constant | s.Quantifier)
            elements, holds = _elements(test.left), _applied(test)
            return lambda facts: (holds(value, facts) for value in elements(facts))


def _elements(value: s.Value) -> Read:
    path: list[int | bytes | None] = []
    while isinstance(value, s.Index | s.Each) and s.each_in(value):
        path.append(value.key if isinstance(value, s.Index) else None)
        value = value.base
    base, steps = _value(value), tuple(reversed(path))
    if steps == (None,) and value.type.kind is s.Kind.ARRAY:
        return lambda facts: base(facts) or ()
    return lambda facts: leaves(base(facts), steps)


def _value(value: s.Value) -> Read:
    match value:
        case s.Literal(content):
            return lambda _: content
        case s.Field(name):
            return attrgetter(FIELDS[name].slot)
        case s.Index(base, key):
            read = _value(base)
            return (lambda facts: entry(read(facts), key)) if isinstance(key, bytes) else (lambda facts: item(read(facts), key))
        case s.Call():
            return _call(value)
    raise AssertionError(value)


def _call(call: s.Call) -> Read:
    function, args = FUNCTIONS[call.name], call.args
    if call.name == "lower" and isinstance(args[0], s.Field):
        return attrgetter(lower_slot(FIELDS[args[0].name]))
    prepared: list[Any] = [arg.value if isinstance(arg, s.Literal) else None for arg in args]
    if function.prepare is not None:
        prepared = function.prepare(prepared)
    run = runner(call.name, args[0].type)
    reads = [
        (lambda _, made=made: made) if isinstance(arg, s.Literal) else _value(arg)
        for arg, made in zip(args[1:], prepared[1:], strict=False)
    ]
    if call.mapped:
        elements = _elements(args[0])
        return lambda facts: [run(each, *[read(facts) for read in reads]) for each in elements(facts)]
    first = _value(args[0])
    if not reads:

        def one(facts: Facts) -> Any:
            value = first(facts)
            return None if value is None else run(value)

        return one
    if function.takes_missing:
        return lambda facts: run(first(facts), *[read(facts) for read in reads])
    return lambda facts: unless_missing(run, first(facts), *[read(facts) for read in reads])
