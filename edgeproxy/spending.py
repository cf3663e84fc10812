# The step of the pipeline that has the store say whether a signature's nonce was seen before. Whose signature it is, and whether
# it is right, is bots/identity.py's business.
"""`apply`: who sent a signed request is found out for its exchange alone, before rules and policies look at it.

Only a request whose signature is right and has a nonce is asked about, and waits. Where the store cannot say, this worker's own
memory does, which knows of no other worker; that is counted (`bot_lookups`). Nothing here refuses or breaks a request.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from edgeproxy.bots.identity import NOBODY
from edgeproxy.faults import edge_fault

if TYPE_CHECKING:
    from edgeproxy.bots.identity import Identity, Nonce, Verified
    from edgeproxy.exchange import Exchange
    from edgeproxy.scoring import Scored

_log = logging.getLogger("edgeproxy")
_SKEW: Final = 60.0  # seconds for which a nonce is kept when it is no good any more here: another edge's clock may be behind


def apply(exchange: Exchange, scored: Scored) -> bool:
    """Give a signed exchange a plan of its own, with who sent it. True when it waits for the store, and is gone on with then."""
    plan = exchange.plan = exchange.plan.copy()
    plan.scored = scored = scored.again()
    identity, now = scored.settings.identity, time.time()
    if identity is None:
        return False
    try:
        found, nonce = identity.examine(exchange.request, plan.client, now)
        if nonce is not None:
            scored.found = identity.unproven(found, exchange.request, plan.client, now, "undecided", pending=True)
            # Who is sent to https, or to a connection for the right host, comes back with the same signature.
            if plan.ruling is not None or (plan.fault is None and plan.location is None):
                return Spending(exchange, scored, identity, found, nonce).ask(now)
        else:
            scored.found = found
    except Exception as error:
        scored.found = scored.found or NOBODY
        scored.settings.broken(error)
    return False


class Spending:
    """One exchange whose nonce the store is asked about; its `Attempt` meanwhile."""

    __slots__ = ("_exchange", "_found", "_identity", "_nonce", "_ray", "_scored", "_store")

    def __init__(self, exchange: Exchange, scored: Scored, identity: Identity, found: Verified, nonce: Nonce) -> None:
        """Prepare to ask.

        Args:
            scored: of the exchange; it gets the answer.
            found: who sent it, if the nonce was not seen before.
        """
        self._exchange: Exchange | None = exchange
        self._ray = exchange.ray
        self._scored = scored
        self._identity = identity
        self._found = found
        self._nonce = nonce
        self._store = exchange.gateway.store

    def ask(self, now: float) -> bool:
        """Ask. True when the answer is not there yet."""
        exchange = self._exchange
        ttl = int((self._nonce.expires - now + _SKEW) * 1e6)
        self._store.put(self._nonce.key, self._ray, ttl, once=True, done=self._put)
        if self._exchange is None or exchange is None:
            return False
        exchange.attempt = self
        return True

    def _put(self, new: bool) -> None:
        """A store says no when it has one, when it is full and when it is away: `get` tells which."""
        if new:
            self._decided(True)
        else:
            self._store.get(self._nonce.key, self._there)

    def _there(self, value: bytes | None) -> None:
        """What is there may be our own: kept, with an answer that was lost."""
        self._decided(None if value is None else value == self._ray)

    def _decided(self, first: bool | None) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        try:
            self._prove(exchange, first)
        except Exception as error:
            self._scored.settings.broken(error)
        if exchange.attempt is self and exchange.sink is not None:
            exchange.attempt = None
            _go_on(exchange)

    def _prove(self, exchange: Exchange, first: bool | None) -> None:
        """Args: first: None: the store did not say."""
        settings, now = self._scored.settings, time.time()
        outcome = "failed" if first is None else "first" if first else "spent"
        counts = settings.stats.lookups
        counts["nonce", outcome] = counts.get(("nonce", outcome), 0) + 1
        # Always: what is known here counts when the store is away, and what was taken meanwhile is not taken again.
        if self._identity.first(self._nonce, now) and first is not False:
            self._scored.found = self._found
        else:
            client = exchange.plan.client
            self._scored.found = self._identity.unproven(self._found, exchange.request, client, now, "replayed")

    # -- Attempt, while it waits ---------------------------------------------------------------------------------

    def pause(self) -> None:
        """Nothing is read for the client yet."""

    def resume(self) -> None:
        """Nothing is read for the client yet."""

    def cancel(self) -> None:
        """The client left: whoever has its signature cannot use it, either."""


def _go_on(exchange: Exchange) -> None:
    """As `Gateway.run` does; nobody is above who would answer the client."""
    try:
        ruling = exchange.plan.ruling
        if ruling is None or not ruling.apply(exchange):
            exchange.gateway.forward(exchange)
    except Exception as error:
        _log.exception("a signed request failed")
        exchange.fail(edge_fault(500, "internal", f"The edge failed ({type(error).__name__})."))
