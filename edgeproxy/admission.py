# The step of the pipeline that takes what a request costs from its limits, and gives back what it did not use.
"""`Admitting` (one a plan) knows which limits a request is under; a `Ticket` (one an exchange) is what it asked for and got.

Everything that was taken is settled exactly once: by `Ticket.end`, which `Gateway.end` calls for every exchange however it
ends, or, when the client left while the store was asked, by the store's answer. Limits in mode `log` have a ticket
of their own, so that nobody is refused for them.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from edgeproxy.faults import edge_fault
from edgeproxy.policy.rates import rate_fields, retry_fields
from edgeproxy.preview import Preview
from edgeproxy.rules.facts import Facts
from edgeproxy.state.ports import Admission, Change, Charge, Kind
from edgeproxy.tokens import Asked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.chat.usage import Usage
    from edgeproxy.exchange import Exchange
    from edgeproxy.gateway import Gateway
    from edgeproxy.message import Headers, Reply, Request
    from edgeproxy.observe.metrics import WorkerStats
    from edgeproxy.plan import Plan
    from edgeproxy.policy.limits import CompiledLimit
    from edgeproxy.state.ports import Store

_log = logging.getLogger("edgeproxy")
_SECOND: Final = 1_000_000
_MAX_SCORE: Final = 1_000_000_000
_LEASES: Final = Kind.LEASES
Taken = tuple["CompiledLimit", Charge]


class Admitting:
    """The limits that the exchanges of one plan are under."""

    __slots__ = ("_asked", "_taken", "_tokens")

    def __init__(self, known: list[Taken], asked: list[CompiledLimit]) -> None:
        """Keep them.

        Args:
            known: limits whose charge is the same for every exchange of the plan.
            asked: limits about which each exchange has to be asked.
        """
        self._taken = known
        self._tokens = any(limit.counts == "tokens" for limit in (*asked, *(limit for limit, _ in known)))
        self._asked = asked

    def apply(self, exchange: Exchange) -> bool:
        """Ask for admission. True when the exchange needs nobody else: it was refused, or waits for its body or the store."""
        taken = self._taken
        if self._asked:
            found = _charges(self._asked, _facts(exchange.plan, exchange.request, exchange.ray), exchange.gateway.stats)
            taken = [*taken, *found]
        route = exchange.plan.route
        assert route is not None
        counted = [limit for limit, _ in taken if limit.counts == "tokens"] if self._tokens else []
        if not counted or route.dialect is None or exchange.request.length == 0:
            return self._ask(exchange, taken)
        dialect = route.dialect

        def held(content: bytes, truncated: bool) -> None:
            exchange.asked = asked = Asked(dialect, exchange, content, truncated)
            charged = [(limit, _reserved(limit, charge, asked)) for limit, charge in taken]
            if not truncated:
                asked.ask_for_usage(exchange, content, route)
            if not self._ask(exchange, charged):
                exchange.gateway.send_on(exchange)

        Preview(exchange, route.preview, held).begin()
        return True

    def _ask(self, exchange: Exchange, taken: Sequence[Taken]) -> bool:
        acting = [each for each in taken if each[0].acts]
        if len(acting) < len(taken):
            trying = [each for each in taken if not each[0].acts]
            exchange.tried = tried = Ticket(trying, exchange.ray[:-1] + b"~", acts=False)
            tried.ask(exchange)
        return bool(acting) and Ticket(acting, exchange.ray, acts=True).ask(exchange)


def _reserved(limit: CompiledLimit, charge: Charge, asked: Asked) -> Charge:
    """The charge of a request, when it is known what it asks for."""
    return charge._replace(cost=asked.reserve(limit.model.reserve)) if limit.counts == "tokens" else charge


class Ticket:
    """What one exchange asked for, and got.

    Attributes:
        admission: the store's answer; None while it is asked.
    """

    __slots__ = ("_acts", "_exchange", "_later", "_lease", "_replies", "_score", "_store", "_taken", "_usage", "admission")

    def __init__(self, taken: Sequence[Taken], lease: bytes, *, acts: bool) -> None:
        self._taken = taken
        self._lease = lease
        self._acts = acts
        self._exchange: Exchange | None = None
        self._store: Store
        self._later = False
        self._replies: set[int] | None = None  # places of limits that count replies, and count this one
        self._score = 0
        self._usage: Usage | None = None
        self.admission: Admission | None = None

    def ask(self, exchange: Exchange) -> bool:
        """Ask for admission. True when the exchange was refused, or waits for the answer."""
        self._exchange = exchange
        self._store = exchange.gateway.store
        self._store.admit([charge for _, charge in self._taken], self._lease, self._decided)
        admission = self.admission
        if admission is None:
            if self._acts:
                self._later = True
                exchange.attempt = self
            return True
        return not admission.allowed

    def _decided(self, admission: Admission) -> None:
        """The store's answer; also when nobody waits for it any more."""
        self.admission = admission
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        stats = exchange.gateway.stats
        self._count(admission, stats)
        if exchange.sink is None:
            if not self._acts:
                self.end(exchange)  # it did not wait for this answer, and may have been served
            elif admission.allowed:
                self._settle(stats, 0, unused=True)
            return
        if not self._acts:
            return
        if self._later:
            exchange.attempt = None
        if not admission.allowed:
            self._refuse(exchange, admission)
            return
        exchange.ticket = self
        if self._later:
            exchange.gateway.send_on(exchange)

    def _count(self, admission: Admission, stats: WorkerStats) -> None:
        if not admission.verdicts:
            for limit, _ in self._taken:
                stats.limit(limit.name, "unasked")
            return
        for (limit, _), verdict in zip(self._taken, admission.verdicts, strict=True):
            if admission.allowed:
                stats.limit(limit.name, "allowed")
            elif not verdict.allowed:
                stats.limit(limit.name, "limited")

    def _refuse(self, exchange: Exchange, admission: Admission) -> None:
        """The refusal names the limit that lets the client wait longest. For a place nobody waits until a lease expires."""
        gateway = exchange.gateway
        if not admission.verdicts:
            fault = edge_fault(503, "store_down", "The limits of this site cannot be checked now; try again shortly.")
            gateway.fail(exchange, fault)
            return
        limit, retry = self._taken[0][0], -1
        for (each, _), verdict in zip(self._taken, admission.verdicts, strict=True):
            if not verdict.allowed:
                wait = min(verdict.retry, _SECOND) if each.quota.kind is _LEASES else verdict.retry
                if wait > retry:
                    limit, retry = each, wait
        retry = max(retry, 1000)
        message = f"Over the limit '{limit.name}' ({limit.said}). Try again in {-(-retry // _SECOND)} s."
        fault = edge_fault(limit.model.status, "rate_limit_exceeded", message)
        fault.fields = [*retry_fields(retry), *self.fields(exchange)]
        fault.kind = limit.counts if limit.counts in ("requests", "tokens") else None
        if limit.budget:
            fault = edge_fault(429, "insufficient_quota", f"The budget of this API key is used up ({limit.said}).")
            fault.fields = [*retry_fields(retry)[:1], (b"x-should-retry", b"false"), *self.fields(exchange)]
            fault.kind = "insufficient_quota"
        if limit.body is None:
            gateway.fail(exchange, fault)
        else:
            gateway.refuse(exchange, fault, limit.content_type, limit.body)

    # -- while it goes on ----------------------------------------------------------------------------------------

    def fields(self, exchange: Exchange) -> Headers:
        """Where the client stands, as header fields."""
        admission = self.admission
        if admission is None or not admission.verdicts:
            return []
        route = exchange.plan.route
        states = [
            (limit.rate, verdict.remaining, verdict.reset)
            for (limit, _), verdict in zip(self._taken, admission.verdicts, strict=True)
        ]
        return rate_fields(states, None if route is None else route.dialect, time.time())

    def replied(self, exchange: Exchange, reply: Reply) -> None:
        """The reply's head is here: which limits it counts for, and the points it tells."""
        facts = None
        for place, (limit, _) in enumerate(self._taken):
            if limit.score is not None:
                self._score = _points(reply, limit.score)
            if limit.replies is None:
                continue
            if self._replies is None:
                self._replies = set()
            if facts is None:
                facts = _facts(exchange.plan, exchange.request, exchange.ray)
                facts.reply = reply
            try:
                if limit.replies(facts):
                    self._replies.add(place)
            except Exception as e:
                _broken(limit, e, exchange.gateway.stats)

    def end(self, exchange: Exchange) -> None:
        """The exchange is over, however it ended: correct what was taken."""
        admission = self.admission
        if admission is not None and admission.allowed:
            asked = exchange.asked
            self._usage = asked.usage(exchange.served_by is not None) if asked is not None else None
            self._settle(exchange.gateway.stats, exchange.body.received + exchange.sent, unused=False)

    def _settle(self, stats: WorkerStats, size: int, *, unused: bool) -> None:
        admission = self.admission
        assert admission is not None
        changes = []
        for place, (limit, charge) in enumerate(self._taken):
            quota = charge.quota
            if quota.kind is _LEASES:
                delta = -1
            elif unused:
                delta = -charge.cost
            else:
                delta = self._used(place, limit, charge, size) - charge.cost
            if not delta:
                continue
            stamp = admission.verdicts[place].stamp if admission.verdicts else 0
            changes.append(Change(quota, charge.key, delta, stamp))
            if quota.kind is not _LEASES:
                stats.limit(limit.name, "settled" if delta > 0 else "refunded", abs(delta))
        if changes:
            self._store.settle(changes, self._lease)

    def _used(self, place: int, limit: CompiledLimit, charge: Charge, size: int) -> int:
        """Units that the exchange came to."""
        if limit.replies is not None and (self._replies is None or place not in self._replies):
            return 0
        if limit.counts == "bytes":
            return size
        if limit.counts == "score":
            return self._score
        if limit.counts == "tokens":
            return self._usage.charged(charge.cost) if self._usage is not None else 0
        return max(charge.cost, 1)

    # -- Attempt, while it waits ---------------------------------------------------------------------------------

    def pause(self) -> None:
        """Nothing is read for the client yet."""

    def resume(self) -> None:
        """Nothing is read for the client yet."""

    def cancel(self) -> None:
        """The client left: what the store still grants is given back when it answers."""


def prepare(
    gateway: Gateway, plan: Plan, request: Request, limits: Sequence[CompiledLimit], named: frozenset[str]
) -> None:
    """Find the limits that the exchanges of a plan are under.

    Args:
        request: as it goes on.
        named: names of limits that a rule asked for.
    """
    facts, stats = _facts(plan, request, None), gateway.stats
    wanted = [limit for limit in limits if not limit.named or limit.name in named]
    known = _charges([limit for limit in wanted if limit.stable], facts, stats)
    asked = [limit for limit in wanted if not limit.stable]
    if known or asked:
        plan.limiting = Admitting(known, asked)
        plan.direct = False


def replied(exchange: Exchange, reply: Reply) -> None:
    """An upstream's reply head is here: it counts, and tells the client where it stands."""
    if exchange.asked is not None:
        exchange.asked.replied(reply)
    if exchange.tried is not None:
        exchange.tried.replied(exchange, reply)
    if exchange.ticket is not None:
        exchange.ticket.replied(exchange, reply)
        reply.headers += exchange.ticket.fields(exchange)


def _charges(limits: Sequence[CompiledLimit], facts: Facts, stats: WorkerStats) -> list[Taken]:
    found = []
    for limit in limits:
        try:
            key = limit.key(facts)
        except Exception as e:
            _broken(limit, e, stats)
            continue
        if key is not None:
            found.append((limit, limit.charge(key, 0)))
    return found


def _facts(plan: Plan, request: Request, ray: bytes | None) -> Facts:
    forward = plan.forward or request
    facts = Facts(forward, plan.host, plan.client, ray, time.time, plan.snapshot.context)
    facts.original = request
    if plan.keyed is not None:
        facts.key = plan.keyed.key
    return facts


def _broken(limit: CompiledLimit, error: Exception, stats: WorkerStats) -> None:
    if (limit.name, "failed") not in stats.limits:
        _log.warning("limit %s failed and is passed over for such requests (said once): %s", limit.name, type(error).__name__)
    stats.limit(limit.name, "failed")


def _points(reply: Reply, name: bytes) -> int:
    """What a reply says that it cost; 0 where it says nothing that is a number."""
    for key, value in reply.headers:
        if key == name and value.isdigit() and len(value) < 16:
            return min(int(value), _MAX_SCORE)
    return 0
