# The process that asks Redis for changed keys, and tells the supervisor. It waits for Redis, so that nobody else has to.
"""The keeper of keys. It has no loop and serves nobody: it asks, says what is new, and sleeps. It is there only where keys
are in Redis; while it is away, or Redis is, the keys that are known hold."""

from __future__ import annotations

import os
import select
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from edgeproxy.config.keys import KeyBook, Keys
from edgeproxy.config.secret import TO_WORKERS
from edgeproxy.ipc import Channel, ChannelClosed, IpcError, KeysChanged, KeysFound, KeysLost, Ready, ToKeeper
from edgeproxy.keys_asking import Look, NoKeys, confirmed, look, shelf

_TOUCH: Final = 60.0  # seconds between two times that the cache's file is marked as up to date


@dataclass(slots=True)
class Task:
    """What the keeper is given at its fork: the section, with the keys that are known."""

    keys: Keys
    channel: Channel[ToKeeper]


def run(task: Task) -> int:
    """Runs the keeper to its end; returns the exit code. Called in the child, right after the fork."""
    keeper = Keeper(task)
    try:
        keeper.send(Ready(0))
        while True:
            keeper.ask()
            if not keeper.wait(task.keys.refresh):
                return 0
    except (ChannelClosed, IpcError):
        return 0  # the supervisor is gone
    finally:
        keeper.close()


class Keeper:
    """Asks, and tells what is new."""

    __slots__ = ("_book", "_channel", "_confirmed", "_keys", "_lost", "_shelf", "_touched", "_version")

    def __init__(self, task: Task) -> None:
        assert task.keys.book is not None
        self._keys = task.keys
        self._channel = task.channel
        self._book: KeyBook = task.keys.book
        self._shelf = shelf(task.keys)
        self._version = b""
        self._confirmed = confirmed(task.keys)
        self._touched = time.monotonic()
        self._lost: bool | None = None  # not known yet

    def ask(self) -> None:
        """Once. Raises: ChannelClosed."""
        try:
            found = look(self._keys, self._book, self._shelf, self._version)
        except NoKeys as error:
            if not self._lost:
                self._lost = True
                self.send(KeysLost(self._confirmed, str(error)))
            return
        self._confirmed = time.time()
        if self._lost is not False:
            self._lost = False
            self.send(KeysFound())
        self._take(found)
        self._touch()

    def _take(self, found: Look) -> None:
        self._version = found.version
        if found.unkept:
            print(f"edgeproxy: keys: {found.unkept}", file=sys.stderr, flush=True)  # noqa: T201  the supervisor's log
        if found.book is not None and found.book != self._book:
            self._book = found.book
            self.send(KeysChanged(), found.book.model_dump_json(context=TO_WORKERS).encode())

    def _touch(self) -> None:
        """The age of the cache's file is that of what is in it."""
        now = time.monotonic()
        if self._keys.cache is not None and now - self._touched >= _TOUCH:
            self._touched = now
            with suppress(OSError):
                os.utime(self._keys.cache)

    def send(self, head: msgspec.Struct, blob: bytes = b"") -> None:
        """To the supervisor; waits until all of it is on its way. Raises: ChannelClosed."""
        self._channel.send(head, blob)
        while self._channel.wants_write:
            select.select([], [self._channel], [])
            self._channel.flush()

    def wait(self, seconds: float) -> bool:
        """Sleep. False when the supervisor wants this process to end. Raises: ChannelClosed, IpcError."""
        readable, _, _ = select.select([self._channel], [], [], seconds)
        return not (readable and self._channel.receive())

    def close(self) -> None:
        """The connections."""
        self._shelf.close()
