# How an HTTP/1.1 connection ends: the client leaves, a deadline passes, the edge drains, something breaks.
"""listen/h1.py behind `support.pipeline`."""

from __future__ import annotations

import pytest
from support.edge import configuration
from support.pipeline import Stand

from edgeproxy.deadlines import NEVER
from edgeproxy.faults import client_fault
from edgeproxy.message import Reply

HOST = b"Host: localhost\r\n"
GET = b"GET /a?b=c HTTP/1.1\r\n" + HOST + b"Accept: */*\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\n" + HOST + b"Content-Length: 11\r\n\r\nhello world"


@pytest.fixture(scope="module")
def stand() -> Stand:
    return Stand()


@pytest.mark.parametrize("way", ["eof", "lost"])
def test_a_client_that_leaves_cancels(stand: Stand, way: str) -> None:
    stand.pool.answers = False
    driver = stand.h1().feed(POST + GET)
    stand.pool.answers = True
    if way == "eof":
        driver.h1.eof_received()
    else:
        driver.h1.connection_lost(None)
    assert stand.pool.jobs[0].cancelled
    assert len(stand.pool.jobs) == 1, "what waited behind it is forgotten"


def test_the_head_has_one_deadline() -> None:
    stand = Stand(configuration(client={"timeouts": {"head": "10s", "idle": "60s"}}))
    driver = stand.h1()
    assert driver.link.deadline == stand.deadlines.now + 60
    driver.feed(GET[:5])
    due = stand.deadlines.now + 10
    assert driver.link.deadline == due
    stand.deadlines.now += 9
    driver.feed(GET[5:9])
    assert driver.link.deadline == due, "dripping does not help"
    driver.h1.expire(due + 1)
    assert driver.link.text.startswith(b"HTTP/1.1 408 ")
    assert driver.link.closed


def test_an_idle_connection_just_closes(stand: Stand) -> None:
    driver = stand.h1()
    driver.h1.expire(stand.deadlines.now + 61)
    assert driver.link.closed and driver.link.text == b""


def test_a_body_that_stops_coming() -> None:
    stand = Stand(configuration(client={"timeouts": {"body": "20s"}}))
    driver = stand.h1().feed(POST[:-5])
    assert driver.link.deadline == stand.deadlines.now + 20
    stand.deadlines.now += 15
    driver.feed(POST[-5:-3])
    assert driver.link.deadline == stand.deadlines.now + 20, "progress counts"
    driver.h1.expire(stand.deadlines.now + 21)
    assert driver.link.text.startswith(b"HTTP/1.1 408 ")
    assert stand.pool.jobs[0].cancelled


def test_no_deadline_of_ours_while_the_upstream_works(stand: Stand) -> None:
    stand.pool.answers = False
    driver = stand.h1().feed(POST)
    stand.pool.answers = True
    assert driver.link.deadline == NEVER


def test_a_client_that_does_not_read_is_cut(stand: Stand) -> None:
    stand.pool.answers = False
    driver = stand.h1().feed(GET)
    stand.pool.answers = True
    job = stand.pool.jobs[0]
    job.exchange.gateway.reply(job.exchange, Reply(200, [], None), b"abc", False)
    driver.h1.pause_writing()
    assert job.paused
    driver.h1.expire(driver.link.deadline + 1)
    assert job.cancelled
    assert driver.link.aborted


def test_draining() -> None:
    stand = Stand()
    idle = stand.h1()
    idle.h1.drain()
    assert idle.link.closed
    stand.pool.answers = False
    busy = stand.h1().feed(GET)
    busy.h1.drain()
    assert not busy.link.closed
    stand.pool.jobs[0].answer()
    assert b"connection: close\r\n" in busy.link.text
    assert busy.link.closed


def test_a_fault_of_ours_after_the_head_is_a_reset(stand: Stand) -> None:
    stand.pool.answers = False
    driver = stand.h1().feed(GET)
    stand.pool.answers = True
    job = stand.pool.jobs[0]
    job.exchange.gateway.reply(job.exchange, Reply(200, [], 10), b"abc", False)
    job.exchange.fail(client_fault(400, "x", "x"))
    assert driver.link.aborted and not driver.link.closed
