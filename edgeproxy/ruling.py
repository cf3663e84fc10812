# The step of the pipeline that asks the rules: what they decide is carried out here, what they mean is in rules/.
"""`prepare` asks what can be asked while a plan is made; `Ruling` and `Answering` ask the rest and act, for each exchange.

A plan about which no rule can say anything has no ruling at all and stays direct: its exchanges do what they do without
rules.
"""

from __future__ import annotations

import logging
import random
from functools import partial
from typing import TYPE_CHECKING, Final

from edgeproxy import challenging
from edgeproxy.plan import NO_ROUTE_REASON
from edgeproxy.preview import hold
from edgeproxy.rules.body import HeldBody
from edgeproxy.rules.rule import Rule, RunError
from edgeproxy.rules.ruleset import Asking, Prepared, Ruleset, holds
from edgeproxy.rules.walk import Walk

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.gateway import Gateway
    from edgeproxy.message import Reply, Request
    from edgeproxy.observe.events import Events
    from edgeproxy.observe.metrics import WorkerStats
    from edgeproxy.plan import Plan
    from edgeproxy.rules.facts import Facts
    from edgeproxy.rules.walk import Decision

_log = logging.getLogger("edgeproxy")
_NONE: Final[frozenset[str]] = frozenset()
_REDIRECT: Final = 302
_PLANS: Final = 8  # kept for exchanges of one plan whose rules came to the same
_PREVIEW: Final = 64 * 1024  # bytes held for rules of a request without a route


class Ruling:
    """What the rules say about the exchanges of one plan.

    Attributes:
        decision: when it is the same for all of them, and the plan follows it; None when each has to be asked.
    """

    __slots__ = ("_plans", "_prepared", "_rules", "_stats", "decision")

    def __init__(self, rules: Ruleset, prepared: Prepared, stats: WorkerStats) -> None:
        self._rules = rules
        self._prepared = prepared
        self._stats = stats
        self._plans: dict[tuple[Rule, ...], Plan] = {}  # of exchanges that had the same hits, and were not rewritten
        self.decision = prepared.decision

    def apply(self, exchange: Exchange) -> bool:
        """Asks, and does what the rules say. True when the exchange needs nobody else: it has its answer, or waits for its
        body and will be gone on with."""
        for rule, error in self._prepared.failed:
            self._broken(rule, error)
        decision = self.decision
        if decision is not None:
            return self._carry_out(exchange, decision, None)
        asking = Asking(self._rules, self._prepared, _facts(exchange), random.random, self._broken)  # no secret is drawn
        if exchange.gateway.events is not None:
            asking.walk.saw = []
        asking.walk.cleared = lambda rule: challenging.passes(exchange, rule.model.action)
        return self._ask(exchange, asking)

    def _ask(self, exchange: Exchange, asking: Asking) -> bool:
        if asking.go():
            return self._settle(exchange, asking)
        self._hold(exchange, asking)
        return True

    def _settle(self, exchange: Exchange, asking: Asking) -> bool:
        decision = asking.walk.decision()
        if decision.hits:
            self._follow(exchange, decision, asking.facts)
        return self._carry_out(exchange, decision, asking.walk.saw)

    def _follow(self, exchange: Exchange, decision: Decision, facts: Facts) -> None:
        """Other exchanges of this plan may have other hits: this one gets a plan of its own."""
        request = exchange.request
        plan = self._plans.get(decision.hits) if decision.request is request else None
        if plan is None:
            plan = exchange.plan.copy()
            follow(exchange.gateway, plan, decision, request, facts, self._rules)
            if decision.request is request and len(self._plans) < _PLANS and _shared(plan):
                plan.ruling = None  # it is through with it; and no plan shall hold the ruling that holds it
                self._plans[decision.hits] = plan
        exchange.plan = plan

    def _hold(self, exchange: Exchange, asking: Asking) -> None:
        """Wait for the body, within the bounds of the route that the request would take now."""
        plan, request = exchange.plan, asking.facts.request
        route = plan.route if request is exchange.request else plan.snapshot.router.find(request.authority, request.target)
        gateway, limit = exchange.gateway, plan.snapshot.client.max_body if route is None else route.max_body
        if gateway.exceeds(exchange, limit):
            self._settle(exchange, asking)  # what was hit before counts, and is in the log line
        if gateway.oversized(exchange, limit):
            return

        def held(content: bytes, truncated: bool) -> None:
            asking.facts.body = HeldBody(content, truncated)
            if not self._ask(exchange, asking):
                exchange.gateway.forward(exchange)

        hold(exchange, _PREVIEW if route is None else route.preview, held)

    def _carry_out(self, exchange: Exchange, decision: Decision, saw: list[tuple[Rule, Facts]] | None) -> bool:
        """Args: saw: see `Walk`; None: it is the same for all exchanges of the plan, and can be found out."""
        for rule in decision.hits:
            self._stats.rule_hit(rule.id, rule.label)
        final, gateway = decision.final, exchange.gateway
        if gateway.events is not None and decision.hits:
            for rule, facts in _seen(exchange, decision) if saw is None else saw:
                gateway.events.rule(exchange, rule, facts)
        if final is None:
            return False
        if final.challenges:
            return challenging.challenge(exchange, final.model.action)
        if decision.location is not None:
            gateway.redirect(exchange, final.model.status or _REDIRECT, decision.location)
        elif final.fault is None:
            return False  # allow
        elif final.body is None:
            gateway.fail(exchange, final.fault)
        else:
            gateway.refuse(exchange, final.fault, final.content_type, final.body)
        return True

    def _broken(self, rule: Rule, error: Exception) -> None:
        _broken(self._stats, rule, error)


class Answering:
    """The rules of the response phase that can hold for the exchanges of one plan."""

    __slots__ = ("_certain", "_plans", "_rules", "_stats")

    def __init__(self, rules: list[Rule], stats: WorkerStats) -> None:
        self._rules = rules
        self._stats = stats
        # What holds for every reply and has nothing to compute needs no facts.
        self._certain = all(
            rule.stable and not rule.sampled and (rule.changes is None or rule.changes.fixed is not None) for rule in rules
        )
        self._plans: dict[tuple[Rule, ...], Plan] = {}  # that name these rules in their log line

    def apply(self, exchange: Exchange, reply: Reply) -> None:
        """Asks, and changes the reply's headers. The edge's own are not among them yet."""
        events = exchange.gateway.events
        if self._certain:
            hits = self._rules
            if events is not None:
                facts = _facts(exchange)
                facts.reply = reply
                for rule in hits:  # they read nothing that one of them changes
                    events.rule(exchange, rule, facts)
            for rule in hits:
                changes = rule.changes
                if changes is not None and changes.fixed is not None and rule.acts:
                    removed = changes.removed
                    reply.headers = [line for line in reply.headers if line[0] not in removed] + changes.fixed
        else:
            hits = self._ask(exchange, reply, events)
        if not hits:
            return
        for rule in hits:
            self._stats.rule_hit(rule.id, rule.label)
        exchange.plan = self._named(exchange.plan, tuple(hits))

    def _ask(self, exchange: Exchange, reply: Reply, events: Events | None) -> list[Rule]:
        facts = _facts(exchange)
        original = reply.with_headers(reply.headers)
        facts.reply = reply
        hits: list[Rule] = []
        for rule in self._rules:
            if not holds(rule, facts, self._broken):
                continue
            if rule.sampled and random.random() >= rule.model.sample:  # noqa: S311  a share of replies is no secret
                continue
            hits.append(rule)
            if events is not None:
                events.rule(exchange, rule, facts)
            if rule.changes is not None and rule.acts:
                reply.headers, _ = rule.changes.headers(reply.headers, facts, partial(self._broken, rule))
                facts = facts.following(facts.request)
                facts.reply = reply
                facts.original_reply = original
        return hits

    def _named(self, plan: Plan, hits: tuple[Rule, ...]) -> Plan:
        """The plan with a log line that names these rules, too."""
        named = self._plans.get(hits)
        if named is None:
            named = plan.copy()
            named.note(tuple(rule.id for rule in hits), ())
            named.ruling = named.answering = None  # no plan shall hold what holds it
            if len(self._plans) < _PLANS and _shared(plan):
                self._plans[hits] = named
        return named

    def _broken(self, rule: Rule, error: Exception) -> None:
        _broken(self._stats, rule, error)


def prepare(gateway: Gateway, plan: Plan, request: Request, rules: Ruleset) -> None:
    """Asks about a head what can be asked: whether or not a route takes it, if it can be forwarded at all."""
    fault = plan.fault
    if plan.location is not None or (fault is not None and fault.reason != NO_ROUTE_REASON):
        return
    stats = gateway.stats
    facts = plan.facts(request, None)
    prepared = rules.prepare(facts)
    plan.learn(facts)
    decision = prepared.decision
    if decision is None:
        plan.answering = _answering(rules, facts, _NONE, stats)
        gateway.stages(plan, request, _NONE, _NONE)
        plan.ruling = Ruling(rules, prepared, stats)
        plan.direct = False
        return
    if not decision.hits and not prepared.failed:
        plan.answering = _answering(rules, facts, _NONE, stats)
        gateway.stages(plan, request, _NONE, _NONE)
        return
    if decision.hits or prepared.failed:
        plan.ruling = Ruling(rules, prepared, stats)
        facts = facts if decision.request is request else facts.following(decision.request)
    follow(gateway, plan, decision, request, facts, rules)
    if plan.ruling is not None:
        plan.direct = False


def follow(gateway: Gateway, plan: Plan, decision: Decision, request: Request, facts: Facts, rules: Ruleset) -> None:
    """Make a plan do what the rules decided, and its log line say so.

    Args:
        request: as it came.
        facts: of the request as it is forwarded.
    """
    plan.follow(decision, request, gateway.no_route)
    plan.answering = _answering(rules, facts, decision.left_out, gateway.stats)
    gateway.stages(plan, request, decision.stages, frozenset(decision.limits))


def _answering(rules: Ruleset, facts: Facts, left_out: frozenset[str], stats: WorkerStats) -> Answering | None:
    if not rules.responses.rules:
        return None
    found = rules.responses.candidates(facts, lambda rule, error: _broken(stats, rule, error))
    found = [rule for rule in found if rule.id not in left_out]
    return Answering(found, stats) if found else None


def _shared(plan: Plan) -> bool:
    """Whether other exchanges may have the plan: who sent a signed request says nothing of who sends it again."""
    return plan.scored is None or not plan.scored.signed


def _seen(exchange: Exchange, decision: Decision) -> list[tuple[Rule, Facts]]:
    """Each hit of a decision that was made with the plan, and what its rule saw: they are carried out once more, on paper."""
    request = exchange.request
    walk = Walk(request, _always, _silent)
    walk.saw = []
    walk.all(decision.hits, _facts(exchange).following(request))
    return walk.saw


def _always() -> float:
    return 0.0


def _silent(_rule: Rule, _error: Exception) -> None:
    """It was counted when the plan was made."""


def _facts(exchange: Exchange) -> Facts:
    return exchange.plan.facts(exchange.request, exchange.ray)


def _broken(stats: WorkerStats, rule: Rule, error: Exception) -> None:
    if rule.id not in stats.rule_errors:
        # Only our own words: others may quote the request, and requests carry secrets.
        reason = str(error) if isinstance(error, RunError) else type(error).__name__
        _log.warning("rule %s failed, and does nothing for such requests (said once): %s", rule.id, reason)
    stats.rule_error(rule.id)
