# Who sent the request, as far as it can be told on paper: there is no connection whose handshake could be looked at.
"""The stage of the bots' score and its policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.bots.behaviour import bounds
from edgeproxy.bots.score import AUTOMATED
from edgeproxy.bots.smoothing import DOWN, UP
from edgeproxy.botting import ACTION, BLOCKED, STAGE, spared
from edgeproxy.explaining.answer import Named, Outcome, Stage
from edgeproxy.explaining.carried import clearance, passes, session
from edgeproxy.explaining.own import answer_fault
from edgeproxy.watching import weights_of

if TYPE_CHECKING:
    from edgeproxy.bots.score import Score
    from edgeproxy.explaining.ways import Ways
    from edgeproxy.policy.bots import Policy


def bots(ways: Ways) -> Stage | None:
    """The score, its reasons, and what the policy makes of it."""
    plan, settings, decision = ways.plan, ways.snapshot.bots, ways.decision
    if ways.outcome is not None or settings is None or plan.scored is None or plan.route is None:
        return None
    score = plan.scored.current()
    keyed = plan.keyed is not None and plan.keyed.key is not None
    policy = settings.policies.get(plan.route.name, settings.policy)
    rows = [*_rows(score), *_unseen(ways, score, policy, keyed=keyed)]
    told = f"score {score.value} ({score.source})"
    if decision is not None and STAGE in decision.stages:
        return Stage("bots", "passes", f"{told}; a rule skips what would be done about it", rows)
    act = policy.verdict(score, keyed=keyed)
    if act != spared(act, score, ways.request):
        return Stage("bots", "passes", f"{told}: it would be {act}, but preflights are spared", rows)
    if not act or act == "log":
        return Stage("bots", "passes", f"{told}: {'told in an event' if act else 'nothing is done'}", rows)
    if not policy.acts:
        return Stage("bots", "passes", f"{told}: {act} on trial (mode: log)", rows)
    hits = [rule.id for rule in decision.hits] if decision is not None else []
    if act == "block":
        answer_fault(ways, BLOCKED, Outcome(f"the edge answers 403: {BLOCKED.message}", "bots", 403, hits=hits))
        return Stage("bots", "answers", f"403: {told}: block", rows)
    if act == "challenge" and (why := passes(ways, ACTION)):
        return Stage("bots", "passes", f"{told}: challenge, and {why}", rows)
    if act == "challenge":
        return Stage("bots", "waits", f"{told}: a challenge has to be passed first", rows)
    slow = policy.slow
    if slow is not None and slow.limits:
        ways.slowed = slow.limits
        rows.append(Named("limits", ", ".join(slow.limits)))
    if slow is not None and slow.upstream is not None:
        plan.choose(slow.upstream, ways.request)
        rows.append(Named("upstream", slow.upstream))
    if slow is not None and slow.priority == "low":
        rows.append(Named("priority", "low: others go first to the upstream"))
    return Stage("bots", "changes", f"{told}: it gets less", rows)


def _unseen(ways: Ways, score: Score, policy: Policy, *, keyed: bool) -> list[Named]:
    """What else an edge would know, and what it could come to."""
    rows: list[Named] = []
    prints, scored = ways.request.peer.prints, ways.plan.scored
    if scored is not None and scored.proxied:
        rows.append(Named("corporate proxy", "the handshake is its own, and counts for nothing (bots.corporate_proxies)"))
    elif prints is None or not prints.ja4:
        rows.append(Named("without", "a connection: what its handshake would say is not in it"))
    found = clearance(ways)
    if found.says:
        raised = score.with_evidence(0.0, passed=True).value if found.level is None and score.value > AUTOMATED else 0
        rows.append(Named("clearance", found.says + (f"; it could raise the score to {raised}" if raised else "")))
    carried = session(ways)
    if carried.says:
        rows.append(Named("session", carried.says))
    if score.value > AUTOMATED:  # else nothing moves it
        behaviour = ways.snapshot.config.bots.behaviour
        worst_odds, best_odds = bounds(weights_of(behaviour), session=carried.may)
        if carried.may and behaviour.enabled and behaviour.smooth:
            worst_odds, best_odds = worst_odds - DOWN, best_odds + UP
        odds = worst_odds, best_odds
        worst, best = [f"{each.value} ({_done(ways, each, policy, keyed=keyed)})" for each in _moved(score, odds)]
        if worst != best:
            rows.append(Named("behaviour", f"not known: it could bring the score down to {worst}, or up to {best}"))
    return rows


def _done(ways: Ways, score: Score, policy: Policy, *, keyed: bool) -> str:
    """What would be done about a score."""
    act = spared(policy.verdict(score, keyed=keyed), score, ways.request)
    return "nothing" if not act or (act == "challenge" and policy.acts and passes(ways, ACTION)) else act


def _moved(score: Score, odds: tuple[float, float]) -> list[Score]:
    """The score at worst and at best."""
    made = [score.with_evidence(each) for each in odds]
    for each in made:
        each.passed = score.passed
    return made


def _rows(score: Score) -> list[Named]:
    rows = [Named(f"{each.id} {each.name}", each.reason) for each in score.detections]
    identity = score.identity
    if identity is not None and identity.bot is not None:
        rows.append(Named("verified bot", f"{identity.bot.name} ({identity.bot.category}), by {identity.how}"))
    elif identity is not None and identity.claimed is not None:
        what = "not known yet" if identity.pending else "refuted" if identity.failed else "not verified"
        rows.append(Named("claims to be", f"{identity.claimed.name}: {what}"))
    if identity is not None and identity.refusal:
        rows.append(Named("signature", f"proves nothing: {identity.refusal}"))
    if score.chance is not None:
        rows.append(Named("model", f"a person's with a chance of {score.chance:.0%}"))
    return rows
