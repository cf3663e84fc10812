"""Children of the demo: started, awaited, stopped, and never left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeproxy.demo.child import Child, ChildError, bound

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def until(condition: Callable[[], bool], within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_healthy_child_and_its_stop() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.set_inheritable(True)
        port, fd = listener.getsockname()[1], listener.fileno()
        command = [sys.executable, "-m", "edgeproxy.demo.backend", "--fd", str(fd), "--parent", str(os.getpid())]
        child = Child("the backend", command, pass_fds=[fd])
    waited: list[float] = []
    try:
        child.wait_healthy(f"http://127.0.0.1:{port}/health", 20, waited.append)
        assert waited == sorted(waited)
        assert os.getsid(child.pid) == child.pid  # Ctrl-C in our terminal does not reach it
        assert child.is_running()
    finally:
        child.stop()
    assert not child.is_running() and not is_alive(child.pid)
    child.stop()  # once more does nothing


def test_a_child_that_ends_early_is_reported() -> None:
    child = Child("the thing", [sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(ChildError, match=r"the thing ended before it was ready \(exit status 3\)"):
        child.wait_healthy("http://127.0.0.1:9/health", 20)


def test_a_child_that_never_answers_is_reported() -> None:
    child = Child("the thing", SLEEP)
    try:
        with pytest.raises(ChildError, match="not ready after 0 seconds"):
            child.wait_healthy("http://127.0.0.1:9/health", 0)
    finally:
        child.stop()


def test_a_child_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("edgeproxy.demo.child.STOP_WITHIN", 0.2)
    mark = tmp_path / "ready"
    code = f"import signal, time; signal.signal(15, signal.SIG_IGN); open({str(mark)!r}, 'w'); time.sleep(600)"
    child = Child("the stubborn one", [sys.executable, "-c", code])
    until(mark.exists)
    child.stop()
    assert not is_alive(child.pid)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_child_ends_with_a_parent_that_was_killed() -> None:
    code = (
        "import sys, time; from edgeproxy.demo.child import Child, bound;"
        f"print(Child('x', bound({SLEEP!r})).pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.stdout.close()
    # Killed only when it has become the command, or else what is tested is the check for a parent that is gone.
    # (For a moment around its exec there is no command at all.)
    until(lambda: b"time.sleep(600)" in b"".join(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[-2:]))
    until(lambda: b"edgeproxy.demo.child" not in Path(f"/proc/{pid}/cmdline").read_bytes())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until(lambda: not is_alive(pid))


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_child_of_a_parent_that_is_gone_does_not_start() -> None:
    command = bound([sys.executable, "-c", "raise SystemExit(77)"])
    command[3] = "1"  # not our process id
    assert subprocess.run(command, check=False).returncode == 1
