# Requests over HTTP/3 in any pieces: what reaches the pool, what comes back, and what a client that lies gets.
"""listen/h3.py and listen/h3_stream.py over the real transport."""

from __future__ import annotations

import gc

import pytest
from support.h3_stand import GET, POST, SETTINGS, H3Driver, data, frame, head
from support.pipeline import Stand

from edgeproxy.listen import h3_codes as h3
from edgeproxy.listen.h3_stream import H3Stream
from edgeproxy.quic.varint import write


@pytest.fixture(scope="module")
def stand() -> Stand:
    return Stand()


@pytest.fixture
def driver(stand: Stand) -> H3Driver:
    stand.pool.answers = True
    stand.deadlines.members.clear()
    stand.stats.streams_open = 0
    return H3Driver(stand)


LENGTH = (b"content-length", b"11")
TRAILERS = head([(b"x-sum", b"1")])
CASES = [
    (head(GET), b"", 0, None),
    (head(POST) + data(b"hello world"), b"hello world", None, None),
    (head((*POST, LENGTH)) + data(b"hello") + frame(0x21, b"grease") + data(b" world"), b"hello world", 11, None),
    (head((*POST, LENGTH)) + data(b"hello world") + head([(b"x-sum", b"1")]), b"hello world", 11, [(b"x-sum", b"1")]),
    (head((*POST, (b"content-length", b"0"))), b"", 0, None),
    (head(POST) + data(b"") + head([(b"x-sum", b"2")]), b"", None, [(b"x-sum", b"2")]),
]


def test_settings_come_first(driver: H3Driver) -> None:
    raw = driver.answers[3].raw
    assert raw[:2] == b"\0\x04"
    assert raw[3 : 3 + raw[2]] == b"\x01\0\x06" + write(driver.stand.snapshot.client.max_head) + b"\x07\0"


@pytest.mark.parametrize(("raw", "body", "length", "trailers"), CASES)
def test_pieces_make_no_difference(
    driver: H3Driver, raw: bytes, body: bytes, length: int | None, trailers: list[tuple[bytes, bytes]] | None
) -> None:
    stand = driver.stand
    stand.pool.jobs = []
    splits = [(0, 0), (1, 0), (7, 0), *((0, at) for at in range(1, len(raw), 3))]
    for index, (step, at) in enumerate(splits):
        stream_id = 4 * index
        if at:
            driver.feed(stream_id, raw[:at])
            driver.feed(stream_id, raw[at:], fin=True)
        else:
            driver.feed(stream_id, raw, fin=True, step=step)
        answer = driver.answers[stream_id]
        assert (answer.statuses, answer.content, answer.ended) == ([200], body, True)
        assert (answer.reset, answer.stopped) == (None, None)
        job = stand.pool.jobs[index]
        assert (job.body, job.ended, job.trailers) == (body, True, trailers)
        assert job.exchange.request.length in ({length, 0} if not body else {length})
        assert job.head.startswith(job.exchange.request.method + b" /a HTTP/1.1\r\n")
        driver.send(b"\x01")  # and what is acknowledged
    assert driver.idle()
    assert not driver.wire.connection.streams.busy
    assert driver.error is None
    connection = driver.wire.connection
    assert connection.data_consumed == connection.data_received


def test_head_requests(driver: H3Driver) -> None:
    answer = driver.request(((b":method", b"HEAD"), *GET[1:]))
    assert (answer.statuses, answer.content, answer.ended) == ([200], b"", True)


def test_the_same_head_again_with_another_length(driver: H3Driver) -> None:
    """Sections that equal the last one but for Content-Length are not planned anew, and mean what they say."""
    for size in (3, 5, 5, 0, 12):
        content = b"x" * size
        answer = driver.request((*POST, (b"content-length", b"%d" % size)), content)
        assert (answer.statuses, answer.content) == ([200], content)
    lying = driver.request((*POST, (b"content-length", b"4")), b"12345")
    assert lying.reset == h3.MESSAGE_ERROR
    assert driver.request((*POST, (b"content-length", b"x")), b"1").statuses == [400]
    assert [job.exchange.request.length for job in driver.stand.pool.jobs] == [3, 5, 5, 0, 12]
    assert driver.idle()


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize(("declared", "sent"), [(b"4", b"12345"), (b"6", b"12345"), (b"0", b"x"), (b"1", b"")])
def test_content_length_lies(driver: H3Driver, declared: bytes, sent: bytes, step: int) -> None:
    """RFC 9114 §4.1.2."""
    raw = head((*POST, (b"content-length", declared))) + (data(sent) if sent else b"")
    driver.feed(0, raw, fin=True, step=step)
    assert driver.answers[0].reset == h3.MESSAGE_ERROR
    assert not driver.answers[0].ended
    assert all(job.cancelled or not job.ended for job in driver.stand.pool.jobs)
    assert driver.error is None
    driver.next = 4
    assert driver.request().statuses == [200]
    assert driver.idle()


@pytest.mark.parametrize(("fields", "status"), [
    ((*GET, (b"x_y", b"1")), 400), ((*GET[:3], (b":path", b"no-slash")), 400), (GET[:2] + GET[3:], 400),
    ((*GET[:3], (b":path", b"/" + b"x" * 20000)), 414), ((*GET, (b"a", b"x" * 33_000)), 431),
    (((b":method", b"CONNECT"), *GET[1:]), 405), ((*GET, (b"host", b"other")), 400), ((*POST, (b"expect", b"magic")), 417),
])  # fmt: skip
def test_refused_with_a_status(driver: H3Driver, fields: tuple[tuple[bytes, bytes], ...], status: int) -> None:
    answer = driver.request(fields)
    assert (answer.statuses, answer.ended) == ([status], True)
    assert driver.stand.pool.jobs == []
    assert driver.request().statuses == [200]
    assert driver.idle()


@pytest.mark.parametrize("fields", [(), GET[1:], (*GET, GET[0]), (*GET, (b"Upper", b"x")), (*GET, (b"connection", b"close"))])
def test_malformed_messages_end_their_stream(driver: H3Driver, fields: tuple[tuple[bytes, bytes], ...]) -> None:
    driver.feed(0, head(fields) if fields else frame(1, b"\0\0"), fin=True)
    assert driver.answers[0].reset == h3.MESSAGE_ERROR
    assert driver.error is None
    assert driver.idle()


@pytest.mark.parametrize(("raw", "code"), [
    (b"", h3.REQUEST_INCOMPLETE), (frame(0x21, b"grease"), h3.REQUEST_INCOMPLETE),
])  # fmt: skip
def test_a_request_without_a_head(driver: H3Driver, raw: bytes, code: int) -> None:
    """RFC 9114 §4.1."""
    driver.feed(0, raw, fin=True)
    assert driver.answers[0].reset == code
    assert driver.idle()
    driver.next = 4
    assert driver.request().statuses == [200]


@pytest.mark.parametrize(("raw", "code"), [
    (data(b"x"), h3.FRAME_UNEXPECTED), (head()[:-1], h3.FRAME_ERROR), (head() + b"\0\x05abc", h3.FRAME_ERROR),
    (b"\x01\xc0\0\0", h3.FRAME_ERROR), (b"\x01\x40\xff\0", h3.FRAME_ERROR),
    (b"\x01\x04\0\0\xff\xff", h3.QPACK_DECOMPRESSION_FAILED),
    (head() + TRAILERS + TRAILERS, h3.FRAME_UNEXPECTED), (SETTINGS[1:], h3.FRAME_UNEXPECTED),
    (b"\x01\x80\x0f\xff\xff" + bytes(100), h3.EXCESSIVE_LOAD), (head() + head(GET[:1]), None),
])  # fmt: skip
@pytest.mark.parametrize("step", [0, 1])
def test_what_ends_the_connection(driver: H3Driver, raw: bytes, code: int | None, step: int) -> None:
    driver.feed(0, raw, fin=True, step=step)
    assert driver.error == code
    if code is None:
        assert driver.answers[0].reset == h3.MESSAGE_ERROR, "pseudo-header fields in the trailers"
    else:
        assert driver.app.quic is None
    assert driver.idle()


@pytest.mark.parametrize(("stream", "code"), [
    (b"\0" + frame(h3.GOAWAY, b"\0"), h3.MISSING_SETTINGS), (b"\x01", h3.STREAM_CREATION_ERROR),
    (b"\x02\x21", h3.QPACK_ENCODER_STREAM_ERROR), (b"\x03\x80", h3.QPACK_DECODER_STREAM_ERROR),
])  # fmt: skip
def test_bad_one_way_streams(driver: H3Driver, stream: bytes, code: int) -> None:
    driver.feed(2, stream)
    assert driver.error == code


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("end", ["fin", "reset"])
@pytest.mark.parametrize("stream", [SETTINGS, b"\x02", b"\x03"])
def test_critical_streams_must_not_end(driver: H3Driver, stream: bytes, end: str, together: bool) -> None:
    """RFC 9114 §6.2.1, RFC 9204 §4.2."""
    driver.feed(2, stream, fin=together and end == "fin")
    if end == "reset":
        driver.send(b"\x04\x02\0" + write(len(stream)))
    elif not together:
        driver.feed(2, b"", fin=True)
    assert driver.error == h3.CLOSED_CRITICAL_STREAM


def test_our_control_stream_must_not_be_refused(driver: H3Driver) -> None:
    driver.send(b"\x05\x03\0")
    assert driver.error == h3.CLOSED_CRITICAL_STREAM


def test_unknown_one_way_streams(driver: H3Driver) -> None:
    driver.feed(2, b"\x21" + bytes(100))
    assert driver.answers[2].stopped == h3.STREAM_CREATION_ERROR
    driver.feed(2, bytes(1000), fin=True)
    driver.feed(6, b"\x40", fin=True)
    driver.send(b"\x04\x0a\0\0")
    assert driver.error is None
    assert driver.request().statuses == [200]
    connection = driver.wire.connection
    assert connection.data_consumed == connection.data_received


def test_noise_is_bounded(driver: H3Driver) -> None:
    driver.feed(0, head(POST))
    for _ in range(70):
        driver.feed(0, frame(0x21, bytes(1000)))
    assert driver.error == h3.EXCESSIVE_LOAD


def test_heads_of_many_streams_are_no_noise(driver: H3Driver) -> None:
    """A hundred streams that send their heads in turns, piece by piece."""
    raw = head((*GET, *((b"x-%d" % index, b"value" * 20) for index in range(30))))
    for at in range(0, len(raw), 700):
        for index in range(100):
            driver.feed(4 * index, raw[at : at + 700], fin=at + 700 >= len(raw))
    assert driver.error is None
    assert [driver.answers[4 * index].statuses for index in range(100)] == [[200]] * 100
    assert driver.idle()


def test_finished_streams_are_no_cycles(driver: H3Driver) -> None:
    gc.collect()
    gc.disable()
    try:
        driver.request()
        driver.request(POST, b"content")
        driver.feed(8, head(POST))
        driver.send(b"\x04\x08\0" + write(driver.offsets[8]))
        driver.next = 12
        driver.request((*GET, (b"x_y", b"1")))
        driver.stand.pool.jobs = []
        driver.answers.clear()
        driver.send(b"\x01")
        left = [thing for thing in gc.get_objects() if type(thing) is H3Stream]
        assert left == []
    finally:
        gc.enable()
