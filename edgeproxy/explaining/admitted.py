# What stands between the rules and the upstream: the key of the edge, and the limits. What was counted is not known on paper.
"""Stages of keys and limits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edgeproxy.explaining.answer import Named, Outcome, Stage
from edgeproxy.explaining.own import answer_fault
from edgeproxy.policy.keys import Key, refused
from edgeproxy.rules.body import HeldBody
from edgeproxy.rules.facts import Facts

if TYPE_CHECKING:
    from edgeproxy.explaining.ways import Ways
    from edgeproxy.policy.keys import KeyProblem
    from edgeproxy.policy.limits import CompiledLimit


def key(ways: Ways) -> Stage | None:
    """Whose key the request carries, and whether that is enough."""
    route, ring = ways.plan.route, ways.snapshot.keys
    length = ways.request.length
    if ways.outcome is not None or route is None or ring is None or (length is not None and length > route.max_body):
        return None
    if route.keys == "off":
        return Stage("key", "passes", f"route {route.name} does not ask for one")
    found = ring.identify(ways.request.headers, time.time())
    problem = refused(found, route.keys)
    if problem is None and isinstance(found, Key):
        prints = ways.request.peer.prints
        problem = found.over(time.time()) or found.elsewhere(ways.plan.client, prints.ja4 if prints is not None else None)
    if problem is not None:
        return _refused(ways, problem)
    if not isinstance(found, Key):
        return Stage("key", "passes", "none was sent, and none is needed")
    details = [Named("models", ", ".join(found.model.models))] if found.restricted else []
    return Stage("key", "passes", f"ep-{found.id} ({found.name})", details)


def _refused(ways: Ways, problem: KeyProblem) -> Stage:
    fault = problem.fault
    says = f"{fault.status}: {fault.message}"
    hits = [rule.id for rule in ways.decision.hits] if ways.decision is not None else []
    answer_fault(ways, fault, Outcome(f"the edge answers {says}", "key", fault.status, hits=hits))
    return Stage("key", "answers", says)


def limits(ways: Ways) -> Stage | None:
    """The limits that the request is under. Whether there is room is known to the edge that counts alone."""
    plan, snapshot = ways.plan, ways.snapshot
    if ways.outcome is not None or plan.route is None or not (snapshot.limits or snapshot.budgets):
        return None
    if skipped(ways):
        return Stage("limits", "passes", "a rule skips them")
    rows = []
    for limit, found in counted(ways, chat=plan.route.dialect is not None):
        if isinstance(found, Exception):
            rows.append(Named(limit.name, f"failed, and is passed over: {type(found).__name__}"))
        else:
            how = "" if limit.acts else " (mode: log)"
            if limit.of_body and ways.question.body is None and ways.request.length != 0:
                how += "; the body, which was not given, says whose it is"
            rows.append(Named(limit.name, f"{limit.said}, by {', '.join(limit.model.key)}{how}"))
    if not rows:
        return Stage("limits", "passes", "none is about this request")
    return Stage("limits", "passes", "asked all at once; with no room in one of them: 429", rows)


def skipped(ways: Ways) -> bool:
    """A rule skips the limits."""
    return ways.decision is not None and "limits" in ways.decision.stages


def counted(ways: Ways, *, chat: bool) -> list[tuple[CompiledLimit, bytes | Exception]]:
    """The limits that the request is under, each with the key that it is counted under there, or with what went wrong.

    Args:
        chat: tokens are counted there.
    """
    plan, snapshot, decision = ways.plan, ways.snapshot, ways.decision
    keyed = plan.keyed.key if plan.keyed is not None else None
    named = {*(decision.limits if decision is not None else ()), *(keyed.limits if keyed is not None else ()), *ways.slowed}
    facts = ways.facts or Facts(ways.request, plan.host, plan.client, None, ways.clock, snapshot.context)
    facts.key = keyed
    content = ways.question.body
    if content is not None and facts.body is None:
        facts.body = HeldBody(content, False)
    if plan.scored is not None:
        facts.scored = plan.scored
    rows: list[tuple[CompiledLimit, bytes | Exception]] = []
    for limit in (*snapshot.limits, *(snapshot.budgets.get(keyed.id, ()) if keyed is not None else ())):
        if (limit.named and limit.name not in named) or (limit.counts == "tokens" and not chat):
            continue
        try:
            found = limit.key(facts)
        except Exception as error:
            rows.append((limit, error))
            continue
        if found is not None:
            rows.append((limit, found))
    return rows
