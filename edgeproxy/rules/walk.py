# What rules that hold come to together, one after the other; how that is carried out in the pipeline is not known here.
"""`Walk`: takes the rules that hold for a request, in order, until one ends the matter."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from edgeproxy.message import Headers, Request
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.rule import Changes, Rule

Broken = Callable[[Rule, Exception], None]


class Decision(NamedTuple):
    """What the rules of the request phase came to.

    Attributes:
        hits: the rules that were hit, in order.
        final: the one that ended the matter; None: the request goes on.
        location: of a redirect.
        request: as it would be forwarded; the one that came when nothing was rewritten.
        written: those of its field lines that rules wrote: they are sent even where a client's would not be.
        upstream, host: what `route` chose.
        tags, limits: of `set`; low: its priority.
        stages: that are skipped.
        left_out: ids of rules that are skipped.
    """

    hits: tuple[Rule, ...]
    final: Rule | None
    request: Request
    location: bytes | None = None
    written: Headers = []  # noqa: RUF012  never changed
    upstream: str | None = None
    host: bytes | None = None
    tags: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    stages: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()
    low: bool = False


class Walk:
    """See the module.

    Attributes:
        over: no later rule of this phase runs.
        cleared: whether the client has passed what a rule challenges it with; None: nobody has.
        saw: each hit with what its rule saw, if somebody wants to know and has set a list; else None.
    """

    __slots__ = (
        "_broken", "_draw", "_drawn", "cleared", "final", "hits", "host", "left_out", "limits", "location", "low", "over",
        "request", "saw", "skip_stages", "tags", "upstream", "written",
    )  # fmt: skip

    def __init__(self, request: Request, draw: Callable[[], float], broken: Broken) -> None:
        """Begin.

        Args:
            draw: a random number from 0 to 1, for rules that act on a share of what they match.
            broken: told of rules whose action cannot be carried out; they count as not hit.
        """
        self._draw = draw
        self._drawn: dict[int, bool] = {}
        self._broken = broken
        self.hits: list[Rule] = []
        self.saw: list[tuple[Rule, Facts]] | None = None
        self.cleared: Callable[[Rule], bool] | None = None
        self.left_out: set[str] = set()
        self.skip_stages: set[str] = set()
        self.final: Rule | None = None
        self.over = False
        self.request = request
        self.location: bytes | None = None
        self.written: Headers = []
        self.upstream: str | None = None
        self.host: bytes | None = None
        self.tags: list[str] = []
        self.limits: list[str] = []
        self.low = False

    def all(self, rules: Iterable[Rule], facts: Facts) -> Facts:
        """Takes rules that hold, in order, until one ends the matter. See `take`."""
        for rule in rules:
            facts = self.take(rule, facts)
            if self.over:
                break
        return facts

    def drops(self, rule: Rule) -> bool:
        """Whether a rule is left out, by an earlier one or by its share of requests."""
        if rule.id in self.left_out:
            return True
        if not rule.sampled:
            return False
        if rule.index not in self._drawn:
            self._drawn[rule.index] = self._draw() >= rule.model.sample
        return self._drawn[rule.index]

    def take(self, rule: Rule, facts: Facts) -> Facts:
        """A rule that holds for `facts`. Returns: the facts for later rules."""
        if self.drops(rule) or (rule.challenges and self.cleared is not None and self.cleared(rule)):
            return facts
        seen = facts
        if not rule.acts:
            self._hit(rule, seen)
            return facts
        try:
            location = rule.redirect(facts)
            if rule.changes is not None:
                facts = self._rewrite(rule, rule.changes, facts)
        except Exception as e:
            self._broken(rule, e)
            return facts
        self._hit(rule, seen)
        if rule.final:
            self.final = rule
            self.location = location
            self.over = True
        elif rule.model.action == "skip":
            self._skip(rule)
        elif rule.model.action == "route":
            self.upstream = rule.model.upstream
            self.host = rule.model.host.encode("ascii") if rule.model.host is not None else None
        elif rule.model.action == "set":
            self.tags += [tag for tag in rule.model.tags if tag not in self.tags]
            self.limits += [name for name in rule.model.limits if name not in self.limits]
            if rule.model.priority is not None:
                self.low = rule.model.priority == "low"
        return facts

    def _hit(self, rule: Rule, seen: Facts) -> None:
        self.hits.append(rule)
        if self.saw is not None:
            self.saw.append((rule, seen))

    def _skip(self, rule: Rule) -> None:
        skip = rule.model.skip
        if skip is None:
            self.over = True
        else:
            self.left_out.update(skip.rules)
            self.skip_stages.update(skip.stages)

    def _rewrite(self, rule: Rule, changes: Changes, facts: Facts) -> Facts:
        """Raises: RunError, or what an expression raises, when there is nothing but a target that cannot be made."""
        before = facts.request
        target, headers = before.target, before.headers
        if changes.of_target:
            try:
                target = changes.target(facts)
            except Exception as e:
                if not changes.of_headers:
                    raise
                self._broken(rule, e)
        if changes.of_headers:
            headers, new = changes.headers(headers, facts, partial(self._broken, rule))
            removed = changes.removed
            self.written = [line for line in self.written if line[0] not in removed] + new
        self.request = request = before.altered(target, headers)
        return facts.following(request)

    def decision(self) -> Decision:
        """What it came to so far."""
        return Decision(
            tuple(self.hits), self.final, self.request, self.location, self.written, self.upstream, self.host, tuple(self.tags),
            tuple(self.limits), frozenset(self.skip_stages), frozenset(self.left_out), self.low,
        )  # fmt: skip
