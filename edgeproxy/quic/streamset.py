# Which streams there are and which may come (RFC 9000 §2.1, §4.6). The client opens requests; we open one-way streams only.
"""`Streams`: the streams of one connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.quic import varint
from edgeproxy.quic.errors import STREAM_LIMIT_ERROR, STREAM_STATE_ERROR, TransportError
from edgeproxy.quic.streams import Stream

if TYPE_CHECKING:
    from edgeproxy.quic.connection import Connection
    from edgeproxy.quic.established import Established

_TWO_WAY, _ONE_WAY = 0, 1  # index of both kinds of a client's streams; also the record kind of MAX_STREAMS


class Streams:
    """See the module.

    Attributes:
        by_id: the streams that are not over.
        raised: there is a MAX_STREAMS frame to send.
    """

    __slots__ = (
        "_allowed", "_announced", "_closed", "_due", "_limits", "_most", "_next", "_opened", "_unseen", "_windows", "by_id",
        "raised",
    )  # fmt: skip

    def __init__(self, made: Established, most: tuple[int, int], windows: tuple[int, int]) -> None:
        """
        Args:
            most: streams a client may have open: requests, one-way.
            windows: bytes a client may send on one of each.
        """
        self.by_id: dict[int, Stream] = {}
        self.raised = False
        self._most = most
        self._windows = windows
        self._limits = (made.max_stream_data_bidi_local, made.max_stream_data_uni)
        self._opened = [0, 0]
        self._closed = [0, 0]
        self._announced = list(most)
        self._due = [False, False]
        self._allowed = list(most)
        self._unseen: set[int] = set()  # opened by a higher number, but nothing came on them yet
        self._next = 3

    def receiving(self, connection: Connection, stream_id: int, kind: int) -> Stream | None:
        """The stream a client's frame is about; None when it is over. Raises TransportError."""
        stream = self.by_id.get(stream_id)
        if stream is not None:
            if stream_id & 1:
                raise TransportError(STREAM_STATE_ERROR, "this stream is ours to send on", kind)
            return stream
        if stream_id & 1:
            raise TransportError(STREAM_STATE_ERROR, "a server's stream", kind)
        return self._arrived(connection, stream_id, kind)

    def sending(self, connection: Connection, stream_id: int, kind: int) -> Stream | None:
        """The stream on which the client speaks about our side; None when it is over. Raises TransportError."""
        if stream_id & 3 == 2:
            raise TransportError(STREAM_STATE_ERROR, "this stream is the client's alone", kind)
        stream = self.by_id.get(stream_id)
        if stream is not None or (stream_id & 3 == 3 and stream_id < self._next):
            return stream
        if stream_id & 1:
            raise TransportError(STREAM_STATE_ERROR, "this stream was not opened", kind)
        return self._arrived(connection, stream_id, kind)

    def _arrived(self, connection: Connection, stream_id: int, kind: int) -> Stream | None:
        """A client's stream that is not in the table: new, or over."""
        which = (stream_id >> 1) & 1
        index = stream_id >> 2
        opened = self._opened[which]
        if index < opened:
            if stream_id not in self._unseen:
                return None
            self._unseen.discard(stream_id)
        else:
            if index >= self._announced[which]:
                raise TransportError(STREAM_LIMIT_ERROR, "more streams than allowed", kind)
            # RFC 9000 §2.1: opening a stream opens all below it.
            for skipped in range(opened, index):
                self._unseen.add(skipped << 2 | stream_id & 3)
            self._opened[which] = index + 1
        stream = Stream(connection, stream_id, -1 if which else self._limits[0], self._windows[which])
        self.by_id[stream_id] = stream
        return stream

    def open(self, connection: Connection) -> Stream:
        """A one-way stream of ours."""
        stream = Stream(connection, self._next, self._limits[1], 0)
        stream.fin_received = True
        self._next += 4
        self.by_id[stream.id] = stream
        return stream

    def close(self, stream: Stream) -> None:
        """Both sides of a stream are over: the client may open another one."""
        if self.by_id.pop(stream.id, None) is None:
            return
        connection, unread = stream.connection, stream.highest - stream.consumed
        if connection is not None and unread > 0:
            stream.consumed = stream.highest
            connection.consume(unread)  # nobody will: the other streams must not lack it
        stream.connection = None
        stream.app = None
        if stream.id & 1:
            return
        which = (stream.id >> 1) & 1
        self._closed[which] += 1
        self._allowed[which] = self._closed[which] + self._most[which]
        # Announced when half of what was allowed is used up: one frame for many streams.
        if self._announced[which] - self._opened[which] <= self._most[which] >> 1:
            self._due[which] = self.raised = True

    def frame(self) -> tuple[bytes, int]:
        """The next MAX_STREAMS frame, and the kind of its record."""
        which = _TWO_WAY if self._due[_TWO_WAY] else _ONE_WAY
        self._due[which] = False
        self.raised = self._due[_ONE_WAY]
        self._announced[which] = self._allowed[which]
        return b"%c%b" % (0x12 + which, varint.write(self._allowed[which])), which

    def repeat(self, which: int) -> None:
        """A MAX_STREAMS frame got lost."""
        self._due[which] = self.raised = True

    @property
    def requests(self) -> int:
        """Requests the client has opened so far; the next one has this number times four."""
        return self._opened[_TWO_WAY]

    @property
    def busy(self) -> bool:
        """Some request is not over, be it that its answer is not acknowledged."""
        return any(not stream_id & 3 for stream_id in self.by_id)

    def clear(self) -> None:
        """The connection is over."""
        for stream in self.by_id.values():
            stream.connection = None
        self.by_id.clear()
        self._unseen.clear()
