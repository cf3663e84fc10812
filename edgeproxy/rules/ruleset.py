# All rules of a snapshot, compiled, and in which order and on what knowledge they are asked.
"""`Ruleset.prepare` asks what can be asked of a head, once per plan; `Asking` asks the rest, for one request.

*Stable* rules read only what follows from the head, the client and the configuration. Of the others a plan knows which
can match at all (`may_hold`). Rules stand in segments, in order: behind a rewrite begins a new one, since later rules see
what it made of the request, and so does before rules about the body, since what stands before them need not wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from edgeproxy.rules.compiler import Batched, Container
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.fields import FIELDS
from edgeproxy.rules.lists import TYPES, container
from edgeproxy.rules.may import may_hold
from edgeproxy.rules.model import RuleBook
from edgeproxy.rules.parser import parse
from edgeproxy.rules.remembered import remembering
from edgeproxy.rules.rule import Rule
from edgeproxy.rules.syntax import Constant, Test
from edgeproxy.rules.walk import Broken, Decision, Walk

Batches = tuple[Callable[..., None], ...]


class Segment(NamedTuple):
    """Rules that see the same request.

    Attributes:
        stable: finds the stable ones that hold.
        may: finds the others that can hold, as far as a head says.
        rewrites: the last rule, if it is one that changes the request.
    """

    stable: Batches
    may: Batches
    rewrites: Rule | None


class Part(NamedTuple):
    """What a plan knows about one segment: stable rules that hold, and those to be asked for each request."""

    found: list[Rule]
    candidates: list[Rule]


class Prepared(NamedTuple):
    """What a plan knows.

    Attributes:
        parts: of the first segments; the rest is not known before earlier rules are.
        closed: no request of this plan gets behind these.
        decision: when it is the same for all requests of the plan; else None. A challenge is passed until a clearance expires.
        failed: rules that could not be asked, or carried out where the decision is the same for all; each request counts them.
    """

    parts: tuple[Part, ...]
    closed: bool
    decision: Decision | None
    failed: tuple[tuple[Rule, Exception], ...]


class Ruleset:
    """All enabled rules of a snapshot.

    Attributes:
        rules: of the request phase, in order.
        responses: of the response phase, in order.
        removed: names of headers that some rule takes out of requests, or writes.
    """

    __slots__ = ("_skips", "removed", "responses", "rules", "segments")

    def __init__(self, book: RuleBook) -> None:
        """Compiles; takes about half a millisecond a rule, in pieces that let other threads run.

        Raises: RuleError for a book that was not checked.
        """
        lists: dict[str, Container] = {each.name: container(each) for each in book.lists}
        types = {each.name: TYPES[each.kind] for each in book.lists}
        tests: dict[int, Test] = {}
        rules = []
        for index, model in enumerate(book.rules):
            if model.enabled:
                tests[index] = test = parse(model.expression, types, phase=model.phase)
                rule = Rule(index, model, test, lists, types)
                if not rule.stable or model.phase == "response":
                    rule.compile(test)  # here, in a thread, and not when the first request asks it
                rules.append(rule)
        self.rules = tuple(rule for rule in rules if rule.model.phase == "request")
        self.responses = Responses(tuple(rule for rule in rules if rule.model.phase == "response"), tests, lists)
        self._skips = any(rule.acts and rule.model.action == "skip" for rule in self.rules)
        self.removed = _removed(self.rules)
        groups = list(_grouped(self.rules))
        self.segments = tuple(_segment(group, tests, lists, len(groups)) for group in groups)

    def prepare(self, facts: Facts) -> Prepared:
        """Asks about a head what can be asked."""
        failed: list[tuple[Rule, Exception]] = []
        unable: list[tuple[Rule, Exception]] = []

        def unasked(rule: Rule, error: Exception) -> None:
            failed.append((rule, error))

        def undone(rule: Rule, error: Exception) -> None:
            unable.append((rule, error))

        walk = Walk(facts.request, _never, undone)
        parts: list[Part] = []
        settled, closed = True, True
        for segment in self.segments:
            part = Part(_ask(segment.stable, facts, unasked), _ask(segment.may, facts, unasked))
            parts.append(part)
            if settled and not part.candidates and not part.found:
                continue
            if settled and not part.candidates and not any(rule.sampled or rule.challenges for rule in part.found):
                facts = walk.all(part.found, facts)
                if walk.over:
                    break
                continue
            settled = False
            if not self._skips and any(_ends(rule) for rule in part.found):
                break
            rewrites = segment.rewrites
            if rewrites in part.candidates or (rewrites in part.found and (self._skips or rewrites.sampled)):
                closed = False
                break
            if rewrites in part.found:
                facts = Walk(facts.request, _never, _silent).take(rewrites, facts)
        if not settled:
            return Prepared(tuple(parts), closed, None, tuple(failed))
        return Prepared(tuple(parts), True, walk.decision(), (*failed, *unable))


class Asking:
    """The rules about one request, asked in turn; it can wait for the body in between.

    Attributes:
        facts: in force for the next rules; `facts.body` is to be set when the body was held.
        walk: what they have come to.
    """

    __slots__ = ("_at", "_broken", "_prepared", "_segments", "facts", "walk")

    def __init__(
        self, rules: Ruleset, prepared: Prepared, facts: Facts, draw: Callable[[], float], broken: Broken
    ) -> None:
        self._segments = rules.segments
        self._prepared = prepared
        self._broken = broken
        self._at = 0
        self.facts = facts
        self.walk = Walk(facts.request, draw, broken)

    def go(self) -> bool:
        """Asks on. False: a rule that can match reads the body, which was not held yet."""
        walk, parts, broken = self.walk, self._prepared.parts, self._broken
        end = len(parts) if self._prepared.closed else len(self._segments)
        while self._at < end:
            facts, at = self.facts, self._at
            if at < len(parts):
                found, candidates = parts[at]
            else:
                segment = self._segments[at]
                found, candidates = _ask(segment.stable, facts, broken), _ask(segment.may, facts, broken)
            if candidates:
                candidates = [rule for rule in candidates if not walk.drops(rule)]
                if facts.body is None and any(rule.waits(facts.request) for rule in candidates):
                    return False
                found = sorted([*found, *(rule for rule in candidates if holds(rule, facts, broken))], key=_index)
            self.facts = walk.all(found, facts)
            if walk.over:
                break
            self._at += 1
        return True


class Responses:
    """The rules of the response phase.

    Attributes:
        removed: names of headers that some rule takes out of replies, or writes.
    """

    __slots__ = ("_may", "removed", "rules")

    def __init__(self, rules: tuple[Rule, ...], tests: dict[int, Test], lists: dict[str, Container]) -> None:
        self.rules = rules
        self.removed = _removed(rules)
        self._may = _batches([(may_hold(tests[rule.index], _known), rule) for rule in rules], lists)

    def candidates(self, facts: Facts, broken: Broken) -> list[Rule]:
        """Those that can hold, as far as the request says."""
        return _ask(self._may, facts, broken)


def _removed(rules: tuple[Rule, ...]) -> frozenset[bytes]:
    changes = [rule.changes for rule in rules if rule.changes is not None and rule.acts]
    return frozenset().union(*(each.removed for each in changes))


def holds(rule: Rule, facts: Facts, broken: Broken) -> bool:
    """Whether one rule holds; one that fails does not, and is told of."""
    try:
        return bool(rule.check(facts))
    except Exception as e:
        broken(rule, e)
        return False


def judge(rules: Ruleset, facts: Facts, broken: Broken, draw: Callable[[], float] = lambda: 0.0) -> Decision:
    """What the request rules say about one request whose body, if there is one, was held."""
    prepared = rules.prepare(facts)
    for rule, error in prepared.failed:
        broken(rule, error)
    asking = Asking(rules, prepared, facts, draw, broken if prepared.decision is None else _silent)
    asking.go()
    return asking.walk.decision()


def compile_rules(book: RuleBook) -> Ruleset | None:
    """The rules of a book, None when none is enabled: who has no rules pays for none."""
    return Ruleset(book) if any(rule.enabled for rule in book.rules) else None


def _grouped(rules: Iterable[Rule]) -> Iterator[list[Rule]]:
    """Cuts behind each rewrite, and before rules about the body that follow others."""
    group: list[Rule] = []
    for rule in rules:
        if group and _reads_body(rule) and not _reads_body(group[-1]):
            yield group
            group = []
        group.append(rule)
        if rule.changes is not None and rule.acts:
            yield group
            group = []
    if group:
        yield group


def _reads_body(rule: Rule) -> bool:
    return any(FIELDS[name].needs_body for name in rule.fields)


def _segment(rules: list[Rule], tests: dict[int, Test], lists: dict[str, Container], segments: int) -> Segment:
    stable = [(tests[rule.index], rule) for rule in rules if rule.stable]
    may = [(may_hold(tests[rule.index], _known), rule) for rule in rules if not rule.stable]
    last = rules[-1]
    return Segment(
        _batches(stable, lists, segments),
        _batches([each for each in may if each[0] != Constant(False)], lists, segments),
        last if last.changes is not None and last.acts else None,
    )


def _known(name: str) -> bool:
    return FIELDS[name].stable


def _batches(rules: list[tuple[Test, Rule]], lists: dict[str, Container], groups: int = 1) -> Batches:
    return remembering([Batched(test, rule, len(rule.model.expression)) for test, rule in rules], lists, groups)


def _ask(batches: Batches, facts: Facts, broken: Broken) -> list[Rule]:
    found: list[Rule] = []
    for batch in batches:
        batch(facts, found.append, broken)
    return found


def _index(rule: Rule) -> int:
    return rule.index


def _ends(rule: Rule) -> bool:
    """Whether no request that it holds for gets behind it."""
    return rule.final and rule.location is None and not rule.sampled and not rule.challenges


def _never() -> float:
    raise AssertionError("a sampled rule is no matter of a plan")


def _silent(_rule: Rule, _error: Exception) -> None:
    """It is told of elsewhere."""
