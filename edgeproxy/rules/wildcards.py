# Patterns in which `*` stands for any characters: how they are read, matched and filled in again.
"""Wildcards of the rules language: `*` is any number of any bytes, `\\*` and `\\\\` are the characters themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

MAX_STARS: Final = 10  # as wirefilter: more would only be slow


def split(pattern: bytes) -> list[bytes] | str:
    """The literal pieces between the stars (one more than there are stars), or what is wrong."""
    pieces = [bytearray()]
    at, last = 0, b""
    while at < len(pattern):
        char = pattern[at : at + 1]
        if char == b"\\":
            escaped = pattern[at + 1 : at + 2]
            if escaped not in (b"*", b"\\"):
                return r"a backslash stands before '*' or another backslash: \* or \\"
            pieces[-1] += escaped
            at += 2
            last = b""
            continue
        if char == b"*":
            if last == b"*":
                return "two stars in a row"
            pieces.append(bytearray())
        else:
            pieces[-1] += char
        last = char
        at += 1
    if len(pieces) - 1 > MAX_STARS:
        return f"more than {MAX_STARS} stars"
    return [bytes(piece) for piece in pieces]


def find(pieces: list[bytes], value: bytes) -> list[tuple[int, int]] | None:
    """What each star stands for, as (begin, end), the shortest first; None when the value does not match as a whole.

    Looking for each piece at its first place is enough, and linear in practice: if any placement of the pieces fits,
    the leftmost does, because only the last piece is bound to an end.
    """
    first, last = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return [] if value == first else None
    if not value.startswith(first) or not value.endswith(last):
        return None
    at, end = len(first), len(value) - len(last)
    stars = []
    for piece in pieces[1:-1]:
        found = value.find(piece, at, end)
        if found < 0:
            return None
        stars.append((at, found))
        at = found + len(piece)
    if at > end:
        return None
    stars.append((at, end))
    return stars


class Pattern:
    """A wildcard that is ready to match; `strict` is case-sensitive (letters are ASCII letters)."""

    __slots__ = ("pieces", "strict")

    def __init__(self, pieces: list[bytes], *, strict: bool) -> None:
        self.pieces = pieces if strict else [piece.lower() for piece in pieces]
        self.strict = strict

    def matches(self, value: bytes) -> bool:
        """Whether the whole value fits."""
        return find(self.pieces, value if self.strict else value.lower()) is not None

    def replace(self, value: bytes, template: list[bytes | int]) -> bytes:
        """The template with what the stars stood for; the value itself when it does not match."""
        found = find(self.pieces, value if self.strict else value.lower())
        if found is None:
            return value
        groups = [b"", *(value[begin:end] for begin, end in found)]
        return filled(template, groups)


def filled(template: list[bytes | int], groups: Sequence[bytes]) -> bytes:
    """A template with its groups (from 1); one that there is not is empty."""
    return b"".join(part if isinstance(part, bytes) else groups[part] if part < len(groups) else b"" for part in template)


def template(text: bytes) -> list[bytes | int] | str:
    """A replacement: bytes and numbers of groups (`${1}` to `${8}`, `$$` is a dollar), or what is wrong."""
    parts: list[bytes | int] = []
    rest = text
    while True:
        plain, dollar, rest = rest.partition(b"$")
        parts.append(plain)
        if not dollar:
            return [part for part in parts if part != b""]
        if rest[:1] == b"$":
            parts.append(b"$")
            rest = rest[1:]
        elif rest[:1] == b"{" and rest[2:3] == b"}" and rest[1:2] in b"12345678":
            parts.append(int(rest[1:2]))
            rest = rest[3:]
        else:
            return "a '$' is followed by '{1}' to '{8}', or by another '$'"
