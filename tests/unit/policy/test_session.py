"""Session cookies: read again as they were written, for half an hour after the last one, and by nobody else."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.policy.seals import Seals
from edgeproxy.policy.session import LIFETIME, MAX_COUNT, NAME, REWRITTEN, Session, Sessions

NOW = 1_800_000_000.0
SECRET = b"s" * 32


def carried(cookie: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"x", b"y"), (b"cookie", b"a=b; " + cookie.partition(b";")[0])]


def test_it_is_read_as_it_was_written() -> None:
    sessions = Sessions([SECRET])
    session = sessions.begin(NOW)
    assert len(session.id) == 16 and session != sessions.begin(NOW)
    cookie = sessions.write(session._replace(requests=7, odds=-1.23456, whose=0xFFFFFFFF), NOW + 5)
    assert cookie.startswith(NAME + b"=")
    assert cookie.endswith(b"; Path=/; Max-Age=1800; Secure; HttpOnly; SameSite=Lax")
    assert sessions.read(carried(cookie), NOW + 6) == Session(session.id, int(NOW), int(NOW) + 5, 7, -1.235, 0xFFFFFFFF)
    assert session.id not in cookie


def test_it_ends_without_requests_and_rolls_with_them() -> None:
    sessions = Sessions([SECRET])
    session = sessions.begin(NOW)
    headers = carried(sessions.write(session, NOW))
    assert sessions.read(headers, NOW + LIFETIME - 1) is not None
    assert sessions.read(headers, NOW + LIFETIME) is None
    again = carried(sessions.write(session, NOW + LIFETIME - 1))
    found = sessions.read(again, NOW + LIFETIME + 60)
    assert found is not None and found.first == int(NOW)


def test_when_it_is_written_again() -> None:
    sessions = Sessions([SECRET])
    session = sessions.begin(NOW)
    assert sessions.due(session, NOW)
    seen = session._replace(requests=1)
    assert not sessions.due(seen, NOW + REWRITTEN - 1) and sessions.due(seen, NOW + REWRITTEN)


def test_counters_have_a_bound() -> None:
    sessions = Sessions([SECRET])
    cookie = sessions.write(Session(b"i" * 16, 1, 1, MAX_COUNT + 9, 10.0**9, 0), NOW)
    found = sessions.read(carried(cookie), NOW)
    assert found is not None and (found.requests, found.odds) == (MAX_COUNT, 32.767)
    cookie = sessions.write(found._replace(odds=-(10.0**9)), NOW)
    assert (sessions.read(carried(cookie), NOW) or found).odds == -32.767


def test_an_older_layout_is_no_session() -> None:
    """Whoever carries one begins anew."""
    old = struct.pack(">B16sIIHH", 1, b"i" * 16, int(NOW), int(NOW), 5, 0)
    for content in (old, b"\x01" + bytes(32), b"\x02" + bytes(31)):
        text = Seals([SECRET], b"session").seal(content, NOW)
        assert Sessions([SECRET]).read([(b"cookie", NAME + b"=" + text)], NOW) is None
    text = Seals([SECRET], b"session").seal(struct.pack(">B16sIIHhI", 2, b"i" * 16, 1, int(NOW), 5, -1, 0), NOW)
    assert Sessions([SECRET]).read([(b"cookie", NAME + b"=" + text)], NOW) is not None


@given(st.binary(max_size=300))
def test_nothing_else_is_a_session(noise: bytes) -> None:
    sessions = Sessions([SECRET])
    assert sessions.read([(b"cookie", noise)], NOW) is None
    assert sessions.read([(b"cookie", NAME + b"=" + noise)], NOW) is None
    foreign = Seals([SECRET], b"clearance").seal(noise, NOW)
    assert sessions.read([(b"cookie", NAME + b"=" + foreign)], NOW) is None
    assert sessions.read([(b"cookie", NAME + b"=" + Seals([SECRET], b"session").seal(noise, NOW))], NOW) is None


def test_the_first_that_is_right_counts() -> None:
    sessions = Sessions([SECRET])
    cookie = sessions.write(sessions.begin(NOW), NOW).partition(b";")[0]
    assert sessions.read([(b"cookie", NAME + b"=rubbish"), (b"cookie", cookie)], NOW) is not None
