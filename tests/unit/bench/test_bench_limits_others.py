# Who else is measured in the case `limits`, and edges with and without a limit: what is asked and made of the answers.
"""bench/limit_peers.py, limits_edge.py and pacer.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bench import certificate, limit_peers, limits_edge, peers
from bench.children import Failure
from bench.limit_load import RATE
from bench.limit_peers import Other
from bench.limits_edge import Slice
from edgeproxy.config.load import load

CORES = ",".join(map(str, sorted(os.sched_getaffinity(0))))
SCRIPT = """\
import json, sys
for word in {words}:
    print(word, flush=True)
    sys.stdin.readline()
print(json.dumps({{"checks": 1000, "cpu": 0.02, "wall": 0.1, "p50": 0.001, "p99": 0.002, "said": sys.argv[1:]}}))
"""


def script(path: Path, monkeypatch: pytest.MonkeyPatch, words: str = '["begin", "end"]') -> Other:
    path.write_text(SCRIPT.format(words=words))
    monkeypatch.setattr(limit_peers, "SCRIPT", path)
    return Other("somebody", ("litellm", "--in-flight", "8"), sys.executable)


def test_another_limiter_is_asked_and_the_server_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([5.0, 5.03])
    other = script(tmp_path / "s.py", monkeypatch)
    run = limit_peers.run(other, 0.1, CORES, lambda: next(clock), "redis://127.0.0.1:7000/0")
    assert run.value == pytest.approx(20)
    assert run.more["redis-server µs"] == pytest.approx(30)
    assert run.more[RATE] == pytest.approx(10_000)
    assert (run.more["p50 ms"], run.more["p99 ms"]) == (1, 2)
    assert "others %" in run.more


def test_in_memory_there_is_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = limit_peers.run(script(tmp_path / "s.py", monkeypatch), 0.1, CORES)
    assert run.value == pytest.approx(20) and "redis-server µs" not in run.more and "p50 ms" not in run.more


def test_one_that_fails_is_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Failure, match="no figures"):
        limit_peers.run(script(tmp_path / "s.py", monkeypatch, "1 / 0"), 0.1, CORES)
    with pytest.raises(Failure, match="no figures"):
        limit_peers.run(script(tmp_path / "s.py", monkeypatch, '["begin"]'), 0.1, CORES)


def test_a_package_that_is_not_there_is_said_so() -> None:
    assert limit_peers.why_not(sys.executable, "pytest", "pytest") is None
    assert limit_peers.why_not(sys.executable, "nobody's", "no_such_package_of_anybody") == "nobody's is not installed"
    reason = limit_peers.why_not("/nowhere/python", "LiteLLM", "litellm")
    assert reason is not None and "cannot be asked" in reason
    assert limit_peers.version("/nowhere/python", "litellm") == ""


def test_who_takes_part() -> None:
    assert limit_peers.in_memory(None, None) == [] == limit_peers.in_redis(None, None, 1)
    names = [other.name for other in limit_peers.in_memory("python", "other")]
    assert len(set(names)) == len(names) == 6
    assert {other.python for other in limit_peers.in_redis("python", "other", 64)} == {"python", "other"}


def test_the_script_says_begin_and_end(tmp_path: Path) -> None:
    pytest.importorskip("limits", reason="limits is not installed (the extra `bench`)")
    for other in limit_peers.in_memory(sys.executable, None):
        run = limit_peers.run(other, 0.1, CORES)
        assert run.value is not None and run.value > 0.1 and run.more[RATE] > 10


def test_the_difference_of_two_edges() -> None:
    run = limits_edge.difference({"p50 ms": 1.0, "p99 ms": 4.0}, {"p50 ms": 1.25, "p99 ms": 3.0})
    assert run.value == 0.25
    assert run.more == {"added p99 ms": -1.0, "p50 without": 1.0, "p50 with": 1.25, "p99 without": 4.0, "p99 with": 3.0}


@pytest.mark.parametrize("store", [None, "redis://127.0.0.1:7000/0"])
def test_the_limit_is_one_that_the_edge_understands(store: str | None, tmp_path: Path) -> None:
    certificate.make(tmp_path, "ecdsa")
    at = peers.place(tmp_path, 1, tmp_path)
    limits_edge.limited(store).launch(at)
    config = load(tmp_path / "edge.yaml")
    assert [limit.name for limit in config.limits] == ["everybody"]
    assert (config.store is not None) == (store is not None)
    assert config.on_store_failure == "closed"


def test_turns_are_in_pairs_and_each_side_gets_its_time() -> None:
    order = limits_edge.turns(3.0)
    assert order[:8] == [0, 1, 1, 0, 0, 1, 1, 0]
    assert order.count(0) == order.count(1) and order.count(0) * limits_edge.SLICE >= 3.0
    assert limits_edge.turns(0.1) == [0, 1, 1, 0]


def test_neighbours_are_compared() -> None:
    # The machine becomes slower: 50, then 80 µs without. The limit adds 10.
    order = limits_edge.turns(0.5)
    costs = {0: [50, 80], 1: [60, 90]}
    slices = [Slice(costs[which].pop(0) / 1e6 * 100, 0.0005, 100, 0.1) for which in order]
    run = limits_edge.compared(order, slices, redis=True)
    assert run.value == pytest.approx(10)
    assert run.more["redis-server µs"] == pytest.approx(5)
    assert run.more["without"] == pytest.approx(65) and run.more["with"] == pytest.approx(75)
    assert limits_edge.compared([0, 1], [Slice(1, 0, 0, 1), Slice(1, 0, 9, 1)], redis=False).flags == ["nothing was relayed"]
