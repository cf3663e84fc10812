# The access log: JSON lines, one per finished request. The hot path only appends an Entry to a list; encoding happens
# in batches on the loop's timer, writing in one thread. A slow disk costs log lines (counted), never requests.
"""Batched access log.

Secrets never get in: an ``Entry`` has no field for header values other than the user agent, none for bodies, and a path
is cut at its query string here again although the data plane already gives it without (queries carry API keys).
"""

from __future__ import annotations

import errno
import os
import queue
import select
import stat
import sys
import threading
import time
from typing import Final

import msgspec

from edgeproxy.observe.metrics import WorkerStats

BATCH: Final = 256  # entries encoded in one go: about 0.3 ms of the loop
FLUSH_INTERVAL: Final = 0.25  # seconds between the worker's calls of flush()
PENDING_BYTES: Final = 8 << 20  # encoded but not yet written; beyond it whole batches are dropped
MAX_TEXT: Final = 2048  # characters kept of a path
MAX_AGENT: Final = 512  # characters kept of a user agent, an outcome
# A write of at most PIPE_BUF bytes to a pipe is not mixed with another process's (POSIX write()); larger ones are.
PIPE_WRITE: Final = select.PIPE_BUF
_COMPLAIN_EVERY: Final = 60.0  # seconds between two messages about a log that can't be written


class Entry(msgspec.Struct, gc=False):
    """One line. ``time`` is Unix time in seconds; bytes are of bodies; ``status`` 0: the client left before any.
    ``outcome``: ``ok``, ``client_gone``, ``edge: …`` or ``upstream: …``."""

    time: float
    ray: str
    client: str
    protocol: str
    method: str
    host: str
    path: str
    status: int
    bytes_in: int
    bytes_out: int
    duration_ms: float
    first_byte_ms: float | None
    route: str
    upstream: str | None
    outcome: str
    user_agent: str


class AccessLogWriter:
    """Owned by one event loop. ``entries.append(entry)`` is the hot path; ``flush()`` is called by the worker's timer
    and by the data plane when ``len(entries) >= BATCH``. Every method is called on the loop's thread.

    ``path`` is a file (appended to, made with mode 0640) or ``-`` for standard output. Raises OSError if it can't be
    opened. The writing thread starts at the first flush, so that making the object before a fork is harmless."""

    __slots__ = (
        "_encoder",
        "_fd",
        "_lost",
        "_lost_counted",
        "_path",
        "_queue",
        "_stats",
        "_submitted",
        "_thread",
        "_torn",
        "_written",
        "entries",
    )

    def __init__(self, path: str, stats: WorkerStats) -> None:
        self.entries: list[Entry] = []
        self._path = path
        self._stats = stats
        self._encoder = msgspec.json.Encoder()
        self._queue: queue.SimpleQueue[bytes | str | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._fd = _open(path)
        # Each counter has one writing thread: bytes given (loop), bytes done with and lines lost (thread), lines of
        # those already in the stats (loop). So none needs a lock.
        self._submitted = 0
        self._written = 0
        self._lost = 0
        self._lost_counted = 0
        self._torn = False  # the last write stopped in mid-line (thread)

    @property
    def path(self) -> str:
        return self._path

    def flush(self) -> None:
        """Encodes what is there for the writing thread; drops it, counted, when that thread is too far behind."""
        self._count_lost()
        entries = self.entries
        if not entries:
            return
        for start in range(0, len(entries), BATCH):
            self._submit(entries[start : start + BATCH])
        entries.clear()  # the same list: the data plane may hold on to it

    def reopen(self, path: str | None = None) -> None:
        """Opens the file anew (a rotation moved it away) or another one; what was flushed before goes to the old one.
        Opening happens in the thread, too: if it fails the old file stays in use and standard error says so."""
        self.flush()
        if path is not None:
            self._path = path
        self._start()
        self._queue.put(self._path)

    def close(self, deadline: float = 2.0) -> None:
        """Writes what is left, for at most ``deadline`` seconds."""
        self.flush()
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(deadline)
            if self._thread.is_alive():
                return  # stuck in a write; the descriptor stays its own and goes with the process
            self._thread = None
        self._count_lost()
        if self._fd > 2:  # never standard output
            os.close(self._fd)
        self._fd = -1

    def _submit(self, batch: list[Entry]) -> None:
        if self._submitted - self._written > PENDING_BYTES:
            self._stats.log_dropped += len(batch)
            return
        for entry in batch:
            if "?" in entry.path:
                entry.path = entry.path.partition("?")[0]
            if len(entry.path) > MAX_TEXT:
                entry.path = entry.path[:MAX_TEXT]
            if len(entry.user_agent) > MAX_AGENT:
                entry.user_agent = entry.user_agent[:MAX_AGENT]
        try:
            data = self._encoder.encode_lines(batch)
        except (UnicodeEncodeError, msgspec.MsgspecError):  # a lone surrogate in one entry must not cost the others
            data = self._encode_singly(batch)
        self._submitted += len(data)
        self._start()
        self._queue.put(data)

    def _encode_singly(self, batch: list[Entry]) -> bytes:
        lines = []
        for entry in batch:
            try:
                lines.append(self._encoder.encode(entry) + b"\n")
            except (UnicodeEncodeError, msgspec.MsgspecError):
                self._stats.log_dropped += 1
        return b"".join(lines)

    def _count_lost(self) -> None:
        lost = self._lost
        self._stats.log_dropped += lost - self._lost_counted
        self._lost_counted = lost

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
            self._thread.start()

    # What follows runs in the writing thread.

    def _run(self) -> None:
        complained = -_COMPLAIN_EVERY
        while (item := self._queue.get()) is not None:
            try:
                if isinstance(item, str):
                    self._replace(item)
                else:
                    self._write(item)
            except OSError as e:
                if time.monotonic() - complained >= _COMPLAIN_EVERY:
                    complained = time.monotonic()
                    print(f"edgeproxy: access log: {e}; lines are being lost (edgeproxy_log_dropped_total)",  # noqa: T201
                          file=sys.stderr, flush=True)  # fmt: skip

    def _replace(self, path: str) -> None:
        fd = _open(path)
        old, self._fd = self._fd, fd
        self._torn = False
        if old > 2:  # never standard output
            os.close(old)

    def _write(self, data: bytes) -> None:
        try:
            if self._torn:
                data = b"\n" + data  # ends the half line that a full disk left
            done = 0
            view = memoryview(data)
            pipe = stat.S_ISFIFO(os.fstat(self._fd).st_mode)
            try:
                while done < len(data):
                    end = _cut(data, done) if pipe else len(data)
                    done += _write_some(self._fd, view[done:end])
            except OSError:
                self._lost += data.count(b"\n", done)
                self._torn = done > 0 and data[done - 1] != 10
                raise
            self._torn = False
        finally:
            self._written += len(data) - (data[:1] == b"\n")


def _cut(data: bytes, start: int) -> int:
    """The end of the last line that fits a pipe's atomic write, or of the first line if even that is longer."""
    if len(data) - start <= PIPE_WRITE:
        return len(data)
    end = data.rfind(b"\n", start, start + PIPE_WRITE)
    return (end if end >= 0 else data.index(b"\n", start)) + 1


def _write_some(fd: int, view: memoryview) -> int:
    while True:
        try:
            return os.write(fd, view)
        except OSError as e:  # standard output may have been made non-blocking by whoever shares it
            if e.errno != errno.EAGAIN:
                raise
            select.select([], [fd], [])


def _open(path: str) -> int:
    """A descriptor to append to; raises OSError naming the path."""
    if path == "-":
        return 1
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
