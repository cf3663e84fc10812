# A worker's connection to control: it sends whole dumps, so that neither side's crash loses more than the last second. What
# control says besides is handed to the worker.
"""Reports of one worker's counters to the control process."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Final, cast

import msgspec

from edgeproxy.ipc import Ask, Blocked, Decoder, IpcError, Look, Report, ToReporter, encode
from edgeproxy.observe.metrics import WorkerStats

REPORT_INTERVAL: Final = 1.0  # seconds between two reports to control
_RECONNECT: Final = (0.1, 2.0)  # seconds: first and longest wait before control is tried again
_BACKLOG: Final = 4 << 20  # bytes: a control that takes in no more gets no more
_LAST_WORDS: Final = 0.5  # seconds for the last report


Obey = Callable[[Blocked | Look, bytes, Callable[[msgspec.Struct, bytes], None]], None]
"""Does what control says; what is to be answered goes to the third."""


class Reporter(asyncio.Protocol):
    """Sends the whole dump once a second and when asked; connects again for as long as it takes."""

    __slots__ = (
        "_closed",
        "_connecting",
        "_decoder",
        "_incarnation",
        "_loop",
        "_obey",
        "_path",
        "_slot",
        "_stats",
        "_timer",
        "_transport",
        "_wait",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, stats: WorkerStats, slot: int, path: str,
        obey: Obey,
    ) -> None:  # fmt: skip
        self._loop = loop
        self._stats = stats
        self._slot = slot
        self._path = path
        self._incarnation = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._obey = obey
        self._decoder: Decoder[Ask | Blocked | Look] = Decoder(ToReporter)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._wait = _RECONNECT[0]
        self._closed: asyncio.Future[None] | None = None
        self._connecting: asyncio.Task[None] | None = None

    def connect(self) -> None:
        self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            await self._loop.create_unix_connection(lambda: self, self._path)
        except OSError:
            self._again()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._decoder = Decoder(ToReporter)
        self._wait = _RECONNECT[0]
        self._tick()

    def data_received(self, data: bytes) -> None:
        try:
            for head, blob in self._decoder.feed(data):
                if isinstance(head, Ask):
                    self._report(head.number)
                else:
                    self._obey(head, blob, self._send)
        except (IpcError, msgspec.DecodeError):
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self._closed is None:
            self._again()
        elif not self._closed.done():
            self._closed.set_result(None)

    def _again(self) -> None:
        if self._closed is None:
            self._loop.call_later(self._wait, self.connect)
            self._wait = min(self._wait * 2, _RECONNECT[1])

    def _tick(self) -> None:
        self._report(0)
        self._timer = self._loop.call_later(REPORT_INTERVAL, self._tick)

    def _report(self, answers: int) -> None:
        if self._transport is not None and self._transport.get_write_buffer_size() < _BACKLOG:
            head = Report(self._incarnation, self._slot, os.getpid(), answers)
            self._transport.write(encode(head, msgspec.json.encode(self._stats.dump())))

    def _send(self, head: msgspec.Struct, blob: bytes) -> None:
        if self._transport is not None:
            self._transport.write(encode(head, blob))

    async def close(self) -> None:
        """The last report, and up to _LAST_WORDS seconds for it to leave."""
        self._closed = self._loop.create_future()
        if self._transport is None:
            return
        self._report(0)
        self._transport.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closed, _LAST_WORDS)
