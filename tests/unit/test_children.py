from __future__ import annotations

import resource
import socket
from pathlib import Path
from typing import Any

import pytest

from edgeproxy import system
from edgeproxy.children import FIRST_DELAY, LONGEST_DELAY, SETTLED, Child, how_it_ended
from edgeproxy.config.model import Config


def delays(lives: list[float]) -> list[float]:
    child, now, found = Child("worker-0", 0), 100.0, []
    for life in lives:
        child.state, child.pid, child.began = "ready", 1, now
        now += life
        child.ended(now)
        found.append(round(child.due - now, 3))
        now = child.due
    return found


def test_back_off_doubles_to_its_bound_and_starts_anew_after_a_long_life() -> None:
    quick = delays([0.01] * 10)
    assert quick[:4] == [FIRST_DELAY, 0.2, 0.4, 0.8] and quick[-1] == LONGEST_DELAY
    assert delays([0.01, 0.01, SETTLED, 0.01]) == [0.1, 0.2, 0.1, 0.2]


def test_only_ends_before_ready_count_as_failures() -> None:
    child = Child("worker-0", 0)
    for _ in range(3):
        child.state = "starting"
        child.ended(1.0)
    assert child.failures == 3 and child.state == "back-off" and child.pid == 0
    child.state = "ready"
    child.ended(2.0)
    assert child.failures == 0


def test_ends_in_words() -> None:
    assert how_it_ended(3 << 8) == "exited with code 3"
    assert how_it_ended(9) == "was killed by SIGKILL"
    assert how_it_ended(60) == "was killed by signal 60"


def test_sending_to_nobody_is_no_error() -> None:
    child = Child("worker-0", 0)
    child.kill()
    from edgeproxy.ipc import Reopen

    assert child.send(Reopen()) is False


def config(connections: int) -> Config:
    return Config.model_validate(
        {
            "listen": {"https": ":8443"},
            "tls": {"certificates": [{"cert": "a", "key": "b"}]},
            "client": {"max_connections": connections},
            "upstreams": {"web": {"targets": [{"url": "http://127.0.0.1:9000"}], "max_connections": 50}},
            "routes": [{"upstream": "web"}],
        }
    )


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "raised"),
    [
        (1024, 4096, 1000, 4096),
        (1024, 4096, 5000, 4096),
        (4096, 4096, 1000, None),
        (1024, resource.RLIM_INFINITY, 1000, 1 << 20),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 1000, None),
    ],
)
def test_open_files(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, connections: int, raised: int | None
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _what, limits: calls.append(limits))
    said: list[str] = []
    system.raise_open_files(config(connections), said.append)
    assert calls == ([(raised, hard)] if raised is not None else [])
    warns = connections == 5000
    assert [("5178 open files" in line, "4096" in line) for line in said] == ([(True, True)] if warns else [])


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    system.notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        system.notify("READY=1")
        assert server.recv(100) == b"READY=1"
    (tmp_path / "notify").unlink()
    system.notify("STOPPING=1")  # nobody is there any more: no matter
