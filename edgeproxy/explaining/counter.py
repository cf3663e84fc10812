# Questions at the admin address, where nobody logs in: one at a time in a thread, few that wait, and none for long.
"""`Counter`: where a `Desk` is asked from a loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from edgeproxy.explaining.question import Busy

if TYPE_CHECKING:
    from edgeproxy.explaining.counted import Counted
    from edgeproxy.explaining.desk import Desk

WAITING: Final = 2  # questions behind the one that is being answered
T = TypeVar("T")
LIMIT: Final = 10.0  # seconds from a question to its answer


class Counter:
    """See the module. Everything is called on the loop's thread."""

    __slots__ = ("_desk", "_limit", "_loop", "_open", "_thread")

    def __init__(self, desk: Desk, loop: asyncio.AbstractEventLoop, limit: float = LIMIT) -> None:
        self._desk = desk
        self._loop = loop
        self._limit = limit
        self._open = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explain")

    async def ask(self, content: bytes) -> bytes:
        """The explanation, as `Desk.answer`.

        Raises: Unclear; Busy when too many wait, or it takes too long.
        """
        return await self._ask(self._desk.answer, content)

    async def counted(self, content: bytes) -> Counted:
        """Limits, as `Desk.counted`. Raises: as `ask`."""
        return await self._ask(self._desk.counted, content)

    async def _ask(self, work: Callable[[bytes, float], T], content: bytes) -> T:
        if self._open > WAITING:
            raise Busy("other questions are being answered: ask again in a moment")
        self._open += 1
        task = self._thread.submit(work, content, time.monotonic() + self._limit)
        task.add_done_callback(self._on_done)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(task), self._limit)
        except TimeoutError:
            # A thread cannot be ended: it ends itself at the next rule, and until then its place is taken.
            raise Busy("this takes too long: ask again, what was compiled is kept; or ask 'edgeproxy explain'") from None

    def close(self) -> None:
        """Nobody is answered any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _on_done(self, _task: Future[Any]) -> None:
        """Called in the thread, or on the loop for a question that was taken back."""
        with suppress(RuntimeError):  # the loop is gone
            self._loop.call_soon_threadsafe(self._leave)

    def _leave(self) -> None:
        self._open -= 1
