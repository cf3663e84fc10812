# The work of a challenge, done by a program: what a browser's script does, written against docs/challenge.md.
"""`solution(challenge)`: what is handed in for a challenge as JSON has it."""

from __future__ import annotations

import base64
import hashlib
from typing import Any


def solution(challenge: dict[str, Any]) -> str:
    """Nonces whose hashes begin with so many zero bits, one for each part."""
    seed, free, nonces = bytes.fromhex(challenge["seed"]), 256 - challenge["bits"], b""
    for part in range(challenge["count"]):
        nonce = 0
        while int.from_bytes(hashlib.sha256(seed + bytes([part]) + nonce.to_bytes(4, "big")).digest(), "big") >> free:
            nonce += 1
        nonces += nonce.to_bytes(4, "big")
    return base64.urlsafe_b64encode(nonces).rstrip(b"=").decode()
