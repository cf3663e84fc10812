# What 'edgeproxy keys' does to the files: a new key, another secret, an end. Nothing here prints.
"""`create`, `revoke`, `rotate`, `listed`. A key's text is returned once, and stored nowhere."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from edgeproxy.config import explain
from edgeproxy.config.document import MAX_BYTES, parse
from edgeproxy.config.keys import KeyModel, Keys, show_time
from edgeproxy.config.keys_edit import NotEditable, appended, changed
from edgeproxy.config.keys_file import LoadedKeys, hash_text, hide, read_keys, read_pepper
from edgeproxy.config.problems import ConfigError, quote, suggest
from edgeproxy.config.units import FROM_FILE
from edgeproxy.policy.keytext import Made, hashed, make, pepper_id
from edgeproxy.replacing import locked, replace

_MODE: Final = 0o600


class KeysError(Exception):
    """What cannot be done, as text for people: it holds no secret."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where keys lie."""

    file: Path
    pepper: Path


def place(config: Path | None, file: Path | None, pepper: Path | None) -> Place:
    """The files of a configuration's section `keys`, or those that are given, or the defaults.

    The rest of the configuration need not be right: keys can be revoked while it is not. Raises: KeysError.
    """
    section: dict[str, Any] = {}
    if config is not None:
        try:
            with config.open("rb") as opened:
                data = parse(opened.read(MAX_BYTES + 1), str(config)).data
        except OSError as error:
            raise KeysError(f"{config} cannot be read: {error.strerror}") from error
        except ConfigError as error:
            raise KeysError(hide(str(error))) from error
        found = data.get("keys")
        if not isinstance(found, dict):
            raise KeysError(f"{config} has no section 'keys': add 'keys: {{file: keys.yaml, pepper: keys.pepper}}'")
        section = {name: value for name, value in found.items() if name in ("file", "pepper") and isinstance(value, str)}
    chosen = Keys.model_validate(section)
    return Place(file or chosen.file, pepper or chosen.pepper)


def create(where: Place, fields: dict[str, Any], now: float) -> tuple[KeyModel, Made]:
    """A new key.

    Args:
        fields: as the file has them: name, expires, models, limits, budget, tags, networks, ja4; without what is not wanted.
        now: seconds since the epoch.

    Returns: what the file says, and the key itself. Raises: KeysError.
    """
    with _locking(where.file):
        text, loaded = _read(where)
        derived = _pepper(where.pepper, loaded)
        taken = {key.id for key in _all(loaded)}
        made = make()
        while made.id in taken:
            made = make()
        if any(key.name == fields["name"] and key.revoked is None for key in _all(loaded)):
            raise KeysError(f"there is a key named {quote(fields['name'])} already: revoke or rotate it, or choose another name")
        stored = hash_text(hashed(made.text.encode("ascii"), derived))
        entry = {"id": made.id, "name": fields["name"], "hash": stored, "created": show_time(now), **fields}
        model = _validated(entry)
        _write(where.file, _edited(appended, text, entry, pepper_id(derived)))
        return model, made


def revoke(where: Place, which: str, now: float) -> KeyModel:
    """The end of a key, given by id, name or text. One that was revoked before stays as it is. Raises: KeysError."""
    _existing(where.file)
    with _locking(where.file):
        text, loaded = _read(where)
        index, model = _find(loaded, which)
        if model.revoked is not None:
            return model
        _write(where.file, _edited(changed, text, index, {"revoked": show_time(now)}))
        return model.model_copy(update={"revoked": float(int(now))})


def rotate(where: Place, which: str, keep: float, now: float) -> tuple[KeyModel, Made]:
    """Another secret for a key.

    Args:
        keep: seconds for which the present secret works beside it; 0: it ends at once.

    Returns: the key as it was before, and its new text. Raises: KeysError.
    """
    _existing(where.file)
    with _locking(where.file):
        text, loaded = _read(where)
        index, model = _find(loaded, which)
        if model.revoked is not None:
            raise KeysError(f"the key ep-{model.id} is revoked: create a new one")
        derived = _pepper(where.pepper, loaded)
        made = make(model.id)
        values: dict[str, Any] = {"hash": hash_text(hashed(made.text.encode("ascii"), derived))}
        removed: tuple[str, ...] = ()
        if keep > 0:
            values["previous"] = {"hash": model.hash, "until": show_time(now + keep)}
        else:
            removed = ("previous",)
        _write(where.file, _edited(changed, text, index, values, removed))
        return model, made


def listed(where: Place) -> tuple[KeyModel, ...]:
    """All keys, as the file has them. Raises: KeysError."""
    _existing(where.file)
    return _all(_read(where)[1])


def _read(where: Place) -> tuple[str, LoadedKeys]:
    """The file's text, and what it says; both empty where there is none yet."""
    if not where.file.exists():
        return "", LoadedKeys()
    loaded = read_keys(where.file, None)
    said = [problem.render() for problem in loaded.problems]
    said += [finding.message for finding in loaded.findings]
    if said:
        raise KeysError("\n".join(said))
    # No line break is changed by reading or writing.
    return where.file.read_bytes().decode("utf-8-sig"), loaded


def _all(loaded: LoadedKeys) -> tuple[KeyModel, ...]:
    return loaded.model.keys if loaded.model is not None else ()


def _find(loaded: LoadedKeys, which: str) -> tuple[int, KeyModel]:
    """A key by its id, with or without `ep-`, by its name, or by its whole text, which a leak may be all that is known of."""
    keys = _all(loaded)
    key_id = which.removeprefix("ep-")[:8] if which.startswith("ep-") else which
    named = [(index, key) for index, key in enumerate(keys) if which == key.name]
    found = [(index, key) for index, key in enumerate(keys) if key_id == key.id]
    found = found or [each for each in named if each[1].revoked is None] or named[-1:]
    if not found:
        hint = suggest(which, [key.name for key in keys])
        raise KeysError(f"there is no key {hide(quote(which))}" + (f" ({hint})" if hint else ""))
    return found[0]


def _pepper(path: Path, loaded: LoadedKeys) -> bytes:
    """What to hash with; a new one where there are neither a pepper nor keys."""
    expected = loaded.model.pepper_id if loaded.model is not None else None
    try:
        if not path.exists() and not _all(loaded):
            replace(path.resolve(), secrets.token_hex(32).encode("ascii") + b"\n", _MODE)
            expected = None
        derived = read_pepper(path)
    except ValueError as error:
        raise KeysError(str(error)) from error
    except OSError as error:
        raise KeysError(f"{path} cannot be written: {error.strerror}") from error
    if expected is not None and pepper_id(derived) != expected:
        raise KeysError(f"the keys were made with another pepper than {path}: with this one none of them would be known")
    return derived


def _validated(entry: dict[str, Any]) -> KeyModel:
    try:
        return KeyModel.model_validate(entry, context=FROM_FILE)
    except ValidationError as error:
        said = [f"{each.message}" + (f" ({each.hint})" if each.hint else "") for each in explain.findings(error, KeyModel)]
        raise KeysError(hide("\n".join(said))) from error


def _edited(edit: Any, *arguments: Any) -> str:
    try:
        return str(edit(*arguments))
    except NotEditable as error:
        raise KeysError(f"nothing was changed: {error}") from error


def _write(path: Path, text: str) -> None:
    """Whoever may read the file now may read it afterwards: the edge may run as another user than who makes keys."""
    target = path.resolve()  # a link stays one
    try:
        mode, owner, there = _MODE, None, target.exists()
        if there:
            found = target.stat()
            mode = _MODE | (stat.S_IMODE(found.st_mode) & (stat.S_IRGRP | stat.S_IROTH))
            owner = (found.st_uid, found.st_gid) if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()) else None
        replace(target, text.encode("utf-8"), mode, owner=owner, exact=there)
    except OSError as error:
        raise KeysError(f"{path} cannot be written: {error.strerror}") from error


def _existing(path: Path) -> None:
    if not path.is_file():
        raise KeysError(f"there is no file {path}: 'edgeproxy keys create --name NAME' makes it")


@contextmanager
def _locking(path: Path) -> Iterator[None]:
    """One writer of a file at a time; where it really lies, should it be a link."""
    directory = path.resolve().parent
    try:
        lock = locked(directory)
        lock.__enter__()
    except OSError as error:
        raise KeysError(f"the directory {directory} cannot be used: {error.strerror}") from error
    try:
        yield
    finally:
        lock.__exit__(None, None, None)
