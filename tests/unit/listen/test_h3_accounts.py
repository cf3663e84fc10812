# Whatever client and upstream do, in whatever order: the counts are right at every step and nothing is left at the end.
"""listen/h3.py, listen/h3_stream.py and quic/streams.py under random actions of both sides."""

from __future__ import annotations

import random

import pytest
from support.h3_stand import GET, POST, H3Driver, data, head
from support.pipeline import Job, Stand

from edgeproxy.faults import upstream_fault
from edgeproxy.listen.h3_stream import H3Stream
from edgeproxy.message import Reply
from edgeproxy.quic.established import Limits
from edgeproxy.quic.varint import write

CANCELLED = b"\x41\x0c"
HEADS = (
    GET, POST, (*POST, (b"content-length", b"20")), (*POST, (b"expect", b"100-continue"), (b"content-length", b"20")),
    (*GET, (b"Bad", b"x")), ((b":method", b"CONNECT"), *GET[1:]),
)  # fmt: skip


class Chaos:
    """A client and an upstream without a plan."""

    def __init__(self, stand: Stand, seed: int) -> None:
        self.random = draw = random.Random(seed)
        stand.pool.answers = False
        self.stand = stand
        limits = Limits(max_streams=draw.choice([4, 100]), stream_window=draw.choice([3000, 1 << 18]))
        windows = {"max_data": draw.choice([0, 5000, 1 << 20]), "max_stream_data_bidi_local": draw.choice([100, 1 << 18])}
        self.driver = H3Driver(stand, limits, **windows)
        self.driver._take = lambda one: None  # type: ignore[method-assign]  # what comes back is not looked at
        self.driver.session.most = draw.choice([2000, 1 << 26])
        self.connection = self.driver.wire.connection
        self.asked: list[int] = []

    def act(self) -> None:
        """Something happens."""
        actions = (self.ask, self.ask, self.ask, self.more, self.reset, self.stop, self.widen, *(self.reply,) * 4, self.time)
        self.random.choice(actions)()
        if self.connection.is_open:
            self.driver.flush()
        self.check()

    def ask(self) -> None:
        """A request, or the start of one."""
        draw = self.random
        if sum(stream_id in self.connection.streams.by_id for stream_id in self.asked) >= 3:
            return
        stream_id = 4 * len(self.asked)
        self.asked.append(stream_id)
        raw = head(draw.choice(HEADS)) + draw.choice([b"", data(bytes(draw.choice([0, 5, 20, 21, 900]))), head(((b"t", b"x"),))])
        cut = draw.choice([len(raw), draw.randint(0, len(raw))])
        self.driver.feed(stream_id, raw[:cut], fin=cut == len(raw) and draw.random() < 0.5)

    def more(self) -> None:
        """Content."""
        stream_id = self.random.choice(self.asked or [0])
        stream = self.connection.streams.by_id.get(stream_id)
        if stream is not None and not stream.fin_received and self.driver.offsets[stream_id] + 1000 < stream.window_end:
            self.driver.feed(stream_id, data(bytes(self.random.choice([0, 1, 15, 900]))), fin=self.random.random() < 0.3)

    def reset(self) -> None:
        """RESET_STREAM."""
        stream_id = self.random.choice(self.asked or [0])
        stream = self.connection.streams.by_id.get(stream_id)
        if stream is not None and not stream.fin_received:
            self.driver.send(b"\x04" + write(stream_id) + CANCELLED + write(self.driver.offsets[stream_id]))

    def stop(self) -> None:
        """STOP_SENDING."""
        if self.asked:
            self.driver.send(b"\x05" + write(self.random.choice(self.asked)) + CANCELLED)

    def widen(self) -> None:
        """MAX_DATA and MAX_STREAM_DATA."""
        more = self.random.choice([100, 5000, 100_000])
        frames = b"\x10" + write(self.connection.data_limit + more)
        for stream in self.connection.streams.by_id.values():
            if not stream.id & 3:
                frames += b"\x11" + write(stream.id) + write(stream.limit + more)
        self.driver.send(frames)

    def reply(self) -> None:
        """Something of an upstream's reply, or its end."""
        draw = self.random
        jobs: list[Job] = [job for job in self.stand.pool.jobs if job.exchange.sink is not None]
        if not jobs:
            return
        exchange = draw.choice(jobs).exchange
        content, end = bytes(draw.choice([10, 5000, 70_000])), draw.random() < 0.3
        if draw.random() < 0.2:
            exchange.fail(upstream_fault(502, "broken", "Broken."))
        elif exchange.status == 0:
            self.stand.gateway.reply(exchange, Reply(200, [], None), content, end)
        else:
            exchange.write(content, end)

    def time(self) -> None:
        """It passes, now and then for long enough for deadlines."""
        wire, deadlines = self.driver.wire, self.stand.deadlines
        wire.now += self.random.random()
        self.connection.on_timer(wire.now)
        if self.random.random() < 0.2:
            deadlines.sweep(deadlines.now + 70.0)
            self.driver.app.expire(deadlines.now)

    def check(self) -> None:
        """Every count is what it counts."""
        streams = self.connection.streams.by_id.values()
        apps = [stream.app for stream in streams if isinstance(stream.app, H3Stream)]
        assert self.driver.app.active == sum(app._begun and not app._finished for app in apps)
        assert self.driver.session.bodies == sum(app._unread for app in apps)
        assert self.stand.stats.streams_open == sum(app.exchange is not None for app in apps)
        if self.connection.is_open:
            assert self.connection.queued == sum(stream.queued for stream in streams)
            for stream in streams:
                if stream.ready:
                    assert stream in self.connection.queue
                else:
                    assert not stream.has_frames() or stream.id in self.connection.starved, "forgotten"


@pytest.fixture(scope="module")
def stand() -> Stand:
    return Stand()


@pytest.mark.parametrize("seed", range(60))
def test_counts(stand: Stand, seed: int) -> None:
    stand.deadlines.members.clear()
    chaos = Chaos(stand, seed)
    for _ in range(60):
        if chaos.connection.is_open:
            chaos.act()
    chaos.connection.vanish("gone")
    stand.deadlines.sweep(stand.deadlines.now + 100.0)  # replies that were complete have theirs a little longer
    chaos.check()
    assert chaos.driver.idle()
    assert all(job.exchange.sink is None for job in stand.pool.jobs)
