# Nonces of signed requests in the pipeline, without sockets: who waits, for what, and what becomes of each answer of a store.
from __future__ import annotations

import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.edge import configuration
from support.pipeline import Driver, Stand
from support.signing import Signer

from edgeproxy.bots.identity import Identity, Nonces
from edgeproxy.bots.keys import Keyring, read_directory
from edgeproxy.bots.ranges import NOTHING
from edgeproxy.observe.events import Events
from edgeproxy.rules.model import RuleBook, RuleFiles, RuleModel

SIGNER = Signer()
AGENT = "https://agent.example"
ONLY = {"id": "only", "expression": "not cf.bot_management.verified_bot", "action": "block"}


class FakeStore:
    """A store that answers when it is told to, what it is told to.

    Attributes:
        puts: what was asked to be kept: key, value, µs.
        gets: keys that were asked for.
    """

    def __init__(self) -> None:
        self.puts: list[tuple[bytes, bytes, int]] = []
        self.gets: list[bytes] = []
        self.put_done: list[Callable[[bool], None]] = []
        self.get_done: list[Callable[[bytes | None], None]] = []

    def put(self, key: bytes, value: bytes, ttl: int, *, once: bool, done: Callable[[bool], None]) -> None:
        assert once
        self.puts.append((key, value, ttl))
        self.put_done.append(done)

    def get(self, key: bytes, done: Callable[[bytes | None], None]) -> None:
        self.gets.append(key)
        self.get_done.append(done)


def stand(*rules: dict[str, Any], store: Any = None, nonces: str = "once", **bots: Any) -> Stand:
    identity = {"dns": False, "known_agents": False, "agents": [AGENT], "nonces": nonces}
    config = configuration(bots={"enabled": True, "model": "off", "identity": identity, **bots})
    book = RuleBook(rules=tuple(RuleModel.model_validate(rule) for rule in rules))
    made = Stand(config.model_copy(update={"rules": RuleFiles(book=book)}))
    settings = made.snapshot.bots
    assert settings is not None
    known, keys = settings.known, read_directory(SIGNER.directory())
    assert isinstance(keys, dict)
    keyring = Keyring(known.agents, lambda _: False)
    keyring.put(AGENT, keys, 3600, time.time())
    settings.identity = Identity(known.catalogue, known.agents, NOTHING, None, keyring, Nonces() if known.once else None)
    settings.stats, settings.watch = made.stats.bots, made.gateway.watch
    made.gateway.log = cast("Any", SimpleNamespace(lines=[], flush=lambda: None))
    if store is not None:
        made.gateway.store = store
    return made


def signed(nonce: str = "n", *, more: bytes = b"", method: bytes = b"GET", content: bytes = b"") -> bytes:
    covered = [('"@authority"', "localhost"), ('"signature-agent";key="sig1"', f'"{AGENT}"')]
    now = int(time.time())
    fields = SIGNER.fields(covered, created=now - 10, expires=now + 300, more=f';nonce="{nonce}"' if nonce else "")
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    length = b"Content-Length: %d\r\n" % len(content) if content else b""
    return b"%b / HTTP/1.1\r\nHost: localhost\r\n%b%b%b\r\n%b" % (method, lines, length, more, content)


def status(driver: Driver) -> int:
    return int(driver.link.written.split(b" ", 2)[1])


def counted(made: Stand) -> dict[str, int]:
    return {outcome: n for (what, outcome), n in made.stats.bots.lookups.items() if what == "nonce"}


# -- a store in this process -----------------------------------------------------------------------------------------


def test_the_own_store_answers_at_once() -> None:
    made = stand(ONLY)
    request = signed()
    driver = made.h1().feed(request)
    assert status(driver) == 200
    assert status(made.h1().feed(request)) == 403
    assert status(made.h1().feed(signed("m"))) == 200
    assert counted(made) == {"first": 2, "spent": 1} and made.stats.bots.failures == 0


def test_the_same_connection() -> None:
    """Equal heads share a plan, and not who sent them."""
    made = stand(ONLY)
    request = signed()
    driver = made.h1()
    found = [driver.feed(request).link.written.count(b"HTTP/1.1 200") for _ in range(3)]
    assert found == [1, 1, 1] and driver.link.written.count(b"HTTP/1.1 403") == 2


def test_who_signs_without_a_nonce_or_may_repeat_it_asks_nobody() -> None:
    store = FakeStore()
    made = stand(ONLY, store=store)
    request = signed("")
    assert [status(made.h1().feed(request)) for _ in range(2)] == [200, 200]
    made = stand(ONLY, store=store, nonces="reuse")
    request = signed()
    assert [status(made.h1().feed(request)) for _ in range(2)] == [200, 200]
    assert store.puts == [] and counted(made) == {}


@pytest.mark.parametrize("changed", [
    (b"signature: sig1=:", b"signature: sig1=:AAAA"), (b"created=", b"created=9"), (b"Host: localhost", b"Host: other.example"),
    (b"signature-input", b"x"), (b";tag=", b";no="),
])  # fmt: skip
def test_who_has_no_right_signature_waits_for_nobody(changed: tuple[bytes, bytes]) -> None:
    store = FakeStore()
    made = stand(ONLY, store=store)
    request = signed().replace(*changed)
    assert status(made.h1().feed(request)) == 403 and store.puts == []
    assert made.stats.bots.failures == 0


# -- a store that is asked -------------------------------------------------------------------------------------------


def test_first() -> None:
    store = FakeStore()
    made = stand(ONLY, store=store)
    driver = made.h1().feed(signed())
    assert driver.link.written == b"" and made.pool.jobs == [], "rules are not asked before"
    (key, value, ttl) = store.puts[0]
    assert len(key) == 16 and len(value) == 16 and 300e6 < ttl <= 361e6, "for longer than it is good: clocks differ"
    store.put_done[0](True)
    assert status(driver) == 200 and store.gets == []
    assert counted(made) == {"first": 1}
    job = made.pool.jobs[0]
    scored = job.exchange.plan.scored
    assert scored is not None and scored.found is not None and scored.found.signed and not scored.found.pending


def test_spent(tmp_path: Any) -> None:
    store = FakeStore()
    made = stand(store=store, mode="act", block=1)
    made.gateway.events = Events(str(tmp_path / "events.jsonl"), made.stats)
    driver = made.h1().feed(signed(more=b"User-Agent: curl/8.0\r\n"))
    store.put_done[0](False)
    assert driver.link.written == b"", "no may mean that the store is away"
    assert store.gets == [store.puts[0][0]]
    store.get_done[0](b"another's ray id")
    assert status(driver) == 403 and counted(made) == {"spent": 1} and made.stats.bots.failures == 0
    event = json.loads(made.gateway.events.writer.lines[0])
    assert "Its signature proves nothing: replayed." in event["reasons"]


def test_what_is_there_may_be_its_own() -> None:
    """The answer was lost, and what was to be kept was not."""
    store = FakeStore()
    made = stand(ONLY, store=store)
    driver = made.h1().feed(signed())
    store.put_done[0](False)
    store.get_done[0](store.puts[0][1])
    assert status(driver) == 200 and counted(made) == {"first": 1}


def test_a_store_that_fails_leaves_it_to_the_worker() -> None:
    store = FakeStore()
    made = stand(ONLY, store=store)
    request = signed()
    for n, wanted in enumerate((200, 403)):
        driver = made.h1().feed(request)
        store.put_done[n](False)
        store.get_done[n](None)
        assert status(driver) == wanted
    assert counted(made) == {"failed": 2} and made.stats.bots.failures == 0


def test_what_the_worker_knows_counts_when_the_store_is_back() -> None:
    store = FakeStore()
    made = stand(ONLY, store=store)
    request = signed()
    driver = made.h1().feed(request)
    store.put_done[0](False)
    store.get_done[0](None)
    assert status(driver) == 200
    driver = made.h1().feed(request)
    store.put_done[1](True)
    assert status(driver) == 403, "it was taken while the store was away"
    other = signed("m")
    driver = made.h1().feed(other)
    store.put_done[2](True)
    assert status(driver) == 200
    driver = made.h1().feed(other)
    store.put_done[3](False)
    store.get_done[1](None)
    assert status(driver) == 403, "what the store had said is known here, too"


# -- what happens meanwhile ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [True, False])
def test_the_client_leaves(answer: bool) -> None:
    store = FakeStore()
    made = stand(ONLY, store=store)
    driver = made.h1().feed(signed())
    driver.h1.connection_lost(None)
    lines = made.gateway.log.lines  # type: ignore[union-attr]
    assert json.loads(lines[0])["outcome"] == "client_gone"
    store.put_done[0](answer)
    if not answer:
        store.get_done[0](b"x" * 16)
    assert driver.link.written == b"" and made.pool.jobs == [] and len(lines) == 1
    assert made.stats.bots.failures == 0
    driver = made.h1().feed(signed())
    store.put_done[1](False)
    store.get_done[-1](b"x" * 16)
    assert status(driver) == 403, "whoever has the signature of one who left cannot use it"


def test_a_body_comes_meanwhile() -> None:
    store = FakeStore()
    made = stand(ONLY, store=store)
    content = bytes(range(256)) * 64
    whole = signed(method=b"POST", content=content)
    driver = made.h1()
    driver.feed(whole[:-9000])
    driver.feed(whole[-9000:-10])
    assert made.pool.jobs == []
    store.put_done[0](True)
    assert made.pool.jobs[0].body == content[:-10] and not made.pool.jobs[0].ended
    driver.feed(whole[-10:])
    assert made.pool.jobs[0].body == content and made.pool.jobs[0].ended and status(driver) == 200


def test_a_body_that_is_too_large_meanwhile_is_refused_afterwards() -> None:
    store = FakeStore()
    made = stand(ONLY, store=store)
    made.snapshot.routes[0].max_body = 1000
    driver = made.h1().feed(signed(method=b"POST", content=b"x" * 2000))
    store.put_done[0](True)
    assert status(driver) == 413 and made.pool.jobs == []


def test_the_next_request_of_the_connection_comes_meanwhile() -> None:
    store = FakeStore()
    made = stand(ONLY, store=store)
    driver = made.h1().feed(signed() + signed("m"))
    assert len(store.puts) == 1
    store.put_done[0](True)
    assert len(store.puts) == 2
    store.put_done[1](True)
    assert driver.link.written.count(b"HTTP/1.1 200") == 2


def test_a_reload_comes_meanwhile() -> None:
    store = FakeStore()
    made = stand(ONLY, store=store)
    driver = made.h1().feed(signed())
    other = stand({"id": "all", "expression": "true", "action": "block"})
    made.gateway.snapshot = other.snapshot
    store.put_done[0](True)
    assert status(driver) == 200, "it goes on with the snapshot that it began with"


def test_a_connection_drains_meanwhile() -> None:
    store = FakeStore()
    made = stand(ONLY, store=store)
    driver = made.h1().feed(signed())
    driver.h1.drain()
    assert not driver.link.closed
    store.put_done[0](True)
    assert status(driver) == 200 and b"\r\nconnection: close\r\n" in driver.link.written.lower() and driver.link.closed


def test_the_edges_own_path() -> None:
    store = FakeStore()
    made = stand(store=store)
    driver = made.h1().feed(signed().replace(b"GET / ", b"GET /.edge/challenge.js "))
    assert driver.link.written == b""
    store.put_done[0](True)
    assert status(driver) == 200 and made.pool.jobs == []


# -- who need not prove it -------------------------------------------------------------------------------------------


def test_who_is_sent_elsewhere_keeps_the_nonce() -> None:
    store = FakeStore()
    made = stand(ONLY, store=store)
    request = signed()
    assert status(made.h1(secure=False).feed(request)) == 308 and store.puts == []
    driver = made.h1().feed(request)
    store.put_done[0](True)
    assert status(driver) == 200


def test_who_is_refused_anyway_keeps_the_nonce() -> None:
    store = FakeStore()
    made = stand(ONLY, store=store)
    assert status(made.h1().feed(signed(method=b"TRACE"))) == 405 and store.puts == []


# -- what breaks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["examine", "first", "unproven"])
def test_nothing_that_breaks_breaks_a_request(what: str, caplog: pytest.LogCaptureFixture) -> None:
    made = stand()
    settings = made.snapshot.bots
    assert settings is not None
    identity = settings.identity
    names = ("examine", "first", "unproven", "of")
    real = {name: getattr(identity, name) for name in names}
    settings.identity = cast("Any", SimpleNamespace(**{**real, what: broken}))
    assert status(made.h1().feed(signed())) == 200
    assert made.stats.bots.failures == 1 and "could not be computed" in caplog.text


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("boom")


def test_a_store_that_raises_breaks_no_request() -> None:
    store = FakeStore()
    made = stand(store=store)
    store.put = broken  # type: ignore[method-assign]
    assert status(made.h1().feed(signed())) == 200
    assert made.stats.bots.failures == 1


def test_what_fails_behind_it_is_answered() -> None:
    store = FakeStore()
    made = stand(store=store)
    driver = made.h1().feed(signed())
    made.pool.submit = broken  # type: ignore[method-assign]
    store.put_done[0](True)
    assert status(driver) == 500
