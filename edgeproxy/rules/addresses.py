# IP addresses as numbers on one line, and sets of them: IPv4 first, IPv6 behind it, so that one bisection finds any.
"""Codes of IP addresses, ranges of them, and `Ranges`: sorted integer ranges that are searched in well under a microsecond.

The code of an IPv4 address is its number, that of an IPv6 address its number plus 2^32. So addresses compare as the rules
language wants it (IPv4 before IPv6), and no range of one family touches the other.
"""

from __future__ import annotations

import re
import socket
from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

V6: Final = 1 << 32  # code of the address ::
LAST: Final = V6 + (1 << 128) - 1
_V4: Final = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.(?!$)|$)){4}")
_MAPPED: Final = 0xFFFF + 1  # the code of ::ffff:0.0.0.0 without its last 32 bits: V6 adds one there

Range = tuple[int, int]  # first and last code


def parse_ip(text: str) -> int | None:
    """The code of a textual address, None when it is none. Dotted IPv4 has no leading zeros (RFC 6943 §3.1.1)."""
    try:
        if ":" in text:
            return V6 + int.from_bytes(socket.inet_pton(socket.AF_INET6, text), "big")
        return int.from_bytes(socket.inet_pton(socket.AF_INET, text), "big") if _V4.fullmatch(text) else None
    except (OSError, ValueError):  # ValueError: a NUL in the text
        return None


def client_code(text: str) -> int | None:
    """The code of a client's address: an IPv4 address that came by an IPv6 socket (`::ffff:192.0.2.1`) is an IPv4 one."""
    try:
        if ":" not in text:  # it was parsed before, by the kernel or by who trusts a proxy: no look for leading zeros
            return int.from_bytes(socket.inet_pton(socket.AF_INET, text), "big")
        code = V6 + int.from_bytes(socket.inet_pton(socket.AF_INET6, text), "big")
    except (OSError, ValueError):
        return None
    return code & (V6 - 1) if code >> 32 == _MAPPED else code


def show_ip(code: int) -> str:
    """The address of a code, in the form of RFC 5952."""
    if code < V6:
        return socket.inet_ntop(socket.AF_INET, code.to_bytes(4, "big"))
    return socket.inet_ntop(socket.AF_INET6, (code - V6).to_bytes(16, "big"))


def show_range(first: int, last: int) -> str:
    """`192.0.2.1`, `192.0.2.0/24` or `192.0.2.1..192.0.2.5`."""
    if first == last:
        return show_ip(first)
    size = last - first + 1
    base = first if first < V6 else first - V6
    if size & (size - 1) == 0 and base % size == 0:
        return f"{show_ip(first)}/{(32 if first < V6 else 128) - size.bit_length() + 1}"
    return f"{show_ip(first)}..{show_ip(last)}"


def network(code: int, bits: int) -> int:
    """The address with all but its first `bits` bits cleared."""
    if code < V6:
        return code >> (32 - bits) << (32 - bits)
    return V6 + ((code - V6) >> (128 - bits) << (128 - bits))


def parse_range(text: str) -> Range | str:
    """`192.0.2.1`, `192.0.2.0/24`, `192.0.2.1..192.0.2.9`, or what is wrong with it.

    Clients never have addresses of IPv4 mapped to IPv6 (`client_code`): what is written so means the IPv4 addresses.
    """
    found = _parse_range(text)
    if isinstance(found, str):
        return found
    first, last = found
    if first >> 32 != _MAPPED and (".." not in text or last >> 32 != _MAPPED):
        return found
    if first >> 32 != last >> 32:
        return "a range of mapped addresses ends within ::ffff:0:0/96: write IPv4 addresses and the others apart"
    return first & (V6 - 1), last & (V6 - 1)


def _parse_range(text: str) -> Range | str:
    """As it is written."""
    low, dots, high = text.partition("..")
    if dots:
        first, last = parse_ip(low), parse_ip(high)
        if first is None or last is None:
            return f"'{low if first is None else high}' is not an IP address"
        if (first < V6) != (last < V6):
            return "a range lies within one family of addresses"
        return (first, last) if first <= last else "the range ends before it begins"
    address, slash, prefix = text.partition("/")
    code = parse_ip(address)
    if code is None:
        return f"'{address}' is not an IP address"
    width = 32 if code < V6 else 128
    if not slash:
        return code, code
    if not (prefix.isascii() and prefix.isdigit() and len(prefix) <= 3) or int(prefix) > width:
        return f"a prefix length is 0 to {width}"
    bits = int(prefix)
    if network(code, bits) != code:
        return f"bits are set beyond the prefix: '{show_ip(network(code, bits))}/{bits}' is the network"
    return code, code + (1 << (width - bits)) - 1


class Ranges:
    """A set of integers, made of ranges: `n in ranges`. Overlapping and adjoining ones are joined."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, ranges: Iterable[Range]) -> None:
        firsts: list[int] = []
        lasts: list[int] = []
        for first, last in sorted(ranges):
            if lasts and first <= lasts[-1] + 1:
                lasts[-1] = max(lasts[-1], last)
            else:
                firsts.append(first)
                lasts.append(last)
        # A last one that holds nothing: a number below all others is looked up at index -1.
        self._firsts = firsts
        self._lasts = [*lasts, -(1 << 200)]

    def __contains__(self, number: int | None) -> bool:
        return number is not None and number <= self._lasts[bisect_right(self._firsts, number) - 1]

    def __len__(self) -> int:
        return len(self._firsts)
