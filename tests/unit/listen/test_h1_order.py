# Requests that share reads: whatever the split, every answer belongs to the request it was made for.
"""Regressions of the first review: the repeat shortcut between messages, clocks of bodies, faults inside a read."""

from __future__ import annotations

import pytest
from support.pipeline import Stand, configuration

from edgeproxy.deadlines import NEVER

POST = b"POST /v1/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n"
GET = b"GET /b HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def stand() -> Stand:
    return Stand()


def targets(stand: Stand) -> list[bytes]:
    return [job.exchange.request.target for job in stand.pool.jobs]


def test_a_known_head_inside_another_one_is_a_field_of_it(stand: Stand) -> None:
    known = GET
    driver = stand.h1().feed(known).feed(known)
    driver.feed(known + b"GET /x HTTP/1.1\r\nHost: localhost\r\nX: ")
    assert targets(stand) == [b"/b"] * 3
    # To a parser this is the value of X and a second Host: refused, and above all no request of its own.
    driver.feed(known)
    assert targets(stand) == [b"/b"] * 3
    assert b"HTTP/1.1 400 " in driver.link.text


def test_the_end_of_a_head_is_not_remembered_as_one(stand: Stand) -> None:
    rest = b"y\r\n\r\n"
    driver = stand.h1().feed(GET + b"GET /x HTTP/1.1\r\nHost: localhost\r\nX: ").feed(rest)
    assert targets(stand) == [b"/b", b"/x"]
    driver.feed(rest)  # to a parser this is the start of nothing
    assert targets(stand) == [b"/b", b"/x"]
    assert driver.link.text.endswith(b"}") and b"HTTP/1.1 400 " in driver.link.text


def test_a_known_head_behind_the_start_of_a_body_s_end(stand: Stand) -> None:
    driver = stand.h1().feed(GET).feed(GET)
    driver.feed(POST + b"hel")
    driver.feed(b"lo" + b"GET /y HTTP/1.1\r\nHost: loc")
    driver.feed(b"alhost\r\n\r\n")
    assert targets(stand) == [b"/b", b"/b", b"/v1/chat", b"/y"]


def test_a_known_head_does_not_overtake_a_running_request(stand: Stand) -> None:
    driver = stand.h1().feed(GET).feed(GET)
    stand.pool.answers = False
    driver.feed(POST + b"hello" + GET)
    driver.feed(GET)
    assert targets(stand) == [b"/b", b"/b", b"/v1/chat"]
    for _ in range(3):
        stand.pool.jobs[-1].answer()
    assert targets(stand)[2:] == [b"/v1/chat", b"/b", b"/b"]


def test_a_body_in_two_reads_has_no_deadline_when_it_is_complete(stand: Stand) -> None:
    stand.pool.answers = False
    driver = stand.h1().feed(POST + b"he")
    assert driver.link.deadline < NEVER
    driver.feed(b"llo")
    assert driver.link.deadline == NEVER


def test_a_body_over_its_limit_takes_what_is_behind_it_along() -> None:
    stand = Stand(configuration(client={"max_body": "1KiB"}))
    driver = stand.h1()
    head = b"POST /v1/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    driver.feed(head + b"5\r\nhello\r\n")
    driver.feed(b"800\r\n" + bytes(2048) + b"\r\n0\r\n\r\n" + GET)
    assert driver.link.text.startswith(b"HTTP/1.1 413 ")
    assert driver.link.text.count(b"HTTP/1.1 ") == 1 and driver.link.closed
    assert targets(stand) == [b"/v1/chat"]


def test_a_reply_that_is_cut_off_by_its_framing_is_not_reset(stand: Stand) -> None:
    from edgeproxy.faults import upstream_fault
    from edgeproxy.message import Reply

    stand.pool.answers = False
    driver = stand.h1().feed(GET)
    exchange = stand.pool.jobs[0].exchange
    exchange.gateway.reply(exchange, Reply(200, [], None), b"data: 1\n\n", False)
    exchange.fail(upstream_fault(502, "truncated", "gone"))
    assert driver.link.was_cut and not driver.link.text.endswith(b"0\r\n\r\n")


def test_a_reply_without_framing_is_reset(stand: Stand) -> None:
    from edgeproxy.faults import upstream_fault
    from edgeproxy.message import Reply

    stand.pool.answers = False
    driver = stand.h1().feed(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
    exchange = stand.pool.jobs[0].exchange
    exchange.gateway.reply(exchange, Reply(200, [], None), b"abc", False)
    exchange.fail(upstream_fault(502, "truncated", "gone"))
    assert driver.link.aborted and not driver.link.was_cut
