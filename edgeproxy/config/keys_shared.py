# Keys that several edges share, against the configuration of one of them. Nobody is asked here, and nothing is read.
"""`same_place`, `with_book`, and what keys that name unknown limits come to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from edgeproxy.config.keys import KeyBook, Keys
    from edgeproxy.config.model import Config


def same_place(one: Config, other: Config) -> bool:
    """Whether both take their keys from one place in Redis in one way: then what one of them was given is right for the other."""
    return one.keys is not None and one.keys.redis is not None and _place(one.keys) == _place(other.keys)


def _place(keys: Keys | None) -> tuple[object, ...]:
    if keys is None or keys.book is None:
        return ()
    # Not as text: a Secret compares itself, and shows nothing.
    return (keys.redis, keys.book.pepper, keys.refresh, keys.cache)


def with_book(config: Config, book: KeyBook) -> Config:
    """The configuration with other keys."""
    assert config.keys is not None
    return config.model_copy(update={"keys": config.keys.model_copy(update={"book": book})})


def unknown_limits(book: KeyBook, names: Collection[str]) -> dict[str, str]:
    """Keys that name a limit that an edge does not have: ids, and the first such name of each. Revoked ones don't matter."""
    found = ((key, next((each for each in key.limits if each not in names), None)) for key in book.keys)
    return {key.id: name for key, name in found if name is not None and key.revoked is None}


def usable(book: KeyBook, names: Collection[str]) -> KeyBook:
    """The book without those keys: who was to be limited is not let pass without a limit."""
    out = unknown_limits(book, names)
    return book.model_copy(update={"keys": tuple(key for key in book.keys if key.id not in out)}) if out else book
