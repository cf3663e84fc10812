# What a request looked like to the edge, as plain data that is kept in files. No addresses, paths, bodies, cookies or keys.
"""`Sample`, `Connection` and their file: JSON lines in xz; connections are stored once."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from edgeproxy.listen.hello import Hello
from edgeproxy.prints import H2Print, H3Print, Prints

CAPTURED = Path(__file__).parent / "data/captured.jsonl.xz"
ABOUT = Path(__file__).parent / "data/captured.json"
HOST = b"edge.test"  # what every host name became
_SECRET = {b"cookie": b"session=1", b"authorization": b"Bearer x", b"x-api-key": b"x", b"proxy-authorization": b"x"}
_LONGEST = 512  # bytes of a value that are kept


class Sample(NamedTuple):
    """One request of one client.

    Attributes:
        client: name of the program, as in the manifest.
        group: implementation; programs that share one are never on both sides of a split.
        tier: human, declared, library, impersonator or automation.
        variant: what it was told to be.
        protocol: index into `observe.metrics.PROTOCOLS`.
        method: as sent.
        headers: as the edge saw them, sanitised.
        prints: of its connection; shared by the samples of one.
        when: seconds since 1970 at which it was true.
    """

    client: str
    group: str
    tier: str
    variant: str
    protocol: int
    method: bytes
    headers: list[tuple[bytes, bytes]]
    prints: Prints
    when: float


def clean(headers: Iterable[tuple[bytes, bytes]], authority: bytes) -> list[tuple[bytes, bytes]]:
    """Field lines without what tells of the machine that they were captured on."""
    made = []
    for name, value in headers:
        kept = _SECRET.get(name, value)
        if name == b"referer":
            kept = b"https://" + HOST + b"/" if authority in value else b"https://other.test/"
        elif authority:
            kept = kept.replace(authority, HOST)
        made.append((name, kept[:_LONGEST]))
    return made


def made_of(prints: Prints) -> dict[str, Any]:
    """A connection as JSON knows it."""
    hello, h2, h3 = prints.hello, prints.h2, prints.h3
    made: dict[str, Any] = {"kind": prints.ja4[:1] or "t"}
    if hello is not None:
        made["hello"] = [
            [each.hex() for each in value] if name == "alpn" else value.hex() if isinstance(value, bytes) else value
            for name, value in zip(Hello._fields, hello, strict=True)
        ]
    if h2 is not None:
        made["h2"] = list(h2)
    if h3 is not None:
        made["h3"] = [[[name, value.hex()] for name, value in h3.parameters], h3.settings, h3.pseudo]
    return made


def prints_of(made: dict[str, Any]) -> Prints:
    """The other way round."""
    prints = Prints(b"", made["kind"])
    prints.hello = None
    if "hello" in made:
        values = dict(zip(Hello._fields, made["hello"], strict=True))
        for name, value in values.items():
            if name == "alpn":
                values[name] = tuple(bytes.fromhex(each) for each in value)
            elif isinstance(value, str):
                values[name] = bytes.fromhex(value)
            elif isinstance(value, list):
                values[name] = tuple(value)
        prints.hello = Hello(**values)
    if "h2" in made:
        settings, window, priorities, pseudo, priority = made["h2"]
        order = tuple(tuple(each) for each in priorities)
        prints.h2 = H2Print(_pairs(settings), window, order, pseudo, tuple(priority) if priority else None)
    if "h3" in made:
        parameters, settings, pseudo = made["h3"]
        prints.h3 = H3Print(tuple((name, bytes.fromhex(value)) for name, value in parameters), _pairs(settings), pseudo)
    return prints


def _pairs(rows: list[list[int]]) -> tuple[tuple[int, int], ...]:
    return tuple((name, value) for name, value in rows)


def write(path: Path, samples: Iterable[Sample]) -> int:
    """Returns: bytes written."""
    numbers: dict[int, int] = {}
    lines: list[str] = []
    for sample in samples:
        number = numbers.get(id(sample.prints))
        if number is None:
            number = numbers[id(sample.prints)] = len(numbers)
            lines.append(json.dumps({"connection": number, **made_of(sample.prints)}, separators=(",", ":")))
        row = {
            "client": sample.client, "group": sample.group, "tier": sample.tier, "variant": sample.variant, "on": number,
            "protocol": sample.protocol, "method": sample.method.decode("latin-1"), "when": round(sample.when),
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in sample.headers],
        }  # fmt: skip
        lines.append(json.dumps(row, separators=(",", ":")))
    data = lzma.compress("\n".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return len(data)


def read(path: Path) -> list[Sample]:
    """Raises: OSError, ValueError or KeyError for a file that is not ours."""
    connections: dict[int, Prints] = {}
    found: list[Sample] = []
    for line in lzma.decompress(path.read_bytes()).decode().splitlines():
        row = json.loads(line)
        if "connection" in row:
            connections[row["connection"]] = prints_of(row)
            continue
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in row["headers"]]
        found.append(
            Sample(
                row["client"], row["group"], row["tier"], row["variant"], row["protocol"], row["method"].encode("latin-1"),
                headers, connections[row["on"]], row["when"],
            )
        )  # fmt: skip
    return found
