# Everything the bench starts is started and ended here, by process id; nothing else on the machine is touched.
"""Pinned child processes in a session of their own, and free ports for them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType


class Failure(Exception):
    """A run that cannot give a figure; the message says why (and the tail of the child's output when there is one)."""


class Child:
    """A command pinned to `cores`, its output in `log`; a context manager that ends it and what it forked.

    stdin/stdout may be pipes for a child that is spoken to. The pid is that of the command itself (taskset execs).
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cores: str,
        cwd: Path,
        log: Path,
        env: Mapping[str, str] | None = None,
        pipes: bool = False,
        grace: float = 3.0,
    ) -> None:
        self.command = list(command)
        self.log = log
        self.grace = grace
        taskset = shutil.which("taskset")
        if taskset is None:
            raise Failure("taskset is missing (Debian package util-linux)")
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [taskset, "-c", cores, *command],
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else output,
                stderr=output,
                start_new_session=True,  # so that the whole group can be ended, and Ctrl-C reaches only the bench
            )
        self.pid = self.process.pid

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def alive(self) -> bool:
        return self.process.poll() is None

    def wait(self, seconds: float) -> int:
        """Wait for the end of a command that ends by itself; raises Failure when it does not in time."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.stop()
            raise Failure(f"{Path(self.command[0]).name} did not end within {seconds:.0f} s") from None

    def stop(self) -> None:
        """SIGTERM to the process, SIGKILL to what is left of its own session after the grace time."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(self.grace)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # the group is ours: start_new_session
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def tail(self, lines: int = 8) -> str:
        """The last lines the child wrote, for a message."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""


@contextlib.contextmanager
def watched(child: Child, seconds: float) -> Iterator[None]:
    """Kills a child that takes too long, so that reading what it says comes to an end."""
    timer = threading.Timer(seconds, child.process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def free_port() -> int:
    """A port of the loopback that was free for TCP and UDP a moment ago."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port: int = tcp.getsockname()[1]
            with contextlib.suppress(OSError):
                udp.bind(("127.0.0.1", port))
                return port


def wait_port(port: int, child: Child, seconds: float = 15.0) -> None:
    """Until something accepts on 127.0.0.1:`port`; raises Failure with the child's output when nothing does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not child.alive():
            raise Failure(f"ended with {child.process.returncode} before it listened:\n{child.tail()}")
        with socket.socket() as sock:
            sock.settimeout(0.5)
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise Failure(f"did not listen on port {port} within {seconds:.0f} s:\n{child.tail()}")


def find(name: str, *beside: Path) -> str | None:
    """A program beside the interpreter, on the PATH, or in the system directories that a user's PATH often lacks."""
    path = os.pathsep.join([*map(str, beside), os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    return shutil.which(name, path=path)
