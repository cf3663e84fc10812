# Real H1Connection over fake bytes: whole, byte by byte and split at every position it must come to the same.
"""listen/h1.py and listen/h1_head.py behind `support.pipeline`."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.edge import configuration
from support.malformed import EVERYTHING, Case
from support.pipeline import Stand

from edgeproxy.message import Reply

HOST = b"Host: localhost\r\n"
GET = b"GET /a?b=c HTTP/1.1\r\n" + HOST + b"Accept: */*\r\n\r\n"
HEAD = b"HEAD /h HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /p HTTP/1.1\r\n" + HOST + b"Content-Length: 11\r\n\r\nhello world"
EMPTY = b"POST /e HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n"
CHUNKED = b"PUT /c HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
TRAILERS = (
    b"POST /t HTTP/1.1\r\n" + HOST + b"Trailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nConnection: x\r\nHost: evil\r\n\r\n"
)
CLOSE = b"GET /z HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
OLD = b"GET /old HTTP/1.0\r\n" + HOST + b"\r\n"
OLD_KEPT = b"GET /kept HTTP/1.0\r\n" + HOST + b"Connection: keep-alive\r\n\r\n"
ABSOLUTE = b"GET https://localhost/abs?q HTTP/1.1\r\n" + HOST + b"\r\n"
BLANK = b"\r\n\r\n" + GET
HOPS = (
    b"GET /hops HTTP/1.1\r\n" + HOST + b"Connection: x-one, X-Two\r\nX-One: 1\r\nX-Two: 2\r\nX-Three: 3\r\nTE: trailers\r\n"
    b"Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\n\r\n"
)
OPTIONS = b"OPTIONS /o HTTP/1.1\r\n" + HOST + b"\r\n"
MESSAGES = [GET, HEAD, POST, EMPTY, CHUNKED, TRAILERS, OLD_KEPT, ABSOLUTE, BLANK, HOPS, OPTIONS]
LAST = [CLOSE, OLD]
SEQUENCES = [
    *[[message] for message in MESSAGES + LAST],
    [GET, GET, GET], [POST, POST], [CHUNKED, POST, GET, CLOSE], [HEAD, GET, OLD], [EMPTY, TRAILERS, HOPS],
]  # fmt: skip
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.fixture(scope="module")
def stand() -> Stand:
    return Stand()


@pytest.mark.parametrize("sequence", SEQUENCES, ids=lambda sequence: b" + ".join(s.split()[1] for s in sequence).decode())
def test_pieces_make_no_difference(stand: Stand, sequence: list[bytes]) -> None:
    raw = b"".join(sequence)
    whole = stand.h1().feed(raw).result()
    assert len(whole[0]) == len(sequence)
    assert whole[1].count(b"HTTP/1.1 200 OK") == len(whole[0])
    assert stand.h1().feed(raw, step=1).result() == whole
    for at in range(1, len(raw)):
        assert stand.h1().feed(raw[:at]).feed(raw[at:]).result() == whole, at


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_sequence_in_any_pieces(data: st.DataObject) -> None:
    stand = _shared()
    raw = b"".join(data.draw(st.lists(st.sampled_from(MESSAGES), min_size=1, max_size=5)))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=12)))
    whole = stand.h1().feed(raw).result()
    driver = stand.h1()
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        driver.feed(raw[start:end])
    assert driver.result() == whole


_stands: list[Stand] = []


def _shared() -> Stand:
    """One stand serves all examples; it holds nothing between connections."""
    if not _stands:
        _stands.append(Stand())
    return _stands[0]


@pytest.mark.parametrize(
    "case", [case for case in EVERYTHING if case.early and len(case.raw) < 400], ids=lambda case: case.name
)
def test_what_is_refused_is_refused_in_any_pieces(stand: Stand, case: Case) -> None:
    for at in range(1, len(case.raw)):
        driver = stand.h1().feed(case.raw[:at]).feed(case.raw[at:])
        assert stand.pool.jobs == [], at
        assert int(driver.link.text[9:12]) in case.statuses, at
        assert driver.link.closed or not case.closes


@pytest.mark.parametrize(
    "case", [case for case in EVERYTHING if case.early and len(case.raw) < 400], ids=lambda case: case.name
)
def test_what_is_refused_is_refused_behind_a_request_that_runs(stand: Stand, case: Case) -> None:
    """The bad head comes in two reads while the request before it still waits for its answer."""
    for at in (1, 9, len(case.raw) // 2, len(case.raw) - 1):
        stand.pool.answers = False
        driver = stand.h1().feed(GET + case.raw[:at]).feed(case.raw[at:])
        stand.pool.answers = True
        if stand.pool.jobs:
            assert len(stand.pool.jobs) == 1
            stand.pool.jobs[0].answer()
            assert len(stand.pool.jobs) == 1
            assert driver.link.text.startswith(b"HTTP/1.1 200 OK")
        answers = driver.link.text.split(b"HTTP/1.1 ")[1:]
        assert int(answers[-1][:3]) in case.statuses, at


def test_noise_is_refused_without_an_exchange(stand: Stand) -> None:
    driver = stand.h1().feed(b"\x16\x03\x01\x02\x00")
    assert driver.link.text.startswith(b"HTTP/1.1 400 ")
    assert driver.link.closed
    assert not stand.pool.jobs


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_end_well(raw: bytes) -> None:
    """Never an exception of ours, and behind a refusal nothing more."""
    stand = _shared()
    driver = stand.h1().feed(raw)
    assert not stand.pool.jobs or driver.link.written
    assert driver.link.text.count(b"HTTP/1.1 ") <= 1 + len(stand.pool.jobs)


# -- order, keep-alive and close ---------------------------------------------------------------------------------


def test_pipelined_answers_keep_their_order(stand: Stand) -> None:
    stand.pool.answers = False
    driver = stand.h1().feed(GET.replace(b"/a", b"/1") + GET.replace(b"/a", b"/2") + GET.replace(b"/a", b"/missing..") + POST)
    assert len(stand.pool.jobs) == 1, "one at a time"
    stand.pool.jobs[0].answer(201)
    assert len(stand.pool.jobs) == 2
    stand.pool.jobs[1].answer(202)
    stand.pool.jobs[2].answer(203)
    stand.pool.jobs[3].answer(200)
    stand.pool.answers = True
    statuses = [int(part[:3]) for part in driver.link.text.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [201, 202, 203, 200]
    assert driver.link.text.endswith(b"hello world")


def test_reading_stops_when_too_many_requests_wait(stand: Stand) -> None:
    stand.pool.answers = False
    driver = stand.h1().feed(GET * 40)
    stand.pool.answers = True
    assert driver.link.paused
    for _ in range(40):
        stand.pool.jobs[-1].answer()
    assert len(stand.pool.jobs) == 40
    assert not driver.link.paused


@pytest.mark.parametrize("behind", [b"X: " + b"y" * 1024, b"X: y\r\n" * 128, b"y" * 1024], ids=["value", "fields", "junk"])
def test_a_head_behind_a_running_request_is_bounded_too(stand: Stand, behind: bytes) -> None:
    """A slow answer must not be a licence to fill memory with the next head."""
    stand.pool.answers = False
    driver = stand.h1().feed(GET + b"GET /bad HTTP/1.1\r\nHost: localhost\r\n")
    for _ in range(2000):
        if driver.link.paused or driver.h1._parser is None:
            break
        driver.feed(behind)
    stand.pool.answers = True
    held = sum(len(name) + len(value) for name, value in driver.h1._fields)
    assert driver.link.paused or driver.h1._parser is None, f"{held} bytes of fields held, and still reading"
    assert held < 128 * 1024


@pytest.mark.parametrize(("message", "closes"), [
    (GET, False), (POST, False), (CLOSE, True), (OLD, True), (OLD_KEPT, False),
    (GET.replace(b"Accept: */*", b"Connection: Close"), True),
    (GET.replace(b"Accept: */*", b"Connection: x, close"), True),
    (OLD_KEPT.replace(b"keep-alive", b"close"), True),
])  # fmt: skip
def test_keep_alive_and_close(stand: Stand, message: bytes, closes: bool) -> None:
    driver = stand.h1().feed(message)
    assert driver.link.closed is closes
    assert (b"connection: close\r\n" in driver.link.text) is closes
    assert (b"connection: keep-alive\r\n" in driver.link.text) is (message is OLD_KEPT)
    before = len(stand.pool.jobs)
    driver.feed(GET)
    assert len(stand.pool.jobs) == before + (not closes)


def test_a_reply_without_length(stand: Stand) -> None:
    """Chunked for 1.1, until the end of the connection for 1.0."""
    stand.pool.answers = False
    new = stand.h1().feed(GET)
    job = stand.pool.jobs[0]
    job.exchange.gateway.reply(job.exchange, Reply(200, [], None), b"abc", False)
    job.exchange.write(b"def", False)
    job.exchange.write(b"", True)
    old = stand.h1().feed(OLD_KEPT)
    job = stand.pool.jobs[0]
    job.exchange.gateway.reply(job.exchange, Reply(200, [], None), b"abc", False)
    assert not old.link.closed
    job.exchange.write(b"def", True)
    stand.pool.answers = True
    assert new.link.text.endswith(b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")
    assert not new.link.closed
    assert old.link.text.endswith(b"connection: close\r\n\r\nabcdef")
    assert b"transfer-encoding" not in old.link.text
    assert old.link.closed


@pytest.mark.parametrize("status", [204, 304, 200])
def test_no_content_where_there_can_be_none(stand: Stand, status: int) -> None:
    stand.pool.answers = False
    driver = stand.h1().feed(HEAD if status == 200 else GET)
    job = stand.pool.jobs[0]
    job.exchange.gateway.reply(job.exchange, Reply(status, [], 5, bodiless=True), b"", True)
    stand.pool.answers = True
    assert driver.link.text.endswith(b"\r\n\r\n")
    assert (b"content-length: 5\r\n" in driver.link.text) is (status != 204)
    assert b"transfer-encoding" not in driver.link.text
    assert not driver.link.closed


@pytest.mark.parametrize("pieces", [[CLOSE + GET], [CLOSE, GET], [CLOSE[:-1], CLOSE[-1:] + GET], [OLD + GET], [OLD, GET]])
def test_what_follows_a_close_is_no_request(stand: Stand, pieces: list[bytes]) -> None:
    driver = stand.h1()
    for piece in pieces:
        driver.feed(piece)
    assert len(stand.pool.jobs) <= 1
    assert driver.link.text.count(b"HTTP/1.1 ") == 1
    assert driver.link.closed


def test_framing_in_trailers_is_refused_or_dropped(stand: Stand) -> None:
    for field in (b"Content-Length: 99", b"Transfer-Encoding: chunked", b"Host: evil"):
        driver = stand.h1().feed(TRAILERS.replace(b"X-Sum: 1", field))
        if stand.pool.jobs:
            assert not stand.pool.jobs[0].trailers
        else:
            assert driver.link.text.startswith(b"HTTP/1.1 400 ")


# -- 100 (Continue) ----------------------------------------------------------------------------------------------

EXPECT = b"POST /x HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"


def test_continue_comes_once_and_first(stand: Stand) -> None:
    driver = stand.h1().feed(EXPECT)
    assert driver.link.text == CONTINUE
    driver.feed(b"hel").feed(b"lo")
    assert driver.link.text.count(b"HTTP/1.1 ") == 2
    assert driver.link.text.endswith(b"hello")
    assert b"expect" not in stand.pool.jobs[0].head


def test_no_continue_when_the_content_is_here(stand: Stand) -> None:
    assert CONTINUE not in stand.h1().feed(EXPECT + b"hello").link.text


def test_no_continue_for_1_0_or_behind_a_refusal(stand: Stand) -> None:
    old = stand.h1().feed(EXPECT.replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert old.link.text == b""
    large = stand.h1().feed(EXPECT.replace(b"Length: 5", b"Length: 99999999"))
    assert large.link.text.startswith(b"HTTP/1.1 413 ")
    assert large.link.closed


# -- content -----------------------------------------------------------------------------------------------------


def test_too_much_content_in_chunks() -> None:
    stand = Stand(configuration(client={"max_body": "1KiB"}))
    driver = stand.h1().feed(CHUNKED.partition(b"5;")[0])
    for _ in range(3):
        driver.feed(b"190\r\n" + b"x" * 400 + b"\r\n")
    assert driver.link.text.startswith(b"HTTP/1.1 413 ")
    assert driver.link.closed and driver.link.lingering
    assert stand.pool.jobs[0].cancelled and not stand.pool.jobs[0].ended


@pytest.mark.parametrize("rest", [b"g\r\n", b"5\r\nhelloX", b"\r\n", b"-1\r\n", b"5\nhello"])
def test_a_late_fault_cuts_the_upstream_off(stand: Stand, rest: bytes) -> None:
    driver = stand.h1().feed(CHUNKED.partition(b"6\r\n")[0])
    job = stand.pool.jobs[0]
    driver.feed(rest)
    assert job.cancelled and not job.ended
    assert driver.link.text.startswith(b"HTTP/1.1 400 ")
    assert driver.link.closed
    assert driver.feed(GET).link.text.count(b"HTTP/1.1 ") == 1


def test_a_late_fault_behind_the_reply_s_head_is_a_reset(stand: Stand) -> None:
    driver = stand.h1().feed(CHUNKED.partition(b"6\r\n")[0])
    job = stand.pool.jobs[0]
    job.exchange.gateway.reply(job.exchange, Reply(200, [], None), b"abc", False)
    driver.feed(b"g\r\n")
    assert job.cancelled and not job.ended
    assert driver.link.aborted
    assert not driver.link.text.endswith(b"0\r\n\r\n")


def test_extensions_are_bounded(stand: Stand) -> None:
    driver = stand.h1().feed(CHUNKED.partition(b"5;")[0])
    for _ in range(40):
        driver.feed(b"1;" + b"x" * 1000 + b"\r\na\r\n")
    assert driver.link.text.startswith(b"HTTP/1.1 400 ")
    assert stand.pool.jobs[0].cancelled


def test_trailers_are_kept_without_framing(stand: Stand) -> None:
    stand.h1().feed(TRAILERS)
    assert stand.pool.jobs[0].trailers == [(b"x-sum", b"1")]
    assert b"trailer" not in stand.pool.jobs[0].head


def test_an_early_answer_closes(stand: Stand) -> None:
    """What the client still sends would be taken for its next request."""
    driver = stand.h1().feed(POST[:-5])
    stand.pool.jobs[0].answer(403)
    assert b"connection: close\r\n" in driver.link.text
    assert driver.link.closed and driver.link.lingering


def test_hop_by_hop_fields_stay_here(stand: Stand) -> None:
    stand.h1().feed(HOPS)
    head = stand.pool.jobs[0].head
    assert b"x-three: 3\r\n" in head
    for name in (b"x-one", b"x-two", b"connection", b"te:", b"keep-alive", b"proxy-"):
        assert name not in head
