# Control's list of blocks: what holds, what other nodes are still to be told, and what they say. No store, no clock and no
# process is known here.
"""`BlockList`: pure; times come in.

Several nodes change a shared list at once: a node sends what was changed here, entry by entry, and then takes the whole list
as it is there. So none loses another's entry, and of one entry that two changed the last word counts. The shared list has a
name (its epoch), made when it begins: where the name is new, the store has lost the list (or never had one), and everybody
tells it all they know.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from edgeproxy.policy.blocks import KINDS, MAX_BLOCKS, Block, Name, Refused

AT_ONCE: Final = 500  # changes that are sent together
MAX_UNSAID: Final = 2 * MAX_BLOCKS  # changes that wait for a shared list that does not answer: those that hold, and as many more


class Shared(NamedTuple):
    """What the shared list says.

    Attributes:
        epoch, version: its name, and how often it was changed.
        blocks: all of it; None: nothing has changed since the version that was asked about.
    """

    epoch: bytes
    version: bytes
    blocks: Sequence[Block] | None


class BlockList:
    """See the module.

    Attributes:
        epoch, version: of the shared list, as last heard; b"": never.
        shared: there is such a list. Without one nothing is kept for it: once there is, it is told all that holds then.
    """

    __slots__ = ("_blocks", "_unsaid", "epoch", "shared", "version")

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        self._blocks: dict[Name, Block] = {block.name: block for block in blocks}
        self._unsaid: dict[Name, Block | None] = {}
        self.epoch = self.version = b""
        self.shared = False

    def __len__(self) -> int:
        return len(self._blocks)

    @property
    def blocks(self) -> list[Block]:
        """All, in the order they were made."""
        return list(self._blocks.values())

    def put(self, block: Block, now: float) -> bool:
        """Adds a block, or takes one away that is over. Whether there is one now. Raises: Refused when the list is full."""
        name = block.name
        if block.until <= now:
            self._say(name, None, now)
            return self._blocks.pop(name, None) is not None
        if name not in self._blocks and len(self._blocks) >= MAX_BLOCKS:
            raise Refused(f"there are {MAX_BLOCKS} blocks already: take some away, or block their network")
        self._blocks[name] = block
        self._say(name, block, now)
        return True

    def _say(self, name: Name, block: Block | None, now: float) -> None:
        """The shared list is to be told. At the bound the oldest word on what holds no more is lost (it may hold there)."""
        if not self.shared:
            return
        unsaid = self._unsaid
        if name not in unsaid and len(unsaid) >= MAX_UNSAID:
            over = (each for each, change in unsaid.items() if change is None or change.until <= now)
            del unsaid[next(over, next(iter(unsaid)))]
        unsaid[name] = block

    def expire(self, now: float) -> bool:
        """Drops what is over; whether there was any."""
        over = [name for name, block in self._blocks.items() if block.until <= now]
        for name in over:
            del self._blocks[name]
        return bool(over)

    def counts(self) -> dict[str, int]:
        """How many blocks there are, by kind."""
        found = dict.fromkeys(map(str, KINDS), 0)
        for kind, _ in self._blocks:
            found[kind] += 1
        return found

    def shown(self, now: float, wall: float) -> list[dict[str, Any]]:
        """For people and programs."""
        return [row(block, now, wall) for block in self._blocks.values()]

    # The list that nodes share

    def unsaid(self) -> dict[Name, Block | None]:
        """What it is to be told next (None: taken away); empty: nothing."""
        return dict(list(self._unsaid.items())[:AT_ONCE])

    def heard(self, shared: Shared, said: dict[Name, Block | None], now: float) -> bool:
        """It has answered.

        Args:
            said: what it was told with the question.

        Returns: this list has changed by it.
        """
        for name, block in said.items():
            if self._unsaid.get(name, ...) is block:
                del self._unsaid[name]
        before = self._blocks
        if shared.blocks is not None:
            found = {block.name: block for block in shared.blocks if block.until > now}
            if shared.epoch != self.epoch:
                known = {name: block for name, block in before.items() if block.until > now and name not in found}
                found |= known
                self._unsaid = {**known, **self._unsaid}
            for name, block in self._unsaid.items():
                if block is None:
                    found.pop(name, None)
                elif block.until > now:
                    found[name] = block
            self._blocks = _bounded(found)
        self.epoch, self.version = shared.epoch, shared.version
        return not _alike(before, self._blocks)


def row(block: Block, now: float, wall: float) -> dict[str, Any]:
    """A block for people and programs; the id of a key as it is written elsewhere."""
    value = f"ep-{block.value}" if block.kind == "key" else block.value
    left = max(block.until - now, 0.0)
    return {
        block.kind: value, "seconds": -int(-left // 1), "until": round(wall + left, 3), "since": round(block.made, 3),
        "reason": block.reason,
    }  # fmt: skip


def _bounded(blocks: dict[Name, Block]) -> dict[Name, Block]:
    """Two nodes may fill the list at once: what lasts longest is kept."""
    if len(blocks) <= MAX_BLOCKS:
        return blocks
    return dict(sorted(blocks.items(), key=lambda each: -each[1].until)[:MAX_BLOCKS])


def _alike(one: dict[Name, Block], other: dict[Name, Block]) -> bool:
    """Times that went over the shared list are a little off."""
    return one.keys() == other.keys() and all(abs(block.until - other[name].until) < 0.5 for name, block in one.items())
