# Vectors of captured requests: what real browsers give, what others give, and what is not held against anybody.
from __future__ import annotations

import time
from collections import defaultdict

import pytest

from edgeproxy.bots import wire
from edgeproxy.bots.agents import CHROMIUM, FIREFOX, SAFARI
from edgeproxy.bots.features import AGREEMENTS, NAMES, vector
from edgeproxy.bots.orders import disorder
from edgeproxy.listen.hello import Hello
from edgeproxy.message import Peer, Request
from edgeproxy.prints import H3Print, Prints
from tools.bots.samples import CAPTURED, Sample, read


def request_of(sample: Sample, prints: Prints | None = None) -> Request:
    peer = Peer("", trusted=False, secure=True)
    peer.prints = prints or sample.prints
    return Request(sample.method, b"edge.test", b"/", sample.headers, None, sample.protocol, peer)


def named(sample: Sample) -> dict[str, float]:
    return dict(zip(NAMES, vector(request_of(sample), sample.when), strict=True))


@pytest.fixture(scope="module")
def captured() -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = defaultdict(list)
    for sample in read(CAPTURED):
        found[sample.client].append(sample)
    return found


def test_names_are_one_each() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert NAMES[: len(wire.NAMES)] == wire.NAMES
    assert not {"path", "address", "ja3", "cookie"} & set(NAMES)


@pytest.mark.parametrize(("client", "family"), [("chromium", CHROMIUM), ("firefox", FIREFOX)])
def test_real_browsers_never_contradict_themselves(captured: dict[str, list[Sample]], client: str, family: int) -> None:
    protocols = set()
    for sample in captured[client]:
        found = named(sample)
        assert found["contradictions"] == 0.0, (sample.headers, [name for name in AGREEMENTS if found[name] == 0.0])
        assert found["tls_strange"] == 0.0
        assert found["h2_strange"] in {0.0, -1.0}
        assert found["agent_family"] == found["tls_family"] == family
        assert found["order"] == 0.0
        protocols.add(sample.protocol)
    assert protocols == {0, 1, 2}


@pytest.mark.parametrize("client", ["requests", "urllib", "aiohttp", "curl", "go", "java", "axios", "openai"])
def test_libraries_do(captured: dict[str, list[Sample]], client: str) -> None:
    assert captured[client]
    assert all(named(sample)["contradictions"] >= 1.0 for sample in captured[client])


def test_a_copied_head_does_not_hide_another_tls(captured: dict[str, list[Sample]]) -> None:
    lies = [sample for sample in captured["httpx"] if sample.variant == "headers-chrome-156" and sample.protocol == 1]
    assert lies
    for sample in lies:
        found = named(sample)
        assert found["tls_agrees"] == found["h2_agrees"] == found["hints_grease"] == 0.0
        assert found["agent_family"] == CHROMIUM


def test_without_a_connection_only_the_head_counts(captured: dict[str, list[Sample]]) -> None:
    sample = captured["chromium"][0]
    request = request_of(sample)
    request.peer.prints = None
    found = dict(zip(NAMES, vector(request, sample.when), strict=True))
    assert found["tls_known"] == found["contradictions"] == 0.0
    assert found["tls_agrees"] == found["alpn_agrees"] == 0.5


def test_a_connection_that_is_hidden_is_none_at_all(captured: dict[str, list[Sample]]) -> None:
    for samples in captured.values():
        for sample in samples[:5]:
            peer = Peer("", trusted=False, secure=True)
            request = Request(sample.method, b"h", b"/", sample.headers, None, sample.protocol, peer)
            without = vector(request, sample.when)
            peer.prints = sample.prints
            assert vector(request, sample.when, hidden=True) == without != vector(request, sample.when)


def test_a_websocket_may_offer_http1_alone(captured: dict[str, list[Sample]]) -> None:
    sample = next(s for s in captured["chromium"] if s.protocol == 0)
    hello = sample.prints.hello
    assert hello is not None
    prints = Prints(b"")
    prints.hello = hello._replace(alpn=(b"http/1.1",))
    request = request_of(sample, prints)
    at = NAMES.index("alpn_agrees")
    assert vector(request, sample.when)[at] == 0.0
    request.upgrade = True
    assert vector(request, sample.when)[at] == 0.5


def test_nothing_of_safari_over_quic_is_judged(captured: dict[str, list[Sample]]) -> None:
    sample = next(s for s in captured["chromium"] if s.protocol == 2)
    agent = (
        b"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.4 Safari/605.1.15"
    )
    safari = sample._replace(headers=[(b"user-agent", agent)])
    found = named(safari)
    assert found["agent_family"] == SAFARI
    assert found["tls_agrees"] == found["h3_agrees"] == 0.5


def test_the_connection_is_read_once_and_again_when_it_told_more(captured: dict[str, list[Sample]]) -> None:
    full = next(s.prints for s in captured["chromium"] if s.protocol == 2)
    assert full.h3 is not None
    prints = Prints(b"", "q")
    prints.hello, prints.h3 = full.hello, full.h3._replace(settings=())
    first = wire.connection(prints)
    assert wire.connection(prints) is first
    prints.h3 = full.h3
    second = wire.connection(prints)
    at = wire.NAMES.index("h3_settings")
    assert (first[at], second[at]) == (-1.0, 4.0)


def test_odd_connections_are_read(captured: dict[str, list[Sample]]) -> None:
    prints = Prints(b"junk")
    assert len(wire.connection(prints)) == len(wire.NAMES)
    empty = Prints(b"")
    empty.hello = Hello(0, (), 0, (), b"", (), False, (), (), (), (), (), (), b"")
    empty.h3 = H3Print(((4, b""), (5, b"abc"), (1, b"\xff" * 8)), ((1 << 61, 1 << 61),), "")
    sample = captured["chromium"][0]
    assert len(vector(request_of(sample, empty), sample.when)) == len(NAMES)
    junk = [
        (b"user-agent", b"\xff" * 3000),
        (b"accept-encoding", b"," * 500),
        (b"accept-language", b";q=" * 99),
        (b"sec-ch-ua", b""),
    ]
    assert len(vector(request_of(sample._replace(headers=junk)), 0.0)) == len(NAMES)


def test_disorder_is_a_share_of_pairs() -> None:
    assert disorder(CHROMIUM, (b"user-agent", b"accept", b"accept-language")) == 0.0
    assert disorder(CHROMIUM, (b"accept", b"user-agent")) == 1.0
    assert disorder(0, (b"accept", b"user-agent")) == -1.0


def test_a_vector_is_fast(captured: dict[str, list[Sample]]) -> None:
    requests = [(request_of(sample), sample.when) for sample in captured["chromium"]]
    best = min(_seconds(requests) for _ in range(5)) / len(requests)
    assert best < 100e-6  # ten measured; wide for busy machines


def _seconds(requests: list[tuple[Request, float]]) -> float:
    started = time.process_time()
    for request, when in requests:
        vector(request, when)
    return time.process_time() - started
