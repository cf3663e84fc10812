# One child process as the supervisor sees it: how it is forked, how it ends, when it is started again.
"""Forking, back-off and the ends of child processes."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from edgeproxy.ipc import Channel, ChannelClosed

FIRST_DELAY: Final = 0.1  # seconds before a process is started again; doubles with each death …
LONGEST_DELAY: Final = 10.0  # … up to this
SETTLED: Final = 10.0  # seconds of life after which the next death counts as the first
HOPELESS: Final = 5  # ends in a row before being ready, at the start, after which nothing more is tried
HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
CONTROL: Final = -1
KEEPER: Final = -2  # of the keys that are in Redis
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)

Prctl = Callable[[int, int], int]


@dataclass(slots=True)
class Child:
    """``state``: starting, ready, draining, back-off, gone. ``failures``: ends in a row that came before ready.
    ``lent_to``: the slot whose worker listens on this one's sockets meanwhile."""

    name: str
    slot: int  # CONTROL, KEEPER, or that of a worker
    state: str = "gone"
    pid: int = 0
    channel: Channel[Any] | None = None
    generation: int = 0
    began: float = 0.0
    due: float = 0.0
    delay: float = FIRST_DELAY
    failures: int = 0
    lent_to: int | None = None

    @property
    def is_control(self) -> bool:
        return self.slot == CONTROL

    @property
    def is_worker(self) -> bool:
        return self.slot >= 0

    def started(self, pid: int, channel: Channel[Any], now: float) -> None:
        self.state, self.pid, self.channel, self.began, self.generation = "starting", pid, channel, now, 0

    def ended(self, now: float) -> None:
        """Sets when it is due again: at once a little later, with each quick death twice as late."""
        self.failures = self.failures + 1 if self.state == "starting" else 0
        if now - self.began >= SETTLED:
            self.delay = FIRST_DELAY
        self.due = now + self.delay
        self.delay = min(self.delay * 2, LONGEST_DELAY)
        self.state, self.pid, self.generation = "back-off", 0, 0
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def send(self, head: msgspec.Struct, blob: bytes = b"", fds: tuple[int, ...] = ()) -> bool:
        """False if it can't be told any more: its end will be noticed."""
        if self.channel is None:
            return False
        try:
            self.channel.send(head, blob, fds)
        except ChannelClosed:
            return False
        return True

    def kill(self) -> None:
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def fork(run: Callable[[], int], let_go: Callable[[], None], prctl: Prctl | None) -> int:
    """Forks; the child calls ``let_go`` (closing what is not its own), runs ``run`` and exits with its result. It never
    returns into the supervisor's code. Returns the pid. Raises OSError when no process can be made."""
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    # A signal between the fork and the child's own settings would run the supervisor's handling in the child.
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            _settle(parent, prctl)
            let_go()
            code = run()
        except BaseException:  # nothing may climb out of the child into the supervisor's stack
            traceback.print_exc()
        finally:
            _leave(code)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    raise AssertionError("not reached")


def _settle(parent: int, prctl: Prctl | None) -> None:
    signal.set_wakeup_fd(-1)
    # Ctrl-C and a closed terminal reach the whole process group; only the supervisor answers, and tells its children.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    if prctl is not None:
        # A worker without a supervisor would hold the ports against the next start, and nothing could stop it.
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before prctl
            os._exit(1)
    gc.enable()


def _leave(code: int) -> None:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)  # the supervisor's exit handlers and open buffers are not ours


def find_prctl() -> Prctl | None:
    """prctl(2), looked up before the fork; None where there is none (children then notice the closed channel)."""
    if not sys.platform.startswith("linux"):
        return None
    function: Prctl = ctypes.CDLL(None, use_errno=True).prctl
    return function


def how_it_ended(status: int) -> str:
    """A wait status in words: ``exited with code 1``, ``was killed by SIGKILL``."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
