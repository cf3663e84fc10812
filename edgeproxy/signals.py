# Signals as bytes in a pipe: handlers do nothing, and the supervisor's poll() wakes up and reads which ones came.
"""Signal handling without code that runs between any two instructions (signal.set_wakeup_fd)."""

from __future__ import annotations

import os
import signal
from typing import Any

from edgeproxy.children import HANDLED


class Signals:
    """Catches HANDLED from its making to ``restore()``. Main thread only."""

    __slots__ = ("_before", "_read", "_write")

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: dict[int, Any] = {number: signal.signal(number, _nothing) for number in HANDLED}
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def fileno(self) -> int:
        return self._read

    def take(self) -> set[int]:
        """The signals that came since the last call."""
        try:
            return set(os.read(self._read, 512))
        except BlockingIOError:
            return set()

    def close(self) -> None:
        """Closes the pipe only: for a forked child, whose handlers are set elsewhere."""
        os.close(self._read)
        os.close(self._write)

    def restore(self) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self.close()


def _nothing(_number: int, _frame: object) -> None:
    pass
