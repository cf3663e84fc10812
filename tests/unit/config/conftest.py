from __future__ import annotations

from pathlib import Path

import pytest

from .samples import Writer


@pytest.fixture
def files(tmp_path: Path) -> Writer:
    return Writer(tmp_path)
