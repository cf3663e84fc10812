# Retries of one pool, its clients' and its own: which may be made. How many that are is policy/retries.py's arithmetic.
"""`Governor`: asked only about retries. A request that is none costs nothing here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeproxy.faults import Fault, edge_fault
from edgeproxy.policy.retries import Budget, allowance

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.observe.metrics import UpstreamStats
    from edgeproxy.upstream.pool import Pool

MAX_TRIES: Final = 3  # connections tried for one exchange
_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})


def repeatable(exchange: Exchange) -> bool:
    """Whether a request may be sent a second time though the first one may have arrived (RFC 9110 §9.2.2)."""
    request = exchange.plan.forward or exchange.request
    return request.method in _IDEMPOTENT or request.header(b"idempotency-key") is not None


class Governor:
    """See the module."""

    __slots__ = ("_budget", "_pool")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._budget = Budget()

    def refused(self, exchange: Exchange) -> Fault | None:
        """A client tries again: counts it, and says whether it has tried too often. The pool has targets."""
        stats = self._pool.targets[0].stats
        stats.client_retries += 1
        if self._allowed(exchange):
            self._note()
            return None
        stats.client_retries_refused += 1
        said = f"This request was tried {exchange.plan.retry} times before, which is often enough: wait, then send it anew."
        fault = edge_fault(429, "too_many_attempts", said)
        fault.fields = [(b"x-should-retry", b"false")]
        return fault

    def may(self, exchange: Exchange, tried: int, stats: UpstreamStats | None) -> bool:
        """Whether the edge may make another attempt; it counts as made.

        Args:
            tried: attempts that it has made for this exchange.
            stats: of the target that failed, None where it is gone.
        """
        pool = self._pool
        retries = pool.settings.retries
        over = self._budget.over(pool.deadlines.now, self._requests(), retries.budget / 100, retries.floor)
        if over or tried >= self._allowed(exchange):
            if stats is not None:
                stats.retries_withheld += 1
            return False
        self._note()
        if stats is not None:
            stats.retries += 1
        return True

    def _allowed(self, exchange: Exchange) -> int:
        most = MAX_TRIES if len(self._pool.targets) > 1 else 2 if repeatable(exchange) else 1
        return allowance(self._pool.settings.retries.max_attempts, exchange.plan.retry, most)

    def _note(self) -> None:
        self._budget.note(self._pool.deadlines.now, self._requests())

    def _requests(self) -> int:
        """All attempts of this worker so far, by counters that are kept anyway."""
        found = (target.stats for target in self._pool.targets)
        return sum(stats.reused + stats.connects + stats.connect_failures for stats in found)
