# What a snapshot opens is its own: a reload opens it anew, and exchanges of the old one go on with what they had.
"""config/snapshot.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.edge import configuration, prepared
from support.mmdb import database


def test_geo_files_are_opened_by_each_snapshot(tmp_path: Path) -> None:
    assert prepared(configuration()).geo is None
    path = tmp_path / "a.mmdb"
    path.write_bytes(database({"192.0.2.0/24": {"country": {"iso_code": "DE"}}}))
    config = configuration(geo={"files": [str(path)]})
    old = prepared(config)
    (tmp_path / "b.mmdb").write_bytes(database({"192.0.2.0/24": {"country": {"iso_code": "CH"}}}))
    (tmp_path / "b.mmdb").rename(path)
    new = prepared(config)
    assert old.geo is not None and new.geo is not None
    assert new.context.geo is new.geo
    assert (old.geo.place("192.0.2.1").country(), new.geo.place("192.0.2.1").country()) == ("DE", "CH")
    path.unlink()
    with pytest.raises(ValueError, match="does not exist"):
        prepared(config)


@pytest.mark.parametrize(("changes", "wanted"), [
    ({}, False), ({"rules": {"book": {"rules": [{"id": "a", "expression": "ssl", "action": "log"}]}}}, False),
    ({"rules": {"book": {"rules": [{"id": "a", "expression": 'cf.bot_management.ja4 eq "x"', "action": "log"}]}}}, True),
    ({"rules": {"book": {"rules": [{"id": "a", "expression": "ssl", "action": "rewrite",
                                    "headers": {"set": {"x-ja4": {"expression": "cf.bot_management.ja4"}}}}]}}}, True),
    ({"limits": [{"name": "a", "requests": 5, "key": "cf.bot_management.ja4"}]}, True),
    ({"limits": [{"name": "a", "requests": 5, "key": "ip.src"}]}, False),
])  # fmt: skip
def test_fingerprints_are_kept_where_somebody_asks(changes: dict[str, Any], wanted: bool) -> None:
    """Of keys: tests/unit/test_keying.py."""
    assert prepared(configuration(**changes)).prints is wanted
