# One look at one field for the gates of many rules; the words among them are words.py's.
"""`Probe`: what gives the places of the rules whose gates (gates.py) are open; `together` makes one function of many.

A probe is cheap to ask whether any of its gates is open, and only then says which.
"""

from __future__ import annotations

import ast
from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Any, Final

from edgeproxy.rules.facts import Facts
from edgeproxy.rules.nodes import function, node_call, node_name, node_store
from edgeproxy.rules.regexes import any_pattern

Places = tuple[int, ...]  # of rules, ascending
Constant = Callable[[Any], ast.expr]
Test = Callable[[Constant, ast.expr], ast.expr]

_MOST_PARTS: Final = 100_000  # of ranges that lie over one another; more are asked one by one
_VALUE: Final = "value"


class Probe:
    """See the module.

    Attributes:
        slot: of `Facts` that it looks at.
        test: makes an expression, of the value's own, that is true where some gate may be open.
        opened: the places of the open gates, by a value for which the test is true.
        places: of all gates.
    """

    __slots__ = ("opened", "places", "slot", "test")

    def __init__(self, slot: str, test: Test, opened: Callable[[Any], Iterable[int]], places: dict[Any, Places]) -> None:
        self.slot = slot
        self.test = test
        self.opened = opened
        self.places = every(places)


def every(places: dict[Any, Places]) -> Places:
    """All places of a table, each once."""
    return tuple(sorted({place for found in places.values() for place in found}))


def together(probes: list[Probe]) -> Callable[[Facts], Places]:
    """A function that asks all probes: a place may come twice. It raises what the source of a field raises."""
    names: dict[str, Any] = {}

    def constant(value: Any) -> ast.expr:
        names[name := f"c{len(names)}"] = value
        return node_name(name)

    body: list[ast.stmt] = [ast.Assign([node_store("open_")], ast.Tuple([], ast.Load()))]
    for probe in probes:
        value = node_name(_VALUE)
        more = ast.Starred(node_call(constant(probe.opened), value), ast.Load())
        open_ = ast.Tuple([ast.Starred(node_name("open_"), ast.Load()), more], ast.Load())
        body.append(ast.Assign([node_store(_VALUE)], ast.Attribute(node_name("facts"), probe.slot, ast.Load())))
        body.append(ast.If(probe.test(constant, value), [ast.Assign([node_store("open_")], open_)], []))
    body.append(ast.Return(node_name("open_")))
    return function(body, ("facts",), names)


def equal(slot: str, places: dict[Any, Places]) -> Probe:
    """The value is one of the keys."""
    return Probe(slot, lambda constant, value: _in(value, constant(places)), places.__getitem__, places)


def member(slot: str, places: dict[Any, Places]) -> Probe:
    """An element, or a key, is one of the keys."""

    def test(constant: Constant, value: ast.expr) -> ast.expr:
        none = node_call(constant(frozenset(places).isdisjoint), value)
        return ast.BoolOp(ast.And(), [value, ast.UnaryOp(ast.Not(), none)])

    return Probe(slot, test, lambda values: [place for value in values for place in places.get(value, ())], places)


def within(slot: str, places: dict[Any, Places]) -> Probe:
    """The number lies in one of the ranges: between two neighbouring ends the same ones are open, one bisection finds them."""
    starts = sorted({end for first, last in places for end in (first, last + 1)})
    opened: list[set[int]] = [set() for _ in starts]
    spent = 0
    for (first, last), found in places.items():
        parts = range(bisect_right(starts, first) - 1, bisect_right(starts, last))
        spent += len(parts) * len(found)
        if spent > _MOST_PARTS:
            return unsure(slot, places)
        for at in parts:
            opened[at].update(found)
    inside: list[Places] = [tuple(sorted(each)) for each in opened]
    inside.append(())  # before the first: looked up at index -1

    def test(constant: Constant, value: ast.expr) -> ast.expr:
        place = ast.BinOp(node_call(constant(bisect_right), constant(starts), value), ast.Sub(), ast.Constant(1))
        return ast.BoolOp(ast.And(), [
            ast.Compare(value, [ast.IsNot()], [ast.Constant(None)]), ast.Subscript(constant(inside), place, ast.Load()),
        ])  # fmt: skip

    return Probe(slot, test, lambda number: inside[bisect_right(starts, number) - 1], places)


def matching(slot: str, places: dict[Any, Places]) -> Probe:
    """All patterns in one. Where one matches, all of them are asked: which it was, RE2 does not say."""
    find = any_pattern(places)
    if find is None:
        return unsure(slot, places)

    def test(constant: Constant, value: ast.expr) -> ast.expr:
        there = ast.Compare(value, [ast.IsNot()], [ast.Constant(None)])
        return ast.BoolOp(ast.And(), [there, ast.Compare(node_call(constant(find), value), [ast.GtE()], [ast.Constant(0)])])

    all_ = every(places)
    return Probe(slot, test, lambda _: all_, places)


def unsure(slot: str, places: dict[Any, Places]) -> Probe:
    """Every rule has to be asked."""
    all_ = every(places)
    return Probe(slot, lambda _constant, _value: ast.Constant(True), lambda _: all_, places)


def _in(value: ast.expr, table: ast.expr) -> ast.expr:
    return ast.Compare(value, [ast.In()], [table])

