# What goes into a packet, and in which order: control frames, windows, then streams in turn. No packet is sealed here.
"""Filling packets with frames, and the kinds of records that a connection keeps of its own frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.quic import varint
from edgeproxy.quic.streams import LOW

if TYPE_CHECKING:
    from edgeproxy.quic.connection import Connection
    from edgeproxy.quic.recovery import Record
    from edgeproxy.quic.streams import Stream

MAX_DATA = 2  # said again with the value of then; 0 and 1 are MAX_STREAMS, see streamset.py
ONCE = 3  # never said again
AGAIN = 4  # said again as it was
SIZE = 5  # a probe of the path's size

_ROOM = 24  # bytes a STREAM frame with little content needs


def fill(connection: Connection, parts: list[bytes], records: list[Record], room: int) -> None:
    """Take frames for one packet of `room` bytes: into `parts`, and into `records` what is to be known of them later."""
    control = connection.control
    while control and len(control[0][0]) <= room:
        frame, owner, a = control.popleft()
        parts.append(frame)
        records.append((owner, a, frame, False))
        room -= len(frame)
    if connection.max_data_pending and room >= 9:
        connection.max_data_pending = False
        parts.append(b"\x10" + varint.write(connection.data_allowed))
        records.append((connection, MAX_DATA, b"", False))
        room -= 9
    while connection.windows and room >= 17:
        stream = connection.windows.pop()
        parts.append(stream.window_frame())
        records.append((stream, -2, b"", False))
        room -= 17
    while connection.streams.raised and room >= 9:
        frame, kind = connection.streams.frame()
        parts.append(frame)
        records.append((connection, kind, b"", False))
        room -= 9
    queue = connection.queue
    while queue and room > _ROOM:
        stream = queue[0]
        taken = stream.take(room, connection.data_limit - connection.data_sent)
        if taken is None:
            queue.popleft()
            _blocked(connection, stream)
            continue
        header, content, offset, fin = taken
        parts.append(header)
        parts.append(content)
        room -= len(header) + len(content)
        records.append((stream, offset, content, fin))
        if stream.has_frames():
            queue.rotate(-1)
        else:
            queue.popleft()
            _blocked(connection, stream)
        if stream.waiting and stream.queued <= LOW:
            stream.waiting = False
            connection.application.writable(stream)


def _blocked(connection: Connection, stream: Stream) -> None:
    """A stream leaves the queue: it has nothing to send, or a window is used up (RFC 9000 §4.1: the peer is told)."""
    stream.ready = False
    if stream.has_frames():
        connection.starved[stream.id] = stream
        if connection.told != connection.data_limit:
            connection.told = connection.data_limit
            connection.control.append((b"\x14" + varint.write(connection.data_limit), connection, ONCE))
        return
    frame = stream.blocked_frame()
    if frame:
        connection.control.append((frame, connection, ONCE))
