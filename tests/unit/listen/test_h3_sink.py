# HTTP/3 streams as sinks and body sources: streaming, back-pressure, cancelling, refusing, draining.
"""listen/h3.py and listen/h3_stream.py over the real transport."""

from __future__ import annotations

import pytest
from support.h3_stand import GET, POST, Answer, H3Driver, data, head
from support.pipeline import Job, Stand

from edgeproxy.deadlines import NEVER
from edgeproxy.faults import edge_fault, upstream_fault
from edgeproxy.listen import h3_codes as h3
from edgeproxy.message import Reply
from edgeproxy.quic.established import Limits
from edgeproxy.quic.streams import HIGH
from edgeproxy.quic.varint import write


@pytest.fixture
def stand() -> Stand:
    made = Stand()
    made.pool.answers = False
    return made


@pytest.fixture
def driver(stand: Stand) -> H3Driver:
    return H3Driver(stand)


def begin(driver: H3Driver, fields: tuple[tuple[bytes, bytes], ...] = GET, *, fin: bool = True) -> tuple[Job, Answer]:
    """A request that waits for its answer."""
    stream_id, driver.next = driver.next, driver.next + 4
    driver.feed(stream_id, head(fields), fin=fin)
    return driver.stand.pool.jobs[-1], driver.answers.setdefault(stream_id, Answer())


def start(job: Job, content: bytes = b"", *, end: bool = False, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    job.exchange.gateway.reply(job.exchange, Reply(200, headers or [], None), content, end)


# -- replies ---------------------------------------------------------------------------------------------------------


def test_a_reply_streams(driver: H3Driver) -> None:
    job, answer = begin(driver)
    start(job, headers=[(b"content-type", b"text/event-stream")])
    driver.flush()
    assert answer.statuses == [200]
    expected = b""
    for size in (1, 10, 5000, 4095, 4096, 4097, 20_000):
        job.exchange.write(b"e" * size, False)
        driver.flush()
        expected += b"e" * size
        assert answer.content == expected
        assert not answer.ended
    job.exchange.write(b"", True)
    driver.flush()
    assert (answer.content, answer.ended) == (expected, True)
    assert driver.idle()


def test_trailers_of_a_reply(driver: H3Driver) -> None:
    job, answer = begin(driver)
    start(job, b"one")
    assert job.exchange.sink is not None
    job.exchange.sink.trailers([(b"x-sum", b"7")])
    job.exchange.write(b"two", True)
    driver.flush()
    assert answer.content == b"onetwo"
    assert answer.sections[-1] == {b"x-sum": b"7"}
    assert answer.ended


def test_continue(driver: H3Driver) -> None:
    fields = (*POST, (b"expect", b"100-continue"), (b"content-length", b"2"))
    job, answer = begin(driver, fields, fin=False)
    assert answer.statuses == [100]
    driver.feed(0, data(b"ok"), fin=True)
    job.answer()
    driver.flush()
    assert (answer.statuses, answer.content) == ([100, 200], b"ok")
    assert driver.idle()


def test_a_slow_client_pauses_the_upstream(stand: Stand) -> None:
    driver = H3Driver(stand, max_stream_data_bidi_local=10_000)
    job, answer = begin(driver)
    start(job)
    written = 0
    while not job.paused:
        job.exchange.write(b"x" * 8000, False)
        written += 8000
        assert written <= HIGH + 30_000, "bounded"
    driver.flush()
    assert job.paused, "the client's window is used up"
    assert len(answer.raw) == 10_000
    assert len(stand.deadlines.members) == 1
    driver.send(b"\x11\0" + write(30_000))
    assert job.paused
    driver.send(b"\x11\0" + write(1 << 20))
    assert not job.paused
    job.exchange.write(b"", True)
    driver.flush()
    assert answer.content == b"x" * written
    assert driver.idle()


def test_a_client_that_does_not_read_is_given_up(stand: Stand) -> None:
    driver = H3Driver(stand, max_stream_data_bidi_local=1000)
    job, answer = begin(driver)
    start(job)
    while not job.paused:
        job.exchange.write(b"x" * 8000, False)
    driver.flush()
    for _ in range(10):
        stand.deadlines.sweep(stand.deadlines.now + stand.snapshot.client.timeouts.write + 1)
    driver.flush()
    assert job.cancelled
    assert answer.reset is not None
    assert driver.idle()
    stand.deadlines.now = stand.loop.now


def test_an_abort_is_a_reset_behind_what_was_written(driver: H3Driver) -> None:
    job, answer = begin(driver)
    start(job, b"some")
    job.exchange.write(b" more", False)
    job.exchange.fail(upstream_fault(502, "broken", "The upstream broke off."))
    driver.flush()
    assert (answer.content, answer.ended, answer.reset) == (b"some more", False, h3.INTERNAL_ERROR)
    assert driver.idle()


def test_a_fault_before_the_reply_is_a_status(driver: H3Driver) -> None:
    job, answer = begin(driver)
    job.exchange.fail(edge_fault(503, "x", "No."))
    driver.flush()
    assert (answer.statuses, answer.ended, answer.reset) == ([503], True, None)
    assert driver.idle()


# -- bodies ----------------------------------------------------------------------------------------------------------


def test_window_follows_the_upstream(stand: Stand) -> None:
    """What the upstream does not take is not granted; what it takes is."""
    driver = H3Driver(stand, Limits(stream_window=20_000, connection_window=100_000))
    job, _ = begin(driver, POST, fin=False)
    stream = driver.wire.connection.streams.by_id[0]
    job.exchange.body.pause()
    for _ in range(15):
        driver.feed(0, data(b"x" * 1000))
    assert job.exchange.body.waiting == driver.session.bodies == 15_000
    before = stream.window_end
    job.exchange.body.resume()
    driver.flush()
    assert driver.session.bodies == 0
    assert stream.window_end > before
    assert stream.consumed == stream.received


def later(driver: H3Driver) -> None:
    """Past the time after which a client is asked to stop sending."""
    deadlines = driver.stand.deadlines
    deadlines.sweep(deadlines.now + 2)
    driver.flush()


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("size", [0, 1, 30_000])
def test_an_early_answer_releases_the_body(driver: H3Driver, size: int, whole: bool) -> None:
    """RFC 9114 §4.1.1: the client need not send the rest; nothing of it stays accounted for."""
    stream_id = driver.next
    driver.feed(stream_id, head(POST))
    [job] = driver.stand.pool.jobs
    job.exchange.body.pause()
    for at in range(0, size, 1000):
        driver.feed(stream_id, data(bytes(min(1000, size - at))))
    assert driver.session.bodies == size
    if whole:
        driver.feed(stream_id, b"", fin=True)
    job.exchange.fail(edge_fault(503, "x", "No."))
    driver.flush()
    answer = driver.answers[stream_id]
    assert (answer.statuses, answer.ended, answer.reset) == ([503], True, None)
    assert answer.stopped is None, "who gets that first may forget the answer"
    later(driver)
    assert answer.stopped == (None if whole else h3.NO_ERROR)
    if not whole:
        driver.feed(stream_id, data(bytes(1000)))
        driver.send(b"\x04%b\x41\0%b" % (write(stream_id), write(driver.offsets[stream_id])))
    assert driver.idle()
    connection = driver.wire.connection
    assert not connection.streams.busy
    assert connection.data_consumed == connection.data_received
    assert driver.app._faults == 0, "the answer to STOP_SENDING is no cancelled request"


def test_a_body_that_is_too_large(stand: Stand) -> None:
    limit = stand.snapshot.routes[0].max_body
    driver = H3Driver(stand)
    driver.feed(0, head((*POST, (b"content-length", b"%d" % (limit + 1)))))
    assert driver.answers[0].statuses == [413]
    later(driver)
    assert driver.answers[0].stopped == h3.NO_ERROR
    assert driver.idle()


@pytest.mark.parametrize("when", ["with the head", "later"])
def test_a_worker_that_holds_too_much(driver: H3Driver, when: str) -> None:
    driver.session.most = 5000
    if when == "later":
        driver.feed(0, head(POST))
        driver.stand.pool.jobs[0].exchange.body.pause()
        for _ in range(6):
            driver.feed(0, data(bytes(1000)))
    else:
        driver.session.bodies = 6000  # of others
        driver.feed(0, head((*POST, (b"content-length", b"10"))) + data(bytes(10)), fin=True)
        assert driver.stand.pool.jobs == [], "it must not go upstream without its content"
        driver.session.bodies -= 6000
    assert driver.answers[0].statuses == [503]
    later(driver)
    assert driver.idle()


def test_a_body_that_stops_coming(driver: H3Driver) -> None:
    job, answer = begin(driver, POST, fin=False)
    deadlines = driver.stand.deadlines
    deadlines.sweep(deadlines.now + driver.stand.snapshot.client.timeouts.body + 1)
    driver.flush()
    assert answer.statuses == [408]
    assert driver.stand.stats.faults["client", "body_timeout"] == 1
    assert job.cancelled
    later(driver)
    assert driver.idle()


def test_a_head_that_stops_coming(driver: H3Driver) -> None:
    driver.feed(0, head()[:-2])
    deadlines = driver.stand.deadlines
    deadlines.sweep(deadlines.now + driver.stand.snapshot.client.timeouts.head + 1)
    driver.flush()
    assert driver.answers[0].reset == h3.REQUEST_CANCELLED
    assert driver.idle()


# -- cancelling ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("started", [True, False])
@pytest.mark.parametrize("how", ["reset", "stop", "both", "connection"])
def test_the_client_cancels(driver: H3Driver, how: str, started: bool) -> None:
    job, answer = begin(driver, POST, fin=False)
    driver.feed(0, data(b"part"))
    if started:
        start(job, b"some")
        driver.flush()
    reset = b"\x04\0" + write(h3.REQUEST_CANCELLED) + write(driver.offsets[0])
    stop = b"\x05\0" + write(h3.REQUEST_CANCELLED)
    driver.send({"reset": reset, "stop": stop, "both": stop + reset, "connection": b"\x1d\x41\0\0"}[how])
    assert job.cancelled
    assert driver.idle()
    if how != "connection":
        assert answer.reset == h3.REQUEST_CANCELLED
        if how == "stop":
            driver.send(reset)
        assert not driver.wire.connection.streams.busy
        assert driver.error is None
    job.exchange.write(b"late", False)
    job.exchange.write(b"", True)


@pytest.mark.parametrize("piece", [b"\x01", head()[:-1], b""])
def test_cancelled_before_the_head_is_whole(driver: H3Driver, piece: bytes) -> None:
    driver.feed(0, piece)
    driver.send(b"\x04\0" + write(h3.REQUEST_CANCELLED) + write(len(piece)))
    assert driver.app.active == 0
    assert driver.stand.pool.jobs == []
    assert driver.idle()


def test_a_stop_that_overtakes_its_request(driver: H3Driver) -> None:
    driver.send(b"\x05\0" + write(h3.REQUEST_CANCELLED))
    driver.feed(0, head(), fin=True)
    assert driver.stand.pool.jobs == []
    assert driver.answers[0].reset == h3.REQUEST_CANCELLED
    assert driver.idle()


def test_rapid_resets_end_the_connection(driver: H3Driver) -> None:
    burst = driver.stand.snapshot.client.h2.reset_burst
    for index in range(burst + 1):
        assert driver.error is None
        driver.feed(4 * index, head())
        driver.send(b"\x04%b\x41\x0c%b" % (write(4 * index), write(driver.offsets[4 * index])))
    assert driver.error == h3.EXCESSIVE_LOAD
    assert driver.idle()


# -- the end ---------------------------------------------------------------------------------------------------------


def test_drain_of_an_idle_connection(driver: H3Driver) -> None:
    driver.app.drain()
    driver.flush()
    assert driver.goaways == [0]
    assert driver.error == h3.NO_ERROR


def test_drain_with_requests(driver: H3Driver) -> None:
    """RFC 9114 §5.2: announced, still served for a moment, then refused; closed when the last one is done."""
    job, answer = begin(driver)
    driver.app.drain()
    driver.app.drain()
    driver.flush()
    assert driver.goaways == [(1 << 62) - 4]
    second, late = begin(driver)
    assert driver.session.h3_deadline < NEVER
    driver.app.expire(driver.session.h3_deadline)
    driver.flush()
    assert driver.goaways == [(1 << 62) - 4, 8]
    driver.feed(8, head(), fin=True)
    assert driver.answers[8].reset == h3.REQUEST_REJECTED
    assert len(driver.stand.pool.jobs) == 2
    job.answer()
    driver.flush()
    assert (answer.statuses, driver.error) == ([200], None)
    second.answer()
    driver.flush()
    assert late.statuses == [200]
    driver.send(b"\x01")
    assert driver.error == h3.NO_ERROR
    assert driver.idle()


def test_drain_waits_for_acknowledgments(driver: H3Driver) -> None:
    job, _ = begin(driver)
    driver.acknowledges = False
    driver.app.drain()
    driver.app.expire(0.0)
    job.answer()
    driver.flush()
    assert driver.error is None, "the reply may be lost yet"
    driver.acknowledges = True
    driver.wire.acknowledge()
    driver.flush()
    assert driver.error == h3.NO_ERROR


def test_an_idle_connection_has_a_deadline(driver: H3Driver) -> None:
    assert driver.session.h3_deadline < NEVER
    job, _ = begin(driver)
    assert driver.session.h3_deadline == NEVER
    job.answer()
    driver.flush()
    assert driver.session.h3_deadline < NEVER
    driver.app.expire(driver.session.h3_deadline)
    driver.flush()
    assert driver.error == h3.NO_ERROR


def test_requests_on_many_bounded_streams(stand: Stand) -> None:
    """More than fit at a time, over and over: credit for streams and bytes never runs out."""
    stand.pool.answers = True
    driver = H3Driver(stand, Limits(max_streams=8, stream_window=5000, connection_window=8000))
    for index in range(100):
        answer = driver.request(POST, bytes(1000 + index))
        assert (answer.statuses, len(answer.content)) == ([200], 1000 + index)
        driver.send(b"\x01")
    assert driver.idle()
