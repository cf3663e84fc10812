# How fingerprints rank among each other, over the last hour.
"""bots/signals.py."""

from __future__ import annotations

import tracemalloc

import pytest

from edgeproxy.bots import signals as module
from edgeproxy.bots.signals import HALF, TOLD, Heard, Signals


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


# -- what others counted ---------------------------------------------------------------------------------------------


def test_what_others_counted_is_added() -> None:
    one, other, third = Signals(), Signals(), Signals()
    fill(one, "a", 100, 0.0, addresses=50)
    fill(other, "a", 300, 0.0, addresses=80, caught=True)
    fill(other, "b", 150, HALF + 1, addresses=500)
    fill(third, "b", 100, 0.0)
    heard = Heard()
    for each in (other, third):
        heard.add(each.busiest(HALF + 2))
    before = one.of("a", 1.0)
    assert before is not None and (before.heuristic, before.requests_rank) == (0, 1) and one.of("b", 1.0) is None
    one.heard = heard.counts
    a, b = one.of("a", 61.0), one.of("b", 61.0)
    assert a is not None and b is not None
    assert (a.heuristic, a.h2h3, a.requests_rank, b.requests_rank) == (75, 50, 1, 2)
    assert (a.addresses_rank, b.addresses_rank) == (2, 1)
    assert one._numbers("a") == (400, 80, 3, 300) and one._numbers("b") == (250, 150, 3, 150), "sets are united, not added"


def test_an_hour_is_told_and_no_more() -> None:
    signals, heard = Signals(), Heard()
    assert signals.busiest(1.0) == b""
    fill(signals, "old", 10, 0.0)
    fill(signals, "new", 5, HALF + 1)
    fill(signals, "old", 7, HALF + 1)
    heard.add(signals.busiest(HALF + 2))
    assert {ja4: counts.requests for ja4, counts in heard.counts.items()} == {"old": 17, "new": 5}
    assert signals.busiest(9 * HALF) == b"", "nobody came for hours"


def test_the_busiest_are_told_of() -> None:
    signals, heard = Signals(), Heard()
    for n in range(TOLD + 100):
        fill(signals, f"t13d1516h2_8daaf615{n:04d}_b0da82dd1658", n + 1, 0.0)
    rows = signals.busiest(1.0)
    assert len(rows) < (64 << 10) - 8
    heard.add(rows)
    assert len(heard.counts) == TOLD and min(counts.requests for counts in heard.counts.values()) == 101
    assert all(name.startswith("t13d1516h2_8daaf615") and len(name) == 36 for name in heard.counts)


def test_what_others_tell_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    signals, heard = Signals(), Heard()
    fill(signals, "a", 1, 0.0)
    rows = signals.busiest(1.0)
    for wrong in (rows[:-1], rows + b"x", rows * (TOLD + 1), b"\xff" + rows[1:]):
        with pytest.raises(ValueError, match=r"tells|ascii"):
            heard.add(wrong)
    signals._new["a"].requests = 1 << 40
    heard.add(signals.busiest(1.0))
    assert heard.counts["a"].requests == (1 << 32) - 1
    monkeypatch.setattr(module, "FINGERPRINTS", 1)
    fill(signals, "b", 1, 0.0)
    heard.add(signals.busiest(1.0))
    assert list(heard.counts) == ["a"]


def test_ranks_are_made_anew_in_parts() -> None:
    signals = Signals()
    for n in range(module._PART * 2 + 10):
        fill(signals, f"f{n}", n + 1, 0.0)
    last = module._PART * 2 + 9

    def rank(name: str, now: float) -> int:
        found = signals.of(name, now)
        assert found is not None
        return found.requests_rank

    assert rank("f0", 1.0) == last + 1, "the first time all at once"
    fill(signals, "f0", 5000, 2.0)
    before = signals._sorted
    for now in (31.5, 31.6):
        rank("f0", now)
        assert signals._sorted is before, "a part of them"
    rank("f0", 31.7)
    assert signals._sorted is not before and signals._sorted[0][-1] == 5001
    rank("f0", 92.0)
    assert signals._unranked is None, "whoever asks seldom waits for all"
