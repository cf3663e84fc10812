# The first step of the pipeline while anything is blocked: who is refused for it. What is blocked comes from control (worker.py).
"""`Blocking` is at `Gateway.blocking` only while there are blocks: else an exchange costs one test of an attribute.

It asks about each exchange anew, and not when a plan is made: plans and connections live for longer than blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeproxy.faults import edge_fault

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.policy.blocks import Block, Blocks

REASON: Final = "blocked"
_SAID: Final = {
    "ip": "Requests from this address are refused for now.",
    "network": "Requests from this network are refused for now.",
    "ja4": "Requests of this client are refused for now.",
    "key": "Requests with this API key are refused for now.",
}


class Blocking:
    """See the module.

    Attributes:
        fingerprints: somebody's fingerprint is blocked: connections have to find theirs out.
    """

    __slots__ = ("_blocks", "fingerprints")

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self.fingerprints = blocks.fingerprints

    def apply(self, exchange: Exchange) -> bool:
        """Asks. True when the exchange was refused."""
        plan, blocks, gateway = exchange.plan, self._blocks, exchange.gateway
        now = exchange.started
        found = blocks.client(plan.client, now)
        if found is None and plan.keyed is not None and plan.keyed.key is not None:
            found = blocks.key(plan.keyed.key.id, now)
        prints = exchange.request.peer.prints
        if found is None and self.fingerprints and prints is not None:
            found = blocks.fingerprint(prints.ja4, now)
        if found is None:
            return False
        self._refuse(exchange, found)
        if gateway.events is not None:
            gateway.events.blocked(exchange, found)
        return True

    def _refuse(self, exchange: Exchange, found: Block) -> None:
        gateway = exchange.gateway
        gateway.stats.block(found.kind)
        gateway.fail(exchange, edge_fault(403, REASON, _SAID[found.kind]))
