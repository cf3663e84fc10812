# What is known to be over its limit is refused here, without asking the store again. No time is read here.
"""`Refusals`: keys that a store elsewhere has refused, until they may pass again.

An attack on a limit then costs the store one question a key every HOLD at most, which is also how long a refusal is believed
at most: an operator's reset or unblocking is seen after that. Units may come back earlier than the store said when
somebody gives some back, so what can be given back is not kept here: leases, and quotas of which this worker has
ever seen a refund. Where a refusal begins a mitigation, it is kept in either case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from edgeproxy.state.ports import Admission, Change, Charge, Kind, Verdict

HOLD: Final = 1_000_000  # µs
LEAST: Final = 1_000  # µs; a shorter refusal is not worth keeping
KEYS: Final = 32_768  # in each of two generations
_NAMES: Final = 4096
_new: Final = tuple.__new__  # as in counting.py


class Refusals:
    """See the module.

    Args:
        last: what is to be said of the other charges of an exchange that is refused here.
    """

    __slots__ = ("_keys", "_last", "_new", "_old", "_refunded")

    def __init__(self, last: Callable[[Charge], Verdict], keys: int = KEYS) -> None:
        self._last = last
        self._keys = keys
        # By key: from which cost on it is refused, until when that is believed, when it could pass, when it is whole, …
        self._new: dict[bytes, tuple[int, int, int, int, int, int]] = {}
        self._old: dict[bytes, tuple[int, int, int, int, int, int]] = {}
        self._refunded: set[str] = set()

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def check(self, charges: Sequence[Charge], now: int) -> Admission | None:
        """The refusal, if one of the charges is known to be too much at `now` (µs, any clock)."""
        if not self._new and not self._old:
            return None
        for _, key, cost in charges:
            known = self._new.get(key) or self._old.get(key)
            if known is not None and 0 < known[1] - now <= HOLD and (cost or 1) >= known[0]:
                return self._refuse(charges, now)
        return None

    def _refuse(self, charges: Sequence[Charge], now: int) -> Admission:
        verdicts = []
        for charge in charges:
            known = self._new.get(charge[1]) or self._old.get(charge[1])
            if known is not None and 0 < known[1] - now <= HOLD and (charge[2] or 1) >= known[0]:
                _, _, retry, reset, left, stamp = known
                verdicts.append(_new(Verdict, (False, left, max(reset - now, 0), retry - now, stamp)))
            else:
                verdicts.append(self._last(charge))
        return _new(Admission, (False, tuple(verdicts), "known"))

    def learn(self, charges: Sequence[Charge], verdicts: Sequence[Verdict], now: int) -> None:
        """The store has refused an exchange."""
        keys = [charge[1] for charge in charges]
        for (quota, key, cost), (allowed, left, reset, retry, stamp) in zip(charges, verdicts, strict=True):
            if allowed or retry < LEAST or keys.count(key) > 1:  # of two charges of a key, one was judged behind the other
                continue
            if not quota.mitigation and (quota.kind == Kind.LEASES or quota.name in self._refunded):
                continue
            least = 1 if quota.mitigation else cost or 1
            if len(self._new) >= self._keys:
                self._old, self._new = self._new, {}
            self._new[key] = (least, now + min(retry, HOLD), now + retry, now + reset, left, stamp)

    def refunds(self, changes: Sequence[Change]) -> None:
        """Units are given back by this worker."""
        for quota, key, delta, _ in changes:
            if delta < 0:
                if len(self._refunded) < _NAMES:
                    self._refunded.add(quota.name)
                self.forget(key)

    def forget(self, key: bytes) -> None:
        """The key is to be asked about again."""
        self._new.pop(key, None)
        self._old.pop(key, None)
