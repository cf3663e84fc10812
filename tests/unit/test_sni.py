from __future__ import annotations

import pytest

from edgeproxy.sni import ByName


@pytest.mark.parametrize(("asked", "got"), [
    ("a.test", "first"), ("x.a.test", "wild"), ("b.a.test", "exact"), ("x.y.a.test", None), ("a", None), ("", None),
    ("test", None), ("::1", "first"), (".a.test", "wild"),
])  # fmt: skip
def test_exact_names_go_before_wildcards_and_first_ones_before_later(asked: str, got: str | None) -> None:
    table: ByName[str] = ByName()
    table.add(["*.a.test"], "wild")
    table.add(["a.test", "::1"], "first")
    table.add(["a.test", "b.a.test", "*.a.test"], "exact")
    assert table.get(asked) == got
