# What a worker and the embedded store's server say to each other, and how it is framed. No socket is touched here.
"""Frames of the embedded store: four bytes of length (little-endian), then MessagePack.

A worker sends the operations of one loop tick as one frame, and each frame is answered by one frame, in order; an empty frame
is a probe. A quota is sent once for each connection, as a `Define` in a frame before the one that first uses it; in
charges it is a number, its place in the order of definition. The sockets are the user's own, so the peer is trusted to
mean well, but not to be right: what cannot be read ends the connection.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from edgeproxy.state.ports import Admission, Change, Charge, Kind, Quota

_LENGTH: Final = struct.Struct("<I")
MAX_FRAME: Final = 4 << 20  # bytes
FULL_FRAME: Final = 1 << 20  # bytes of blobs in one frame after which the next one is begun
MAX_OPS: Final = 2048  # in one frame
MAX_UNITS: Final = 1 << 53  # of a charge or a change: more than any quota has, and what MessagePack can say


class WireError(Exception):
    """The other side sent what is not a frame. The connection is of no more use."""


class Define(msgspec.Struct, array_like=True, tag=0, gc=False):
    name: str
    kind: Kind
    limit: int
    window: int
    burst: int
    mitigation: int


class Admit(msgspec.Struct, array_like=True, tag=1, gc=False):
    charges: tuple[Charge, ...]
    lease: bytes


class Settle(msgspec.Struct, array_like=True, tag=2, gc=False):
    changes: tuple[Change, ...]
    lease: bytes


class Peek(msgspec.Struct, array_like=True, tag=3, gc=False):
    charges: tuple[Charge, ...]


class Block(msgspec.Struct, array_like=True, tag=4, gc=False):
    key: bytes
    ttl: int


class Reset(msgspec.Struct, array_like=True, tag=5, gc=False):
    charges: tuple[Charge, ...]


class Get(msgspec.Struct, array_like=True, tag=6, gc=False):
    key: bytes


class Put(msgspec.Struct, array_like=True, tag=7, gc=False):
    key: bytes
    value: bytes
    ttl: int
    once: bool


class Prolong(msgspec.Struct, array_like=True, tag=8, gc=False):
    charges: tuple[Charge, ...]
    lease: bytes


Op = Define | Admit | Settle | Peek | Block | Reset | Get | Put | Prolong


class Answers(NamedTuple):
    """To one frame: what became of its admissions, and of its peeks, blocks, resets, gets and puts, each in order."""

    admissions: list[Admission]
    others: list[Any]


def fitting(charges: Sequence[Charge]) -> tuple[Charge, ...]:
    """The charges, with costs that fit into a frame: what a client asks for can be any number."""
    for charge in charges:
        if charge[2] > MAX_UNITS:
            return tuple([c._replace(cost=min(c.cost, MAX_UNITS)) for c in charges])
    return tuple(charges)


def fitting_changes(changes: Sequence[Change]) -> tuple[Change, ...]:
    """As `fitting`."""
    return tuple([c._replace(delta=max(-MAX_UNITS, min(c.delta, MAX_UNITS))) for c in changes])


def encoder(number_of: Callable[[Quota], int]) -> msgspec.msgpack.Encoder:
    """Encodes lists of operations (or Answers, which hold no quota)."""
    return msgspec.msgpack.Encoder(enc_hook=number_of)


def decoder(quotas: list[Quota]) -> msgspec.msgpack.Decoder[list[Op]]:
    """Decodes lists of operations, with the quotas that were defined so far (the list may grow)."""

    def quota(_type: type, number: Any) -> Quota:
        if not isinstance(number, int) or not 0 <= number < len(quotas):
            raise ValueError(f"quota {number!r} is not defined")
        return quotas[number]

    return msgspec.msgpack.Decoder(list[Op], dec_hook=quota)


ANSWERS: Final = msgspec.msgpack.Decoder(Answers)


def frame(payload: bytes) -> bytes:
    return _LENGTH.pack(len(payload)) + payload


class Frames:
    """Payloads out of a byte stream cut anywhere."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that are complete now. Raises WireError."""
        if self._buffer:
            data = self._buffer + data
        payloads = []
        start, size = 0, len(data)
        while size - start >= 4:
            (length,) = _LENGTH.unpack_from(data, start)
            if length > MAX_FRAME:
                raise WireError(f"a frame of {length} bytes")
            if size - start - 4 < length:
                break
            payloads.append(data[start + 4 : start + 4 + length])
            start += 4 + length
        self._buffer = data[start:] if start < size else b""
        return payloads
