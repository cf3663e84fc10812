# Loss detection and congestion control (RFC 9002): what is in flight, what is lost, how much more may go.
"""`Recovery` for the 1-RTT packet number space: NewReno with pacing, RTT estimation and probe timeouts."""

from __future__ import annotations

from typing import Protocol

PACKET_THRESHOLD = 3
GRANULARITY = 0.001  # seconds, kGranularity
MAX_WINDOW = 4 * 1024 * 1024  # bytes: what a client that acknowledges but never takes may hold of our memory
MAX_PTO_COUNT = 10
INITIAL_RTT = 0.1  # seconds
SMALLEST = 1200  # bytes of datagram every path takes (RFC 9000 §14)
MAX_HOLES = 4  # in a row: then it is their size (RFC 8899 §4.3)
BURST = 0.004  # seconds of sending that may go at once: timers have a resolution of a millisecond


class Owner(Protocol):
    """Who wants to know what became of a frame."""

    def on_acked(self, a: int, b: bytes, c: bool) -> None:
        """The peer has it."""

    def on_lost(self, a: int, b: bytes, c: bool) -> None:
        """It has to be sent again, if it still matters."""


Record = tuple[Owner, int, bytes, bool]
Sent = tuple[float, int, list[Record]]
"""Time, size in bytes and frames of a packet that asks for an acknowledgment."""


class Recovery:
    """See the module. All times are seconds on the loop's clock.

    Attributes:
        sent: packets in flight by number, in order.
        in_flight: their bytes.
        window: bytes that may be in flight.
        loss_at: when the oldest gap becomes a loss; 0.0 for never.
        size: bytes of a full packet.
        probes: packets that must go out whatever the window says.
        holes: times in a row that larger datagrams than every path takes were missed, and none of them was acknowledged.
        lost, probed: packets lost, and sent as probes, so far.
    """

    __slots__ = (
        "_ack_delay",
        "_budget",
        "_budget_at",
        "_first_sample",
        "_largest_acked",
        "_minimum",
        "_recovery_start",
        "_since",
        "_stash",
        "_threshold",
        "ack_delay_exponent",
        "holes",
        "in_flight",
        "last_sent",
        "latest",
        "loss_at",
        "lost",
        "probed",
        "probes",
        "pto_count",
        "sent",
        "size",
        "smoothed",
        "variance",
        "window",
    )  # fmt: skip

    def __init__(self, size: int) -> None:
        self.size = size
        self.sent: dict[int, Sent] = {}
        self.in_flight = 0
        self.window = 10 * size
        self._threshold = 1 << 62  # slow start below it
        self._recovery_start = -1.0
        self._stash = 0
        self.smoothed = INITIAL_RTT
        self.variance = INITIAL_RTT / 2
        self.latest = 0.0
        self._minimum = 0.0
        self._first_sample = 0.0
        self._ack_delay = 0.025
        self.ack_delay_exponent = 3
        self._largest_acked = -1
        self._since = 0
        self.loss_at = 0.0
        self.last_sent = 0.0
        self.pto_count = 0
        self.probes = 0
        self.probed = 0
        self.lost = 0
        self.holes = 0
        self._budget = float(self.window)
        self._budget_at = 0.0

    def configure(self, ack_delay: float, exponent: int) -> None:
        """The peer's transport parameters max_ack_delay (seconds) and ack_delay_exponent."""
        self._ack_delay = ack_delay
        self.ack_delay_exponent = exponent

    # -- sending ---------------------------------------------------------------------------------------------------

    def allowance(self, now: float) -> int:
        """Bytes that may go now."""
        room = self.window - self.in_flight
        rate = self.window * 1.25 / self.smoothed  # RFC 9002 §7.7
        most = max(10 * self.size, rate * BURST)
        self._budget = min(most, self._budget + rate * (now - self._budget_at))
        self._budget_at = now
        return min(room, int(self._budget))

    def pacing_delay(self) -> float:
        """Seconds until the pacer lets a few packets go again."""
        wanted = 2 * self.size - self._budget
        return max(wanted * self.smoothed / (self.window * 1.25), GRANULARITY)

    def on_sent(self, number: int, now: float, size: int, frames: list[Record]) -> None:
        """A packet that asks for an acknowledgment went out."""
        self.sent[number] = (now, size, frames)
        self.in_flight += size
        self._budget -= size
        self.last_sent = now

    # -- acknowledgments -------------------------------------------------------------------------------------------

    def on_ack(self, ranges: list[tuple[int, int]], delay: float, now: float) -> None:
        """An ACK frame.

        Args:
            ranges: (lowest, highest) pairs, the highest first.
            delay: the peer's delay in seconds, not yet bounded.
        """
        sent = self.sent
        lowest, largest = ranges[0]
        before, self._largest_acked = self._largest_acked, max(self._largest_acked, largest)
        acked: list[int] = []
        if len(ranges) == 1:
            for number in sent:
                if number > largest:
                    break
                if number >= lowest:
                    acked.append(number)
        else:
            at = len(ranges) - 1
            for number in sent:
                if number > largest:
                    break
                while number > ranges[at][1]:
                    at -= 1
                if number >= ranges[at][0]:
                    acked.append(number)
        if not acked:
            # A packet that nobody keeps, with acknowledgments alone: it tells what got lost before it (RFC 9002 §6.1) as any
            # other does. And what is lost is not looked through again with each ACK that says nothing new.
            if sent and largest > before:
                self.detect(now)
            return
        if self.holes and any(sent[number][1] > SMALLEST for number in acked):
            self.holes = 0
        limited = self.in_flight * 2 >= self.window
        newest = 0.0
        for number in acked:
            newest, size, frames = sent.pop(number)
            self.in_flight -= size
            if limited and newest > self._recovery_start and number >= self._since:
                self._widen(size)
            for owner, a, b, c in frames:
                owner.on_acked(a, b, c)
        if acked[-1] == largest and largest >= self._since:
            self.sample(now - newest, delay, now)
        self.pto_count = 0
        self.loss_at = 0.0
        if sent and next(iter(sent)) < self._largest_acked:
            self.detect(now)

    def _widen(self, size: int) -> None:
        if self.window < self._threshold:
            self.window = min(self.window + size, MAX_WINDOW)
            return
        self._stash += size
        if self._stash >= self.window:
            self._stash -= self.window
            self.window = min(self.window + self.size, MAX_WINDOW)

    def sample(self, latest: float, delay: float, now: float) -> None:
        """A measured round trip (RFC 9002 §5), all in seconds. `delay`: the peer's own share of it."""
        latest = max(latest, 0.00001)
        if not self.latest:
            self._minimum = self.smoothed = latest
            self.variance = latest / 2
            self._first_sample = now
        else:
            self._minimum = min(self._minimum, latest)
            delay = min(delay, self._ack_delay)
            adjusted = latest - delay if latest >= self._minimum + delay else latest
            self.variance += (abs(self.smoothed - adjusted) - self.variance) / 4
            self.smoothed += (adjusted - self.smoothed) / 8
        self.latest = latest

    # -- loss ------------------------------------------------------------------------------------------------------

    def detect(self, now: float) -> None:
        """Declare lost what is too far behind the newest acknowledged packet (RFC 9002 §6.1)."""
        delay = max(1.125 * max(self.latest, self.smoothed), GRANULARITY)
        before = now - delay
        behind = self._largest_acked - PACKET_THRESHOLD
        lost: list[int] = []
        self.loss_at = 0.0
        for number, packet in self.sent.items():
            if number > self._largest_acked:
                break
            if number <= behind or packet[0] <= before:
                lost.append(number)
            else:
                self.loss_at = packet[0] + delay
                break
        if lost:
            self._lose(lost, now)

    def _lose(self, numbers: list[int], now: float) -> None:
        self.lost += len(numbers)
        first = newest = 0.0
        largest = 0
        for number in numbers:
            at, size, frames = self.sent.pop(number)
            first = first or at
            largest = max(largest, size)
            if size:  # a probe of the path's size has none: its loss says nothing about congestion (RFC 8899 §3)
                newest = at
                self.in_flight -= size
            for owner, a, b, c in frames:
                owner.on_lost(a, b, c)
        if largest > SMALLEST:
            self.holes += 1
        if newest > self._recovery_start:
            self._recovery_start = now
            self.window = max(self.window // 2, 2 * self.size)
            self._threshold = self.window
            self._stash = 0
        # RFC 9002 §7.6: everything that was sent for a long time is gone. A gap in numbers was acknowledged.
        span = numbers[-1] - numbers[0] + 1 == len(numbers) and first > self._first_sample > 0.0
        if span and newest - first > 3 * (self.pto() + self._ack_delay):
            self.window = 2 * self.size
            self._recovery_start = -1.0

    def pto(self) -> float:
        """The probe timeout without the peer's acknowledgment delay and without backoff, in seconds."""
        return self.smoothed + max(4 * self.variance, GRANULARITY)

    def timer(self) -> float:
        """When `on_timer` wants to be called; 0.0 for never."""
        if self.loss_at:
            return self.loss_at
        if self.in_flight:
            return self.last_sent + (self.pto() + self._ack_delay) * (1 << self.pto_count)
        return 0.0

    def on_timer(self, now: float) -> None:
        """The time came: lost packets, or a probe (RFC 9002 §6.2)."""
        if self.loss_at:
            self.detect(now)
            return
        self.pto_count = min(self.pto_count + 1, MAX_PTO_COUNT)
        self.probes = 2
        self.probed += 2
        # What the oldest packets carried goes again, so that a probe is worth something. The packets stay in flight: a probe
        # timeout does not say that they are lost (§6.2), and if they are, the window must learn of it (§7.6).
        worth = [number for number, packet in self.sent.items() if packet[2]][:2]
        if any(self.sent[number][1] > SMALLEST for number in worth):
            self.holes += 1
        for number in worth:
            at, size, frames = self.sent[number]
            self.sent[number] = (at, size, [])
            for owner, a, b, c in frames:
                owner.on_lost(a, b, c)

    def moved(self, number: int) -> None:
        """The peer has another address: what was measured on the way to the last one counts no more (RFC 9000 §9.4).

        Args:
            number: of the next packet; what was sent before went the old way.
        """
        self._since = number
        self.window = 10 * self.size
        self._threshold = 1 << 62
        self.smoothed, self.variance, self.latest = INITIAL_RTT, INITIAL_RTT / 2, 0.0
        self._budget = float(self.window)
