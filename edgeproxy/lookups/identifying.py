# Identifying bots, put together: what a configuration says becomes an Identity, and what outlives configurations is kept here.
"""`known(section)` reads files, in a thread; `Identifying.identity(known)` makes what a snapshot asks, on the worker's loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from edgeproxy.bots.catalogue import Bot, Catalogue, shipped
from edgeproxy.bots.identity import Identity, Nonces, agents_of
from edgeproxy.bots.ranges import NOTHING, Published, read_folder
from edgeproxy.config.identity import BotIdentity
from edgeproxy.lookups.service import Lookups


class Known(NamedTuple):
    """A section as it is used."""

    catalogue: Catalogue
    agents: dict[str, Bot]
    published: Published
    dns: bool
    once: bool


def known(section: BotIdentity) -> Known:
    """Compile. CPU and files only: call it in a thread. What cannot be read is in `published.problems`; nothing raises."""
    catalogue = shipped()
    agents = agents_of(catalogue, section.agents)
    if not section.known_agents:
        agents = {agent: bot for agent, bot in agents.items() if agent in section.agents}
    published = NOTHING if section.ranges is None else read_folder(section.ranges, catalogue.sources)
    # Here, so that the loop does not wait for the modules to be loaded.
    if section.dns:
        import edgeproxy.lookups.dns
    if agents:
        import edgeproxy.lookups.https  # noqa: F401  see above
    return Known(catalogue, agents, published, section.dns, section.nonces == "once")


class Identifying:
    """One of a worker. What is known of addresses, keys and nonces outlives snapshots.

    Attributes:
        lookups: None until a configuration wants something looked up.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.lookups: Lookups | None = None
        self._clock = clock
        self._nonces = Nonces()

    def identity(self, found: Known) -> Identity:
        """For a snapshot that is about to be used; on the loop. An older snapshot's goes on, with the agents of this one."""
        names = keyring = None
        if found.dns or found.agents:
            lookups = self.lookups = self.lookups or Lookups(found.agents, self._clock)
            lookups.apply(found.catalogue.suffixes if found.dns else (), found.agents)
            names = lookups.names if found.dns else None
            keyring = lookups.keyring if found.agents else None
        spend = self._nonces if found.once else None
        return Identity(found.catalogue, found.agents, found.published, names, keyring, spend)

    async def close(self) -> None:
        """Questions that are under way are given up."""
        if self.lookups is not None:
            await self.lookups.close()
