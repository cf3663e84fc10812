# How an API key of the edge is written, and what a text that is none looks like. No key is known here.
"""`ep-` + 8 characters of id + `-` + 40 characters of secret + 6 of checksum, all base62: 58 characters.

The prefix and the checksum let secret scanners find such keys without false alarms (docs/keys.md has the expression), and
tell a typo from a key that is not known. The id is no secret: it stands in logs. The secret has 238 bits.
"""

from __future__ import annotations

import re
import secrets
from hashlib import blake2b
from typing import Final, Literal, NamedTuple
from zlib import crc32

PREFIX: Final = b"ep-"
ID: Final = slice(3, 11)  # where the id stands
LENGTH: Final = 58
DIGEST: Final = 32  # bytes of a stored hash

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PAIRS: Final = [(high + low).encode("ascii") for high in _ALPHABET for low in _ALPHABET]  # digits in base 3844
_ID: Final = 8
_SECRET: Final = 40
_CHECKSUM: Final = 6  # 62^6 is more than 2^32
_SHAPE: Final = re.compile(rb"ep-[0-9A-Za-z]{8}-[0-9A-Za-z]{46}")
PERSON: Final = b"edgeproxy key"  # so that the same pepper elsewhere makes other hashes
_PEPPER_PERSON: Final = b"edgeproxy pepper"

Wrong = Literal["foreign", "malformed"]


class Made(NamedTuple):
    """A key as it is shown once. Its repr hides it."""

    id: str
    text: str

    def __repr__(self) -> str:
        return f"Made(ep-{self.id}-…)"


def make(key_id: str | None = None) -> Made:
    """A new key, or another secret for the id of one that is there."""
    key_id = key_id or _random(_ID)
    head = f"ep-{key_id}-{_random(_SECRET)}"
    return Made(key_id, head + checksum(head.encode("ascii")).decode("ascii"))


def checksum(head: bytes) -> bytes:
    """CRC-32 of what stands before it, in base62 with leading zeros."""
    rest, low = divmod(crc32(head), 3844)
    high, middle = divmod(rest, 3844)
    return _PAIRS[high] + _PAIRS[middle] + _PAIRS[low]


def wrong(text: bytes) -> Wrong | None:
    """Why a text cannot be a key of any edge; None when it can. `foreign`: it does not even begin like one."""
    if not text.startswith(PREFIX):
        return "foreign"
    if _SHAPE.fullmatch(text) is None or checksum(text[:-_CHECKSUM]) != text[-_CHECKSUM:]:
        return "malformed"
    return None


def derive(pepper: bytes) -> bytes:
    """64 bytes to hash with, from what a pepper's file holds, however long that is."""
    return blake2b(pepper.strip(), person=b"edgeproxy derive").digest()


def hashed(text: bytes, derived: bytes) -> bytes:
    """What is stored of a key: a keyed hash. Without the pepper nobody can try texts against it."""
    return blake2b(text, digest_size=DIGEST, key=derived, person=PERSON).digest()


def pepper_id(derived: bytes) -> str:
    """Names a pepper and tells nothing of it: a file of keys says with which one it was made."""
    return blake2b(b"", digest_size=8, key=derived, person=_PEPPER_PERSON).hexdigest()


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
