# Files of JSON lines that a worker writes: collected on the loop, written in batches in one thread. A slow disk costs
# lines (counted), never requests. What a line says is the business of access.py and events.py.
"""`LineWriter`."""

from __future__ import annotations

import errno
import os
import queue
import select
import stat
import sys
import threading
import time
from typing import ClassVar, Final

from edgeproxy.observe.metrics import WorkerStats

BATCH: Final = 256  # lines handed to the writing thread at once, unless the timer comes first
FLUSH_INTERVAL: Final = 0.25  # seconds between the worker's calls of flush()
PENDING_BYTES: Final = 8 << 20  # encoded but not yet written; beyond it whole batches are dropped
# A write of at most PIPE_BUF bytes to a pipe is not mixed with another process's (POSIX write()); larger ones are.
PIPE_WRITE: Final = select.PIPE_BUF
_COMPLAIN_EVERY: Final = 60.0  # seconds between two messages about a file that can't be written


class LineWriter:
    """Owned by one event loop. ``lines.append(…)`` is the hot path; ``flush()`` is called by the worker's timer and by who
    appends when ``len(lines) >= BATCH``. Every method is called on the loop's thread.

    ``path`` is a file (appended to, made with mode 0640) or ``-`` for standard output. Raises OSError if it can't be
    opened. The writing thread starts at the first flush, so that making the object before a fork is harmless.

    A subclass names the file (``what``) and the counter of ``WorkerStats`` that lost lines add to (``counter``)."""

    what: ClassVar[str]
    counter: ClassVar[str]

    __slots__ = (
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
        "lines",
    )

    def __init__(self, path: str, stats: WorkerStats) -> None:
        self.lines: list[bytes] = []
        self._path = path
        self._stats = stats
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
        """Gives what is there to the writing thread; drops it, counted, when that thread is too far behind."""
        self._count_lost()
        lines = self.lines
        if not lines:
            return
        if self._submitted - self._written > PENDING_BYTES:
            self._drop(len(lines))
        else:
            data = b"".join(lines)
            self._submitted += len(data)
            self._start()
            self._queue.put(data)
        lines.clear()  # the same list: the data plane may hold on to it

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

    def _count_lost(self) -> None:
        lost = self._lost
        self._drop(lost - self._lost_counted)
        self._lost_counted = lost

    def _drop(self, lines: int) -> None:
        setattr(self._stats, self.counter, getattr(self._stats, self.counter) + lines)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self.what.replace(" ", "-"), daemon=True)
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
                    print(f"edgeproxy: {self.what}: {e}; lines are being lost (edgeproxy_{self.counter}_total)",  # noqa: T201
                          file=sys.stderr, flush=True)  # fmt: skip

    def _replace(self, path: str) -> None:
        fd = _open(path)
        old, self._fd = self._fd, fd
        self._torn = False
        if old > 2:  # never standard output
            os.close(old)

    def _write(self, data: bytes) -> None:
        size, done = len(data), 0
        ahead = int(self._torn)  # bytes in front that end the half line which a full disk left: no line of these
        try:
            data = b"\n" * ahead + data
            view = memoryview(data)
            pipe = stat.S_ISFIFO(os.fstat(self._fd).st_mode)
            try:
                while done < len(data):
                    end = _cut(data, done) if pipe else len(data)
                    done += _write_some(self._fd, view[done:end])
            except OSError:
                self._lost += data.count(b"\n", max(done, ahead))
                if done:  # else the file ends as it did
                    self._torn = data[done - 1] != 10
                raise
            self._torn = False
        finally:
            self._written += size


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
