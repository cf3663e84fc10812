# The pipeline without sockets: real listeners' protocols and the real gateway between a connection and a pool that only
# remember.
"""`Stand`: a Gateway whose only route leads to a `RecordingPool`; `FakeConnection` stands below a listener's protocol."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any, cast

from edgeproxy.config.model import Config
from edgeproxy.deadlines import NEVER, Deadlines
from edgeproxy.exchange import Exchange
from edgeproxy.gateway import Gateway
from edgeproxy.listen.h1 import H1Connection
from edgeproxy.message import Headers, Peer, Reply
from edgeproxy.observe.metrics import WorkerStats
from support.edge import configuration, prepared

_RAY = re.compile(rb"x-ray-id: [0-9a-f]{16}")
_QUOTED_RAY = re.compile(rb'"ray":"[0-9a-f]{16}"')
_DATE = re.compile(rb"date: [^\r]*")


class FakeLoop:
    """A clock that stands until it is moved; timers are never called.

    Attributes:
        complaints: contexts given to the exception handler.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.complaints: list[dict[str, Any]] = []

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Remembers."""
        self.complaints.append(context)

    def time(self) -> float:
        """Seconds."""
        return self.now


class FakeConnection:
    """What is below a protocol: remembers what was written and how it was ended."""

    def __init__(self) -> None:
        self.deadline = NEVER
        self.written = b""
        self.closed = False
        self.lingering = False
        self.aborted = False
        self.was_cut = False
        self.paused = False

    def write(self, data: bytes) -> None:
        """Remembers."""
        if not self.is_closing():
            self.written += data

    def close(self, *, linger: bool = False) -> None:
        """Remembers."""
        if not self.is_closing():
            self.closed = True
            self.lingering = linger

    def abort(self) -> None:
        """Remembers."""
        self.aborted = True

    def cut(self) -> None:
        """Remembers: an end without close_notify, as little a clean one as a reset."""
        self.aborted = self.was_cut = True

    def pause_reading(self) -> None:
        """Remembers."""
        self.paused = True

    def resume_reading(self) -> None:
        """Remembers."""
        self.paused = False

    def is_closing(self) -> bool:
        """Closed or aborted."""
        return self.closed or self.aborted

    @property
    def text(self) -> bytes:
        """What was written, without ray ids and dates."""
        return _DATE.sub(b"date", _QUOTED_RAY.sub(b"ray", _RAY.sub(b"ray", self.written)))


@dataclass
class Job:
    """One exchange at the pool: an Attempt and the consumer of its body."""

    exchange: Exchange
    head: bytes
    body: bytes = b""
    ended: bool = False
    trailers: Headers | None = None
    cancelled: bool = False
    paused: bool = False
    answers: bool = True
    parts: list[bytes] = field(default_factory=list)

    def body_data(self, data: bytes) -> None:
        """See BodyConsumer."""
        self.body += data
        self.parts.append(data)

    def body_end(self) -> None:
        """See BodyConsumer."""
        assert not self.ended
        self.ended = True
        self.trailers = self.exchange.body.trailers
        if self.answers:
            self.answer()

    def answer(self, status: int = 200, *, length: bool = True) -> None:
        """Echoes the body."""
        head = self.exchange.request.method == b"HEAD"
        reply = Reply(status, [], len(self.body) if length else None, bodiless=head)
        self.exchange.gateway.reply(self.exchange, reply, b"" if head else self.body, True)

    def pause(self) -> None:
        """See Attempt."""
        self.paused = True

    def resume(self) -> None:
        """See Attempt."""
        self.paused = False

    def cancel(self) -> None:
        """See Attempt."""
        self.cancelled = True


class RecordingPool:
    """Takes every exchange; answers it with its own body when that is complete, unless told not to."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.answers = True

    def submit(self, exchange: Exchange, tries: int = 0) -> None:
        """As `Pool.submit`."""
        job = Job(exchange, exchange.plan.upstream_head(exchange.request, exchange.request.authority), answers=self.answers)
        self.jobs.append(job)
        exchange.attempt = job
        body = exchange.body
        done = body.done
        data = body.take()
        if data:
            job.body_data(data)
        if done:
            job.body_end()
        else:
            body.consumer = job
            if exchange.sink is not None:
                exchange.sink.proceed()


class Stand:
    """A gateway with one snapshot and one pool."""

    def __init__(self, config: Config | None = None) -> None:
        self.loop = FakeLoop()
        loop = cast("asyncio.AbstractEventLoop", self.loop)
        self.deadlines = Deadlines(loop)
        self.stats = WorkerStats()
        self.gateway = Gateway(loop, self.deadlines, self.stats, None)
        self.pool = RecordingPool()
        self.snapshot = prepared(config or configuration())
        for route in self.snapshot.routes:
            route.stats = self.stats.route(route.name)
            route.pools = cast("Any", dict.fromkeys(self.snapshot.upstreams, self.pool))
            route.pool = cast("Any", self.pool)
        self.gateway.snapshot = self.snapshot

    def peer(self, *, secure: bool = True, trusted: bool = False) -> Peer:
        """A client."""
        return Peer("192.0.2.1", trusted=trusted, secure=secure)

    def h1(self, *, secure: bool = True) -> Driver:
        """A new HTTP/1.1 connection."""
        self.pool.jobs = []
        return Driver(self, secure=secure)


class Driver:
    """An H1Connection that is fed bytes.

    Attributes:
        link: what is below it.
    """

    def __init__(self, stand: Stand, *, secure: bool) -> None:
        self.stand = stand
        self.link = FakeConnection()
        self.h1 = H1Connection(self.link, stand.gateway, stand.peer(secure=secure))

    def feed(self, data: bytes, *, step: int = 0) -> Driver:
        """Bytes from the client, as one read or in reads of `step` bytes."""
        for at in range(0, len(data), step or len(data) or 1):
            if self.link.is_closing():
                break
            # As the shared read buffer: gone when the call returns.
            piece = bytearray(data[at : at + (step or len(data))])
            view = memoryview(piece)
            self.h1.data_received(view)
            view.release()
            piece[:] = b"\xff" * len(piece)
        return self

    def seen(self) -> list[tuple[Any, ...]]:
        """What reached the pool, in a form that can be compared."""
        return [
            (job.head, job.body, job.ended, job.trailers, job.exchange.request.length) for job in self.stand.pool.jobs
        ]

    def result(self) -> tuple[Any, ...]:
        """Everything that can be seen from outside."""
        return self.seen(), self.link.text, self.link.closed, self.link.aborted
