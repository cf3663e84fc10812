# What arrived, against a model that is a set of numbers; the ACK frames are read by aioquic.
"""quic/received.py."""

from __future__ import annotations

from aioquic.buffer import Buffer
from aioquic.quic.packet import pull_ack_frame
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.quic.received import MAX_RANGES, Received


def acknowledged(received: Received, now: float = 0.0) -> tuple[list[tuple[int, int]], int]:
    """Ranges, lowest first, both ends included, and the delay of the frame."""
    frame = received.frame(now)
    assert frame[0] == 0x02
    buffer = Buffer(data=frame[1:])
    ranges, delay = pull_ack_frame(buffer)
    assert buffer.eof()
    return [(part.start, part.stop - 1) for part in ranges], delay


def ranges_of(numbers: set[int]) -> list[tuple[int, int]]:
    """The model."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


@given(st.lists(st.integers(0, 40), min_size=1, max_size=120))
def test_any_order_with_duplicates(numbers: list[int]) -> None:
    """At most 41 numbers have at most 21 ranges: nothing is forgotten."""
    received = Received()
    seen: set[int] = set()
    for number in numbers:
        assert received.add(number, 1.0) is (number not in seen)
        seen.add(number)
        assert received.expected == max(seen) + 1
        assert acknowledged(received)[0] == ranges_of(seen)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=300))
def test_ranges_are_bounded(numbers: list[int]) -> None:
    received = Received()
    seen: set[int] = set()
    for number in numbers:
        fresh = received.add(number, 1.0)
        assert not (fresh and number in seen)  # never twice, whatever was forgotten
        seen.add(number)
        ranges = acknowledged(received)[0]
        assert 1 <= len(ranges) <= MAX_RANGES
        assert ranges[-1][1] == max(seen)
        assert set(ranges) <= set(ranges_of(seen)) or len(ranges) == MAX_RANGES
        assert all(set(range(low, high + 1)) <= seen for low, high in ranges)


@given(st.lists(st.one_of(st.integers(0, 60), st.none()), min_size=1, max_size=120))
def test_acknowledged_acknowledgments(steps: list[int | None]) -> None:
    """None: the client acknowledged our last ACK frame. What is said after it is true, and nothing is taken twice."""
    received = Received()
    seen: set[int] = set()
    for step in steps:
        if step is None:
            if seen:
                received.on_acked(max(seen), b"", False)
        else:
            assert not (received.add(step, 0.0) and step in seen)
            seen.add(step)
        if seen:
            ranges = acknowledged(received)[0]
            assert ranges[-1][1] == max(seen)
            assert all(set(range(low, high + 1)) <= seen for low, high in ranges)


def test_an_acknowledged_frame_shortens_the_next() -> None:
    received = Received()
    for number in (0, 1, 5, 6, 9):
        received.add(number, 0.0)
    received.on_lost(9, b"", False)
    assert len(acknowledged(received)[0]) == 3
    received.on_acked(6, b"", False)
    assert acknowledged(received)[0] == [(9, 9)]
    assert not received.add(5, 0.0)
    assert not received.add(3, 0.0), "older than what is remembered counts as received"
    received.on_acked(9, b"", False)
    assert acknowledged(received)[0] == [(9, 9)], "the newest range stays"


def test_delay_is_that_of_the_newest() -> None:
    received = Received()
    received.add(0, 10.0)
    received.add(2, 20.0)
    received.add(1, 30.0)
    ranges, delay = acknowledged(received, 20.008)
    assert ranges == [(0, 2)]
    assert abs((delay << 3) - 8000) <= 8
    assert acknowledged(received, 19.0)[1] == 0, "a clock that went back"


def test_large_numbers() -> None:
    received = Received()
    received.add(1 << 40, 0.0)
    received.add((1 << 61) - 1, 0.0)
    assert acknowledged(received)[0] == [(1 << 40, 1 << 40), ((1 << 61) - 1, (1 << 61) - 1)]
