# Public keys of signing agents: what a directory says, which keys are no good, how long they hold. Nothing is fetched here.
"""`read_directory(body)`: a JSON Web Key Set as Web Bot Auth publishes it; `Keyring`: those of all agents that are allowed.

Times are seconds since the epoch. An agent is the origin that its directory is at: `https://chatgpt.com`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

WELL_KNOWN: Final = "/.well-known/http-message-signatures-directory"
MEDIA_TYPE: Final = "application/http-message-signatures-directory+json"
MAX_DIRECTORY: Final = 64 << 10  # bytes
MAX_KEYS: Final = 32  # of one directory
# Thumbprints of the keys of RFC 9421 appendix B.1, whose private halves everybody has.
PUBLISHED: Final = frozenset({"poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U", "oD0HwocPBSfpNy5W3bpJeyFGY_IQ_YpqxSjQ3Yd-CLA"})
MIN_AGE: Final = 60.0  # seconds that a directory is kept, whatever it says
MAX_AGE: Final = 86400.0
DEFAULT_AGE: Final = 3600.0
RETRY: Final = 600.0  # seconds until a directory that could not be had is asked for again
ROTATED: Final = 300.0  # and one that lacks the key of a request
_LOST: Final = 60.0  # and one for which no answer ever came
_EARLY: Final = 0.8  # of its age after which it is asked for again, so that it need not run out
_ORIGIN: Final = re.compile(r"https://(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,62}(?::[1-9][0-9]{0,4})?")
_MILLISECONDS: Final = 1e11  # a time beyond this (the year 5138) is in milliseconds: some directories have those
_MAX_AGE: Final = re.compile(r"(?:^|[,\s])(?:max-age)=\"?([0-9]{1,9})", re.IGNORECASE)


class Key(NamedTuple):
    """A public key, of use in `begins <= now < ends`."""

    public: Ed25519PublicKey | RSAPublicKey
    algorithm: str  # as RFC 9421 names it
    begins: float
    ends: float

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether a signature is this key's. 135 µs for Ed25519, 35 for RSA."""
        try:
            if isinstance(self.public, Ed25519PublicKey):
                self.public.verify(signature, data)
            else:
                self.public.verify(signature, data, *_pss())
        except InvalidSignature:
            return False
        return True


def _pss() -> tuple[Any, Any]:
    # RFC 9421 §3.3.1: RSASSA-PSS with SHA-512, MGF1 of the same, and 64 bytes of salt.
    from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
    from cryptography.hazmat.primitives.hashes import SHA512

    return PSS(MGF1(SHA512()), 64), SHA512()


def origin(text: str) -> str | None:
    """The origin of an agent as it is looked up, None for what is none: not https, an IP address, a path, a name without dots."""
    lowered = text.lower().removesuffix("/")
    if len(lowered) > 253 or _ORIGIN.fullmatch(lowered) is None:
        return None
    return lowered.removesuffix(":443")


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """RFC 7638; the members of RFC 8037 appendix A.3 for Ed25519. `jwk` has been checked to have them."""
    names = ("crv", "kty", "x") if jwk["kty"] == "OKP" else ("e", "kty", "n")
    text = json.dumps({name: jwk[name] for name in names}, separators=(",", ":"), sort_keys=True)
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def read_directory(body: bytes, refused: frozenset[str] = PUBLISHED) -> dict[str, Key] | str:
    """Keys by thumbprint, or what is wrong with the directory. Keys of other kinds, and wrong ones, are left out.

    What a directory calls its keys (`kid`) does not count: not all of them give the thumbprint.

    Args:
        refused: thumbprints that nobody is believed.
    """
    if len(body) > MAX_DIRECTORY:
        return f"more than {MAX_DIRECTORY} bytes"
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return "not JSON"
    if isinstance(value, dict) and "keys" not in value and "kty" in value:
        value = {"keys": [value]}  # some serve one key as it is
    listed = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(listed, list):
        return "no list of keys"
    if len(listed) > MAX_KEYS:
        return f"more than {MAX_KEYS} keys"
    found: dict[str, Key] = {}
    for jwk in listed:
        key = read_key(jwk)
        if key is not None and (name := thumbprint(jwk)) not in refused:
            found[name] = key
    return found if found else "no key of a kind that is understood (Ed25519, RSA of 2048 to 4096 bits)"


def read_key(jwk: Any) -> Key | None:
    """A public key, None for one that is of another kind, for another use, or wrong."""
    if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig":
        return None
    begins, ends = _time(jwk.get("nbf"), 0.0), _time(jwk.get("exp"), float("inf"))
    try:
        if jwk.get("kty") == "OKP" and jwk.get("crv") == "Ed25519" and jwk.get("alg", "EdDSA") in ("EdDSA", "Ed25519", "ed25519"):
            return Key(Ed25519PublicKey.from_public_bytes(_bytes(jwk["x"])), "ed25519", begins, ends)
        if jwk.get("kty") == "RSA" and jwk.get("alg", "PS512") in ("PS512", "rsa-pss-sha512"):
            modulus, exponent = _bytes(jwk["n"]), _bytes(jwk["e"])
            if 256 <= len(modulus.lstrip(b"\0")) <= 512 and len(exponent) <= 4:
                numbers = RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big"))
                return Key(numbers.public_key(), "rsa-pss-sha512", begins, ends)
    except (KeyError, ValueError, TypeError):
        pass
    return None


def _time(value: Any, absent: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return absent
    return value / 1000 if value > _MILLISECONDS else float(value)


def _bytes(text: Any) -> bytes:
    """base64url without padding. Raises ValueError, TypeError."""
    if not isinstance(text, str) or len(text) > 1024:
        raise ValueError
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError from error


def age(cache_control: str | None) -> float:
    """Seconds for which a directory is good, by its Cache-Control."""
    if cache_control is None:
        return DEFAULT_AGE
    lowered = cache_control.lower()
    if "no-store" in lowered or "no-cache" in lowered:
        return MIN_AGE
    found = _MAX_AGE.search(lowered)
    return DEFAULT_AGE if found is None else min(max(float(found[1]), MIN_AGE), MAX_AGE)


class _Held:
    __slots__ = ("asked", "keys", "lacking", "renew", "until")

    def __init__(self) -> None:
        self.keys: Mapping[str, Key] = {}
        self.until = 0.0  # the keys hold
        self.renew = 0.0  # from when on it is asked for again
        self.lacking = 0.0  # and from when on for a key that it does not have
        self.asked = 0.0  # until when an answer is waited for


class Keyring:
    """The keys of allowed agents; it outlives snapshots. At most one directory for each agent that the configuration allows.

    `want(agent)` is called when a directory is to be fetched, on the path of a request: it only takes notes. False: it
    could not. What was fetched comes back by `put` or `fail`.
    """

    __slots__ = ("_held", "_want")

    def __init__(self, agents: Iterable[str], want: Callable[[str], bool]) -> None:
        self._held = {agent: _Held() for agent in agents}
        self._want = want

    def __contains__(self, agent: str) -> bool:
        return agent in self._held

    def allow(self, agents: Iterable[str]) -> None:
        """After a reload: keys of those that stay are kept."""
        self._held = {agent: self._held.get(agent) or _Held() for agent in agents}

    def find(self, agent: str, keyid: str, now: float) -> tuple[Key | None, bool]:
        """The key, and whether it may yet come. By agent and name: one agent's key proves nothing about another."""
        held = self._held.get(agent)
        if held is None:
            return None, False
        key = held.keys.get(keyid) if now < held.until else None
        if (now >= held.renew or (key is None and now >= held.lacking)) and now >= held.asked and self._want(agent):
            held.asked = now + _LOST
        if key is not None:
            return (key if key.begins <= now < key.ends else None), False
        return None, now < held.asked

    def put(self, agent: str, keys: Mapping[str, Key], lasting: float, now: float) -> None:
        """A directory came; it is good for `lasting` seconds."""
        if (held := self._held.get(agent)) is not None:
            held.keys = keys
            held.until = now + lasting
            held.renew = now + _EARLY * lasting
            held.lacking = now + ROTATED
            held.asked = 0.0

    def fail(self, agent: str, now: float) -> None:
        """It could not be had. Keys that still hold are kept."""
        if (held := self._held.get(agent)) is not None:
            held.renew = held.lacking = now + RETRY
            held.asked = 0.0
