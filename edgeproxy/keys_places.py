# Where 'edgeproxy keys' reads and writes: a file, whose lines stay as they are, or Redis. What is changed says keys_store.py.
"""`FilePlace` and `RedisPlace`: one change at a time; whoever comes second begins again with what the first one left."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from edgeproxy.config.keys_edit import NotEditable, appended, changed
from edgeproxy.config.keys_file import LoadedKeys, read_keys, read_shared
from edgeproxy.replacing import locked, replace

_MODE: Final = 0o600


class KeysError(Exception):
    """What cannot be done, as text for people: it holds no secret."""


class KeysPlace(Protocol):
    """Where keys lie.

    Attributes:
        name: of the place, for people.
        soon: when a change takes effect, as the end of a sentence.
    """

    name: str
    soon: str

    def changing(self) -> Any:
        """A context in which a change is read, made and written."""

    def existing(self) -> None:
        """Raises: KeysError when nothing was ever there."""

    def read(self) -> tuple[str, LoadedKeys]:
        """Its text and what that says; both empty where there is none yet. Raises: KeysError."""

    def appended(self, text: str, entry: dict[str, Any], pepper_id: str) -> str:
        """The text with one more key. Raises: KeysError."""

    def changed(self, text: str, index: int, values: dict[str, Any], removed: tuple[str, ...] = ()) -> str:
        """The text with values of one key set anew, or taken out. Raises: KeysError."""

    def write(self, text: str) -> bool:
        """Put it in the place of what was read last. False: somebody was quicker, read again. Raises: KeysError."""


class FilePlace:
    """A file of keys."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = str(path)
        self.soon = "once the edge has reloaded (SIGHUP)"

    @contextmanager
    def changing(self) -> Iterator[None]:
        """One writer of a file at a time; where it really lies, should it be a link."""
        directory = self._path.resolve().parent
        try:
            lock = locked(directory)
            lock.__enter__()
        except OSError as error:
            raise KeysError(f"the directory {directory} cannot be used: {error.strerror}") from error
        try:
            yield
        finally:
            lock.__exit__(None, None, None)

    def existing(self) -> None:
        """Raises: KeysError when there is no file."""
        if not self._path.is_file():
            raise KeysError(f"there is no file {self._path}: 'edgeproxy keys create --name NAME' makes it")

    def read(self) -> tuple[str, LoadedKeys]:
        """The file's text, and what it says; both empty where there is none yet."""
        if not self._path.exists():
            return "", LoadedKeys()
        loaded = read_keys(self._path, None)
        _refuse(loaded)
        # No line break is changed by reading or writing.
        return self._path.read_bytes().decode("utf-8-sig"), loaded

    def appended(self, text: str, entry: dict[str, Any], pepper_id: str) -> str:
        """See KeysPlace."""
        return _edited(appended, text, entry, pepper_id)

    def changed(self, text: str, index: int, values: dict[str, Any], removed: tuple[str, ...] = ()) -> str:
        """See KeysPlace."""
        return _edited(changed, text, index, values, removed)

    def write(self, text: str) -> bool:
        """Whoever may read the file now may read it afterwards: the edge may run as another user than who makes keys."""
        target = self._path.resolve()  # a link stays one
        try:
            mode, owner, there = _MODE, None, target.exists()
            if there:
                found = target.stat()
                mode = _MODE | (stat.S_IMODE(found.st_mode) & (stat.S_IRGRP | stat.S_IROTH))
                owner = (found.st_uid, found.st_gid) if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()) else None
            replace(target, text.encode("utf-8"), mode, owner=owner, exact=there)
        except OSError as error:
            raise KeysError(f"{self._path} cannot be written: {error.strerror}") from error
        return True


class RedisPlace:
    """Keys that several edges share."""

    def __init__(self, url: str, refresh: float) -> None:
        """Raises: KeysError (the URL)."""
        from edgeproxy.keys_redis import Shelf

        try:
            self._shelf = Shelf(url)
        except ValueError as error:
            raise KeysError(f"keys.redis: {error}") from error
        self._version = b""
        self.name = self._shelf.name
        self.soon = f"on every edge within {refresh:g} s"

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Nobody waits for anybody: `write` says who was quicker."""
        yield

    def existing(self) -> None:
        """Raises: KeysError when there are none."""
        if not self.read()[0]:
            raise KeysError(f"there are no keys in {self.name}: 'edgeproxy keys create --name NAME' makes the first")

    def read(self) -> tuple[str, LoadedKeys]:
        """The document, and what it says."""
        from edgeproxy.keys_redis import Unreachable

        try:
            held = self._shelf.read()
        except Unreachable as error:
            raise KeysError(str(error)) from error
        assert held is not None
        self._version = held.version
        if not held.text:
            return "", LoadedKeys()
        loaded = read_shared(held.text, self.name, None)
        _refuse(loaded)
        return held.text.decode("utf-8"), loaded

    def appended(self, text: str, entry: dict[str, Any], pepper_id: str) -> str:
        """See KeysPlace."""
        data: dict[str, Any] = msgspec.json.decode(text) if text else {"pepper_id": pepper_id}
        data["keys"] = [*(data.get("keys") or []), entry]
        return msgspec.json.encode(data).decode("utf-8")

    def changed(self, text: str, index: int, values: dict[str, Any], removed: tuple[str, ...] = ()) -> str:
        """See KeysPlace."""
        data: dict[str, Any] = msgspec.json.decode(text)
        key = data["keys"][index]
        data["keys"][index] = {name: value for name, value in {**key, **values}.items() if name not in removed}
        return msgspec.json.encode(data).decode("utf-8")

    def write(self, text: str) -> bool:
        """See KeysPlace."""
        from edgeproxy.keys_redis import Unreachable

        try:
            return self._shelf.write(text.encode("utf-8"), self._version)
        except Unreachable as error:
            raise KeysError(f"{error}; 'edgeproxy keys list' shows whether it was written") from error


def _refuse(loaded: LoadedKeys) -> None:
    said = [problem.render() for problem in loaded.problems]
    said += [finding.message for finding in loaded.findings]
    if said:
        raise KeysError("\n".join(said))


def _edited(edit: Any, *arguments: Any) -> str:
    try:
        return str(edit(*arguments))
    except NotEditable as error:
        raise KeysError(f"nothing was changed: {error}") from error
