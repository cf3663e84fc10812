# Frames and operations over bytes alone.
from __future__ import annotations

from typing import Any

from support.stores import name, quota

from edgeproxy.state import wire
from edgeproxy.state.ports import Change, Charge


def test_frames_cut_anywhere() -> None:
    stream = b"".join(wire.frame(bytes([i]) * i) for i in range(20))
    for size in (1, 2, 3, 5, 7, 64, len(stream)):
        frames, out = wire.Frames(), list[bytes]()
        for start in range(0, len(stream), size):
            out += frames.feed(stream[start : start + size])
        assert out == [bytes([i]) * i for i in range(20)]


def test_operations_survive_the_wire() -> None:
    limit, defined = quota(mitigation=5), list[Any]()
    charges = (Charge(limit, name(), 2**40),)
    changes = (Change(limit, name(), -(2**40), 2**60),)
    ops = [
        wire.Define(limit.name, limit.kind, limit.limit, limit.window, limit.burst, limit.mitigation),
        wire.Admit(charges, name()),
        wire.Settle(changes, name()),
        wire.Prolong(charges, name()),
        wire.Peek(charges),
        wire.Block(name(), 7),
        wire.Reset(charges),
        wire.Get(b""),
        wire.Put(name(), b"\x00", 1, True),
    ]
    defined.append(limit)
    assert wire.decoder(defined).decode(wire.encoder(lambda _: 0).encode(ops)) == ops


def test_numbers_that_do_not_fit_are_made_to() -> None:
    limit = quota()
    charges = [Charge(limit, b"a", 1), Charge(limit, b"b", 10**30)]
    assert [c.cost for c in wire.fitting(charges)] == [1, wire.MAX_UNITS]
    changes = [Change(limit, b"a", delta, 1) for delta in (-(10**30), -1, 10**30)]
    assert [c.delta for c in wire.fitting_changes(changes)] == [-wire.MAX_UNITS, -1, wire.MAX_UNITS]
