# What one exchange asked of its limits and got, until it ends; which limits those are is admission.py's business.
"""`Ticket`: asks the store, refuses, tells the client where it stands, and settles exactly once.

Everything that was taken is settled by `end`, which `Gateway.end` calls for every exchange however it ends, or, when the
client left while the store was asked, by the store's answer.
"""

from __future__ import annotations

import logging
from itertools import islice
from typing import TYPE_CHECKING, Final

from edgeproxy.deadlines import INTERVAL, NEVER
from edgeproxy.faults import edge_fault
from edgeproxy.policy.rates import retry_fields
from edgeproxy.state.ports import Admission, Change, Charge, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeproxy.chat.usage import Usage
    from edgeproxy.deadlines import Deadlines
    from edgeproxy.exchange import Exchange
    from edgeproxy.message import Headers, Reply
    from edgeproxy.observe.metrics import WorkerStats
    from edgeproxy.policy.limits import CompiledLimit, Together
    from edgeproxy.state.ports import Store

_log = logging.getLogger("edgeproxy")
_SECOND: Final = 1_000_000
_MAX_SCORE: Final = 1_000_000_000
_LEASES: Final = Kind.LEASES
_PROLONGED: Final = 256  # tickets that are prolonged in one sweep; about a millisecond
_new: Final = tuple.__new__  # a NamedTuple's own constructor is a Python function and takes twice as long


class Ticket:
    """See the module.

    Attributes:
        admission: the store's answer; None while it is asked.
        leased: it holds places of limits of concurrency.
        together: the limits that it is asked of.
    """

    __slots__ = ("_charges", "_exchange", "_go_on", "_lease", "_replies", "_scores", "_store", "admission", "leased",
                 "together")  # fmt: skip

    def __init__(
        self, together: Together, charges: Sequence[Charge], lease: bytes, go_on: Callable[[Exchange], None] | None
    ) -> None:
        """Prepare to ask.

        Args:
            charges: of each of the limits.
            lease: the ticket's name at the store.
            go_on: called with the exchange when it was admitted, but not from inside `ask`; None: the limits are on trial,
                and nobody waits for the answer or is refused for it.
        """
        self.together = together
        self._charges = charges
        self._lease = lease
        self._go_on = go_on
        self._exchange: Exchange | None = None
        self._store: Store
        self._replies: set[int] | None = None  # places of limits that count replies, and count this one
        self._scores: dict[int, int] | None = None  # points by the places of limits
        self.admission: Admission | None = None
        self.leased = False

    def ask(self, exchange: Exchange) -> bool:
        """Ask for admission. True when the exchange was refused, or waits for the answer."""
        self._exchange = exchange
        self._store = store = exchange.gateway.store
        store.admit(self._charges, self._lease, self._decided)
        admission = self.admission
        if admission is None:
            if self._go_on is not None:
                exchange.attempt = self
            return True
        return not admission.allowed

    def _decided(self, admission: Admission) -> None:
        """The store's answer; also when nobody waits for it any more."""
        self.admission = admission
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        gateway, go_on = exchange.gateway, self._go_on
        self._count(admission, gateway.stats)
        if not admission.allowed and admission.by != "closed":
            self._tell(exchange, admission)
        if exchange.sink is None:
            if go_on is None:
                self.end(exchange)  # it did not wait for this answer, and may have been served
            elif admission.allowed:
                self._settle(gateway.stats, 0, None, unused=True)
            return
        if self.together.leased and admission.allowed:
            self.leased = True
            gateway.leases.add(self)
        if go_on is None:
            return
        later = exchange.attempt is self
        if later:
            exchange.attempt = None
        if not admission.allowed:
            self._refuse(exchange, admission)
            return
        exchange.ticket = self
        if later:
            try:
                go_on(exchange)
            except Exception as error:  # nobody is above who would answer the client
                _log.exception("an admitted request failed")
                exchange.fail(edge_fault(500, "internal", f"The edge failed ({type(error).__name__})."))

    def _count(self, admission: Admission, stats: WorkerStats) -> None:
        counts, judged = stats.limits, admission.by not in ("open", "closed")
        for place, limit in enumerate(self.together.limits):
            if not judged:
                key = limit.counters[2]
            elif admission.allowed:
                key = limit.counters[0]
            elif not admission.verdicts[place].allowed:
                key = limit.counters[1]
            else:
                continue
            counts[key] = counts.get(key, 0) + 1

    def _tell(self, exchange: Exchange, admission: Admission) -> None:
        """The log line names the limits that refused, or would have, and security events tell of them."""
        events = exchange.gateway.events
        for limit, verdict in zip(self.together.limits, admission.verdicts, strict=True):
            if not verdict.allowed:
                exchange.limited += (limit.label,)
                if events is not None:
                    events.limited(exchange, limit, admission.by)

    def _refuse(self, exchange: Exchange, admission: Admission) -> None:
        """The refusal names the limit that lets the client wait longest."""
        gateway = exchange.gateway
        if admission.by == "closed":
            fault = edge_fault(503, "store_down", "The limits of this site cannot be checked now; try again shortly.")
            gateway.fail(exchange, fault)
            return
        limits, charges = self.together.limits, self._charges
        limit, charge, retry = limits[0], charges[0], -1
        for each, taken, verdict in zip(limits, charges, admission.verdicts, strict=True):
            if not verdict.allowed:
                wait = verdict.retry
                if each.quota.kind is _LEASES:
                    # Nobody waits until somebody's lease expires: the place is given back long before. Mitigation lasts.
                    wait = min(wait, max(_SECOND, each.quota.mitigation))
                if wait > retry:
                    limit, charge, retry = each, taken, wait
        retry = max(retry, 1000)
        too_large = charge.cost > limit.quota.burst
        reason, kind = "rate_limit_exceeded", limit.counts if limit.counts in ("requests", "tokens") else None
        if too_large:
            message = f"The request may take {charge.cost} {limit.counts}, and the limit '{limit.name}' has {limit.said}."
        elif limit.budget:
            reason = kind = "insufficient_quota"
            message = f"The budget of this API key is used up ({limit.said})."
        else:
            message = f"Over the limit '{limit.name}' ({limit.said}). Try again in {-(-retry // _SECOND)} s."
        fault = edge_fault(limit.model.status, reason, message)
        fault.kind = kind
        if too_large or limit.budget:
            fault.fields = [*(() if too_large else retry_fields(retry)[:1]), (b"x-should-retry", b"false")]
        else:
            fault.fields = retry_fields(retry)
        fault.fields += self.fields(exchange)
        if limit.body is None:
            gateway.fail(exchange, fault)
        else:
            gateway.refuse(exchange, fault, limit.content_type, limit.body)

    # -- while it goes on ----------------------------------------------------------------------------------------

    def fields(self, exchange: Exchange) -> Headers:
        """Where the client stands, as header fields; nothing where nobody knows."""
        admission = self.admission
        if admission is None or admission.by in ("open", "closed"):
            return []
        route = exchange.plan.route
        return self.together.rates.fields(admission.verdicts, None if route is None else route.dialect)

    def measure(self, exchange: Exchange, reply: Reply) -> None:
        """The upstream's reply head is here: which limits it counts for, and the points it tells."""
        made = None
        for place, limit in enumerate(self.together.limits):
            if limit.score is not None:
                if self._scores is None:
                    self._scores = {}
                self._scores[place] = _points(reply, limit.score)
            if limit.replies is None:
                continue
            if self._replies is None:
                self._replies = set()
            if made is None:
                made = exchange.plan.facts(exchange.request, exchange.ray)
                made.reply = reply
            try:
                if limit.replies(made):
                    self._replies.add(place)
            except Exception as e:
                broken(limit, e, exchange.gateway.stats)

    def prolong(self) -> None:
        """The exchange is still under way: its places are not to expire."""
        self._store.prolong([charge for charge in self._charges if charge.quota.kind is _LEASES], self._lease)

    def end(self, exchange: Exchange) -> None:
        """The exchange is over, however it ended: correct what was taken."""
        gateway = exchange.gateway
        if self.leased:
            self.leased = False
            gateway.leases.discard(self)
        admission = self.admission
        if admission is None or not admission.allowed or not self.together.settles:
            return
        asked = exchange.asked
        usage = asked.usage(exchange.served_by is not None) if asked is not None else None
        self._settle(gateway.stats, exchange.body.received + exchange.sent, usage, unused=False)

    def _settle(self, stats: WorkerStats, size: int, usage: Usage | None, *, unused: bool) -> None:
        admission = self.admission
        assert admission is not None
        changes = []
        for place, (limit, charge) in enumerate(zip(self.together.limits, self._charges, strict=True)):
            quota = charge.quota
            if quota.kind is _LEASES:
                delta = -1
            elif unused:
                delta = -charge.cost
            else:
                delta = self._used(place, limit, charge, size, usage) - charge.cost
            if not delta:
                continue
            stamp = admission.verdicts[place][4] if admission.verdicts else 0
            changes.append(_new(Change, (quota, charge[1], delta, stamp)))
            if quota.kind is not _LEASES:
                stats.limit(limit.label, "settled" if delta > 0 else "refunded", abs(delta))
        if changes:
            self._store.settle(changes, self._lease)

    def _used(self, place: int, limit: CompiledLimit, charge: Charge, size: int, usage: Usage | None) -> int:
        """Units that the exchange came to."""
        if limit.replies is not None and (self._replies is None or place not in self._replies):
            return 0
        if limit.counts == "bytes":
            return size
        if limit.counts == "score":
            return self._scores.get(place, 0) if self._scores is not None else 0
        if limit.counts == "tokens":
            return usage.charged(charge.cost) if usage is not None else 0
        return max(charge.cost, 1)

    # -- Attempt, while it waits ---------------------------------------------------------------------------------

    def pause(self) -> None:
        """Nothing is read for the client yet."""

    def resume(self) -> None:
        """Nothing is read for the client yet."""

    def cancel(self) -> None:
        """The client left: what the store still grants is given back when it answers."""


class Leases:
    """The tickets of one worker that hold places: theirs are prolonged while they are held. An `Expiring`.

    Each has its own time, as far as that goes: prolonging thousands together would keep the loop, and who counts, from others.

    Attributes:
        deadline: when the first of them are prolonged.
    """

    __slots__ = ("_deadlines", "_rings", "deadline")

    def __init__(self, deadlines: Deadlines) -> None:
        """Nobody holds any yet."""
        self._deadlines = deadlines
        # By a third of their lease in seconds: tickets with the time when they are due, the next one first.
        self._rings: dict[float, dict[Ticket, float]] = {}
        self.deadline = NEVER

    def __len__(self) -> int:
        return sum(map(len, self._rings.values()))

    def add(self, ticket: Ticket) -> None:
        """It holds places."""
        every = ticket.together.lease / 3
        ring = self._rings.get(every)
        if ring is None:
            ring = self._rings[every] = {}
        ring[ticket] = due = self._deadlines.now + every
        if due < self.deadline:
            self.deadline = due
            self._deadlines.members.add(self)

    def discard(self, ticket: Ticket) -> None:
        """It does no more."""
        every = ticket.together.lease / 3
        ring = self._rings.get(every)
        if ring is None:
            return
        ring.pop(ticket, None)
        if not ring:
            del self._rings[every]
            if not self._rings:
                self.deadline = NEVER
                self._deadlines.members.discard(self)

    def expire(self, now: float) -> None:
        """Time to prolong some. Those that are left are due already, at the next sweep."""
        for every, ring in self._rings.items():
            most = max(_PROLONGED, int(len(ring) * 2 * INTERVAL / every))  # all of them within half their time
            for ticket in [ticket for ticket, due in islice(ring.items(), most) if due <= now]:
                del ring[ticket]
                ring[ticket] = now + every
                ticket.prolong()
        self.deadline = min([next(iter(ring.values())) for ring in self._rings.values()], default=NEVER)


def broken(limit: CompiledLimit, error: Exception, stats: WorkerStats) -> None:
    """An expression of a limit failed: it is passed over for this request."""
    if (limit.label, "failed") not in stats.limits:
        _log.warning("limit %s failed and is passed over for such requests (said once): %s", limit.name, type(error).__name__)
    stats.limit(limit.label, "failed")


def _points(reply: Reply, name: bytes) -> int:
    """What a reply says that it cost; 0 where it says nothing that is a number."""
    for key, value in reply.headers:
        if key == name and value.isdigit() and len(value) < 16:
            return min(int(value), _MAX_SCORE)
    return 0
