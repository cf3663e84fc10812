# Questions from a loop: how many wait, and how long.
from __future__ import annotations

import asyncio
import math
import threading
from typing import Any, cast

import pytest
from support.explaining import config_with

from edgeproxy.explaining import ways
from edgeproxy.explaining.counter import WAITING, Counter
from edgeproxy.explaining.desk import Desk
from edgeproxy.explaining.question import Busy, Unclear

QUESTION = b'{"url": "https://x/"}'


class Slow:
    """A desk that answers when it is let."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.asked = 0

    def answer(self, content: bytes, until: float = math.inf) -> bytes:
        self.asked += 1
        assert self.let.wait(10)
        return content


async def test_few_questions_wait() -> None:
    slow = Slow()
    counter = Counter(cast("Any", slow), asyncio.get_running_loop())
    asked = [asyncio.ensure_future(counter.ask(b"%d" % n)) for n in range(WAITING + 1)]
    await asyncio.sleep(0)
    with pytest.raises(Busy, match="other questions"):
        await counter.ask(b"x")
    slow.let.set()
    assert await asyncio.gather(*asked) == [b"0", b"1", b"2"]
    assert await counter.ask(b"y") == b"y", "there is room again"
    counter.close()


async def test_nobody_waits_for_long() -> None:
    slow = Slow()
    counter = Counter(cast("Any", slow), asyncio.get_running_loop(), limit=0.01)
    for _ in range(WAITING + 1):
        with pytest.raises(Busy, match="too long"):
            await counter.ask(b"x")
    await asyncio.sleep(0)
    assert counter._open == 1, "the thread is still at the first; the others were taken back"
    slow.let.set()
    counter._thread.shutdown()
    await asyncio.sleep(0)
    assert counter._open == 0 and slow.asked == 1


async def test_what_is_no_question_is_said_so() -> None:
    counter = Counter(Desk(config_with()), asyncio.get_running_loop())
    assert b"outcome" in await counter.ask(QUESTION)
    with pytest.raises(Unclear):
        await counter.ask(b"{}")
    counter.close()


def test_an_explanation_ends_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(config_with(*({"id": f"r{n}", "expression": "ssl"} for n in range(5))))
    ticks = iter(range(100))
    monkeypatch.setattr(ways, "monotonic", lambda: next(ticks))
    with pytest.raises(Busy):
        desk.answer(QUESTION, 3)
    assert next(ticks) == 5, "asked before each rule"
    assert b"outcome" in desk.answer(QUESTION, 100)
