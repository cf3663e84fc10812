# Names are made when somebody first asks, once, and never fail.
"""prints.py."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hellos import VECTORS, records, vector_of

from edgeproxy import prints as module
from edgeproxy.prints import Prints


@pytest.mark.parametrize("vector", VECTORS, ids=lambda each: each["client"])
def test_names(vector: dict[str, str]) -> None:
    message = bytes.fromhex(vector["client_hello"])
    prints = Prints(message, "q") if vector["transport"] == "quic" else Prints(records(message, [300]) + b"more")
    assert (prints.ja4, prints.ja4n, prints.ja3) == (vector["ja4"], vector["ja4n"], vector["ja3"])
    assert prints.h2 is prints.h3 is None


def test_nothing_is_read_before_and_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("read_hello", "ja4", "ja3"):
        real = getattr(module.hellos, name)

        def counted(*given: Any, name: str = name, real: Any = real) -> Any:
            calls.append(name)
            return real(*given)

        monkeypatch.setattr(module.hellos, name, counted)
    prints = Prints(records(bytes.fromhex(vector_of("curl")["client_hello"])))
    assert calls == []
    for _ in range(3):
        assert prints.ja4 == vector_of("curl")["ja4"]
        assert prints.hello is not None
    assert calls == ["read_hello", "ja4"]
    assert prints._first == b"", "the bytes are not kept any longer"


@given(st.binary(max_size=100), st.sampled_from(["t", "q"]))
def test_what_cannot_be_read_has_no_name(first: bytes, kind: Any) -> None:
    prints = Prints(first, kind)
    assert (prints.hello, prints.ja4, prints.ja4n, prints.ja3) == (None, "", "", "")


def test_there_is_nothing_else() -> None:
    with pytest.raises(AttributeError, match="ja4h"):
        getattr(Prints(b""), "ja4h")  # noqa: B009  types know that it is not there
