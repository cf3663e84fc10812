# bots/ decides and does no I/O.
"""No file of bots/ imports what talks to a network, and identifying a bot does not bring it in by another way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import edgeproxy

ROOT = Path(edgeproxy.__file__).parent
FORBIDDEN = {"asyncio", "aiohttp", "redis", "aiodns", "hiredis"}


def test_imports() -> None:
    found = []
    files = sorted((ROOT / "bots").glob("*.py"))
    assert len(files) > 5
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [(file.name, name) for name in names if name.split(".")[0] in FORBIDDEN or ".lookups" in name]
    assert found == []


def test_what_comes_with_them() -> None:
    program = f"import sys; from edgeproxy.bots import directory, identity; print(sorted({FORBIDDEN!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT.parent, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
