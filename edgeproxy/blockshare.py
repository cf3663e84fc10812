# The list of blocks in Redis, as nodes share it: one script call that tells it what was changed here and brings what it says.
# What becomes of the answer is blocklist.py's business.
"""`SharedList`: over any RedisStore (one server, sentinels, a cluster). A list of entries and not a blob, since of two blobs that
two nodes write at once one is lost."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, Final

import msgspec

from edgeproxy.blocklist import Shared
from edgeproxy.policy.blocks import KINDS, MAX_REASON, MAX_SECONDS, Block, Name
from edgeproxy.state.redis import RedisStore
from edgeproxy.state.redis_dial import SHA

_KEY: Final = blake2b(b"blocks", digest_size=16).digest()
# Longer than any entry: a list that ends is begun anew by who still knows something, and would bring back what was taken away.
_LIFE: Final = (MAX_SECONDS + 86_400) * 1000
_SKEW: Final = 60.0  # seconds by which clocks of servers may differ after a failover


class _Content(msgspec.Struct, array_like=True):
    made: float
    reason: str


_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(_Content).decode


class SharedList:
    """See the module.

    Args:
        clock: the monotonic seconds that blocks are in.
    """

    __slots__ = ("_clock", "_hash", "_store")

    def __init__(self, store: RedisStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._hash = store.names.of(_KEY) + b":n"

    def sync(
        self, changes: Mapping[Name, Block | None], epoch: bytes, version: bytes, done: Callable[[Shared | None], None]
    ) -> None:
        """Tell it changes, and hear what it says.

        Args:
            changes: None: the entry is taken away.
            epoch, version: as last heard.
            done: called with None when the store could not be asked; then the changes may have been made or not.
        """
        now = self._clock()
        words = [b"EVALSHA", SHA["list"], b"1", self._hash, os.urandom(8).hex().encode(), epoch, version, b"%d" % _LIFE]
        for (kind, value), block in changes.items():
            left = int((block.until - now) * 1e6) if block is not None else 0
            content = _encode(_Content(block.made, block.reason)) if block is not None else b""
            words += (f"{kind}:{value}".encode(), b"%d" % max(left, 0), content)
        self._store.ask(_KEY, words, lambda reply: done(self._read(reply)))

    def _read(self, reply: Any) -> Shared | None:
        if not isinstance(reply, list) or len(reply) < 2:
            return None
        epoch, version, *rest = reply
        if not rest:
            return Shared(epoch, version, None)
        now, theirs = self._clock(), int(rest[0])
        found = []
        for name, value in zip(rest[1::2], rest[2::2], strict=True):
            block = _block(name, value, now, theirs)
            if block is not None:
                found.append(block)
        return Shared(epoch, version, found)


def _block(name: bytes, value: bytes, now: float, theirs: int) -> Block | None:
    """An entry; None for one that nobody here can read (a later version's), or would have written.

    Args:
        theirs: the store's time in µs when it was `now` here.
    """
    kind, _, what = name.decode("utf-8", "replace").partition(":")
    until, _, content = value.partition(b":")
    try:
        made, reason = msgspec.structs.astuple(_decode(content))
        left = (int(until) - theirs) / 1e6
    except (ValueError, OverflowError):  # msgspec's and Unicode's errors are ValueErrors
        return None
    if kind not in KINDS or left > MAX_SECONDS + _SKEW or len(reason) > MAX_REASON or not reason.isprintable():
        return None
    return Block(kind, what, now + left, made, reason)
