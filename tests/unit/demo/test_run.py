"""`edgeproxy demo` with a supervisor that only pretends: configuration, ports, messages, and that nothing is left."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import edgeproxy
from edgeproxy.certs import make_development
from edgeproxy.config.model import Config
from edgeproxy.demo import guide, run
from edgeproxy.demo.llm import LlmMissing

TOUR = guide.Tour(
    https=8443, http=8080, admin=9180, ca=Path("certs/ca.pem"), access_log=Path("access.jsonl"), model="edge-demo",
    python=sys.executable, pin="cGlu",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Children import the package from where we have it, installed or not.
    monkeypatch.setenv("PYTHONPATH", str(Path(edgeproxy.__file__).parents[1]))


def free_port() -> int:
    return run._free_port(0, set())


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()}


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """The supervisor restores the handlers that it found; the pretended one does not."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


def test_it_brings_everything_up_and_down(capsys: pytest.CaptureFixture[str]) -> None:
    before = children()
    port = free_port()
    seen: list[Config] = []

    def serve(path: None, *, config: Config, on_ready: Callable[[], None]) -> int:
        assert path is None
        seen.append(config)
        backend = config.upstreams["chat"].targets[0]
        with urllib.request.urlopen(f"{backend.url}/v1/models") as got:
            assert json.load(got)["data"][0]["id"] == "edge-demo"
        with socket.socket() as probe, pytest.raises(OSError, match="in use"):
            probe.bind(("127.0.0.1", backend.port))
        assert len(children() - before) == 1
        on_ready()
        return 7

    assert run.demo(port, serve=serve) == 7
    assert children() == before
    (config,) = seen
    assert [a.port for a in config.listen.https] == [port]
    assert {a.host for a in (*config.listen.https, *config.listen.http, config.listen.admin) if a} == {"127.0.0.1"}
    assert [(r.path, r.dialect) for r in config.routes] == [
        ("/v1/messages", "anthropic"), ("/v1/responses", "responses"), ("/v1/", "openai"), ("/", None),
    ]  # fmt: skip
    assert config.hsts.max_age == 300 and not config.hsts.include_subdomains
    assert Path("certs/edge-key.pem").stat().st_mode & 0o777 == 0o600
    printed = capsys.readouterr().out
    assert f"https://localhost:{port}/" in printed and "access.jsonl" in printed
    assert "\x1b" not in printed  # plain when it is not a terminal


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_when_serving_fails(error: type[BaseException]) -> None:
    before = children()

    def serve(*_: Any, **__: Any) -> int:
        raise error

    if error is KeyboardInterrupt:
        assert run.demo(free_port(), serve=serve) == 130
    else:
        with pytest.raises(error):
            run.demo(free_port(), serve=serve)
    assert children() == before


def never(*_: Any, **__: Any) -> int:
    raise AssertionError("must not be reached")


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_taken_port_is_explained(capsys: pytest.CaptureFixture[str], kind: socket.SocketKind) -> None:
    with socket.socket(type=kind) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as another edge would
        other.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            other.listen()
        port = other.getsockname()[1]
        assert run.demo(port, serve=never) == 1
    said = capsys.readouterr().err
    assert f"port {port} on 127.0.0.1 is in use" in said and "edgeproxy demo --port" in said
    assert not Path("certs").exists()


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_is_none_is_explained(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.demo(port, serve=never) == 1
    assert f"{port} is not a port" in capsys.readouterr().err


def test_certificates_that_cannot_be_written_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    Path("certs").write_text("a file is in the way")
    assert run.demo(free_port(), serve=never) == 1
    assert "cannot write the development certificates" in capsys.readouterr().err


def test_a_missing_model_is_explained(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing() -> None:
        raise LlmMissing("pip install 'edgeproxy[llm]'")

    monkeypatch.setattr("edgeproxy.demo.llm.find", missing)
    assert run.demo(free_port(), llm=True, serve=never) == 1
    assert "pip install 'edgeproxy[llm]'" in capsys.readouterr().err


class FakeModel:
    """Stands in for llama.cpp's server: `program` is Python source that gets the port as its argument."""

    def __init__(self, program: str, weights: Path) -> None:
        self._program = program
        self.weights = weights

    def command(self, port: int) -> list[str]:
        return [sys.executable, "-c", self._program, str(port)]


def test_with_a_model_the_page_stays_ours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    before = children()
    program = "import sys; from edgeproxy.demo.backend import main; main(['--port', sys.argv[1]])"
    weights = Path("model.gguf")
    weights.write_bytes(b"x")
    monkeypatch.setattr("edgeproxy.demo.llm.find", lambda: FakeModel(program, weights))

    def serve(_: None, *, config: Config, on_ready: Callable[[], None]) -> int:
        chat, web = config.upstreams["chat"].targets[0], config.upstreams["web"].targets[0]
        assert chat != web and len(children() - before) == 2
        on_ready()
        return 0

    assert run.demo(free_port(), llm=True, serve=serve) == 0
    assert children() == before
    printed = capsys.readouterr().out
    assert "Loading model.gguf" in printed and '"model": "smollm2"' in printed


def test_a_model_that_does_not_come_up_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = children()
    weights = Path("model.gguf")
    weights.write_bytes(b"x")
    program = "import sys; print('not enough memory for tensors', file=sys.stderr); sys.exit(1)"
    monkeypatch.setattr("edgeproxy.demo.llm.find", lambda: FakeModel(program, weights))
    assert run.demo(free_port(), llm=True, serve=never) == 1
    said = capsys.readouterr().err
    assert "ended before it was ready" in said and "not enough memory for tensors" in said
    assert children() == before


def test_sigterm_while_starting_ends_it_cleanly(monkeypatch: pytest.MonkeyPatch) -> None:
    before = children()

    def interrupted(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("edgeproxy.demo.child.Child.wait_healthy", interrupted)
    assert run.demo(free_port(), serve=never) == 130
    assert children() == before
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_ports_that_are_preferred_and_ports_that_are_not() -> None:
    wanted = free_port()
    assert run._free_port(wanted, set()) == wanted
    assert run._free_port(wanted, {wanted}) != wanted
    with socket.create_server(("127.0.0.1", wanted)):
        assert run._free_port(wanted, set()) != wanted


def test_the_configuration_survives_its_own_json() -> None:
    config = run.configuration(https=1, http=2, admin=3, web=4, chat=5, paths=make_development(Path("certs")))
    assert Config.model_validate_json(config.model_dump_json()) == config


def test_commands_start_at_the_first_column_and_are_never_wrapped() -> None:
    out = io.StringIO()
    guide.show(Console(file=out, width=40, highlight=False, soft_wrap=True), TOUR)
    for _, command in guide.commands(TOUR):
        assert f"\n{command}\n" in out.getvalue()


@pytest.mark.parametrize("tour", [TOUR])
def test_commands_are_valid_shell_and_python(tour: guide.Tour) -> None:
    for title, command in guide.commands(tour):
        subprocess.run(["bash", "-n", "-c", command], check=True)
        words = shlex.split(command)
        if "SDK" in title:
            assert words[0] == "SSL_CERT_FILE=certs/ca.pem"
            compile(words[words.index("-c") + 1], title, "exec")
        elif "-d" in words:
            assert json.loads(words[words.index("-d") + 1])["model"] == "edge-demo"


def test_missing_sdks_are_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "openai" else object())
    assert sum("-m pip install openai" in command for _, command in guide.commands(TOUR)) == 1
