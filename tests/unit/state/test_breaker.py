# When a server is asked again: the breaker's times, without a clock.
from __future__ import annotations

from edgeproxy.state.breaker import FIRST, LONGEST, STEADY, Breaker


def test_it_is_open_until_somebody_answered() -> None:
    breaker = Breaker(10.0)
    assert not breaker.closed
    breaker.answered(11.0)
    assert breaker.closed and breaker.since == 11.0


def test_a_failure_opens_it_once() -> None:
    breaker = Breaker(0.0)
    breaker.answered(0.0)
    assert breaker.fail(10.0)
    assert not breaker.closed and breaker.probe_at == 10.0 + FIRST
    assert not breaker.fail(10.1)
    assert breaker.failures == 1 and breaker.probe_at == 10.1 + 2 * FIRST


def test_probes_become_rarer_up_to_a_bound() -> None:
    breaker = Breaker(0.0)
    breaker.answered(0.0)
    for _ in range(20):
        breaker.fail(50.0)
    assert breaker.probe_at == 50.0 + LONGEST


def test_one_that_comes_and_goes_is_probed_more_rarely_than_one_that_was_steady() -> None:
    breaker = Breaker(0.0)
    breaker.answered(0.0)
    breaker.fail(STEADY)
    breaker.answered(STEADY + 1)
    breaker.fail(STEADY + 1.1)
    assert breaker.probe_at == STEADY + 1.1 + 2 * FIRST
    breaker.answered(100.0)
    breaker.fail(100.0 + STEADY)
    assert breaker.probe_at == 100.0 + STEADY + FIRST
