# Which of several certificates a client gets by the name it asks for: one answer for TCP and QUIC.
"""`ByName`: a table from the names of certificates to whatever serves them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class ByName(Generic[T]):
    """Exact names before wildcards; of two items with the same name the first that was added."""

    __slots__ = ("_exact", "_wildcard")

    def __init__(self) -> None:
        self._exact: dict[str, T] = {}
        self._wildcard: dict[str, T] = {}

    def add(self, names: Iterable[str], item: T) -> None:
        """An item for these names, lower case; `*.example.org` is a wildcard."""
        for name in names:
            table = self._wildcard if name.startswith("*.") else self._exact
            table.setdefault(name.removeprefix("*."), item)

    def get(self, name: str) -> T | None:
        """The item for a lower-case name (RFC 6125 §6.4.3: a wildcard is good for one label); None for an unknown one."""
        return self._exact.get(name) or self._wildcard.get(name.partition(".")[2])
