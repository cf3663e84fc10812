# What shared state can do for the data plane: operations on limits, not keys and values. No store is known here.
"""`Store`: the contract that the embedded store and Redis both keep (tests/contract/test_store.py runs over both).

Every method is called on a worker's loop, returns at once and answers through a callback, which may be called from
inside the call. Times are integer microseconds. A store never raises and never blocks: what it cannot do it answers by
its failure mode (`Admission.by`).

Invariants, on every store: a quota is never over-admitted; a refused exchange leaves no charge once its refunds are
done; what a crash leaves behind expires; a refusal that need not be happens only while a refund is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Final, Literal, NamedTuple, Protocol


class Kind(IntEnum):
    """How a quota counts."""

    GCRA = 0  # smooth: units come back one by one; `burst` at once
    FIXED = 1  # windows that begin at multiples of their length
    SLIDING = 2  # the same, the previous window counting by the share of it that still lies within one window's length
    LEASES = 3  # how many at once; each is given back, or expires


class Quota:
    """One limit's numbers, the same for all of its keys; compiled once per snapshot.

    Attributes:
        name: of the limit, for metrics.
        limit: units in a window, or leases at once; at least 1.
        window: microseconds; of LEASES: how long a lease lives that is not given back.
        burst: GCRA: units that may be taken at once; elsewhere the same as `limit`.
        mitigation: microseconds for which a key is refused everything once it was refused; 0: only what is too much.
    """

    __slots__ = ("burst", "kind", "limit", "mitigation", "name", "window")

    def __init__(self, name: str, kind: Kind, limit: int, window: int, burst: int = 0, mitigation: int = 0) -> None:
        self.name = name
        self.kind = kind
        self.limit = limit
        self.window = window
        self.burst = burst or limit
        self.mitigation = mitigation


class Charge(NamedTuple):
    """Units of one quota for one key.

    Attributes:
        key: exactly 16 bytes, a hash of the limit's name and the characteristics of the request; the same in all
            processes. It belongs to one quota: stores may keep what they know by the key alone.
        cost: units, at least 0. With 0 nothing is taken, and it is refused only if nothing is left.
    """

    quota: Quota
    key: bytes
    cost: int


class Verdict(NamedTuple):
    """What became of one charge. Those of an exchange that was refused say what is there with nothing taken.

    Attributes:
        allowed: it was within its quota (and taken, if all of its admission were).
        remaining: units left behind it, at least 0.
        reset: microseconds until all units are back.
        retry: microseconds after which the same charge could be within the quota; 0 when it is.
        stamp: when it was taken, on the store's clock; `settle` wants it back. 0: nobody judged it, nothing was taken, and
            its other numbers say nothing about the key (`Admission.by` is open, closed or known).
    """

    allowed: bool
    remaining: int
    reset: int
    retry: int
    stamp: int


class Admission(NamedTuple):
    """What became of one exchange's charges: all of them were taken, or none.

    Attributes:
        by: who decided: the store; this worker alone, by what it last knew (`local`) or because it knows the key to be over
            its limit (`known`); nobody, since the store could not be asked (`open`: let through, `closed`: refused).
    """

    allowed: bool
    verdicts: tuple[Verdict, ...]
    by: Literal["store", "local", "known", "open", "closed"]


class Change(NamedTuple):
    """A correction of a charge that was taken.

    Attributes:
        delta: units more (or, below 0, fewer) than were taken. It is never refused: what is too much is owed.
        stamp: of its verdict. 0: there is nothing to correct, and nothing is done.
    """

    quota: Quota
    key: bytes
    delta: int
    stamp: int


class Level(NamedTuple):
    """The state of a key, as somebody who looks it up sees it.

    Attributes:
        blocked: microseconds for which it is refused whatever it asks; 0: it is not.
    """

    remaining: int
    reset: int
    blocked: int


Admitted = Callable[[Admission], None]
LEASE_SIZE: Final = 16  # bytes of a lease's name


class Store(Protocol):
    """See the module."""

    def admit(self, charges: Sequence[Charge], lease: bytes, done: Admitted) -> None:
        """Take all of an exchange's charges, or none.

        Args:
            lease: names the exchange, 16 random bytes; what LEASES quotas keep, and what makes `settle` happen once.
            done: called exactly once, also when the exchange is over by then (the caller then gives back).
        """

    def settle(self, changes: Sequence[Change], lease: bytes) -> None:
        """Correct charges and give the exchange's leases back. Once: a second call with this lease does nothing.

        Args:
            changes: may be empty; LEASES quotas are named with their key and `delta` -1. Those with `stamp` 0 are not looked at.
        """

    def prolong(self, charges: Sequence[Charge], lease: bytes) -> None:
        """Have the exchange's leases live for another window from now; nobody is told whether they do.

        A lease that was given back or has expired stays so: this never revives one.

        Args:
            charges: those it was admitted with; only those of LEASES quotas are looked at.
        """

    def peek(self, charges: Sequence[Charge], done: Callable[[tuple[Level, ...] | None], None]) -> None:
        """Look keys up without charging; None when the store cannot be asked."""

    def block(self, key: bytes, ttl: int, done: Callable[[bool], None]) -> None:
        """Refuse whatever is asked for a key, for `ttl` microseconds; 0 takes a block away."""

    def reset(self, charges: Sequence[Charge], done: Callable[[bool], None]) -> None:
        """Forget what keys were charged."""

    def get(self, key: bytes, done: Callable[[bytes | None], None]) -> None:
        """A small blob; None when there is none or the store cannot be asked."""

    def put(self, key: bytes, value: bytes, ttl: int, *, once: bool, done: Callable[[bool], None]) -> None:
        """Keep a small blob (at most 64 KiB) for `ttl` microseconds.

        Args:
            once: only if there is none yet; `done(False)` when there is one (replays are told by this).
        """

    def close(self) -> None:
        """Answer what waits, by the failure mode, and let go of everything."""
