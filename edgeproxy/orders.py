# What control asks of a worker besides its numbers: to refuse what is blocked, and to look keys up where it counts alone.
"""`Orders`: between the worker's connection to control (reporter.py) and its data plane."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from edgeproxy.ipc import Blocked, Look, Looked
from edgeproxy.policy.blocks import Block, Blocks
from edgeproxy.state import lookup
from edgeproxy.state.ports import Charge, Level

ASIDE: Final = 500  # blocks; more of them are made ready in a thread
_blocks = msgspec.msgpack.Decoder(list[Block]).decode

Send = Callable[[msgspec.Struct, bytes], None]


class Obeying(Protocol):
    """What is needed of the data plane."""

    def block(self, blocks: Blocks | None) -> None:
        """Refuse these from now on; None: nothing is blocked."""

    def look(self, charges: Sequence[Charge], reset: bool, done: Callable[[tuple[Level, ...] | None], None]) -> None:
        """Look keys up where limits count (None: it cannot be asked), or have it forget them (then the levels are none)."""


class Orders:
    """See the module."""

    __slots__ = ("_lists", "_loop", "_plane")

    def __init__(self, loop: asyncio.AbstractEventLoop, plane: Obeying) -> None:
        self._loop = loop
        self._plane = plane
        self._lists = 0  # that have come

    def begin(self, blob: bytes) -> None:
        """What was blocked when this worker was born (a Blocked's blob): nobody is served before it holds.

        Raises: msgspec.DecodeError.
        """
        found = _blocks(blob)
        self._plane.block(Blocks(found) if found else None)

    def obey(self, head: Blocked | Look, blob: bytes, send: Send) -> None:
        """Do it.

        Args:
            send: where an answer goes.

        Raises: msgspec.DecodeError.
        """
        if isinstance(head, Look):
            self._plane.look(
                lookup.unpack(blob), head.reset,
                lambda levels: send(Looked(head.number, levels is not None), lookup.pack_levels(levels or ())),
            )  # fmt: skip
            return
        found = _blocks(blob)
        self._lists += 1
        if len(found) <= ASIDE:
            self._plane.block(Blocks(found) if found else None)
            return
        number = self._lists

        def ready(made: asyncio.Future[Blocks]) -> None:
            if number == self._lists:  # else a later list has come meanwhile
                self._plane.block(made.result())

        self._loop.run_in_executor(None, Blocks, found).add_done_callback(ready)
