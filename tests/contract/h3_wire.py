# HTTP/3 for the suite: aioquic's connections over a real socket, none of which the edge uses for HTTP.
"""`H3Wire`: see `clients.Wire`."""

from __future__ import annotations

import contextlib
from typing import Any

from aioquic.h3.connection import ErrorCode, FrameType, H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic import events
from support.quic import WINDOW, QuicClient, read_varint

from edgeproxy.observe.metrics import WorkerStats

from .clients import Call, Wire

PIECE = 1 << 20  # content goes into frames of at most so much


class _Client(QuicClient):
    """The connection below a wire."""

    wire: H3Wire

    def event(self, event: events.QuicEvent) -> None:
        self.wire.event(event)

    def lost(self) -> None:
        if hasattr(self, "wire"):
            self.wire.lost(ConnectionError(f"code {self.code} {self.reason}".strip()))


class Control:
    """The edge's control stream, as far as aioquic keeps it to itself: its GOAWAYs and settings."""

    def __init__(self) -> None:
        self._data: dict[int, bytearray] = {}
        self.goaway: list[int] = []
        self.settings: dict[int, int] = {}
        self.types: dict[int, int] = {}

    def feed(self, stream_id: int, data: bytes) -> None:
        """Bytes of one of the server's unidirectional streams."""
        held = self._data.setdefault(stream_id, bytearray())
        held += data
        if stream_id not in self.types:
            kind = read_varint(held)
            if kind is None:
                return
            self.types[stream_id] = kind[0]
            del held[: kind[1]]
        if self.types[stream_id] != 0:
            held.clear()
            return
        while (head := read_varint(held)) and (size := read_varint(held, head[1])):
            frame, (length, at) = head[0], size
            if len(held) < at + length:
                return
            self._frame(frame, bytes(held[at : at + length]))
            del held[: at + length]

    def _frame(self, frame: int, payload: bytes) -> None:
        if frame == FrameType.GOAWAY:
            last = read_varint(payload)
            assert last is not None and last[1] == len(payload)
            self.goaway.append(last[0])
        elif frame == FrameType.SETTINGS:
            at = 0
            while at < len(payload):
                key, value = read_varint(payload, at), None
                assert key is not None
                value = read_varint(payload, key[1])
                assert value is not None
                self.settings[key[0]], at = value


class _Engine(H3Connection):
    """aioquic holds Content-Length against DATA for HEAD and 304 too; `H3Wire` knows which replies have none."""

    def _check_content_length(self, stream: Any) -> None:
        if stream.content_length:
            super()._check_content_length(stream)


class H3Wire(Wire):
    """HTTP/3. A paused wire grants no more credit, and acknowledges what still comes."""

    name = "h3"
    index = 2
    alpn = "h3"
    multiplexed = True
    huge = 32 << 20  # aioquic needs a second of CPU for so much

    def __init__(self, client: _Client) -> None:
        super().__init__()
        self.client = client
        self.quic = client.quic
        self.engine = _Engine(client.quic)
        self.control = Control()
        self._by_id: dict[int, Call] = {}

    @classmethod
    async def open(cls, port: int, *, name: str = "localhost", receive_buffer: int = 0) -> H3Wire:
        client = _Client(port, name=name, window=receive_buffer or WINDOW, share=1 if receive_buffer else 4)
        wire = client.wire = cls(client)
        await client.connect()
        return wire

    @staticmethod
    def handshakes(stats: WorkerStats) -> int:
        return stats.quic.handshakes

    def begin(
        self, call: Call, path: bytes, fields: list[tuple[bytes, bytes]], body: bytes | None, end: bool, host: bytes,
        length: int | None,
    ) -> None:  # fmt: skip
        section = [(b":method", call.method), (b":scheme", b"https"), (b":authority", host), (b":path", path), *fields]
        if length is not None:
            section.append((b"content-length", b"%d" % length))
        call.id = self.quic.get_next_available_stream_id()
        self._by_id[call.id] = call
        self.engine.send_headers(call.id, section, end_stream=end and body is None)
        if body is not None:
            self.content(call, body, end)
            call.offered += len(body)
        self.client.transmit()

    def content(self, call: Call, data: bytes, end: bool) -> None:
        if self.closed or not self.quic.can_send(call.id):
            return  # the edge wants no more of it
        for at in range(0, len(data) or 1, PIECE):
            self.engine.send_data(call.id, data[at : at + PIECE], end and at + PIECE >= len(data))
        self.client.transmit()

    def unsent(self, call: Call) -> int:
        return self.quic.waiting(call.id)

    def leave_call(self, call: Call) -> None:
        call.error = call.error or "cancelled here"
        if self.closed:
            return
        self.quic.reset_stream(call.id, ErrorCode.H3_REQUEST_CANCELLED)
        with contextlib.suppress(ValueError):  # it is over already
            self.quic.stop_stream(call.id, ErrorCode.H3_REQUEST_CANCELLED)
        self.client.transmit()

    def is_leaving(self) -> bool:
        return self.closed or bool(self.control.goaway)

    def hold(self, call: Call) -> None:
        """No more credit for one call."""
        self.quic.held.add(call.id)

    def pause(self) -> None:
        self.quic.paused = True

    def resume(self) -> None:
        self.quic.paused = False
        self.quic.held.clear()
        self.quic.send_ping(0)  # something to send, and the credit with it
        self.client.transmit()

    def close(self) -> None:
        self.client.close(ErrorCode.H3_NO_ERROR)

    def reset(self) -> None:
        self.client.close(0x1, frame_type=0)  # the transport's INTERNAL_ERROR

    def abort(self) -> None:
        self.client.close(ErrorCode.H3_NO_ERROR)

    def die(self) -> None:
        """Not a packet more, in either direction; the socket stays, so that the kernel says nothing for us."""
        self.client.silent = True

    # -- what comes back -----------------------------------------------------------------------------------------

    def event(self, event: events.QuicEvent) -> None:
        """An event of the connection."""
        if isinstance(event, events.StreamDataReceived) and event.stream_id & 2:
            self.control.feed(event.stream_id, event.data)
        elif isinstance(event, events.StreamReset):
            call = self._by_id.get(event.stream_id)
            if call is not None and not call.complete:
                call.error = call.error or f"reset {event.error_code:#x}"
        for answer in self.engine.handle_event(event):
            self._answer(answer)

    def _answer(self, event: H3Event) -> None:
        if not isinstance(event, HeadersReceived | DataReceived):
            return
        call = self._by_id[event.stream_id]
        if call.error:
            return
        if isinstance(event, DataReceived):
            call.body += event.data
        elif call.status:
            call.trailers = event.headers
        else:
            status = int(dict(event.headers)[b":status"])
            if status < 200:
                call.interim.append(status)
            else:
                call.fields = [field for field in event.headers if field[0] != b":status"]
                call.status = status
        if event.stream_ended:
            lengths = call.values(b"content-length")
            if call.body or call.method == b"HEAD" or call.status == 304 or not lengths or int(lengths[0]) == 0:
                call.complete = True
            else:
                call.error = "no content, though a length was said"
