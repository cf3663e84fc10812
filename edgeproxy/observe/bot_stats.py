# What a worker counts of scores and of what is done about them. Plain slots like metrics.py.
"""`BotStats`: counters that scoring and its policy write, and how copies of them are added up."""

from __future__ import annotations

from typing import Any, Final

SCORES: Final = 100  # values 0..99
BotDump = dict[str, Any]
_NUMBERS: Final = ("failures",)
_MAPS: Final = ("detections", "range_reads")
_PAIRS: Final = ("acts", "lookups")  # by two names


class BotStats:
    """One worker's.

    Attributes:
        scores: requests by the value of their score; 0: it was not computed.
        acts: what the policy did, by (act, `act` or `log`: only told).
        detections: requests by name of each heuristic that was true.
        failures: scores that could not be computed because something raised.
        lookups: by (what, outcome): who looks up counts in it (lookups/service.py).
        range_reads: files of networks that were read, by outcome (lookups/following.py).
        ranges_broken: how many of them bring nothing, or nothing new; of all workers the most counts.
        ranges_oldest: when the oldest in use was written, seconds since the epoch, 0: there is none; of all workers the first.
    """

    __slots__ = ("acts", "detections", "failures", "lookups", "range_reads", "ranges_broken", "ranges_oldest", "scores")

    def __init__(self) -> None:
        self.scores: list[int] = [0] * SCORES
        self.acts: dict[tuple[str, str], int] = {}
        self.detections: dict[str, int] = {}
        self.failures = 0
        self.lookups: dict[tuple[str, str], int] = {}
        self.range_reads: dict[str, int] = {}
        self.ranges_broken = 0
        self.ranges_oldest = 0.0

    def act(self, act: str, *, acts: bool) -> None:
        """Counts what the policy does about a score, or would do."""
        key = (act, "act" if acts else "log")
        self.acts[key] = self.acts.get(key, 0) + 1

    def detection(self, name: str) -> None:
        """Counts a heuristic that was true; names are of our own table."""
        self.detections[name] = self.detections.get(name, 0) + 1

    def dump(self) -> BotDump:
        """A copy made of dicts, lists, strings and numbers only."""
        copy: BotDump = {name: getattr(self, name) for name in _NUMBERS}
        copy |= {name: dict(getattr(self, name)) for name in _MAPS}
        copy["scores"] = list(self.scores)
        copy["ranges_broken"], copy["ranges_oldest"] = self.ranges_broken, self.ranges_oldest
        copy |= {name: [[*key, n] for key, n in getattr(self, name).items()] for name in _PAIRS}
        return copy


def add(into: BotDump, more: BotDump) -> None:
    """Adds a copy to a sum of the same shape."""
    for name in _NUMBERS:
        into[name] += more[name]
    for name in _MAPS:
        for key, n in more[name].items():
            into[name][key] = into[name].get(key, 0) + n
    into["ranges_broken"] = max(into["ranges_broken"], more["ranges_broken"])
    into["ranges_oldest"] = min(into["ranges_oldest"] or more["ranges_oldest"], more["ranges_oldest"] or into["ranges_oldest"])
    into["scores"] = [a + b for a, b in zip(into["scores"], more["scores"], strict=True)]
    for name in _PAIRS:
        sums = {(one, other): n for one, other, n in into[name]}
        for one, other, n in more[name]:
            sums[one, other] = sums.get((one, other), 0) + n
        into[name] = [[*key, n] for key, n in sums.items()]
