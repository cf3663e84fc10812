# Pieces of Python's own tree, as compiler.py puts them together; nothing here knows what a rule is.
"""Small nodes by function, and `shared` and `Swap`: values that several tests of one function read are read once.

`facts` is the name that slots are attributes of.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any, Final

_BUILTINS: Final = {"Exception": Exception, "any": any, "all": all, "len": len}


def function(body: list[ast.stmt], args: tuple[str, ...], globals_: dict[str, Any]) -> Callable[..., Any]:
    """A function of these statements, whose constants are its globals."""
    signature = ast.arguments([], [ast.arg(arg) for arg in args], None, [], [], None, [])
    module = ast.Module([ast.FunctionDef(name="rule", args=signature, body=body, decorator_list=[])], [])
    for node in ast.walk(module):  # ast.fix_missing_locations would leave a reference cycle behind each time
        node.lineno = node.col_offset = 1  # type: ignore[attr-defined]  # of no use where a node has none
    code = compile(module, "<rules>", "exec", dont_inherit=True, optimize=2)
    inner = next(each for each in code.co_consts if isinstance(each, CodeType))
    return FunctionType(inner, {"__builtins__": _BUILTINS, **globals_})


def node_name(name: str) -> ast.expr:
    """A name that is read."""
    return ast.Name(name, ast.Load())


def node_store(name: str) -> ast.Name:
    """A name that is set."""
    return ast.Name(name, ast.Store())


def node_call(function: ast.expr, *args: ast.expr) -> ast.expr:
    """A call."""
    return ast.Call(function, list(args), [])


def node_loop(name: str, items: ast.expr) -> ast.comprehension:
    """`for name in items`."""
    return ast.comprehension(node_store(name), items, [], 0)


def node_generator(result: ast.expr, name: str, items: ast.expr) -> ast.expr:
    """`(result for name in items)`."""
    return ast.GeneratorExp(result, [node_loop(name, items)])


def shared(tests: list[ast.expr], facts: str) -> dict[str, str]:
    """The slots that several places read, and one of them whatever the request is: local names for their values."""
    certain: set[str] = set()
    uses: dict[str, int] = {}
    for test in tests:
        certain.update(_read_for_sure(test, facts))
        for node in ast.walk(test):
            if isinstance(node, ast.Attribute) and _is_slot(node, facts):
                uses[node.attr] = uses.get(node.attr, 0) + 1
    return {slot: f"s{index}" for index, slot in enumerate(sorted(certain)) if uses[slot] > 1}


def _is_slot(node: ast.Attribute, facts: str) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == facts


def _read_for_sure(node: ast.AST, facts: str) -> Iterator[str]:
    """The slots that are read by whoever runs an expression: those that no `and`, `or`, `if` or loop stands before."""
    match node:
        case ast.Attribute() if _is_slot(node, facts):
            yield node.attr
        case ast.BoolOp(values=[first, *_]) | ast.IfExp(test=first):
            yield from _read_for_sure(first, facts)
        case ast.Compare(left=left, comparators=[right]):
            yield from _read_for_sure(left, facts)
            yield from _read_for_sure(right, facts)
        case ast.UnaryOp(operand=inner) | ast.NamedExpr(value=inner) | ast.Attribute(value=inner):
            yield from _read_for_sure(inner, facts)
        case ast.BinOp(left=left, right=right):
            yield from _read_for_sure(left, facts)
            yield from _read_for_sure(right, facts)
        case ast.Call(args=args):
            for each in (node.func, *args):
                yield from _read_for_sure(each, facts)


class Swap(ast.NodeTransformer):
    """Slots become local names."""

    def __init__(self, names: dict[str, str], facts: str) -> None:
        self._names = names
        self._facts = facts

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if _is_slot(node, self._facts) and node.attr in self._names:
            return node_name(self._names[node.attr])
        return self.generic_visit(node)
