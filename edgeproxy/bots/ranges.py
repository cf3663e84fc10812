# Networks that operators publish for their bots: files in their formats, and what lies in them. Nothing is fetched here.
"""`parse(data)` reads one file, `read_folder(folder, names)` a folder: into `Published`, which is asked `covers(names, code)`.

A file that cannot be used leaves what its last good reading brought in use.

Formats: `{"prefixes": [{"ipv4Prefix": "192.0.2.0/24"}, …]}` (Google, Microsoft, OpenAI, Apple, DuckDuckGo, Perplexity, Common
Crawl, Ahrefs), the same with AWS's keys, lists of strings, and text with a network a line.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from edgeproxy.rules.addresses import V6, Range, Ranges, network, parse_ip

MAX_FILE: Final = 4 << 20  # bytes
MAX_NETWORKS: Final = 50_000  # of one file
MAX_FOLDER: Final = 200  # files
MAX_PROBLEMS: Final = 20  # of one file that are told
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
    try:
        texts = _texts(data)
    except ValueError as error:
        return Parsed((), (str(error),))
    found: list[Range] = []
    problems: list[str] = []
    for where, text in texts:
        if len(found) >= MAX_NETWORKS:
            problems.append(f"more than {MAX_NETWORKS} networks: the rest is left out")
            break
        read = _network(text)
        if isinstance(read, str):
            if len(problems) < MAX_PROBLEMS:
                problems.append(where + read)
        else:
            found.append(read)
    if not found and not problems:
        problems.append("no networks")
    return Parsed(tuple(found), tuple(problems))


def _texts(data: bytes) -> Iterator[tuple[str, str]]:
    """What should be networks, with where each stands. Raises ValueError: it begins like JSON, and is none."""
    if data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()[:1] not in (b"{", b"["):
        return _lines(data)
    try:
        value = json.loads(data)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno}: no JSON: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start}: no text: {error.reason}") from error
    except RecursionError as error:
        raise ValueError("no JSON that can be read: too many brackets in one another") from error
    return (("", text) for text in _leaves(value, _DEPTH))


def _lines(data: bytes) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(data.decode("ascii", "replace").splitlines(), 1):
        text = line.partition("#")[0].strip()
        if text:
            yield f"line {number}: ", text


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
        return f"{text[:60]!r} is not a network"
    width = 32 if code < V6 else 128
    length = int(bits) if slash else width
    if length > width:
        return f"{text[:60]!r} is not a network"
    if length < (WIDEST_V4 if code < V6 else WIDEST_V6):
        return f"{text[:60]!r} is too wide to be one bot's"
    code = network(code, length)  # some have bits set beyond the prefix
    return code, code + (1 << (width - length)) - 1


class File(NamedTuple):
    """What is known of the file of one name.

    Attributes:
        name: of the file.
        state: inode, size, and when its content and its owner or rights changed (ns), as it was last read.
        ranges: in use; None: there never was a good one.
        written: when that was written, seconds since the epoch.
        problems: of the last reading.
        broken: that brought nothing: what was in use before still is.
    """

    name: str
    state: tuple[int, ...]
    ranges: Ranges | None
    written: float
    problems: tuple[str, ...]
    broken: bool


class Published:
    """The networks of a folder, as it was read last.

    Attributes:
        folder: None: there is none.
        files: by the names that are wanted; of those that there are.
        missing: names that are wanted and have no file; their bots cannot be verified so.
        gone: the folder is not there, or may not be looked into, and what it brought before is in use.
        read: when it was begun to be read, monotonic seconds.
    """

    __slots__ = ("_ranges", "files", "folder", "gone", "missing", "read")

    def __init__(
        self, ranges: dict[str, Ranges], folder: Path | None = None, files: Mapping[str, File] | None = None,
        missing: Iterable[str] = (), *, gone: bool = False, read: float = 0.0,
    ) -> None:  # fmt: skip
        self._ranges = ranges
        self.folder = folder
        self.files = files or {}
        self.missing = tuple(missing)
        self.gone = gone
        self.read = read

    @property
    def problems(self) -> tuple[str, ...]:
        """Sentences with the names of files."""
        told = [f"{self.folder} is not there, or may not be looked into"] if self.gone else []
        return (*told, *(f"{file.name}: {problem}" for file in self.files.values() for problem in file.problems))

    @property
    def broken(self) -> int:
        """How many files bring nothing, or nothing new."""
        return max(sum(file.broken or self.gone for file in self.files.values()), int(self.gone))

    @property
    def oldest(self) -> float:
        """When the oldest file in use was written, seconds since the epoch; 0 without files."""
        return min((file.written for file in self.files.values() if file.ranges is not None), default=0.0)

    def known(self, names: Iterable[str]) -> bool:
        """Whether all of them are there: then an address that is in none is not the bot's."""
        return all(name in self._ranges for name in names)

    def covers(self, names: Iterable[str], code: int) -> bool:
        """Whether an address (`rules.addresses.client_code`) is in one of them."""
        ranges = self._ranges
        return any(code in ranges[name] for name in names if name in ranges)

    def is_stale(self) -> bool:
        """Whether the folder looks otherwise than when it was read. A few system calls for each name: not on a loop."""
        if self.folder is None:
            return False
        if not _is_there(self.folder):
            return not self.gone
        if self.gone:
            return True
        for name in (*self.files, *self.missing):
            found, known = _found(self.folder, name), self.files.get(name)
            if (found is None) != (known is None) or (found is not None and known is not None and found[1:] != known[:2]):
                return True
        return False


NOTHING: Final = Published({})


def read_folder(folder: Path, names: Iterable[str], before: Published = NOTHING) -> Published:
    """`NAME.json` or `NAME.txt` of each name. Files with other names are not looked at; nothing raises.

    Args:
        before: of the same folder, else it is not looked at: files that have not changed since are not read again.
    """
    known, read = before.files if before.folder == folder else {}, time.monotonic()
    wanted = sorted(set(names))[:MAX_FOLDER]
    if not _is_there(folder):
        return _published(folder, dict(known), [name for name in wanted if name not in known], read, gone=True)
    files: dict[str, File] = {}
    missing: list[str] = []
    for name in wanted:
        found, last = _found(folder, name), known.get(name)
        if found is None:
            missing.append(name)
            continue
        path, *seen = found
        files[name] = last if last is not None and [last.name, last.state] == seen else _read(path, last)
    return _published(folder, files, missing, read)


def _published(
    folder: Path | None, files: dict[str, File], missing: Iterable[str], read: float, *, gone: bool = False
) -> Published:
    ranges = {name: file.ranges for name, file in files.items() if file.ranges is not None}
    return Published(ranges, folder, files, missing, gone=gone, read=read)


def kept(now: Published, before: Published) -> Published:
    """`now`, which was read without knowing of `before`, with what is in use of files that it found broken or gone."""
    if now is before or before.folder != now.folder or not before.files:
        return now
    if before.read > now.read:  # a look came between
        return before
    if now.gone:
        return _published(now.folder, dict(before.files), before.missing, now.read, gone=True)
    files = dict(now.files)
    for name, file in now.files.items():
        last = before.files.get(name)
        if file.ranges is None and last is not None:
            files[name] = file._replace(ranges=last.ranges, written=last.written)
    return _published(now.folder, files, now.missing, now.read)


def _is_there(folder: Path) -> bool:
    """Whether it is a folder that may be looked into: without that right, each of its files would seem to be missing."""
    try:
        return stat.S_ISDIR(folder.stat().st_mode) and os.access(folder, os.X_OK)
    except OSError:
        return False


def _state(found: os.stat_result) -> tuple[int, ...]:
    # Rights count, too: a file that may be read at last is read.
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _found(folder: Path, name: str) -> tuple[Path, str, tuple[int, ...]] | None:
    """The file of a name: path, its last part, and state, () where that cannot be said; None: there is none."""
    for end in (".json", ".txt"):
        path = folder / f"{name}{end}"
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:  # a disk or a network that fails: what was read stays
            return path, path.name, ()
        if stat.S_ISREG(found.st_mode):
            return path, path.name, _state(found)
    return None


def _read(path: Path, last: File | None) -> File:
    state: tuple[int, ...] = ()
    written = 0.0
    try:
        with path.open("rb") as opened:
            found = os.fstat(opened.fileno())
            state, written = _state(found), found.st_mtime
            parsed = parse(opened.read(MAX_FILE + 1))
    except OSError as error:
        parsed = Parsed((), (f"cannot be read: {error.strerror or error}",))
    if parsed.ranges:
        return File(path.name, state, Ranges(parsed.ranges), written, parsed.problems, broken=False)
    state = state or _state_of(path)
    return File(path.name, state, last and last.ranges, last.written if last else 0.0, parsed.problems, broken=True)


def _state_of(path: Path) -> tuple[int, ...]:
    """Of a file that cannot be opened; () if it is gone meanwhile."""
    try:
        return _state(path.stat())
    except OSError:
        return ()


def is_name(text: str) -> bool:
    """Whether a source may have this name: it becomes the name of a file."""
    return _NAME.fullmatch(text) is not None and ".." not in text
