# In which order browsers send their header fields. Tables; a request's order is compared with its claimed family's.
"""`disorder`: the share of pairs of fields that stand the other way round than the claimed family sends them."""

from __future__ import annotations

from typing import Final

from edgeproxy.bots.agents import CHROMIUM, FIREFOX, SAFARI

UNKNOWN: Final = -1.0
_KEPT: Final = 4096  # orders that are remembered; more, and all are forgotten

# Only fields whose place depends on nothing else: Chromium moves its client hints, Origin, Priority and Cookie, and what a
# script sets is anywhere.
_ORDERS: Final[dict[int, tuple[tuple[bytes, ...], ...]]] = {
    CHROMIUM: (
        (
            b"user-agent", b"accept", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-user", b"sec-fetch-dest", b"referer",
            b"accept-encoding", b"accept-language",
        ),
    ),
    FIREFOX: (
        (
            b"user-agent", b"accept", b"accept-language", b"upgrade-insecure-requests", b"sec-fetch-dest", b"sec-fetch-mode",
            b"sec-fetch-site", b"sec-fetch-user", b"priority",
        ),
    ),
    SAFARI: (
        (
            b"sec-fetch-dest", b"user-agent", b"accept", b"sec-fetch-site", b"sec-fetch-mode", b"accept-language", b"priority",
            b"accept-encoding",
        ),
        (b"accept", b"sec-fetch-site", b"accept-encoding", b"sec-fetch-mode", b"user-agent", b"accept-language",
        b"sec-fetch-dest"),
        (b"accept", b"sec-fetch-site", b"sec-fetch-dest", b"accept-language", b"sec-fetch-mode", b"user-agent",
        b"accept-encoding"),
        (b"accept", b"accept-encoding", b"user-agent", b"accept-language"),
        (b"accept", b"user-agent", b"accept-language", b"accept-encoding"),
    ),
}  # fmt: skip
_PLACES: Final = {family: [{name: at for at, name in enumerate(row)} for row in rows] for family, rows in _ORDERS.items()}
_NAMES: Final = {family: frozenset(name for row in rows for name in row) for family, rows in _ORDERS.items()}
_known: dict[tuple[int, tuple[bytes, ...]], float] = {}


def disorder(family: int, names: tuple[bytes, ...]) -> float:
    """0..1 for the nearest order of a family, -1 where the family has none.

    Args:
        names: of the fields, in order, each once.
    """
    if family not in _PLACES:
        return UNKNOWN
    known = _NAMES[family]
    # Only what is compared: what else a client sends must not fill the memory.
    key = (family, tuple([name for name in names if name in known]))
    found = _known.get(key)
    if found is None:
        if len(_known) >= _KEPT:
            _known.clear()
        found = _known[key] = min(_inversions(places, key[1]) for places in _PLACES[family])
    return found


def _inversions(places: dict[bytes, int], names: tuple[bytes, ...]) -> float:
    order = [places[name] for name in names if name in places]
    pairs = len(order) * (len(order) - 1) // 2
    if pairs == 0:
        return 0.0
    wrong = sum(order[one] > order[other] for one in range(len(order)) for other in range(one + 1, len(order)))
    return wrong / pairs
