# What an operator may do through the admin address: block, look limits up, reset them. Control runs it; no HTTP is known here.
"""`Operations`: the list of blocks, told to the workers, to the supervisor (for the next control) and to other nodes; and the
way to where limits count: here, in Redis, or in the only worker."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from edgeproxy.blocklist import BlockList, Shared, row
from edgeproxy.explaining.question import Busy
from edgeproxy.ipc import Blocked, Look, Looked
from edgeproxy.observe.notes import Notes
from edgeproxy.policy.blocks import Block, Name, understand
from edgeproxy.state import lookup
from edgeproxy.state.embedded import EmbeddedStore, steady_clock
from edgeproxy.state.memory import Memory
from edgeproxy.state.ports import Charge, Level, Store
from edgeproxy.state.redis import Settings
from edgeproxy.state.redis_open import open_redis

if TYPE_CHECKING:
    from edgeproxy.blockshare import SharedList
    from edgeproxy.config.model import Config
    from edgeproxy.explaining.counter import Counter
    from edgeproxy.state.server import StoreServer

SOON: Final = 0.05  # seconds in which changes gather before workers are told
POLL: Final = 2.0  # seconds between two looks at the list that nodes share
TICK: Final = 1.0  # seconds between two looks for blocks that are over
WAIT: Final = 2.0  # seconds for a store, or the worker, to answer
MOST_WAITING: Final = 64
_DEADLINE: Final = 1.0  # seconds; nobody's request waits for it
_AWAY: Final = "where the limits count cannot be asked now: ask again in a moment"

Say = Callable[[msgspec.Struct, bytes], bool]
"""Says something to workers; False: there is none."""


class _File(msgspec.Struct):
    file: str = ""


class _Brief(msgspec.Struct):
    """What of a configuration matters here."""

    store: str | None = None
    events: _File | None = None


_brief = msgspec.json.Decoder(_Brief).decode
_kept = msgspec.msgpack.Decoder(list[Block]).decode


class Operations:
    """See the module. Everything runs on control's loop.

    Args:
        kept: what `kept` gave to control's predecessor.
        everybody, one: say something to all workers; to the one that came last.
        keep: called when `kept` gives something else.

    Attributes:
        blocks: the list.
    """

    __slots__ = (
        "_alone", "_counter", "_everybody", "_keep", "_local", "_looks", "_loop", "_notes", "_number", "_one", "_redis",
        "_share", "_sharing", "_soon", "_timers", "_told", "blocks",
    )  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, config: Config, counter: Counter, kept: bytes, everybody: Say, one: Say,
        keep: Callable[[], None],
    ) -> None:  # fmt: skip
        self._loop = loop
        self._counter = counter
        self._everybody = everybody
        self._one = one
        self._keep = keep
        self._alone = config.workers == 1
        self._local: EmbeddedStore | None = None
        self._redis: Store | None = None
        self._share: SharedList | None = None
        self._sharing = False
        self._notes = Notes(loop, config.events.file if config.events is not None else None)
        self._soon: asyncio.Future[None] | None = None
        self._looks: dict[int, asyncio.Future[tuple[Level, ...] | None]] = {}
        self._number = 0
        self._timers: list[asyncio.TimerHandle] = []
        self._told: bytes
        self.blocks = BlockList(_kept(kept) if kept else ())
        self._pack()  # workers may connect, and what is to be kept may be asked for, before `start`

    def start(self, config: Config, server: StoreServer) -> None:
        """Begin. `server`: where several workers count together."""
        self._local = EmbeddedStore(server.memory, server.clock)
        if config.store is not None:
            self._open(config.store.reveal().decode("utf-8", "surrogateescape"))
        self._tick()

    def use(self, config: bytes) -> None:
        """Another configuration (JSON) is in use. A store is opened once, as workers do."""
        brief = _brief(config)
        self._notes.path = brief.events.file if brief.events is not None else None
        if brief.store is not None and self._redis is None:
            self._open(brief.store)

    def _open(self, url: str) -> None:
        from edgeproxy.blockshare import SharedList  # who has no such store does not pay for it

        clock = steady_clock()
        try:
            store = open_redis(url, Settings(deadline=_DEADLINE, mode="closed"), Memory(clock(), 1, 0), clock)
        except OSError as error:  # its TLS files: the workers say more
            print(f"edgeproxy: control cannot use the store: {error}", file=sys.stderr)  # noqa: T201
            return
        self._redis = store
        self._share = SharedList(store, time.monotonic)
        self.blocks.shared = True
        self._sync_on()

    def close(self) -> None:
        """Nobody is answered any more."""
        for timer in self._timers:
            timer.cancel()
        if self._redis is not None:
            self._redis.close()

    # Blocks

    def shown(self) -> list[dict[str, Any]]:
        """All blocks, for people and programs."""
        now = time.monotonic()
        self.blocks.expire(now)
        return self.blocks.shown(now, time.time())

    async def block(self, content: bytes) -> dict[str, Any]:
        """Adds a block, or takes one away (`understand` says how), and waits until workers are told.

        Raises: Refused.
        """
        now, wall = time.monotonic(), time.time()
        block = understand(content, now, wall)
        self.blocks.expire(now)
        done = self.blocks.put(block, now)
        shown = row(block, now, wall)
        added = block.until > now
        await self._changed()
        self._sync()
        self._notes.write({"event": "block_added" if added else "block_removed", **shown})
        return {"blocked" if added else "removed": done, **shown}

    def kept(self) -> bytes:
        """All of it, for the control that comes after this one."""
        return self._told

    def greeting(self) -> tuple[msgspec.Struct, bytes]:
        """What a worker is told first."""
        return Blocked(), self._told

    def _changed(self) -> asyncio.Future[None]:
        """Tell everybody, soon. Returns: done when they are told."""
        if self._soon is None:
            self._soon = self._loop.create_future()
            self._loop.call_later(SOON, self._tell)
        return self._soon

    def _pack(self) -> None:
        self._told = msgspec.msgpack.encode(self.blocks.blocks)

    def _tell(self) -> None:
        soon, self._soon = self._soon, None
        self._pack()
        self._keep()
        self._everybody(Blocked(), self._told)
        if soon is not None and not soon.done():
            soon.set_result(None)

    def _again(self, seconds: float, step: Callable[[], None]) -> None:
        self._timers = [timer for timer in self._timers if timer.when() > self._loop.time() and not timer.cancelled()]
        self._timers.append(self._loop.call_later(seconds, step))

    def _tick(self) -> None:
        if self.blocks.expire(time.monotonic()):
            self._changed()
        self._again(TICK, self._tick)

    # Blocks of other nodes

    def _sync_on(self) -> None:
        self._sync()
        self._again(POLL, self._sync_on)

    def _sync(self) -> None:
        """One question at a time: an answer is about what it was asked with."""
        if self._share is None or self._sharing:
            return
        blocks, said = self.blocks, self.blocks.unsaid()
        self._sharing = True
        self._share.sync(said, blocks.epoch, blocks.version, lambda shared: self._heard(shared, said))

    def _heard(self, shared: Shared | None, said: dict[Name, Block | None]) -> None:
        self._sharing = False
        if shared is None:
            return
        if self.blocks.heard(shared, said, time.monotonic()):
            self._changed()
        if self.blocks.unsaid():
            self._sync()

    # Limits

    async def limits(self, content: bytes, *, reset: bool) -> dict[str, Any]:
        """The state of a request's or a key's limits, or what was reset of it.

        Args:
            content: JSON, as explaining/counted.py understands it.

        Raises: Unclear, Busy.
        """
        counted = await self._counter.counted(content)
        levels = await self._levels(counted.charges, reset) if counted.limits else ()
        if levels is None:
            raise Busy(_AWAY)
        if not reset:
            return counted.shown(levels)
        told = counted.reset()
        if counted.limits:
            counters = [{"limit": limit.label, "counter": charge.key.hex()} for limit, charge in counted.limits]
            self._notes.write({"event": "limits_reset", "limits": counters})
        return told

    async def _levels(self, charges: list[Charge], reset: bool) -> tuple[Level, ...] | None:
        store: Store | None = self._redis or (None if self._alone else self._local)
        if len(self._looks) >= MOST_WAITING:
            return None
        self._number += 1
        number = self._number
        answer: asyncio.Future[tuple[Level, ...] | None] = self._loop.create_future()
        self._looks[number] = answer
        try:
            if store is not None:
                self._ask(store, charges, reset, number)
            elif not self._one(Look(number, reset), lookup.pack(charges)):
                return None
            return await asyncio.wait_for(answer, WAIT)
        except TimeoutError:
            return None
        finally:
            del self._looks[number]

    def _ask(self, store: Store, charges: list[Charge], reset: bool, number: int) -> None:
        if reset:
            store.reset(charges, lambda made: self._answer(number, () if made else None))
        else:
            store.peek(charges, lambda levels: self._answer(number, levels))

    def looked(self, head: Looked, blob: bytes) -> None:
        """A worker's answer. Raises: msgspec.DecodeError."""
        self._answer(head.number, lookup.unpack_levels(blob) if head.done else None)

    def _answer(self, number: int, levels: tuple[Level, ...] | None) -> None:
        answer = self._looks.get(number)
        if answer is not None and not answer.done():
            answer.set_result(levels)
