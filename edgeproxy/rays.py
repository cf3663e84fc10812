# Ray ids: who asked for what, in the reply, at the upstream and in the log.
"""Ids of exchanges: 16 hex digits of the system's randomness, fetched a few thousand bytes at a time."""

from __future__ import annotations

import os

_DIGITS = 16
_BATCH = 512 * _DIGITS // 2  # bytes fetched at once


class Rays:
    """A source of ids for one worker. Made after the fork, so that no two workers share one."""

    __slots__ = ("_at", "_pool")

    def __init__(self) -> None:
        self._pool = b""
        self._at = 0

    def next(self) -> bytes:
        """An id that was not given out before (64 random bits) and cannot be guessed from others."""
        at = self._at
        if at >= len(self._pool):
            self._pool = os.urandom(_BATCH).hex().encode("ascii")
            at = 0
        self._at = at + _DIGITS
        return self._pool[at : at + _DIGITS]
