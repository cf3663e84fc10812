# Integers of variable length: every length, every truncation, forms that are longer than they need be.
"""quic/varint.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.quic import varint

# RFC 9000 appendix A.1
VECTORS = [
    ("c2197c5eff14e88c", 151288809941952652), ("9d7f3e7d", 494878333), ("7bbd", 15293), ("25", 37), ("4025", 37),
    ("80000025", 37), ("c000000000000025", 37), ("00", 0), ("ffffffffffffffff", varint.LARGEST),
]  # fmt: skip
EDGES = [0, 1, 63, 64, 0x3FFF, 0x4000, 0x3FFFFFFF, 0x40000000, varint.LARGEST]


@pytest.mark.parametrize(("form", "value"), VECTORS)
def test_vectors(form: str, value: int) -> None:
    data = bytes.fromhex(form)
    assert varint.read(data, 0) == (value, len(data))
    assert varint.read(b"xy" + data + b"rest", 2) == (value, 2 + len(data))


@pytest.mark.parametrize("value", EDGES)
def test_the_shortest_form_is_written(value: int) -> None:
    size = 1 if value < 64 else 2 if value < 1 << 14 else 4 if value < 1 << 30 else 8
    assert len(varint.write(value)) == size
    assert varint.read(varint.write(value), 0) == (value, size)


@given(st.integers(0, varint.LARGEST))
def test_there_and_back(value: int) -> None:
    data = varint.write(value)
    assert varint.read(data, 0) == (value, len(data))


@given(st.integers(0, varint.LARGEST), st.integers(0, 7), st.binary(max_size=3))
def test_what_ends_early_raises(value: int, cut: int, before: bytes) -> None:
    data = varint.write(value)
    cut = min(cut, len(data) - 1)
    with pytest.raises(IndexError):
        varint.read(before + data[:cut], len(before))


@given(st.binary(max_size=9))
def test_anything_reads_or_raises(data: bytes) -> None:
    try:
        value, end = varint.read(data, 0)
    except IndexError:
        assert not data or len(data) < 1 << (data[0] >> 6)
    else:
        assert end == 1 << (data[0] >> 6) <= len(data)
        assert value == int.from_bytes(data[:end], "big") & ((1 << (end * 8 - 2)) - 1)
