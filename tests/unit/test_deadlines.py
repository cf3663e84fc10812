# The sweep, with a clock that only the test moves.
"""deadlines.py and rays.py."""

from __future__ import annotations

import asyncio
import re
from typing import cast

from support.pipeline import FakeLoop
from support.waiting import until

from edgeproxy.deadlines import INTERVAL, NEVER, Deadlines
from edgeproxy.rays import Rays


class Member:
    def __init__(self, deadlines: Deadlines, deadline: float) -> None:
        self.deadlines = deadlines
        self.deadline = deadline
        self.expired: list[float] = []
        self.partner: Member | None = None

    def expire(self, now: float) -> None:
        self.expired.append(now)
        self.deadline = NEVER
        if self.partner is not None:
            self.deadlines.members.discard(self.partner)


def made() -> Deadlines:
    return Deadlines(cast("asyncio.AbstractEventLoop", FakeLoop()))


def test_never_early_and_once() -> None:
    deadlines = made()
    member = Member(deadlines, 10.0)
    deadlines.members.add(member)
    # `deadlines.now` may have been this old when the deadline was computed from it.
    deadlines.sweep(10.0 + INTERVAL)
    assert member.expired == []
    deadlines.sweep(10.1 + INTERVAL)
    deadlines.sweep(99.0)
    assert member.expired == [10.1 + INTERVAL]
    assert deadlines.now == 99.0


class Broken(Member):
    def expire(self, now: float) -> None:
        super().expire(now)
        raise RuntimeError("a bug in one of them")


def test_one_that_fails_does_not_keep_the_others_waiting() -> None:
    loop = FakeLoop()
    deadlines = Deadlines(cast("asyncio.AbstractEventLoop", loop))
    members = [Broken(deadlines, 1.0) if number % 2 else Member(deadlines, 1.0) for number in range(8)]
    deadlines.members |= set(members)
    deadlines.sweep(9.0)
    assert all(len(member.expired) == 1 for member in members)
    assert len(loop.complaints) == 4


def test_a_member_that_another_one_removed_is_left_alone() -> None:
    deadlines = made()
    first, second = Member(deadlines, 1.0), Member(deadlines, 1.0)
    first.partner, second.partner = second, first
    deadlines.members |= {first, second}
    deadlines.sweep(2.0)
    assert len(first.expired) + len(second.expired) == 1


async def test_it_runs_by_itself_and_stops() -> None:
    deadlines = Deadlines(asyncio.get_running_loop())
    member = Member(deadlines, 0.0)
    deadlines.members.add(member)
    deadlines.start()
    deadlines.start()
    await until(lambda: member.expired)
    member.deadline = 0.0
    await until(lambda: len(member.expired) == 2)
    deadlines.stop()
    deadlines.stop()
    assert deadlines._handle is None


def test_rays() -> None:
    rays = Rays()
    made = [rays.next() for _ in range(3000)]
    assert len(set(made)) == 3000
    assert all(re.fullmatch(rb"[0-9a-f]{16}", ray) for ray in made)
