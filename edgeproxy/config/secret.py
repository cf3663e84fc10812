# Values that nobody reads by accident: they show in no repr, log line, error, pickle or dump.
"""`Secret`, and its type for models. Who needs the value says `reveal()`, so that a search finds every such place."""

from __future__ import annotations

from hmac import compare_digest
from typing import Annotated, Any, Final, NoReturn

from pydantic import PlainSerializer, PlainValidator, SerializationInfo, WithJsonSchema

from edgeproxy.config.problems import Invalid

# The context that a dump for the workers is made with: `model_dump_json(context=TO_WORKERS)`. They need secrets, and the
# channel to them is a socket pair. Any other dump hides them.
TO_WORKERS: Final = "to workers"
HIDDEN: Final = "(secret)"


class Secret:
    """Bytes that open doors."""

    __slots__ = ("_value",)
    __hash__ = None  # type: ignore[assignment]  # as a key of a dictionary it would be compared byte by byte

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The value itself. Never into a message, a log line or a file."""
        return self._value

    def __repr__(self) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and compare_digest(self._value, other._value)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: Any) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled")


def _secret(value: Any) -> Secret:
    if isinstance(value, Secret):
        return value
    if value == HIDDEN:
        raise Invalid("a secret was hidden on its way", "what goes to workers is dumped with context=TO_WORKERS")
    if not isinstance(value, str):
        raise Invalid("expected a secret")  # without a word about what it is instead
    return Secret(value.encode("utf-8", "surrogateescape"))


def _as_text(value: Secret, info: SerializationInfo) -> str:
    return value.reveal().decode("utf-8", "surrogateescape") if info.context == TO_WORKERS else HIDDEN


SecretValue = Annotated[
    Secret,
    PlainValidator(_secret),
    PlainSerializer(_as_text, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string"}),
]
