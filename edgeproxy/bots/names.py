# Whose host an address is: forward-confirmed reverse DNS. What is asked and what the answers mean is decided here; nobody is
# asked from here.
"""`candidates`, `confirms`: the pure decision; `Names`: what was found of addresses, bounded, asked for in the background.

An address belongs to an operator if its PTR record ends with the operator's domain *and* that name's A or AAAA records
contain the address: the PTR record alone is written by whoever has the address. Times are seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from edgeproxy.rules.addresses import V6, client_code

POSITIVE: Final = 86400.0  # seconds for which an answer is good
NEGATIVE: Final = 600.0
STALE: Final = 3600.0  # and for which a confirmed one is still good while it is asked for again
UNSURE: Final = 60.0  # after a server did not answer, or nobody had time to ask
MAX_ADDRESSES: Final = 16_384
MAX_NAMES: Final = 4  # PTR records of one address that are looked at
_HOST: Final = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9-]{1,63}")


def reverse_name(code: int) -> str:
    """What is asked for a PTR record (RFC 1035 §3.5, RFC 3596 §2.5)."""
    if code < V6:
        return ".".join(str(byte) for byte in reversed(code.to_bytes(4, "big"))) + ".in-addr.arpa"
    return ".".join(reversed(f"{code - V6:032x}")) + ".ip6.arpa"


def ends_with(name: str, suffixes: Iterable[str]) -> bool:
    """Whether a host is below one of the domains; `evilgooglebot.com` is not below `googlebot.com`."""
    return any(name.endswith("." + suffix) for suffix in suffixes)


def candidates(names: Iterable[str], suffixes: Iterable[str]) -> tuple[str, ...]:
    """PTR records that are worth asking for their addresses: host names below a known bot's domain, MAX_NAMES at most."""
    wanted = tuple(suffixes)
    found: list[str] = []
    for raw in names:
        name = raw.lower().removesuffix(".")
        if len(name) <= 253 and _HOST.fullmatch(name) and ends_with(name, wanted) and name not in found:
            found.append(name)
            if len(found) == MAX_NAMES:
                break
    return tuple(found)


def confirms(code: int, addresses: Iterable[str]) -> bool:
    """Whether the A and AAAA records of a host contain the address that led to it."""
    return any(client_code(address) == code for address in addresses)


class Names:
    """What is known of addresses. It outlives snapshots.

    `want(code)` is called on the path of a request and only takes notes; False: it could not (too many wait).
    """

    __slots__ = ("_known", "_want")

    def __init__(self, want: Callable[[int], bool]) -> None:
        self._known: dict[int, tuple[tuple[str, ...] | None, float]] = {}
        self._want = want

    def of(self, code: int, now: float) -> tuple[str, ...] | None:
        """The confirmed names of an address, none at all for one that has none, None while that is not known."""
        known = self._known.get(code)
        if known is not None and now < known[1]:
            return known[0]
        # Who was confirmed is that until there is another answer: else a known bot would be nobody for a moment each day.
        last = known[0] if known is not None and now < known[1] + STALE else None
        # Noted even if nobody could take it, so that a flood of addresses does not ask for each of its requests.
        self._keep(code, last or None, now + UNSURE)
        self._want(code)
        return last or None

    def put(self, code: int, names: tuple[str, ...] | None, now: float) -> None:
        """An answer. None: there was none (a timeout, a server that failed)."""
        self._keep(code, names, now + (UNSURE if names is None else POSITIVE if names else NEGATIVE))

    def _keep(self, code: int, names: tuple[str, ...] | None, until: float) -> None:
        known = self._known
        known.pop(code, None)
        if len(known) >= MAX_ADDRESSES:
            del known[next(iter(known))]
        known[code] = (names, until)

    def __len__(self) -> int:
        return len(self._known)
