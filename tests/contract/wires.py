# The protocols of the suite, one implementation of `Wire` each. Another one joins by its name in WIRES.
"""HTTP/1.1 over httptools, HTTP/2 over the client role of ngh2, HTTP/3 over aioquic (h3_wire.py)."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

import httptools
import ngh2

from .clients import Call, StreamWire, Wire
from .h3_wire import H3Wire


class H1Wire(StreamWire):
    """HTTP/1.1: one call after the other, pipelined if the test does not wait."""

    name = "h1"
    alpn = "http/1.1"
    announces = True
    streams_counted = False

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[Call] = []
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._chunked = False
        self._fields: list[tuple[bytes, bytes]] = []
        self._status = 0
        self._until_close = False
        self._out: deque[bytes] = deque()
        self._full = False

    def begin(
        self, call: Call, path: bytes, fields: list[tuple[bytes, bytes]], body: bytes | None, end: bool, host: bytes,
        length: int | None,
    ) -> None:  # fmt: skip
        self._waiting.append(call)
        self._chunked = False
        lines = [b"%b %b HTTP/1.1" % (call.method, path), b"host: " + host]
        lines += [name + b": " + value for name, value in fields]
        if length is not None:
            lines.append(b"content-length: %d" % length)
        elif body is not None or not end:
            self._chunked = True
            lines.append(b"transfer-encoding: chunked")
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n")
        if body is not None:
            call.send(body, end=end)

    def content(self, call: Call, data: bytes, end: bool) -> None:
        if self._chunked:
            if data:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            if end:
                data += b"0\r\n\r\n"
        # In pieces, and only while the socket takes them: what waits is counted here.
        self._out.extend(data[at : at + 16384] for at in range(0, len(data), 16384))
        self._pump()

    def _pump(self) -> None:
        while self._out and not self._full and not self.closed:
            self.transport.write(self._out.popleft())

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._pump()

    def unsent(self, call: Call) -> int:
        return sum(map(len, self._out))

    def leave_call(self, call: Call) -> None:
        self.transport.abort()

    def is_leaving(self) -> bool:
        return self.closed or any(call.values(b"connection") == [b"close"] for call in self.calls)

    def data_received(self, data: bytes) -> None:
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if self._waiting:
                self._waiting[0].error = f"not HTTP/1.1: {error}"
            else:
                raise

    def connection_lost(self, error: Exception | None) -> None:
        if self._until_close and error is None and self._waiting:
            self._waiting[0].complete = True
        super().connection_lost(error)
        self._parser = None  # it holds our methods: a cycle
        self._waiting.clear()  # so do calls that were never answered

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._status >= 200:
            self._waiting[0].trailers.append((name.lower(), value))
        else:
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        call = self._waiting[0]
        assert self._parser is not None
        self._status = self._parser.get_status_code()
        fields, self._fields = self._fields, []
        if self._status < 200:
            call.interim.append(self._status)
            return
        call.fields = fields
        call.status = self._status
        framed = call.values(b"content-length") or call.values(b"transfer-encoding")
        self._until_close = not framed and self._status not in {204, 304}
        if call.method == b"HEAD":
            self._next(call)

    def on_body(self, data: bytes) -> None:
        call = self._waiting[0]
        call.body += data

    def on_message_complete(self) -> None:
        if self._status >= 200 and self._waiting and self._waiting[0].status and not self._until_close:
            self._next(self._waiting[0])

    def _next(self, call: Call) -> None:
        call.complete = True
        self._waiting.remove(call)
        self._status = 0
        self._until_close = False
        if call.method == b"HEAD":
            # llhttp does not know that no content follows.
            self._parser = httptools.HttpResponseParser(self)


class H2Wire(StreamWire):
    """HTTP/2 by ngh2's client role. Content is given back as window unless a call is held."""

    name = "h2"
    index = 1
    alpn = "h2"
    multiplexed = True

    def __init__(self, window: int = 65535) -> None:
        super().__init__()
        self.engine = ngh2.Connection(ngh2.Role.CLIENT, ngh2.Configuration(auto_window_update=False))
        self._window = window
        self._by_id: dict[int, Call] = {}
        self.held: set[int] = set()  # streams whose content is not given back
        self.goaway: list[ngh2.GoAwayReceived] = []
        self.pings = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.engine.initiate_connection({ngh2.Setting.INITIAL_WINDOW_SIZE: self._window, ngh2.Setting.ENABLE_PUSH: 0})
        self.engine.set_local_window_size(16 * 1024 * 1024)
        self.flush()

    def flush(self) -> None:
        """Send what the engine has."""
        try:
            data = self.engine.data_to_send()
        except ngh2.NGH2Error:
            return
        if data and not self.closed:
            self.transport.write(data)

    def begin(
        self, call: Call, path: bytes, fields: list[tuple[bytes, bytes]], body: bytes | None, end: bool, host: bytes,
        length: int | None,
    ) -> None:  # fmt: skip
        section = [(b":method", call.method), (b":scheme", b"https"), (b":authority", host), (b":path", path), *fields]
        if length is not None:
            section.append((b"content-length", b"%d" % length))
        call.id = self.engine.send_request(section, end_stream=end and body is None)
        self._by_id[call.id] = call
        if body is not None:
            call.send(body, end=end)
        self.flush()

    def content(self, call: Call, data: bytes, end: bool) -> None:
        self.engine.send_data(call.id, data, end_stream=end)
        self.flush()

    def unsent(self, call: Call) -> int:
        try:
            return self.engine.queued_body_size(call.id) + self.transport.get_write_buffer_size()
        except ngh2.NGH2Error:
            return 0

    def leave_call(self, call: Call) -> None:
        call.error = call.error or "cancelled here"
        self.engine.reset_stream(call.id, 8)
        self.flush()

    def is_leaving(self) -> bool:
        return self.closed or bool(self.goaway)

    def data_received(self, data: bytes) -> None:
        error: ngh2.NGH2Error | None = None
        try:
            self.engine.receive_data(data)
        except ngh2.NGH2Error as problem:
            error = problem
        for event in self.engine.events():
            self._event(event)
        # Behind a GOAWAY and the end of the last stream the engine takes nothing more, not even a second GOAWAY.
        if error is not None and not self.goaway:
            for call in self.calls:
                call.error = call.error or f"not HTTP/2: {error}"
        self.flush()

    def _event(self, event: ngh2.Event) -> None:
        if isinstance(event, ngh2.GoAwayReceived):
            self.goaway.append(event)
            return
        if isinstance(event, ngh2.PingAcknowledged):
            self.pings += 1
            return
        call = self._by_id.get(getattr(event, "stream_id", 0))
        if call is None:
            return
        if isinstance(event, ngh2.ResponseReceived):
            call.fields = [field for field in event.headers if field[0] != b":status"]
            call.status = int(dict(event.headers)[b":status"])
            call.complete = event.end_stream
        elif isinstance(event, ngh2.InformationalResponseReceived):
            call.interim.append(int(dict(event.headers)[b":status"]))
        elif isinstance(event, ngh2.DataReceived):
            call.body += event.data
            if event.data and call.id not in self.held:
                with contextlib.suppress(ngh2.NGH2Error):  # behind a GOAWAY and the last stream there is no window any more
                    self.engine.acknowledge_received_data(len(event.data), call.id)
            call.complete = event.end_stream
        elif isinstance(event, ngh2.TrailersReceived):
            call.trailers = list(event.headers)
            call.complete = True
        elif isinstance(event, ngh2.StreamReset):
            if not call.complete:
                call.error = call.error or f"reset {event.error_code}"
        elif isinstance(event, ngh2.StreamClosed) and not call.complete:
            call.error = call.error or f"closed {event.error_code}"


WIRES: dict[str, type[Wire]] = {wire.name: wire for wire in (H1Wire, H2Wire, H3Wire)}
