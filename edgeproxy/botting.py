# The step of the pipeline that knows scores: one a plan, asked when a rule, a limit or the policy first wants to know.
"""`BotSettings` (one a snapshot) scores; `Scored` (one a plan) keeps what stays the same for its head; `apply` carries the
policy out. What a score is made of is bots/'s business, what it means policy/bots.py's.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from edgeproxy.bots.score import NOT_COMPUTED, Score, Scorer
from edgeproxy.faults import client_fault, edge_fault
from edgeproxy.observe.access import with_score
from edgeproxy.observe.bot_stats import BotStats
from edgeproxy.policy.bots import Act, Policy

if TYPE_CHECKING:
    from edgeproxy.bots.score import Model
    from edgeproxy.config.model import Config
    from edgeproxy.exchange import Exchange
    from edgeproxy.message import Request
    from edgeproxy.plan import Plan

STAGE: Final = "bots"
_log = logging.getLogger("edgeproxy")
_BLOCKED: Final = client_fault(403, "bot_block", "This request was taken for an automated one, which this site refuses.")
_CHALLENGED: Final = edge_fault(403, "bot_challenge", "This request has to pass a challenge; this server cannot show one yet.")


class BotSettings:
    """What scoring needs, compiled for a snapshot.

    Attributes:
        policies: by route's name.
        stats: where failures are counted; a worker's, bound when it switches to the snapshot.
    """

    __slots__ = ("policies", "policy", "scorer", "stats")

    def __init__(self, config: Config, model: Model | None) -> None:
        self.stats = BotStats()
        self.scorer = Scorer(model, self._broken)
        self.policy = Policy(config.bots)
        self.policies = {route.host + route.path: Policy(config.bots, route.bots) for route in config.routes}

    def _broken(self, error: Exception) -> None:
        if not self.stats.failures:
            _log.error("A bot score could not be computed (told once; see edgeproxy_bot_failures_total).", exc_info=error)
        self.stats.failures += 1


class Scored:
    """The score of a plan's head."""

    __slots__ = ("_lines", "_request", "_settings", "_static", "client")

    def __init__(self, settings: BotSettings, request: Request, client: str) -> None:
        """Nothing is computed yet.

        Args:
            client: textual address.
        """
        self._settings = settings
        self._request = request
        self._static: Score | None = None
        self._lines: dict[int, tuple[bytes, bytes]] = {}
        self.client = client

    def current(self) -> Score:
        """The score as it is now."""
        static = self._static
        if static is None:
            static = self._settings.scorer.score(self._request)
            identity = static.identity
            if static is not NOT_COMPUTED and (identity is None or not identity.pending):
                self._static = static  # else it may be another one the next time
        return static

    def line(self, static: bytes, score: Score | None) -> bytes:
        """The end of a log line with the score in it; made once for each value."""
        if score is None:
            return static
        known = self._lines.get(score.value)
        if known is None or known[0] is not static:
            prints = self._request.peer.prints
            made = with_score(static, score.value, score.ids, prints.ja4 if prints is not None else "")
            self._lines[score.value] = known = (static, made)
        return known[1]


class Botting:
    """The policy for the exchanges of one plan."""

    __slots__ = ("_keyed", "_policy", "_slowed")

    def __init__(self, policy: Policy, *, keyed: bool) -> None:
        self._policy = policy
        self._keyed = keyed
        self._slowed: Plan | None = None

    def apply(self, exchange: Exchange) -> bool:
        """Carry it out. True when the exchange needs nobody else."""
        score = score_of(exchange)
        act = self._policy.verdict(score, keyed=self._keyed) if score is not None else ""
        if not act or score is None:
            return False
        gateway, acts = exchange.gateway, self._policy.acts or act == "log"
        gateway.stats.bots.act(act, acts=acts)
        if gateway.events is not None:
            gateway.events.bot(exchange, score, act, acts=acts)
        return acts and self._act(exchange, act)

    def _act(self, exchange: Exchange, act: Act) -> bool:
        if act == "block":
            exchange.gateway.fail(exchange, _BLOCKED)
            return True
        if act == "challenge":
            exchange.gateway.fail(exchange, _CHALLENGED)
            return True
        if act == "slow":
            self._slow(exchange)
        return False

    def _slow(self, exchange: Exchange) -> None:
        """Other limits and another upstream: a plan of its own, made once."""
        slow, plan = self._policy.slow, exchange.plan
        assert slow is not None
        slowed = self._slowed
        if slowed is None:
            slowed = plan.copy()
            slowed.botting = None
            if slow.limits:
                exchange.gateway.limit(slowed, exchange.request, frozenset(), frozenset(slow.limits))
            if slow.upstream is not None and slowed.route is not None:
                slowed.choose(slow.upstream, exchange.request)
            self._slowed = slowed
        exchange.plan = slowed


def score_of(exchange: Exchange) -> Score | None:
    """The score of an exchange, computed when it is first asked for; None where nobody scores."""
    if exchange.score is None and exchange.plan.scored is not None:
        exchange.score = exchange.plan.scored.current()
    return exchange.score


def prepare(plan: Plan, skipped: frozenset[str]) -> None:
    """Find the policy of a plan that goes on, unless rules skip it."""
    settings = plan.snapshot.bots
    plan.botting = None
    if settings is None or STAGE in skipped or plan.route is None:
        return
    policy = settings.policies.get(plan.route.name, settings.policy)
    if not policy.idle:
        plan.botting = Botting(policy, keyed=plan.keyed is not None and plan.keyed.key is not None)
