# A connection from the end of its handshake on: packets in, packets out. Frames are read in frames.py, paths in paths.py.
"""`Connection`: 1-RTT packets of one client (RFC 9000 §12, §13).

Written for the cost per packet: one pass over the frames of a packet, one pass to fill one, no object per frame. Packets go
out once per turn of the loop (`transmit`), whatever happened in it, and acknowledgments ride on them.
"""

from __future__ import annotations

import os
import secrets
from collections import deque
from typing import TYPE_CHECKING

from edgeproxy.quic import varint
from edgeproxy.quic.closing import Closing
from edgeproxy.quic.errors import (
    AEAD_LIMIT_REACHED,
    FRAME_ENCODING_ERROR,
    KEY_UPDATE_ERROR,
    PROTOCOL_VIOLATION,
    TransportError,
)  # fmt: skip
from edgeproxy.quic.frames import read_frames
from edgeproxy.quic.headers import long_headers
from edgeproxy.quic.packing import AGAIN, MAX_DATA, ONCE, SIZE, fill, probe_size
from edgeproxy.quic.paths import Paths
from edgeproxy.quic.protection import FORGERY_LIMIT, SHORTEST, TAG
from edgeproxy.quic.received import Received
from edgeproxy.quic.recovery import GRANULARITY, MAX_HOLES, SMALLEST, Record, Recovery

if TYPE_CHECKING:
    from edgeproxy.quic.contracts import Application, Host
    from edgeproxy.quic.established import Established, Limits
    from edgeproxy.quic.recovery import Owner
    from edgeproxy.quic.streams import Stream

ACK_EVERY = 10  # packets after which it waits no more
SKIP_EVERY = 300  # packets, at least, between two numbers that are left out
_SMALLEST_ROOM = 64  # bytes for frames without which a packet is not begun
MAX_BURST = 64  # packets in one go: others want to send, too



class Connection(Closing):
    """See the module.

    Attributes:
        next_number: of our next packet.
        skipped: the last number that was left out, -1 before.
        queue: streams with something to send, in turn.
        starved: by id, streams that wait for the connection's window.
        told: limit of our last DATA_BLOCKED.
        queued: bytes that wait in streams.
        data_sent, data_limit: connection flow control towards the peer, in bytes.
        data_received, data_allowed, data_consumed: and from it; with less than `low` left, every bit counts.
        control: (frame, owner, a) of frames that are not STREAM frames.
        windows: streams whose window has moved.
        heard: when the last authentic packet came.
        noise: frames since something useful came.
        marked: `Host.wake` was called since the last `transmit`.
        spins: mask of the spin bit, 0 when it is not sent back.
        soon: when `on_timer` wants to be called for something that can't wait for the probe timeout, 0.0 for never.
        watched: the application wants a `transmit` after each acknowledgment.
    """

    __slots__ = (
        "_ack_now", "_skip_at", "_unacked", "_window", "application", "control", "data_allowed", "data_consumed",
        "data_limit", "data_received", "data_sent", "heard", "host", "limits", "low", "marked", "max_data_pending",
        "next_number", "noise", "paths", "protection", "queue", "queued", "received", "recovery", "skipped", "soon",
        "spin", "spins", "starved", "streams", "told", "watched", "windows",
    )  # fmt: skip

    application: Application

    def __init__(self, host: Host, made: Established, limits: Limits, now: float) -> None:
        super().__init__()
        self.host = host
        self.limits = limits
        self.protection = made.protection
        self.received = Received()
        self.recovery = Recovery(1200)
        self.recovery.configure(made.max_ack_delay, made.ack_delay_exponent)
        if made.rtt:
            self.recovery.sample(made.rtt, 0.0, now)
        self.paths = Paths(self, made)
        self.streams = limits.streams(made)
        self.control: deque[tuple[bytes, Owner, int]] = deque()
        self.windows: list[Stream] = []
        self.queue: deque[Stream] = deque()
        self.starved: dict[int, Stream] = {}
        self.told = -1
        self.next_number = made.next_number
        self.skipped = -1
        self._skip_at = self.next_number + SKIP_EVERY
        self.queued = 0
        self.data_sent = 0
        self.data_limit = made.max_data
        self._window = limits.connection_window
        self.data_received = self.data_consumed = 0
        self.data_allowed = self._window
        self.low = self._window >> 2
        self.max_data_pending = False
        self._unacked = 0
        self._ack_now = False
        self.spin = 0
        self.spins = 0x20 if os.urandom(1)[0] & 0x0F else 0  # RFC 9000 §17.4: one in sixteen must not
        self.heard = now
        self.noise = 0
        self.marked = False
        self.soon = 0.0
        self.watched = False
        self.control.append((b"\x1e", self, AGAIN))  # HANDSHAKE_DONE
        tickets = made.tickets
        for at in range(0, len(tickets), 1000):
            piece = tickets[at : at + 1000]
            self.control.append((b"\x06%b%b%b" % (varint.write(at), varint.write(len(piece)), piece), self, AGAIN))
        self.paths.introduce(made.active_ids)

    # -- packets in ------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, address: tuple[str, int], now: float) -> None:
        """A datagram for one of our ids."""
        if data[0] & 0x80:
            # Late handshake packets: they say nothing new, but what follows them may (RFC 9000 §12.2).
            data = data[long_headers(data) :]
            if not data:
                return
        if data[0] & 0xC0 != 0x40 or len(data) < SHORTEST:  # RFC 9000 §17.3.1: without the fixed bit it is no packet
            return
        if self.state:
            self.answer(address)
            return
        received = self.received
        expected = received.expected
        opened = self.protection.open(data, expected)
        if opened is None:
            self._forged()
            return
        first, number, payload = opened
        if not received.add(number, now):
            return
        if first & 0x18:
            self.fail(TransportError(PROTOCOL_VIOLATION, "reserved bits are set"))
            return
        newest = number >= expected
        paths = self.paths
        paths.arrived(data, address)
        if newest:
            self.spin = first & self.spins
        self.heard = now
        try:
            eliciting, probing = read_frames(self, payload, now)
            if self.state:
                return
            if paths.other is not None:
                paths.settle(newest=newest, probing=probing, now=now)
        except TransportError as error:
            self.fail(error)
            return
        except IndexError:
            self.fail(TransportError(FRAME_ENCODING_ERROR, "a frame ends early"))
            return
        if eliciting:
            self._unacked += 1
            if self._unacked >= ACK_EVERY or number != expected:
                self._ack_now = True
                self.mark()
            elif self._unacked == 1:
                self.host.acknowledge_later(self)

    def _forged(self) -> None:
        if self.protection.violated:
            self.fail(TransportError(KEY_UPDATE_ERROR, "back to old keys"))
        elif self.protection.forged >= FORGERY_LIMIT:
            self.fail(TransportError(AEAD_LIMIT_REACHED, "too many packets failed authentication"))

    # -- streams ---------------------------------------------------------------------------------------------------

    def wake(self, stream: Stream) -> None:
        """A stream has something to send."""
        stream.ready = True
        self.queue.append(stream)
        self.mark()

    def mark(self) -> None:
        """Something is to be sent, or a timer changed."""
        if not self.marked:
            self.marked = True
            self.host.wake(self)

    def consume(self, size: int) -> None:
        """Bytes of some stream were consumed: the connection's window follows."""
        self.data_consumed += size
        window = self._window
        if self.data_allowed - self.data_consumed < window >> 1 or self.data_allowed - self.data_received < window >> 2:
            self.widen()

    def widen(self) -> None:
        """Allow what may be allowed. Also when the credit runs low: streams that nobody reads may hold half of it for ever."""
        allowed = self.data_consumed + self._window
        if allowed > self.data_allowed:
            self.data_allowed = allowed
            if not self.max_data_pending:
                self.max_data_pending = True
                self.mark()

    def finished(self, stream: Stream) -> None:
        """A side of a stream is complete."""
        if stream.is_over:
            self.streams.close(stream)

    def open_one_way(self) -> Stream:
        """A new stream of ours, one way. The peer allows at least three (RFC 9114 §6.2), which `established` checked."""
        return self.streams.open(self)

    # -- packets out -----------------------------------------------------------------------------------------------

    def transmit(self, now: float) -> list[bytes]:
        """Everything that may be sent now on the current path, as datagrams."""
        self.marked = False
        out: list[bytes] = []
        if self.state:
            return out
        paths, recovery = self.paths, self.recovery
        if self.data_sent >= paths.probe_at:
            probe_size(self, now)
        credit = recovery.allowance(now)
        pace = False
        for _ in range(MAX_BURST):
            size = min(paths.size, paths.allowance())
            room = size - 3 - len(paths.peer_id) - TAG
            if room < _SMALLEST_ROOM:
                break
            records: list[Record] = []
            parts: list[bytes] = []
            free = credit >= size or recovery.probes > 0
            if self._unacked and (self._ack_now or (free and self.has_frames())):
                frame = self.received.frame(now)
                parts.append(frame)
                room -= len(frame)
                acknowledged = self.received.expected - 1
                self._unacked = 0
                self._ack_now = False
            else:
                acknowledged = -1
            if free:
                fill(self, parts, records, room)
                if self.state:
                    return out
                if not records and recovery.probes:
                    parts.append(b"\x01")
                    records.append((self, AGAIN, b"\x01", False))
            elif self.has_frames():
                pace = recovery.window - recovery.in_flight >= size
            if not parts:
                break
            if acknowledged >= 0 and records:
                records.append((self.received, acknowledged, b"", False))
            datagram = self._packet(b"".join(parts), records, size, now)
            out.append(datagram)
            if not records:
                break
            credit -= len(datagram)
        else:
            self.mark()
        soon = now + recovery.pacing_delay() if pace else 0.0
        lost = recovery.loss_at
        self.soon = min(soon, lost) if soon and lost else soon or lost
        return out

    def _packet(self, payload: bytes, records: list[Record], size: int, now: float) -> bytes:
        """A packet of at most `size` bytes for the current path, and what is to be remembered of it."""
        paths = self.paths
        if paths.expand and records:
            paths.expand = False
            payload = payload.ljust(min(SMALLEST, size) - 3 - len(paths.peer_id) - TAG, b"\0")
        datagram = self.seal(payload)
        if records:
            recovery = self.recovery
            recovery.on_sent(self.next_number, now, len(datagram), records)
            if recovery.probes:
                recovery.probes -= 1
        self.next_number += 1
        if self.next_number >= self._skip_at:
            self._skip()
        paths.sent(len(datagram))
        return datagram

    def seal_alone(self, payload: bytes, name: bytes) -> bytes:
        """A packet of its own, for another path and under another name of the peer; it is not repeated."""
        datagram = self.protection.seal(name, self.next_number, payload, 0)
        self.next_number += 1
        return datagram

    def _skip(self) -> None:
        """Leave a number out now and then: who acknowledges it lies about what it got (RFC 9000 §21.4)."""
        self.skipped = self.next_number
        self.next_number += 1
        self._skip_at = self.next_number + SKIP_EVERY + secrets.randbelow(SKIP_EVERY)

    def seal(self, payload: bytes) -> bytes:
        """A packet with the next number for the current path."""
        if len(payload) < 2:
            payload += b"\0"
        protection = self.protection
        if protection.is_worn:
            protection.update()
        return protection.seal(self.paths.peer_id, self.next_number, payload, self.spin)

    def has_frames(self) -> bool:
        """There is something to send but acknowledgments; it may have to wait for window."""
        return bool(self.queue or self.control or self.windows or self.max_data_pending or self.streams.raised)

    # Records of our own frames, see packing.py: what gets lost is said again, limits with the value of then.

    def on_acked(self, a: int, b: bytes, c: bool) -> None:
        """Nothing follows, but for a probe of the path."""
        del c
        if a == SIZE and b == b"%d" % self.paths.moves:  # for the path we are still on
            self.paths.size = self.recovery.size = self.limits.max_datagram

    def on_lost(self, a: int, b: bytes, c: bool) -> None:
        """Say it again."""
        del c
        if a == MAX_DATA:
            self.max_data_pending = True
        elif a < MAX_DATA:
            self.streams.repeat(a)
        elif a == AGAIN and self.paths.is_due(b):
            self.control.append((b, self, a))

    # -- time ------------------------------------------------------------------------------------------------------

    def timer_at(self) -> float:
        """When `on_timer` wants to be called, 0.0 for never. It only ever moves back, but for `soon`."""
        at = 0.0
        # At the amplification limit only a packet from there lets us go on: no timer may (RFC 9002 §6.2.2.1).
        if self.paths.allowance() - 3 - len(self.paths.peer_id) - TAG >= _SMALLEST_ROOM:
            at = self.recovery.timer()
        for other in (self.soon, self.paths.until):
            if other and (not at or other < at):
                at = other
        return at

    def acknowledge(self) -> None:
        """What was promised to be acknowledged later: now."""
        if self._unacked and not self.state:
            self._ack_now = True
            self.mark()

    def on_timer(self, now: float) -> None:
        """The time has come. `transmit` must follow."""
        if self.state:
            return
        self.soon = 0.0
        now += GRANULARITY / 2
        recovery = self.recovery
        at = recovery.timer()
        if at and now >= at:
            recovery.on_timer(now)
            if recovery.holes >= MAX_HOLES:
                self.paths.shrink()
        until = self.paths.until
        if until and now >= until:
            self.paths.give_up()

    # -- the end: see closing.py -----------------------------------------------------------------------------------

    def _farewell(self, frame: bytes) -> bytes:
        return self.seal_alone(frame, self.paths.peer_id)

    def _release(self, reason: str) -> None:
        self.queue.clear()
        self.starved.clear()
        self.control.clear()
        self.windows.clear()
        self.recovery.sent.clear()
        self.soon = 0.0
        streams = list(self.streams.by_id.values())
        self.streams.clear()
        application = self.application
        del self.application  # it holds us, and so do the next two: the cycles end here
        self.paths.clear()
        self.host.over(self)
        application.closed(reason, streams)

    def ping(self) -> None:
        """Ask for a sign of life."""
        if not self.state:
            self.control.append((b"\x01", self, ONCE))
            self.mark()

    def _repeat_farewell(self, address: tuple[str, int]) -> None:
        if address == self.paths.address:
            self.host.wake(self)
