# A bot that signs its requests (RFC 9421), written against the RFC and not against our reading of it.
"""`Signer`: a key, and the fields it adds to a request; `directory()`: what its operator publishes."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgeproxy.message import Peer, Request

NOW = 1_800_000_000.0


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def request(
    headers: list[tuple[bytes, bytes]] | None = None,
    *,
    method: bytes = b"GET",
    authority: bytes = b"example.com",
    target: bytes = b"/path/to/resource",
    secure: bool = True,
) -> Request:
    peer = Peer("203.0.113.7", trusted=False, secure=secure)
    return Request(method, authority, target, headers or [], 0, 0, peer)


class Signer:
    def __init__(self, seed: bytes = b"\x01" * 32) -> None:
        self.private = Ed25519PrivateKey.from_private_bytes(seed)
        self.x = b64url(self.private.public_key().public_bytes_raw())
        text = f'{{"crv":"Ed25519","kty":"OKP","x":"{self.x}"}}'
        self.keyid = b64url(hashlib.sha256(text.encode()).digest())

    def jwk(self, **more: Any) -> dict[str, Any]:
        return {"kty": "OKP", "crv": "Ed25519", "x": self.x, **more}

    def directory(self) -> bytes:
        return json.dumps({"keys": [self.jwk()]}).encode()

    def signature(self, base: str) -> str:
        return base64.b64encode(self.private.sign(base.encode())).decode()

    def fields(
        self,
        covered: list[tuple[str, str]],
        agent: bytes | None = b'sig1="https://agent.example"',
        *,
        label: str = "sig1",
        created: int = int(NOW) - 10,
        expires: int = int(NOW) + 300,
        more: str = "",
        tag: str = "web-bot-auth",
    ) -> list[tuple[bytes, bytes]]:
        """Signature-Agent, Signature-Input and Signature.

        Args:
            covered: identifiers of components as they are written, with their values.
        """
        names = " ".join(name for name, _ in covered)
        parameters = f'({names});created={created};expires={expires};keyid="{self.keyid}";tag="{tag}"{more}'
        base = "".join(f"{name}: {value}\n" for name, value in covered) + f'"@signature-params": {parameters}'
        made = [(b"signature-agent", agent)] if agent is not None else []
        made.append((b"signature-input", f"{label}={parameters}".encode()))
        made.append((b"signature", f"{label}=:{self.signature(base)}:".encode()))
        return made

    def usual(self, **changes: Any) -> list[tuple[bytes, bytes]]:
        """What a conforming agent sends to example.com."""
        covered = [('"@authority"', "example.com"), ('"signature-agent";key="sig1"', '"https://agent.example"')]
        return self.fields(covered, **changes)
