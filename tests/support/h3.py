# HTTP/3 frames as a test wants them, valid or not: nothing is checked on the way out. QPACK without the edge's engine.
"""`RawH3`: a raw HTTP/3 client over `support.quic.QuicClient`, and builders of frames and field sections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pylsqpack
from aioquic.quic import events

from support.heads import Fields
from support.quic import QuicClient, read_varint, varint
from support.waiting import until

DATA, HEADERS, CANCEL_PUSH, SETTINGS, PUSH_PROMISE, GOAWAY, MAX_PUSH_ID = 0, 1, 3, 4, 5, 7, 13
GREASE = 0x21 + 0x1F * 5  # reserved to be ignored, as frame, setting and stream type (RFC 9114 §7.2.8)
CONTROL, ENCODER, DECODER = 2, 6, 10  # ids of the streams that `start` opens

NO_ERROR, GENERAL, INTERNAL, CREATION, CRITICAL = 0x100, 0x101, 0x102, 0x103, 0x104
UNEXPECTED, FRAME, EXCESSIVE, ID, SETTING, MISSING = 0x105, 0x106, 0x107, 0x108, 0x109, 0x10A
REJECTED, CANCELLED, INCOMPLETE, MESSAGE = 0x10B, 0x10C, 0x10D, 0x10E
DECOMPRESSION, ENCODER_STREAM, DECODER_STREAM = 0x200, 0x201, 0x202


def frame(kind: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """A frame; `length` lies about its size."""
    return varint(kind, len(payload) if length is None else length) + payload


def settings(*pairs: tuple[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, b"".join(varint(*pair) for pair in pairs))


def prefixed(first: int, bits: int, value: int) -> bytes:
    """An integer behind `8 - bits` bits of flags (RFC 7541 §5.1)."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    out, value = bytearray([first | most]), value - most
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def section(fields: Fields) -> bytes:
    """A field section of literals only, any bytes in them, without Huffman."""
    out = bytearray(b"\0\0")
    for name, value in fields:
        out += prefixed(0x20, 3, len(name)) + name + prefixed(0, 7, len(value)) + value
    return bytes(out)


def headers(fields: Fields) -> bytes:
    """A HEADERS frame."""
    return frame(HEADERS, section(fields))


def data(content: bytes) -> bytes:
    """A DATA frame."""
    return frame(DATA, content)


@dataclass
class Stream:
    """What came back on a stream.

    Attributes:
        heads: header sections in order; the final one is the first that is no 1xx.
        ended: a clean end.
        reset: the code of RESET_STREAM; `stopped`: that of STOP_SENDING.
    """

    raw: bytearray = field(default_factory=bytearray)
    heads: list[Fields] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None
    stopped: int | None = None

    @property
    def status(self) -> int:
        """The final status, 0 before it is here."""
        for head in self.heads:
            status = int(dict(head).get(b":status", b"0"))
            if status >= 200:
                return status
        return 0

    @property
    def over(self) -> bool:
        """Nothing more will come."""
        return self.ended or self.reset is not None


class RawH3(QuicClient):
    """One HTTP/3 connection, frame by frame.

    Attributes:
        streams: by id, made when something is received on them.
        stops: codes of STOP_SENDING by stream id.
        control: frames of the edge's control stream as (type, payload).
    """

    def __init__(self, port: int, **more: Any) -> None:
        super().__init__(port, **more)
        self.streams: dict[int, Stream] = {}
        self.stops: dict[int, int] = {}
        self.decoder = pylsqpack.Decoder(0, 0)
        self.control: list[tuple[int, bytes]] = []
        self._server: dict[int, bytearray] = {}

    def start(self, *pairs: tuple[int, int], control: bytes | None = None) -> None:
        """The three streams of a client; `control`: bytes behind the control stream's type instead of SETTINGS."""
        self.quic.send_stream_data(CONTROL, varint(0) + (settings(*pairs) if control is None else control))
        self.quic.send_stream_data(ENCODER, varint(2))
        self.write(DECODER, varint(3))

    def next(self) -> int:
        """The id of the next request stream."""
        return self.quic.get_next_available_stream_id()

    def request(self, *frames: bytes, end: bool = True) -> int:
        """Frames on a new request stream; its id."""
        stream = self.next()
        self.write(stream, b"".join(frames), end)
        return stream

    def uni(self, content: bytes, end: bool = False) -> int:
        """Bytes on a new unidirectional stream; its id."""
        stream = self.quic.get_next_available_stream_id(is_unidirectional=True)
        self.write(stream, content, end)
        return stream

    def stream(self, stream_id: int) -> Stream:
        """What came back on a stream so far."""
        return self.streams.setdefault(stream_id, Stream())

    async def over(self, stream_id: int, within: float = 5.0) -> Stream:
        """Waits until a stream is over, or the connection."""
        stream = self.stream(stream_id)
        await until(lambda: stream.over or self.ended, within)
        return stream

    async def fine(self, fields: Fields) -> None:
        """A good request that must be answered with 200."""
        stream = await self.over(self.request(headers(fields)))
        assert stream.status == 200, (stream, self.code, self.reason)

    def event(self, event: events.QuicEvent) -> None:
        if isinstance(event, events.StreamDataReceived):
            if event.stream_id & 2:
                self._uni(event.stream_id, event.data)
            else:
                stream = self.stream(event.stream_id)
                stream.raw += event.data
                self._parse(stream, event.stream_id)
                stream.ended |= event.end_stream
        elif isinstance(event, events.StreamReset):
            self.stream(event.stream_id).reset = event.error_code
        elif isinstance(event, events.StopSendingReceived):
            self.stops[event.stream_id] = event.error_code
            self.stream(event.stream_id).stopped = event.error_code

    def _parse(self, stream: Stream, stream_id: int) -> None:
        for kind, payload in frames(stream.raw):
            if kind == HEADERS:
                _, fields = self.decoder.feed_header(stream_id, payload)
                stream.heads.append(fields)
            elif kind == DATA:
                stream.body += payload

    def _uni(self, stream_id: int, content: bytes) -> None:
        held = self._server.setdefault(stream_id, bytearray())
        held += content
        if held[:1] == b"\0":  # the type of a control stream; it is left in place
            rest = held[1:]
            self.control += frames(rest)
            del held[1:]
            held += rest


def frames(held: bytearray) -> list[tuple[int, bytes]]:
    """Takes the whole frames out of a buffer."""
    found = []
    while (head := read_varint(held)) and (size := read_varint(held, head[1])):
        length, at = size
        if len(held) < at + length:
            break
        found.append((head[0], bytes(held[at : at + length])))
        del held[: at + length]
    return found


@asynccontextmanager
async def h3_connected(port: int, *pairs: tuple[int, int], start: bool = True, **more: Any) -> AsyncIterator[RawH3]:
    """An HTTP/3 connection to the edge, its streams opened and SETTINGS sent (unless `start` is False)."""
    client = RawH3(port, **more)
    await client.connect()
    try:
        if start:
            client.start(*pairs)
        yield client
    finally:
        client.close()
