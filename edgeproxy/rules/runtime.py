# What compiled rules call where one Python expression would not do; a missing value is None, going in and coming out.
"""Look-ups with something missing on the way, and vectors of answers joined element by element (the shortest decides)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final


def item(values: Any, index: int) -> Any:
    """`values[index]`."""
    return values[index] if values is not None and index < len(values) else None


def entry(values: Any, key: bytes) -> Any:
    """`values["key"]`."""
    return values.get(key) if values is not None else None


def unless_missing(run: Callable[..., Any], *args: Any) -> Any:
    """A call, unless an argument is missing."""
    return None if any(arg is None for arg in args) else run(*args)


def negated(answers: Iterable[Any]) -> list[bool]:
    """A vector of opposite answers."""
    return [not answer for answer in answers]


def leaves(value: Any, path: tuple[int | bytes | None, ...]) -> list[Any]:
    """What a chain of indices leads to; None stands for `[*]`. Missing branches lead to nothing."""
    found = [value]
    for step in path:
        if step is None:
            found = [
                part for each in found if each is not None for part in (each.values() if isinstance(each, dict) else each)
            ]
        else:
            found = [entry(each, step) if isinstance(step, bytes) else item(each, step) for each in found]
    return [each for each in found if each is not None]


def _zip_and(*vectors: Any) -> list[bool]:
    return [all(answers) for answers in zip(*vectors, strict=False)]


def _zip_or(*vectors: Any) -> list[bool]:
    return [any(answers) for answers in zip(*vectors, strict=False)]


def _zip_xor(*vectors: Any) -> list[bool]:
    return [sum(map(bool, answers)) % 2 == 1 for answers in zip(*vectors, strict=False)]


ZIPPED: Final = {"and": _zip_and, "or": _zip_or, "xor": _zip_xor}


class Separately:
    """Does what a batch does, with a function for each rule; they are made when they are first needed.

    Args:
        rules: what `found` and `broken` are told.
        make: gives the function of each.
    """

    def __init__(self, rules: list[Any], make: Callable[[], list[Callable[[Any], Any]]]) -> None:
        self._rules = rules
        self._make = make
        self._checks: list[Callable[[Any], Any]] = []

    def __call__(self, facts: Any, found: Callable[[Any], None], broken: Callable[[Any, Exception], None]) -> None:
        self._checks = self._checks or self._make()
        for rule, check in zip(self._rules, self._checks, strict=True):
            try:
                holds = check(facts)
            except Exception as error:
                broken(rule, error)
            else:
                if holds:
                    found(rule)
