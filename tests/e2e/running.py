# Real processes that tests look at from outside: how they are started, awaited and ended, and what is known of them.
"""The demonstration backend and an edge as processes of their own, on free loopback ports."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import edgeproxy
from edgeproxy.certs import CertificatePaths

READY_WITHIN = 30.0
STOP_WITHIN = 15.0


@dataclass
class Process:
    """A program with its standard error in a file, ended by its process id."""

    command: list[str]
    log: Path
    cwd: Path
    popen: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        # The package is imported from where the tests have it, installed or not.
        environment = {**os.environ, "PYTHONPATH": str(Path(edgeproxy.__file__).parents[1]), "NO_PROXY": "*"}
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(self.command, cwd=self.cwd, stdout=log, stderr=log, env=environment)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, url: str) -> bool:
        """True when `url` answers 200, False when the process has ended; fails after READY_WITHIN."""
        deadline = time.monotonic() + READY_WITHIN
        while self.popen.poll() is None:
            try:
                with urllib.request.urlopen(url, timeout=2):
                    return True
            except (urllib.error.URLError, OSError):
                pass
            if time.monotonic() > deadline:
                self.stop()
                pytest.fail(f"not ready after {READY_WITHIN} s: {self.command}\n{self.said()}")
            time.sleep(0.02)
        return False

    def stop(self) -> int:
        """SIGTERM, SIGKILL when that takes too long; the exit status."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        try:
            return self.popen.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return self.popen.wait()


@dataclass
class Backend:
    """The demonstration backend, as seen directly."""

    port: int
    process: Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def counters(self) -> dict[str, int]:
        with urllib.request.urlopen(f"{self.url}/counters", timeout=5) as answer:
            found: dict[str, int] = json.load(answer)
        return found


@dataclass
class Edge:
    """An edge before the backend. `/v1/` and `/ws` go to the backend, `/dead/` to a port where nobody listens."""

    https: int
    http: int
    admin: int
    certificates: CertificatePaths
    backend: Backend
    process: Process

    @property
    def url(self) -> str:
        return f"https://localhost:{self.https}"

    @property
    def ca(self) -> str:
        return str(self.certificates.ca)

    def tls(self) -> ssl.SSLContext:
        """A client's context that trusts the development CA alone."""
        context = ssl.create_default_context(cafile=self.ca)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context


def free_ports(count: int) -> list[int]:
    """Distinct ports that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(s.getsockname()[1]) for s in sockets]
    finally:
        for s in sockets:
            s.close()


def until(condition: Callable[[], bool], within: float) -> float:
    """Polls until `condition()`; the seconds it took. Fails after `within` seconds."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > within:
            pytest.fail(f"did not happen within {within} s")
        time.sleep(0.01)
    return time.monotonic() - began
