# From a store's URL to the store. Nothing else.
"""`open_redis`: the store of the kind that the URL names."""

from __future__ import annotations

from collections.abc import Callable

from edgeproxy.state.fallback import Table
from edgeproxy.state.redis import RedisStore, Settings
from edgeproxy.state.redis_cluster import ClusterStore
from edgeproxy.state.redis_url import parse
from edgeproxy.state.stats import StoreStats


def open_redis(
    url: str, settings: Settings, table: Table, clock: Callable[[], int], stats: StoreStats | None = None
) -> RedisStore:
    """Begin to connect to a store, in the background; on the loop that runs.

    Args:
        table: what counts in this process while the store is away.
        clock: microseconds since the epoch.
        stats: counters to go on with.

    Raises: ValueError (the URL or the prefix), OSError (the files for TLS).
    """
    place = parse(url)
    made = ClusterStore if place.kind == "cluster" else RedisStore
    return made(place, settings, table, clock, stats=stats)
