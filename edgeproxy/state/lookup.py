# Questions about keys on their way to the worker that counts alone, and the answers. The hot path has wire.py.
"""Charges and levels as MessagePack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from edgeproxy.state.ports import Charge, Kind, Level, Quota

MAX_CHARGES: Final = 256  # in one question


class _Row(msgspec.Struct, array_like=True):
    name: str
    kind: Kind
    limit: int
    window: int
    burst: int
    mitigation: int
    key: bytes


_rows = msgspec.msgpack.Decoder(list[_Row]).decode
_levels = msgspec.msgpack.Decoder(tuple[Level, ...]).decode


def pack(charges: Sequence[Charge]) -> bytes:
    """Charges; what they cost is left out."""
    rows = [_Row(q.name, q.kind, q.limit, q.window, q.burst, q.mitigation, key) for q, key, _ in charges]
    return msgspec.msgpack.encode(rows)


def unpack(data: bytes) -> list[Charge]:
    """Raises: msgspec.DecodeError."""
    return [Charge(Quota(r.name, r.kind, r.limit, r.window, r.burst, r.mitigation), r.key, 0) for r in _rows(data)]


def pack_levels(levels: Sequence[Level]) -> bytes:
    """Levels."""
    return msgspec.msgpack.encode(levels)


def unpack_levels(data: bytes) -> tuple[Level, ...]:
    """Raises: msgspec.DecodeError."""
    return _levels(data)
