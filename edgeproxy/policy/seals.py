# What the edge gives to clients and reads again is sealed here: nobody else can read, change or make it.
"""`Seals`: authenticated encryption (AES-256-GCM) of small texts, with keys that change every day and outlive it by one.

A text is `base64url(day, 1 byte; nonce, 12 bytes; ciphertext; tag, 16 bytes)`. The key of a day follows from a secret, the
purpose of the text and the number of the day: nothing is kept, and all processes that know the secret agree.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

DAY: Final = 86_400  # seconds that a key seals for; for as long again it still opens
MAX_TEXT: Final = 512  # characters; longer is none of ours
MAX_SECRETS: Final = 4
_HEAD: Final = 13  # day and nonce
_TAG: Final = 16
_KEPT: Final = 32  # keys that are kept made
_TEXT: Final = re.compile(rb"[0-9A-Za-z_-]+")

# For edges without a secret of their own: made before workers are forked, so that all of them have the same, also those that
# are started again. A restart of the whole edge makes another.
OF_THIS_START: Final = os.urandom(32)


class Seals:
    """Seals and opens the texts of one purpose."""

    __slots__ = ("_keys", "_purpose", "_secrets")

    def __init__(self, secrets: Sequence[bytes], purpose: bytes) -> None:
        """Take secrets.

        Args:
            secrets: the first one seals, each of them opens; none: that of this start.
            purpose: texts of another one do not open.
        """
        self._secrets = tuple(secrets[:MAX_SECRETS]) or (OF_THIS_START,)
        self._purpose = purpose
        self._keys: dict[tuple[int, int], AESGCM] = {}

    def seal(self, content: bytes, now: float) -> bytes:
        """The text of some bytes (a few hundred at most). `now`: seconds since the epoch."""
        day, nonce = int(now) // DAY, os.urandom(12)
        sealed = self._key(0, day).encrypt(nonce, content, None)
        return urlsafe_b64encode(b"%c%b%b" % (day & 0xFF, nonce, sealed)).rstrip(b"=")

    def open(self, text: bytes, now: float) -> bytes | None:
        """What was sealed; None when it is no text of ours, for this purpose, of today or yesterday.

        The day of tomorrow is right, too: clocks of several edges differ.
        """
        raw = decoded(text)
        if raw is None or len(raw) < _HEAD + _TAG:
            return None
        today = int(now) // DAY
        for day in (today, today - 1, today + 1):
            if day & 0xFF == raw[0]:
                return self._open(day, raw[1:_HEAD], raw[_HEAD:])
        return None

    def _open(self, day: int, nonce: bytes, sealed: bytes) -> bytes | None:
        for index in range(len(self._secrets)):
            try:
                return self._key(index, day).decrypt(nonce, sealed, None)
            except InvalidTag:
                continue
        return None

    def _key(self, index: int, day: int) -> AESGCM:
        key = self._keys.get((index, day))
        if key is None:
            if len(self._keys) >= _KEPT:
                self._keys.clear()
            said = b"edge seal 1 %b %d" % (self._purpose, day)
            key = self._keys[index, day] = AESGCM(hmac.digest(self._secrets[index], said, hashlib.sha256))
        return key


def decoded(text: bytes) -> bytes | None:
    """The bytes of unpadded base64url, None for anything else. Bounded."""
    if len(text) > MAX_TEXT or len(text) % 4 == 1 or _TEXT.fullmatch(text) is None:
        return None
    return urlsafe_b64decode(text + b"=" * (-len(text) % 4))


def values_of(cookies: bytes, name: bytes, most: int = 4) -> list[bytes]:
    """The values of a cookie in a Cookie field (RFC 6265 §5.4), the first few where a client sends several of that name."""
    found: list[bytes] = []
    if name in cookies:
        for pair in cookies.split(b";"):
            key, _, value = pair.partition(b"=")
            if key.strip() == name:
                found.append(value.strip())
                if len(found) == most:
                    break
    return found
