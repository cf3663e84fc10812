# Networks that operators publish for their bots: files in their formats, and what lies in them. Nothing is fetched here.
"""`parse(data)` reads one file; `Published(folder, names)` reads a folder, and is asked `covers(names, code)`.

Formats: `{"prefixes": [{"ipv4Prefix": "192.0.2.0/24"}, …]}` (Google, Microsoft, OpenAI, Apple, DuckDuckGo, Perplexity, Common
Crawl, Ahrefs), the same with AWS's keys, lists of strings, and text with a network a line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from edgeproxy.rules.addresses import V6, Range, Ranges, network, parse_ip

MAX_FILE: Final = 4 << 20  # bytes
MAX_NETWORKS: Final = 50_000  # of one file
MAX_FOLDER: Final = 200  # files
# A wider network is a mistake: whoever claims to be this bot would be it.
WIDEST_V4: Final = 10  # bits
WIDEST_V6: Final = 24
_KEYS: Final = frozenset(
    {"ipv4Prefix", "ipv6Prefix", "ip_prefix", "ipv6_prefix", "ip_address", "ip", "cidr", "prefix", "network"}
)
_DEPTH: Final = 6
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Parsed(NamedTuple):
    """Networks, and what was left out, as sentences."""

    ranges: tuple[Range, ...]
    problems: tuple[str, ...]


def parse(data: bytes) -> Parsed:
    """The networks of a file. What it says beside them is not looked at."""
    if len(data) > MAX_FILE:
        return Parsed((), (f"more than {MAX_FILE >> 20} MiB",))
    found: list[Range] = []
    problems: list[str] = []
    for text in _texts(data):
        if len(found) >= MAX_NETWORKS:
            problems.append(f"more than {MAX_NETWORKS} networks: the rest is left out")
            break
        read = _network(text)
        if isinstance(read, str):
            problems.append(read)
        else:
            found.append(read)
    if not found and not problems:
        problems.append("no networks")
    return Parsed(tuple(found), tuple(problems[:20]))


def _texts(data: bytes) -> Iterator[str]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        lines = (line.partition("#")[0].strip() for line in data.decode("ascii", "replace").splitlines())
        yield from (line for line in lines if line)
        return
    yield from _leaves(value, _DEPTH)


def _leaves(value: Any, depth: int) -> Iterator[str]:
    """Strings of lists, and those under the keys that vendors use."""
    if depth == 0:
        return
    if isinstance(value, list):
        for each in value:
            if isinstance(each, str):
                yield each
            else:
                yield from _leaves(each, depth - 1)
    elif isinstance(value, dict):
        for key, each in value.items():
            if isinstance(each, str):
                if key in _KEYS:
                    yield each
            else:
                yield from _leaves(each, depth - 1)


def _network(text: str) -> Range | str:
    address, slash, bits = text.strip().partition("/")
    code = parse_ip(address)
    if code is None or (slash and not (bits.isascii() and bits.isdigit() and len(bits) <= 3)):
        return f"'{text[:60]}' is not a network"
    width = 32 if code < V6 else 128
    length = int(bits) if slash else width
    if length > width:
        return f"'{text[:60]}' is not a network"
    if length < (WIDEST_V4 if code < V6 else WIDEST_V6):
        return f"'{text[:60]}' is too wide to be one bot's"
    code = network(code, length)  # some have bits set beyond the prefix
    return code, code + (1 << (width - length)) - 1


class Published:
    """The networks of a snapshot.

    Attributes:
        problems: sentences with the names of files.
        missing: names that are wanted and have no file; their bots cannot be verified so.
        oldest: when the oldest file was written, seconds since the epoch; 0 without files.
    """

    __slots__ = ("_ranges", "missing", "oldest", "problems")

    def __init__(
        self, ranges: dict[str, Ranges], problems: Iterable[str] = (), missing: Iterable[str] = (), oldest: float = 0
    ) -> None:
        self._ranges = ranges
        self.problems = tuple(problems)
        self.missing = tuple(missing)
        self.oldest = oldest

    def known(self, names: Iterable[str]) -> bool:
        """Whether all of them are there: then an address that is in none is not the bot's."""
        return all(name in self._ranges for name in names)

    def covers(self, names: Iterable[str], code: int) -> bool:
        """Whether an address (`rules.addresses.client_code`) is in one of them."""
        ranges = self._ranges
        return any(code in ranges[name] for name in names if name in ranges)


NOTHING: Final = Published({})


def read_folder(folder: Path, names: Iterable[str]) -> Published:
    """`NAME.json` or `NAME.txt` of each name. Files with other names are not looked at; nothing raises."""
    ranges: dict[str, Ranges] = {}
    problems: list[str] = []
    missing: list[str] = []
    oldest = 0.0
    for name in sorted(set(names))[:MAX_FOLDER]:
        path = next((file for end in (".json", ".txt") if (file := folder / f"{name}{end}").is_file()), None)
        if path is None:
            missing.append(name)
            continue
        try:
            written = path.stat().st_mtime
            with path.open("rb") as opened:
                parsed = parse(opened.read(MAX_FILE + 1))
        except OSError as error:
            problems.append(f"{path.name}: {error.strerror or error}")
            continue
        problems += [f"{path.name}: {problem}" for problem in parsed.problems]
        if parsed.ranges:
            ranges[name] = Ranges(parsed.ranges)
            oldest = min(oldest, written) if oldest else written
    return Published(ranges, problems, missing, oldest)


def is_name(text: str) -> bool:
    """Whether a source may have this name: it becomes the name of a file."""
    return _NAME.fullmatch(text) is not None and ".." not in text
