# Reverse names over a real resolver and a DNS server of the tests' own.
"""lookups/dns.py and the queue of lookups/service.py."""

from __future__ import annotations

import asyncio

import pytest
from support.names import FAIL, SILENT, Records, dns
from support.waiting import until

from edgeproxy.bots.names import Names
from edgeproxy.lookups import dns as module
from edgeproxy.lookups import service
from edgeproxy.lookups.answers import Unanswered
from edgeproxy.lookups.dns import Resolver
from edgeproxy.lookups.service import Lookups, Queue
from edgeproxy.rules.addresses import client_code

SUFFIXES = ("bot.example", "crawler.example")


def code(text: str) -> int:
    found = client_code(text)
    assert found is not None
    return found


async def confirmed(records: Records, address: str) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    async with dns(records) as (server, port):
        resolver = Resolver(SUFFIXES, ["127.0.0.1"], port)
        try:
            return await resolver.confirmed(code(address)), server.asked
        finally:
            await resolver.close()


PTR = ("5.2.0.192.in-addr.arpa", "PTR")


async def test_confirmed() -> None:
    found, asked = await confirmed(
        {PTR: ["Crawl-5.bot.example."], ("crawl-5.bot.example", "A"): ["192.0.2.9", "192.0.2.5"]}, "192.0.2.5"
    )
    assert found == ("crawl-5.bot.example",) and asked == [PTR, ("crawl-5.bot.example", "A")]


async def test_ipv6() -> None:
    reverse = "1." + "0." * 23 + "8.b.d.0.1.0.0.2.ip6.arpa"
    records: Records = {(reverse, "PTR"): ["a.bot.example"], ("a.bot.example", "AAAA"): ["2001:db8::1"]}
    assert (await confirmed(records, "2001:db8::1"))[0] == ("a.bot.example",)


@pytest.mark.parametrize(
    "records",
    [
        {},
        {PTR: []},
        {PTR: ["a.bot.example"]},
        {PTR: ["a.bot.example"], ("a.bot.example", "A"): []},
        {PTR: ["a.bot.example"], ("a.bot.example", "A"): ["192.0.2.6"]},
    ],
)
async def test_not_confirmed(records: Records) -> None:
    assert (await confirmed(records, "192.0.2.5"))[0] == ()


async def test_names_of_others_are_not_asked_about() -> None:
    """What stands in a PTR record is the choice of whoever has the address."""
    found, asked = await confirmed({PTR: ["victim.internal", "evilbot.example", "bot.example"]}, "192.0.2.5")
    assert found == () and asked == [PTR]


async def test_aliases_of_delegated_networks() -> None:
    """RFC 2317."""
    records: Records = {PTR: ["alias 5.0-15.2.0.192.in-addr.arpa", "a.bot.example"], ("a.bot.example", "A"): ["192.0.2.5"]}
    assert (await confirmed(records, "192.0.2.5"))[0] == ("a.bot.example",)


async def test_a_server_that_fails_says_nothing() -> None:
    with pytest.raises(Unanswered):
        await confirmed({PTR: FAIL}, "192.0.2.5")
    with pytest.raises(Unanswered):
        await confirmed({PTR: ["a.bot.example"], ("a.bot.example", "A"): FAIL}, "192.0.2.5")


async def test_a_server_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DEADLINE", 0.2)
    with pytest.raises(Unanswered):
        await confirmed({PTR: SILENT}, "192.0.2.5")


async def until_idle(lookups: Lookups) -> None:
    await until(lambda: not len(lookups._addresses) and not len(lookups._directories))


async def test_lookups_bring_answers() -> None:
    records: Records = {
        PTR: ["a.bot.example"], ("a.bot.example", "A"): ["192.0.2.5"], ("6.2.0.192.in-addr.arpa", "PTR"): FAIL,
    }  # fmt: skip
    async with dns(records) as (server, port):
        lookups = Lookups([], lambda: 100.0, Resolver(SUFFIXES, ["127.0.0.1"], port))
        try:
            assert [lookups.names.of(code(f"192.0.2.{n}"), 100.0) for n in (5, 6, 7)] == [None] * 3
            await until_idle(lookups)
            assert [lookups.names.of(code(f"192.0.2.{n}"), 100.0) for n in (5, 6, 7)] == [("a.bot.example",), None, ()]
            assert dict(lookups.counts) == {("name", "found"): 1, ("name", "failed"): 1, ("name", "none"): 1}
            asked = len(server.asked)
            assert lookups.names.of(code("192.0.2.7"), 101.0) == () and len(server.asked) == asked
        finally:
            await lookups.close()


async def test_without_a_resolver_nothing_is_found() -> None:
    lookups = Lookups(["https://a.example"])
    assert lookups.names.of(1, 0.0) is None and lookups.keyring.find("https://a.example", "k", 0.0) == (None, False)
    assert dict(lookups.counts) == {("name", "refused"): 1, ("directory", "refused"): 1}
    await lookups.close()


async def test_an_error_of_the_library_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_self: Resolver, _code: int) -> tuple[str, ...]:
        raise RuntimeError

    monkeypatch.setattr(Resolver, "confirmed", broken)
    lookups = Lookups([], resolver=Resolver(SUFFIXES, ["127.0.0.1"], 9))
    assert isinstance(lookups.names, Names)
    lookups.names.of(1, 0.0)
    await until_idle(lookups)
    assert lookups.counts["name", "broken"] == 1
    await lookups.close()


async def test_a_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "WAITING", 3)
    done: list[int] = []
    go = asyncio.Event()

    async def work(item: int) -> None:
        await go.wait()
        done.append(item)

    queue = Queue(asyncio.get_running_loop(), work, 2)
    assert [queue.submit(number) for number in range(8)] == [True] * 5 + [False] * 3
    assert len(queue) == 5
    go.set()
    await until(lambda: not len(queue))
    assert sorted(done) == [0, 1, 2, 3, 4]
    assert queue.submit(9)
    await queue.close()
    assert len(queue) == 0


async def test_one_network_does_not_take_all_of_a_queue() -> None:
    go = asyncio.Event()

    async def work(_item: int) -> None:
        await go.wait()

    queue = Queue(asyncio.get_running_loop(), work, 2, lambda item: item // 1000)
    taken = [queue.submit(number) for number in range(100)]
    assert taken.count(True) == service.OF_ONE_NETWORK
    assert queue.submit(5000), "another network"
    go.set()
    await until(lambda: not len(queue))
    assert dict(queue._groups) == {} and queue.submit(0)
    await queue.close()
