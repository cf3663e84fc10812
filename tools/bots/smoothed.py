# What smoothing does within sessions: the edge's own `Steady` on held-out scores. The sessions are made up: heads are not.
"""`python -m tools.bots.smoothed [--seed N]`: spread and shares below 30, with and without, by tier; what a stolen cookie gives.

A session is `REQUESTS` draws from the heads of one program (client, variant, User-Agent and normalised JA4), as often as it
sent them; what comes behind the first `BEFORE` is counted. Many sessions are drawn of few programs: intervals of their shares
would say too much, so there are none.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from typing import Final

import numpy as np

from edgeproxy.bots.model import scaled
from edgeproxy.bots.score import AUTOMATED, LIKELY_HUMAN, Score
from edgeproxy.bots.smoothing import ODDS, UP, Steady
from tools.bots.combined import score
from tools.bots.figures import share
from tools.bots.matrix import matrix
from tools.bots.samples import Sample
from tools.bots.train import SEED, basis, held_out, knots, load

REQUESTS: Final = 20
BEFORE: Final = 5
SESSIONS: Final = 40_000  # of a tier, about
_WHOSE: Final = 1
_ORDER: Final = ("human, captured", "human, synthesised", "declared", "library", "impersonator", "automation")


def session(scores: list[int], draw: random.Random) -> list[tuple[int, int]]:
    """Scores of requests, each without and with smoothing."""
    steady, found = Steady(), []
    for value in draw.choices(scores, k=REQUESTS):
        pulled = steady.pull(ODDS[value], _WHOSE) if value > AUTOMATED else 0.0
        found.append((value, Score(value, "Machine Learning").with_evidence(0.0, pulled=pulled).value))
    return found[BEFORE:]


def programs(samples: list[Sample], values: list[int]) -> dict[str, list[list[int]]]:
    """Scores of each program's heads, by tier."""
    found: dict[str, dict[object, list[int]]] = defaultdict(lambda: defaultdict(list))
    for sample, value in zip(samples, values, strict=True):
        made = sample.client == "synthesised"
        tier = f"human, {'synthesised' if made else 'captured'}" if sample.tier == "human" else sample.tier
        person = (id(sample.prints), sample.when) if made else sample.prints.ja4n
        agent = dict(sample.headers).get(b"user-agent")
        found[tier][sample.client, sample.variant, sample.group, agent, person].append(value)
    return {tier: [each for each in of.values() if len(each) > 1] for tier, of in found.items()}


def table(found: dict[str, list[list[int]]], seed: int) -> list[str]:
    """A row for each tier."""
    draw = random.Random(seed)
    lines = [
        "| tier | programs | with different scores | spread in their sessions, log-odds | requests below 30 | sessions too |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for tier in _ORDER:
        of = found.get(tier, [])
        if not of:
            continue
        runs = np.array([session(scores, draw) for scores in of for _ in range(SESSIONS // len(of))])
        mixed = {at // (SESSIONS // len(of)) for at, run in enumerate(runs) if run[:, 0].std()}
        spreads = np.array(ODDS)[runs].std(axis=1)
        spread = spreads[spreads[:, 0] > 0].mean(axis=0) if mixed else (0.0, 0.0)
        below = runs < LIKELY_HUMAN
        shares = (below.mean(axis=(0, 1)), below.any(axis=1).mean(axis=0))
        cells = [f"{100 * one:.2f} % → {100 * other:.2f} %" for one, other in shares]
        lines.append(f"| {tier} | {len(of)} | {len(mixed)} | {spread[0]:.2f} → {spread[1]:.2f} | {' | '.join(cells)} |")
    return lines


def stolen(values: list[int]) -> str:
    """What all of a good session's weight gives programs that are the same to the last byte of their handshake."""
    after = [Score(value, "Machine Learning").with_evidence(0.0, pulled=UP).value for value in values]
    plain, now = (share(sum(value < LIKELY_HUMAN for value in of), len(of)) for of in (values, after))
    return f"A stolen session of the same program: impersonators below 30 go from {plain} to {now}."


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED)
    seed = parser.parse_args().seed
    data = matrix(load(seed), seed)
    raw = held_out(data, seed)
    drawn = tuple(knots(raw[basis(data)]))
    samples = [sample for sample, bare in zip(data.samples, data.bare, strict=True) if not bare]
    values = [score(s, scaled(float(p), drawn)) for s, p in zip(samples, raw[~data.bare], strict=True)]
    print("\n".join(table(programs(samples, values), seed)))
    print(stolen([value for sample, value in zip(samples, values, strict=True) if sample.tier == "impersonator"]))


if __name__ == "__main__":
    main()
