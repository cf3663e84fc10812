# Coded request bodies: what is read, and that nothing which is sent makes the edge unpack without end.
"""chat/decoding.py."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.chat.decoding import bound, decoded, is_read

TEXT = b'{"model":"m","messages":[{"role":"user","content":"how are you, and how is the weather?"}]}'


def raw(content: bytes) -> bytes:
    packing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packing.compress(content) + packing.flush()


def packed(content: bytes) -> bytes:
    """As gzip, without the time: these are names of tests, which every process of a run has to find alike."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(("coding", "coded"), [
    (b"gzip", packed(TEXT)), (b" GZip ", packed(TEXT)), (b"x-gzip", packed(TEXT)),
    (b"deflate", zlib.compress(TEXT)), (b"deflate", raw(TEXT)), (b"gzip", packed(TEXT[:9]) + packed(TEXT[9:])),
])  # fmt: skip
def test_what_is_read(coding: bytes, coded: bytes) -> None:
    assert decoded(coded, coding) == TEXT and is_read(coding)


@pytest.mark.parametrize(("coding", "coded"), [
    (b"br", TEXT), (b"zstd", TEXT), (b"gzip, gzip", packed(packed(TEXT))), (b"gzip", TEXT), (b"gzip", b""),
    (b"gzip", packed(TEXT)[:-1]), (b"gzip", packed(TEXT) + b"more"), (b"deflate", b"\xff" * 40),
])  # fmt: skip
def test_what_is_not(coding: bytes, coded: bytes) -> None:
    assert decoded(coded, coding) is None


def test_bombs_are_not_unpacked() -> None:
    fits, bomb = b"x" * bound(1500), packed(b"x" * 1_000_000)
    assert bound(len(bomb)) < 200_000 and decoded(bomb, b"gzip") is None
    assert decoded(packed(fits[: bound(100)]), b"gzip") == fits[: bound(100)]
    assert decoded(packed(b"") * 9, b"gzip") is None, "each member costs something"
    assert decoded(packed(b"x" * 60_000) + packed(b"x" * 60_000), b"gzip") is None, "not one by one either"
    assert bound(1 << 30) == 4 << 20


@given(st.binary(max_size=200), st.sampled_from([b"gzip", b"deflate"]))
def test_any_bytes(content: bytes, coding: bytes) -> None:
    found = decoded(content, coding)
    assert found is None or len(found) <= bound(len(content))
