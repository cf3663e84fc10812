# What one exchange took of its limits: how long it keeps it, what it is told, and what is left when it failed here.
"""ticket.py with the pipeline and the embedded store; the helpers are those of test_admission.py."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from test_admission import GET, TOKENS, ask, chat, header, reply_with, stand, status

from edgeproxy.deadlines import INTERVAL, Deadlines
from edgeproxy.faults import upstream_fault
from edgeproxy.rules.addresses import client_code
from edgeproxy.state.ports import Charge
from edgeproxy.ticket import Leases


def test_places_are_prolonged_while_they_are_held(tmp_path: Path) -> None:
    made = stand(tmp_path, {"name": "one", "concurrent": 1, "key": "http.host"})
    made.pool.answers = False
    driver = made.h1().feed(GET % (b"/", b""))
    for _ in range(6):
        made.now += 25_000_000  # type: ignore[attr-defined]
        made.deadlines.sweep(made.deadlines.now + 25)
        assert status(ask(made)) == 429
        driver_jobs = len(made.gateway.leases)
        assert driver_jobs == 1
    driver.h1.connection_lost(None)
    assert len(made.gateway.leases) == 0 and not made.deadlines.members
    assert status(reply_with(made, [])) == 200


@pytest.mark.parametrize("lease", [2, 60])
def test_the_shortest_lease_says_when_places_are_prolonged(tmp_path: Path, lease: int) -> None:
    long = {"name": "long", "concurrent": 9, "key": "http.host", "lease": "1h"}
    made = stand(tmp_path, {"name": "one", "concurrent": 1, "key": "http.host", "lease": f"{lease}s"}, long)
    made.pool.answers = False
    made.h1().feed(GET % (b"/", b""))
    for _ in range(12):
        made.now += lease * 400_000  # type: ignore[attr-defined]
        made.deadlines.sweep(made.deadlines.now + lease * 0.4 + 0.25)
        assert status(ask(made)) == 429
    made.now += lease * 1_000_000 - 1  # type: ignore[attr-defined]
    assert status(ask(made)) == 429, "its worker was killed"
    made.now += 1  # type: ignore[attr-defined]
    made.h1().feed(GET % (b"/", b""))
    assert len(made.pool.jobs) == 1, "the place is free"


class Holder:
    """A ticket, as far as Leases look at it."""

    def __init__(self, lease: float) -> None:
        self.together = SimpleNamespace(lease=lease)
        self.times = 0

    def prolong(self) -> None:
        self.times += 1


@pytest.mark.parametrize("lease", [2.0, 60.0])
def test_thousands_of_places_are_prolonged_in_time_and_not_all_at_once(lease: float) -> None:
    deadlines = Deadlines(cast("Any", SimpleNamespace(time=lambda: 0.0)))
    leases = Leases(deadlines)
    holders = [Holder(lease) for _ in range(9000)]
    other = Holder(30.0)
    for each in (*holders, other):
        leases.add(cast("Any", each))
    last = dict.fromkeys(holders, 0.0)
    longest = 0.0
    most = 0
    for turn in range(1, int(lease * 3 / INTERVAL)):
        now = turn * INTERVAL
        deadlines.sweep(now)
        done = [each for each in holders if each.times]
        most = max(most, len(done))
        for each in done:
            assert each.times == 1
            each.times = 0
            longest, last[each] = max(longest, now - last[each]), now
    assert longest < lease * 0.9 and now - min(last.values()) < lease * 0.9
    assert most <= (7000 if lease == 2 else 256)
    for each in holders:
        leases.discard(cast("Any", each))
    assert len(leases) == 1 and deadlines.members == {leases}
    leases.discard(cast("Any", other))
    leases.discard(cast("Any", other))
    assert len(leases) == 0 and not deadlines.members
    leases.add(cast("Any", other))
    assert deadlines.members == {leases} and leases.deadline == deadlines.now + 10.0


@pytest.mark.parametrize(("mitigation", "later", "wait"), [("0s", 0, b"1"), ("10s", 0, b"10"), ("10s", 7_500_000, b"3")])
def test_a_place_with_mitigation_says_how_long_it_lasts(tmp_path: Path, mitigation: str, later: int, wait: bytes) -> None:
    made = stand(tmp_path, {"name": "one", "concurrent": 1, "key": "http.host", "mitigation_timeout": mitigation})
    made.pool.answers = False
    made.h1().feed(GET % (b"/", b""))
    first = ask(made)
    if later:
        made.now += later  # type: ignore[attr-defined]
        first = ask(made)
    assert status(first) == 429 and header(first, b"retry-after") == wait


@pytest.mark.parametrize(("changes", "networks"), [({}, 3), ({"ipv6_prefix": 128}, 4), ({"ipv6_prefix": 48}, 2)])
def test_an_ipv6_client_is_its_network(tmp_path: Path, changes: dict[str, Any], networks: int) -> None:
    clients = ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "2001:db9::", "192.0.2.1")
    made = stand(tmp_path, {"name": "a", "requests": 1, **changes}, {"name": "each", "requests": 9, "key": "cidr6(ip.src, 128)"},
                 trusted_proxies=["192.0.2.0/24"])  # fmt: skip
    told = []
    for client in clients[:4]:
        driver = made.h1()
        driver.h1._peer.trusted = True
        told.append(status(driver.feed(GET % (b"/", b"X-Forwarded-For: %b\r\n" % client.encode())).link.written))
    assert told.count(200) == networks, told
    (limit, each) = made.snapshot.limits
    facts = [SimpleNamespace(ip_src=client_code(client)) for client in clients]
    assert len({limit.key(cast("Any", each)) for each in facts}) == networks + 1
    assert len({each.key(cast("Any", known)) for known in facts}) == 5, "an expression is what it says"


@pytest.mark.parametrize("reached", [False, True])
def test_what_the_edge_answers_itself_counts_as_a_request_and_costs_no_tokens(tmp_path: Path, reached: bool) -> None:
    made = stand(tmp_path, TOKENS, {"name": "requests", "requests": 2, "key": "http.host"},
                 {"name": "places", "concurrent": 1, "key": "http.host"},
                 {"name": "good", "requests": 2, "key": "http.host", "counting_expression": "http.response.code lt 500"},
                 )  # fmt: skip
    for _ in range(2):
        driver, job = chat(made)
        job.exchange.served_by = job.exchange.served_by if reached else None
        job.exchange.fail(upstream_fault(502, "connect", "x"))
        assert status(driver.link.written) == 502 and header(driver.link.written, b"ratelimit") is not None
    facts, found = cast("Any", SimpleNamespace(http_host=b"localhost")), cast("list[Any]", [])
    made.gateway.store.peek([Charge(each.quota, each.key(facts) or b"", 0) for each in made.snapshot.limits], found.append)
    remaining = {each.name: level.remaining for each, level in zip(made.snapshot.limits, found[0], strict=True)}
    assert remaining["requests"] == 0, "who repeats what fails is to be slowed down"
    assert (remaining["places"], remaining["good"]) == (1, 2)
    assert (remaining["tokens"] < 1000) == reached, "an upstream that took it may have worked for it"
    assert status(ask(made, b"/v1/chat/completions")) == 429
