# Puzzles and clearances: how they are made and checked. What asks for them, and how they travel, is not known here.
"""`Challenger` makes puzzles, checks their solutions, and gives and reads clearances. It keeps nothing.

A puzzle is a sealed token. Its parts, numbered from 0, are solved by 4-byte nonces with which
`SHA-256(SHA-256(token) ‖ part ‖ nonce)` begins with `bits` zeros. Many small parts instead of a large one: how long it takes
varies by a quarter of the mean, not by all of it. Both token and clearance say for whom they are: network, client, host.
"""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final, NamedTuple

from edgeproxy.policy.seals import Seals, decoded, values_of

if TYPE_CHECKING:
    from edgeproxy.config.challenge import Challenge
    from edgeproxy.message import Headers

PARTS: Final = 16
PARTS_BITS: Final = 4  # 2**4 parts
WAITED: Final = 1  # the level of who waited
SOLVED: Final = 2  # the level of who solved a puzzle
PUZZLE_LIFE: Final = 300  # seconds
COOKIE: Final = b"__Host-edge_clearance"
COOKIE_QUIC: Final = b"__Host-edge_clearance_h3"
LEVELS: Final = {"managed_challenge": WAITED, "challenge": WAITED, "js_challenge": SOLVED}

# Why a token or a clearance is refused: the label in metrics.
UNREADABLE: Final = "unreadable"  # changed, of nobody's making, or of keys that are gone
EXPIRED: Final = "expired"
OTHER_HOST: Final = "other_host"
OTHER_ADDRESS: Final = "other_address"
OTHER_CLIENT: Final = "other_client"
WRONG: Final = "wrong"
EARLY: Final = "early"
NO_WAITING: Final = "no_waiting"

_BOUND: Final = struct.Struct("8s8s4s8s")
_TOKEN: Final = struct.Struct(">BIIBBB28s")  # version, issued, expires, bits of a part, seconds to wait, score, for whom
_CLEARANCE: Final = struct.Struct(">BBI28s")  # version, level, expires, for whom
_PARTS: Final = tuple((bytes([part]), 4 * part) for part in range(PARTS))
_VERSION: Final = 1
_MOST: Final = 4  # clearances of one request that are looked at: each may be opened with four keys
_WORD: Final = 32


class Holder(NamedTuple):
    """For whom something is made; hashes, since nobody has to read them.

    Attributes:
        network: of the address: all of an IPv4 address, 64 bits of an IPv6 one.
        client: the fingerprint of the TLS client.
        ciphers: the part of it that is the same on all connections of a client, whatever they are for.
        host: of the request.
    """

    network: bytes
    client: bytes
    ciphers: bytes
    host: bytes

    def differs(self, other: bytes, *, upgrade: bool = False) -> str | None:
        """Why what is made for `other` (packed) is not for this one; None when it is.

        Args:
            upgrade: the connection is for a WebSocket: browsers open those with another ClientHello, of the same ciphers.
        """
        network, client, ciphers, host = _BOUND.unpack(other)
        if host != self.host:
            return OTHER_HOST
        if network != self.network:
            return OTHER_ADDRESS
        if client != self.client and not (upgrade and ciphers == self.ciphers):
            return OTHER_CLIENT
        return None


def holder(address: str, ja4: str, host: str) -> Holder:
    """For whom something is made.

    Args:
        address: textual, without zone; "" for Unix sockets.
        ja4: the normalised one (resumption does not change it); "" when it is not known.
    """
    return Holder(_network(address), _hash("client", ja4), _hash("ciphers", ja4.split("_")[1] if "_" in ja4 else "")[:4],
                  _hash("host", host))  # fmt: skip


@lru_cache(4096)
def _hash(kind: str, text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, person=kind.encode()).digest()


@lru_cache(4096)
def _network(address: str) -> bytes:
    try:
        found = ip_address(address)
    except ValueError:
        return _hash("network", address)
    if isinstance(found, IPv6Address):
        mapped = found.ipv4_mapped
        return _hash("network", str(mapped if mapped is not None else int(found) >> 64))
    return _hash("network", str(found))


class Puzzle(NamedTuple):
    """What a client is asked.

    Attributes:
        seed: SHA-256 of the token, as hex digits.
        bits: zeros that each part needs.
        wait: seconds after which it may be handed in without a solution; 0: never.
        expires: seconds since the epoch.
    """

    token: bytes
    seed: str
    bits: int
    wait: int
    expires: int

    def shown(self, path: str) -> dict[str, str | int]:
        """What the script is given."""
        token = self.token.decode("ascii")
        return {"path": path, "token": token, "seed": self.seed, "bits": self.bits, "count": PARTS, "expires": self.expires}


class Passed(NamedTuple):
    """A puzzle was passed.

    Attributes:
        once: names the puzzle, 16 bytes; it may be used once.
        expires: when nobody need remember it any more, in seconds since the epoch.
        seconds: that it took.
    """

    level: int
    once: bytes
    expires: int
    bits: int
    score: int
    seconds: int


class Challenger:
    """See the module; one per snapshot.

    Attributes:
        path: where solutions are handed in.
        script: where the script is.
    """

    __slots__ = ("_clearances", "_lives", "_start", "_table", "_tokens", "_unscored", "_wait", "_wait_score", "path", "script")

    def __init__(self, settings: Challenge) -> None:
        secrets = tuple(secret.reveal() for secret in settings.secrets)
        self._tokens = Seals(secrets, b"puzzle")
        self._clearances = Seals(secrets, b"clearance")
        self._lives = {SOLVED: int(settings.clearance), WAITED: int(settings.no_script.clearance)}
        self._table = tuple((each.up_to, each.bits) for each in settings.difficulties)
        self._unscored = settings.unscored_bits
        self._wait = int(settings.no_script.wait) if settings.no_script.enabled else 0
        self._wait_score = settings.no_script.least_score
        self._start = settings.path.encode("ascii")
        self.path = settings.path
        self.script = settings.path + ".js"

    def serves(self, target: bytes) -> str | None:
        """The path of ours that a target has; None: none."""
        if not target.startswith(self._start):
            return None
        path = target.partition(b"?")[0].decode("latin-1")
        return path if path in (self.path, self.script) else None

    def bits(self, score: int) -> int:
        """log2 of the hashes that a puzzle takes on average. `score`: 1 to 99; 0: not known."""
        if score > 0:
            for up_to, bits in self._table:
                if score <= up_to:
                    return bits
        return self._unscored

    def puzzle(self, whom: Holder, score: int, now: float, level: int = WAITED) -> Puzzle:
        """A new puzzle.

        Args:
            level: that the client needs; where waiting is not enough it is not offered.
        """
        bits = self.bits(score) - PARTS_BITS
        wait = 0 if level > WAITED or 0 < score < self._wait_score else self._wait
        issued, expires = int(now), int(now) + PUZZLE_LIFE + wait
        content = _TOKEN.pack(_VERSION, issued, expires, bits, wait, min(max(score, 0), 99), _BOUND.pack(*whom))
        token = self._tokens.seal(content, now)
        return Puzzle(token, hashlib.sha256(token).hexdigest(), bits, wait, expires)

    def check(self, token: bytes, solution: bytes | None, whom: Holder, now: float) -> Passed | str:
        """What a client hands in: passed, or why not.

        Args:
            solution: `PARTS` nonces of 4 bytes, base64url; None: it waited instead.
        """
        content = self._tokens.open(token, now)
        if content is None or len(content) != _TOKEN.size or content[0] != _VERSION:
            return UNREADABLE
        _, issued, expires, bits, wait, score, made_for = _TOKEN.unpack(content)
        if now >= expires:
            return EXPIRED
        problem = whom.differs(made_for)
        if problem is not None:
            return problem
        if solution is None:
            if not wait:
                return NO_WAITING
            if now < issued + wait:
                return EARLY
        elif not _solves(hashlib.sha256(token), bits, solution):
            return WRONG
        # Not of the text: several texts of base64 have the same bytes.
        once = hashlib.blake2b(decoded(token) or b"", digest_size=16, person=b"puzzle").digest()
        return Passed(WAITED if solution is None else SOLVED, once, expires, bits + PARTS_BITS, score, int(now) - issued)

    def until(self, token: bytes, now: float) -> int:
        """Seconds that somebody who handed a token in too early has to wait still."""
        content = self._tokens.open(token, now)
        if content is None or len(content) != _TOKEN.size:
            return 0
        _, issued, _, _, wait, _, _ = _TOKEN.unpack(content)
        return max(int(issued + wait - now) + 1, 0)

    def clear(self, level: int, whom: Holder, ja4: str, now: float) -> bytes:
        """The value of a Set-Cookie that is a clearance."""
        life = self._lives[level]
        text = self._clearances.seal(_CLEARANCE.pack(_VERSION, level, int(now) + life, _BOUND.pack(*whom)), now)
        return b"%b=%b; Path=/; Max-Age=%d; Secure; HttpOnly; SameSite=Lax" % (_cookie(ja4), text, life)

    def level(self, headers: Headers, whom: Holder, ja4: str, now: float, *, upgrade: bool = False) -> int | str:
        """The level of the clearance that a request carries, 0 when it carries none, or why that is not right."""
        found: int | str = 0
        name, left = _cookie(ja4), _MOST
        for field, value in headers:
            if field == b"cookie" and left and name in value:
                # Over HTTP/2 each cookie may have a line of its own.
                for text in values_of(value, name, left):
                    left -= 1
                    found = self._level(text, whom, now, upgrade)
                    if isinstance(found, int):
                        return found
        return found

    def _level(self, text: bytes, whom: Holder, now: float, upgrade: bool) -> int | str:
        content = self._clearances.open(text, now)
        if content is None or len(content) != _CLEARANCE.size or content[0] != _VERSION:
            return UNREADABLE
        _, level, expires, made_for = _CLEARANCE.unpack(content)
        if now >= expires:
            return EXPIRED
        return whom.differs(made_for, upgrade=upgrade) or int(level)


def _cookie(ja4: str) -> bytes:
    """A browser has one fingerprint over TCP and one over QUIC, and goes from one to the other: each has its clearance."""
    return COOKIE_QUIC if ja4.startswith("q") else COOKIE


def _solves(seed: hashlib._Hash, bits: int, solution: bytes) -> bool:
    nonces = decoded(solution)
    if nonces is None or len(nonces) != 4 * PARTS:
        return False
    start, limit, sha256 = seed.digest(), (1 << (_WORD - bits)).to_bytes(4, "big"), hashlib.sha256
    # Bytes compare as the numbers that they are, most significant first.
    return all(sha256(start + number + nonces[at : at + 4]).digest() < limit for number, at in _PARTS)
