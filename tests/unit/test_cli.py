from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import edgeproxy
from edgeproxy import cli
from edgeproxy.certs import make_development

ROOT = Path(edgeproxy.__file__).parent.parent
BASE: dict[str, Any] = {
    "listen": {"https": "127.0.0.1:8443"},
    "upstreams": {"web": {"targets": [{"url": "http://127.0.0.1:9000"}]}},
    "routes": [{"upstream": "web"}],
}


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, list(arguments))
    return result.exit_code, result.output


@pytest.fixture
def file(tmp_path: Path) -> Path:
    make_development(tmp_path)
    certificate = {"cert": str(tmp_path / "edge.pem"), "key": str(tmp_path / "edge-key.pem")}
    path = tmp_path / "edge.yaml"
    path.write_text(yaml.safe_dump({**BASE, "tls": {"certificates": [certificate]}}))
    return path


def test_check_of_a_good_file(file: Path) -> None:
    assert run("check", "-c", str(file)) == (0, f"{file}: no problems\n")


def test_check_prints_every_problem_and_exits_1(file: Path) -> None:
    file.write_text(file.read_text() + "route: []\nworkers: 0\n")
    code, output = run("check", "-c", str(file))
    assert code == 1
    assert "unknown key 'route'" in output and "workers" in output and f"{file}:" in output


def test_check_of_no_file(tmp_path: Path) -> None:
    assert run("check", "-c", str(tmp_path / "none.yaml"))[0] == 1
    assert run("check")[0] == 2


def test_check_prints_the_schema() -> None:
    code, output = run("check", "--schema")
    assert code == 0 and json.loads(output)["properties"]["listen"]


def test_certs_dev(tmp_path: Path) -> None:
    code, output = run("certs", "dev", str(tmp_path / "made"))
    assert code == 0
    assert [Path(line).name for line in output.splitlines()] == ["ca.pem", "ca-key.pem", "edge.pem", "edge-key.pem"]
    assert all(Path(line).exists() for line in output.splitlines())


def test_exit_codes_and_arguments_go_through(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    from edgeproxy import supervisor

    seen: list[Any] = []

    def serve(path: Path, workers: int | None = None) -> int:
        seen.append((path, workers))
        return 1

    monkeypatch.setattr(supervisor, "serve", serve)
    assert run("serve", "-c", str(file), "--workers", "3")[0] == 1
    assert run("serve", "-c", str(file))[0] == 1
    assert run("serve", "-c", str(file), "--workers", "0")[0] == 2
    assert seen == [(file, 3), (file, None)]


def test_help_has_examples_and_is_light() -> None:
    for command in (["serve"], ["check"], ["demo"], ["certs", "dev"]):
        code, output = run(*command, "--help")
        assert code == 0 and "edgeproxy " + " ".join(command) in output
    heavy = {"aiohttp", "pydantic", "uvloop", "ssl", "cryptography", "yaml", "asyncio"}
    program = "import sys, edgeproxy.cli; print(sorted(set(sys.modules) & set(sys.argv[1:])))"
    result = subprocess.run(
        [sys.executable, "-c", program, *heavy], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


def test_version() -> None:
    assert run("--version") == (0, f"edgeproxy {edgeproxy.__version__}\n")


@pytest.mark.parametrize("given", [None, "/dev/null"])
def test_openssl_is_given_our_groups_unless_the_operator_has_a_say(given: str | None) -> None:
    program = (
        "import os, sys; sys.argv = ['edgeproxy', '--version']\n"
        "from edgeproxy.__main__ import main\n"
        "assert 'ssl' not in sys.modules and '_hashlib' not in sys.modules\n"
        "try: main()\n"
        "except SystemExit: print(os.environ['OPENSSL_CONF'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OPENSSL_CONF"}
    if given is not None:
        environment["OPENSSL_CONF"] = given
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    path = Path(result.stdout.splitlines()[-1])
    assert path == Path(given or ROOT / "edgeproxy" / "listen" / "openssl.cnf")
    assert path.exists()
