# The supervisor's side of keys that are in Redis: the process that asks for them, and where what it says goes.
"""`Keyset`: decides whether there is a keeper, and gives what it brings to the reloads, which tell the workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeproxy.children import KEEPER, Child
from edgeproxy.config.keys import KeyBook
from edgeproxy.config.keys_shared import same_place, unknown_limits
from edgeproxy.ipc import Drain, KeysState

if TYPE_CHECKING:
    from edgeproxy.config.model import Config
    from edgeproxy.reload import Reloads


class Keyset:
    """Keys that are in Redis.

    Attributes:
        child: the keeper's process; there may be none.
        changed: there is news to tell; the owner clears it.
    """

    __slots__ = ("_config", "_reloads", "_say", "_told", "changed", "child", "lost", "updates")

    def __init__(self, reloads: Reloads, say: Callable[[str], None]) -> None:
        self.child = Child("keys", KEEPER)
        self.lost: float | None = None
        self.updates = 0
        self.changed = False
        self._reloads = reloads
        self._say = say
        self._config: Config | None = None  # that the keeper was born with
        self._told: dict[str, str] = {}
        self._complain()

    @property
    def wanted(self) -> bool:
        """Whether the configuration in use has its keys in Redis."""
        keys = self._reloads.config.keys
        return keys is not None and keys.redis is not None

    @property
    def state(self) -> KeysState | None:
        """For control; None where keys are not in Redis."""
        return KeysState(self.lost, self.updates) if self.wanted else None

    def tend(self) -> bool:
        """After the configuration may have changed. True when the keeper is to be started now."""
        child = self.child
        if child.pid and self._config is not None and not self._current():
            child.send(Drain(0.0))  # the next one begins with what is in use now
            self._config = None
        return not child.pid and child.state == "gone" and self.wanted

    def born(self) -> None:
        """The keeper was started, with the configuration in use."""
        self._config = self._reloads.config

    def ended(self) -> bool:
        """The keeper's process is no more. True when that was meant."""
        meant, self._config = self._config is None, None
        if meant:
            self.child.state = "gone"
            self.lost = None
        elif self.lost is None:
            self.on_lost(time.time(), "the process that asks Redis has ended")
        return meant

    def on_changed(self, blob: bytes) -> None:
        """The keeper brings other keys. What it brings from a place that is not in use any more is nobody's."""
        if not self._current():
            return
        book = KeyBook.model_validate_json(blob)
        self._reloads.rekey(book, blob)
        self.updates += 1
        self.changed = True
        self._say(f"keys: {len(book.keys)} from Redis are in use")
        self._complain()

    def on_lost(self, since: float, reason: str) -> None:
        """Nobody knows whether they have changed."""
        self.lost = since if self.lost is None else min(self.lost, since)
        self.changed = True
        self._say(f"keys: {reason}; the known keys hold")

    def on_found(self) -> None:
        """They are known."""
        if self.lost is None:
            return
        self.lost = None
        self.changed = True
        self._say("keys: Redis says again what they are")

    def _current(self) -> bool:
        return self._config is not None and same_place(self._config, self._reloads.config)

    def _complain(self) -> None:
        """Once of each key that cannot be used here."""
        config = self._reloads.config
        if not self.wanted or config.keys is None or config.keys.book is None:
            return
        found = unknown_limits(config.keys.book, {limit.name for limit in config.limits})
        for key, name in found.items():
            if self._told.get(key) != name:
                self._say(f"keys: ep-{key} names the limit '{name}', which this edge does not have: nobody passes with it here")
        self._told = found
