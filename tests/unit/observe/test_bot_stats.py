# What is counted of scores: copies are added up number by number, and the histogram is cumulative.
"""observe/bot_stats.py, and what collector.py makes of it."""

from __future__ import annotations

import json
from collections import Counter

from support.edge import running_edge

from edgeproxy.observe.bot_stats import BotStats, add
from edgeproxy.observe.collector import _bots
from edgeproxy.observe.metrics import WorkerStats, merge


def filled(*scores: int) -> BotStats:
    stats = BotStats()
    for score in scores:
        stats.scores[score] += 1
    stats.detection("scanner")
    stats.act("block", acts=True)
    stats.act("block", acts=False)
    stats.failures = 2
    stats.lookups = Counter({("name", "found"): 3})
    return stats


def test_copies_are_added_up() -> None:
    one, other = filled(0, 1, 1, 99), filled(1, 30)
    other.detection("impostor")
    other.act("slow", acts=True)
    other.lookups["directory", "failed"] = 1
    total = BotStats().dump()
    for each in (one, other):
        add(total, json.loads(json.dumps(each.dump())))
    assert [total["scores"][value] for value in (0, 1, 2, 30, 99)] == [1, 3, 0, 1, 1] and sum(total["scores"]) == 6
    assert total["detections"] == {"scanner": 2, "impostor": 1} and total["failures"] == 4
    assert sorted(total["acts"]) == [["block", "act", 2], ["block", "log", 2], ["slow", "act", 1]]
    assert sorted(total["lookups"]) == [["directory", "failed", 1], ["name", "found", 6]]
    workers = WorkerStats(), WorkerStats()
    workers[0].bots, workers[1].bots = one, other
    assert merge([worker.dump() for worker in workers])["bots"] == total


def test_files_of_networks_are_the_same_for_all_workers() -> None:
    """Reads are added up; of broken files the most count, and of times the first that is one."""
    total = BotStats().dump()
    for broken, oldest in ((0, 0.0), (2, 50.0), (1, 40.0), (0, 0.0)):
        each = BotStats()
        each.range_reads, each.ranges_broken, each.ranges_oldest = {"found": 1}, broken, oldest
        add(total, json.loads(json.dumps(each.dump())))
    assert (total["range_reads"], total["ranges_broken"], total["ranges_oldest"]) == ({"found": 4}, 2, 40.0)


def test_the_histogram() -> None:
    samples = {
        (sample.name, sample.labels.get("le", "")): sample.value
        for metric in _bots(filled(0, 1, 1, 9, 10, 29, 30, 99).dump()) if metric.name == "edgeproxy_bot_score"
        for sample in metric.samples
    }  # fmt: skip
    buckets = {le: value for (name, le), value in samples.items() if name.endswith("_bucket")}
    assert buckets["0"] == 1 and buckets["1"] == 3 and buckets["9"] == 4 and buckets["19"] == 5 and buckets["29"] == 6
    assert buckets["39"] == 7 and buckets["89"] == 7 and buckets["99"] == buckets["+Inf"] == 8
    assert samples["edgeproxy_bot_score_count", ""] == 8 and samples["edgeproxy_bot_score_sum", ""] == 179


async def test_look_ups_are_counted_where_they_are_made() -> None:
    section = {"enabled": True, "model": "off", "identity": {"dns": True, "known_agents": False}}
    async with running_edge(bots=section) as edge:
        lookups = edge.data_plane._identifying.lookups
        assert lookups is not None
        lookups.counts["name", "none"] += 2
        assert edge.stats.dump()["bots"]["lookups"] == [["name", "none", 2]]
