# The session cookie: a name that the edge gave a client itself, so that its requests can be looked at together.
"""`Sessions` reads and writes it; when it is wanted, and what is counted under it, is the business of the bots' behaviour.

It is bound to nothing: it says who somebody was, and what was thought of the requests, and opens no door. Nobody but the
edge can read or make one.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from edgeproxy.policy.seals import Seals, values_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.message import Headers

NAME: Final = b"__Host-edge_session"
LIFETIME: Final = 1800  # seconds without a request
REWRITTEN: Final = 60  # seconds after which a reply carries it anew
MAX_COUNT: Final = 0xFFFF
_KEPT: Final = 4096  # texts that were opened and are remembered; more, and all are forgotten
_LAYOUT: Final = struct.Struct(">B16sIIHhI")
_VERSION: Final = 2
_GRAIN: Final = 1000  # steps of one log-odd
_FAR: Final = 0x7FFF
_MOST: Final = 4  # sessions of one request that are looked at


def shareable(headers: Headers) -> bool:
    """Whether caches that many share may keep a reply, by its Cache-Control: its cookies would be everybody's then.

    One that says nothing may be kept, too (RFC 9111 §4.2.2), but what has cookies is not.
    """
    for name, value in headers:
        if name == b"cache-control":
            said = value.lower()
            if b"private" in said or b"no-store" in said:
                return False
            if b"public" in said or b"max-age" in said or b"s-maxage" in said:
                return True
    return False


class Session(NamedTuple):
    """What a client carries.

    Attributes:
        id: 16 random bytes.
        first: when it was begun, in seconds since the epoch.
        seen: when it was last written.
        requests: about how many requests were seen until then; at most `MAX_COUNT`.
        odds: what was said of them on the average, in log-odds (to three decimals, within ±32).
        whose: hash of the program that this was said of; 0: nothing was said.
    """

    id: bytes
    first: int
    seen: int
    requests: int
    odds: float
    whose: int


class Sessions:
    """Reads and writes the cookie."""

    __slots__ = ("_kept", "_lifetime", "_seals")

    def __init__(self, secrets: Sequence[bytes] = (), lifetime: int = LIFETIME) -> None:
        """Args: see `Seals`; `lifetime` in seconds, at most a day."""
        self._seals = Seals(secrets, b"session")
        self._lifetime = lifetime
        self._kept: dict[bytes, Session] = {}

    def read(self, headers: Headers, now: float) -> Session | None:
        """The session of a request's field lines; None where there is none that is right and young enough."""
        left = _MOST
        for name, value in headers:
            if name == b"cookie" and left:
                for text in values_of(value, NAME, left):
                    left -= 1
                    session = self._session(text, now)
                    if session is not None:
                        return session
        return None

    def begin(self, now: float) -> Session:
        """A new session."""
        return Session(os.urandom(16), int(now), int(now), 0, 0.0, 0)

    def due(self, session: Session, now: float) -> bool:
        """Whether a reply should carry it: it is new, or was written a while ago."""
        return session.requests == 0 or now - session.seen >= REWRITTEN

    def write(self, session: Session, now: float) -> bytes:
        """The value of a Set-Cookie that keeps it for its lifetime from now on."""
        requests, odds = min(session.requests, MAX_COUNT), max(-_FAR, min(_FAR, round(session.odds * _GRAIN)))
        content = _LAYOUT.pack(_VERSION, session.id, session.first, int(now), requests, odds, session.whose)
        text = self._seals.seal(content, now)
        return b"%b=%b; Path=/; Max-Age=%d; Secure; HttpOnly; SameSite=Lax" % (NAME, text, self._lifetime)

    def _session(self, text: bytes, now: float) -> Session | None:
        session = self._kept.get(text)
        if session is None:
            content = self._seals.open(text, now)
            if content is None or len(content) != _LAYOUT.size or content[0] != _VERSION:
                return None
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            # Keys open for longer than a session lives, so that what was opened once need not be opened again.
            _, name, first, seen, requests, odds, whose = _LAYOUT.unpack(content)
            session = self._kept[text] = Session(name, first, seen, requests, odds / _GRAIN, whose)
        return session if session.seen + self._lifetime > now else None
