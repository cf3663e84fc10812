# Ray ids: who asked for what, in the reply, at the upstream and in the log.
"""Ids of exchanges: 16 hex digits of the system's randomness, fetched a few thousand bytes at a time."""

from __future__ import annotations

import os

_DIGITS = 16
_BATCH = 512 * _DIGITS // 2  # bytes fetched at once


class Rays:
    """A source of ids for one worker. Made after the fork, so that no two workers share one.

    Attributes:
        left: ids that nobody has; taken from its end, or by `next` when it is empty.
    """

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left: list[bytes] = []

    def next(self) -> bytes:
        """An id that was not given out before (64 random bits) and cannot be guessed from others."""
        if not self.left:
            digits = os.urandom(_BATCH).hex().encode("ascii")
            self.left = [digits[at : at + _DIGITS] for at in range(0, len(digits), _DIGITS)]
        return self.left.pop()
