# Names on the wire: connection ids, stateless-reset tokens and Retry tokens. All workers derive them from one secret.
"""Connection ids that tell the worker, and tokens that need no state.

A connection id is `generation, worker slot, six random bytes`: whichever worker's socket the kernel gives a packet to
(a client's port may move, RFC 9000 §9), the worker that owns the connection can be found from the packet alone.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

ID_LENGTH = 8
TOKEN_LIFETIME = 15.0  # seconds a Retry token is good for: clients return it at once (RFC 9000 §8.1.3)

_NONCE = 12


class Seat:
    """A worker's place among the workers.

    Attributes:
        index: its slot, 0..255.
        generation: how often this slot's worker was started, modulo 256.
        secret: 32 bytes that all workers share for the supervisor's life.
        inbox: datagram socket on which the other workers pass on what is ours; None for a single worker.
        outboxes: by slot, where to send what is theirs.
    """

    __slots__ = ("_prefix", "_reset_key", "generation", "inbox", "index", "outboxes", "secret")

    def __init__(
        self, index: int, generation: int, secret: bytes, inbox: socket.socket | None, outboxes: list[socket.socket]
    ) -> None:
        self.index = index
        self.generation = generation
        self.secret = secret
        self.inbox = inbox
        self.outboxes = outboxes
        self._prefix = bytes((generation & 0xFF, index))
        self._reset_key = hmac.digest(secret, b"stateless reset", "sha256")

    @classmethod
    def single(cls) -> Seat:
        """The seat of a worker that has no colleagues."""
        return cls(0, 0, os.urandom(32), None, [])

    def new_id(self) -> bytes:
        """A fresh connection id."""
        return self._prefix + os.urandom(ID_LENGTH - 2)

    def reset_token(self, connection_id: bytes) -> bytes:
        """The stateless-reset token of a connection id, 16 bytes (RFC 9000 §10.3.2)."""
        return hmac.digest(self._reset_key, connection_id, "sha256")[:16]

    def owner(self, connection_id: bytes) -> socket.socket | None:
        """Where to pass a packet for this id on to; None when it is ours or nobody's."""
        slot = connection_id[1]
        return self.outboxes[slot] if slot != self.index and slot < len(self.outboxes) else None


class RetryTokens:
    """Proofs that a client receives at the address it sends from (RFC 9000 §8.1.2). Any worker reads any worker's."""

    __slots__ = ("_aead",)

    def __init__(self, secret: bytes) -> None:
        self._aead = AESGCM(hmac.digest(secret, b"retry token", "sha256")[:16])

    def make(self, address: tuple[str, int], original: bytes, source: bytes, now: float) -> bytes:
        """A token for a client.

        Args:
            original: the Destination Connection ID of the client's first Initial.
            source: the Source Connection ID of our Retry; the client must use it from now on.
            now: seconds on the machine's monotonic clock.
        """
        plain = struct.pack("!dB", now, len(original)) + original + source
        nonce = os.urandom(_NONCE)
        return nonce + self._aead.encrypt(nonce, plain, _bound(address))

    def read(self, token: bytes, address: tuple[str, int], destination: bytes, now: float) -> bytes | None:
        """The original Destination Connection ID; b"" for a token of ours that is not good (any more), None for another's.

        Args:
            destination: Destination Connection ID of the packet that brought the token.
        """
        try:
            plain = self._aead.decrypt(token[:_NONCE], token[_NONCE:], _bound(address))
        except (InvalidTag, ValueError):
            return None
        made, length = struct.unpack_from("!dB", plain)
        original, source = plain[9 : 9 + length], plain[9 + length :]
        if source != destination or not 0 <= now - made <= TOKEN_LIFETIME:
            return b""
        return original


def _bound(address: tuple[str, int]) -> bytes:
    return hashlib.sha256(f"{address[0]} {address[1]}".encode()).digest()
