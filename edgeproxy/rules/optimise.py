# Trees that mean the same and cost less: what can be merged is decided here; how it is run is the compiler's business.
"""`simplify` merges alternatives that compare one value with literals into one set, and those that match it with patterns into
one pattern; `cost` says how dear a test is.

Nothing here changes what an expression means, missing values included: `a eq 1 or a eq 2` and `a in {1 2}` are both false
where `a` is missing. `ne` is never merged, because `not a in {…}` would be true there.
"""

from __future__ import annotations

from edgeproxy.rules.addresses import Range
from edgeproxy.rules.errors import RuleError
from edgeproxy.rules.fields import FIELDS
from edgeproxy.rules.functions import FUNCTIONS
from edgeproxy.rules.regexes import compile_pattern, literals
from edgeproxy.rules.syntax import (
    BitAnd,
    Call,
    Combine,
    Compare,
    Constant,
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
)  # fmt: skip

_LONGEST = 1000  # characters of a pattern that is made of several


def simplify(test: Test) -> Test:
    """The same test, cheaper."""
    if isinstance(test, Not):
        return Not(simplify(test.test), test.at)
    if isinstance(test, Quantifier):
        return Quantifier(test.every, simplify(test.test), test.at)
    if not isinstance(test, Combine):
        return test
    tests: list[Test] = []
    for each in map(simplify, test.tests):
        # `a or (b or c)` is one list of alternatives; xor is associative, too, but gains nothing.
        if isinstance(each, Combine) and each.op == test.op != "xor":
            tests += each.tests
        else:
            tests.append(each)
    if test.op == "or":
        tests = _joined(_merged(tests))
    return tests[0] if len(tests) == 1 else Combine(test.op, tuple(tests), test.at)


def _merged(tests: list[Test]) -> list[Test]:
    """Alternatives `value eq literal` and `value in {…}` of one value become one `in`, at the place of the first."""
    result: list[Test] = []
    places: dict[Value, int] = {}
    for test in tests:
        items = _items(test)
        if items is None:
            result.append(test)
            continue
        assert isinstance(test, Compare | In)
        at = places.setdefault(test.left, len(result))
        if at == len(result):
            result.append(test)
        else:
            before = _items(result[at])
            assert before is not None
            result[at] = In(test.left, (*before, *items), test.at)
    return result


def _joined(tests: list[Test]) -> list[Test]:
    """Alternatives `value matches pattern` of one value become one pattern, at the place of the first: a call of RE2 costs
    more than what it looks for."""
    result: list[Test] = []
    places: dict[Value, int] = {}
    for test in tests:
        if not isinstance(test, Matches):
            result.append(test)
            continue
        at = places.get(test.left)
        joined = _either(result[at], test) if at is not None else None
        if at is None or joined is None:
            places[test.left] = len(result)
            result.append(test)
        else:
            result[at] = joined
    return result


def _either(one: Test, other: Matches) -> Matches | None:
    """One pattern for two; None where RE2 refuses it, as too large for example."""
    assert isinstance(one, Matches)
    pattern = "|".join(each if literals(each) is not None else f"(?:{each})" for each in (one.pattern, other.pattern))
    if len(pattern) > _LONGEST:
        return None
    try:
        compile_pattern(pattern, captures=False)
    except RuleError:
        return None
    return Matches(one.left, pattern, one.at)


def _items(test: Test) -> tuple[bytes | Range, ...] | None:
    if isinstance(test, In):
        return test.items
    if isinstance(test, Compare) and test.op == "eq" and isinstance(test.right, Literal):
        literal = test.right.value
        return (literal,) if isinstance(literal, bytes) else ((literal, literal),)
    return None


def cost(test: Test) -> float:
    """About how dear a test is, in comparisons of a string. Only the order of costs matters."""
    match test:
        case Constant():
            return 0
        case Truth(value):
            return value_cost(value)
        case Not(inner):
            return cost(inner)
        case Combine(_, tests):
            return sum(map(cost, tests))
        case Quantifier(_, inner):
            return 6 + 3 * cost(inner)
        case Compare(_, left, right) | BitAnd(left, right):
            return 1 + value_cost(left) + value_cost(right)
        case Matches(left, pattern):
            words = literals(pattern)
            return value_cost(left) + (15 if words is None else 2 * len(words))
        case Wildcard(left, pattern):
            return value_cost(left) + (2 if pattern.count(b"*") <= 1 else 8)
        case In(left) | InList(left):
            return 2 + value_cost(left)
        case _:
            return 2 + value_cost(test.left)


def value_cost(value: Value) -> float:
    """About how dear it is to have a value."""
    match value:
        case Literal():
            return 0
        case Field(name):
            return FIELDS[name].cost
        case Index(base) | Each(base):
            return 1 + value_cost(base)
        case Call(name, args):
            return FUNCTIONS[name].cost + sum(map(value_cost, args))


def always(value: Value) -> bool:
    """Whether a value can never be missing."""
    match value:
        case Literal():
            return True
        case Field(name):
            return FIELDS[name].always
        case Call(name, args):
            fallible = name in ("decode_base64", "lookup_json_integer", "lookup_json_string")
            return value.mapped or (not fallible and all(always(arg) for arg in args))
        case _:
            return False
