# Data that is not committed here: it lies beside the project, or where EDGEPROXY_SHARED says. Whoever misses it says so.
"""`shared("ja4/client_hellos.json")`: the file, or a skipped test that tells what was not tested."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_ROOT = Path(os.environ.get("EDGEPROXY_SHARED", Path(__file__).resolve().parents[3] / "shared" / "data"))


def shared(name: str) -> Path:
    """Where a file of the shared data is; skips the test where it is not."""
    path = _ROOT / name
    if not path.exists():
        pytest.skip(f"the shared data are not here ({name}; EDGEPROXY_SHARED=DIR tells where): this was not tested")
    return path
