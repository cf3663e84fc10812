# What rules that hold come to together, one after the other; how that is carried out in the pipeline is not known here.
"""`Walk`: takes the rules that hold for a request, in order, until one ends the matter."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from edgeproxy.message import Request
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.rule import Rule, RunError

Broken = Callable[[Rule, Exception], None]


class Decision(NamedTuple):
    """What the rules of the request phase came to.

    Attributes:
        hits: the rules that were hit, in order.
        final: the one that ended the matter; None: the request goes on.
        request: as it would be forwarded; the one that came when nothing was rewritten.
        written: field lines that rules wrote, which are sent even where a client's would not be.
        upstream, host: what `route` chose.
        tags: of `set`.
        stages: that are skipped.
        left_out: ids of rules that are skipped.
    """

    hits: tuple[Rule, ...]
    final: Rule | None
    request: Request
    written: frozenset[tuple[bytes, bytes]] = frozenset()
    upstream: str | None = None
    host: bytes | None = None
    tags: tuple[str, ...] = ()
    stages: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()


class Walk:
    """See the module.

    Attributes:
        over: no later rule of this phase runs.
    """

    __slots__ = (
        "_broken", "_draw", "final", "hits", "host", "left_out", "over", "request", "skip_stages", "tags", "upstream", "written",
    )  # fmt: skip

    def __init__(self, request: Request, draw: Callable[[], float], broken: Broken) -> None:
        """Begin.

        Args:
            draw: a random number from 0 to 1, for rules that act on a share of what they match.
            broken: told of rules whose action cannot be carried out; they count as not hit.
        """
        self._draw = draw
        self._broken = broken
        self.hits: list[Rule] = []
        self.left_out: set[str] = set()
        self.skip_stages: set[str] = set()
        self.final: Rule | None = None
        self.over = False
        self.request = request
        self.written: frozenset[tuple[bytes, bytes]] = frozenset()
        self.upstream: str | None = None
        self.host: bytes | None = None
        self.tags: list[str] = []

    def all(self, rules: Iterable[Rule], facts: Facts) -> Facts:
        """Takes rules that hold, in order, until one ends the matter. See `take`."""
        for rule in rules:
            facts = self.take(rule, facts)
            if self.over:
                break
        return facts

    def take(self, rule: Rule, facts: Facts) -> Facts:
        """A rule that holds for `facts`. Returns: the facts for later rules."""
        if rule.id in self.left_out or (rule.sampled and self._draw() >= rule.model.sample):
            return facts
        if not rule.acts:
            self.hits.append(rule)
            return facts
        if rule.changes is not None:
            try:
                facts = self._rewrite(rule, facts)
            except Exception as e:
                self._broken(rule, e)
                return facts
        self.hits.append(rule)
        if rule.final:
            self.final = rule
            self.over = True
        elif rule.model.action == "skip":
            self._skip(rule)
        elif rule.model.action == "route":
            self.upstream = rule.model.upstream
            self.host = rule.model.host.encode("ascii") if rule.model.host is not None else None
        elif rule.model.tags:
            self.tags += [tag for tag in rule.model.tags if tag not in self.tags]
        return facts

    def _skip(self, rule: Rule) -> None:
        skip = rule.model.skip
        if skip is None:
            self.over = True
        else:
            self.left_out.update(skip.rules)
            self.skip_stages.update(skip.stages)

    def _rewrite(self, rule: Rule, facts: Facts) -> Facts:
        """Raises: RunError, or what an expression raises."""
        changes, before = rule.changes, facts.request
        assert changes is not None
        target = changes.target(facts) if changes.of_target else before.target
        if before.target == b"*" and changes.of_target:
            raise RunError("'*' is no path")
        headers, new = changes.headers(before.headers, facts)
        request = before.altered(target, headers)
        self.written |= frozenset(new)
        self.request = request
        return facts.following(request)

    def decision(self) -> Decision:
        """What it came to so far."""
        return Decision(
            tuple(self.hits), self.final, self.request, self.written, self.upstream, self.host, tuple(self.tags),
            frozenset(self.skip_stages), frozenset(self.left_out),
        )  # fmt: skip
