# HTTP/2 frames as a test wants them, valid or not: nothing is checked on the way out.
"""A raw HTTP/2 client over `support.client.Client`, with hpack and hyperframe (not the edge's engine)."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import hpack
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from support.client import Client, connected
from support.edge import client_context
from support.heads import GET, POST, Fields

__all__ = ["GET", "POST", "Fields", "H2Client", "Stream", "h2_connected"]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@dataclass
class Stream:
    """What came back on a stream.

    Attributes:
        heads: header sections in order; the final one is the first that is no 1xx.
        ended: END_STREAM was seen: a clean end.
        reset: error code of RST_STREAM, None without one.
    """

    heads: list[Fields] = field(default_factory=list)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        """The final status, 0 before it is here."""
        for head in self.heads:
            status = int(dict(head).get(b":status", b"0"))
            if status >= 200:
                return status
        return 0

    def values(self, name: bytes) -> list[bytes]:
        """Every value of a field over all sections."""
        return [value for head in self.heads for key, value in head if key == name]


class H2Client:
    """One HTTP/2 connection.

    Attributes:
        streams: by id, made when something is received on them.
        goaway: error code of the last GOAWAY, None without one.
        granted: windows are opened again as content arrives; False: the test does it, or lets the peer starve.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.streams: dict[int, Stream] = {}
        self.goaway: int | None = None
        self.settings: dict[int, int] = {}
        self.granted = True
        self.window_updates: dict[int, int] = {}
        self.pings = 0
        self.settings_acked = 0

    async def start(self, settings: dict[int, int] | None = None) -> None:
        """Preface and SETTINGS."""
        await self.client.send(PREFACE + SettingsFrame(0, settings=settings or {}).serialize())

    def headers(self, stream: int, fields: Fields, *, end: bool = True) -> bytes:
        """A HEADERS frame. Fields go out as they are, in any order and case."""
        flags = ["END_HEADERS", "END_STREAM"] if end else ["END_HEADERS"]
        # Never indexed, because frames that a test throws away would be missing from the table; not huffman, so that
        # bytes stay readable.
        block = self.encoder.encode([(name, value, True) for name, value in fields], huffman=False)
        return HeadersFrame(stream, data=block, flags=flags).serialize()

    @staticmethod
    def content(stream: int, data: bytes, *, end: bool = True) -> bytes:
        """A DATA frame."""
        return DataFrame(stream, data=data, flags=["END_STREAM"] if end else []).serialize()

    @staticmethod
    def raw(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        """Any frame at all."""
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    @staticmethod
    def rst(stream: int, code: int = 8) -> bytes:
        """A RST_STREAM frame."""
        return RstStreamFrame(stream, error_code=code).serialize()

    @staticmethod
    def window(stream: int, size: int) -> bytes:
        """A WINDOW_UPDATE frame."""
        return WindowUpdateFrame(stream, window_increment=size).serialize()

    async def send(self, *frames: bytes) -> None:
        """All frames in one write."""
        await self.client.send(b"".join(frames))

    async def frame(self) -> Frame | None:
        """The next frame, noted in `streams`; None when the connection has ended."""
        head = await self.client.take(9)
        if head is None:
            return None
        frame, length = Frame.parse_frame_header(memoryview(head))
        payload = await self.client.take(length)
        if payload is None:
            return None
        frame.parse_body(memoryview(payload))
        await self._note(frame)
        return frame

    async def _note(self, frame: Any) -> None:
        if isinstance(frame, HeadersFrame):
            assert "END_HEADERS" in frame.flags, "CONTINUATION is not expected from the edge"
            stream = self.streams.setdefault(frame.stream_id, Stream())
            stream.heads.append([(bytes(n), bytes(v)) for n, v in self.decoder.decode(frame.data, raw=True)])
            stream.ended |= "END_STREAM" in frame.flags
        elif isinstance(frame, DataFrame):
            stream = self.streams.setdefault(frame.stream_id, Stream())
            stream.body += frame.data
            stream.ended |= "END_STREAM" in frame.flags
            if self.granted and frame.flow_controlled_length:
                updates = self.window(0, frame.flow_controlled_length)
                if not stream.ended:
                    updates += self.window(frame.stream_id, frame.flow_controlled_length)
                await self.client.send(updates)
        elif isinstance(frame, RstStreamFrame):
            self.streams.setdefault(frame.stream_id, Stream()).reset = frame.error_code
        elif isinstance(frame, GoAwayFrame):
            self.goaway = frame.error_code
        elif isinstance(frame, SettingsFrame):
            if "ACK" in frame.flags:
                self.settings_acked += 1
            else:
                self.settings.update(frame.settings)
                await self.client.send(SettingsFrame(0, flags=["ACK"]).serialize())
        elif isinstance(frame, PingFrame):
            if "ACK" in frame.flags:
                self.pings += 1
            else:
                await self.client.send(PingFrame(0, opaque_data=frame.opaque_data, flags=["ACK"]).serialize())
        elif isinstance(frame, WindowUpdateFrame):
            self.window_updates[frame.stream_id] = self.window_updates.get(frame.stream_id, 0) + frame.window_increment

    async def until(self, condition: Callable[[], object]) -> bool:
        """Reads frames until `condition()`; False when the connection ended first."""
        while not condition():
            if await self.frame() is None:
                return bool(condition())
        return True

    async def over(self, stream: int) -> Stream:
        """Reads until a stream is over (its end, a reset, or the connection's end)."""
        reply = self.streams.setdefault(stream, Stream())
        await self.until(lambda: reply.ended or reply.reset is not None)
        return reply

    async def settled(self) -> None:
        """A PING and its answer: the edge has dealt with everything sent before."""
        pings = self.pings
        await self.send(PingFrame(0, opaque_data=b"settled!").serialize())
        await self.until(lambda: self.pings > pings)


@asynccontextmanager
async def h2_connected(port: int, settings: dict[int, int] | None = None) -> AsyncIterator[H2Client]:
    """An HTTP/2 connection to the edge, preface and SETTINGS sent."""
    async with connected(port, context=client_context(("h2",))) as client:
        assert client.tls is not None and client.tls.selected_alpn_protocol() == "h2"
        h2 = H2Client(client)
        await h2.start(settings)
        yield h2
