# The rules of a snapshot, compiled, and what those that match come to together; how that is carried out is not known here.
"""`Ruleset.matches` finds the rules that hold for a request, `decide` walks over them in order until one ends the matter.

Rules are split in two: *stable* ones, which read only what follows from the head, the client and the configuration, are
found once per plan; the others once per request. Both meet again, in the order of the files, in `decide`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from edgeproxy.faults import Fault, client_fault, edge_fault
from edgeproxy.rules.compiler import Batched, Check, Container, compile_batch, compile_value
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.fields import FIELDS
from edgeproxy.rules.lists import TYPES, container
from edgeproxy.rules.model import CHALLENGES, RuleBook, RuleModel
from edgeproxy.rules.parser import parse, parse_value
from edgeproxy.rules.syntax import Test, Type, Value, fields_of

_BATCH: Final = 16  # rules of one function: fewer are more calls, more hold the interpreter for longer while compiling
_FINAL: Final = frozenset({"block", "allow", "redirect"}) | CHALLENGES
_SLOTS = ("acts", "body", "content_type", "fault", "final", "id", "index", "label", "location", "model", "sampled")

Broken = Callable[["Rule", Exception], None]


class Rule:
    """One compiled rule.

    Attributes:
        index: its place among all rules.
        label: what counts in metrics: its action, or `log` for one that only tries.
        acts: it does something, it is not in mode `log`.
        final: it ends the matter when it acts.
        sampled: it acts on a share of what it matches.
        fault: of a block or challenge: how the request is refused.
        body, content_type: of a block with an answer of its own, else None.
        location: of a redirect: gives the target.
    """

    __slots__ = _SLOTS

    def __init__(self, index: int, model: RuleModel, lists: dict[str, Container], types: dict[str, Type]) -> None:
        self.index = index
        self.model = model
        self.id = model.id
        self.acts = model.mode == "act"
        self.label: str = model.action if self.acts else "log"
        self.final = self.acts and model.action in _FINAL
        self.sampled = model.sample < 1
        self.fault = _fault(model)
        self.body = model.body.encode("utf-8", "surrogatepass") if model.body is not None else None
        self.content_type = (model.content_type or _guessed(model.body or "")).encode("ascii")
        self.location: Check | None = None
        if model.location is not None:
            fixed = model.location.encode("ascii")
            self.location = lambda _: fixed
        elif model.location_expression is not None:
            self.location = compile_value(parse_value(model.location_expression, types), lists)


def _fault(model: RuleModel) -> Fault | None:
    if model.action == "block":
        return client_fault(model.status or 403, "rule_block", "This request was blocked by a rule of this site.")
    if model.action in CHALLENGES:
        message = "This request has to pass a challenge, and this server cannot show one yet."
        return edge_fault(403, "rule_challenge", message)
    return None


def _guessed(body: str) -> str:
    start = body.lstrip()[:1]
    if start in ("{", "["):
        return "application/json"
    return f"text/{'html' if start == '<' else 'plain'}; charset=utf-8"


class Decision(NamedTuple):
    """What the rules came to: those that were hit, in order, and the one that ended the matter (None: go on)."""

    hits: tuple[Rule, ...]
    final: Rule | None


NOTHING: Final = Decision((), None)


class Ruleset:
    """All enabled rules of a snapshot.

    Attributes:
        volatile: there are rules that have to be asked for each request.
        size: how many rules there are.
    """

    __slots__ = ("_skips", "_stable", "_volatile", "size", "volatile")

    def __init__(self, book: RuleBook) -> None:
        """Compiles; takes about half a millisecond a rule, in pieces that let other threads run.

        Raises: RuleError for a book that was not checked.
        """
        lists: dict[str, Container] = {each.name: container(each) for each in book.lists}
        types = {each.name: TYPES[each.kind] for each in book.lists}
        stable: list[Batched] = []
        volatile: list[Batched] = []
        self.size = 0
        for index, model in enumerate(book.rules):
            if model.enabled:
                self.size += 1
                test = parse(model.expression, types)
                (stable if is_stable(test) else volatile).append(Batched(test, Rule(index, model, lists, types)))
        self._stable = tuple(_batches(stable, lists))
        self._volatile = tuple(_batches(volatile, lists))
        self._skips = any(rule.enabled and rule.action == "skip" for rule in book.rules)
        self.volatile = bool(volatile)

    def stable(self, facts: Facts, broken: Broken) -> list[Rule]:
        """The stable rules that hold, in order; none behind one that is sure to end the matter, if none can be skipped."""
        found: list[Rule] = []
        for batch in self._stable:
            batch(facts, found.append, broken)
            if found and not self._skips and any(rule.final and not rule.sampled for rule in found):
                break
        return found

    def match(self, facts: Facts, stable: list[Rule], broken: Broken) -> list[Rule]:
        """These stable rules and the others that hold, in order."""
        found = list(stable)
        for batch in self._volatile:
            batch(facts, found.append, broken)
        found.sort(key=_index)
        return found


def _index(rule: Rule) -> int:
    return rule.index


def _batches(rules: list[Batched], lists: dict[str, Container]) -> Iterator[Callable[..., None]]:
    for start in range(0, len(rules), _BATCH):
        yield compile_batch(rules[start : start + _BATCH], lists)


def is_stable(node: Test | Value) -> bool:
    """Whether what is read is the same for every request with the same head of the same client."""
    return all(FIELDS[name].stable for name in fields_of(node))


def decide(rules: Iterable[Rule], draw: Callable[[], float]) -> Decision:
    """What matching rules, in order, come to.

    Args:
        draw: a random number from 0 to 1, for rules that act on a share of what they match.
    """
    hits: list[Rule] = []
    left_out: set[str] = set()
    for rule in rules:
        if rule.id in left_out or (rule.sampled and draw() >= rule.model.sample):
            continue
        hits.append(rule)
        if rule.final:
            return Decision(tuple(hits), rule)
        if rule.acts and rule.model.action == "skip":
            if rule.model.skip is None:
                break
            left_out.update(rule.model.skip.rules)
    return Decision(tuple(hits), None) if hits else NOTHING


def compile_rules(book: RuleBook) -> Ruleset | None:
    """The rules of a book, None when none is enabled: who has no rules pays for none."""
    return Ruleset(book) if any(rule.enabled for rule in book.rules) else None
