# Structured fields (RFC 9651) as far as signatures of requests need them. What is not one is None; nothing raises.
"""`dictionary(value)`: a field's members with their parameters, and each member's text as it was sent.

The text is kept since a signature covers it: what a signer wrote is compared, not what we would have written.
"""

from __future__ import annotations

import binascii
import re
from typing import Final, NamedTuple

MAX_FIELD: Final = 8192  # bytes of one field, all of its lines together
MAX_MEMBERS: Final = 32  # of a dictionary, of a list in it, and parameters of one item
MAX_PARTS: Final = 96  # values and parameters of one field together: each takes about two microseconds

Bare = str | int | float | bool | bytes
"""A string or token, an integer or date, a decimal, a boolean, bytes. A token is a `Token`."""


class Token(str):
    """A word without quotes."""

    __slots__ = ()


class Item(NamedTuple):
    """One value. `text`: as it was sent, parameters included."""

    value: Bare
    parameters: dict[str, Bare]
    text: str


class Inner(NamedTuple):
    """A list in brackets. `text`: as it was sent, parameters included."""

    items: tuple[Item, ...]
    parameters: dict[str, Bare]
    text: str


Member = Item | Inner

_KEY: Final = re.compile(r"[a-z*][a-z0-9_\-.*]{0,127}")
_SPACES: Final = re.compile(r" *")
_BLANKS: Final = re.compile(r"[ \t]*")
_STRING: Final = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_ESCAPE: Final = re.compile(r"\\(.)")
_TOKEN: Final = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+\-.^_`|~:/]*")
_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_BYTES: Final = re.compile(r":([A-Za-z0-9+/=]*):")
_BOOLEAN: Final = re.compile(r"\?([01])")
_DATE: Final = re.compile(r"@(-?[0-9]{1,15})")


class _Malformed(Exception):
    pass


class _Reader:
    __slots__ = ("at", "parts", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.parts = 0

    def take(self, pattern: re.Pattern[str]) -> re.Match[str]:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise _Malformed
        self.at = found.end()
        return found

    def sees(self, sign: str) -> bool:
        return self.text.startswith(sign, self.at)

    def skips(self, sign: str) -> bool:
        if self.text.startswith(sign, self.at):
            self.at += 1
            return True
        return False

    def count(self) -> None:
        self.parts += 1
        if self.parts > MAX_PARTS:
            raise _Malformed

    def bare(self) -> Bare:
        sign = self.text[self.at : self.at + 1]
        if sign == '"':
            return _ESCAPE.sub(r"\1", self.take(_STRING)[1])
        if sign == ":":
            return _decoded(self.take(_BYTES)[1])
        if sign == "?":
            return self.take(_BOOLEAN)[1] == "1"
        if sign == "@":
            return int(self.take(_DATE)[1])
        if sign.isdigit() or sign == "-":
            return _number(self.take(_NUMBER)[0])
        return Token(self.take(_TOKEN)[0])

    def parameters(self) -> dict[str, Bare]:
        found: dict[str, Bare] = {}
        while self.skips(";"):
            self.count()
            self.take(_SPACES)
            key = self.take(_KEY)[0]
            found[key] = self.bare() if self.skips("=") else True
            if len(found) > MAX_MEMBERS:
                raise _Malformed
        return found

    def item(self) -> Item:
        start = self.at
        self.count()
        value = self.bare()
        parameters = self.parameters()
        return Item(value, parameters, self.text[start : self.at])

    def member(self) -> Member:
        if not self.sees("("):
            return self.item()
        start = self.at
        self.at += 1
        items: list[Item] = []
        while True:
            self.take(_SPACES)
            if self.skips(")"):
                break
            items.append(self.item())
            if not self.sees(" ") and not self.sees(")"):
                raise _Malformed
            if len(items) > MAX_MEMBERS:
                raise _Malformed
        parameters = self.parameters()
        return Inner(tuple(items), parameters, self.text[start : self.at])


def dictionary(value: bytes) -> dict[str, Member] | None:
    """A field's members by key, in order; of a key that comes twice the last one counts. None where it is none.

    Args:
        value: all lines of the field, joined by commas.
    """
    reader = _reader(value)
    if reader is None:
        return None
    found: dict[str, Member] = {}
    try:
        while reader.at < len(reader.text):
            reader.count()
            key = reader.take(_KEY)[0]
            if reader.skips("="):
                member = reader.member()
            else:  # a key alone is a true one
                start = reader.at
                parameters = reader.parameters()
                member = Item(True, parameters, "?1" + reader.text[start : reader.at])
            found.pop(key, None)
            found[key] = member
            if len(found) > MAX_MEMBERS:
                return None
            reader.take(_BLANKS)
            if reader.at == len(reader.text):
                break
            if not reader.skips(","):
                return None
            reader.take(_BLANKS)
            if reader.at == len(reader.text):
                return None  # a comma behind which nothing comes
    except _Malformed:
        return None
    return found


def item(value: bytes) -> Item | None:
    """A field that is one value."""
    reader = _reader(value)
    if reader is None:
        return None
    try:
        found = reader.item()
    except _Malformed:
        return None
    return found if reader.at == len(reader.text) else None


def _reader(value: bytes) -> _Reader | None:
    if len(value) > MAX_FIELD:
        return None
    try:
        return _Reader(value.decode("ascii").strip(" "))
    except UnicodeDecodeError:
        return None


def _number(text: str) -> int | float:
    digits = text.lstrip("-")
    whole, point, behind = digits.partition(".")
    if point:
        if len(whole) > 12 or len(behind) > 3:
            raise _Malformed
        return float(text)
    if len(digits) > 15:
        raise _Malformed
    return int(text)


def _decoded(text: str) -> bytes:
    try:
        # Padding may be left out (RFC 9651 §4.2.7).
        return binascii.a2b_base64(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), strict_mode=True)
    except binascii.Error:
        raise _Malformed from None
