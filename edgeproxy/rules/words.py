# Many words in one text: which of them are there, for the price of a few looks when none is.
"""`words_probe(slot, places)`: gives the places of the rules whose words are in the string at a slot.

Few words are looked for one after the other, in a function made of nothing else; many by RE2 in one scan, whatever their
number. Both only begin to tell words apart when one is there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Final

from edgeproxy.rules.fields import text_slot
from edgeproxy.rules.nodes import node_call
from edgeproxy.rules.probes import Constant, Places, Probe
from edgeproxy.rules.regexes import Find, any_word

MANY_WORDS: Final = 256  # of one scan: RE2 makes states as it reads, and a text made for it finds all of them
_FEW: Final = 24  # are looked for one by one
_HITS: Final = 8  # words found by scanning on; where more are, each is looked for
_STEM: Final = 3  # bytes of a word by which those that may begin at one place are known


def words_probe(slot: str, places: dict[bytes, Places]) -> Probe:
    """Words are in lower case, as what is at `slot`, and not empty."""
    find = any_word(places) if len(places) > _FEW and min(map(len, places)) >= _STEM else None
    return _one_by_one(slot, places) if find is None else _scan(slot, places, find)


def _one_by_one(slot: str, places: dict[bytes, Places]) -> Probe:
    words = [(word.decode("latin-1"), found) for word, found in places.items()]

    def test(constant: Constant, text: ast.expr) -> ast.expr:
        tests: list[ast.expr] = [ast.Compare(constant(word), [ast.In()], [text]) for word, _ in words]
        return ast.BoolOp(ast.And(), [text, ast.BoolOp(ast.Or(), tests) if len(tests) > 1 else tests[0]])

    def opened(text: str) -> Iterable[int]:
        return [place for word, found in words if word in text for place in found]

    return Probe(text_slot(slot), test, opened, places)


def _scan(slot: str, places: dict[bytes, Places], find: Find) -> Probe:
    """RE2 finds the place where a word begins; which words do so there is looked up, and the scan goes on behind it."""
    stems: dict[bytes, list[tuple[bytes, Places]]] = {}
    for word, found in places.items():
        stems.setdefault(word[:_STEM], []).append((word, found))

    def test(constant: Constant, value: ast.expr) -> ast.expr:
        there = ast.Compare(node_call(constant(find), value), [ast.GtE()], [ast.Constant(0)])
        return ast.BoolOp(ast.And(), [value, there])

    def opened(value: bytes) -> Iterable[int]:
        at = find(value)
        places_: set[int] = set()
        for _ in range(_HITS):
            for word, found in stems.get(value[at : at + _STEM], ()):
                if value.startswith(word, at):
                    places_.update(found)
            at = find(value, at + 1)
            if at < 0:
                return places_
        return [place for word, found in places.items() if value.find(word) >= 0 for place in found]

    return Probe(slot, test, opened, places)
