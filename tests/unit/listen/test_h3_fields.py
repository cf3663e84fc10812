# Field sections as our encoder writes them, read by an independent decoder.
from __future__ import annotations

import pylsqpack
import pytest

from edgeproxy.listen.h3_fields import _NEVER_REPEATED, Encoder


@pytest.mark.parametrize("size", [0, 1, 13, 126, 127, 5000])
@pytest.mark.parametrize("names", [sorted(_NEVER_REPEATED), ["content-type", "accept-ranges", "x-mine", "age"]])
def test_sections_are_read_as_they_were_meant(size: int, names: list[bytes | str]) -> None:
    encoder = Encoder()
    plain = [name.encode() if isinstance(name, str) else name for name in names]
    fields = [(b":status", b"200"), *((name, b"0" * size) for name in plain), (b"server", b"x")]
    for _ in range(2):  # the second time from what was remembered
        assert pylsqpack.Decoder(0, 0).feed_header(0, encoder.section(fields))[1] == fields
