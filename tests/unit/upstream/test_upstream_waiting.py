# Who goes first where connections are short: orders and bounds of a pool's queue, and what is kept free.
"""upstream/waiting.py and pool.py. Connections are counted here and not opened: contract/test_priority.py opens them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from edgeproxy.deadlines import INTERVAL, NEVER
from edgeproxy.observe.metrics import WorkerStats
from edgeproxy.upstream.pool import Pool
from edgeproxy.upstream.waiting import Queue, Waiting


class Exchange:
    """One that knows how it went."""

    def __init__(self, name: str, *, low: bool = False) -> None:
        self.name = name
        self.plan = SimpleNamespace(low=low, retry=0, forward=None)
        self.request = SimpleNamespace(method=b"GET", upgrade=False)
        self.body = SimpleNamespace(done=True, whole=True)
        self.attempt: Any = None
        self.status = 0
        self.started = 0.0
        self.gateway = SimpleNamespace(time=lambda: 0.0)
        self.served_by = None
        self.said = ""

    def fail(self, fault: Any, tail: bytes = b"") -> None:
        """Over."""
        self.said = fault.reason


def settings(most: int = 1, pending: int = 100, reserved: int = 0, total: float | None = None) -> Any:
    target = SimpleNamespace(key="one", label="one:1", authority=b"one")
    return SimpleNamespace(
        targets=(target,), balance="round-robin", max_connections=most, max_pending=pending,
        max_low=most - most * reserved // 100, timeouts=SimpleNamespace(connect=3.0, total=total),
        retries=SimpleNamespace(budget=100, floor=10, max_attempts=9),
    )  # fmt: skip


class Counted(Pool):
    """Counts connections instead of opening them; each is closed when its exchange is `done`."""

    def __init__(self, **changes: Any) -> None:
        clock = SimpleNamespace(now=0.0, members=set())
        super().__init__("main", settings(**changes), cast("Any", None), cast("Any", clock), WorkerStats())
        self.begun: list[str] = []

    def _connect(self, target: Any, exchange: Any, tries: int) -> None:
        self.connections += 1
        self.begun.append(exchange.name)

    def send(self, *names: str) -> list[Exchange]:
        """New exchanges; those whose names are in lower case have low priority."""
        made = [Exchange(name, low=name.islower()) for name in names]
        for each in made:
            self.submit(cast("Any", each))
        return made

    def done(self) -> None:
        """One exchange is over."""
        self.connections -= 1
        if self.pending:
            self.advance()

    @property
    def queue(self) -> str:
        return "".join(waiting.exchange.name for waiting in self.pending)  # type: ignore[attr-defined]  # of ours

    @property
    def counted(self) -> tuple[int, int]:
        return self.targets[0].stats.pending, self.targets[0].stats.pending_low


def test_low_ones_wait_behind_all_others() -> None:
    pool = Counted()
    pool.send("A", "b", "C", "d", "E", "f")
    assert (pool.queue, pool.counted) == ("CEbdf", (5, 3))
    for _ in range(6):
        pool.done()
    assert pool.begun == ["A", "C", "E", "b", "d", "f"] and pool.counted == (0, 0)


def test_with_room_they_are_like_others() -> None:
    pool = Counted(most=4)
    pool.send("a", "B", "c")
    assert pool.begun == ["a", "B", "c"] and not pool.pending


def test_a_full_queue_pushes_out_the_youngest_low_one() -> None:
    pool = Counted(pending=3)
    busy, low, other, normal = pool.send("A", "b", "c", "D")
    assert pool.queue == "Dbc"
    late = pool.send("e")[0]
    assert (late.said, pool.queue) == ("upstream_full", "Dbc"), "one of low priority pushes nobody out"
    pool.send("F")
    assert (other.said, other.attempt, pool.queue) == ("upstream_full", None, "DFb")
    pool.send("G")
    assert (low.said, pool.queue, pool.counted) == ("upstream_full", "DFG", (3, 0))
    last = pool.send("H")[0]
    assert last.said == "upstream_full" and not (busy.said or normal.said)


def test_without_a_queue() -> None:
    pool = Counted(pending=0)
    _, low, normal = pool.send("A", "b", "C")
    assert low.said == normal.said == "upstream_full" and pool.counted == (0, 0)


def test_some_connections_are_kept_free() -> None:
    pool = Counted(most=8, reserved=25)
    pool.send(*"abcdefgh")
    assert (pool.begun, pool.queue) == ([*"abcdef"], "gh")
    pool.send("X", "Y", "Z")
    assert (pool.begun[6:], pool.queue) == (["X", "Y"], "Zgh"), "at once, as long as there are any"
    for left in ("gh", "gh", "gh", "h", ""):
        pool.done()
        assert pool.queue == left, "they begin when as many are free again"


def test_one_that_waits_is_not_overtaken_by_a_newer_one_of_its_kind() -> None:
    pool = Counted(most=4, reserved=50)
    pool.send("a", "b", "c")
    pool.connections -= 1  # nobody was told yet
    pool.send("d")
    assert pool.queue == "cd"
    pool.advance()
    assert (pool.begun, pool.queue) == (["a", "b", "c"], "d")


def test_a_retry_keeps_its_priority() -> None:
    pool = Counted()
    pool.send("A", "b", "C")
    again = Exchange("d", low=True)
    again.attempt = object()
    fault = SimpleNamespace(retry=True, reason="closed")
    pool.failed(cast("Any", again), cast("Any", fault), b"")
    assert pool.queue == "Cbd" and pool.pending[2].tries == 1


def test_who_leaves_gives_the_place_back() -> None:
    pool = Counted()
    _, low, normal, other = pool.send("A", "b", "C", "d")
    for each, left, counted in ((low, "Cd", (2, 1)), (normal, "d", (1, 1)), (other, "", (0, 0))):
        for _ in range(2):
            each.attempt.cancel()  # twice: its turn may have come
            assert (pool.queue, pool.counted) == (left, counted)


def test_who_waits_too_long_is_told() -> None:
    pool = Counted()
    _, low = pool.send("A", "b")
    pool.deadlines.now = 2.0
    _, younger = pool.send("C", "d")
    assert pool.deadline == 3.0
    pool.expire(3.0 + 2 * INTERVAL)
    assert (low.said, pool.queue, pool.counted, pool.deadline) == ("upstream_full", "Cd", (2, 1), 5.0)
    pool.expire(6.0)
    assert younger.said == "upstream_full" and (pool.counted, pool.deadline) == ((0, 0), NEVER)


def test_total_ends_their_wait_too() -> None:
    pool = Counted(total=1.0)
    _, low = pool.send("A", "b")
    pool.expire(1.0 + 2 * INTERVAL)
    assert low.said == "total_timeout"


@pytest.mark.parametrize(("most", "reserved", "begun"), [(2, 0, "C"), (4, 0, "CEb"), (4, 25, "CE"), (6, 25, "CEbd"), (1, 0, "")])
def test_a_reload_makes_room(most: int, reserved: int, begun: str) -> None:
    pool = Counted()
    pool.send("A", "b", "C", "d", "E")
    pool.apply(settings(most=most, reserved=reserved))
    assert ("".join(pool.begun), pool.queue) == (f"A{begun}", "CEbd"[len(begun) :])
    assert pool.counted[0] == len(pool.pending)


def test_a_reload_that_orders_targets_anew_counts_nobody_twice() -> None:
    pool = Counted()
    one, two = (SimpleNamespace(key=name, label=name, authority=name.encode()) for name in ("one", "two"))
    for targets in ((one, two), (two, one)):
        changed = settings()
        changed.targets = targets
        pool.apply(changed)
        if not pool.pending:
            pool.send("A", "B", "c")
        waiting = {target.settings.key: (target.stats.pending, target.stats.pending_low) for target in pool.targets}
        assert waiting == {targets[0].key: (2, 1), targets[1].key: (0, 0)}


def test_an_upstream_that_is_taken_away_leaves_nobody_waiting() -> None:
    pool = Counted()
    stats, waiting = pool.targets[0].stats, pool.send("A", "b", "C")[1:]
    pool.retire()
    assert [each.said for each in waiting] == ["upstream_gone"] * 2 and (stats.pending, stats.pending_low) == (0, 0)
    assert not pool.pending and pool.pending.low == 0


@given(st.lists(st.tuples(st.sampled_from(["normal", "low", "next", "youngest", "leave", "late"]), st.integers(0, 30))))
def test_the_queue_agrees_with_two(steps: list[tuple[str, int]]) -> None:
    """The same as one list for each priority."""
    queue = Queue()
    plain: dict[bool, list[Waiting]] = {False: [], True: []}
    for step, number in steps:
        both = plain[False] + plain[True]
        if step in {"normal", "low"}:
            low = step == "low"
            made = Waiting(cast("Any", None), cast("Any", Exchange("x", low=low)), 0, float(number), late=False)
            queue.join(made)
            plain[low].append(made)
        elif step == "next" and both:
            assert queue.next() is both[0]
            plain[both[0].low].remove(both[0])
        elif step == "youngest":
            assert queue.youngest_low() is (plain[True].pop() if plain[True] else None)
        elif step == "leave" and both:
            one = both[number % len(both)]
            plain[one.low].remove(one)
            for _ in range(2):
                queue.leave(one)
        elif step == "late":
            assert queue.late(number) == [each for each in both if each.due < number]
            plain = {low: [each for each in plain[low] if each.due >= number] for low in plain}
        assert list(queue) == plain[False] + plain[True] and queue.low == len(plain[True])


class Idle:
    """A connection that nobody uses."""

    gone = False
    busy = False
    idle_timeout = 60.0

    def __init__(self) -> None:
        self.transport: Any = self
        self.closing = False

    def close(self) -> None:
        """As a transport: it is closed soon."""
        self.closing = True

    def is_closing(self) -> bool:
        """As a transport."""
        return self.closing


@pytest.mark.parametrize("low", [False, True])
def test_a_second_try_makes_room_for_itself(low: bool) -> None:
    """It must not take a connection that was used before, and none can be opened beside those."""
    pool = Counted(most=2)
    pool.connections = 2
    older, newer = Idle(), Idle()
    pool.targets[0].idle.extend(cast("Any", [older, newer]))
    exchange = Exchange("a" if low else "A", low=low)
    pool.submit(cast("Any", exchange), 1)
    assert (older.closing, newer.closing, pool.queue) == (True, False, exchange.name)
    pool.done()
    assert (pool.begun, pool.queue, exchange.said) == ([exchange.name], "", "")


def test_who_stood_behind_a_second_try_goes_with_it() -> None:
    """Who came while room was made for it waited for nothing else: no connection may become free after that."""
    pool = Counted(most=3)
    pool.connections = 3
    pool.targets[0].idle.extend(cast("Any", [Idle(), Idle(), Idle()]))
    pool._begin = lambda _, exchange: pool.begun.append(exchange.name)  # type: ignore[assignment, attr-defined, method-assign]
    exchange = Exchange("A")
    pool.submit(cast("Any", exchange), 1)
    low = pool.send("b", "c")
    assert (pool.queue, pool.begun) == ("Abc", [])
    pool.done()
    assert (pool.queue, pool.begun, [each.said for each in low]) == ("", ["A", "b", "c"], ["", ""])


def test_a_second_try_makes_room_once() -> None:
    pool = Counted(most=3)
    pool.connections = 3
    idle = [Idle(), Idle(), Idle()]
    pool.targets[0].idle.extend(cast("Any", idle))
    pool.submit(cast("Any", Exchange("A")), 1)
    pool.advance()  # something else became free
    assert [each.closing for each in idle] == [True, True, False] and pool.queue == "A"


def test_a_second_try_does_not_lose_its_turn() -> None:
    pool = Counted()
    (busy,) = pool.send("A")
    pool.failed(cast("Any", busy), SimpleNamespace(retry=True, reason="closed"), b"")  # type: ignore[arg-type]  # of ours
    pool.send("B", "C")
    assert pool.queue == "ABC"
    connection = Idle()
    pool.targets[0].idle.append(cast("Any", connection))
    pool.advance()  # as for a connection that became free
    assert (connection.closing, pool.queue) == (True, "ABC"), "who waited before goes before"
    pool.done()
    assert (pool.begun, pool.queue) == (["A", "A"], "BC")


class Opened(Counted):
    """Connections that are used again, or closed a moment after it was asked for."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(**changes)
        self.open: list[tuple[Any, Exchange | None]] = []

    def _connect(self, target: Any, exchange: Any, tries: int) -> None:
        self.connections += 1
        target.open += 1
        connection = Idle()
        connection.target = target  # type: ignore[attr-defined]  # as a real one
        self._begin(cast("Any", connection), exchange)

    def _begin(self, connection: Any, exchange: Any) -> None:
        self.open = [each for each in self.open if each[0] is not connection] + [(connection, exchange)]
        connection.busy, exchange.attempt = True, None

    def end(self, place: int, how: str) -> None:
        """The exchange of one connection ends, which is used again, or lost soon: maybe too early, and there is a second try."""
        used = [each for each in self.open if each[1] is not None]
        if used:
            connection, exchange = used[place % len(used)]
            self.open = [(each, None if each is connection else of) for each, of in self.open]
            if how == "kept":
                connection.target.released(connection)
                return
            connection.closing = True
            if how == "again":
                self.submit(cast("Any", exchange), 1)

    def close_some(self) -> None:
        """What is closing is closed."""
        while closing := [each for each, exchange in self.open if exchange is None and each.closing]:
            self.open = [each for each in self.open if each[0] is not closing[0]]
            closing[0].transport = None
            closing[0].target.closed(closing[0])


STEPS = ["low", "normal", "kept", "kept", "lost", "again", "leave", "close"]


@hypothesis(max_examples=200, deadline=None)
@given(
    st.integers(1, 5), st.sampled_from([0, 25, 50, 99]), st.sampled_from([0, 3, 100]),
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9)), min_size=30, max_size=80),
)  # fmt: skip
def test_nobody_waits_where_there_is_room(most: int, reserved: int, pending: int, steps: list[tuple[str, int]]) -> None:
    pool = Opened(most=most, reserved=reserved, pending=pending)
    for step, number in steps:
        if step in {"low", "normal"}:
            pool.send("a" if step == "low" else "A")
        elif step == "leave" and pool.pending:
            pool.pending[number % len(pool.pending)].cancel()
        elif step == "close":
            pool.close_some()
        else:
            pool.end(number, step)
    pool.close_some()
    assert pool.connections == len(pool.open) <= most and pool.counted == (len(pool.pending), pool.pending.low)
    assert not pool.pending or not pool._room(low=pool.pending[0].low)
