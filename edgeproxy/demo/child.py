# Processes that the demo starts, and the promise that none of them outlives it, however it ends.
"""A child that serves HTTP on a loopback port: started, awaited, stopped.

A child has a session of its own, so that Ctrl-C in a terminal reaches the demo alone, which then ends the edge before
the backend. In exchange the kernel is asked to end the child when the demo dies without a word (SIGKILL): on Linux
`PR_SET_PDEATHSIG`, which survives exec, so that it holds for foreign programs too (`python -m edgeproxy.demo.child`).
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import IO

_PR_SET_PDEATHSIG = 1
STOP_WITHIN = 5.0


def die_with(parent: int) -> bool:
    """Asks for SIGTERM when the parent process ends; False when it has ended already. On Linux only, else True."""
    if sys.platform != "linux":
        return True
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    return os.getppid() == parent


class Child:
    """A running program that must not outlive this process."""

    __slots__ = ("_process", "name")

    def __init__(
        self, name: str, command: Sequence[str], *, pass_fds: Sequence[int] = (), output: IO[bytes] | None = None
    ) -> None:
        """Starts `command`, which has to call `die_with` itself or be wrapped by `bound`. OSError if it cannot.

        What it prints goes to `output`; without one its errors are shown and the rest is dropped.
        """
        self.name = name
        self._process = subprocess.Popen(  # noqa: S603  (our own command, no shell)
            list(command), stdin=subprocess.DEVNULL, stdout=output or subprocess.DEVNULL, stderr=output,
            pass_fds=tuple(pass_fds), start_new_session=True,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait_healthy(self, url: str, timeout: float, progress: Callable[[float], None] | None = None) -> None:
        """Polls `url` until it answers 200. `progress` is called with the seconds so far.

        Raises ChildError when the program ends before, or is not ready after `timeout` seconds.
        """
        began = time.monotonic()
        while not _is_healthy(url):
            waited = time.monotonic() - began
            if not self.is_running():
                raise ChildError(f"{self.name} ended before it was ready (exit status {self._process.returncode})")
            if waited > timeout:
                raise ChildError(f"{self.name} was not ready after {timeout:.0f} seconds")
            if progress is not None:
                progress(waited)
            time.sleep(0.05)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL after five seconds. Does nothing when it has ended."""
        if not self.is_running():
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class ChildError(Exception):
    """A child that did not come up; the message is for people."""


def bound(command: Sequence[str]) -> list[str]:
    """`command`, run so that it ends when this process does."""
    return [sys.executable, "-m", "edgeproxy.demo.child", str(os.getpid()), *command]


def _is_healthy(url: str) -> bool:
    # Proxies from the environment are for the outside world, not for a loopback port.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=1.0) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def main(arguments: Sequence[str]) -> int:
    """`PARENT COMMAND…`: becomes COMMAND, after asking to end with PARENT."""
    parent, *command = arguments
    if die_with(int(parent)):
        os.execv(command[0], command)  # noqa: S606  (our own command, no shell wanted)
    return 1  # the parent has ended already


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
