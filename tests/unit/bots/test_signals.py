# How fingerprints rank among each other, over the last hour.
"""bots/signals.py."""

from __future__ import annotations

import tracemalloc

from edgeproxy.bots import signals as module
from edgeproxy.bots.signals import HALF, Signals


def fill(signals: Signals, ja4: str, requests: int, now: float, *, addresses: int = 1, caught: bool = False) -> None:
    for n in range(requests):
        signals.count(ja4, now, n % addresses, n % 3, n, modern=n % 2 == 0, caught=caught, browser=not caught)


def test_ratios_and_ranks() -> None:
    signals = Signals()
    fill(signals, "browser", 100, 0.0, addresses=50)
    fill(signals, "library", 400, 0.0, addresses=2, caught=True)
    fill(signals, "rare", 1, 0.0)
    browser, library, rare = (signals.of(name, 1.0) for name in ("browser", "library", "rare"))
    assert browser is not None and library is not None and rare is not None
    assert (browser.h2h3, browser.heuristic, browser.browser) == (50, 0, 100)
    assert (library.heuristic, library.browser) == (100, 0)
    assert (library.requests_rank, browser.requests_rank, rare.requests_rank) == (1, 2, 3)
    assert (browser.addresses_rank, library.addresses_rank) == (1, 2)
    assert (library.requests_quantile, rare.requests_quantile) == (100, 33)
    assert signals.of("nobody", 1.0) is None


def test_an_hour_is_forgotten() -> None:
    signals = Signals()
    fill(signals, "old", 10, 0.0)
    fill(signals, "new", 1, HALF + 1)
    assert signals.of("old", HALF + 2) is not None
    fill(signals, "new", 1, 2 * HALF + 2)
    assert signals.of("old", 2 * HALF + 3) is None
    fill(signals, "new", 1, 9 * HALF)
    numbers = signals.of("new", 9 * HALF + 60)
    assert numbers is not None and numbers.requests_rank == 1


def test_memory_is_bounded() -> None:
    signals = Signals()
    for n in range(module.FINGERPRINTS + 50):
        signals.count(f"f{n}", 0.0, n, n, n, modern=True, caught=False, browser=True)
    assert signals.of(f"f{module.FINGERPRINTS + 1}", 0.0) is None
    for n in range(5_000):
        signals.count("f1", 0.0, n, n, n, modern=True, caught=False, browser=True)
    assert max(each.addresses.bit_count() for each in signals._new.values()) == module._DISTINCT


def test_made_up_fingerprints_take_little_memory() -> None:
    """One of them with thousands of paths and names: three numbers of 512 bits."""
    signals, now = Signals(), 10.0
    tracemalloc.start()
    try:
        for made in range(50):
            for n in range(600):
                signals.count(f"t13d{made}", now, n, n * 7, n * 13, modern=False, caught=False, browser=True)
        assert tracemalloc.get_traced_memory()[0] < 50 * 1500
    finally:
        tracemalloc.stop()
