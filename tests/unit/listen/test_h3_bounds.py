# What a head may cost, and what a client that ends nothing may hold.
"""listen/h3.py and listen/h3_stream.py against clients that are not fair."""

from __future__ import annotations

import pytest
from support.h3_stand import GET, POST, H3Driver, data, frame, head
from support.pipeline import Stand

from edgeproxy.listen import h3_codes as h3
from edgeproxy.listen import h3_fields
from edgeproxy.quic.streams import CONNECTION_HIGH

START = b"\0\0\xd1\xd7\xc1\x50\x09localhost"  # GET, https, / by the static table
ONE_BYTE = b"\xdd"  # accept: */*


@pytest.fixture(scope="module")
def stand() -> Stand:
    return Stand()


@pytest.fixture
def driver(stand: Stand) -> H3Driver:
    stand.pool.answers = True
    stand.deadlines.members.clear()
    stand.stats.streams_open = 0
    return H3Driver(stand)


def test_fields_of_one_byte_are_refused_unseen(driver: H3Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte may be a field: 64 KiB of them took a quarter of a second."""
    most = driver.stand.snapshot.client.max_head // h3_fields.FIELD
    seen: list[bytes] = []
    monkeypatch.setattr("edgeproxy.listen.h3.check_request", lambda section: seen.extend(name for name, _ in section))
    driver.feed(0, frame(1, START + ONE_BYTE * (2 * most)), fin=True)
    assert driver.answers[0].statuses == [431]
    assert seen == []
    driver.feed(4, frame(1, START + ONE_BYTE * 20), fin=True)
    assert driver.answers[4].statuses == [200]
    assert driver.idle()


def test_who_sends_many_such_heads_is_cut_off(driver: H3Driver) -> None:
    block = frame(1, START + ONE_BYTE * 3000)
    for index in range(driver.stand.snapshot.client.h2.reset_burst + 1):
        assert driver.error is None
        driver.feed(4 * index, block, fin=True)
    assert driver.error == h3.EXCESSIVE_LOAD
    assert driver.idle()


def test_trailers_of_one_byte_fields(driver: H3Driver) -> None:
    driver.feed(0, head(POST) + data(b"x") + frame(1, b"\0\0" + ONE_BYTE * 30000), fin=True)
    assert driver.answers[0].reset == h3.EXCESSIVE_LOAD
    assert driver.error is None
    assert driver.idle()


def test_a_large_head_gives_its_window_back_at_once(driver: H3Driver) -> None:
    """Whatever the reply does: a hundred such requests must not use up the connection's window."""
    driver.stand.pool.answers = False
    driver.request((*GET, (b"x-large", b"\x80" * 5000)))
    connection = driver.wire.connection
    assert connection.data_received > 5000
    assert connection.data_consumed == connection.data_received


def test_what_is_expected_is_not_forgotten(driver: H3Driver) -> None:
    """A head without content expects nothing; the same head with a length may come with some."""
    expects = (*POST, (b"expect", b"100-continue"))
    driver.request((*expects, (b"content-length", b"0")))
    driver.feed(4, head((*expects, (b"content-length", b"5"))))
    driver.next = 8
    assert driver.stand.pool.jobs[-1].exchange.request.expects


def test_streams_that_the_client_never_ends_hold_no_idle_connection(driver: H3Driver) -> None:
    driver.feed(0, b"")
    driver.app.expire(driver.session.h3_deadline)  # nobody asked for anything
    driver.read()
    assert driver.goaways == [4]
    assert driver.error is None, "it may still ask what it began to"
    driver.app.expire(driver.session.h3_deadline)
    assert driver.error == h3.NO_ERROR


def test_what_is_still_to_be_read_holds_it(driver: H3Driver) -> None:
    driver.stand.pool.answers = False
    driver.request(GET)
    driver.acknowledges = False
    driver.app.drain()
    driver.app.expire(0.0)
    job = driver.stand.pool.jobs[-1]
    job.body = bytes(CONNECTION_HIGH)
    job.answer()
    driver.read()
    assert driver.wire.connection.queued
    driver.app.expire(0.0)
    assert driver.error is None
