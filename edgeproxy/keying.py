# The step of the pipeline that asks for a key of the edge. What a key is, and which one is right, is policy/keys.py's business.
"""`prepare` finds out whose key a head carries, once per plan; `Keying.apply` asks what time and content do to it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import msgspec

from edgeproxy.policy.keys import Key, refused
from edgeproxy.policy.sightings import network_of
from edgeproxy.preview import hold, read_model

if TYPE_CHECKING:
    from edgeproxy.config.snapshot import Route, Snapshot
    from edgeproxy.exchange import Exchange
    from edgeproxy.message import Request
    from edgeproxy.policy.keys import KeyProblem

_ELSEWHERE: Final = "elsewhere"


class Keying:
    """What the key of a plan's exchanges says about them.

    Attributes:
        key: None where none is needed or none is right.
        problem: why they are refused; None where they are not.
    """

    __slots__ = ("_network", "key", "problem")

    def __init__(self, key: Key | None, problem: KeyProblem | None, client: str) -> None:
        self.key = key
        self.problem = problem
        self._network = network_of(client) if key is not None else -1

    def apply(self, exchange: Exchange) -> bool:
        """Asks. True when the exchange needs nobody else: it was refused, or waits for its body."""
        key, gateway = self.key, exchange.gateway
        if self.problem is not None:
            return self._refuse(exchange, self.problem)
        if key is None:
            return False
        over = key.over(time.time())
        if over is not None:
            return self._refuse(exchange, over)
        seen = gateway.sightings.seen(key.id, key.name, self._network, exchange.plan.client, gateway.time())
        if seen is not None and gateway.events is not None:
            gateway.events.sighting(exchange, seen)
        if not key.restricted or exchange.request.length == 0:
            return False
        return self._read_model(exchange, key)

    def _read_model(self, exchange: Exchange, key: Key) -> bool:
        """A key for certain models: which one does the body name?"""
        route = exchange.plan.route
        assert route is not None

        def held(content: bytes, truncated: bool) -> None:
            try:
                model = None if truncated else read_model(content)
            except (msgspec.DecodeError, UnicodeDecodeError):
                model = None
            problem = key.model_problem(model)
            if problem is None:
                exchange.gateway.limit_on(exchange)
            else:
                self._refuse(exchange, problem)

        hold(exchange, route.preview, held)
        return True

    def _refuse(self, exchange: Exchange, problem: KeyProblem) -> bool:
        gateway, key = exchange.gateway, problem.key
        if problem.kind == _ELSEWHERE and key is not None:
            seen = gateway.sightings.elsewhere(key.id, key.name, exchange.plan.client, gateway.time())
            if seen is not None and gateway.events is not None:
                gateway.events.sighting(exchange, seen)
        gateway.fail(exchange, problem.fault)
        return True


def prepare(snapshot: Snapshot, route: Route, request: Request, client: str) -> Keying | None:
    """Whose key a request carries, or why it is refused; None where nobody asks, and nobody said."""
    ring, demand = snapshot.keys, route.keys
    if ring is None or demand == "off":
        return None
    found = ring.identify(request.headers, time.time())
    problem = refused(found, demand)
    if problem is not None:
        return Keying(None, problem, client)
    if not isinstance(found, Key):
        return None
    prints = request.peer.prints
    # A hello that nobody can read is of no family: None would let whoever sends one too long use a bound key.
    return Keying(found, found.elsewhere(client, prints.ja4 if prints is not None else None), client)
