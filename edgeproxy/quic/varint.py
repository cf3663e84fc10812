# Variable-length integers (RFC 9000 §16). Reading past the end raises IndexError; who reads says what that means.
"""Integers of 1, 2, 4 or 8 bytes."""

from __future__ import annotations

LARGEST = (1 << 62) - 1


def read(data: bytes, at: int) -> tuple[int, int]:
    """The integer at `at`, and where it ends. Raises IndexError when `data` ends first."""
    first = data[at]
    if first < 0x40:
        return first, at + 1
    if first < 0x80:
        return ((first & 0x3F) << 8) | data[at + 1], at + 2
    end = at + (4 if first < 0xC0 else 8)
    if end > len(data):
        raise IndexError
    value = int.from_bytes(data[at:end], "big")
    return (value & 0x3FFFFFFF if first < 0xC0 else value & LARGEST), end


def write(value: int) -> bytes:
    """The shortest form. `value`: 0..LARGEST."""
    if value < 0x40:
        return value.to_bytes(1, "big")
    if value < 0x4000:
        return (value | 0x4000).to_bytes(2, "big")
    if value < 0x40000000:
        return (value | 0x80000000).to_bytes(4, "big")
    return (value | 0xC000000000000000).to_bytes(8, "big")
