# Many words in one text: which of them are there, for the price of a few looks when none is.
"""`words_probe(slot, places)`: a function of `Facts` that gives the places of the rules whose words are in the string there.

Few words are looked for one after the other, in a function made of nothing else; many by RE2 in one scan, whatever their
number. Both only begin to tell words apart when one is there.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Final

from edgeproxy.rules.facts import Facts
from edgeproxy.rules.fields import text_slot
from edgeproxy.rules.nodes import function, node_name, node_store
from edgeproxy.rules.regexes import Find, any_word

Places = tuple[int, ...]  # of rules, ascending
Probe = Callable[[Facts], Iterable[int]]

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
    text = any_of(text_slot(slot), [word for word, _ in words])

    def probe(facts: Facts) -> Iterable[int]:
        value = text(facts)
        return [place for word, found in words if word in value for place in found] if value is not None else ()

    return probe


def any_of(slot: str, words: list[str]) -> Callable[[Facts], str | None]:
    """A function of `Facts` that gives the text at `slot` if one of the words is in it, else None."""
    names = {f"c{index}": word for index, word in enumerate(words)}
    tests: list[ast.expr] = [ast.Compare(node_name(name), [ast.In()], [node_name("text")]) for name in names]
    read = ast.Assign([node_store("text")], ast.Attribute(node_name("facts"), slot, ast.Load()))
    there = ast.BoolOp(ast.And(), [node_name("text"), ast.BoolOp(ast.Or(), tests) if len(tests) > 1 else tests[0]])
    answer = ast.Return(ast.IfExp(there, node_name("text"), ast.Constant(None)))
    return function([read, answer], ("facts",), dict(names))


def _scan(slot: str, places: dict[bytes, Places], find: Find) -> Probe:
    """RE2 finds the place where a word begins; which words do so there is looked up, and the scan goes on behind it."""
    read = attrgetter(slot)
    stems: dict[bytes, list[tuple[bytes, Places]]] = {}
    for word, found in places.items():
        stems.setdefault(word[:_STEM], []).append((word, found))

    def probe(facts: Facts) -> Iterable[int]:
        value = read(facts)
        if not value:
            return ()
        at = find(value)
        if at < 0:
            return ()
        opened: set[int] = set()
        for _ in range(_HITS):
            for word, found in stems.get(value[at : at + _STEM], ()):
                if value.startswith(word, at):
                    opened.update(found)
            at = find(value, at + 1)
            if at < 0:
                return opened
        return [place for word, found in places.items() if value.find(word) >= 0 for place in found]

    return probe
