# Networks that change while they are in use: who is told, when it is looked, what is said and counted. No clock runs here.
"""lookups/following.py."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from edgeproxy.bots.ranges import NOTHING, Published, read_folder
from edgeproxy.lookups import following as module
from edgeproxy.lookups.following import Following
from edgeproxy.observe.bot_stats import BotStats
from edgeproxy.rules.addresses import client_code

FIRST, SECOND = client_code("192.0.2.1"), client_code("198.51.100.1")
assert FIRST is not None and SECOND is not None


class Timer:
    def __init__(self, delay: float, call: Callable[[], None]) -> None:
        self.delay, self.call, self.cancelled = delay, call, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """The running loop with timers that the test lets run out."""

    def __init__(self) -> None:
        self.real = asyncio.get_running_loop()
        self.timers: list[Timer] = []
        self.create_task, self.run_in_executor = self.real.create_task, self.real.run_in_executor

    def call_later(self, delay: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(delay, call))
        return self.timers[-1]

    def waiting(self) -> list[float]:
        return [timer.delay for timer in self.timers if not timer.cancelled]


class Stand:
    """A folder that is followed."""

    def __init__(self, folder: Path) -> None:
        self.loop, self.stats, self.folder = Loop(), BotStats(), folder
        self.told: list[Published] = []
        self.following = Following(cast("Any", self.loop), self.stats)
        self.write('["192.0.2.0/24"]')

    def write(self, text: str, name: str = "a.json") -> None:
        beside = self.folder / "new"
        beside.write_text(text)
        beside.replace(self.folder / name)

    def follow(self, every: float = 60.0) -> None:
        self.following.follow(read_folder(self.folder, ["a", "b"]), every, self.told.append)

    async def run_out(self) -> None:
        """The one timer runs out, and what it began is over."""
        (timer,) = [each for each in self.loop.timers if not each.cancelled]
        self.loop.timers.clear()
        timer.call()
        looking = self.following._looking
        assert looking is not None
        await looking


@pytest.fixture
async def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


async def test_what_has_changed_comes_into_use(stand: Stand) -> None:
    stand.follow()
    assert stand.loop.waiting() == [60.0] and len(stand.told) == 1 and stand.stats.range_reads == {"found": 1}
    await stand.run_out()
    assert stand.loop.waiting() == [60.0] and len(stand.told) == 1, "nothing has changed"
    stand.write('["198.51.100.0/24"]')
    await stand.run_out()
    assert stand.told[-1].covers(["a"], SECOND) and not stand.told[-1].covers(["a"], FIRST)
    assert stand.stats.range_reads == {"found": 2} and stand.loop.waiting() == [60.0]
    assert stand.stats.ranges_oldest == (stand.folder / "a.json").stat().st_mtime


async def test_a_broken_file_is_told_once(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    stand.follow()
    stand.write('{"prefixes": [\n  oops]}')
    await stand.run_out()
    await stand.run_out()
    (record,) = caplog.records
    assert record.levelname == "ERROR" and "stay in use" in record.message
    assert "a.json: line 2, column 3: no JSON" in record.message
    assert stand.told[-1].covers(["a"], FIRST)
    assert stand.stats.range_reads == {"found": 1, "failed": 1} and stand.stats.ranges_broken == 1
    stand.follow()
    assert len(caplog.records) == 1 and stand.told[-1].covers(["a"], FIRST), "nor does a reload forget the last good one"
    stand.write('["198.51.100.0/24", "x"]')
    await stand.run_out()
    assert stand.stats.ranges_broken == 0 and stand.told[-1].covers(["a"], SECOND)
    assert [each.levelname for each in caplog.records] == ["ERROR", "WARNING"] and "the rest of it" in caplog.records[1].message


async def test_a_file_of_another_age(stand: Stand) -> None:
    found = read_folder(stand.folder, ["a"])
    odd = found.files["a"]._replace(written=1e12, broken=True, problems=("no JSON",))
    assert "33658" in module._sentence(found, odd), "what is said of a file must not raise: a reload would fail"


async def test_broken_from_the_beginning(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    stand.write("{}")
    stand.follow()
    assert "a.json: no networks; nobody is verified by it" in caplog.text and stand.stats.ranges_broken == 1


async def test_a_folder_that_goes_away_is_told_once(stand: Stand, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stand.folder = tmp_path / "ranges"
    stand.folder.mkdir()
    stand.write('["192.0.2.0/24"]')
    stand.follow()
    stand.folder.rename(tmp_path / "away")
    await stand.run_out()
    await stand.run_out()
    assert len(caplog.records) == 1 and "is not there" in caplog.text and stand.told[-1].covers(["a"], FIRST)
    assert stand.stats.range_reads == {"found": 1, "failed": 1}


async def test_reading_is_done_beside_the_loop(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    where: list[int] = []

    def noted(*arguments: Any) -> Published:
        where.append(threading.get_ident())
        return read_folder(*arguments)

    monkeypatch.setattr(module, "read_folder", noted)
    stand.follow()
    stand.write('["198.51.100.0/24"]')
    await stand.run_out()
    assert len(where) == 1 and where[0] != threading.get_ident()


async def test_what_happens_to_exist_while_files_are_read_may_still_be_collected(stand: Stand) -> None:
    """A reload puts what it has compiled out of the collector's sight. A file that is written anew each minute must not do so
    with all that a worker has at the moment."""
    stand.follow()
    before = gc.get_freeze_count()
    stand.write('["198.51.100.0/24"]')
    await stand.run_out()
    assert stand.told[-1].covers(["a"], SECOND) and gc.get_freeze_count() == before and gc.isenabled()


async def test_a_snapshot_that_comes_meanwhile(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read for the one before is dropped; looking goes on."""
    held = threading.Event()

    def slow(before: Published) -> Published:
        held.wait(10)
        return read_folder(stand.folder, ["a"], before)

    monkeypatch.setattr(module, "read_again", slow)
    stand.follow()
    stand.loop.timers.pop().call()
    looking = stand.following._looking
    assert looking is not None
    await asyncio.sleep(0)
    stand.write('["198.51.100.0/24"]')
    stand.follow(5.0)
    assert stand.told[-1].covers(["a"], SECOND) and stand.loop.waiting() == []
    told = len(stand.told)
    held.set()
    await looking
    assert len(stand.told) == told and stand.loop.waiting() == [5.0]


async def test_a_snapshot_that_was_prepared_before_the_last_look(stand: Stand) -> None:
    """It does not bring back what that has replaced: the next look may be a day away."""
    stand.follow()
    prepared = read_folder(stand.folder, ["a", "b"])
    stand.write('["198.51.100.0/24"]')
    await stand.run_out()
    stand.following.follow(prepared, 60.0, stand.told.append)
    assert stand.told[-1].covers(["a"], SECOND) and not stand.told[-1].covers(["a"], FIRST)
    assert stand.stats.range_reads == {"found": 2}


async def test_nobody_wants_to_know(stand: Stand) -> None:
    stand.follow()
    stand.following.stop()
    assert stand.loop.waiting() == [] and stand.stats.ranges_oldest == 0 and stand.following.published is NOTHING
    stand.following.follow(NOTHING, 60.0, stand.told.append)
    assert stand.loop.waiting() == [], "no folder"
    stand.follow()
    stand.follow()
    assert stand.loop.waiting() == [60.0]
    stand.follow(10.0)
    assert stand.loop.waiting() == [10.0]
    await stand.following.close()
    assert stand.loop.waiting() == []


async def test_what_raises_is_counted_and_looking_goes_on(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(_: Published) -> Published:
        raise RuntimeError("broken")

    monkeypatch.setattr(module, "read_again", raises)
    stand.follow()
    await stand.run_out()
    assert stand.stats.failures == 1 and stand.loop.waiting() == [60.0] and stand.following.published.covers(["a"], FIRST)
