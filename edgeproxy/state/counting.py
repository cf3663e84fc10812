# How quotas count: pure functions over a small state per key. Nothing is kept here, and time comes in.
"""The algorithms behind `Kind`, in integers only.

A key's state is a tuple ``(at, used, before, until)``:

    at      µs on the store's clock: when the rest was true. It never goes back, but for the clamp below.
    used    GCRA: units in use times `window` (a unit comes back in window / limit µs, rarely a whole number);
            FIXED, SLIDING: units of the window that holds `at`
    before  SLIDING: units of the window before that one; LEASES: the leases, name → (expires, how many)
    until   µs up to which the key is refused everything (mitigation); 0: not

Clock steps: when the clock is behind `at`, time stands still for the key until the clock has caught up, so that a clock
going back and forth admits nothing twice; but `at` is never taken to be later than now + window, so that no step locks a
key for longer than that window and the time its units need anyway.

Refunds: of windows they change the window in which the charge was taken, or nothing if that is over. GCRA remembers no
single charge, there a refund counts when it is made: what is admitted less what is refunded never exceeds
burst + limit × time / window, over any time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from edgeproxy.state.ports import Kind, Level, Quota, Verdict

State = tuple[int, int, Any, int]
"""See above. Replaced, never changed; but the leases in it are one dictionary: whoever rolls or takes must keep the new
state, since what it no longer counts is no longer in the old one's dictionary."""
Leases = dict[bytes, tuple[int, int]]

OWED: Final = 100
"""Times its limit that a key can owe at most: an upstream that tells of absurd usage must not lock it for ever."""
FULL: Final = 256
"""What `share` says of a key whose quota is used up."""
_new: Final = tuple.__new__  # a NamedTuple's own constructor is a Python function and takes twice as long


def fresh(kind: Kind, now: int) -> State:
    """The state of a key that was never charged."""
    return (now, 0, {} if kind == Kind.LEASES else 0, 0)


# Bringing a state up to date


def _roll_gcra(state: State, quota: Quota, now: int) -> State:
    at, used, before, until = state
    if at < now:
        used -= (now - at) * quota.limit
        return (now, max(used, 0), before, until)
    return (min(at, now + quota.window), used, before, until)


def _roll_fixed(state: State, quota: Quota, now: int) -> State:
    at, used, before, until = state
    window = quota.window
    if at < now:
        return (now, used if at // window == now // window else 0, before, until)
    return (min(at, now + window), used, before, until)


def _roll_sliding(state: State, quota: Quota, now: int) -> State:
    at, used, before, until = state
    window = quota.window
    if at < now:
        passed = now // window - at // window
        if passed:
            return (now, 0, used if passed == 1 else 0, until)
        return (now, used, before, until)
    return (min(at, now + window), used, before, until)


def _roll_leases(state: State, quota: Quota, now: int) -> State:
    at, used, leases, until = state
    if at < now:
        at = now
    elif at > now + quota.window:
        at = now + quota.window
        for name, (expires, count) in leases.items():
            leases[name] = (min(expires, at + quota.window), count)
    # In the order of their expiry, since `at` does not go back. Seldom more than one at a time, so it is looked up anew.
    while leases:
        name = next(iter(leases))
        expires, count = leases[name]
        if expires > at:
            break
        del leases[name]
        used -= count
    return (at, used, leases, until)


ROLL: Final[tuple[Callable[[State, Quota, int], State], ...]] = (_roll_gcra, _roll_fixed, _roll_sliding, _roll_leases)


def roll(state: State, quota: Quota, now: int) -> State:
    """The state as it is at `now`."""
    return ROLL[quota.kind](state, quota, now)


# Taking

Take = Callable[[State, Quota, int, int, bytes], tuple[State, Verdict]]


def take_gcra(state: State, quota: Quota, cost: int, now: int, _lease: bytes) -> tuple[State, Verdict]:
    """Takes `cost` units, if they are there; of what is refused, the state is that of before (mitigated, if it is to be)."""
    at, used, before, until = state
    window, limit = quota.window, quota.limit
    if at < now:  # `_roll_gcra` in place: this is the default, and the one that most requests come by
        used -= (now - at) * limit
        if used < 0:  # noqa: PLR1730  max() is a call
            used = 0
        at = now
    elif at > now + window:
        at = now + window
    if until > now and quota.mitigation:
        return _mitigated((at, used, before, until), quota, now)
    room = quota.burst * window - used
    need = (cost or 1) * window
    if need > room:
        retry = at - now - -(need - room) // limit if cost <= quota.burst else 0
        return _refused((at, used, before, 0), quota, now, room // window, retry)
    need = cost * window
    used += need
    return (at, used, before, 0), _new(Verdict, (True, (room - need) // window, at - now - -used // limit, 0, at))


def take_fixed(state: State, quota: Quota, cost: int, now: int, _lease: bytes) -> tuple[State, Verdict]:
    """As `take_gcra`."""
    at, used, before, until = _roll_fixed(state, quota, now)
    if until > now and quota.mitigation:
        return _mitigated((at, used, before, until), quota, now)
    window = quota.window
    room = quota.limit - used
    if (cost or 1) > room:
        retry = (at // window + 1) * window - now if cost <= quota.limit else 0
        return _refused((at, used, before, 0), quota, now, room, retry)
    used += cost
    reset = (at // window + 1) * window - now if used else 0
    return (at, used, before, 0), _new(Verdict, (True, room - cost, reset, 0, at))


def take_sliding(state: State, quota: Quota, cost: int, now: int, _lease: bytes) -> tuple[State, Verdict]:
    """As `take_gcra`."""
    at, used, before, until = _roll_sliding(state, quota, now)
    if until > now and quota.mitigation:
        return _mitigated((at, used, before, until), quota, now)
    window = quota.window
    start = at - at % window
    room = (quota.limit - used) * window - before * (start + window - at)
    if (cost or 1) * window > room:
        retry = _sliding_retry(used, before, start, quota, cost or 1) - now if cost <= quota.limit else 0
        return _refused((at, used, before, 0), quota, now, room // window, retry)
    used += cost
    left = (room - cost * window) // window
    return (at, used, before, 0), _new(Verdict, (True, left, _sliding_end(used, before, start, window, now), 0, at))


def _sliding_end(used: int, before: int, start: int, window: int, now: int) -> int:
    if used:
        return start + 2 * window - now
    return start + window - now if before else 0


def _sliding_retry(used: int, before: int, start: int, quota: Quota, need: int) -> int:
    """When `need` units (at most the limit) fit: as the window before moves out, or as this one does."""
    window = quota.window
    slack = (quota.limit - used - need) * window
    if slack >= 0:  # then it is `before` that is in the way
        return start + window - slack // before
    return start + 2 * window - min((quota.limit - need) * window // used, window)


def take_leases(state: State, quota: Quota, cost: int, now: int, lease: bytes) -> tuple[State, Verdict]:
    """As `take_gcra`. `retry` and `reset` say when leases expire: they may be given back long before."""
    at, used, leases, until = _roll_leases(state, quota, now)
    if until > now and quota.mitigation:
        return _mitigated((at, used, leases, until), quota, now)
    room = quota.limit - used
    if (cost or 1) > room:
        return _refused((at, used, leases, 0), quota, now, room, _first_free(leases, (cost or 1) - room) - now)
    if cost:
        _, held = leases.pop(lease, (0, 0))
        leases[lease] = (at + quota.window, held + cost)
    reset = _last(leases) - now if leases else 0
    return (at, used + cost, leases, 0), _new(Verdict, (True, room - cost, reset, 0, at))


def _first_free(leases: Leases, lack: int) -> int:
    for expires, count in leases.values():
        lack -= count
        if lack <= 0:
            return expires
    return 0


def _last(leases: Leases) -> int:
    return next(reversed(leases.values()))[0]


TAKE: Final[tuple[Take, ...]] = (take_gcra, take_fixed, take_sliding, take_leases)


def _refused(state: State, quota: Quota, now: int, room: int, retry: int) -> tuple[State, Verdict]:
    """`retry` 0: it could never be within the quota; then a window is said, which is as good as anything."""
    at, used, before, _ = state
    if quota.mitigation:
        state = (at, used, before, now + quota.mitigation)
    reset = max(_reset(state, quota, now), quota.mitigation)
    retry = max(retry if retry > 0 else quota.window, quota.mitigation)
    return state, _new(Verdict, (False, max(room, 0), reset, retry, at))


def _mitigated(state: State, quota: Quota, now: int) -> tuple[State, Verdict]:
    at, used, before, until = state
    # A clock that went back must not make it longer than it was meant to be.
    until = min(until, now + quota.mitigation)
    state = (at, used, before, until)
    return state, _new(Verdict, (False, 0, max(_reset(state, quota, now), until - now), until - now, at))


# Looking and correcting


def _room(state: State, quota: Quota) -> int:
    """Units left in a rolled state; below 0: owed."""
    at, used, before, _ = state
    kind, window = quota.kind, quota.window
    if kind == Kind.GCRA:
        return (quota.burst * window - used) // window
    if kind == Kind.SLIDING:
        return ((quota.limit - used) * window - int(before) * (window - at % window)) // window
    return quota.limit - used


def _reset(state: State, quota: Quota, now: int) -> int:
    """Microseconds until a rolled state is as a fresh one, mitigation aside."""
    at, used, before, _ = state
    kind, window = quota.kind, quota.window
    if kind == Kind.GCRA:
        return at - now - -used // quota.limit if used else 0
    if kind == Kind.LEASES:
        return _last(before) - now if before else 0
    if kind == Kind.SLIDING:
        return _sliding_end(used, before, at - at % window, window, now)
    return at - at % window + window - now if used else 0


def left(state: State, quota: Quota, now: int) -> Verdict:
    """What a charge that is within its quota is told when nothing was taken, since another one was refused."""
    state = roll(state, quota, now)
    return _new(Verdict, (True, max(_room(state, quota), 0), _reset(state, quota, now), 0, state[0]))


def level(state: State, quota: Quota, now: int) -> Level:
    """The key as somebody who looks it up sees it."""
    if quota.kind is Kind.LEASES:  # the state stays as it is, and so must its dictionary
        state = (state[0], state[1], dict(state[2]), state[3])
    state = roll(state, quota, now)
    blocked = max(min(state[3] - now, quota.mitigation), 0)
    return Level(max(_room(state, quota), 0), max(_reset(state, quota, now), blocked), blocked)


def correct(state: State, quota: Quota, delta: int, stamp: int, now: int) -> State:
    """Units more or fewer than were taken at `stamp`. Not for LEASES."""
    at, used, before, until = roll(state, quota, now)
    kind, window = quota.kind, quota.window
    delta = min(delta, OWED * quota.limit)
    if kind == Kind.GCRA:
        return (at, min(max(used + delta * window, 0), (quota.burst + OWED * quota.limit) * window), before, until)
    age = at // window - stamp // window
    if age <= 0:
        return (at, min(max(used + delta, 0), (OWED + 1) * quota.limit), before, until)
    if kind == Kind.SLIDING and age == 1:
        return (at, used, max(before + delta, 0), until)
    # That window is over: there is nothing left to give back; what is owed is charged to this one.
    return (at, used + max(delta, 0), before, until)


def give_back(state: State, quota: Quota, lease: bytes, now: int) -> State:
    """Takes a lease out of a LEASES state; one that is not (or no more) in it is nothing."""
    at, used, leases, until = _roll_leases(state, quota, now)
    _, count = leases.pop(lease, (0, 0))
    return (at, used - count, leases, until)


def prolong(state: State, quota: Quota, lease: bytes, now: int) -> State:
    """Has a lease in a LEASES state live for another window; one that is not (or no more) in it is nothing."""
    at, used, leases, until = _roll_leases(state, quota, now)
    if lease in leases:
        _, count = leases.pop(lease)
        leases[lease] = (at + quota.window, count)  # at the end: nothing in it expires later, since `at` does not go back
    return (at, used, leases, until)


def untake(leases: Leases, lease: bytes, cost: int) -> int:
    """Undoes `take_leases` in its dictionary; returns how many names went."""
    expires, count = leases.pop(lease)
    if count > cost:
        leases[lease] = (expires, count - cost)
        return 0
    return 1


def ends(state: State, quota: Quota) -> int:
    """When the state, rolled or not, will be as a fresh one, if it is left alone. Not for LEASES."""
    at, used, _, until = state
    kind, window = quota.kind, quota.window
    whole = at - at % window + (window if kind is Kind.FIXED else 2 * window)
    if kind is Kind.GCRA:
        whole = at - -used // quota.limit
    return whole if until <= whole else until


def share(state: State, quota: Quota, now: int) -> int:
    """How much of its quota a rolled state has in use: 0 (it may be forgotten) to FULL and above; mitigated: twice that."""
    at, used, before, until = state
    if until > now and quota.mitigation:
        return 2 * FULL
    kind = quota.kind
    if kind == Kind.GCRA:
        return -(-used * FULL // (quota.burst * quota.window))
    if kind == Kind.SLIDING:
        window = quota.window
        # `used` counts in the next window, too, even when `before` has moved out of this one.
        return -(-(used * window + int(before) * (window - at % window)) * FULL // (quota.limit * window))
    return -(-used * FULL // quota.limit)
