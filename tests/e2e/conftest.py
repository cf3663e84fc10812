# Real processes on free loopback ports. A test asks for `edge`; everything it needs comes up once for its module.
"""Fixtures: the demonstration backend, an edge before it with development certificates, and a client's TLS context.

Ports are chosen just before a process starts and the start is repeated when somebody else was quicker, so that suites
may run in parallel. When a test fails, what the processes wrote to standard error is part of the report.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from running import Backend, Edge, Process, free_ports

from edgeproxy.certs import CertificatePaths, make_development

PACE = 0.05  # seconds between tokens of the model `edge-demo`: slow enough to leave in the middle of an answer
_RUNNING: pytest.StashKey[list[Process]] = pytest.StashKey()


def start(session: pytest.Session, attempt: Callable[[], tuple[Process, str]]) -> Process:
    """Starts what `attempt` describes (process, URL to wait for), again when another program took its port."""
    for _ in range(3):
        process, url = attempt()
        session.stash.setdefault(_RUNNING, []).append(process)
        if process.wait_for(url):
            return process
        session.stash[_RUNNING].remove(process)
        if "in use" not in process.said():
            break
    pytest.fail(f"did not start: {process.command}\n{process.said()}")


def end(session: pytest.Session, process: Process) -> None:
    process.stop()
    session.stash[_RUNNING].remove(process)


@pytest.fixture(scope="module")
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """The demonstration backend in a process of its own."""
    folder = tmp_path_factory.mktemp("backend")
    port = 0

    def attempt() -> tuple[Process, str]:
        nonlocal port
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "edgeproxy.demo.backend", "--port", str(port), "--pace", str(PACE)]
        return Process(command, folder / "backend.log", folder), f"http://127.0.0.1:{port}/health"

    process = start(request.session, attempt)
    yield Backend(port, process)
    end(request.session, process)


@pytest.fixture(scope="module")
def changes() -> dict[str, Any]:
    """Sections of the edge's configuration that a module wants otherwise."""
    return {}


@pytest.fixture(scope="module")
def edge(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, backend: Backend, changes: dict[str, Any]
) -> Iterator[Edge]:
    """An edge with one worker before `backend`, by way of `python -m edgeproxy serve -c FILE`."""
    folder = tmp_path_factory.mktemp("edge")
    certificates = make_development(folder / "certs")
    ports: list[int] = []
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused for as long as we hold it
        dead = nobody.getsockname()[1]

        def attempt() -> tuple[Process, str]:
            ports[:] = free_ports(3)
            file = folder / "edge.yaml"
            file.write_text(yaml.safe_dump(configuration(ports, certificates, backend.port, dead) | changes))
            command = [sys.executable, "-m", "edgeproxy", "serve", "-c", str(file)]
            return Process(command, folder / "edge.log", folder), f"http://127.0.0.1:{ports[2]}/readyz"

        process = start(request.session, attempt)
        https, http, admin = ports
        yield Edge(https, http, admin, certificates, backend, process)
        end(request.session, process)


def configuration(ports: list[int], certificates: CertificatePaths, backend: int, dead: int) -> dict[str, Any]:
    """What goes into the edge's file, as plain data. `ports`: https, http, admin."""
    https, http, admin = ports
    chat = "backend"
    return {
        "listen": {"https": f"127.0.0.1:{https}", "http": f"127.0.0.1:{http}", "admin": f"127.0.0.1:{admin}"},
        "access_log": {"file": "access.jsonl"},
        "tls": {"certificates": [{"cert": str(certificates.cert), "key": str(certificates.key)}]},
        "drain": "2s",
        "upstreams": {
            chat: {"targets": [{"url": f"http://127.0.0.1:{backend}"}]},
            "dead": {"targets": [{"url": f"http://127.0.0.1:{dead}"}]},
        },
        "routes": [
            {"path": "/v1/messages", "upstream": chat, "dialect": "anthropic"},
            {"path": "/v1/responses", "upstream": chat, "dialect": "responses"},
            {"path": "/v1/", "upstream": chat, "dialect": "openai"},
            {"path": "/ws", "upstream": chat},
            {"path": "/dead/openai/", "upstream": "dead", "dialect": "openai"},
            {"path": "/dead/anthropic/", "upstream": "dead", "dialect": "anthropic"},
            {"path": "/dead/", "upstream": "dead"},
        ],
    }


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Adds what the processes said to the report of a test that failed."""
    report = yield
    if report.failed:
        for process in item.session.stash.get(_RUNNING, []):
            report.sections.append((" ".join(process.command[1:4]), process.said()[-8000:]))
    return report
