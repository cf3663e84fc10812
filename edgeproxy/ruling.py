# The step of the pipeline that asks the rules: what they decide is carried out here, what they mean is in rules/.
"""`prepare` asks what can be asked while a plan is made; `Ruling` and `Answering` ask the rest and act, for each exchange.

A plan about which no rule can say anything has no ruling at all and stays direct: its exchanges do what they do without
rules.
"""

from __future__ import annotations

import logging
import random
import re
import time
from typing import TYPE_CHECKING, Final

from edgeproxy.observe.access import with_rules
from edgeproxy.plan import NO_ROUTE_REASON
from edgeproxy.preview import Preview
from edgeproxy.rules.body import HeldBody
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.rule import Rule
from edgeproxy.rules.ruleset import Asking, Prepared, Ruleset, holds

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.gateway import Gateway
    from edgeproxy.message import Reply, Request
    from edgeproxy.observe.metrics import WorkerStats
    from edgeproxy.plan import Plan
    from edgeproxy.rules.walk import Decision

_log = logging.getLogger("edgeproxy")
# What a Location may not have as it is: controls, blanks, and what is not ASCII (RFC 9110 §5.5, RFC 3986 §2).
_UNSAFE: Final = re.compile(rb"[^\x21-\x7e]")
_REDIRECT: Final = 302
_PREVIEW: Final = 64 * 1024  # bytes held for rules of a request without a route


class Ruling:
    """What the rules say about the exchanges of one plan.

    Attributes:
        decision: when it is the same for all of them, and the plan follows it; None when each has to be asked.
    """

    __slots__ = ("_prepared", "_rules", "_stats", "decision")

    def __init__(self, rules: Ruleset, prepared: Prepared, stats: WorkerStats) -> None:
        self._rules = rules
        self._prepared = prepared
        self._stats = stats
        self.decision = prepared.decision

    def apply(self, exchange: Exchange) -> bool:
        """Asks, and does what the rules say. True when the exchange needs nobody else: it has its answer, or waits for its
        body and will be gone on with."""
        decision = self.decision
        if decision is not None:
            return self._carry_out(exchange, decision)
        asking = Asking(self._rules, self._prepared, _facts(exchange), random.random, self._broken)  # no secret is drawn
        return self._ask(exchange, asking)

    def _ask(self, exchange: Exchange, asking: Asking) -> bool:
        if asking.go():
            decision = asking.walk.decision()
            if decision.hits:
                # Other exchanges of this plan may have other hits: this one gets a plan of its own.
                exchange.plan = plan = exchange.plan.copy()
                follow(exchange.gateway, plan, decision, exchange.request, asking.facts, self._rules)
            return self._carry_out(exchange, decision)
        route = exchange.plan.route
        if route is not None and exchange.gateway.oversized(exchange, route):
            return True

        def held(content: bytes, truncated: bool) -> None:
            asking.facts.body = HeldBody(content, truncated)
            if not self._ask(exchange, asking):
                exchange.gateway.forward(exchange)

        Preview(exchange, _PREVIEW if route is None else route.preview, held).begin()
        return True

    def _carry_out(self, exchange: Exchange, decision: Decision) -> bool:
        for rule in decision.hits:
            self._stats.rule_hit(rule.id, rule.label)
        final = decision.final
        return final is not None and self._act(exchange, final)

    def _act(self, exchange: Exchange, rule: Rule) -> bool:
        gateway, fault = exchange.gateway, rule.fault
        if fault is not None:
            if rule.body is None:
                gateway.fail(exchange, fault)
            else:
                gateway.refuse(exchange, fault, rule.content_type, rule.body)
            return True
        if rule.location is None:
            return False  # allow
        location = self._location(exchange, rule)
        if location is None:
            return False
        gateway.redirect(exchange, rule.model.status or _REDIRECT, location)
        return True

    def _location(self, exchange: Exchange, rule: Rule) -> bytes | None:
        """Where a redirect leads; None, counted, when its expression has no value for this request."""
        assert rule.location is not None
        facts = _facts(exchange)
        try:
            location = rule.location(facts)
            query = facts.http_request_uri_query
        except Exception as e:
            self._broken(rule, e)
            return None
        if not location:
            self._stats.rule_error(rule.id)
            return None
        if rule.model.preserve_query and query:
            location += (b"&" if b"?" in location else b"?") + query
        return _UNSAFE.sub(lambda found: b"%%%02X" % found[0][0], location)

    def _broken(self, rule: Rule, error: Exception) -> None:
        _broken(self._stats, rule, error)


class Answering:
    """The rules of the response phase that can hold for the exchanges of one plan."""

    __slots__ = ("_rules", "_stats")

    def __init__(self, rules: list[Rule], stats: WorkerStats) -> None:
        self._rules = rules
        self._stats = stats

    def apply(self, exchange: Exchange, reply: Reply) -> None:
        """Asks, and changes the reply's headers. The edge's own are not among them yet."""
        facts = _facts(exchange)
        original = reply.headers.copy()
        facts.reply = reply
        hits: list[str] = []
        for rule in self._rules:
            if not holds(rule, facts, self._broken):
                continue
            if rule.sampled and random.random() >= rule.model.sample:  # noqa: S311  a share of replies is no secret
                continue
            if rule.changes is not None and rule.acts:
                try:
                    reply.headers, _ = rule.changes.headers(reply.headers, facts)
                except Exception as e:
                    self._broken(rule, e)
                    continue
                facts = facts.following(facts.request)
                facts.reply = reply
                facts.original_reply = reply.with_headers(original)
            self._stats.rule_hit(rule.id, rule.label)
            hits.append(rule.id)
        if hits:
            exchange.plan = plan = exchange.plan.copy()
            plan.log = with_rules(plan.log, tuple(hits))

    def _broken(self, rule: Rule, error: Exception) -> None:
        _broken(self._stats, rule, error)


def prepare(gateway: Gateway, plan: Plan, request: Request, rules: Ruleset) -> None:
    """Asks about a head what can be asked: whether or not a route takes it, if it can be forwarded at all."""
    fault = plan.fault
    if plan.location is not None or (fault is not None and fault.reason != NO_ROUTE_REASON):
        return
    stats = gateway.stats
    facts = Facts(request, plan.host, plan.client, None, time.time, plan.snapshot.context)
    prepared = rules.prepare(facts, lambda rule, error: _broken(stats, rule, error))
    decision = prepared.decision
    if decision is None:
        plan.answering = _answering(rules, facts, frozenset(), stats)
        plan.ruling = Ruling(rules, prepared, stats)
        plan.direct = False
        return
    if decision.hits:
        plan.ruling = Ruling(rules, prepared, stats)
        facts = facts if decision.request is request else facts.following(decision.request)
    follow(gateway, plan, decision, request, facts, rules)
    if plan.ruling is not None:
        plan.direct = False


def follow(
    gateway: Gateway, plan: Plan, decision: Decision, request: Request, facts: Facts, rules: Ruleset
) -> None:
    """Make a plan do what the rules decided, and its log line say so.

    Args:
        request: as it came.
        facts: of the request as it is forwarded.
    """
    if decision.hits:
        plan.log = with_rules(plan.log, tuple(rule.id for rule in decision.hits), decision.tags)
    plan.follow(decision, request, gateway.no_route)
    plan.answering = _answering(rules, facts, decision.left_out, gateway.stats)


def _answering(rules: Ruleset, facts: Facts, left_out: frozenset[str], stats: WorkerStats) -> Answering | None:
    if not rules.responses.rules:
        return None
    found = rules.responses.candidates(facts, lambda rule, error: _broken(stats, rule, error))
    found = [rule for rule in found if rule.id not in left_out]
    return Answering(found, stats) if found else None


def _facts(exchange: Exchange) -> Facts:
    plan, request = exchange.plan, exchange.request
    facts = Facts(plan.forward or request, plan.host, plan.client, exchange.ray, time.time, plan.snapshot.context)
    facts.original = request
    return facts


def _broken(stats: WorkerStats, rule: Rule, error: Exception) -> None:
    if rule.id not in stats.rule_errors:
        _log.warning("rule %s failed and counts as not matching: %r", rule.id, error)
    stats.rule_error(rule.id)
