# The Redis store over a link that is a list: what is sent when, and what callers are told when answers are late, wrong or lost.
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from support.redis_paper import CHARGE, DEADLINE, LEASE, Stand, asked, rounds, verdicts
from support.stores import SECOND, answer, name
from support.waiting import until

from edgeproxy.state.ports import Admission, Change
from edgeproxy.state.redis_dial import SCRIPTS, SHA
from edgeproxy.state.redis_link import Refusal


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    made = Stand()
    yield made
    made.store.close()
    await asyncio.sleep(0)


async def test_what_is_asked_in_one_round_goes_together(stand: Stand) -> None:
    link = await stand.connect()
    for _ in range(5):
        stand.ask(CHARGE)
    assert not link.sent
    await rounds()
    assert asked(link.reply(verdicts(5))) == (0, 5)
    assert [a.by for a in stand.told] == ["store"] * 5


async def test_a_batch_has_at_most_64(stand: Stand) -> None:
    link = await stand.connect()
    for _ in range(150):
        stand.ask(CHARGE)
    await rounds()
    assert [asked(words)[1] for words in link.sent] == [64, 64, 22]
    for count in (64, 64, 22):
        link.reply(verdicts(count))
    assert len(stand.told) == 150


async def test_exchanges_with_many_charges_make_smaller_batches(stand: Stand) -> None:
    link = await stand.connect()
    for _ in range(20):
        stand.ask(*[CHARGE._replace(key=name()) for _ in range(200)])
    await rounds()
    assert [asked(words)[1] for words in link.sent] == [8, 8, 4]


async def test_while_a_batch_is_on_its_way_the_next_one_gathers(stand: Stand) -> None:
    link = await stand.connect()
    stand.ask(CHARGE)
    await rounds()
    for _ in range(3):
        stand.ask(CHARGE)
        await rounds()
    assert len(link.sent) == 1
    link.reply(verdicts(1))
    assert asked(link.sent[0]) == (0, 3)


async def test_settlements_go_in_the_same_batch_and_before(stand: Stand) -> None:
    link = await stand.connect()
    stand.ask(CHARGE)
    stand.store.settle([Change(CHARGE.quota, CHARGE.key, -1, 7)], name())
    await rounds()
    assert asked(link.sent[0]) == (1, 1)


async def test_a_settlement_without_changes_asks_nothing(stand: Stand) -> None:
    link = await stand.connect()
    stand.store.settle([], name())
    await rounds()
    assert not link.sent


async def test_after_the_deadline_everybody_is_answered_here_and_at_once_from_then_on(stand: Stand) -> None:
    link = await stand.connect()
    stand.ask(CHARGE)
    await rounds()
    stand.ask(CHARGE)  # gathers
    await stand.fallen()
    assert [a.by for a in stand.told] == ["local", "local"]
    stand.ask(CHARGE)
    assert len(stand.told) == 3 and len(link.sent) <= 2


async def test_the_deadline_of_what_gathers_runs_from_when_it_came(stand: Stand) -> None:
    """A batch is answered just in time; the next one was asked for long before it was sent."""
    link, loop = await stand.connect(), asyncio.get_running_loop()
    stand.ask(CHARGE)
    await rounds()
    began = loop.time()
    stand.ask(CHARGE)
    await asyncio.sleep(DEADLINE * 0.6)
    if not stand.told:  # the machine was not too busy
        link.reply(verdicts(1))
        await stand.fallen()
        assert loop.time() - began < DEADLINE * 1.5


async def test_a_late_admission_is_undone(stand: Stand) -> None:
    link, lease = await stand.connect(), name()
    stand.ask(CHARGE, LEASE, lease=lease)
    await rounds()
    await stand.fallen()
    reply = msgspec.msgpack.encode([1_000, False, True, True, 8, 0, 0, 777, True, 2, 0, 0, 888])
    assert link.calls[0].late
    link.reply(reply)
    assert [a.by for a in stand.told] == ["local"]
    [(_, changes, given)] = stand.store.lanes[0].gives
    assert given == lease
    assert changes == [Change(CHARGE.quota, CHARGE.key, -2, 777), Change(LEASE.quota, LEASE.key, -1, 888)]
    # A probe is answered: then that is sent.
    await until(lambda: link.sent)
    assert link.reply(b"PONG") == [b"PING"]
    assert stand.store.lanes[0].up
    assert asked(link.sent[0]) == (1, 0)


async def test_what_was_never_charged_is_not_refunded_and_what_was_charged_late_is_undone() -> None:
    """Mode `open`: the exchange is settled before it is heard that the store admitted it, too."""
    stand, lease = Stand(mode="open"), name()
    link = await stand.connect()
    stand.ask(CHARGE, LEASE, lease=lease)
    await rounds()
    await stand.fallen()
    [told] = stand.told
    assert (told.by, [v.stamp for v in told.verdicts]) == ("open", [0, 0])
    changes = [Change(c.quota, c.key, -1, v.stamp) for c, v in zip((CHARGE, LEASE), told.verdicts, strict=True)]
    stand.store.settle(changes, lease)
    assert not stand.store.lanes[0].gives
    link.reply(msgspec.msgpack.encode([1_000, False, True, True, 8, 0, 0, 777, True, 2, 0, 0, 888]))
    [(_, undone, given)] = stand.store.lanes[0].gives
    assert given == lease
    assert undone == [Change(CHARGE.quota, CHARGE.key, -2, 777), Change(LEASE.quota, LEASE.key, -1, 888)]
    stand.store.close()
    await rounds()


async def test_a_late_refusal_needs_no_undoing(stand: Stand) -> None:
    link = await stand.connect()
    stand.ask(CHARGE)
    await rounds()
    await stand.fallen()
    link.reply(verdicts(1, good=False))
    assert not stand.store.lanes[0].gives


async def test_a_lost_connection_decides_at_once_and_gives_leases_back_later(stand: Stand) -> None:
    link, lease = await stand.connect(), name()
    settled = name()
    stand.store.settle([Change(CHARGE.quota, CHARGE.key, -1, 7)], settled)
    stand.ask(CHARGE, LEASE, lease=lease)
    await rounds()
    link.lose()
    assert [a.by for a in stand.told] == ["local"]
    again = await stand.connect()
    await rounds()
    assert asked(again.sent[0]) == (2, 0)  # the settlement, and the lease, which may never have been taken
    names = again.sent[0][3 : 3 + int(again.sent[0][2])]
    assert any(word.endswith(settled.hex().encode()) for word in names)  # with the marker that makes it count once


async def test_scripts_are_loaded_again(stand: Stand) -> None:
    link = await stand.connect()
    stand.ask(CHARGE)
    await rounds()
    link.reply(Refusal("NOSCRIPT No matching script."))
    assert not stand.told
    assert [words[0] for words in link.sent] == [b"SCRIPT"] * len(SCRIPTS) + [b"EVALSHA"]
    for _ in SCRIPTS:
        link.reply(b"sha")
    link.reply(verdicts(1))
    assert [a.by for a in stand.told] == ["store"]


async def test_a_server_that_never_has_the_scripts_is_not_asked_for_ever(stand: Stand) -> None:
    link = await stand.connect()
    stand.ask(CHARGE)
    await rounds()
    while link.sent:
        link.reply(Refusal("NOSCRIPT No matching script."))
    assert [a.by for a in stand.told] == ["local"]


async def test_a_wrong_idea_of_the_servers_clock_is_put_right(stand: Stand) -> None:
    link = await stand.connect()
    stand.ask(CHARGE)
    await rounds()
    now = 5_000_000_000_000
    link.reply(msgspec.msgpack.encode([now, True]))
    assert not stand.told
    words = link.sent[0]
    not_after = msgspec.msgpack.decode(words[3 + int(words[2])])[0]
    assert now < not_after < now + SECOND
    link.reply(verdicts(1, now=now))
    assert stand.told[0].by == "store"


@pytest.mark.parametrize("text", ["OOM command not allowed", "READONLY You can't write", "ERR whatever"])
async def test_an_error_is_a_failure_and_settlements_are_kept(stand: Stand, text: str) -> None:
    link = await stand.connect()
    stand.ask(CHARGE)
    stand.store.settle([Change(CHARGE.quota, CHARGE.key, -1, 7)], name())
    await rounds()
    link.reply(Refusal(text))
    assert [a.by for a in stand.told] == ["local"]
    assert len(stand.store.lanes[0].gives) == 1
    await rounds()
    assert link.ended == text.startswith("READONLY")


async def test_a_callback_that_fails_harms_no_other(stand: Stand) -> None:
    link, loop = await stand.connect(), asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))

    def broken(_: Admission) -> None:
        raise RuntimeError("broken")

    stand.store.admit([CHARGE], name(), broken)
    stand.ask(CHARGE)
    await rounds()
    link.reply(verdicts(2))
    assert len(stand.told) == 1 and len(complaints) == 1


async def test_questions_are_behind_what_was_said_before(stand: Stand) -> None:
    link = await stand.connect()
    stand.store.settle([Change(CHARGE.quota, CHARGE.key, -1, 7)], name())
    level = answer(stand.store.peek, [CHARGE])
    assert asked(link.reply(verdicts(0))) == (1, 0)
    assert link.reply([1, 2, 3])[:2] == [b"EVALSHA", SHA["peek"]]
    assert await level == ((1, 2, 3),)


async def test_questions_without_a_server_are_answered_no(stand: Stand) -> None:
    assert await answer(stand.store.peek, [CHARGE]) is None
    assert await answer(stand.store.get, b"k") is None
    assert await answer(stand.store.put, b"k", b"v", SECOND, once=True) is False
    assert await answer(stand.store.block, CHARGE.key, SECOND) is False
    assert await answer(stand.store.reset, [CHARGE]) is False
    link = await stand.connect()
    found = answer(stand.store.get, b"k")
    await stand.fallen()
    assert await found is None
    link.reply(b"late")


async def test_what_is_known_to_be_over_its_limit_is_not_asked(stand: Stand) -> None:
    link = await stand.connect()
    stand.ask(CHARGE)
    await rounds()
    link.reply(verdicts(1, good=False))
    stand.ask(CHARGE)
    await rounds()
    assert [a.by for a in stand.told] == ["store", "known"] and not link.sent
    stand.store.reset([CHARGE], lambda _: None)
    stand.ask(CHARGE)
    await rounds()
    assert len(stand.told) == 2


async def test_a_silent_link_is_given_up(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeproxy.state.redis_lane.SILENCE", 0.05)
    link = await stand.connect()
    stand.ask(CHARGE)
    await stand.fallen()
    await until(lambda: link.ended)
    assert [words[0] for words in link.sent] == [b"EVALSHA", b"PING"]


async def test_settlements_for_a_server_that_is_away_are_bounded(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeproxy.state.redis_lane.MOST_GIVES", 80)
    for _ in range(1000):
        stand.store.settle([Change(CHARGE.quota, CHARGE.key, -1, 7)], name())
    lane = stand.store.lanes[0]
    assert len(lane.gives) <= 80
    assert lane.dropped + len(lane.gives) == 1000


async def test_leases_to_be_prolonged_put_no_settlements_out(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeproxy.state.redis.MOST_PROLONGED", 40)
    for _ in range(1000):
        stand.store.prolong([LEASE, CHARGE], name())
    stand.store.settle([Change(CHARGE.quota, CHARGE.key, -1, 7)], name())
    lane = stand.store.lanes[0]
    assert (len(lane.gives), lane.dropped) == (41, 0)
    assert lane.gives[0][1] == [Change(LEASE.quota, LEASE.key, 1, 0)]


async def test_only_leases_are_prolonged(stand: Stand) -> None:
    link = await stand.connect()
    stand.store.prolong([CHARGE], name())
    await rounds()
    assert not link.sent
    stand.ask(CHARGE)
    stand.store.prolong([LEASE], name())
    await rounds()
    assert asked(link.sent[0]) == (1, 1)  # with all else of that round


@pytest.mark.parametrize(("mode", "allowed"), [("open", True), ("closed", False)])
async def test_the_other_failure_modes(mode: str, allowed: bool) -> None:
    stand = Stand(mode=mode)
    stand.ask(CHARGE, LEASE)
    assert [(a.allowed, a.by, len(a.verdicts)) for a in stand.told] == [(allowed, mode, 2)]
    stand.store.close()
    await rounds()


async def test_closing_sends_what_settles(stand: Stand) -> None:
    link = await stand.connect()
    stand.store.settle([Change(CHARGE.quota, CHARGE.key, -1, 7)], name())
    stand.ask(CHARGE)
    stand.store.close()
    assert asked(link.sent[0]) == (1, 0)
    assert [a.by for a in stand.told] == ["local"]


async def test_settlements_that_are_made_late_are_made(stand: Stand) -> None:
    """A server that looks at them after the exchanges' time has made them: nothing is left to be asked again, least of all with
    no keys, which is an error that would count against the server."""
    link = await stand.connect()
    stand.store.settle([Change(CHARGE.quota, CHARGE.key, -1, 7)], name())
    await rounds()
    assert asked(link.sent[0]) == (1, 0)
    link.reply(msgspec.msgpack.encode([1_000, True]))
    await rounds()
    assert not link.sent and stand.store.lanes[0].up
    stand.ask(CHARGE)
    stand.store.settle([Change(CHARGE.quota, CHARGE.key, -1, 7)], name())
    await rounds()
    link.reply(verdicts(0, late=True))
    assert asked(link.sent[0]) == (0, 1), "the exchange is asked about again, without the settlement"
