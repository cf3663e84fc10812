# Who sends a head is found out once a connection, and anew for whoever sends other cookies, another name or to another host.
"""scoring.py: `Client`, `Scored`."""

from __future__ import annotations

import time

import pytest

from bench import bots
from edgeproxy import scoring
from edgeproxy.certs import make_development
from edgeproxy.message import Headers, Request
from edgeproxy.scoring import BotSettings, Scored


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> bots.Case:
    return bots.Case(bots.HEADS[0], make_development(tmp_path_factory.mktemp("certs"), ("localhost",)), bots=True)


def settings_of(case: bots.Case) -> BotSettings:
    assert case.settings is not None
    return case.settings


def scored(case: bots.Case, headers: Headers, path: bytes = b"/", host: str = "localhost", *, upgrade: bool = False) -> Scored:
    request = Request(b"GET", host.encode(), path, headers, 0, 1, case.peer)
    request.upgrade = upgrade
    return Scored(settings_of(case), request, "192.0.2.1", host)


def cookie(case: bots.Case) -> tuple[bytes, bytes]:
    sessions, now = settings_of(case).sessions, time.time()
    assert sessions is not None
    return b"cookie", sessions.write(sessions.begin(now)._replace(requests=1), now).partition(b";")[0]


def test_heads_of_one_client_share_who_it_is_and_not_their_paths(case: bots.Case) -> None:
    headers = [*bots.CHROME, cookie(case)]
    one, other = scored(case, headers, b"/one"), scored(case, headers, b"/two.png")
    assert one._sender() is other._sender()
    assert one.marks().keys is other.marks().keys
    assert one.marks().path != other.marks().path
    assert (one.marks().static, other.marks().static) == (False, True)
    assert one.marks().keys.session != b""
    assert one.current() is other.current()


def test_other_cookies_names_and_hosts_are_other_clients(case: bots.Case) -> None:
    headers = [*bots.CHROME, cookie(case)]
    session = scored(case, headers).marks().keys.session
    other = scored(case, [*bots.CHROME, cookie(case)]).marks().keys.session
    assert session != other != b""
    assert scored(case, bots.CHROME).marks().keys.session == b""
    first = scored(case, headers)
    named = [(name, b"Mozilla/5.0 (X11)" if name == b"user-agent" else value) for name, value in headers]
    assert first._sender() is not scored(case, named)._sender()
    assert scored(case, named).marks().agent != first.marks().agent
    assert scored(case, headers)._sender() is not scored(case, headers, host="other")._sender()


def test_two_lines_of_cookies_are_both_read(case: bots.Case) -> None:
    name, value = cookie(case)
    first = scored(case, [*bots.CHROME, (name, b"a=1"), (name, value)])
    assert first.marks().keys.session != b""
    assert scored(case, [*bots.CHROME, (name, b"a=1")]).marks().keys.session == b""


def test_an_upgrade_is_not_shared(case: bots.Case) -> None:
    headers = [*bots.CHROME, cookie(case)]
    before = scored(case, headers)._sender()
    assert scored(case, headers, upgrade=True)._sender() is not before
    assert scored(case, headers)._sender() is before


def test_a_session_is_read_again_after_a_while(case: bots.Case, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = [*bots.CHROME, cookie(case)]
    before = scored(case, headers)._sender()
    now = time.time()
    monkeypatch.setattr(scoring.time, "time", lambda: now + scoring._KNOWN + 1)
    after = scored(case, headers)._sender()
    assert after is not before
    assert after.session == before.session
    monkeypatch.setattr(scoring.time, "time", lambda: now + 1900)
    assert scored(case, headers)._sender().session is None  # it is over


def sibling(one: Scored, path: bytes) -> Scored:
    before = one._request
    return one.sibling(Request(before.method, before.authority, path, before.headers, 0, before.protocol, before.peer))


def test_a_head_with_another_target_has_the_score_and_not_the_path(case: bots.Case) -> None:
    one = scored(case, [*bots.CHROME, cookie(case)], b"/one")
    score = one.current()
    other = sibling(one, b"/two.png")
    assert other.current() is score and other._sender() is one._sender()
    assert (one.marks().static, other.marks().static) == (False, True) and one.marks().path != other.marks().path
    assert other.line(b'{"path":"/two.png"}\n', score).startswith(b'{"path":"/two.png"')


def test_siblings_learn_what_is_new(case: bots.Case, monkeypatch: pytest.MonkeyPatch) -> None:
    one = scored(case, [*bots.CHROME, cookie(case)])
    one.current()
    prints = case.peer.prints
    assert prints is not None and sibling(one, b"/a")._static is one._static is not None
    kept = prints.h3
    prints.h3 = object()  # type: ignore[assignment]  # only that it is another one counts
    assert sibling(one, b"/b")._static is None
    prints.h3 = kept
    assert sibling(one, b"/c")._static is one._static
    now = time.time()
    monkeypatch.setattr(scoring.time, "time", lambda: now + scoring._KNOWN + 1)
    assert sibling(one, b"/d")._who is None, "its session is read again"


def test_a_signed_head_shares_nothing(case: bots.Case) -> None:
    one = scored(case, [*bots.CHROME, (b"signature-input", b"sig=()")])
    one.current()
    other = sibling(one, b"/a")
    assert other.signed and other._static is None and other._score is None and other._who is None
