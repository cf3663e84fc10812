# Packet protection of 1-RTT packets (RFC 9001 §5, §6). Nothing here knows frames.
"""Sealing and opening short-header packets, with key updates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioquic.quic.crypto import derive_key_iv_hp
from aioquic.tls import CipherSuite, cipher_suite_hash, hkdf_expand_label
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from edgeproxy.quic.ids import ID_LENGTH

if TYPE_CHECKING:
    from collections.abc import Callable

TAG = 16  # bytes of the authentication tag
_NUMBER_AT = 1 + ID_LENGTH  # where a short header's packet number begins
_SAMPLE_AT = _NUMBER_AT + 4
SHORTEST = _SAMPLE_AT + 16
"""Bytes below which a packet has no sample for header protection, and so cannot be one of ours."""

UPDATE_AFTER = 1 << 22  # packets sealed with a key: half of AES-GCM's limit (RFC 9001 §6.6)
FORGERY_LIMIT = 1 << 36  # packets that failed to open: ChaCha20-Poly1305's limit, the lower of the two

_SHORT = [bytes((value,)) for value in range(256)]


class Keys:
    """What one secret gives.

    Attributes:
        secret: the traffic secret, from which the next one follows.
        mask_key: of header protection; a connection keeps its first one (RFC 9001 §6.1).
    """

    __slots__ = ("aead", "iv", "mask_key", "secret")

    def __init__(self, suite: CipherSuite, secret: bytes, version: int) -> None:
        key, iv, self.mask_key = derive_key_iv_hp(cipher_suite=suite, secret=secret, version=version)
        chacha = suite == CipherSuite.CHACHA20_POLY1305_SHA256
        self.aead: AESGCM | ChaCha20Poly1305 = ChaCha20Poly1305(key) if chacha else AESGCM(key)
        self.iv = int.from_bytes(iv, "big")
        self.secret = secret


class Protection:
    """Both directions of a connection's 1-RTT packets.

    Attributes:
        phase: the key phase bit we send, 0 or 1.
        forged: packets that failed to open.
        suite: the cipher suite.
        violated: the peer went back to old keys (KEY_UPDATE_ERROR).
    """

    __slots__ = (
        "_mask_in", "_mask_out", "_next", "_open", "_open_iv", "_previous", "_receive", "_seal", "_seal_iv",
        "_sealed", "_send", "_unconfirmed", "_version", "forged", "phase", "suite", "updates", "violated",
    )  # fmt: skip

    def __init__(self, suite: CipherSuite, receive: bytes, send: bytes, version: int) -> None:
        self.suite = suite
        self._version = version
        keys = Keys(suite, receive, version), Keys(suite, send, version)
        self._mask_in = _mask(suite, keys[0].mask_key)
        self._mask_out = _mask(suite, keys[1].mask_key)
        self.phase = 0
        self.forged = 0
        self.violated = False
        self.updates = 0
        self._previous: tuple[Keys, int] | None = None  # and the first packet number of the phase that follows it
        self._next: Keys | None = None
        self._unconfirmed = False
        self._sealed = 0
        self._use(*keys)

    def _use(self, receive: Keys, send: Keys) -> None:
        self._receive, self._send = receive, send
        self._open, self._open_iv = receive.aead.decrypt, receive.iv
        self._seal, self._seal_iv = send.aead.encrypt, send.iv
        self._sealed = 0

    # -- sending ---------------------------------------------------------------------------------------------------

    def seal(self, destination: bytes, number: int, payload: bytes, spin: int) -> bytes:
        """A datagram of one packet, with a packet number of two bytes.

        Args:
            destination: the client's connection id.
            payload: at least two bytes of frames, so that there is a sample.
            spin: the spin bit, 0 or 0x20.
        """
        first = 0x41 | spin | (self.phase << 2)
        low = (number & 0xFFFF).to_bytes(2, "big")
        sealed = self._seal((self._seal_iv ^ number).to_bytes(12, "big"), payload, _SHORT[first] + destination + low)
        mask = self._mask_out(sealed[2:18])
        self._sealed += 1
        return b"%c%b%c%c%b" % (first ^ (mask[0] & 0x1F), destination, low[0] ^ mask[1], low[1] ^ mask[2], sealed)

    @property
    def is_worn(self) -> bool:
        """The sending key has been used long enough."""
        return self._sealed >= UPDATE_AFTER

    def update(self) -> None:
        """Go to the next key phase (RFC 9001 §6). The peer's packets keep the last one until it has seen ours."""
        self._advance(1 << 62)
        self._unconfirmed = True

    # -- receiving -------------------------------------------------------------------------------------------------

    def open(self, data: bytes, expected: int) -> tuple[int, int, bytes] | None:
        """Open a packet.

        Args:
            data: a whole datagram that begins with a short header, at least SHORTEST bytes.
            expected: one more than the highest packet number received.

        Returns: (unprotected first byte, packet number, frames), None when it is not authentic.
        """
        mask = self._mask_in(data[_SAMPLE_AT : _SAMPLE_AT + 16])
        first = data[0] ^ (mask[0] & 0x1F)
        size = (first & 0x03) + 1
        end = _NUMBER_AT + size
        truncated = int.from_bytes(data[_NUMBER_AT:end], "big") ^ int.from_bytes(mask[1 : 1 + size], "big")
        # RFC 9000 appendix A.3
        window = 1 << (size * 8)
        number = (expected & -window) | truncated
        if number <= expected - (window >> 1):
            number += window
        elif number > expected + (window >> 1) and number >= window:
            number -= window
        header = _SHORT[first] + data[1:_NUMBER_AT] + truncated.to_bytes(size, "big")
        if (first >> 2) & 1 != self.phase:
            return self._open_other(first, number, data[end:], header)
        try:
            plain = self._open((self._open_iv ^ number).to_bytes(12, "big"), data[end:], header)
        except InvalidTag:
            self.forged += 1
            return None
        if self._unconfirmed:
            self._confirmed(number)
        return first, number, plain

    def _confirmed(self, number: int) -> None:
        """The peer has followed an update of ours: what it sends from here on has the new keys."""
        self._unconfirmed = False
        if self._previous is not None:
            self._previous = (self._previous[0], number)

    def _open_other(
        self, first: int, number: int, sealed: bytes, header: bytes
    ) -> tuple[int, int, bytes] | None:
        """A packet of the other key phase: a late one of the last phase, or the first of the next."""
        previous = self._previous
        if previous is not None and number < previous[1]:
            plain = _try(previous[0], number, sealed, header)
            if plain is not None:
                return first, number, plain
        if self._next is None:
            self._next = self._following(self._receive)  # kept: a forged phase bit must not cost a derivation each time
        plain = _try(self._next, number, sealed, header)
        if plain is None:
            self.forged += 1
            # RFC 9001 §6.4: the last keys on a packet that is newer than one with the new keys.
            self.violated = previous is not None and _try(previous[0], number, sealed, header) is not None
            return None
        self._advance(number)
        return first, number, plain

    def _advance(self, first_number: int) -> None:
        receive = self._next or self._following(self._receive)
        self._previous = (self._receive, first_number)
        self._next = None
        self.phase ^= 1
        self.updates += 1
        self._use(receive, self._following(self._send))

    def _following(self, keys: Keys) -> Keys:
        algorithm = cipher_suite_hash(self.suite)
        label = b"quicv2 ku" if self._version == 0x6B3343CF else b"quic ku"
        secret = hkdf_expand_label(algorithm, keys.secret, label, b"", algorithm.digest_size)
        return Keys(self.suite, secret, self._version)


def _try(keys: Keys, number: int, sealed: bytes, header: bytes) -> bytes | None:
    try:
        return keys.aead.decrypt((keys.iv ^ number).to_bytes(12, "big"), sealed, header)
    except InvalidTag:
        return None


def _mask(suite: CipherSuite, key: bytes) -> Callable[[bytes], bytes]:
    """The header protection mask of a sample, at least five bytes (RFC 9001 §5.4)."""
    if suite == CipherSuite.CHACHA20_POLY1305_SHA256:
        stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()

        def mask(sample: bytes) -> bytes:
            stream.reset_nonce(sample)
            return stream.update(b"\0\0\0\0\0")

        return mask
    return Cipher(algorithms.AES(key), modes.ECB()).encryptor().update  # noqa: S305 (a block, as RFC 9001 §5.4.3 says)
