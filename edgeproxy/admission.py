# The step of the pipeline that knows which limits a request is under, and when it can ask them; what it gets is ticket.py's.
"""`Admitting` (one a plan) makes the tickets of exchanges: one for all limits that act, and one for each that is on trial."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from edgeproxy.preview import Preview
from edgeproxy.ticket import Taken, Ticket, broken
from edgeproxy.tokens import Asked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.exchange import Exchange
    from edgeproxy.gateway import Gateway
    from edgeproxy.message import Reply, Request
    from edgeproxy.observe.metrics import WorkerStats
    from edgeproxy.plan import Plan
    from edgeproxy.policy.limits import CompiledLimit
    from edgeproxy.rules.facts import Facts
    from edgeproxy.state.ports import Charge


class Admitting:
    """The limits that the exchanges of one plan are under."""

    __slots__ = ("_acting", "_asked", "_bodiless", "_tokens", "_trying")

    def __init__(self, known: list[Taken], asked: list[CompiledLimit]) -> None:
        """Keep them.

        Args:
            known: limits whose charge is the same for every exchange of the plan.
            asked: limits about which each exchange has to be asked.
        """
        self._acting = [taken for taken in known if taken[0].acts]
        self._trying = [taken for taken in known if not taken[0].acts]
        self._bodiless = [taken for taken in self._acting if taken[0].counts != "tokens"]
        self._asked = asked
        self._tokens = any(limit.counts == "tokens" for limit in (*asked, *(limit for limit, _ in known)))

    def apply(self, exchange: Exchange) -> bool:
        """Ask for admission. True when the exchange needs nobody else: it was refused, or waits for its body or the store."""
        acting, trying = self._acting, self._trying
        if self._asked:
            facts = exchange.plan.facts(exchange.request, exchange.ray)
            found = _charges(self._asked, facts, exchange.gateway.stats)
            acting = [*acting, *(taken for taken in found if taken[0].acts)]
            trying = [*trying, *(taken for taken in found if not taken[0].acts)]
        if not self._tokens:
            return self._ask(exchange, acting, trying)
        if exchange.request.length == 0:
            # Nothing is asked of a model: what is used up refuses those who do.
            acting = [taken for taken in acting if taken[0].counts != "tokens"] if self._asked else self._bodiless
            return self._ask(exchange, acting, [taken for taken in trying if taken[0].counts != "tokens"])
        return self._read(exchange, acting, trying)

    def _read(self, exchange: Exchange, acting: list[Taken], trying: list[Taken]) -> bool:
        """Tokens are counted: what does the request ask for?"""
        route = exchange.plan.route
        assert route is not None
        dialect = route.dialect
        assert dialect is not None, "prepare leaves limits of tokens out where there is none"
        if not any(limit.counts == "tokens" for limit, _ in acting):
            # On trial alone: nobody waits for a body, and no request is changed.
            exchange.asked = Asked(dialect, exchange, b"", True)
            return self._ask(exchange, acting, trying)

        def held(content: bytes, truncated: bool) -> None:
            exchange.asked = asked = Asked(dialect, exchange, content, truncated)
            charged = [(limit, _reserved(limit, charge, asked)) for limit, charge in acting]
            tried = [(limit, _reserved(limit, charge, asked)) for limit, charge in trying]
            if not truncated:
                asked.ask_for_usage(exchange, content, route)
            if not self._ask(exchange, charged, tried):
                exchange.gateway.send_on(exchange)

        Preview(exchange, route.preview, held).begin()
        return True

    def _ask(self, exchange: Exchange, acting: list[Taken], trying: list[Taken]) -> bool:
        if not trying:
            return bool(acting) and Ticket(acting, exchange.ray, exchange.gateway.send_on).ask(exchange)
        if acting and Ticket(acting, exchange.ray, partial(_try_on, trying)).ask(exchange):
            return True
        _try(exchange, trying)
        return False


def _try_on(trying: list[Taken], exchange: Exchange) -> None:
    _try(exchange, trying)
    exchange.gateway.send_on(exchange)


def _try(exchange: Exchange, trying: list[Taken]) -> None:
    """Limits on trial: each by itself, so that one that would refuse hides no other, and only of who is let through."""
    tickets = []
    for number, taken in enumerate(trying):
        ticket = Ticket([taken], exchange.ray[:-2] + b"~%c" % number, None)
        tickets.append(ticket)
    exchange.tried = tuple(tickets)
    for ticket in tickets:
        ticket.ask(exchange)


def _reserved(limit: CompiledLimit, charge: Charge, asked: Asked) -> Charge:
    """The charge of a request, when it is known what it asks for."""
    return charge._replace(cost=asked.reserve(limit.model.reserve)) if limit.counts == "tokens" else charge


def prepare(
    gateway: Gateway, plan: Plan, request: Request, limits: Sequence[CompiledLimit], named: frozenset[str]
) -> None:
    """Find the limits that the exchanges of a plan are under.

    Args:
        request: as it goes on.
        named: names of limits that a rule or a key asked for.
    """
    facts, stats, route = plan.facts(request, None), gateway.stats, plan.route
    chat = route is not None and route.dialect is not None
    wanted = [
        limit for limit in limits
        if (not limit.named or limit.name in named) and (chat or limit.counts != "tokens")
    ]  # fmt: skip
    known = _charges([limit for limit in wanted if limit.stable], facts, stats)
    asked = [limit for limit in wanted if not limit.stable]
    if known or asked:
        plan.limiting = Admitting(known, asked)
        plan.direct = False


def measure(exchange: Exchange, reply: Reply) -> None:
    """An upstream's reply head is here, as it came: limits and meters read it before rules change it."""
    if exchange.asked is not None:
        exchange.asked.replied(reply)

    def facts() -> Facts:
        return exchange.plan.facts(exchange.request, exchange.ray)

    if exchange.ticket is not None:
        exchange.ticket.measure(exchange, reply, facts)
    for ticket in exchange.tried:
        ticket.measure(exchange, reply, facts)


def tell(exchange: Exchange, reply: Reply) -> None:
    """Put into a reply where its client stands; an upstream's own word on the same is replaced."""
    ticket = exchange.ticket
    if ticket is None:
        return
    fields = ticket.fields(exchange)
    if fields:
        names = {name for name, _ in fields}
        reply.headers = [line for line in reply.headers if line[0] not in names] + fields


def _charges(limits: Sequence[CompiledLimit], facts: Facts, stats: WorkerStats) -> list[Taken]:
    found = []
    for limit in limits:
        try:
            key = limit.key(facts)
        except Exception as e:
            broken(limit, e, stats)
            continue
        if key is not None:
            found.append((limit, limit.charge(key, 0)))
    return found
