# What 'edgeproxy keys' does to keys: a new one, another secret, an end. Where they lie says keys_places.py. Nothing here prints.
"""`create`, `revoke`, `rotate`, `listed`. A key's text is returned once, and stored nowhere."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from edgeproxy.config import explain
from edgeproxy.config.document import MAX_BYTES, parse
from edgeproxy.config.keys import STORE, KeyModel, Keys, show_time
from edgeproxy.config.keys_file import LoadedKeys, hash_text, hide, read_pepper
from edgeproxy.config.problems import ConfigError, quote, suggest
from edgeproxy.config.units import FROM_FILE
from edgeproxy.keys_places import FilePlace, KeysError, KeysPlace, RedisPlace
from edgeproxy.policy.keytext import Made, hashed, make, pepper_id
from edgeproxy.replacing import replace

__all__ = ["KeysError", "Place", "create", "listed", "place", "revoke", "rotate"]

_MODE: Final = 0o600
_TRIES: Final = 20  # of a change, when others are always quicker
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where keys lie.

    Attributes:
        keys: None: the file.
    """

    file: Path
    pepper: Path
    keys: KeysPlace | None = None

    @property
    def where(self) -> KeysPlace:
        """The place itself."""
        return self.keys or FilePlace(self.file)


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
        section = {name: value for name, value in found.items() if name in _NAMES and isinstance(value, str)}
        if section.get("redis") == STORE:
            if not isinstance(data.get("store"), str):
                raise KeysError(f"{config}: 'keys.redis' is 'store', and there is no key 'store'")
            section["redis"] = data["store"]
    try:
        chosen = Keys.model_validate(section, context=FROM_FILE)
    except ValidationError as error:
        raise KeysError(_said(error, Keys)) from error
    shared = None
    if chosen.redis is not None and file is None:
        shared = RedisPlace(chosen.redis.reveal().decode("utf-8", "surrogateescape"), chosen.refresh)
    return Place(file or chosen.file, pepper or chosen.pepper, shared)


_NAMES: Final = ("file", "pepper", "redis", "refresh")


def _change(where: KeysPlace, step: Callable[[str, LoadedKeys], tuple[str | None, T]]) -> T:
    """Read, change, write.

    Args:
        step: gives the new text, None to leave it, and the result. It may be called again, with what somebody else wrote.
    """
    with where.changing():
        for _ in range(_TRIES):
            text, result = step(*where.read())
            if text is None or where.write(text):
                return result
    raise KeysError(f"others change the keys in {where.name} all the time: try again")


def create(where: Place, fields: dict[str, Any], now: float) -> tuple[KeyModel, Made]:
    """A new key.

    Args:
        fields: as the file has them: name, expires, models, limits, budget, tags, networks, ja4; without what is not wanted.
        now: seconds since the epoch.

    Returns: what the file says, and the key itself. Raises: KeysError.
    """
    keys = where.where

    def step(text: str, loaded: LoadedKeys) -> tuple[str, tuple[KeyModel, Made]]:
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
        return keys.appended(text, entry, pepper_id(derived)), (model, made)

    return _change(keys, step)


def revoke(where: Place, which: str, now: float) -> KeyModel:
    """The end of a key, given by id, name or text. One that was revoked before stays as it is. Raises: KeysError."""
    keys = where.where
    keys.existing()

    def step(text: str, loaded: LoadedKeys) -> tuple[str | None, KeyModel]:
        index, model = _find(loaded, which)
        if model.revoked is not None:
            return None, model
        changed = keys.changed(text, index, {"revoked": show_time(now)})
        return changed, model.model_copy(update={"revoked": float(int(now))})

    return _change(keys, step)


def rotate(where: Place, which: str, keep: float, now: float) -> tuple[KeyModel, Made]:
    """Another secret for a key.

    Args:
        keep: seconds for which the present secret works beside it; 0: it ends at once.

    Returns: the key as it was before, and its new text. Raises: KeysError.
    """
    keys = where.where
    keys.existing()

    def step(text: str, loaded: LoadedKeys) -> tuple[str, tuple[KeyModel, Made]]:
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
        return keys.changed(text, index, values, removed), (model, made)

    return _change(keys, step)


def listed(where: Place) -> tuple[KeyModel, ...]:
    """All keys. Raises: KeysError."""
    keys = where.where
    keys.existing()
    return _all(keys.read()[1])


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
        raise KeysError(_said(error, KeyModel)) from error


def _said(error: ValidationError, model: type[BaseModel]) -> str:
    said = [f"{each.message}" + (f" ({each.hint})" if each.hint else "") for each in explain.findings(error, model)]
    return hide("\n".join(said))
