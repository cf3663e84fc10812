# Events about where keys are seen: few, true, and bounded.
from __future__ import annotations

import sys

from edgeproxy.policy import sightings
from edgeproxy.policy.sightings import HOUR, QUIET, Sightings, network_of


def see(state: Sightings, address: str, now: float, key: str = "Ab3dEf9h") -> sightings.Sighting | None:
    return state.seen(key, "team", network_of(address), address, now)


def test_networks() -> None:
    assert network_of("192.0.2.1") == network_of("192.0.2.254") == network_of("::ffff:192.0.2.9") != network_of("192.0.3.1")
    assert network_of("2001:db8:1:2::1") == network_of("2001:db8:1:ffff::1") != network_of("2001:db8:2::1")
    assert network_of("") == -1


def test_one_network_too_many() -> None:
    state = Sightings(2)
    assert [see(state, f"10.0.{number}.1", number) for number in (1, 2, 1, 2)] == [None] * 4
    found = see(state, "10.0.3.1", 5.0)
    assert found == ("networks", "Ab3dEf9h", "team", "10.0.3.1", ("10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"), 1)
    assert [see(state, f"10.0.{number}.1", 6.0 + number) for number in range(50)] == [None] * 50  # once an hour
    again = [see(state, f"10.0.{number}.1", 5.0 + HOUR + number) for number in range(3)]
    assert [each is not None for each in again].count(True) == 1


def test_networks_of_long_ago_do_not_count() -> None:
    state = Sightings(2)
    assert [see(state, f"10.0.{number}.1", number * (HOUR / 2 + 1)) for number in range(20)] == [None] * 20


def test_a_network_that_is_used_stays_fresh() -> None:
    state = Sightings(1)
    assert see(state, "10.0.1.1", 0.0) is None
    assert see(state, "10.0.1.1", HOUR - 1) is None  # the same again, much later
    assert see(state, "10.0.2.1", HOUR + 1) is not None


def test_unix_sockets_are_a_network() -> None:
    state = Sightings(1)
    assert see(state, "", 0.0) is None
    assert see(state, "2001:db8::1", 1.0) == ("networks", "Ab3dEf9h", "team", "2001:db8::1", ("unix", "2001:db8::/48"), 1)


def test_elsewhere_is_told_now_and_then_and_counted() -> None:
    state = Sightings(8)
    first = state.elsewhere("Ab3dEf9h", "team", "192.0.2.1", 10.0)
    assert first == ("elsewhere", "Ab3dEf9h", "team", "192.0.2.1", ("192.0.2.0/24",), 1)
    assert [state.elsewhere("Ab3dEf9h", "team", "192.0.2.1", 11.0) for _ in range(99)] == [None] * 99
    assert state.elsewhere("other", "b", "192.0.2.1", 11.0) is not None
    later = state.elsewhere("Ab3dEf9h", "team", "192.0.2.2", 10.0 + QUIET)
    assert later is not None and later.times == 100


def test_the_state_is_bounded(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(sightings, "MAX_KEYS", 100)
    state = Sightings(4)
    for number in range(5000):
        see(state, f"10.{number >> 8}.{number & 255}.1", number / 100, key=str(number % 300))
    entries = state._keys
    assert len(entries) == 100 and max(len(each.networks) for each in entries.values()) <= 5
    assert sys.getsizeof(entries) < 20_000
    state.keep({"1", "299"}, 3)
    assert set(state._keys) <= {"1", "299"}
