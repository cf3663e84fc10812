# Security events of control: what an operator did. They are rare, so the file is opened for each, and a rotation needs no word.
"""`Notes`: lines in the events' file, written in a thread."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

import msgspec


class Notes:
    """See the module.

    Attributes:
        path: of the file, `-` for standard output; None: nobody wants to know.
    """

    __slots__ = ("_loop", "path")

    def __init__(self, loop: asyncio.AbstractEventLoop, path: str | None) -> None:
        self._loop = loop
        self.path = path

    def write(self, event: dict[str, Any]) -> None:
        """One event."""
        if self.path is not None:
            line = msgspec.json.encode({"time": round(time.time(), 3), **event}) + b"\n"
            self._loop.run_in_executor(None, _write, self.path, line)


def _write(path: str, line: bytes) -> None:
    try:
        if path == "-":
            os.write(1, line)
            return
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            os.write(fd, line)
        finally:
            os.close(fd)
    except OSError as error:
        print(f"edgeproxy: events: {error}; an operator's act is not written down", file=sys.stderr, flush=True)  # noqa: T201
