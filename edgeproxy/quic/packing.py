# What goes into a packet, and in which order: control frames, windows, then streams in turn; and packets that only probe.
"""Filling packets with frames, and the kinds of records that a connection keeps of its own frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.quic import varint
from edgeproxy.quic.protection import TAG
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


def probe_size(connection: Connection, now: float) -> None:
    """See whether the path takes larger datagrams (RFC 8899): a packet that nobody misses when it is lost.

    It goes in a system call of its own: one that the device does not take must not take others with it.
    """
    paths = connection.paths
    size = connection.limits.max_datagram
    if paths.begin_probe(connection.data_sent, size):
        payload = b"\x01".ljust(size - 3 - len(paths.peer_id) - TAG, b"\0")
        connection.recovery.on_sent(connection.next_number, now, 0, [(connection, SIZE, b"%d" % paths.moves, False)])
        paths.probe = connection.seal(payload)
        connection.next_number += 1
