# Bytes behind an upgrade request: kept until the upstream agrees, then passed on, in order and once.
"""listen/h1_tunnel.py behind `support.pipeline`."""

from __future__ import annotations

import pytest
from support.pipeline import Stand

from edgeproxy.message import Reply

ASK = b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.fixture
def tunnelled(monkeypatch: pytest.MonkeyPatch) -> tuple[Stand, list[bytes]]:
    """A stand whose upstream does not answer by itself, and what went through its tunnels."""
    stand = Stand()
    stand.pool.answers = False
    passed: list[bytes] = []
    monkeypatch.setattr(type(stand.gateway), "tunnel_data", lambda _gateway, _exchange, data: passed.append(data))
    return stand, passed


@pytest.mark.parametrize("step", [0, 1, 7])
def test_nothing_is_lost_or_parsed(tunnelled: tuple[Stand, list[bytes]], step: int) -> None:
    stand, passed = tunnelled
    driver = stand.h1().feed(ASK + b"GET / HTTP/1.1\r\n\r\n", step=step).feed(b"early")
    assert passed == []
    (job,) = stand.pool.jobs
    job.exchange.gateway.open_tunnel(job.exchange, Reply(101, [], None), b"")
    assert driver.link.text.startswith(b"HTTP/1.1 101 ") and b"upgrade: websocket\r\n" in driver.link.text
    driver.feed(b"late")
    assert b"".join(passed) == b"GET / HTTP/1.1\r\n\r\nearlylate"
    assert len(stand.pool.jobs) == 1


def test_what_is_kept_is_bounded(tunnelled: tuple[Stand, list[bytes]]) -> None:
    stand, passed = tunnelled
    limit = stand.snapshot.client.buffer
    driver = stand.h1().feed(ASK).feed(bytes(limit))
    assert not driver.link.paused
    driver.feed(b"x")
    assert driver.link.paused
    (job,) = stand.pool.jobs
    job.exchange.gateway.open_tunnel(job.exchange, Reply(101, [], None), b"")
    assert not driver.link.paused
    assert len(b"".join(passed)) == limit + 1


def test_a_refused_upgrade_ends_the_connection(tunnelled: tuple[Stand, list[bytes]]) -> None:
    stand, passed = tunnelled
    driver = stand.h1().feed(ASK + b"early")
    stand.pool.jobs[0].answer(403)
    assert driver.link.text.startswith(b"HTTP/1.1 403 ") and driver.link.closed
    assert passed == []
