# How a new configuration comes into use: all workers prepare it, then all switch, or none does. The supervisor drives
# this; the work is the workers'.
"""Reloads: load and validate once, prepare in each worker, switch together. A bad file changes nothing and says why."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgeproxy.children import Child
from edgeproxy.config.keys import KeyBook
from edgeproxy.config.keys_shared import same_place, with_book
from edgeproxy.config.load import load
from edgeproxy.config.model import Config
from edgeproxy.config.problems import ConfigError
from edgeproxy.config.secret import TO_WORKERS
from edgeproxy.ipc import TICKET_KEYS, Forget, Prepare, Rekey, ReloadState, Switch
from edgeproxy.system import notify

PREPARE_DEADLINE: Final = 30.0  # seconds for all workers to prepare a configuration, and again to switch
_STORE = ("store", "store_shares", "on_store_failure", "store_deadline")
_LOGS = ("access_log", "events")
_SOCKETS = ("https", "http", "admin")  # bound before the fork, maybe with rights that are gone since


def applicable(running: Config, wanted: Config) -> tuple[Config, tuple[str, ...]]:
    """``wanted`` with every setting that needs a restart left as it is in ``running``, and the names of those that
    differ (empty: all of it is applied)."""
    named: list[str] = []
    sockets: dict[str, Any] = {}
    for name in _SOCKETS:
        if getattr(running.listen, name) != getattr(wanted.listen, name):
            named.append(f"listen.{name}")
            sockets[name] = getattr(running.listen, name)
    if ("h3" in running.listen.protocols) != ("h3" in wanted.listen.protocols):
        named.append("listen.protocols (h3)")
        others = tuple(name for name in wanted.listen.protocols if name != "h3")
        sockets["protocols"] = (*others, "h3") if "h3" in running.listen.protocols else others
    changes: dict[str, Any] = {"listen": wanted.listen.model_copy(update=sockets)} if sockets else {}
    if running.workers != wanted.workers:
        named.append("workers")
        changes["workers"] = running.workers
    for name in _STORE:
        if getattr(running, name) != getattr(wanted, name):
            named.append(name)
            changes[name] = getattr(running, name)
    # Another file is applied; having one at all decides what the data plane was built with.
    for name in _LOGS:
        if (getattr(running, name) is None) != (getattr(wanted, name) is None):
            named.append(name)
            changes[name] = getattr(running, name)
    return (wanted.model_copy(update=changes) if changes else wanted), tuple(named)


class NoKeys(Exception):
    """The keys of a configuration are in Redis, and cannot be had; the text says why, and holds no secret."""


def with_keys(config: Config, running: Config | None = None) -> Config:
    """A configuration with the keys that are in Redis, if they are. Waits for Redis where ``running`` has not got them already.
    Raises: NoKeys."""
    if config.keys is None or config.keys.redis is None:
        return config
    from edgeproxy import keys_asking  # and with it redis-py, which others need not load

    try:
        return keys_asking.filled(config, running)
    except keys_asking.NoKeys as e:
        raise NoKeys(str(e)) from e


@dataclass(slots=True)
class _Running:
    """``waiting``: slots that have not answered yet, first to Prepare, then (``switching``) to Switch."""

    generation: int
    config: Config
    ticket_keys: bytes
    needs_restart: tuple[str, ...]
    waiting: set[int]
    deadline: float
    switching: bool = False


class Reloads:
    """The configuration in use (``config``, ``ticket_keys``, ``generation``: what a worker that starts now is given)
    and the reload that may be under way. ``changed`` is set when there is news to tell; the owner clears it."""

    def __init__(
        self,
        config: Config,
        path: Path | None,
        worker_count: int | None,
        workers: Sequence[Child],
        say: Callable[[str], None],
    ) -> None:
        self.config = config
        self.ticket_keys = os.urandom(TICKET_KEYS)
        self.generation = 1
        self._attempts = 1
        self.counts = {"ok": 0, "failed": 0}
        self.last: ReloadState | None = None
        self.changed = False
        self._path = path
        self._worker_count = worker_count  # from the command line, which is stronger than the file
        self._workers = workers
        self._say = say
        self._running: _Running | None = None
        self._again = False

    @property
    def deadline(self) -> float | None:
        return self._running.deadline if self._running is not None else None

    @property
    def switching(self) -> bool:
        """Some workers may have the new generation and some the old: a matter of milliseconds."""
        return self._running is not None and self._running.switching

    def begin(self) -> None:
        """SIGHUP. While one reload is under way another is remembered, and begins when it ends."""
        if self._path is None:
            self._say("reload: there is no file to read again; the access log was reopened")
            return
        if self._running is not None:
            self._again = True
            return
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            wanted = with_keys(load(self._path), self.config)
        except (ConfigError, NoKeys) as e:
            self._fail(str(e))
            return
        if self._worker_count is not None:
            wanted = wanted.model_copy(update={"workers": self._worker_count})
        config, needs_restart = applicable(self.config, wanted)
        deadline = time.monotonic() + PREPARE_DEADLINE
        keys = os.urandom(TICKET_KEYS)
        # A number is never used twice: what a worker says about a refused attempt must not be taken for the next one.
        self._attempts = max(self._attempts, self.generation) + 1
        running = self._running = _Running(self._attempts, config, keys, needs_restart, set(), deadline)
        for child in self._workers:
            self.on_start(child)
        self._switch_if_prepared(running)

    def rekey(self, book: KeyBook, blob: bytes) -> None:
        """Other keys for the configuration in use (``blob``: the book as JSON), and for one that is being prepared if it has
        its keys from the same place. Workers do not prepare anything: they take them as they come."""
        before = self.config
        self.config = with_book(before, book)
        running = self._running
        if running is not None and same_place(before, running.config):
            running.config = with_book(running.config, book)
        for child in self._workers:
            child.send(Rekey(), blob)

    def cancel(self) -> None:
        """The edge is about to end: what is under way no longer matters."""
        self._running = None
        self._again = False

    def on_start(self, child: Child) -> None:
        """Asks a worker to prepare, if there is something to prepare."""
        running = self._running
        if running is not None and not running.switching:
            blob = running.ticket_keys + running.config.model_dump_json(context=TO_WORKERS).encode()
            if child.send(Prepare(running.generation), blob):
                running.waiting.add(child.slot)

    def on_prepared(self, child: Child, generation: int) -> None:
        running = self._running
        if running is None or running.generation != generation or running.switching:
            child.send(Forget(generation))
            return
        running.waiting.discard(child.slot)
        self._switch_if_prepared(running)

    def on_switched(self, child: Child, generation: int) -> None:
        child.generation = generation
        running = self._running
        if running is not None and running.generation == generation:
            running.waiting.discard(child.slot)
            self._end_if_switched(running)

    def on_failed(self, child: Child, generation: int, reason: str) -> None:
        running = self._running
        if running is not None and running.generation == generation and running.switching:
            self._say(f"{child.name}: {reason}; replacing it")
            child.kill()
        elif running is not None and running.generation == generation:
            self._fail(f"{child.name}: {reason}")

    def on_gone(self, child: Child) -> None:
        """A worker ended. In the middle of preparing, the new configuration may be what killed it."""
        running = self._running
        if running is None or child.slot not in running.waiting:
            return
        running.waiting.discard(child.slot)
        if running.switching:
            self._end_if_switched(running)
        else:
            self._fail(f"{child.name} ended while preparing it")

    def on_time(self, now: float) -> None:
        running = self._running
        if running is None or running.deadline > now:
            return
        late = [self._workers[slot] for slot in sorted(running.waiting)]
        names = f"{', '.join(child.name for child in late)} took more than {PREPARE_DEADLINE:.0f} s"
        if not running.switching:
            self._fail(names)
            return
        # Too late to go back. Who does not answer is replaced, and starts with the new configuration.
        self._say(f"reload: {names} to switch; replacing")
        running.deadline = now + PREPARE_DEADLINE
        for child in late:
            child.kill()

    def _switch_if_prepared(self, running: _Running) -> None:
        if running.waiting:
            return
        running.switching = True
        running.deadline = time.monotonic() + PREPARE_DEADLINE
        # From here on a worker that starts gets the new one.
        self.config, self.ticket_keys, self.generation = running.config, running.ticket_keys, running.generation
        running.waiting = {w.slot for w in self._workers if w.send(Switch(running.generation))}
        self._end_if_switched(running)

    def _end_if_switched(self, running: _Running) -> None:
        if running.waiting:
            return
        names = running.needs_restart
        reason = f"a restart is needed for: {', '.join(names)}" if names else ""
        self._say(f"reload: generation {running.generation} is in use" + (f"; {reason}" if reason else ""))
        self._end("ok", reason, names)

    def _fail(self, reason: str) -> None:
        if self._running is not None:
            for child in self._workers:
                child.send(Forget(self._running.generation))
        self._say(f"reload failed, generation {self.generation} stays in use: {reason}")
        self._end("failed", reason, ())

    def _end(self, result: str, reason: str, needs_restart: tuple[str, ...]) -> None:
        self._running = None
        self.counts[result] += 1
        self.last = ReloadState(result, time.time(), reason, needs_restart)
        self.changed = True
        notify("READY=1")
        if self._again:
            self._again = False
            self.begin()
