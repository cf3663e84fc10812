# Loss detection and congestion control at moments of our choosing (RFC 9002).
"""quic/recovery.py."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.quic.recovery import GRANULARITY, INITIAL_RTT, MAX_PTO_COUNT, MAX_WINDOW, PACKET_THRESHOLD, Recovery

SIZE = 1200


class Owner:
    """Remembers the fate of frames by number."""

    def __init__(self) -> None:
        self.acked: list[int] = []
        self.lost: list[int] = []

    def on_acked(self, a: int, b: bytes, c: bool) -> None:
        self.acked.append(a)

    def on_lost(self, a: int, b: bytes, c: bool) -> None:
        self.lost.append(a)


class Flight:
    """A recovery and packets that carry one frame each."""

    def __init__(self, rtt: float = 0.1) -> None:
        self.recovery = Recovery(SIZE)
        self.owner = Owner()
        self.number = 0
        if rtt:
            self.recovery.sample(rtt, 0.0, 0.001)

    def send(self, now: float, count: int = 1, size: int = SIZE) -> None:
        for _ in range(count):
            self.recovery.on_sent(self.number, now, size, [(self.owner, self.number, b"", False)])
            self.number += 1

    def ack(self, now: float, *ranges: tuple[int, int], delay: float = 0.0) -> None:
        self.recovery.on_ack(list(ranges), delay, now)


def test_first_sample() -> None:
    recovery = Recovery(SIZE)
    assert recovery.smoothed == INITIAL_RTT
    recovery.sample(0.2, 0.15, 1.0)
    assert (recovery.smoothed, recovery.variance) == (0.2, 0.1), "without the delay (§5.3)"


def test_smoothing() -> None:
    """§5.3, with the peer's delay bounded by its max_ack_delay and never below the minimum."""
    recovery = Recovery(SIZE)
    recovery.configure(0.02, 3)
    recovery.sample(0.1, 0.0, 1.0)
    recovery.sample(0.2, 0.5, 2.0)  # adjusted: 0.2 - 0.02
    assert recovery.variance == pytest.approx(0.75 * 0.05 + 0.25 * 0.08)
    assert recovery.smoothed == pytest.approx(0.875 * 0.1 + 0.125 * 0.18)
    before = recovery.smoothed
    recovery.sample(0.11, 0.02, 3.0)  # 0.09 would be below the minimum: taken as it is
    assert recovery.smoothed == pytest.approx(0.875 * before + 0.125 * 0.11)
    assert recovery.latest == 0.11


def test_only_the_largest_gives_a_sample() -> None:
    flight = Flight(rtt=0.0)
    flight.send(0.0, 3)
    flight.ack(0.3, (0, 0))
    assert flight.recovery.latest == pytest.approx(0.3)
    flight.send(1.0)
    flight.ack(1.05, (3, 3), (0, 0))
    assert flight.recovery.latest == pytest.approx(0.05)
    flight.ack(9.0, (1, 3))  # the largest of it is not new
    assert flight.recovery.latest == pytest.approx(0.05)
    assert flight.recovery.in_flight == 0


@given(st.sets(st.integers(0, 60)), st.integers(1, 61))
@settings(max_examples=150, deadline=None)
def test_ranges(gone: set[int], count: int) -> None:
    """Exactly what the ranges name is acknowledged, in order."""
    flight = Flight()
    flight.send(0.0, count)
    named = sorted({number for number in gone if number < count})
    if not named:
        return
    ranges: list[tuple[int, int]] = []
    for number in reversed(named):
        if ranges and ranges[-1][0] == number + 1:
            ranges[-1] = (number, ranges[-1][1])
        else:
            ranges.append((number, number))
    flight.recovery.on_ack(ranges, 0.0, 0.01)
    assert flight.owner.acked == named
    behind = {number for number in range(count) if number not in named and number <= named[-1] - PACKET_THRESHOLD}
    assert flight.owner.lost == sorted(behind)
    assert set(flight.recovery.sent) == set(range(count)) - set(named) - behind
    assert flight.recovery.in_flight == SIZE * len(flight.recovery.sent)
    flight.recovery.on_ack(ranges, 0.0, 0.02)
    assert flight.owner.acked == named, "once"


def test_loss_by_number() -> None:
    flight = Flight()
    flight.send(0.0, 6)
    flight.ack(0.1, (2, 2))
    assert flight.owner.lost == []
    flight.ack(0.1, (4, 4))
    assert flight.owner.lost == [0, 1]
    assert flight.recovery.lost == 2


def test_loss_by_time() -> None:
    flight = Flight()
    flight.send(0.0)
    flight.send(0.01)
    flight.ack(0.11, (1, 1))
    assert flight.owner.lost == []
    delay = 1.125 * max(flight.recovery.latest, flight.recovery.smoothed)
    assert flight.recovery.loss_at == pytest.approx(delay)
    assert flight.recovery.timer() == flight.recovery.loss_at
    flight.recovery.on_timer(flight.recovery.loss_at + 0.0001)
    assert flight.owner.lost == [0]
    assert flight.recovery.timer() == 0.0
    assert flight.recovery.probes == 0


def test_probe_timeout_and_backoff() -> None:
    """§6.2: smoothed + 4 · variance + the peer's delay, doubled each time."""
    flight = Flight()
    recovery = flight.recovery
    assert recovery.timer() == 0.0
    flight.send(1.0, 3)
    period = 0.1 + 4 * 0.05 + 0.025
    assert recovery.timer() == pytest.approx(1.0 + period)
    recovery.on_timer(1.0 + period)
    assert (recovery.probes, recovery.pto_count, recovery.probed) == (2, 1, 2)
    assert flight.owner.lost == [0, 1], "what they carried goes again"
    assert recovery.lost == 0, "but they are not lost"
    assert recovery.in_flight == 3 * SIZE
    assert recovery.timer() == pytest.approx(1.0 + 2 * period)
    recovery.on_timer(1.0 + 2 * period)
    assert flight.owner.lost == [0, 1, 2]
    flight.send(3.0, 2)
    assert recovery.timer() == pytest.approx(3.0 + 4 * period)
    flight.ack(3.1, (4, 4))
    assert recovery.pto_count == 0
    assert flight.owner.acked == [4]
    for turn in range(30):
        flight.send(10.0 + turn)
        recovery.on_timer(11.0 + turn)
    assert recovery.pto_count == MAX_PTO_COUNT


def test_a_packet_that_was_probed_for_may_still_arrive() -> None:
    flight = Flight()
    flight.send(0.0, 2)
    flight.recovery.on_timer(1.0)
    flight.send(1.0, 2)
    flight.ack(1.05, (0, 3))
    assert flight.recovery.in_flight == 0
    assert flight.owner.acked == [2, 3], "its frames had gone to another packet"
    assert flight.recovery.window == 10 * SIZE


def test_slow_start_doubles() -> None:
    flight = Flight()
    window = flight.recovery.window
    assert window == 10 * SIZE
    flight.send(0.0, 10)
    flight.ack(0.1, (0, 9))
    assert flight.recovery.window == 2 * window


def test_an_idle_sender_gets_no_larger_window() -> None:
    """§7.8."""
    flight = Flight()
    for turn in range(50):
        flight.send(turn / 10, 2)
        flight.ack(turn / 10 + 0.05, (turn * 2, turn * 2 + 1))
    assert flight.recovery.window == 10 * SIZE


def test_loss_halves_once_a_round_trip_and_then_grows_slowly() -> None:
    flight = Flight()
    recovery = flight.recovery
    flight.send(0.0, 10)
    flight.ack(0.1, (1, 4))  # 0 is lost
    window = recovery.window
    assert flight.owner.lost == [0]
    half = window
    flight.ack(0.11, (9, 9))  # 5 and 6 are lost, too, but were sent before
    assert flight.owner.lost == [0, 5, 6]
    assert recovery.window == half
    assert recovery.window <= (10 + 5) * SIZE // 2
    sent = flight.number
    count = recovery.window // SIZE
    flight.send(0.2, count)
    flight.ack(0.3, (sent, sent + count - 1), (7, 8))
    assert half < recovery.window <= half + SIZE, "congestion avoidance: a packet a round trip"


def test_what_was_sent_before_the_loss_widens_nothing() -> None:
    flight = Flight()
    recovery = flight.recovery
    flight.send(0.0, 10)
    flight.ack(0.1, (3, 3))
    assert flight.owner.lost == [0]
    window = recovery.window
    flight.ack(0.12, (4, 9))
    assert recovery.window == window


def test_the_window_has_bounds() -> None:
    flight = Flight()
    recovery = flight.recovery
    now = 0.0
    for _ in range(14):
        count = recovery.window // SIZE
        first = flight.number
        flight.send(now, count)
        flight.ack(now + 0.1, (first, flight.number - 1))
        now += 0.2
    assert recovery.window == MAX_WINDOW
    for _ in range(20):
        first = flight.number
        flight.send(now, 10)
        flight.ack(now + 0.1, (first + 9, first + 9))
        now += 0.2
    assert recovery.window == 2 * SIZE


def test_persistent_congestion() -> None:
    """§7.6: everything was lost for three probe timeouts: also when probes were among it."""
    flight = Flight()
    recovery = flight.recovery
    flight.send(0.1, 10)
    flight.ack(0.2, (0, 9))
    for turn in range(8):
        flight.send(1.0 + turn, 1)
        recovery.on_timer(1.5 + turn)
    flight.send(9.0, 1)
    assert recovery.window == 20 * SIZE
    flight.ack(9.1, (18, 18))
    assert recovery.window == 2 * SIZE
    assert recovery.lost == 8
    assert recovery.in_flight == SIZE * len(recovery.sent)


def test_no_persistent_congestion_when_one_got_through() -> None:
    flight = Flight()
    recovery = flight.recovery
    flight.send(0.1, 10)
    flight.ack(0.2, (0, 9))
    for turn in range(8):
        flight.send(1.0 + turn, 1)
    flight.send(9.0, 1)
    flight.ack(9.1, (18, 18), (14, 14))
    assert recovery.window > 2 * SIZE


def test_pacing() -> None:
    flight = Flight()
    recovery = flight.recovery
    now = 1000.0
    allowed = recovery.allowance(now)
    assert allowed == 10 * SIZE
    flight.send(now, 5)
    assert recovery.allowance(now) == 5 * SIZE
    flight.send(now, 5)
    assert recovery.allowance(now) == 0
    flight.ack(now + 0.1, (0, 9))
    assert recovery.window == 20 * SIZE
    flight.send(now + 0.1, recovery.allowance(now + 0.1) // SIZE)
    room = recovery.window - recovery.in_flight
    assert room >= 2 * SIZE, "the window would allow more than the pacer"
    delay = recovery.pacing_delay()
    assert GRANULARITY <= delay < 0.1
    assert recovery.allowance(now + 0.1 + delay) >= 2 * SIZE - 1


@given(st.lists(st.tuples(st.floats(0, 0.05), st.integers(0, 3)), max_size=80))
@settings(max_examples=80, deadline=None)
def test_never_more_than_the_window(steps: list[tuple[float, int]]) -> None:
    flight = Flight()
    recovery = flight.recovery
    now = 10.0
    for wait, what in steps:
        now += wait
        if what < 2:
            credit = recovery.allowance(now)
            while credit >= SIZE:
                flight.send(now)
                credit -= SIZE
            assert recovery.in_flight <= recovery.window or recovery.in_flight <= MAX_WINDOW
        elif what == 2 and recovery.sent:
            newest = max(recovery.sent)
            flight.ack(now, (newest, newest))
        elif recovery.timer():
            now = max(now, recovery.timer())
            recovery.on_timer(now)
        assert recovery.in_flight == SIZE * len(recovery.sent)
        assert recovery.window >= 2 * SIZE
        assert list(recovery.sent) == sorted(recovery.sent)


def test_another_address() -> None:
    flight = Flight(rtt=0.3)
    recovery = flight.recovery
    recovery.window = 99 * SIZE
    recovery.moved(0)
    assert recovery.window == 10 * SIZE
    assert recovery.smoothed == INITIAL_RTT
    recovery.sample(0.05, 0.0, 5.0)
    assert recovery.smoothed == 0.05
