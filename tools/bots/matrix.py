# Samples as numbers for training: rows, labels, weights, and which samples must stay on one side of a split.
"""`matrix` makes the rows by the edge's own features; `folds` deals implementations out."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeproxy.bots.features import NAMES, vector
from edgeproxy.message import Peer, Request
from edgeproxy.prints import Prints
from tools.bots.samples import Sample

TIERS = ("declared", "library", "impersonator", "automation")
_SHARES = {"human": 1.0, "declared": 0.15, "library": 0.35, "impersonator": 0.5}  # of the weight of all


class Matrix(NamedTuple):
    """Attributes: rows × features (float32), 1 for a human, weights, implementations, tiers, the samples themselves, and which
    rows were made without their connection."""

    rows: NDArray[np.float32]
    human: NDArray[np.int8]
    weights: NDArray[np.float64]
    groups: list[str]
    tiers: list[str]
    samples: list[Sample]
    bare: NDArray[np.bool_]

    @property
    def consistent(self) -> NDArray[np.bool_]:
        """Rows whose head does not contradict itself. Of apify's people three in a thousand do: a User-Agent changed by hand or
        by a program that was taken for a person."""
        return self.rows[:, NAMES.index("contradictions")] == 0


def row(sample: Sample, without: bool = False) -> list[float]:
    """The vector of a sample as the edge would make it.

    Args:
        without: as behind a trusted proxy, where connections say nothing.
    """
    return vector(request_of(sample, without), sample.when)


def request_of(sample: Sample, without: bool = False) -> Request:
    """A sample as a request of the edge."""
    peer = Peer("", trusted=False, secure=True)
    peer.prints = None if without else sample.prints
    return Request(sample.method, b"edge.test", b"/", sample.headers, None, sample.protocol, peer)


def side(sample: Sample) -> str:
    """What is never on both sides of a split: an implementation; of synthesised humans the family and major of their TLS."""
    if sample.client != "synthesised":
        return sample.group
    name = sample.group.removesuffix("-captured")
    return name if name != sample.group else "-".join(name.split(".")[0].split("_"))


def matrix(samples: list[Sample], seed: int) -> Matrix:
    """All samples; one in twelve once more without its connection."""
    random_ = random.Random(seed)
    samples = [early(sample) if sample.protocol == 2 and random_.random() < 0.3 else sample for sample in samples]
    chosen = [(sample, False) for sample in samples] + [(s, True) for s in samples if random_.random() < 1 / 12]
    chosen += [
        (s, True) for s in samples if s.client == "synthesised" and s.group.startswith("safari") and random_.random() < 0.15
    ]
    rows = np.array([row(sample, without) for sample, without in chosen], dtype=np.float32)
    assert rows.shape[1] == len(NAMES)
    kept = [sample for sample, _ in chosen]
    tiers = [sample.tier for sample in kept]
    groups = [side(sample) for sample in kept]
    # Every implementation of a tier weighs the same, however many samples it gave. Humans weigh by person.
    sizes = Counter(zip(tiers, groups, strict=True))
    parts = defaultdict(set)
    for tier, group in sizes:
        parts[tier].add(group)
    weights = []
    for sample, tier, group in zip(kept, tiers, groups, strict=True):
        if tier == "human":
            weights.append(_SHARES["human"] / tiers.count("human") if sample.client == "synthesised" else 0.0)
        else:
            weights.append(_SHARES.get(tier, 0.0) / len(parts[tier]) / sizes[tier, group])
    made = np.array(weights) * len(kept)
    captured = [at for at, s in enumerate(kept) if s.tier == "human" and s.client != "synthesised"]
    made[captured] = made[made > 0].mean() * 0.5
    human = np.array([tier == "human" for tier in tiers], dtype=np.int8)
    return Matrix(rows, human, made, groups, tiers, kept, np.array([without for _, without in chosen]))


def early(sample: Sample) -> Sample:
    """An HTTP/3 request that came before the connection's settings did."""
    if sample.prints.h3 is None:
        return sample
    prints = Prints(b"", "q")
    prints.hello, prints.h3 = sample.prints.hello, sample.prints.h3._replace(settings=())
    return sample._replace(prints=prints)


def folds(groups: list[str], count: int) -> list[set[str]]:
    """Implementations in so many parts of about the same number of samples, the largest first; the same at every call."""
    sizes = Counter(groups)
    parts: list[set[str]] = [set() for _ in range(count)]
    loads = [0] * count
    for group, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        at = loads.index(min(loads))
        parts[at].add(group)
        loads[at] += size
    return parts
