# The step of the pipeline that asks the rules: what they decide is carried out here, what they mean is in rules/.
"""`prepare` asks the stable rules while a plan is made; `Ruling.apply` asks the others and acts, for each exchange.

A plan whose rules are all stable and none of which matched has no ruling at all and stays direct: its exchanges do what
they do without rules.
"""

from __future__ import annotations

import copy
import logging
import random
import re
import time
from typing import TYPE_CHECKING, Final

from edgeproxy.observe.access import with_rules
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.ruleset import Decision, Rule, Ruleset, decide

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.message import Request
    from edgeproxy.observe.metrics import WorkerStats
    from edgeproxy.plan import Plan

_log = logging.getLogger("edgeproxy")
# What a Location may not have as it is: controls, blanks, and what is not ASCII (RFC 9110 §5.5, RFC 3986 §2).
_UNSAFE: Final = re.compile(rb"[^\x21-\x7e]")
_REDIRECT: Final = 302


class Ruling:
    """What the rules say about the exchanges of one plan.

    Attributes:
        decision: when it is the same for all of them; None when they have to be asked one by one.
    """

    __slots__ = ("_rules", "_stable", "_stats", "decision")

    def __init__(self, rules: Ruleset, stable: list[Rule], stats: WorkerStats) -> None:
        self._rules = rules
        self._stable = stable
        self._stats = stats
        settled = not rules.volatile and not any(rule.sampled for rule in stable)
        self.decision: Decision | None = decide(stable, random.random) if settled else None

    def apply(self, exchange: Exchange) -> bool:
        """Counts the rules that match and does what they say. True when the exchange has its answer."""
        decision = self.decision
        if decision is None:
            decision = self._ask(exchange)
            if decision.hits:
                # Other exchanges of this plan may have other hits: this one gets a plan of its own, for its log line.
                exchange.plan = named(copy.copy(exchange.plan), decision)
        for rule in decision.hits:
            self._stats.rule_hit(rule.id, rule.label)
        return decision.final is not None and self._act(exchange, decision.final)

    def _ask(self, exchange: Exchange) -> Decision:
        facts = _facts(exchange)
        found = self._rules.match(facts, self._stable, self._broken)
        return decide(found, random.random)  # a share of requests is no secret

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


def prepare(plan: Plan, request: Request, rules: Ruleset, stats: WorkerStats) -> None:
    """Asks the stable rules about a head that has a route."""
    if plan.route is None or plan.fault is not None:
        return
    facts = Facts(request, plan.host, plan.client, None, time.time)
    stable = rules.stable(facts, lambda rule, error: _broken(stats, rule, error))
    if not stable and not rules.volatile:
        return
    plan.ruling = Ruling(rules, stable, stats)
    plan.direct = False
    decision = plan.ruling.decision
    if decision is not None:
        named(plan, decision)


def named(plan: Plan, decision: Decision) -> Plan:
    """The plan, its log line naming the rules that were hit."""
    if decision.hits:
        plan.log = with_rules(plan.log, tuple(rule.id for rule in decision.hits))
    return plan


def _facts(exchange: Exchange) -> Facts:
    plan = exchange.plan
    return Facts(exchange.request, plan.host, plan.client, exchange.ray, time.time)


def _broken(stats: WorkerStats, rule: Rule, error: Exception) -> None:
    if rule.id not in stats.rule_errors:
        _log.warning("rule %s failed and counts as not matching: %r", rule.id, error)
    stats.rule_error(rule.id)
