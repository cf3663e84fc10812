# What a batch is on the wire: one EVALSHA of admit.lua, in numbers. Who is asked, and what if not, is decided elsewhere.
"""`pack` makes the command, `verdicts` reads the reply; the formats are described in admit.lua."""

from __future__ import annotations

from binascii import hexlify
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from edgeproxy.state.ports import LEASE_SIZE, Admission, Admitted, Change, Charge, Kind, Quota, Verdict
from edgeproxy.state.redis_dial import SHA

MARKER_LIFE: Final = 60_000  # ms for which it is known that an exchange was settled: longer than a settlement is ever repeated
KEY_SIZE: Final = 16
_LEASES: Final = int(Kind.LEASES)
_MOST_ROWS: Final = 1024
_MOST_UNITS: Final = 1 << 53  # more than any quota has
_new: Final = tuple.__new__  # a NamedTuple's own constructor is a Python function and takes twice as long

Take = tuple[int, Sequence[Charge], bytes, Admitted, Callable[[], None] | None]
"""Charges of an exchange in one slot (0 without a cluster), its lease, who is told, and, if these are only a part of its
charges, who is told instead when the server is not asked."""

Give = tuple[int, Sequence[Change], bytes]
"""Changes in one slot, and the lease of their exchange."""

encode: Final = msgspec.msgpack.Encoder().encode
decode: Final[Callable[[bytes], list[Any]]] = msgspec.msgpack.Decoder(list).decode


class Names:
    """How keys are called in Redis: `PREFIX{hex}`, so that all that belongs to a key is in the slot of its hex.

    Raises: ValueError for a prefix with braces, which would decide the slot.
    """

    __slots__ = ("_head", "_lease", "_marker", "_marker_head", "prefix")

    def __init__(self, prefix: str) -> None:
        if "{" in prefix or "}" in prefix:
            raise ValueError("a prefix of keys has no braces")
        self.prefix = prefix.encode()
        length = len(self.prefix) + 2 * KEY_SIZE + 2
        self._head = b"$%d\r\n%s{" % (length, self.prefix)
        self._lease = b"}\r\n$%d\r\n%s{" % (length + 2, self.prefix)
        self._marker_head = b"$%d\r\n%s{" % (length + 3 + 2 * LEASE_SIZE, self.prefix)

    def of(self, key: bytes) -> bytes:
        """The string of a key."""
        return b"%s{%s}" % (self.prefix, hexlify(key))

    def leases(self, key: bytes) -> bytes:
        """The sorted set of a key's leases."""
        return b"%s{%s}:l" % (self.prefix, hexlify(key))

    def blob(self, key: bytes) -> bytes:
        """A small blob."""
        return b"%s{%s}:b" % (self.prefix, hexlify(key))

    def wire(self, key: bytes) -> bytes:
        """The string of a key as an argument on the wire."""
        return self._head + hexlify(key) + b"}\r\n"

    def wire_pair(self, key: bytes) -> bytes:
        """The string and the leases of a key as two arguments on the wire."""
        name = hexlify(key)
        return self._head + name + self._lease + name + b"}:l\r\n"

    def wire_marker(self, key: bytes, lease: bytes) -> bytes:
        """What says that the changes of an exchange were made, in the slot of one of their keys."""
        return self._marker_head + hexlify(key) + b"}:s:" + hexlify(lease) + b"\r\n"


class Packer:
    """Makes commands. One for each store; it remembers the numbers of quotas.

    Args:
        names: of keys.
    """

    __slots__ = ("_names", "_rows", "_tail")

    def __init__(self, names: Names) -> None:
        self._names = names
        self._rows: dict[Quota, tuple[int, int, int, int, int]] = {}
        life = b"%d" % MARKER_LIFE
        self._tail = b"\r\n$%d\r\n%s\r\n" % (len(life), life)

    def _row(self, quota: Quota) -> tuple[int, int, int, int, int]:
        row = self._rows.get(quota)
        if row is None:
            if len(self._rows) >= _MOST_ROWS:  # those of snapshots that are gone
                self._rows.clear()
            row = (int(quota.kind), quota.limit, quota.window, quota.burst, quota.mitigation)
            self._rows[quota] = row
        return row

    def pack(self, takes: Sequence[Take], gives: Sequence[Give], not_after: int) -> bytes:
        """The command for a batch; all of its keys are in one slot, if slots matter.

        Args:
            not_after: µs on the server's clock after which it shall not look at the exchanges any more.
        """
        keys: list[bytes] = []  # on the wire
        held: list[bytes] = []
        index: dict[bytes, int] = {}
        pairs: dict[bytes, int] = {}  # those of LEASES, which are two keys
        known: dict[Quota, int] = {}
        ask = [not_after, 0, len(gives), len(takes)]
        body: list[int] = []
        count = self._settlements(gives, keys, held, index, pairs, known, ask, body) if gives else 0
        wire, wire_pair = self._names.wire, self._names.wire_pair
        for _, charges, lease, _, _ in takes:
            at = len(body) + 1
            body += (len(charges), 0)
            for quota, key, cost in charges:
                q = known.get(quota)
                if q is None:
                    q = known[quota] = len(known) + 1
                    ask += self._row(quota)
                if quota.kind == _LEASES:
                    k = pairs.get(key)
                    if k is None:
                        k = pairs[key] = count + 1
                        keys.append(wire_pair(key))
                        count += 2
                    if not body[at]:
                        held.append(lease)
                        body[at] = len(held)
                else:
                    k = index.get(key)
                    if k is None:
                        count += 1
                        k = index[key] = count
                        keys.append(wire(key))
                body += (q, k, cost)
        ask[1] = len(known)
        ask += body
        try:
            numbers = encode(ask)
        except OverflowError:  # clients' `max_tokens` and upstreams' `usage` say what they like
            numbers = encode([max(min(number, _MOST_UNITS), -_MOST_UNITS) for number in ask])
        return b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%s\r\n$%d\r\n%d\r\n%s$%d\r\n%s\r\n$%d\r\n%s%s" % (
            count + 6,
            SHA["admit"],
            len(str(count)),
            count,
            b"".join(keys),
            len(numbers),
            numbers,
            LEASE_SIZE * len(held),
            b"".join(held),
            self._tail,
        )

    def _settlements(
        self,
        gives: Sequence[Give],
        keys: list[bytes],
        held: list[bytes],
        index: dict[bytes, int],
        pairs: dict[bytes, int],
        known: dict[Quota, int],
        ask: list[int],
        body: list[int],
    ) -> int:
        """The settlements' part of `pack`, whose lists these are; how many keys there are (a pair is one part of the list)."""
        names = self._names
        count = 0
        for _, changes, lease in gives:
            if any(change[0].kind != _LEASES for change in changes):
                keys.append(names.wire_marker(changes[0].key, lease))
                count += 1
                marker = count
            else:
                marker = 0  # a lease can be given back only once anyway
            held.append(lease)
            body += (len(changes), marker, len(held))
            for quota, key, delta, stamp in changes:
                q = known.get(quota)
                if q is None:
                    q = known[quota] = len(known) + 1
                    ask += self._row(quota)
                pair = quota.kind == _LEASES
                indices = pairs if pair else index
                k = indices.get(key)
                if k is None:
                    k = indices[key] = count + 1
                    keys.append(names.wire_pair(key) if pair else names.wire(key))
                    count += 2 if pair else 1
                body += (q, k, delta, stamp)
        return count


def admissions(answer: list[Any], takes: Sequence[Take]) -> Iterator[tuple[Take, Admission]]:
    """Each exchange of a batch with what became of it."""
    i = 2
    for take in takes:
        allowed = answer[i]
        i += 1
        count = len(take[1])
        if count == 1:
            verdicts: tuple[Verdict, ...] = (_new(Verdict, answer[i : i + 5]),)
            i += 5
        else:
            end = i + 5 * count
            verdicts = tuple([_new(Verdict, answer[at : at + 5]) for at in range(i, end, 5)])
            i = end
        yield take, _new(Admission, (allowed, verdicts, "store"))


def undoing(charges: Sequence[Charge], verdicts: Sequence[Verdict]) -> list[Change]:
    """The changes that take charges back."""
    return [
        Change(charge.quota, charge.key, -charge.cost, verdict.stamp)
        for charge, verdict in zip(charges, verdicts, strict=True)
        if charge.cost
    ]


def prolonging(charges: Sequence[Charge]) -> list[Change]:
    """What admit.lua takes for prolonging leases: of those charges that are any."""
    return [Change(c.quota, c.key, c.cost, 0) for c in charges if c.quota.kind == Kind.LEASES and c.cost > 0]


def lease_changes(charges: Sequence[Charge]) -> list[Change]:
    """The changes that give an exchange's leases back, whether or not it has them."""
    return [Change(charge.quota, charge.key, -charge.cost, 0) for charge in charges if charge.quota.kind == Kind.LEASES]
