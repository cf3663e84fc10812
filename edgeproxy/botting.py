# The step of the pipeline that does something about scores: policy/bots.py decides, this carries it out.
"""`Botting` (one a plan) is the policy for its exchanges; `prepare` finds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeproxy import challenging
from edgeproxy.bots.score import AUTOMATED
from edgeproxy.faults import client_fault
from edgeproxy.policy.bots import Act, Policy
from edgeproxy.policy.challenge_page import asks_first
from edgeproxy.scoring import score_of

if TYPE_CHECKING:
    from edgeproxy.bots.score import Score
    from edgeproxy.exchange import Exchange
    from edgeproxy.message import Request
    from edgeproxy.plan import Plan

STAGE: Final = "bots"
BLOCKED: Final = client_fault(403, "bot_block", "This request was taken for an automated one, which this site refuses.")
_STOPS: Final = frozenset({"block", "challenge"})
ACTION: Final = "managed_challenge"  # what a policy challenges with


def spared(act: Act, score: Score, request: Request) -> Act:
    """What is left of an act that would stop a request. A preflight says little of its browser: what it asks for is scored when
    it comes, and a challenge none could pass."""
    if act not in _STOPS or not asks_first(request):
        return act
    return "" if act == "challenge" or score.value > AUTOMATED else act


class Botting:
    """The policy for the exchanges of one plan."""

    __slots__ = ("_keyed", "_named", "_policy", "_skipped", "_slowed")

    def __init__(self, policy: Policy, skipped: frozenset[str], named: frozenset[str], *, keyed: bool) -> None:
        """Args: see `Gateway.stages`; `keyed`: with a valid key of the edge."""
        self._policy = policy
        self._skipped = skipped
        self._named = named
        self._keyed = keyed
        self._slowed: Plan | None = None

    def apply(self, exchange: Exchange) -> bool:
        """Carry it out. True when the exchange needs nobody else."""
        score = score_of(exchange)
        if score is None:
            return False
        act = spared(self._policy.verdict(score, keyed=self._keyed), score, exchange.request)
        if act == "challenge" and self._policy.acts and challenging.passes(exchange, ACTION):
            act = ""
        if not act:
            return False
        gateway, acts = exchange.gateway, self._policy.acts or act == "log"
        gateway.stats.bots.act(act, acts=acts)
        if gateway.events is not None:
            gateway.events.bot(exchange, score, act, acts=acts)
        return acts and self._act(exchange, act)

    def _act(self, exchange: Exchange, act: Act) -> bool:
        if act == "block":
            exchange.gateway.fail(exchange, BLOCKED)
            return True
        if act == "challenge":
            return challenging.challenge(exchange, ACTION)
        if act == "slow":
            self._slow(exchange)
        return False

    def _slow(self, exchange: Exchange) -> None:
        """Other limits, another upstream, others first: a plan of its own, made once."""
        slow, plan = self._policy.slow, exchange.plan
        assert slow is not None
        slowed = self._slowed
        if slowed is None:
            slowed = plan.copy()
            slowed.botting = None
            if slow.limits:
                exchange.gateway.limit(slowed, exchange.request, self._skipped, self._named | frozenset(slow.limits))
            if slow.upstream is not None and slowed.route is not None:
                slowed.choose(slow.upstream, exchange.request)
            slowed.low = slowed.low or slow.priority == "low"
            if slowed.scored is None or not slowed.scored.signed:  # else it is of this exchange alone
                self._slowed = slowed
        exchange.plan = slowed


def prepare(plan: Plan, skipped: frozenset[str], named: frozenset[str]) -> None:
    """Find the policy of a plan that goes on, unless rules skip it. Arguments are those of `Gateway.stages`."""
    settings = plan.snapshot.bots
    plan.botting = None
    if settings is None or STAGE in skipped or plan.route is None:
        return
    policy = settings.policies.get(plan.route.name, settings.policy)
    if not policy.idle:
        plan.botting = Botting(policy, skipped, named, keyed=plan.keyed is not None and plan.keyed.key is not None)
