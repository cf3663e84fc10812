# The scripts against the functions that the embedded store counts by: the same questions get the same answers.
"""A real server runs admit.lua with one line changed: the time is what the test has put down.

Windows are powers of two in milliseconds and times whole milliseconds, so that GCRA's fractions of units are exact in the
script, too; elsewhere it rounds up by 2^-20 of a unit, against the caller.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from typing import Any, Final

import hiredis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import redis_server
from support.redis_server import Server, running_server
from support.stores import NOON, name

from edgeproxy.state.counting import TAKE, State, correct, fresh, left, share
from edgeproxy.state.memory import Memory
from edgeproxy.state.ports import Admission, Change, Charge, Kind, Quota, Verdict
from edgeproxy.state.redis_batch import Names, Packer, Take, admissions, decode, prolonging
from edgeproxy.state.redis_dial import SCRIPTS, SHA
from edgeproxy.state.redis_link import command

pytestmark = pytest.mark.skipif(redis_server.MISSING is not None, reason=str(redis_server.MISSING))

WINDOW: Final = 65_536_000  # µs
_CLOCK: Final = b"redis.call('TIME')"


class Scripts:
    """admit.lua on a server, with a clock that is set."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), 5)
        self.reader = hiredis.Reader()
        self.packer = Packer(Names("t:"))
        script = SCRIPTS["admit"]
        assert script.count(_CLOCK) == 1
        script = script.replace(_CLOCK, b"{redis.call('GET', 'clock:s'), redis.call('GET', 'clock:u')}")
        self.sha = self.say(command(b"SCRIPT", b"LOAD", script))

    def say(self, data: bytes) -> Any:
        self.socket.sendall(data)
        while (reply := self.reader.gets()) is False:
            self.reader.feed(self.socket.recv(65536))
        assert not isinstance(reply, Exception), reply
        return reply

    def set(self, now: int) -> None:
        self.say(command(b"SET", b"clock:s", b"%d" % (now // 1_000_000)))
        self.say(command(b"SET", b"clock:u", b"%d" % (now % 1_000_000)))

    def run(self, takes: Sequence[Take], gives: Sequence[Any] = (), not_after: int = 1 << 52) -> list[Any]:
        data = self.packer.pack(takes, gives, not_after)
        return decode(self.say(data.replace(SHA["admit"], self.sha)))

    def admit(self, exchanges: Sequence[tuple[list[Charge], bytes]]) -> list[Admission]:
        takes: list[Take] = [(0, charges, lease, lambda _: None, None) for charges, lease in exchanges]
        return [admission for _, admission in admissions(self.run(takes), takes)]

    def settle(self, changes: list[Change], lease: bytes) -> None:
        self.run([], [(0, changes, lease)])


@pytest.fixture(scope="module")
def scripts() -> Iterator[Scripts]:
    with running_server() as server:
        made = Scripts(server)
        yield made
        made.socket.close()


class Naive:
    """What a store is, without its tables: counting.py over a dictionary. A key is written when it was charged, or when its
    mitigation began, and then as of that time."""

    def __init__(self) -> None:
        self.states: dict[bytes, State] = {}
        self.settled: set[bytes] = set()

    def admit(self, charges: list[Charge], lease: bytes, now: int) -> Admission:
        after: dict[bytes, State] = {}
        verdicts, mitigated = [], {}
        for quota, key, cost in charges:
            state = self.states.get(key) or fresh(quota.kind, now)
            after[key], verdict = TAKE[quota.kind](state, quota, cost, now, lease)
            verdicts.append(verdict)
            if not verdict.allowed and after[key][3] > now and not state[3] > now:
                mitigated[key] = after[key]
        if all(verdict.allowed for verdict in verdicts):
            for quota, key, cost in charges:
                if cost:
                    self.keep(quota, key, after[key], now)
            return Admission(True, tuple(verdicts), "store")
        told = [self.left(c, now) if v.allowed else v for c, v in zip(charges, verdicts, strict=True)]
        self.states.update(mitigated)
        return Admission(False, tuple(told), "store")

    def left(self, charge: Charge, now: int) -> Verdict:
        return left(self.states.get(charge.key) or fresh(charge.quota.kind, now), charge.quota, now)

    def settle(self, changes: list[Change], lease: bytes, now: int) -> None:
        if lease not in self.settled:
            self.settled.add(lease)
            for quota, key, delta, stamp in changes:
                state = self.states.get(key) or fresh(quota.kind, now)
                self.keep(quota, key, correct(state, quota, delta, stamp, now), now)

    def keep(self, quota: Quota, key: bytes, state: State, now: int) -> None:
        self.states[key] = state if state[3] > now else (*state[:3], 0)  # a mitigation that is over does not begin again
        if not share(state, quota, now):  # nothing is used: it is as if it had never been charged
            del self.states[key]


RATES = [Kind.GCRA, Kind.FIXED, Kind.SLIDING]
quotas = st.builds(
    lambda kind, limit, burst, mitigation: Quota(
        f"{kind}-{limit}", kind, limit, WINDOW, burst if kind == Kind.GCRA else 0, mitigation * 1000
    ),
    st.sampled_from(RATES),
    st.sampled_from([1, 2, 8, 32]),
    st.sampled_from([0, 1, 4, 64]),
    st.sampled_from([0, 0, 0, 5_000, 100_000]),
)
times = st.one_of(
    st.integers(0, 3_000),
    st.integers(0, 140_000),
    st.sampled_from([65_536, 65_535, 2 * 65_536]),
)
steps = st.lists(
    st.tuples(
        times,
        st.lists(st.tuples(st.sets(st.integers(0, 2), min_size=1), st.integers(0, 9)), min_size=1, max_size=4),
        st.one_of(st.none(), st.integers(-12, 12)),  # the first exchange of them is settled by so much
    ),
    min_size=1,
    max_size=12,
)
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def compare(scripts: Scripts, chosen: list[Quota], story: list[Any], sign: list[int]) -> None:
    now = NOON
    memory = Naive()
    keys = [name() for _ in chosen]
    for number, (pause, asked, settle) in enumerate(story):
        now += pause * 1000 * sign[number % len(sign)]
        scripts.set(now)
        exchanges = [([Charge(chosen[i], keys[i], cost) for i in sorted(which)], name()) for which, cost in asked]
        theirs = scripts.admit(exchanges)
        ours = [memory.admit(charges, lease, now) for charges, lease in exchanges]
        assert theirs == ours
        if settle is not None and ours[0].allowed:
            charges, lease = exchanges[0]
            changes = [Change(c.quota, c.key, settle, v.stamp) for c, v in zip(charges, ours[0].verdicts, strict=True)]
            for _ in range(2):
                scripts.settle(changes, lease)
                memory.settle(changes, lease, now)


@quick
@given(st.lists(quotas, min_size=3, max_size=3), steps)
def test_the_same_answers(scripts: Scripts, chosen: list[Quota], story: list[Any]) -> None:
    compare(scripts, chosen, story, [1])


@quick
@given(st.lists(quotas, min_size=3, max_size=3), steps, st.lists(st.sampled_from([1, -1]), min_size=1, max_size=8))
def test_the_same_answers_on_a_clock_that_steps(
    scripts: Scripts, chosen: list[Quota], story: list[Any], sign: list[int]
) -> None:
    compare(scripts, chosen, story, sign)


@quick
@given(
    st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 4), st.integers(0, 2), st.integers(0, 3)), max_size=20),
    st.integers(1, 5),
)
def test_the_same_leases(scripts: Scripts, story: list[tuple[int, int, int, int]], limit: int) -> None:
    """Leases of one and of several places; some are given back, some prolonged (as one of the last exchanges), others expire."""
    now, key, memory = NOON, name(), Memory(NOON)
    quota = Quota("leases", Kind.LEASES, limit, WINDOW)
    asked: list[tuple[list[Charge], bytes]] = []
    for pause, cost, back, older in story:
        now += pause * 1000
        scripts.set(now)
        lease, charges = name(), [Charge(quota, key, cost)]
        (theirs,) = scripts.admit([(charges, lease)])
        ours = memory.admit(charges, lease, now)
        assert theirs.allowed == ours.allowed
        assert theirs.verdicts[0][:4] == ours.verdicts[0][:4]
        for _ in range(back):
            changes = [Change(quota, key, -max(cost, 1), ours.verdicts[0].stamp)]
            scripts.settle(changes, lease)
            memory.settle(changes, lease, now)
        asked.append((charges, lease))
        if 0 < older <= len(asked):
            charges, lease = asked[-older]
            if changes := prolonging(charges):
                scripts.settle(changes, lease)
            memory.prolong(charges, lease, now)


def test_the_set_of_a_lease_that_is_prolonged_lives_as_long(scripts: Scripts) -> None:
    scripts.set(NOON)
    charge, lease = Charge(Quota("leases", Kind.LEASES, 1, WINDOW), name(), 1), name()
    assert scripts.admit([([charge], lease)])[0].allowed
    leases = Names("t:").leases(charge.key)
    assert scripts.say(command(b"PEXPIRE", leases, b"5000")) == 1  # as if much of its life were over
    scripts.settle(prolonging([charge]), lease)
    assert WINDOW // 1000 < scripts.say(command(b"PTTL", leases)) <= WINDOW // 1000 + 1000


def test_a_lease_is_not_held_by_a_clock_that_went_back(scripts: Scripts) -> None:
    charge = Charge(Quota("leases", Kind.LEASES, 1, WINDOW), name(), 1)
    scripts.set(NOON)
    assert scripts.admit([([charge], name())])[0].allowed
    scripts.set(NOON - 1000 * WINDOW)
    refused = scripts.admit([([charge], name())])[0].verdicts[0]
    assert not refused.allowed and refused.retry == WINDOW
    scripts.set(NOON - 999 * WINDOW)
    assert scripts.admit([([charge], name())])[0].allowed


def test_exchanges_that_are_too_late_are_not_looked_at_but_settlements_are(scripts: Scripts) -> None:
    charge = Charge(Quota("q", Kind.FIXED, 5, WINDOW), name(), 4)
    scripts.set(NOON)
    taken = scripts.admit([([charge], name())])[0].verdicts[0]
    take: Take = (0, [charge], name(), lambda _: None, None)
    answer = scripts.run([take], [(0, [Change(charge.quota, charge.key, -3, taken.stamp)], name())], NOON - 1)
    assert answer == [NOON, True]
    assert scripts.admit([([charge._replace(cost=0)], name())])[0].verdicts[0].remaining == 4


def test_large_limits_lose_no_unit(scripts: Scripts) -> None:
    """A milliard tokens a day, in steps of odd sizes, at times that no fraction fits."""
    quota, key, memory = Quota("tokens", Kind.GCRA, 1_000_000_000, 86_400_000_000), name(), Memory(NOON)
    now = NOON
    for number in range(400):
        now += 777_777 + number
        scripts.set(now)
        charges = [Charge(quota, key, 8_765_432 + number)]
        theirs = scripts.admit([(charges, name())])[0]
        ours = memory.admit(charges, name(), now)
        assert theirs.allowed == ours.allowed
        assert 0 <= ours.verdicts[0].remaining - theirs.verdicts[0].remaining <= 1


def test_every_key_expires(scripts: Scripts) -> None:
    scripts.set(NOON)
    kinds = [Charge(Quota("q", kind, 3, 5_000_000, mitigation=9_000_000), name(), 2) for kind in Kind]
    lease = name()
    verdicts = scripts.admit([(kinds, lease), (kinds, name())])[0].verdicts
    scripts.settle([Change(c.quota, c.key, -1, v.stamp) for c, v in zip(kinds, verdicts, strict=True)], lease)
    for charge in kinds:
        names: list[bytes] = scripts.say(command(b"KEYS", b"t:{%s}*" % charge.key.hex().encode()))
        assert names
        for key in names:
            assert 0 < scripts.say(command(b"PTTL", key)) <= 62_000


def test_keys_that_are_used_for_two_kinds_harm_no_other(scripts: Scripts) -> None:
    """Nobody should; but then only that key may be miscounted."""
    scripts.set(NOON)
    rate, held = Quota("rate", Kind.GCRA, 5, WINDOW), Quota("held", Kind.LEASES, 5, WINDOW)
    both, other = name(), Charge(rate, name(), 2)
    scripts.admit([([Charge(rate, both, 1)], name()), ([other], name()), ([Charge(held, both, 1)], name())])
    assert scripts.admit([([other], name())])[0].verdicts[0].remaining == 1
