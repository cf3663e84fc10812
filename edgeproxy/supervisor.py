# The parent process: it owns the sockets and the secrets, forks, watches and replaces. One thread, no event loop, and
# nothing that comes from a client is ever parsed here. It decides who lives, who listens and which configuration holds.
"""The supervisor. ``serve()`` runs an edge until it is told to stop.

SIGTERM and SIGINT drain (again: stop at once), SIGHUP reloads. Children ignore all three; they are told by message.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edgeproxy import children, worker
from edgeproxy.births import Births
from edgeproxy.children import HOPELESS, Child
from edgeproxy.config.load import load
from edgeproxy.config.model import Config
from edgeproxy.config.problems import ConfigError
from edgeproxy.config.secret import TO_WORKERS
from edgeproxy.ipc import (
    ChannelClosed,
    Drain,
    Failed,
    IpcError,
    Keep,
    KeysChanged,
    KeysFound,
    KeysLost,
    Message,
    Prepared,
    ProcessState,
    Ready,
    Reopen,
    Seen,
    State,
    Switched,
    ToSupervisor,
    Use,
)
from edgeproxy.keyset import Keyset
from edgeproxy.loans import Loans
from edgeproxy.reload import NoKeys, Reloads, with_keys
from edgeproxy.shutdown import Shutdown
from edgeproxy.signals import Signals
from edgeproxy.sockets import BindError, Listeners, Reports, listen
from edgeproxy.system import notify, raise_open_files


def serve(
    config_path: Path | None,
    config: Config | None = None,
    workers: int | None = None,
    on_ready: Callable[[], None] | None = None,
    *,
    data_plane: type[worker.Plane] | None = None,
) -> int:
    """Runs an edge to its end; returns the exit code (0 after a drain; 1 when it could not start, with the reason on
    standard error). ``config_path`` is what SIGHUP reads again; ``config`` may be given beside it or in its place.
    Must be called on the main thread of a process without other threads. ``on_ready`` is called once, in the
    supervisor, when all workers accept. ``data_plane`` is for tests."""
    try:
        if config is None:
            if config_path is None:
                raise TypeError("serve() needs config_path or config")
            config = load(config_path)
        if workers is not None:
            config = config.model_copy(update={"workers": workers})
        config = with_keys(config)
        if data_plane is None:
            from edgeproxy.dataplane import DataPlane

            data_plane = DataPlane
        supervisor = Supervisor(config, config_path, workers, on_ready, data_plane)
    except ConfigError as e:
        print(e, file=sys.stderr)  # noqa: T201
        say("not started: correct the configuration above")
        return 1
    except (BindError, NoKeys) as e:
        say(f"not started: {e}")
        return 1
    return supervisor.run()


def say(text: str) -> None:
    """One line of the supervisor's own log."""
    try:
        print(f"edgeproxy: {text}", file=sys.stderr, flush=True)  # noqa: T201  this is its log
    except OSError:
        pass  # the terminal is gone; serving and shutting down go on


class Supervisor:
    """Binding happens in the constructor (BindError), everything else in ``run()``."""

    def __init__(
        self,
        config: Config,
        config_path: Path | None,
        workers: int | None,
        on_ready: Callable[[], None] | None,
        plane: type[worker.Plane],
    ) -> None:
        self._born = time.monotonic()
        self._pid = os.getpid()
        self._on_ready = on_ready
        where = config.listen
        self._listeners: Listeners = listen(where.https, where.http, where.admin, config.workers, quic=where.quic)
        self._workers = [Child(f"worker-{slot}", slot) for slot in range(config.workers)]
        self._loans = Loans(self._workers, self._listeners.slots)
        self._reloads = Reloads(config, config_path, workers, self._workers, say)
        self._control = Child("control", -1) if self._listeners.admin is not None else None
        self._keyset = Keyset(self._reloads, say)
        self._births = Births(self._listeners, self._reloads, plane)
        self._kept = b""
        self._signals: Signals | None = None
        self._started = False
        self._exit: int | None = None
        self._restarts = {"worker": 0, "control": 0, "keys": 0}
        self._number = 0  # of the newest State
        self._told = 0  # the generation whose configuration control has
        self._dirty = False
        self._shutdown = Shutdown(self._workers, self._control, self._listeners, say)

    # The loop

    def run(self) -> int:
        try:
            self._signals = signals = Signals()
            raise_open_files(self._reloads.config, say)
            if self._control is not None:
                self._births.reports = Reports()
            gc.freeze()  # what exists now is shared with the children: the collector must not write to its pages
            if self._control is not None:
                self._start(self._control)
            for child in self._workers:
                self._start(child)
            self._tend_keys()
            gc.enable()
            say(f"serving {', '.join(self._listeners.served)}")
            while self._exit is None:
                self._turn(signals)
            return self._exit
        finally:
            self._clean_up()

    def _turn(self, signals: Signals) -> None:
        self._tend_keys()
        self._push_state()
        poll = select.poll()
        poll.register(signals, select.POLLIN)
        by_fd: dict[int, Child] = {}
        for child in self._all():
            if child.channel is not None:
                by_fd[child.channel.fileno()] = child
                poll.register(child.channel, select.POLLIN | (select.POLLOUT if child.channel.wants_write else 0))
        for fd, event in poll.poll(self._timeout()):
            if fd == signals.fileno():
                self._on_signals(signals.take())
            elif (child := by_fd[fd]).channel is not None and child.channel.fileno() == fd:
                self._on_channel(child, event)
        self._reap()
        self._on_time(time.monotonic())

    def _timeout(self) -> float | None:
        """Milliseconds until the next thing that is due; None: nothing is."""
        due = [child.due for child in self._all() if child.state == "back-off" and not self._shutdown.begun]
        due += self._shutdown.deadlines
        if self._reloads.deadline is not None:
            due.append(self._reloads.deadline)
        return max(0.0, (min(due) - time.monotonic()) * 1000 + 1) if due else None

    def _on_time(self, now: float) -> None:
        if self._shutdown.begun:
            self._push_state()
            if self._shutdown.step(now):
                say("stopped")
                self._exit = 0
            return
        for child in self._all():
            if child.state == "back-off" and child.due <= now:
                self._start(child)
        self._reloads.on_time(now)

    def _on_signals(self, numbers: set[int]) -> None:
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._shutdown.signal(self._reloads.config.drain, self._number)
            self._keyset.child.send(Drain(0.0))
            self._reloads.cancel()
            self._dirty = True
        elif signal.SIGHUP in numbers:
            for child in self._workers:
                child.send(Reopen())
            if not self._shutdown.begun:
                self._reloads.begin()

    def _on_channel(self, child: Child, event: int) -> None:
        channel = child.channel
        if channel is None:
            return
        try:
            if event & select.POLLOUT:
                channel.flush()
            if event & (select.POLLIN | select.POLLHUP | select.POLLERR):
                for message in channel.receive():
                    self._on_message(child, message)
        except ChannelClosed:
            channel.close()
            child.channel = None
            # It has ended, or can't be told anything any more; either way waitpid will say.
            child.kill()
        except IpcError as e:
            say(f"{child.name} sent nonsense ({e}); replacing it")
            child.kill()

    def _on_message(self, child: Child, message: Message[ToSupervisor]) -> None:
        match message.head:
            case Ready(generation):
                self._on_child_ready(child, generation)
            case Prepared(generation):
                self._reloads.on_prepared(child, generation)
            case Switched(generation):
                self._reloads.on_switched(child, generation)
            case Failed(generation, reason):
                if generation:
                    self._reloads.on_failed(child, generation, reason)
                else:
                    self._on_failed_start(child, reason)
            case Seen(number):
                self._shutdown.seen(number)
            case Keep():
                self._kept = message.blob
            case KeysChanged():
                self._keyset.on_changed(message.blob)
                self._told = 0  # control explains by them, too
            case KeysLost(since, reason):
                self._keyset.on_lost(since, reason)
            case KeysFound():
                self._keyset.on_found()

    # Children

    def _all(self) -> list[Child]:
        others = [each for each in (self._control, self._keyset.child) if each is not None]
        return [*self._workers, *(each for each in others if each.is_control or each.state != "gone")]

    def _tend_keys(self) -> None:
        if not self._shutdown.begun and self._keyset.tend():
            self._start(self._keyset.child)

    def _start(self, child: Child) -> None:
        try:
            self._births.fork(child, self._all(), self._signals, self._state(), self._kept)
        except OSError as e:
            say(f"no new process for {child.name}: {e}")
            child.ended(time.monotonic())
            return
        self._dirty = True
        if child.is_control:
            self._told = self._reloads.generation
        elif child.is_worker:
            self._reloads.on_start(child)
        else:
            self._keyset.born()

    def _on_child_ready(self, child: Child, generation: int) -> None:
        child.state, child.generation, child.failures = "ready", generation, 0
        self._dirty = True
        if self._started and child.is_worker:
            self._loans.on_ready(child)
        if self._started:
            say(f"{child.name} is back (pid {child.pid})")
        elif all(c.state == "ready" for c in self._all()):
            self._started = True
            pids = ", ".join(f"{c.name} {c.pid}" for c in self._all())
            say(f"ready after {time.monotonic() - self._born:.2f} s; pids: supervisor {self._pid}, {pids}")
            notify("READY=1")
            if self._on_ready is not None:
                self._on_ready()

    def _reap(self) -> None:
        for child in self._all():
            if not child.pid:
                continue
            try:
                # Only our own children one by one: whoever called serve() may have others.
                pid, status = os.waitpid(child.pid, os.WNOHANG)
            except ChildProcessError:
                pid, status = child.pid, 0
            if pid:
                self._on_end(child, status)

    def _on_end(self, child: Child, status: int) -> None:
        while child.channel is not None:  # its last words: why it failed, what it wants kept
            try:
                for message in child.channel.receive():
                    self._on_message(child, message)
            except (ChannelClosed, IpcError):
                break
        pid, was = child.pid, child.state
        child.ended(time.monotonic())
        self._dirty = True
        if self._exit is not None:
            return
        if self._shutdown.begun:
            child.state = "gone"
            if status:
                say(f"{child.name} (pid {pid}) {children.how_it_ended(status)} while draining")
            return
        if child is self._keyset.child and self._keyset.ended():
            return
        kind = "worker" if child.is_worker else child.name
        self._restarts[kind] += 1
        wait = f"starting it again in {child.due - time.monotonic():.1f} s"
        say(f"{child.name} (pid {pid}) {children.how_it_ended(status)} while {was}; {wait}")
        if not self._started and child.failures >= HOPELESS:
            self._give_up(f"{child.name} ended {HOPELESS} times before it was ready; its messages are above")
            return
        if child.is_worker:
            self._reloads.on_gone(child)
            if self._started:
                self._loans.on_gone(child)

    def _on_failed_start(self, child: Child, reason: str) -> None:
        say(f"{child.name} can't start: {reason}")
        if not self._started:
            self._give_up(f"{child.name} says: {reason}")

    def _give_up(self, reason: str) -> None:
        say(f"not started: {reason}")
        self._exit = 1

    # State for control

    def _state(self) -> State:
        return State(
            number=self._number,
            draining=self._shutdown.begun,
            started=self._started,
            generation=self._reloads.generation,
            workers=tuple(
                ProcessState(w.name, w.pid, w.state, w.generation, w.slot if w.state == "ready" else w.lent_to)
                for w in self._workers
            ),
            supervisor=self._pid,
            restarts=dict(self._restarts),
            reloads=dict(self._reloads.counts),
            last_reload=self._reloads.last,
            keys=self._keyset.state,
        )

    def _push_state(self) -> None:
        # While workers switch, some have the new generation and some the old: a matter of milliseconds in which nothing
        # is wrong, and which /readyz should not show.
        if not (self._dirty or self._reloads.changed or self._keyset.changed) or self._reloads.switching:
            return
        self._dirty = self._reloads.changed = self._keyset.changed = False
        self._number += 1
        if self._control is not None:
            self._tell(self._control)
            self._control.send(self._state())

    def _tell(self, control: Child) -> None:
        """Gives control a configuration that it was not born with."""
        reloads = self._reloads
        if self._told != reloads.generation:
            self._told = reloads.generation
            control.send(Use(reloads.generation), reloads.config.model_dump_json(context=TO_WORKERS).encode())

    # The end

    def _clean_up(self) -> None:
        for child in self._all():
            if child.pid:
                child.kill()
                with suppress(ChildProcessError):
                    os.waitpid(child.pid, 0)
            if child.channel is not None:
                child.channel.close()
        self._listeners.close()
        if self._births.reports is not None:
            self._births.reports.close()
        if self._signals is not None:
            self._signals.restore()
