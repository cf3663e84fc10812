# The step of the pipeline that knows which limits a request is under, and when it can ask them; what it gets is ticket.py's.
"""`Admitting` (one a plan) makes the tickets of exchanges: one for all limits that act, and one for each that is on trial."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from edgeproxy.chat.asking import spoken
from edgeproxy.policy.limits import Together
from edgeproxy.preview import hold
from edgeproxy.state.ports import Charge
from edgeproxy.ticket import Ticket, broken
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

_KNOWN: Final = 64  # sets of limits that a plan keeps
_new: Final = tuple.__new__  # a NamedTuple's own constructor is a Python function and takes twice as long
Limits = tuple["CompiledLimit", ...]
Charges = list[Charge]
Limited = tuple[Limits, Charges, Limits, Charges]


class Admitting:
    """The limits that the exchanges of one plan are under.

    Limits and what they are charged come in pairs of equal length: those that act, and those that are on trial.
    """

    __slots__ = ("_acting", "_asked", "_charges", "_later", "_sets", "_simple", "_tokens", "_tried", "_trying")

    def __init__(self, known: Limits, charges: Charges, asked: Limits, later: Limits) -> None:
        """Keep them.

        Args:
            known: limits whose charge is the same for every exchange of the plan; `charges`: those.
            asked: limits about which each exchange has to be asked; later: those that have to know its body.
        """
        self._acting, self._charges = _of(known, charges, acts=True)
        self._trying, self._tried = _of(known, charges, acts=False)
        self._asked = asked
        self._later = later
        self._tokens = any(limit.counts == "tokens" for limit in (*asked, *later, *known))
        self._sets: dict[Limits, Together] = {}
        self._simple = self._together(self._acting) if not (asked or later or self._trying or self._tokens) else None

    def apply(self, exchange: Exchange) -> bool:
        """Ask for admission. True when the exchange needs nobody else: it was refused, or waits for its body or the store."""
        if self._simple is not None:
            return Ticket(self._simple, self._charges, exchange.ray, exchange.gateway.send_on).ask(exchange)
        acting, charges, trying, tried = self._acting, self._charges, self._trying, self._tried
        empty = exchange.request.length == 0
        limits = (*self._asked, *self._later) if empty else self._asked
        if limits:
            facts = exchange.plan.facts(exchange.request, exchange.ray)
            found, more = _charged(limits, facts, exchange.gateway.stats)
            if not acting and not trying and all(limit.acts for limit in found):
                acting, charges = found, more
            else:
                known, all_charges = (*acting, *trying, *found), [*charges, *tried, *more]
                acting, charges = _of(known, all_charges, acts=True)
                trying, tried = _of(known, all_charges, acts=False)
        if not self._tokens and (empty or not self._later):
            return self._ask(exchange, acting, charges, trying, tried)
        if empty:
            # Nothing is asked of a model: what is used up refuses those who do.
            return self._ask(exchange, *_without_tokens(acting, charges), *_without_tokens(trying, tried))
        return self._read(exchange, acting, charges, trying, tried)

    def _read(self, exchange: Exchange, acting: Limits, charges: Charges, trying: Limits, tried: Charges) -> bool:
        """Tokens are counted, or limits are of models: what does the request ask for?"""
        route = exchange.plan.route
        assert route is not None
        assert route.dialect is not None, "prepare leaves limits of tokens out where there is none"
        dialect = spoken(route.dialect, (exchange.plan.forward or exchange.request).target)
        if not self._later and (not acting or not self._together(acting).tokens):
            # On trial alone: nobody waits for a body, and no request is changed.
            exchange.asked = Asked(dialect, exchange, b"", True, 0)
            return self._ask(exchange, acting, charges, trying, tried)

        def held(content: bytes, truncated: bool) -> None:
            asked = Asked(dialect, exchange, content, truncated, route.preview)
            if self._later:
                limited = self._of_body(exchange, asked, (*acting, *trying), [*charges, *tried])
            else:
                limited = acting, charges, trying, tried
            if not self._go_on(exchange, asked, content, truncated, limited):
                exchange.gateway.send_on(exchange)

        hold(exchange, route.preview, held)
        return True

    def _of_body(self, exchange: Exchange, asked: Asked, limits: Limits, charges: Charges) -> Limited:
        """With those limits that had to know the body: acting ones, their charges, those on trial, their charges."""
        facts = exchange.plan.facts(exchange.request, exchange.ray)
        model = asked.ask.model if asked.ask is not None else None
        facts.edge_model = model.encode("utf-8", "surrogatepass") if model is not None else None
        found, more = _charged(self._later, facts, exchange.gateway.stats)
        limits, charges = (*limits, *found), [*charges, *more]
        return *_of(limits, charges, acts=True), *_of(limits, charges, acts=False)

    def _go_on(self, exchange: Exchange, asked: Asked, content: bytes, truncated: bool, limited: Limited) -> bool:
        """The request is known: True when it needs nobody else."""
        acting, charges, trying, tried = limited
        tokens = bool(acting) and self._together(acting).tokens
        if tokens or any(limit.counts == "tokens" for limit in trying):
            exchange.asked = asked
            charges, tried = _reserved(acting, charges, asked), _reserved(trying, tried, asked)
            route = exchange.plan.route
            if tokens and not truncated and route is not None:
                asked.ask_for_usage(exchange, content, route)
        return self._ask(exchange, acting, charges, trying, tried)

    def _ask(self, exchange: Exchange, acting: Limits, charges: Charges, trying: Limits, tried: Charges) -> bool:
        if not trying:
            send_on = exchange.gateway.send_on
            return bool(acting) and Ticket(self._together(acting), charges, exchange.ray, send_on).ask(exchange)
        if acting:
            go_on = partial(self._try_on, trying, tried)
            if Ticket(self._together(acting), charges, exchange.ray, go_on).ask(exchange):
                return True
        self._try(trying, tried, exchange)
        return False

    def _try_on(self, trying: Limits, tried: Charges, exchange: Exchange) -> None:
        self._try(trying, tried, exchange)
        exchange.gateway.send_on(exchange)

    def _try(self, trying: Limits, tried: Charges, exchange: Exchange) -> None:
        """Limits on trial: each by itself, so that one that would refuse hides no other, and only of who is let through."""
        tickets = []
        for number, (limit, charge) in enumerate(zip(trying, tried, strict=True)):
            tickets.append(Ticket(self._together((limit,)), [charge], exchange.ray[:-2] + b"~%c" % number, None))
        exchange.tried = tuple(tickets)
        for ticket in tickets:
            ticket.ask(exchange)

    def _together(self, limits: Limits) -> Together:
        """What follows from which limits these are. There is at least one, unless nobody is asked."""
        made = self._sets.get(limits)
        if made is None:
            if len(self._sets) >= _KNOWN:
                self._sets.clear()
            made = self._sets[limits] = Together(limits)
        return made


def _of(limits: Limits, charges: Charges, *, acts: bool) -> tuple[Limits, Charges]:
    """Those that act, or those that do not."""
    places = [place for place, limit in enumerate(limits) if limit.acts is acts]
    return tuple([limits[place] for place in places]), [charges[place] for place in places]


def _without_tokens(limits: Limits, charges: Charges) -> tuple[Limits, Charges]:
    places = [place for place, limit in enumerate(limits) if limit.counts != "tokens"]
    if len(places) == len(limits):
        return limits, charges
    return tuple([limits[place] for place in places]), [charges[place] for place in places]


def _reserved(limits: Limits, charges: Charges, asked: Asked) -> Charges:
    """The charges of a request, when it is known what it asks for."""
    return [
        _new(Charge, (charge[0], charge[1], asked.reserve(limit.reserve))) if limit.counts == "tokens" else charge
        for limit, charge in zip(limits, charges, strict=True)
    ]


def _charged(limits: Sequence[CompiledLimit], facts: Facts, stats: WorkerStats) -> tuple[Limits, Charges]:
    """Which of these limits a request is under, and what it takes of each."""
    found, charges = [], []
    for limit in limits:
        try:
            key = limit.key(facts)
        except Exception as e:
            broken(limit, e, stats)
            continue
        if key is not None:
            found.append(limit)
            charges.append(limit.charge(key, 0))
    return tuple(found), charges


def prepare(gateway: Gateway, plan: Plan, request: Request, limits: Sequence[CompiledLimit], named: frozenset[str]) -> None:
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
    known, charges = _charged([limit for limit in wanted if limit.stable], facts, stats)
    # Where there is no dialect nobody knows what a body says: it is not waited for.
    later = tuple([limit for limit in wanted if limit.of_body and chat])
    asked = tuple([limit for limit in wanted if not limit.stable and limit not in later])
    if known or asked or later:
        plan.limiting = Admitting(known, charges, asked, later)
        plan.direct = False


def measure(exchange: Exchange, reply: Reply) -> None:
    """An upstream's reply head is here, as it came: limits and meters read it before rules change it."""
    if exchange.asked is not None:
        exchange.asked.replied(reply)
    ticket = exchange.ticket
    if ticket is not None and ticket.together.reads:
        ticket.measure(exchange, reply)
    for tried in exchange.tried:
        tried.measure(exchange, reply)


def tell(exchange: Exchange, reply: Reply) -> None:
    """Put into a reply where its client stands; an upstream's own word on the same is replaced."""
    ticket = exchange.ticket
    if ticket is None:
        return
    fields = ticket.fields(exchange)
    if fields:
        names, headers = dict(fields), reply.headers
        if not names.keys().isdisjoint([name for name, _ in headers]):
            headers = [line for line in headers if line[0] not in names]
        reply.headers = headers + fields
