# How good the model is on implementations that it never saw. Figures with their intervals; nothing that the data cannot show.
"""`python -m tools.bots.evaluate [--markdown FILE] [--short FILE] [--scorer MODULE:FUNCTION]`: per tier, with clients held out
by implementation.

A scorer is `score(sample, model) -> int`: what the edge would say of a sample that the held-out model gave `model` (2..99), 1
for what is certain. It is shown beside the model alone.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgeproxy.bots.model import scaled
from tools.bots import after
from tools.bots.figures import Numbers, auc, recall, share
from tools.bots.matrix import TIERS, Matrix, matrix
from tools.bots.samples import Sample
from tools.bots.summary import put, short
from tools.bots.train import SEED, basis, held_out, knots, load

Scorer = Callable[[Sample, int], int]


def tiers(data: Matrix, said: Numbers, humans: Numbers, bare: bool = False) -> list[str]:
    """A table of the tiers, and the impersonators one by one; of rows with or without their connection."""
    lines = [
        "| tier | implementations | requests | AUC | recall below every human | recall at 0.1 % FPR | recall at 1 % FPR |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    kinds, groups = np.array(data.tiers), np.array(data.groups)
    rows = [(tier, kinds == tier) for tier in TIERS]
    if not bare:
        rows += [
            (f"– {group}", (kinds == "impersonator") & (groups == group))
            for group in sorted(set(groups[kinds == "impersonator"]))
        ]
    for name, of in rows:
        chosen = of & (data.bare == bare)
        bots = said[chosen]
        if not len(bots):
            continue
        cells = " | ".join(share(recall(bots, humans, rate)[0], len(bots)) for rate in (0.0, 0.001, 0.01))
        lines.append(f"| {name} | {len(set(groups[chosen]))} | {len(bots)} | {auc(bots, humans):.4f} | {cells} |")
    return lines


def corpora(data: Matrix, said: Numbers) -> list[str]:
    """What people's browsers get, one corpus a line."""
    lines = ["| human corpus | requests | kinds of client | below 30 | lowest | median |", "|---|---|---|---|---|---|"]
    found: dict[str, list[int]] = {}
    for at, (sample, tier) in enumerate(zip(data.samples, data.tiers, strict=True)):
        if tier == "human" and not data.bare[at]:
            name = f"synthesised on {data.groups[at]}" if sample.client == "synthesised" else f"{sample.client}, captured"
            found.setdefault(name, []).append(at)
    for name, where in sorted(found.items()):
        scores = said[where]
        kinds = len({(data.samples[at].variant, data.samples[at].protocol) for at in where})
        below = int((scores < 30).sum())
        lines.append(
            f"| {name} | {len(where)} | {kinds} | {share(below, len(where))} | {scores.min():.0f} | {np.median(scores):.0f} |"
        )
    return lines


def _certain(data: Matrix, both: Numbers, both_raw: Numbers) -> list[str]:
    """What is below all humans, those included that contradict themselves, by chance and by score."""
    kinds, seen = np.array(data.tiers), ~data.bare
    humans = seen & (kinds == "human")
    told = []
    for tier in ("declared", "library", "impersonator"):
        of = seen & (kinds == tier)
        chances, scores = (recall(said[of], said[humans], 0.0)[0] for said in (both_raw, both))
        told.append(f"{tier} {share(chances, int(of.sum()))}, by whole scores {share(scores, int(of.sum()))}")
    lowest = both[humans].min()
    return ["", f"Below every human, those included that contradict themselves (lowest score {lowest:.0f}): {'; '.join(told)}."]


def report(data: Matrix, raw: Numbers, scorer: Scorer | None, seed: int) -> str:
    """The figures as markdown."""
    drawn = tuple(knots(raw[basis(data)]))
    model = np.array([scaled(float(p), drawn) for p in raw], dtype=float)
    both, human = model, data.human == 1
    seen = human & ~data.bare
    bots = sum(tier in TIERS and not bare for tier, bare in zip(data.tiers, data.bare, strict=True))
    distinct = len({(s.variant, s.group, s.protocol) for s, h in zip(data.samples, seen, strict=True) if h})
    odd = int((seen & ~data.consistent).sum())
    lines = [
        f"{int(seen.sum())} requests of humans ({distinct} distinct combinations of User-Agent, connection and protocol), "
        f"{bots} of programs; each scored by a model that never saw its implementation. Intervals are Wilson's, 95 %.",
        "", "**The model alone**, against all humans:", "", *tiers(data, raw, raw[seen]), "",
        f"Against the humans whose head does not contradict itself ({odd} do, {100 * odd / seen.sum():.1f} %):", "",
        *tiers(data, raw, raw[seen & data.consistent]), "",
        "Behind a trusted proxy, where connections say nothing:", "", *tiers(data, raw, raw[human & data.bare], bare=True), "",
        "Scores of humans:", "", *corpora(data, model),
    ]  # fmt: skip
    if scorer is not None:
        both = np.array([scorer(s, int(m)) for s, m in zip(data.samples, model, strict=True)], dtype=float)
        certain = both == 1
        both_raw = np.where(certain, -1.0, raw)
        hit, contradicting = int((certain & seen).sum()), int((certain & seen & ~data.consistent).sum())
        told = f"{hit} of the humans, {contradicting} of these contradict themselves" if hit else "none of the humans"
        lines += ["", f"**With heuristics** (score 1: {told}), against the humans whose head does not contradict itself:"]
        lines += ["", *tiers(data, both_raw, both_raw[seen & data.consistent])]
        lines += [*_certain(data, both, both_raw), "", "Shares by score:", ""]
        lines += ["| | certain (1) | below 30 |", "|---|---|---|"]
        for name in ("human", *TIERS):
            of = (np.array(data.tiers) == name) & ~data.bare
            many = int(of.sum())
            lines.append(f"| {name} | {share(int(certain[of].sum()), many)} | {share(int((both[of] < 30).sum()), many)} |")
    if distinct < 3000:
        lines += [
            "",
            f"A bound of 0.1 % with 95 % confidence takes 3,000 independent humans; there are {distinct} distinct ones here.",
        ]
    return "\n".join([*lines, "", after.report(data, both, seed)])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", type=Path, help="a page that gets all figures, between its marks")
    parser.add_argument("--short", type=Path, help="a page that gets the short table")
    parser.add_argument("--scorer", help="module:function", default="tools.bots.combined:score")
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args()
    module, _, name = given.scorer.partition(":")
    try:
        scorer: Any = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as e:  # an edge without heuristics
        print(f"bots-eval: the model alone ({e})")
        scorer = None
    try:
        samples = load(given.seed)
    except RuntimeError as e:
        print(f"bots-eval: SKIPPED, no human corpus here: {e}")
        return
    data = matrix(samples, given.seed)
    text = report(data, held_out(data, given.seed), scorer, given.seed)
    print(text)
    if given.markdown is not None:
        put(given.markdown, text)
    if given.short is not None:
        put(given.short, short(text))


if __name__ == "__main__":
    main()
