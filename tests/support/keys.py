"""Keys of the edge as tests need them: a pepper, a book of keys, and their texts."""

from __future__ import annotations

from typing import Any

from edgeproxy.config.keys import KeyBook, KeyModel
from edgeproxy.config.keys_file import hash_text
from edgeproxy.config.secret import Secret
from edgeproxy.policy.keys import KeyRing
from edgeproxy.policy.keytext import Made, derive, hashed, make

DERIVED = derive(b"a pepper that is for tests and for nothing else")
NOW = 1_800_000_000.0


def stored(made: Made) -> str:
    return hash_text(hashed(made.text.encode("ascii"), DERIVED))


def model(made: Made, **fields: Any) -> KeyModel:
    return KeyModel.model_validate({"id": made.id, "name": f"key-{made.id}", "hash": stored(made), **fields})


def ring(*models: KeyModel) -> KeyRing:
    return KeyRing(KeyBook(pepper=Secret(DERIVED.hex().encode("ascii")), keys=models))


def one(**fields: Any) -> tuple[Made, KeyRing]:
    """A ring with one key."""
    made = make()
    return made, ring(model(made, **fields))
