# What is kept for a time, in a bounded place: blocks, small blobs, leases that were settled. No clock, no timers.
"""`Shelf`: values with an expiry, bounded in number and bytes. `Recent`: names that were seen lately."""

from __future__ import annotations

from typing import Final

SWEPT: Final = 4  # entries looked at for each one that is put: more than one, so that what expired does not pile up


class Shelf:
    """Values by key, each for a time of its own. When it is full of what has not expired, nothing more is taken.

    Attributes:
        size: bytes of the values on it.
    """

    __slots__ = ("_count", "_old", "_size", "_young", "size")

    def __init__(self, count: int, size: int) -> None:
        self._count = count
        self._size = size
        self.size = 0
        # The sweep empties `old` from its end (which a dictionary can do at no cost) into `young`, then they change places.
        self._young: dict[bytes, tuple[int, int, bytes]] = {}
        self._old: dict[bytes, tuple[int, int, bytes]] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def put(self, key: bytes, value: bytes, ttl: int, now: int) -> bool:
        """Keeps `value` for `ttl` microseconds in place of what is there; says whether there was room."""
        self.drop(key)
        self.sweep(now, SWEPT)
        if len(self) >= self._count or self.size + len(value) > self._size:
            self.sweep(now, len(self))
            if len(self) >= self._count or self.size + len(value) > self._size:
                return False
        self._young[key] = (now + ttl, ttl, value)
        self.size += len(value)
        return True

    def find(self, key: bytes, now: int) -> tuple[int, bytes] | None:
        """How long it is kept from now on, and the value."""
        entry = self._young.get(key) or self._old.get(key)
        if entry is None:
            return None
        expires, ttl, value = entry
        if expires - now > ttl:  # the clock went back: it is not kept for longer than it was meant to be
            expires = now + ttl
            self.drop(key)
            self._young[key] = (expires, ttl, value)
            self.size += len(value)
        if expires > now:
            return expires - now, value
        self.drop(key)
        return None

    def drop(self, key: bytes) -> None:
        entry = self._young.pop(key, None) or self._old.pop(key, None)
        if entry is not None:
            self.size -= len(entry[2])

    def sweep(self, now: int, count: int) -> None:
        """Looks at up to `count` entries and drops what has expired."""
        if not self._old:
            self._old, self._young = self._young, self._old
        old, young = self._old, self._young
        for _ in range(min(count, len(old))):
            key, entry = old.popitem()
            if now < entry[0] <= now + entry[1]:
                young[key] = entry
            elif entry[0] > now:
                young[key] = (now + entry[1], entry[1], entry[2])
            else:
                self.size -= len(entry[2])


class Recent:
    """The last names that were seen: at least `count` of them, at most twice as many."""

    __slots__ = ("_count", "_new", "_old")

    def __init__(self, count: int) -> None:
        self._count = count
        self._new: set[bytes] = set()
        self._old: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def see(self, name: bytes) -> bool:
        """Remembers the name; says whether it was seen for the first time."""
        if name in self._new or name in self._old:
            return False
        if len(self._new) >= self._count:
            self._old, self._new = self._new, set()
        self._new.add(name)
        return True
