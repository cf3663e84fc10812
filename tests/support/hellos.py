# ClientHellos for tests: made of parts, cut into records, taken from real clients; and JA4 once more, by its description alone.
"""`made(…)` builds a message, `records(…)` frames it, `VECTORS` are real ones, `slow_ja4` shares no line with listen/hello.py."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

VECTORS: list[dict[str, str]] = json.loads((Path(__file__).parents[1] / "data" / "client_hellos.json").read_text())
"""client, transport (`tcp` or `quic`), client_hello (hex), ja4, ja4n, ja3; see tests/data/README.md."""


def two(numbers: Iterable[int]) -> bytes:
    """Numbers of two bytes."""
    return b"".join(each.to_bytes(2, "big") for each in numbers)


def sized(content: bytes, width: int = 2) -> bytes:
    """A vector."""
    return len(content).to_bytes(width, "big") + content


def made(
    ciphers: Iterable[int] = (0x1301,),
    extensions: Iterable[tuple[int, bytes]] | None = (),
    *,
    version: int = 0x0303,
    session: bytes = b"",
) -> bytes:
    """A ClientHello message. `extensions`: None for a message without the field."""
    body = version.to_bytes(2, "big") + bytes(32) + sized(session, 1) + sized(two(ciphers)) + b"\x01\x00"
    if extensions is not None:
        body += sized(b"".join(two([kind]) + sized(content) for kind, content in extensions))
    return b"\x01" + sized(body, 3)


def alpn(*names: bytes) -> tuple[int, bytes]:
    """An extension."""
    return 0x10, sized(b"".join(sized(name, 1) for name in names))


def sigalgs(*numbers: int) -> tuple[int, bytes]:
    """An extension."""
    return 0x0D, sized(two(numbers))


def versions(*numbers: int) -> tuple[int, bytes]:
    """An extension."""
    return 0x2B, sized(two(numbers), 1)


def records(message: bytes, sizes: Iterable[int] = ()) -> bytes:
    """TLS records of such sizes, and one for the rest."""
    framed = b""
    for size in sizes:
        part, message = message[:size], message[size:]
        if part:
            framed += b"\x16\x03\x01" + sized(part)
    return framed + (b"\x16\x03\x01" + sized(message) if message else b"")


def slow_ja4(message: bytes, kind: str, without: frozenset[str] = frozenset()) -> str:
    """JA4 as its description has it, in strings of hex digits and by slicing."""
    text = message.hex()[8:]
    legacy, text = text[:4], text[4 + 64 :]

    def vector(text: str, width: int) -> tuple[str, str]:
        size = int(text[: 2 * width], 16) * 2
        return text[2 * width : 2 * width + size], text[2 * width + size :]

    def fours(text: str) -> list[str]:
        return [text[at : at + 4] for at in range(0, len(text), 4)]

    def grease(number: str) -> bool:
        return number[1] == "a" and number[:2] == number[2:]

    _, text = vector(text, 1)
    ciphers, text = vector(text, 2)
    _, text = vector(text, 1)
    found: dict[str, str] = {}
    order: list[str] = []
    rest = vector(text, 2)[0] if text else ""
    while rest:
        name = rest[:4]
        content, rest = vector(rest[4:], 2)
        order.append(name)
        found.setdefault(name, content)
    order = [each for each in order if not grease(each) and each not in without]
    suites = sorted(each for each in fours(ciphers) if not grease(each))
    offered = [each for each in fours(found.get("002b", "")[2:]) if not grease(each)]
    version = {"0304": "13", "0303": "12", "0302": "11", "0301": "10"}.get(max(offered, default=legacy), "00")
    names = found.get("0010", "")[4:]
    first = vector(names, 1)[0] if names else ""
    ends = "00"
    if first:
        shown = bytes.fromhex(first[:2] + first[-2:])
        letters = all(chr(each).isascii() and chr(each).isalnum() for each in shown)
        ends = shown.decode() if letters else first[0] + first[-1]
    listed = ",".join(sorted(each for each in order if each not in ("0000", "0010")))
    algorithms = ",".join(each for each in fours(found.get("000d", "")[4:]) if not grease(each))

    def short(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()[:12] if text else "0" * 12

    hashed = f"{listed}_{algorithms}" if listed and algorithms else listed
    head = f"{kind}{version}{'d' if '0000' in found else 'i'}{min(len(suites), 99):02d}{min(len(order), 99):02d}{ends}"
    return f"{head}_{short(','.join(suites))}_{short(hashed)}"


UNSTABLE = frozenset({"0015", "0029", "002a"})


def vector_of(client: str) -> dict[str, Any]:
    """The one of a client."""
    return next(each for each in VECTORS if each["client"] == client)
