# What a test can still come to while some of its fields are unknown; nothing is evaluated here, trees become trees.
"""`may_hold` turns a test into one that reads only known fields and is true wherever the test itself could be true.

A rule about bodies whose other conditions are false for this head can never match: nobody has to wait for the body.
"""

from __future__ import annotations

from collections.abc import Callable

from edgeproxy.rules.syntax import Combine, Constant, Not, Test, fields_of

Known = Callable[[str], bool]


def may_hold(test: Test, known: Known) -> Test:
    """The weakest thing to ask before the rest is known.

    Args:
        known: whether a field's value is known already.

    Returns: a test over known fields; `Constant(True)` when they say nothing.
    """
    return _bound(test, known, True)


def _bound(test: Test, known: Known, upper: bool) -> Test:
    """With `upper` true wherever the test may be true, without it true only where the test is sure to be true."""
    if all(known(name) for name in fields_of(test)):
        return test
    if isinstance(test, Not):
        inner = _bound(test.test, known, not upper)
        return Constant(not inner.value, test.at) if isinstance(inner, Constant) else Not(inner, test.at)
    if isinstance(test, Combine) and test.op != "xor":
        return _joined(test, [_bound(each, known, upper) for each in test.tests])
    return Constant(upper, test.at)


def _joined(test: Combine, tests: list[Test]) -> Test:
    """`and` and `or` without the parts that do not matter."""
    decides = test.op == "or"  # the answer of one part that settles the whole
    if any(isinstance(each, Constant) and each.value is decides for each in tests):
        return Constant(decides, test.at)
    rest = tuple(each for each in tests if not isinstance(each, Constant))
    if not rest:
        return Constant(not decides, test.at)
    return rest[0] if len(rest) == 1 else Combine(test.op, rest, test.at)
