# What an operator refuses for a time: addresses, networks, fingerprints and keys. Who is asked to refuse it, and how the list
# comes here, is not known here; time comes in.
"""`Block`: one entry; `understand` reads it from what somebody asks for; `Blocks`: all of them, ready to be asked.

Times are seconds of the machine's monotonic clock, which all of its processes share: setting its clock ends no block and
prolongs none.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from typing import Final, Literal, get_args

import msgspec

from edgeproxy.rules.addresses import client_code, parse_range, show_range

MAX_BLOCKS: Final = 10_000
MAX_SECONDS: Final = 366 * 86_400
MAX_REASON: Final = 200  # characters

Kind = Literal["ip", "network", "ja4", "key"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
Name = tuple[Kind, str]
"""What is blocked: the kind, and the value in one form."""

_JA4: Final = re.compile(r"[tqd][0-9a-z]{2}[di][0-9]{4}[0-9a-zA-Z]{2}(?:_[0-9a-f]{12}){0,2}")
_KEY: Final = re.compile(r"(?:ep-)?([0-9A-Za-z]{8})")


class Refused(Exception):
    """What was asked for cannot be done; the message says why, for people."""


class Block(msgspec.Struct, frozen=True, array_like=True):
    """One block.

    Attributes:
        value: `192.0.2.1`, `192.0.2.0/24`, a fingerprint or its leading parts, or the id of a key without `ep-`.
        until: monotonic seconds.
        made: Unix time.
    """

    kind: Kind
    value: str
    until: float
    made: float
    reason: str

    @property
    def name(self) -> Name:
        return self.kind, self.value


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """What somebody asks for: exactly one of the first four. `seconds` 0 takes a block away."""

    seconds: int
    ip: str | None = None
    network: str | None = None
    ja4: str | None = None
    key: str | None = None
    reason: str = ""

    def name(self) -> Name:
        """What is to be blocked. Raises: Refused."""
        named: list[tuple[Kind, str]] = [(kind, text) for kind in KINDS if (text := getattr(self, kind)) is not None]
        if len(named) != 1:
            raise Refused(f"give one of {', '.join(KINDS)}, and only one")
        return normal(*named[0])


_decode = msgspec.json.Decoder(Wanted).decode


def understand(content: bytes, now: float, wall: float) -> Block:
    """The block that a JSON document asks for; one that is to be taken away ends now.

    Args:
        now, wall: monotonic seconds and Unix time.

    Raises: Refused.
    """
    try:
        wanted = _decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"the request is not understood: {error}") from None
    if not 0 <= wanted.seconds <= MAX_SECONDS:
        raise Refused(f"'seconds' is 0 (take the block away) to {MAX_SECONDS}")
    if len(wanted.reason) > MAX_REASON or not wanted.reason.isprintable():
        raise Refused(f"a reason has at most {MAX_REASON} characters, and no control characters")
    return Block(*wanted.name(), now + wanted.seconds, wall, wanted.reason)


def normal(kind: Kind, text: str) -> Name:
    """What a value means, in one form: a network of one address is an address. Raises: Refused."""
    if kind == "ja4":
        if _JA4.fullmatch(text) is None:
            raise Refused("'ja4' is a JA4 fingerprint, or its leading parts: t13d1516h2, t13d1516h2_8daaf6152771")
        return kind, text
    if kind == "key":
        found = _KEY.fullmatch(text)
        if found is None:
            raise Refused("'key' is the id of a key: ep- and 8 characters; not the key itself")
        return kind, found[1]
    codes = parse_range(text) if ".." not in text else "write a network as address/bits"
    if isinstance(codes, str):
        raise Refused(f"'{kind}': {codes}")
    first, last = codes
    if kind == "ip" and first != last:
        raise Refused("'ip' is one address; a network is a 'network'")
    return ("ip" if first == last else "network"), show_range(first, last)


class Blocks:
    """See the module. Entries that are over by the time of the question are not found.

    Attributes:
        fingerprints: some are blocked: it is worth finding out the client's.
    """

    __slots__ = ("_firsts", "_found", "_ips", "_ja4", "_keys", "_lasts", "fingerprints")

    def __init__(self, blocks: Iterable[Block]) -> None:
        self._ips: dict[int, Block] = {}
        self._keys: dict[str, Block] = {}
        self._ja4: dict[str, Block] = {}
        networks: list[tuple[int, int, Block]] = []
        for block in blocks:
            if block.kind == "key":
                self._keys[block.value] = block
            elif block.kind == "ja4":
                self._ja4[block.value] = block
            else:
                codes = parse_range(block.value)
                if isinstance(codes, str):
                    continue
                if block.kind == "ip":
                    self._ips[codes[0]] = block
                else:
                    networks.append((*codes, block))
        self.fingerprints = bool(self._ja4)
        parts = _apart(networks)
        self._firsts = [first for first, _, _ in parts]
        # A last one that holds nothing: a number below all others is looked up at index -1.
        self._lasts = [*(last for _, last, _ in parts), -1]
        self._found = [block for _, _, block in parts]

    def client(self, address: str, now: float) -> Block | None:
        """Whether a client's address is blocked."""
        code = client_code(address)
        if code is None:
            return None
        found = self._ips.get(code)
        if found is not None and found.until > now:
            return found
        at = bisect_right(self._firsts, code) - 1
        if code <= self._lasts[at]:
            found = self._found[at]
            if found.until > now:
                return found
        return None

    def key(self, key_id: str, now: float) -> Block | None:
        """Whether a key of the edge is blocked."""
        found = self._keys.get(key_id)
        return found if found is not None and found.until > now else None

    def fingerprint(self, ja4: str, now: float) -> Block | None:
        """Whether a JA4 fingerprint is blocked, as a whole or by its leading parts."""
        while ja4:
            found = self._ja4.get(ja4)
            if found is not None and found.until > now:
                return found
            ja4 = ja4.rpartition("_")[0]
        return None


def _apart(networks: list[tuple[int, int, Block]]) -> list[tuple[int, int, Block]]:
    """Networks, one inside the other or apart, as ranges that are apart, each with the block that lasts longest there."""
    made: list[tuple[int, int, Block]] = []
    around: list[tuple[int, Block]] = []  # networks that hold the present place, the innermost last: its end, who lasts longest
    at = 0

    def leave(before: int | None) -> None:
        nonlocal at
        while around and (before is None or around[-1][0] < before):
            last, block = around.pop()
            if at <= last:
                made.append((at, last, block))
                at = last + 1

    for first, last, block in sorted(networks, key=lambda each: (each[0], -each[1])):
        leave(first)
        if around:
            if at < first:
                made.append((at, first - 1, around[-1][1]))
            block = max(block, around[-1][1], key=lambda each: each.until)  # noqa: PLW2901  who lasts longest here
        at = first
        around.append((last, block))
    leave(None)
    return made
