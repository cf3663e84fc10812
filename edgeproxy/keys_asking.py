# Keys of the edge that several edges share in Redis: what an edge begins with, and what it does when Redis is not there.
"""`filled` gives a configuration its keys, at a start or a reload; `look` asks for changes afterwards (keys_keeper.py)."""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from edgeproxy.config.document import MAX_BYTES
from edgeproxy.config.keys import KeyBook, Keys
from edgeproxy.config.keys_file import read_shared
from edgeproxy.config.keys_shared import same_place, with_book
from edgeproxy.config.model import Config
from edgeproxy.keys_redis import Held, Shelf, Unreachable
from edgeproxy.replacing import replace

_MODE: Final = 0o600


class NoKeys(Exception):
    """There are no keys that could be used; the text says why, and holds no secret."""


class Look(NamedTuple):
    """What Redis has.

    Attributes:
        version: of it; so long as it is that one nothing has changed.
        book: None: it is still that version.
        unkept: why the cache could not be written; "": it was, or there is none.
    """

    version: bytes
    book: KeyBook | None
    unkept: str = ""


def filled(config: Config, running: Config | None = None) -> Config:
    """A configuration that was read, with its keys.

    Args:
        running: one that has them already, and is kept up to date.

    Raises: NoKeys.
    """
    keys = config.keys
    if keys is None or keys.redis is None or keys.book is None:
        return config
    if running is not None and running.keys is not None and running.keys.book is not None and same_place(config, running):
        return with_book(config, running.keys.book)
    return with_book(config, _first(keys, keys.book))


def shelf(keys: Keys) -> Shelf:
    """The place in Redis that a section names."""
    assert keys.redis is not None
    return Shelf(keys.redis.reveal().decode("utf-8", "surrogateescape"))


def _first(keys: Keys, empty: KeyBook) -> KeyBook:
    at = shelf(keys)
    try:
        found = look(keys, empty, at)
    except NoKeys as error:
        held = None if keys.cache is None else _cached(keys.cache)
        if held is None:
            kept = "'keys.cache' names no file" if keys.cache is None else f"{keys.cache} has none either"
            raise NoKeys(f"no keys: {error}; {kept}") from error
        try:
            return _book(held, empty, str(keys.cache))
        except NoKeys as other:
            raise NoKeys(f"no keys: {error}; {other}") from other
    finally:
        at.close()
    if found.unkept:
        raise NoKeys(found.unkept)
    assert found.book is not None
    return found.book


def look(keys: Keys, book: KeyBook, at: Shelf, known: bytes = b"") -> Look:
    """Ask Redis. What is new and right goes into the cache, too.

    Args:
        book: whose pepper is the right one.
        known: version that is known already.

    Raises: NoKeys, also when there are none: nobody takes keys away by command, so they were lost.
    """
    try:
        held = at.read(known)
    except Unreachable as error:
        raise NoKeys(str(error)) from error
    if held is None:
        return Look(known, None)
    if not held.text:
        raise NoKeys(f"{at.name} has none ('edgeproxy keys create' makes the first)")
    made = _book(held.text, book, at.name)
    return Look(held.version, made, "" if keys.cache is None else _keep(keys.cache, held))


def _book(text: bytes, book: KeyBook, name: str) -> KeyBook:
    loaded = read_shared(text, name, bytes.fromhex(book.pepper.reveal().decode("ascii")))
    if loaded.book is None:
        raise NoKeys("; ".join(problem.render() for problem in loaded.problems[:3]))
    return loaded.book


def _cached(path: Path) -> bytes | None:
    try:
        with path.open("rb") as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                return None
            return opened.read(MAX_BYTES + 1)
    except OSError:
        return None


def _keep(path: Path, held: Held) -> str:
    """Returns: why it could not be written, "" if it was."""
    try:
        if _cached(path) == held.text:
            os.utime(path)
        else:
            replace(path.resolve(), held.text, _MODE)
    except OSError as error:
        return f"the keys cannot be kept in {path}: {error.strerror}"
    return ""


def confirmed(keys: Keys) -> float:
    """Unix time of when Redis last said what the keys are, as far as a start tells: that of the cache, or now."""
    if keys.cache is not None:
        with suppress(OSError):
            return keys.cache.stat().st_mtime
    return time.time()
