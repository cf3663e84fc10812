# One stream: what is to be sent, what has come, and whose turn it is to wait. Nothing here builds a packet.
"""`Stream`: both halves of a QUIC stream (RFC 9000 §2 to §4).

Sending: bytes wait in a queue until a packet takes them; from then on the packet's record holds them until it is
acknowledged (they are gone) or lost (they go first). So nothing is copied, and there is no buffer of sent bytes to trim.
Receiving: bytes in order go straight to the application; what is early waits, bounded by the window, which moves only when
the application says that it has consumed.
"""

from __future__ import annotations

import heapq
from collections import deque
from typing import TYPE_CHECKING

from edgeproxy.quic import varint
from edgeproxy.quic.errors import FINAL_SIZE_ERROR, FLOW_CONTROL_ERROR, PROTOCOL_VIOLATION, TransportError

if TYPE_CHECKING:
    from edgeproxy.quic.connection import Connection

HIGH = 64 * 1024  # bytes queued for a stream before its writer should wait
LOW = 16 * 1024  # bytes queued when it may go on
CONNECTION_HIGH = 512 * 1024  # bytes queued for all streams of a connection before all writers should wait
_JOIN = 64  # pieces that came early after which those that touch are joined
MAX_EARLY = 512  # gaps in what arrived before its turn, on one stream

_STREAM = 0x08
_FIN, _LEN, _OFF = 0x01, 0x02, 0x04
_AGAIN = 4  # packing.AGAIN


class Stream:
    """See the module.

    Attributes:
        id: RFC 9000 §2.1: bit 0 the server's, bit 1 one way.
        app: for the application; the transport does not look at it.
        queued: bytes that no packet has taken yet.
        offset: bytes that packets have taken.
        limit: bytes the peer allows (MAX_STREAM_DATA).
        outstanding: frames in flight.
        received: bytes in order, given to the application.
        highest: the end of what arrived so far, early or not.
        window_end: bytes we allow.
        waiting: the application paused; it is told when the queue is short again.
    """

    __slots__ = (
        "_fin", "_fin_sent", "_final", "_id", "_join_at", "_lost", "_queue", "_stopped", "_told", "_window", "app", "connection",
        "consumed", "early", "fin_received", "highest", "id", "limit", "offset", "outstanding", "queued", "ready", "received",
        "reset_sent", "send_open", "waiting", "window_end", "window_pending",
    )  # fmt: skip

    def __init__(self, connection: Connection, stream_id: int, limit: int, window: int) -> None:
        self.connection: Connection | None = connection
        self.id = stream_id
        self._id = varint.write(stream_id)
        self.app: object = None
        # sending
        self._queue: deque[bytes] = deque()
        self._lost: list[tuple[int, bytes, bool]] = []
        self.queued = 0
        self.offset = 0
        self.limit = limit
        self._told = -1
        self.outstanding = 0
        self._fin = False
        self._fin_sent = False
        self.reset_sent = False
        self.send_open = limit >= 0  # a client's one-way stream has no sending half
        self.ready = False  # in the connection's queue of streams with something to send
        self.waiting = False
        # receiving
        self._window = window
        self.window_end = window
        self.window_pending = False
        self.received = 0
        self.consumed = 0
        self.highest = 0
        self.early: list[tuple[int, bytes]] = []
        self._join_at = _JOIN
        self._final = -1
        self.fin_received = False
        self._stopped = False

    # -- sending ---------------------------------------------------------------------------------------------------

    def send(self, data: bytes, fin: bool) -> None:
        """Queue bytes; `fin` ends our side."""
        if not self.send_open or self._fin or self.reset_sent or self.connection is None:
            return
        if data:
            self._queue.append(data)
            self.queued += len(data)
            self.connection.queued += len(data)
        self._fin = fin
        if not self.ready and (self.offset < self.limit or fin or self._told != self.limit):
            self.connection.wake(self)

    def is_full(self) -> bool:
        """The writer should wait: see `Connection.application.writable`."""
        return self.queued > HIGH or (self.connection is not None and self.connection.queued > CONNECTION_HIGH)

    def blocked_frame(self) -> bytes:
        """STREAM_DATA_BLOCKED, once for each limit; b"" when the peer's window is not what we wait for."""
        if self.offset < self.limit or not self.queued or self._told == self.limit:
            return b""
        self._told = self.limit
        return b"\x15%b%b" % (self._id, varint.write(self.limit))

    def has_frames(self) -> bool:
        """A packet could take something now, as far as this stream's window goes."""
        if self._lost:
            return True
        if self.reset_sent:
            return False
        return (self.queued > 0 and self.offset < self.limit) or (self._fin and not self._fin_sent and not self.queued)

    def take(self, room: int, credit: int) -> tuple[bytes, bytes, int, bool] | None:
        """A STREAM frame of at most `room` bytes with at most `credit` new bytes.

        Returns: (frame header, content, offset of the content, fin), None when nothing fits or there is nothing.
        """
        if self._lost:
            return self._take_lost(room)
        if self.reset_sent:
            return None
        offset = self.offset
        overhead = 3 + len(self._id) + (8 if offset > 0x3FFFFFFF else 4 if offset > 0x3FFF else 2 if offset else 0)
        room -= overhead
        if room < 0:
            return None
        size = min(room, credit, self.limit - offset, self.queued)
        if size <= 0:
            if self.queued or not self._fin or self._fin_sent:
                return None
            content = b""
        else:
            content = self._cut(size)
            self.queued -= size
            self.offset = offset + size
            connection = self.connection
            assert connection is not None
            connection.queued -= size
            connection.data_sent += size
        fin = self._fin and not self.queued
        self._fin_sent = fin
        self.outstanding += 1
        return self._header(offset, len(content), fin), content, offset, fin

    def _cut(self, size: int) -> bytes:
        queue = self._queue
        first = queue[0]
        have = len(first)
        if have == size:
            return queue.popleft()
        if have > size:
            queue[0] = memoryview(first)[size:]  # type: ignore[assignment]  # bytes or a view of them: sliced once per packet
            return first[:size]
        parts = []
        while size:
            first = queue[0]
            have = len(first)
            if have > size:
                queue[0] = memoryview(first)[size:]  # type: ignore[assignment]  # as above
                parts.append(first[:size])
                break
            parts.append(queue.popleft())
            size -= have
        return b"".join(parts)

    def _take_lost(self, room: int) -> tuple[bytes, bytes, int, bool] | None:
        """Lost bytes first. They are within every window, since they were sent before."""
        offset, content, fin = self._lost[-1]
        room -= 3 + len(self._id) + (8 if offset > 0x3FFFFFFF else 4 if offset > 0x3FFF else 2 if offset else 0)
        if room < 0 or (room == 0 and content):
            return None
        self._lost.pop()
        if len(content) > room:
            self._lost.append((offset + room, content[room:], fin))
            content, fin = content[:room], False
        self.outstanding += 1
        return self._header(offset, len(content), fin), content, offset, fin

    def _header(self, offset: int, size: int, fin: bool) -> bytes:
        kind = _STREAM | _LEN | (_FIN if fin else 0)
        length = (size | 0x4000).to_bytes(2, "big")
        if not offset:
            return b"%c%b%b" % (kind, self._id, length)
        return b"%c%b%b%b" % (kind | _OFF, self._id, varint.write(offset), length)

    # Records in packets: STREAM has offset, content, fin; RESET_STREAM -1 and the frame; MAX_STREAM_DATA -2.

    def on_acked(self, a: int, b: bytes, c: bool) -> None:
        """The peer has a frame."""
        del b, c
        if a == -2:
            return
        self.outstanding -= 1
        # RFC 9000 §3.1: an acknowledged reset is the end, whatever became of the frames before it.
        if a < 0 or (self._fin_sent and not self.outstanding and not self._lost):
            self.send_open = False
            if self.connection is not None:
                self.connection.finished(self)

    def on_lost(self, a: int, b: bytes, c: bool) -> None:
        """A packet with a frame of ours is gone."""
        connection = self.connection
        if connection is None:
            return
        if a == -2:
            if not self.window_pending and not self.fin_received:
                self.window_pending = True
                connection.windows.append(self)
            return
        self.outstanding -= 1
        if a < 0:
            self.outstanding += 1
            connection.control.append((b, self, -1))
        elif not self.reset_sent:
            self._lost.append((a, b, c))
            if not self.ready:
                connection.wake(self)

    def reset(self, code: int) -> None:
        """End our side abruptly (RESET_STREAM); what waits is dropped."""
        connection = self.connection
        if connection is None or not self.send_open or self.reset_sent:
            return
        self.reset_sent = True
        connection.starved.pop(self.id, None)
        connection.queued -= self.queued
        self.queued = 0
        self._queue.clear()
        self._lost.clear()
        connection.starved.pop(self.id, None)  # it waits for nothing any more
        self.outstanding += 1
        frame = b"\x04%b%b%b" % (self._id, varint.write(code), varint.write(self.offset))
        connection.control.append((frame, self, -1))
        connection.mark()

    # -- receiving -------------------------------------------------------------------------------------------------

    def accept(self, offset: int, data: bytes, fin: bool) -> None:
        """A STREAM frame. Raises TransportError when it breaks the window or the final size."""
        end = offset + len(data)
        self._grow(end, fin)
        if self.fin_received:
            return
        if offset != self.received or self.early:
            if end > self.received or fin:
                self._early(offset, data)
            return
        self.received = end
        if end == self._final:
            self.fin_received = True
        if data or self.fin_received:
            self._deliver(data, self.fin_received)

    def _grow(self, end: int, fin: bool) -> None:
        """Account for bytes up to `end`."""
        if self._final >= 0 and (end > self._final or (fin and end != self._final)):
            raise TransportError(FINAL_SIZE_ERROR, "data beyond the final size", _STREAM)
        if fin:
            if end < self.highest:
                raise TransportError(FINAL_SIZE_ERROR, "the final size is less than what was received", _STREAM)
            self._final = end
        more = end - self.highest
        if more > 0:
            connection = self.connection
            assert connection is not None
            if end > self.window_end or connection.data_received + more > connection.data_allowed:
                raise TransportError(FLOW_CONTROL_ERROR, "more data than the window allows", _STREAM)
            self.highest = end
            connection.data_received += more
            if connection.data_allowed - connection.data_received < connection.low:
                connection.widen()

    def _early(self, offset: int, data: bytes) -> None:
        """Something that is not next, or that comes while something else is: sort it in and give out what is next."""
        if data:
            early = self.early
            heapq.heappush(early, (offset, data))
            if len(early) >= self._join_at:
                self._join()
        early = self.early
        parts = []
        received = self.received
        while early and early[0][0] <= received:
            offset, data = heapq.heappop(early)
            if offset + len(data) > received:
                parts.append(data[received - offset :] if offset < received else data)
                received = offset + len(data)
        self.received = received
        if received == self._final:
            self.fin_received = True
        if parts or self.fin_received:
            self._deliver(b"".join(parts), self.fin_received)

    def _join(self) -> None:
        """Join pieces that touch or overlap: bytes sent twice must not be held twice, the window does not count them."""
        joined: list[tuple[int, bytes]] = []
        parts: list[bytes] = []
        start = end = -1
        for offset, data in sorted(self.early):
            if offset > end or not parts:
                if parts:
                    joined.append((start, b"".join(parts)))
                parts = [data]
                start, end = offset, offset + len(data)
            elif offset + len(data) > end:
                parts.append(data[end - offset :])
                end = offset + len(data)
        joined.append((start, b"".join(parts)))
        if len(joined) >= MAX_EARLY:
            raise TransportError(PROTOCOL_VIOLATION, "a stream in too many pieces", _STREAM)
        self.early = joined  # in order, so a heap
        self._join_at = max(_JOIN, 2 * len(joined))  # each piece pays for one look at it, however often it is sent again

    def _deliver(self, data: bytes, fin: bool) -> None:
        connection = self.connection
        if connection is None:
            return
        if self._stopped:
            self.consume(len(data))
        else:
            connection.application.stream_data(self, data, fin)
        if fin and not self.send_open:
            connection.finished(self)  # last: the application must still know the stream

    def accept_reset(self, code: int, final: int) -> None:
        """A RESET_STREAM frame."""
        self._grow(final, True)
        if self.fin_received:
            return
        self.fin_received = True
        self.early.clear()
        connection = self.connection
        assert connection is not None
        connection.consume(final - self.consumed)
        self.consumed = final
        connection.application.stream_reset(self, code)
        if not self.send_open:
            connection.finished(self)

    def consume(self, size: int) -> None:
        """The application is done with bytes: the peer may send as many more."""
        connection = self.connection
        size = min(size, self.highest - self.consumed)
        if size <= 0 or connection is None:
            return
        self.consumed += size
        connection.consume(size)
        # No window for what is thrown away: whoever ignores that we do not want it comes to an end.
        wanted = not (self.fin_received or self._stopped or self._final >= 0)
        if wanted and self.window_end - self.consumed < self._window >> 1:
            self.window_end = self.consumed + self._window
            if not self.window_pending:
                self.window_pending = True
                connection.windows.append(self)
                connection.mark()

    def stop(self, code: int) -> None:
        """Ask the peer to stop sending (STOP_SENDING); what still comes is thrown away."""
        connection = self.connection
        if connection is None or self.fin_received or self._stopped:
            return
        self._stopped = True
        waiting = self.received - self.consumed
        self.consume(waiting)
        frame = b"\x05%b%b" % (self._id, varint.write(code))
        connection.control.append((frame, connection, _AGAIN))
        connection.mark()

    @property
    def is_over(self) -> bool:
        """Neither side has anything left to send."""
        return not self.send_open and self.fin_received

    def window_frame(self) -> bytes:
        """MAX_STREAM_DATA."""
        self.window_pending = False
        return b"\x11%b%b" % (self._id, varint.write(self.window_end))
