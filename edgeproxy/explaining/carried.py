# What a request carries of the edge's own making, a clearance and a session, and what that is worth. As far as paper can tell.
"""`clearance` and `session`: what the cookies in a question come to.

A clearance is bound to a fingerprint in a form that paper does not know: `--ja4` stands for it, which it mostly is. Without a
`challenge.secret_file` only the edge that made a cookie can read it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from edgeproxy.observe.metrics import H3
from edgeproxy.policy.challenge import (
    COOKIE,
    COOKIE_QUIC,
    EXPIRED,
    LEVELS,
    OTHER_ADDRESS,
    OTHER_CLIENT,
    OTHER_HOST,
    SOLVED,
    UNREADABLE,
    holder,
)
from edgeproxy.policy.challenge_page import asks_first
from edgeproxy.policy.seals import values_of
from edgeproxy.policy.session import LIFETIME, NAME

if TYPE_CHECKING:
    from edgeproxy.explaining.ways import Ways

_REASONS: Final = {
    EXPIRED: "has ended", OTHER_HOST: "is for another host", OTHER_ADDRESS: "is another address's",
    OTHER_CLIENT: "is another client's: its fingerprint is not this one", UNREADABLE: "is none that this edge has made",
}  # fmt: skip
_UNKNOWN: Final = "cannot be checked here: without challenge.secret_file each start of an edge has a secret of its own"
_UNBOUND: Final = "holds, if the client has the fingerprint that it was made for"
_RESUMED: Final = "holds, if it was not made for another fingerprint than --ja4: that of a resumed handshake differs"


class Known(NamedTuple):
    """What a session cookie comes to.

    Attributes:
        may: the client may be known by it; else by its address.
        says: how it is with it; "" where none is carried.
    """

    may: bool
    says: str


class Clearance(NamedTuple):
    """What a clearance comes to.

    Attributes:
        level: that it has (policy.challenge); 0: none; None: that cannot be said.
        says: how it is with it, behind "the clearance that it carries"; "" where none is carried.
    """

    level: int | None
    says: str


def clearance(ways: Ways) -> Clearance:
    """The clearance in a question."""
    found = ways.clearance
    if found is None:
        found = ways.clearance = _clearance(ways)
    return found


def _clearance(ways: Ways) -> Clearance:
    request, plan, challenger = ways.request, ways.plan, ways.snapshot.challenger
    peer = request.peer
    ja4 = "" if peer.prints is None else peer.prints.ja4n
    quic = ja4.startswith("q") or (not ja4 and not peer.trusted and request.protocol == H3)
    if not _carries(ways, COOKIE_QUIC if quic else COOKIE):
        return Clearance(0, "")
    level = challenger.level(request.headers, holder(plan.client, ja4, plan.host), "q" if quic else "", ways.clock())
    if isinstance(level, int):
        return Clearance(level, "holds" if level >= SOLVED else "holds: the client has waited, and solved nothing")
    if level == UNREADABLE and not ways.snapshot.config.challenge.secrets:
        return Clearance(None, _UNKNOWN)
    if level == OTHER_CLIENT and not peer.trusted:
        return Clearance(None, _RESUMED if ja4 else _UNBOUND)
    return Clearance(0, _REASONS.get(level, level))


def passes(ways: Ways, action: str) -> str:
    """Why the request passes a challenge, "" if it does not, or nobody can say."""
    if asks_first(ways.request):
        return "it is a preflight, which no browser could pass it with"
    found = clearance(ways)
    return "its clearance holds" if (found.level or 0) >= LEVELS[action] else ""


def unless(ways: Ways) -> str:
    """Behind "challenges": whom not, and what is known of this one."""
    found = clearance(ways)
    return "unless the client has a clearance" + (f"; the one that it carries {found.says}" if found.says else "")


def session(ways: Ways) -> Known:
    """The session cookie in a question."""
    settings = ways.snapshot.bots
    if settings is None or settings.sessions is None or not _carries(ways, NAME):
        return Known(False, "")
    now = ways.clock()
    found = settings.sessions.read(ways.request.headers, now)
    if found is not None:
        return Known(True, f"{found.requests} requests or so, since {max(int(now) - found.first, 0)} seconds")
    if not ways.snapshot.config.challenge.secrets:
        return Known(True, _UNKNOWN)
    return Known(False, f"none that this edge has made in the last {LIFETIME // 60} minutes: the client is known by its address")


def _carries(ways: Ways, name: bytes) -> bool:
    return any(field == b"cookie" and values_of(value, name) for field, value in ways.request.headers)
