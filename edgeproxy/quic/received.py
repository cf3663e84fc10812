# Which packet numbers arrived, and the ACK frame that says so (RFC 9000 §13.2, §19.3).
"""`Received`: duplicate detection and acknowledgment ranges of the 1-RTT packet number space."""

from __future__ import annotations

from edgeproxy.quic import varint

MAX_RANGES = 32  # what is remembered of gaps; older packets count as received


class Received:
    """Ranges of packet numbers, the newest last, each `[first, last]`.

    Attributes:
        expected: one more than the highest number received.
        newest_at: when that one arrived.
    """

    __slots__ = ("_floor", "_ranges", "expected", "newest_at")

    def __init__(self) -> None:
        self._ranges: list[list[int]] = []
        self._floor = 0  # everything below counts as received
        self.expected = 0
        self.newest_at = 0.0

    def add(self, number: int, now: float) -> bool:
        """Note a packet. False when it was received before, or is too old to tell."""
        ranges = self._ranges
        if number == self.expected:
            if ranges:
                ranges[-1][1] = number
            else:
                ranges.append([number, number])
            self.expected = number + 1
            self.newest_at = now
            return True
        if number > self.expected:
            ranges.append([number, number])
            self.expected = number + 1
            self.newest_at = now
            if len(ranges) > MAX_RANGES:
                self._floor = ranges.pop(0)[1] + 1
            return True
        return self._late(number)

    def _late(self, number: int) -> bool:
        """A packet that fills a gap, or a duplicate."""
        if number < self._floor:
            return False
        ranges = self._ranges
        for index in range(len(ranges) - 1, -1, -1):
            first, last = ranges[index]
            if number > last:
                if index + 1 < len(ranges) and ranges[index + 1][0] == number + 1:
                    if number == last + 1:
                        ranges[index][1] = ranges.pop(index + 1)[1]
                    else:
                        ranges[index + 1][0] = number
                elif number == last + 1:
                    ranges[index][1] = number
                else:
                    self._insert(index + 1, number)
                return True
            if number >= first:
                return False
        if ranges and ranges[0][0] == number + 1:
            ranges[0][0] = number
        else:
            self._insert(0, number)
        return True

    def _insert(self, index: int, number: int) -> None:
        self._ranges.insert(index, [number, number])
        if len(self._ranges) > MAX_RANGES:
            self._floor = self._ranges.pop(0)[1] + 1

    def frame(self, now: float) -> bytes:
        """An ACK frame for everything remembered. The delay's exponent is 3, the default."""
        ranges = self._ranges
        first, last = ranges[-1]
        delay = int((now - self.newest_at) * 1000000) >> 3
        write = varint.write
        count = len(ranges) - 1
        if not count:
            return b"\x02%b%b\0%b" % (write(last), write(max(delay, 0)), write(last - first))
        parts = [b"\x02", write(last), write(max(delay, 0)), write(count), write(last - first)]
        for index in range(count - 1, -1, -1):
            low, high = ranges[index]
            parts.append(write(first - high - 2))
            parts.append(write(high - low))
            first = low
        return b"".join(parts)

    # An ACK frame of ours is a record of the packet that carried it: `a` is the highest number it acknowledged.

    def on_acked(self, a: int, b: object, c: object) -> None:
        """The peer knows that we have everything up to `a`: no need to say it again (RFC 9000 §13.2.4)."""
        del b, c
        ranges = self._ranges
        while len(ranges) > 1 and ranges[0][1] <= a:
            self._floor = ranges.pop(0)[1] + 1

    def on_lost(self, a: int, b: object, c: object) -> None:
        """The next ACK says it all again."""
