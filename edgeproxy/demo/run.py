# `edgeproxy demo`: certificates, a backend and the edge before it, brought up in this order and ended in the reverse.
"""Brings up everything a newcomer needs and says what to try. What is printed is in guide.py."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from edgeproxy.certs import CertificatePaths, key_pin, make_development
from edgeproxy.config.load import build
from edgeproxy.config.model import Config
from edgeproxy.demo import guide
from edgeproxy.demo import llm as models
from edgeproxy.demo.child import Child, ChildError

HOST = "127.0.0.1"
HTTP_PORT = 8080
ADMIN_PORT = 9180
CERTS = Path("certs")
ACCESS_LOG = Path("access.jsonl")
BACKEND_READY_WITHIN = 15.0
Serve = Callable[..., int]


class DemoError(Exception):
    """The demo cannot start; the message says why and what to do."""


def demo(port: int = 8443, llm: bool = False, *, serve: Serve | None = None) -> int:
    """Runs the demo in the foreground until SIGINT or SIGTERM; returns the exit status.

    `llm` puts a real model behind the edge (optional packages). `serve` is `edgeproxy.supervisor.serve` unless a test
    brings another: it gets no file, blocks, calls `on_ready()` when all workers accept, and returns the exit status.
    """
    console = Console(highlight=False, soft_wrap=True)
    try:
        with ExitStack() as stack:
            with _interruptible():
                config, tour = _bring_up(port, llm, console, stack)
            run = serve or _supervisor()

            def ready() -> None:
                # To the supervisor SIGHUP means to reload. Here it means that the terminal was closed, and a demo that
                # nobody can see or stop must not stay behind.
                signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
                guide.show(console, tour)

            return run(None, config=config, on_ready=ready)
    except (DemoError, ChildError) as e:
        return _fail(str(e))
    except KeyboardInterrupt:
        return 130


def _supervisor() -> Serve:
    from edgeproxy.supervisor import serve

    return serve


def _bring_up(port: int, with_llm: bool, console: Console, stack: ExitStack) -> tuple[Config, guide.Tour]:
    """Everything but the edge; what was started is ended by `stack`."""
    model = _find_model() if with_llm else None
    _require_free(port)
    http, admin = _free_port(HTTP_PORT, {port}), _free_port(ADMIN_PORT, {port, HTTP_PORT})
    try:
        paths = make_development(CERTS)
    except OSError as e:
        raise DemoError(f"cannot write the development certificates to {CERTS.resolve()}: {e.strerror}") from e
    web = _start_backend(stack)
    chat = web if model is None else _start_model(model, console, stack)
    config = configuration(https=port, http=http, admin=admin, web=web, chat=chat, paths=paths)
    tour = guide.Tour(
        https=port, http=http, admin=admin, ca=paths.ca, access_log=ACCESS_LOG,
        model="edge-demo" if model is None else models.NAME, python=sys.executable, pin=key_pin(paths.cert),
    )  # fmt: skip
    return config, tour


def configuration(*, https: int, http: int, admin: int, web: int, chat: int, paths: CertificatePaths) -> Config:
    """The demo's configuration. `web` and `chat` are loopback ports: the page's, and that of the model's API."""
    values: dict[str, Any] = {
        "listen": {"https": f"{HOST}:{https}", "http": f"{HOST}:{http}", "admin": f"{HOST}:{admin}"},
        "access_log": {"file": str(ACCESS_LOG)},
        "tls": {"certificates": [{"cert": str(paths.cert), "key": str(paths.key)}]},
        # Five minutes, not two years: a browser that trusts the CA would refuse plain http://localhost on every
        # port for as long as this says, also for whatever else its owner develops there.
        "hsts": {"max_age": 300, "include_subdomains": False},
        "drain": "10s",
        "upstreams": {
            "chat": {"targets": [{"url": f"http://{HOST}:{chat}"}]},
            "web": {"targets": [{"url": f"http://{HOST}:{web}"}]},
        },
        "routes": [
            {"path": "/v1/messages", "upstream": "chat", "dialect": "anthropic"},
            {"path": "/v1/responses", "upstream": "chat", "dialect": "responses"},
            {"path": "/v1/", "upstream": "chat", "dialect": "openai"},
            {"path": "/", "upstream": "web"},
        ],
    }
    return build(values)


def _start_backend(stack: ExitStack) -> int:
    """The demonstration backend, in a process of its own; returns its port."""
    # Bound here and inherited there: no moment in which another program could take the port.
    with socket.create_server((HOST, 0), backlog=1024) as listener:
        listener.set_inheritable(True)
        port: int = listener.getsockname()[1]
        descriptor = listener.fileno()
        module = [sys.executable, "-m", "edgeproxy.demo.backend"]
        command = [*module, "--fd", str(descriptor), "--parent", str(os.getpid())]
        backend = Child("the demonstration backend", command, pass_fds=[descriptor])
    stack.callback(backend.stop)
    backend.wait_healthy(f"http://{HOST}:{port}/health", BACKEND_READY_WITHIN)
    return port


def _start_model(model: models.LocalModel, console: Console, stack: ExitStack) -> int:
    """llama.cpp's server; returns its port once the model is loaded."""
    port = _free_port(0, set())
    output = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  (the stack closes it)
    server = Child("the model's server", model.command(port), output=output)
    stack.callback(server.stop)
    text = f"Loading {model.weights.name} ({model.weights.stat().st_size / 1e6:.0f} MB)"
    try:
        # The status runs a thread when it is shown on a terminal; it has ended before the edge forks.
        with console.status(f"{text} …") as status:
            if not console.is_terminal:
                console.print(f"{text} …")
            server.wait_healthy(
                f"http://{HOST}:{port}/health", models.READY_WITHIN, lambda s: status.update(f"{text}, {s:.0f} s …")
            )
    except ChildError as e:
        output.seek(0)
        last = output.read().decode(errors="replace").splitlines()[-15:]
        raise DemoError("\n".join([f"{e}. The last it said:", *last])) from e
    return port


def _find_model() -> models.LocalModel:
    try:
        return models.find()
    except models.LlmMissing as e:
        raise DemoError(str(e)) from e


def _require_free(port: int) -> None:
    if not 1 <= port <= 65535:
        raise DemoError(f"{port} is not a port: choose one from 1 to 65535, such as edgeproxy demo --port 9443")
    try:
        _probe(port)
        _probe(port, socket.SOCK_DGRAM)  # HTTP/3
    except PermissionError as e:
        raise DemoError(f"port {port} needs rights that you do not have; try edgeproxy demo --port 8443") from e
    except OSError as e:
        if e.errno != errno.EADDRINUSE:
            raise DemoError(f"cannot listen on {HOST}:{port}: {e.strerror}") from e
        other = port + 1000 if port < 64000 else 9443
        raise DemoError(
            f"port {port} on {HOST} is in use, perhaps by another demo. "
            f"Stop what listens there, or choose another port: edgeproxy demo --port {other}"
        ) from e


def _free_port(preferred: int, taken: set[int]) -> int:
    """`preferred` if nobody has it, otherwise some free port that is not in `taken`."""
    while True:
        try:
            port = _probe(preferred)
        except OSError:
            preferred = 0
            continue
        if port not in taken:
            return port
        preferred = 0


def _probe(port: int, kind: int = socket.SOCK_STREAM) -> int:
    """Binds for a moment. Without SO_REUSEPORT, which would share the port with another edge instead of failing."""
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind == socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what is in TIME_WAIT does not matter
        probe.bind((HOST, port))
        found: int = probe.getsockname()[1]
        return found


@contextmanager
def _interruptible() -> Iterator[None]:
    """Until the edge runs and handles signals itself, SIGTERM ends the demo as Ctrl-C does: by unwinding."""

    def leave(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _fail(message: str) -> int:
    sys.stderr.write(f"edgeproxy demo: {message}\n")
    return 1
