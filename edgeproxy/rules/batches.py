# Many rules at once: what finds, with few looks at a request, the few rules that have to be asked; the rest cannot hold.
"""`batches(rules, lists)`: functions `(facts, found, broken)` that together ask every rule.

A rule that has a gate (gates.py) is only asked when the gate is open. Gates of one kind at one field are looked up
together: values in one dict, ranges by one bisection, words and patterns by one scan of RE2. Rules without a gate, and
those whose kind of gate too few have, are asked in functions of sixteen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from edgeproxy.rules.compiler import Batched, Check, Container, compile_batch, compile_test
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.gates import NEVER, WORTH, Atom, Equal, Found, Gate, Member, Within, Word, gate, rarity
from edgeproxy.rules.probes import Places, Probe, equal, matching, member, together, within
from edgeproxy.rules.words import MANY_WORDS, words_probe

Batch = Callable[[Facts, Callable[[Any], None], Callable[[Any, Exception], None]], None]

# Rules of one function, and characters of their expressions: fewer are more calls while asking, more hold the interpreter
# for longer while compiling (16 rules as long as they may be: 40 ms, during which a worker's loop would stand).
_TOGETHER: Final = 16
_TEXT: Final = 2048
_FEW: Final = 3  # gates of a kind: looking them up costs about as much as asking as many rules
_FEW_PATTERNS: Final = 2
_MANY_PATTERNS: Final = 16


def batches(rules: list[Batched], lists: Mapping[str, Container]) -> tuple[Batch, ...]:
    """What has to be called for each request, in order; what they find is in order, too, if it is one function."""
    gated, plain = divided(rules)
    made = [compile_batch(part, lists) for part in _pieces(plain)]
    return (Index(rules, gated, made, lists),) if gated else tuple(made)


def _pieces(rules: list[Batched]) -> Iterable[list[Batched]]:
    """Rules of one function each, in order."""
    piece: list[Batched] = []
    for rule in rules:
        if piece and (len(piece) == _TOGETHER or sum(each.length for each in piece) + rule.length > _TEXT):
            yield piece
            piece = []
        piece.append(rule)
    if piece:
        yield piece


def divided(rules: list[Batched]) -> tuple[dict[int, Gate], list[Batched]]:
    """The gates of those rules, by place, that share their kind with enough others, and the rules without; in neither
    are those that never hold."""
    gates: dict[int, Gate] = {}
    plain: set[int] = set()
    for place, rule in enumerate(rules):
        found = gate(rule.test)
        if found is None or (found and min(map(rarity, found)) < WORTH):
            plain.add(place)
        elif found is not NEVER and found:
            gates[place] = found
    while True:
        users: dict[tuple[type[Atom], str], set[int]] = {}
        for place, found in gates.items():
            for atom in found:
                users.setdefault((type(atom), atom.slot), set()).add(place)
        lonely = {place for (kind, _), places in users.items() if len(places) < _fewest(kind) for place in places}
        if not lonely:
            return gates, [rules[place] for place in sorted(plain)]
        plain |= lonely
        gates = {place: found for place, found in gates.items() if place not in lonely}


def _fewest(kind: type[Atom]) -> int:
    return _FEW_PATTERNS if kind is Found else _FEW


class Index:
    """Some rules, their gates, and the functions of those without."""

    __slots__ = ("_checks", "_look", "_looks", "_places", "_plain", "_rules")

    def __init__(
        self, rules: list[Batched], gates: dict[int, Gate], plain: list[Batch], lists: Mapping[str, Container]
    ) -> None:
        self._rules = [each.rule for each in rules]
        self._places = {id(rule): place for place, rule in enumerate(self._rules)}
        self._plain = plain
        self._checks: dict[int, Check] = {place: compile_test(rules[place].test, lists) for place in gates}
        probes = list(_probes(gates))
        self._look = together(probes)
        self._looks = [(together([probe]), probe.places) for probe in probes]

    def __call__(self, facts: Facts, found: Callable[[Any], None], broken: Callable[[Any, Exception], None]) -> None:
        """Calls `found(rule)` for each rule that holds, in order, and `broken(rule, error)` for those that raise."""
        try:
            open_ = self._look(facts)
        except Exception:
            open_ = self._each(facts)
        hits: list[Any] = []
        for batch in self._plain:
            batch(facts, hits.append, broken)
        if open_:
            self._ask(set(open_), facts, hits, broken)
        for rule in hits:
            found(rule)

    def _each(self, facts: Facts) -> Places:
        """The open gates where the source of a field raises: who reads it is asked, and says so."""
        open_: list[int] = []
        for look, places in self._looks:
            try:
                open_ += look(facts)
            except Exception:
                open_ += places
        return tuple(open_)

    def _ask(self, places: set[int], facts: Facts, hits: list[Any], broken: Callable[[Any, Exception], None]) -> None:
        """Asks the rules at these places and puts those that hold among the hits."""
        before = len(hits)
        for place in places:
            try:
                if self._checks[place](facts):
                    hits.append(self._rules[place])
            except Exception as error:
                broken(self._rules[place], error)
        if len(hits) > max(before, 1):
            hits.sort(key=lambda rule: self._places[id(rule)])


# -- looking up many gates at once -----------------------------------------------------------------------------------


def _probes(gates: dict[int, Gate]) -> Iterable[Probe]:
    """One for each kind of gate at each slot, or more where there are very many."""
    kinds: dict[tuple[type[Atom], str], dict[Any, list[int]]] = {}
    for place, atoms in sorted(gates.items()):
        for atom in atoms:
            kinds.setdefault((type(atom), atom.slot), {}).setdefault(_what(atom), []).append(place)
    for (kind, slot), table in kinds.items():
        for part in _parts(kind, table):
            places = {what: tuple(those) for what, those in part.items()}
            yield _MAKERS[kind](slot, places)


def _what(atom: Atom) -> Any:
    match atom:
        case Word(_, word):
            return word
        case Found(_, pattern):
            return pattern
        case Within(_, ends):
            return ends
        case Equal(_, value) | Member(_, value):
            return value


def _parts(kind: type[Atom], table: dict[Any, list[int]]) -> Iterable[dict[Any, list[int]]]:
    """A table in parts that one scan can hold."""
    most = MANY_WORDS if kind is Word else _MANY_PATTERNS if kind is Found else len(table)
    items = list(table.items())
    return [dict(items[start : start + most]) for start in range(0, len(items), most)]


_MAKERS: Final[dict[type[Atom], Callable[[str, dict[Any, Places]], Probe]]] = {
    Equal: equal, Found: matching, Member: member, Within: within, Word: words_probe,
}  # fmt: skip
