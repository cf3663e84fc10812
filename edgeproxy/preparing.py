# What a worker does in its threads, so that its loop goes on: parsing, validating, compiling. When, and what for, says worker.py.
"""`gently`, `compiled`, `keys_of` and `with_keys`. None of them touches the loop's side of the worker."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgeproxy.config.keys import KeyBook
from edgeproxy.config.keys_shared import same_place
from edgeproxy.config.model import Config
from edgeproxy.ipc import TICKET_KEYS

if TYPE_CHECKING:
    from edgeproxy.worker import Task


_one = threading.Lock()  # else two would put back what the other has set


@contextmanager
def gently(*, keeps: bool = True) -> Iterator[None]:
    """In one thread at a time: a short switch interval keeps the loop's waits for the lock short.

    The collector never walks over what comes of it, tens of thousands of objects, with the loop waiting. Nothing of ours
    needs it: a snapshot has no cycles and goes when the last exchange lets go of it.

    Args:
        keeps: false where few objects come of it, and often: everything else that is there at the end is withdrawn from
            the collector as well, for ever.
    """
    with _one:
        before = sys.getswitchinterval()
        sys.setswitchinterval(0.0005)
        gc.disable()
        try:
            yield
            if keeps:
                gc.freeze()
        finally:
            gc.enable()
            sys.setswitchinterval(before)


def compiled(task: Task, blob: bytes) -> tuple[Config, Any]:
    """Parse, validate, compile."""
    with gently():
        config = Config.model_validate_json(blob[TICKET_KEYS:])
        return config, task.plane.prepare(config, blob[:TICKET_KEYS], task.instance)


def keys_of(blob: bytes) -> KeyBook:
    """Keys as they travel."""
    with gently():
        return KeyBook.model_validate_json(blob)


def with_keys(config: Config, snapshot: Any, keys: tuple[Config, KeyBook]) -> Any:
    """A snapshot of `config` with keys that came for another configuration, if it has its keys from there, too."""
    if not same_place(config, keys[0]):
        return snapshot
    with gently():
        return snapshot.with_keys(keys[1])
