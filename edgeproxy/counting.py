# Where this worker's limits count: alone, with the edge's other workers, or in Redis. What is counted is not known here.
"""`open_store` makes a worker's store; `begun` waits until it answers, for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeproxy.config.keys import Budget
from edgeproxy.rules.model import challenges
from edgeproxy.state.embedded import steady_clock
from edgeproxy.state.memory import Memory
from edgeproxy.state.redis import RedisStore, Settings
from edgeproxy.state.redis_open import open_redis
from edgeproxy.state.remote import RemoteStore

if TYPE_CHECKING:
    import asyncio

    from edgeproxy.config.model import Config
    from edgeproxy.state.stats import StoreStats

_BEGIN: Final = 1.0  # seconds that a start waits for the store; then the failure mode holds until it is there
_LOCAL_KEYS: Final = 50_000


def open_store(
    loop: asyncio.AbstractEventLoop, config: Config, path: str | None, stats: StoreStats | None = None
) -> RemoteStore | RedisStore | None:
    """A store that is somewhere else, not waited for; None when this worker counts alone, or nothing is to be counted (that a
    puzzle of a challenge is used once is counted, too).

    Args:
        path: of the socket on which control counts for several workers; None: there is one worker.

        stats: what it counts itself.

    Raises: OSError (the files of the store's TLS).
    """
    if not config.limits and not _budgets(config) and not challenges(config.rules.book) and not config.bots.enabled:
        return None
    deadline, mode = config.store_deadline, config.on_store_failure
    if config.store is not None:
        clock = steady_clock()
        settings = Settings(deadline=deadline, mode=mode, shares=config.workers * config.store_shares)
        url = config.store.reveal().decode("utf-8", "surrogateescape")
        return open_redis(url, settings, Memory(clock(), _LOCAL_KEYS, 0), clock, stats)
    if path is not None:
        return RemoteStore(loop, path, mode, config.workers, deadline=deadline, stats=stats)
    return None


def _budgets(config: Config) -> bool:
    """Whether a key of the edge may use up only so much: that is counted, too. One from Redis may come at any time."""
    if config.keys is not None and config.keys.redis is not None:
        return True
    book = config.keys.book if config.keys is not None else None
    return book is not None and any(key.budget != Budget() for key in book.keys)


async def begun(store: RemoteStore | RedisStore) -> None:
    """Wait until the store answers, so that not even the first request is decided without it."""
    if isinstance(store, RemoteStore):
        await store.start(_BEGIN)
    else:
        await store.ready(_BEGIN)
