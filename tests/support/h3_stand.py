# HTTP/3 without sockets: the real transport connection, H3Connection and gateway between a client of bytes and a recording pool.
"""`H3Driver`: one HTTP/3 connection of a `Stand`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pylsqpack

from edgeproxy.deadlines import NEVER
from edgeproxy.listen.h3 import H3Connection
from edgeproxy.listen.h3_fields import Decoder, Encoder
from edgeproxy.quic import varint
from edgeproxy.quic.established import Limits
from support.pipeline import Stand
from support.quic_wire import Frame, Wire, ack_frame, stream_frame

GET = ((b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"localhost"), (b":path", b"/a"))
POST = ((b":method", b"POST"), *GET[1:])
SETTINGS = b"\0\x04\0"  # of a client: the control stream's type and an empty SETTINGS


def frame(kind: int, payload: bytes) -> bytes:
    """An HTTP/3 frame."""
    return varint.write(kind) + varint.write(len(payload)) + payload


def head(fields: tuple[tuple[bytes, bytes], ...] | list[tuple[bytes, bytes]] = GET) -> bytes:
    """A HEADERS frame."""
    _, block = pylsqpack.Encoder().encode(0, list(fields))
    return frame(1, block)


def data(content: bytes) -> bytes:
    """A DATA frame."""
    return frame(0, content)


@dataclass
class Answer:
    """What came back on a stream.

    Attributes:
        raw: bytes of the stream.
        reset, stopped: codes of RESET_STREAM and STOP_SENDING.
    """

    raw: bytes = b""
    ended: bool = False
    reset: int | None = None
    stopped: int | None = None

    @property
    def sections(self) -> list[dict[bytes, bytes]]:
        """Field sections in order."""
        return [dict(pylsqpack.Decoder(0, 0).feed_header(0, payload)[1]) for kind, payload in self._frames() if kind == 1]

    @property
    def statuses(self) -> list[int]:
        """Status codes, informational ones first."""
        return [int(section[b":status"]) for section in self.sections if b":status" in section]

    @property
    def content(self) -> bytes:
        """Of all DATA frames."""
        return b"".join(payload for kind, payload in self._frames() if kind == 0)

    def _frames(self) -> list[tuple[int, bytes]]:
        found, at = [], 0
        while at < len(self.raw):
            kind, at = varint.read(self.raw, at)
            size, at = varint.read(self.raw, at)
            found.append((kind, self.raw[at : at + size]))
            at += size
        return found


@dataclass
class Session:
    """What is around an H3Connection."""

    driver: Any
    h3_deadline: float = NEVER
    bodies: int = 0
    most: int = 1 << 26
    beginning: list[H3Connection] = field(default_factory=list)

    def until(self, deadline: float) -> None:
        """See `h3.Session`."""
        self.h3_deadline = deadline

    def begin_later(self, app: H3Connection) -> None:
        """See `h3.Session`."""
        self.beginning.append(app)

    def held(self, size: int) -> bool:
        """See `h3.Session`."""
        self.bodies += size
        assert self.bodies >= 0
        return self.bodies > self.most

    def flush(self) -> None:
        """See `h3.Session`."""
        self.driver.flush()


class H3Driver:
    """A client that writes on streams.

    Attributes:
        answers: by stream id.
        goaways: ids of the GOAWAY frames that came.
    """

    def __init__(self, stand: Stand, limits: Limits | None = None, **changes: Any) -> None:
        stand.pool.jobs = []
        self.stand = stand
        self.wire = Wire(limits, **changes)
        self.session = Session(self)
        self.app = H3Connection(self.session, self.wire.connection, stand.gateway, stand.peer(), Encoder(), Decoder())
        self.wire.connection.application = self.app
        self.offsets: dict[int, int] = {}
        self.answers: dict[int, Answer] = {}
        self.pieces: dict[int, dict[int, bytes]] = {}
        self.next = 0
        self.acknowledges = True
        self.flush()

    def feed(self, stream_id: int, content: bytes, *, fin: bool = False, step: int = 0) -> H3Driver:
        """Bytes of the client on a stream, in pieces of `step` bytes, each in its packet and read on its own."""
        size = step or max(len(content), 1)
        for at in range(0, max(len(content), 1), size):
            piece = content[at : at + size]
            offset = self.offsets.get(stream_id, 0)
            self.offsets[stream_id] = offset + len(piece)
            self.send(stream_frame(stream_id, offset, piece, fin=fin and at + size >= len(content)))
        return self

    def send(self, frames: bytes) -> None:
        """QUIC frames of the client, in one packet."""
        self.wire.send(frames, flush=False)
        self.read()

    def read(self) -> None:
        """Everything has been read: requests begin, answers go out."""
        beginning, self.session.beginning = self.session.beginning, []
        for app in beginning:
            app.begin()
        self.flush()

    def request(self, fields: Any = GET, content: bytes | None = None, *, step: int = 0) -> Answer:
        """A whole request on the next stream."""
        stream_id, self.next = self.next, self.next + 4
        self.feed(stream_id, head(fields) + (b"" if content is None else data(content)), fin=True, step=step)
        return self.answers.setdefault(stream_id, Answer())

    def flush(self) -> None:
        """Take what the server sends; the client acknowledges it."""
        for _ in range(200):
            frames = self.wire.flush() if self.wire.connection.is_open else []
            for one in frames:
                self._take(one)
            self.app.sent()
            if not frames or not self.acknowledges or not self.wire.connection.is_open:
                return
            self.wire.now += 0.01
            self.wire.send(ack_frame([(0, self.wire.expected - 1)]), flush=False)
        raise AssertionError("no end")

    def _take(self, one: Frame) -> None:
        if one.kind not in {0x04, 0x05, 0x08}:
            return
        answer = self.answers.setdefault(one.values[0], Answer())
        if one.kind == 0x04:
            answer.reset = one.values[1]
        elif one.kind == 0x05:
            answer.stopped = one.values[1]
        else:
            _stream_id, offset, content, fin = one.values
            assert offset == len(answer.raw), "nothing gets lost here"
            answer.raw += content
            answer.ended = answer.ended or fin

    @property
    def error(self) -> int | None:
        """The code with which the connection was closed by us, None while it is open."""
        error = self.wire.error
        return None if error is None else error[0]

    @property
    def goaways(self) -> list[int]:
        """Ids of GOAWAY frames on our control stream."""
        raw = self.answers[3].raw
        at, found = 1, []
        while at < len(raw):
            kind, at = varint.read(raw, at)
            size, at = varint.read(raw, at)
            if kind == 7:
                found.append(varint.read(raw, at)[0])
            at += size
        return found

    def idle(self) -> bool:
        """Nothing is held or counted for any request."""
        stats = self.stand.stats
        return (self.app.active, self.session.bodies, stats.streams_open, len(self.stand.deadlines.members)) == (0, 0, 0, 0)
