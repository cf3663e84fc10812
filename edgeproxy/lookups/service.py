# What identifying bots needs from outside is got here, beside the path of requests: bounded queues, a few tasks, no waiting.
"""`Lookups`: one of a worker. Its `names` and `keyring` are what `bots.identity.Identity` asks; they outlive snapshots."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from edgeproxy.bots.directory import proven
from edgeproxy.bots.keys import MAX_DIRECTORY, MEDIA_TYPE, WELL_KNOWN, Keyring, age, read_directory
from edgeproxy.bots.names import Names
from edgeproxy.lookups.answers import NotFetched, Unanswered
from edgeproxy.rules.addresses import V6, network

if TYPE_CHECKING:
    from edgeproxy.lookups.dns import Resolver
    from edgeproxy.lookups.https import Fetcher

QUESTIONS: Final = 16  # addresses that are asked about at once
WAITING: Final = 1024  # and that wait
OF_ONE_NETWORK: Final = 16  # of both, so that one network cannot keep all others from being verified
DIRECTORIES: Final = 4
_MEDIA: Final = frozenset({MEDIA_TYPE, MEDIA_TYPE.removesuffix("+json")})

_log = logging.getLogger("edgeproxy")
Item = TypeVar("Item", bound=Hashable)


class Queue(Generic[Item]):
    """Work in the background: some at once, some waiting, the rest refused."""

    __slots__ = ("_at_once", "_group", "_groups", "_loop", "_running", "_waiting", "_work")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Callable[[Item], Awaitable[None]],
        at_once: int,
        group: Callable[[Item], Hashable] | None = None,
    ) -> None:
        """Wait for work.

        Args:
            work: never raises.
            group: of which OF_ONE_NETWORK items are taken at most.
        """
        self._loop = loop
        self._work = work
        self._at_once = at_once
        self._group = group
        self._groups: Counter[Hashable] = Counter()
        self._waiting: deque[Item] = deque()
        self._running: set[asyncio.Task[None]] = set()

    def submit(self, item: Item) -> bool:
        """False: there is no room."""
        free = len(self._running) < self._at_once
        if not free and len(self._waiting) >= WAITING:
            return False
        if self._group is not None:
            group = self._group(item)
            if self._groups[group] >= OF_ONE_NETWORK:
                return False
            self._groups[group] += 1
        if free:
            task = self._loop.create_task(self._run(item))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        else:
            self._waiting.append(item)
        return True

    async def _run(self, item: Item) -> None:
        while True:
            try:
                await self._work(item)
            finally:
                self._leave(item)
            if not self._waiting:
                return
            item = self._waiting.popleft()

    def _leave(self, item: Item) -> None:
        if self._group is None:
            return
        group = self._group(item)
        self._groups[group] -= 1
        if self._groups[group] <= 0:
            del self._groups[group]

    async def close(self) -> None:
        """What runs is given up."""
        self._waiting.clear()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._running)


def _network(code: int) -> int:
    return network(code, 24 if code < V6 else 48)


class Lookups:
    """See the module.

    Attributes:
        counts: (what, outcome) → times; what: `name`, `directory`; outcome: `found`, `none`, `failed`, `refused`, `broken`.
        problems: agent → why its directory is not in use.
    """

    def __init__(
        self,
        agents: Iterable[str],
        clock: Callable[[], float] = time.time,
        resolver: Resolver | None = None,
        fetcher: Fetcher | None = None,
    ) -> None:
        """Within the running loop.

        Args:
            resolver, fetcher: None: nothing is found that way, until `apply` says so.
        """
        loop = asyncio.get_running_loop()
        self._resolver = resolver
        self._fetcher = fetcher
        self._clock = clock
        self._addresses: Queue[int] = Queue(loop, self._confirm, QUESTIONS, _network)
        self._directories: Queue[str] = Queue(loop, self._fetch, DIRECTORIES)
        self.names = Names(self._want_name)
        self.keyring = Keyring(agents, self._want_directory)
        self.counts: Counter[tuple[str, str]] = Counter()
        self.problems: dict[str, str] = {}

    def apply(self, suffixes: Sequence[str], agents: Collection[str]) -> None:
        """A configuration comes into use.

        Args:
            suffixes: of host names that are asked for; none: nobody is asked.
            agents: whose directories may be fetched.
        """
        try:
            if suffixes and self._resolver is None:
                from edgeproxy.lookups.dns import Resolver

                self._resolver = Resolver(suffixes)
            if agents and self._fetcher is None:
                from edgeproxy.lookups.https import Fetcher

                self._fetcher = Fetcher()
        except Exception as error:  # a machine without servers of DNS, or without authorities: the edge starts all the same
            _log.warning("Bots cannot be verified by look-ups: %s; whoever needs one is refused it.", error)
        self.keyring.allow(agents)
        self.problems = {agent: problem for agent, problem in self.problems.items() if agent in agents}

    def _want_name(self, code: int) -> bool:
        taken = self._resolver is not None and self._addresses.submit(code)
        if not taken:
            self.counts["name", "refused"] += 1
        return taken

    def _want_directory(self, agent: str) -> bool:
        taken = self._fetcher is not None and self._directories.submit(agent)
        if not taken:
            self.counts["directory", "refused"] += 1
        return taken

    async def _confirm(self, code: int) -> None:
        assert self._resolver is not None  # else nothing was taken
        names: tuple[str, ...] | None = None
        try:
            names = await self._resolver.confirmed(code)
        except Unanswered:
            pass
        except Exception:  # whatever the library makes of an answer: nothing is known then, and the next question is asked
            self.counts["name", "broken"] += 1
        self.counts["name", "failed" if names is None else "found" if names else "none"] += 1
        self.names.put(code, names, self._clock())

    async def _fetch(self, agent: str) -> None:
        try:
            problem = await self._directory(agent)
        except Exception as error:  # whatever libraries make of what a server says
            problem = f"could not be read: {type(error).__name__}"
        self.counts["directory", "failed" if problem else "found"] += 1
        if problem:
            self.problems[agent] = problem
            self.keyring.fail(agent, self._clock())
        else:
            self.problems.pop(agent, None)

    async def _directory(self, agent: str) -> str:
        """Why it is of no use, "" when its keys are in use now."""
        assert self._fetcher is not None
        try:
            fetched = await self._fetcher.get(agent + WELL_KNOWN, MAX_DIRECTORY, MEDIA_TYPE)
        except NotFetched as error:
            return str(error)
        kind = fetched.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in _MEDIA:
            return f"is served as '{kind[:60]}' and not as {MEDIA_TYPE}"
        keys = read_directory(fetched.body)
        if isinstance(keys, str):
            return keys
        now = self._clock()
        usable = proven(keys, fetched.headers, fetched.body, agent.removeprefix("https://"), now)
        if not usable:
            return "is signed, but by none of its keys"
        self.keyring.put(agent, usable, age(fetched.headers.get("cache-control")), now)
        return ""

    async def close(self) -> None:
        """Questions that are under way are given up."""
        await self._addresses.close()
        await self._directories.close()
        if self._resolver is not None:
            await self._resolver.close()
        if self._fetcher is not None:
            await self._fetcher.close()
