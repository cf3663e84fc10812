# Files of published networks are looked at again while they are in use. Reading is done in a thread; the loop only puts in use.
"""`Following`: one of a worker. `follow(…)` says which folder and who is told; nothing else stops or starts it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeproxy.bots.ranges import NOTHING, File, Published, kept, read_folder
from edgeproxy.preparing import gently

if TYPE_CHECKING:
    from edgeproxy.observe.bot_stats import BotStats

_log = logging.getLogger("edgeproxy")


def read_again(before: Published) -> Published:
    """The same one if its folder looks as it did. In a thread."""
    if before.folder is None or not before.is_stale():
        return before
    with gently(keeps=False):
        return read_folder(before.folder, (*before.files, *before.missing), before)


class Following:
    """See the module.

    Attributes:
        published: what is in use.
    """

    __slots__ = ("_every", "_looking", "_loop", "_stats", "_timer", "_use", "published")

    def __init__(self, loop: asyncio.AbstractEventLoop, stats: BotStats) -> None:
        self._loop = loop
        self._stats = stats
        self._use: Callable[[Published], None] | None = None
        self._every = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._looking: asyncio.Task[None] | None = None
        self.published = NOTHING

    def follow(self, published: Published, every: float, use: Callable[[Published], None]) -> None:
        """A snapshot comes into use: look at its folder from now on, and at no other.

        Args:
            published: as the snapshot has read it.
            every: seconds.
            use: told at once, and whenever the folder brings something else.
        """
        before = self.published
        if self._timer is not None and every != self._every:
            self._timer.cancel()
            self._timer = None
        self._every, self._use = every, use
        self._put(kept(published, before), before)
        if self._timer is None and self._looking is None:
            self._wait()

    def stop(self) -> None:
        """No snapshot wants to know."""
        self._use = None
        self.published = NOTHING
        self._count()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def close(self) -> None:
        """What is being read is given up."""
        self.stop()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def _wait(self) -> None:
        if self._use is not None and self.published.folder is not None:
            self._timer = self._loop.call_later(self._every, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._looking = self._loop.create_task(self._look())

    async def _look(self) -> None:
        try:
            await self.look()
        except Exception as error:  # of ours; networks that are in use stay
            self._stats.failures += 1
            _log.error("Files of networks could not be looked at (see edgeproxy_bot_failures_total).", exc_info=error)
        finally:
            self._looking = None
            self._wait()

    async def look(self) -> None:
        """Once, now."""
        before = self.published
        if before.folder is None:
            return
        found = await self._loop.run_in_executor(None, read_again, before)
        if found is not before and self.published is before:  # else another snapshot has come meanwhile
            self._put(found, before)

    def _put(self, found: Published, before: Published) -> None:
        self.published = found
        self._tell(found, before)
        self._count()
        if self._use is not None:
            self._use(found)

    def _count(self) -> None:
        self._stats.ranges_broken, self._stats.ranges_oldest = self.published.broken, self.published.oldest

    def _tell(self, found: Published, before: Published) -> None:
        """Say what is wrong with what was not read before."""
        reads = self._stats.range_reads
        known = before.files if before.folder == found.folder else {}
        if found.gone:
            if not before.gone or before.folder != found.folder:
                reads["failed"] = reads.get("failed", 0) + 1
                said = "bots.identity.ranges: %s is not there, or may not be looked into; what was read from it stays in use."
                _log.error(said, found.folder)
            return
        for name, file in found.files.items():
            last = known.get(name)
            if last is not None and (last.name, last.state) == (file.name, file.state):
                continue
            outcome = "failed" if file.broken else "found"
            reads[outcome] = reads.get(outcome, 0) + 1
            if file.problems:
                _log.log(logging.ERROR if file.broken else logging.WARNING, "bots.identity.ranges: %s", _sentence(found, file))


def _sentence(found: Published, file: File) -> str:
    more = f" (and {len(file.problems) - 1} more)" if len(file.problems) > 1 else ""
    said = f"{found.folder}/{file.name}: {file.problems[0]}{more}"
    if not file.broken:
        return f"{said}; the rest of it is in use."
    if file.ranges is None:
        return f"{said}; nobody is verified by it."
    written = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(file.written))  # datetime raises for years above 9999
    return f"{said}; its networks of {written} UTC stay in use."
