# Where keys are seen: outside of what they are bound to, or in more networks than one user has. Time comes in; nobody is refused.
"""`Sightings`: a small bounded state, and the events that follow from it (`Sighting`); who writes them down is not known here.

A network is the first 24 bits of an IPv4 address, the first 48 of an IPv6 one. Each worker sees what passes through it.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from edgeproxy.rules.addresses import V6, client_code, network, show_ip

HOUR: Final = 3600.0
QUIET: Final = 60.0  # seconds between two events about one key that is used elsewhere
MAX_KEYS: Final = 65_536  # keys that are watched; only keys of the edge with the right secret come here


class Sighting(NamedTuple):
    """What a security event says.

    Attributes:
        kind: `elsewhere`: a right secret came from where its key is not bound to. `networks`: a key was seen in too many.
        key, name: of the key: its id and its name.
        client: textual address.
        networks: that it was seen in within the hour, the newest last; of `elsewhere` the one it came from.
        times: of `elsewhere`: how many such requests there were since the last event, this one included.
    """

    kind: Literal["elsewhere", "networks"]
    key: str
    name: str
    client: str
    networks: tuple[str, ...]
    times: int


class _Seen:
    __slots__ = ("last", "networks", "outside", "told", "told_outside")

    def __init__(self) -> None:
        self.last = -1  # the network of the request before
        self.networks: dict[int, float] = {}  # when each was seen last, the newest last
        self.told = -HOUR
        self.told_outside = -QUIET
        self.outside = 0


def network_of(address: str) -> int:
    """The code of a client's network; -1 on a Unix socket. A plan computes it once."""
    code = client_code(address)
    if code is None:
        return -1
    return network(code, 24 if code < V6 else 48)


class Sightings:
    """See the module. It outlives snapshots; keys that are gone are forgotten by `keep`."""

    __slots__ = ("_keys", "_most")

    def __init__(self, most: int) -> None:
        """Watch.

        Args:
            most: networks within an hour that are no event.
        """
        self._most = most
        self._keys: dict[str, _Seen] = {}

    def seen(self, key_id: str, name: str, where: int, client: str, now: float) -> Sighting | None:
        """A key was used where it may be.

        Args:
            where: as `network_of` says.
            now: seconds, of a clock that never steps back.

        Returns: at most one event an hour for a key.
        """
        entry = self._keys.get(key_id) or self._new(key_id)
        networks = entry.networks
        if where == entry.last:  # nothing new; the time is kept fresh, without sorting anew
            networks[where] = now
            return None
        entry.last = where
        networks.pop(where, None)
        networks[where] = now
        while len(networks) > self._most + 1 or networks[next(iter(networks))] <= now - HOUR:
            del networks[next(iter(networks))]
        if len(networks) <= self._most or now - entry.told < HOUR:
            return None
        entry.told = now
        return Sighting("networks", key_id, name, client, tuple(map(_shown, networks)), 1)

    def elsewhere(self, key_id: str, name: str, client: str, now: float) -> Sighting | None:
        """A key was refused since it is bound to other places. Returns: at most one event in QUIET seconds for a key."""
        entry = self._keys.get(key_id) or self._new(key_id)
        entry.outside += 1
        if now - entry.told_outside < QUIET:
            return None
        times, entry.outside, entry.told_outside = entry.outside, 0, now
        return Sighting("elsewhere", key_id, name, client, (_shown(network_of(client)),), times)

    def keep(self, key_ids: set[str], most: int) -> None:
        """Forget all other keys: a reload took them away. `most`: as at the beginning."""
        self._most = most
        self._keys = {key_id: entry for key_id, entry in self._keys.items() if key_id in key_ids}

    def _new(self, key_id: str) -> _Seen:
        if len(self._keys) >= MAX_KEYS:
            del self._keys[next(iter(self._keys))]
        entry = self._keys[key_id] = _Seen()
        return entry


def _shown(code: int) -> str:
    if code < 0:
        return "unix"
    return f"{show_ip(code)}/{24 if code < V6 else 48}"
