# A Redis store whose server is a list: tests see what is sent, and say what is answered.
"""`Stand`: a store, and `Paper`, its link."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
import msgspec

from edgeproxy.state.embedded import steady_clock
from edgeproxy.state.memory import Memory
from edgeproxy.state.ports import Admission, Charge, Kind
from edgeproxy.state.redis import RedisStore, Settings
from edgeproxy.state.redis_dial import SHA
from edgeproxy.state.redis_link import Call, Link
from edgeproxy.state.redis_url import parse
from support.stores import DAY, SECOND, name, quota
from support.waiting import until

DEADLINE = 0.05


class Paper(Link):
    """A link that keeps what is sent. Commands are parsed as a server would."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[list[bytes]] = []
        self.ended = False
        self._lost: Callable[[], None] = lambda: None

    def watch(self, on_lost: Callable[[], None]) -> None:
        self._lost = on_lost

    def send(self, data: bytes, calls: Any) -> None:
        assert not self.ended
        reader = hiredis.Reader()
        reader.feed(data)
        while (words := reader.gets()) is not False:
            self.sent.append(words)
        self.calls.extend(calls)
        assert len(self.calls) == len(self.sent), "a call for each command"

    def reply(self, what: Any) -> list[bytes]:
        """Answers the oldest command, and returns it."""
        words = self.sent.pop(0)
        self.calls.popleft().answered(what)
        return words

    def lose(self) -> None:
        self.ended = True
        self._lost()
        calls: deque[Call] = self.calls
        self.calls = deque()
        for call in calls:
            call.lost()

    def abort(self) -> None:
        if not self.ended:
            asyncio.get_running_loop().call_soon(self.lose)

    def close(self, *, linger: bool) -> None:
        self.abort()


class Papered(RedisStore):
    """A store whose links are made of paper."""

    def _begin(self) -> None:
        self.links: asyncio.Queue[Paper] = asyncio.Queue()
        super()._begin()

    async def _dial(self) -> tuple[Link, int]:
        return await self.links.get(), 0


class Stand:
    def __init__(self, **options: Any) -> None:
        clock = steady_clock()
        settings = Settings(**{"deadline": DEADLINE, **options})
        self.store = Papered(parse("redis://nowhere"), settings, Memory(clock()), clock)
        self.told: list[Admission] = []

    async def connect(self) -> Paper:
        link = Paper()
        self.store.links.put_nowait(link)
        await until(lambda: self.store.lanes[0].up)
        return link

    def ask(self, *charges: Charge, lease: bytes | None = None) -> None:
        self.store.admit(charges, lease or name(), self.told.append)

    async def fallen(self) -> None:
        """Until the deadline has passed."""
        await until(lambda: not self.store.lanes[0].up)


async def rounds(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def asked(words: list[bytes]) -> tuple[int, int]:
    """Settlements and exchanges of a batch."""
    assert words[:2] == [b"EVALSHA", SHA["admit"]], words
    numbers = msgspec.msgpack.decode(words[3 + int(words[2])])
    return numbers[2], numbers[3]


def verdicts(count: int, *, good: bool = True, now: int = 1_000, late: bool = False) -> bytes:
    """The reply to a batch of exchanges with one charge each."""
    return msgspec.msgpack.encode([now, late, *([good, good, 5, 0, 0 if good else 9_000, now] * count)])


CHARGE = Charge(quota(Kind.FIXED, 10, DAY), b"k" * 16, 2)
LEASE = Charge(quota(Kind.LEASES, 3, 60 * SECOND), b"l" * 16, 1)
