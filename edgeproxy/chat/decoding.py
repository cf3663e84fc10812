# Request bodies with a Content-Encoding, as far as Python's own library reads them. What is in them is not known here.
"""`decoded`: gzip and deflate (RFC 9110 §8.4.1), bounded, so that a few bytes keep nobody busy.

Brotli and zstd would need other libraries for what hardly a chat client sends: who reads those is the model's service.
"""

from __future__ import annotations

import zlib
from typing import Final

UNREAD: Final = 8  # bytes that one coded byte is taken for where the body is not read; JSON of chats is packed 3 to 6 times
_RATIO: Final = 32  # an output larger than so many times the input, and SPARE bytes more, is not made
_SPARE: Final = 65536
_MOST: Final = 4 << 20  # bytes of output at any rate
_MEMBERS: Final = 8  # of a gzip file: each has a price of its own
_EITHER: Final = 32 + zlib.MAX_WBITS  # gzip or zlib, as the first bytes say
_CODINGS: Final = frozenset({b"gzip", b"x-gzip", b"deflate"})


def bound(size: int) -> int:
    """Bytes that so many coded ones are unpacked to at most."""
    return min(_MOST, size * _RATIO + _SPARE)


def is_read(coding: bytes) -> bool:
    """Whether it is one that is read here."""
    return coding.strip().lower() in _CODINGS


def decoded(content: bytes, coding: bytes) -> bytes | None:
    """The content behind its coding; None where the coding is another one, or two, what is coded is broken, or it is too much.

    Args:
        content: all of the body.
        coding: value of Content-Encoding, in any case.
    """
    if not is_read(coding):
        return None
    try:
        return _unpack(content, _EITHER)
    except zlib.error:
        pass
    try:
        # RFC 9110 §8.4.1.2: some send deflate without its wrapper.
        return _unpack(content, -zlib.MAX_WBITS) if coding.strip().lower() == b"deflate" else None
    except zlib.error:
        return None


def _unpack(content: bytes, wbits: int) -> bytes | None:
    """Raises: zlib.error."""
    left, parts = bound(len(content)), []
    for _ in range(_MEMBERS):
        unpacking = zlib.decompressobj(wbits)
        # One byte more than may be: it tells what is too much from what just fits.
        part = unpacking.decompress(content, left + 1)
        left -= len(part)
        if left < 0 or not unpacking.eof:
            return None
        parts.append(part)
        content = unpacking.unused_data
        if not content:
            return b"".join(parts)
    return None
