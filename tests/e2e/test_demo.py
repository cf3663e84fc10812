"""`edgeproxy demo` as a new user runs it: every printed command, pasted into a shell, and Ctrl-C at the end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import Process, free_ports, until


def children(pid: int) -> set[int]:
    """All descendants of a process."""
    try:
        direct = {int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}
    except FileNotFoundError:
        return set()
    return direct.union(*(children(p) for p in direct)) if direct else set()


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}").exists()}


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Process]:
    (port,) = free_ports(1)
    process = Process([sys.executable, "-m", "edgeproxy", "demo", "--port", str(port)], tmp_path / "said", tmp_path)
    yield process
    process.stop()
    sys.stderr.write(process.said())


def commands(said: str) -> dict[str, str]:
    """What is printed between a `# title` and the next empty line, by title."""
    return dict(re.findall(r"^# (.*)\n((?:.+\n)+)", said, re.MULTILINE))


def is_up(process: Process) -> bool:
    assert process.popen.poll() is None, process.said()
    return "Ctrl-C ends everything." in process.said()


def paste(command: str, folder: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "SSL_CERT_FILE"}}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env={**environment, "NO_PROXY": "*"}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_printed_command_works(demo: Process, tmp_path: Path) -> None:
    until(lambda: is_up(demo), 20)
    printed = commands(demo.said())
    assert len(printed) == 9, printed
    expected = {
        "HTTP/1.1": '"object": "chat.completion"',
        "HTTP/2": "data: [DONE]",
        "the head": "strict-transport-security: max-age=300",
        "plain HTTP": "308",
        "the official OpenAI": "I am the demonstration backend behind edgeproxy",
        "the official Anthropic": "I am the demonstration backend behind edgeproxy",
        "health": "edgeproxy_",
    }
    for start, text in expected.items():
        (command,) = [command for title, command in printed.items() if title.startswith(start)]
        shown = paste(command, tmp_path)
        assert text.lower() in shown.lower(), f"{command}\n{shown}"
    until(lambda: (tmp_path / "access.jsonl").read_text().count("\n") >= 4, 5)


def test_http3_works_where_there_is_a_client_for_it(demo: Process, tmp_path: Path) -> None:
    until(lambda: is_up(demo), 20)
    browser, curl = (command for title, command in commands(demo.said()).items() if title.startswith("HTTP/3"))
    if "HTTP3" in paste("curl -V", tmp_path):
        assert "HTTP/3 200" in paste(curl, tmp_path)
    program, _, rest = browser.partition(" ")
    if shutil.which(program) is None:
        pytest.skip("no Chromium")
    page = paste(f"{program} --headless=new --no-sandbox --disable-gpu --dump-dom {rest}", tmp_path)
    assert "<html" in page
    until(lambda: '"protocol":"h3"' in (tmp_path / "access.jsonl").read_text(), 5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_ends_cleanly(demo: Process, number: signal.Signals) -> None:
    until(lambda: is_up(demo), 20)
    family = children(demo.popen.pid)
    assert len(family) >= 3  # the backend, a worker, control
    demo.popen.send_signal(number)
    assert demo.popen.wait(15) == 0
    until(lambda: not alive(family), 3)
    assert "Traceback" not in demo.said()


def test_nothing_outlives_a_demo_that_is_killed(demo: Process) -> None:
    until(lambda: is_up(demo), 20)
    family = children(demo.popen.pid)
    demo.popen.kill()
    demo.popen.wait()
    until(lambda: not alive(family), 5)


def test_a_taken_port_is_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = Process([sys.executable, "-m", "edgeproxy", "demo", "--port", str(port)], tmp_path / "said", tmp_path)
        assert process.popen.wait(20) == 1
    assert re.fullmatch(rf"edgeproxy demo: port {port} on 127\.0\.0\.1 is in use.*\n", process.said())
