# Boundaries of events, against a parser that goes line by line, at every position that a stream can be cut at.
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.chat.sse import _END, data_of, events, first_boundary, last_boundary

PIECES = st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"data: x", b"a", b": c"]), max_size=12).map(b"".join)


def boundaries(data: bytes) -> list[int]:
    """Ends of lines that directly follow the end of another line, as a reader of lines sees them; the last byte is final."""
    ends, at, start = [], 0, 0
    for line in data.splitlines(keepends=True):
        at += len(line)
        if line in {b"\n", b"\r", b"\r\n"} and start:
            ends.append(at)
        start = at
    return ends


@given(PIECES)
def test_the_last_boundary(data: bytes) -> None:
    certain = [end for end in boundaries(data) if not (end == len(data) and data.endswith(b"\r"))]
    assert last_boundary(data) == (certain[-1] if certain else 0)


@given(PIECES)
def test_the_first_boundary(data: bytes) -> None:
    found = boundaries(data)
    assert first_boundary(data) == (found[0] if found else 0)


@given(PIECES, st.integers(0, 40))
def test_a_boundary_does_not_depend_on_where_the_search_begins(data: bytes, start: int) -> None:
    everywhere = last_boundary(data)
    assert last_boundary(data, start) in {0, everywhere}
    if start <= everywhere - 4:
        assert last_boundary(data, start) == everywhere


@given(PIECES)
def test_events_are_all_of_it(data: bytes) -> None:
    found = events(data)
    assert b"".join(found) == data
    assert all(first_boundary(event) == len(event) for event in found[:-1])


def test_data_is_joined() -> None:
    assert data_of(b"event: a\r\ndata: 1\r\ndata:2\r\ndata\r\nid: data: 3\r\n\r\n") == b"1\n2"
    assert data_of(b": ping\n\n") == b""


@given(st.lists(st.sampled_from([b"data: a", b"b", b"\n", b"\n\n", b"\r", b"\r\n"]), max_size=8).map(b"".join))
def test_the_short_way_finds_the_same(whole: bytes) -> None:
    found, start = [], 0
    for end in _END.finditer(whole):
        found.append(whole[start : end.end()])
        start = end.end()
    assert events(whole) == found + ([whole[start:]] if whole[start:] else [])
