# What becomes of scores after some requests and after a challenge, as tables. Sessions are sessions.py's, scores held out.
"""`report(data, values, seed)`: markdown for `tools.bots.evaluate`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from tools.bots.figures import Numbers, auc, recall, share
from tools.bots.matrix import Matrix
from tools.bots.sessions import (
    BROWSER,
    DRAWS,
    HURRIED,
    PROGRAM,
    READER,
    REQUESTS,
    TIMED,
    Kind,
    Walks,
    after,
    draws,
    walks,
)  # fmt: skip

MORE: Final = 100
_COLUMNS: Final = (
    ("cookies kept, with parts", "kept", True), ("cookies kept, pages alone", "kept", False),
    ("no cookies, with parts", "none", True), ("no cookies, pages alone", "none", False),
    ("a new context for each page, with parts", "fresh", True),
)  # fmt: skip
_FAST, _BURST, _TIMED, _READING = Kind(BROWSER), Kind(PROGRAM), Kind(TIMED), Kind(READER)
_SHOWN: Final = {
    "automation": (
        _FAST._replace(parts=True), _FAST._replace(cookies="fresh", parts=True), _FAST, _FAST._replace(missing=True),
        _TIMED._replace(parts=True), _TIMED, _TIMED._replace(cookies="none", missing=True),
        _READING._replace(parts=True), _READING,
    ),
    "impersonator": (
        _BURST, _BURST._replace(cookies="none"), _BURST._replace(cookies="none", missing=True), _TIMED,
        _TIMED._replace(cookies="none"), _TIMED._replace(cookies="none", missing=True), _READING,
        _READING._replace(cookies="none"),
    ),
    "human": (
        _READING._replace(parts=True), _READING, _READING._replace(cookies="none"), Kind(HURRIED, parts=True), Kind(HURRIED),
        Kind(HURRIED, "none"),
    ),
}  # fmt: skip


class Case(NamedTuple):
    """What came before a request: log-odds of sessions, those of the humans it is compared with, a challenge of both."""

    name: str
    pool: Sequence[float]
    people: Sequence[float]
    passed: bool = False


def applied(values: Numbers, pool: Sequence[float], passed: bool, seed: int) -> Numbers:
    """Scores with one session of the pool each, drawn by the seed."""
    draw = random.Random(seed)
    return np.array([after(int(value), draw.choice(pool), passed) for value in values], dtype=float)


def _cases(tier: str, seed: int) -> list[Case]:
    people = [*draws(_READING, seed), *draws(_READING._replace(parts=True), seed)]
    pools = {str(kind): draws(kind, seed) for kind in _SHOWN[tier]}
    made = [Case("nothing", [0.0], [0.0])]
    made += [Case(name, pool, people) for name, pool in pools.items()]
    if tier != "impersonator":  # they do not solve it
        made.append(Case("a challenge alone", [0.0], [0.0], passed=True))
        made += [Case(f"a challenge; {name}", pool, people, passed=True) for name, pool in list(pools.items())[:3]]
    return made


def _sessions(seed: int) -> list[str]:
    """What sessions move."""
    lines = [f"| pauses between pages | | {' | '.join(name for name, *_ in _COLUMNS)} |", "|---|---|---|---|---|---|---|"]
    rows = [Kind(pace, missing=missing) for pace in (BROWSER, PROGRAM, TIMED, READER, HURRIED) for missing in (False, True)]
    for row in [*rows, Kind(READER, same=True)]:
        cells = []
        for _, cookies, parts in _COLUMNS:
            if parts and (row.same or row.pace == PROGRAM):
                cells.append("")
                continue
            kind = row._replace(cookies=cookies, parts=parts)
            few, many = (np.quantile(draws(kind, seed, n), (0.05, 0.5, 0.95)) for n in (REQUESTS, MORE))
            cells.append(f"{few[1]:+.1f} ({few[0]:+.1f} … {few[2]:+.1f}); {many[1]:+.1f}")
        about = "half are 404" if row.missing else "one path: a chat" if row.same else ""
        lines.append(f"| {row.pace} | {about} | {' | '.join(cells)} |")
    return lines


def _programs(data: Matrix, values: Numbers, tier: str, seed: int) -> list[str]:
    names = np.array(data.tiers)
    bots = (names == tier) & ~data.bare
    humans = (names == "human") & ~data.bare & data.consistent
    lines = [
        f"| {tier}, after | below 30 | AUC | recall at 0.1 % FPR | recall at 1 % FPR | median score |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, pool, people, passed in _cases(tier, seed):
        base, said = applied(values[humans], people, passed, seed), applied(values[bots], pool, passed, seed)
        below, few, more = (
            share(hits, len(said)) for hits in (int((said < 30).sum()), *(recall(said, base, rate)[0] for rate in (0.001, 0.01)))
        )
        lines.append(f"| {name} | {below} | {auc(said, base):.3f} | {few} | {more} | {np.median(said):.0f} |")
    return lines


def _humans(data: Matrix, values: Numbers, seed: int) -> list[str]:
    seen = (np.array(data.tiers) == "human") & ~data.bare
    captured = seen & (np.array([sample.client for sample in data.samples]) != "synthesised")
    lines = [
        "| humans, after | captured browsers below 30 | lowest | median | all below 30 | median |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, pool, _, passed in _cases("human", seed):
        few, every = (applied(values[of], pool, passed, seed) for of in (captured, seen))
        shares = [share(int((said < 30).sum()), len(said)) for said in (few, every)]
        lines.append(f"| {name} | {shares[0]} | {few.min():.0f} | {np.median(few):.0f} | {shares[1]} | {np.median(every):.0f} |")
    return lines


def _walked(measured: Walks) -> list[str]:
    """What the edge itself said of real walks."""
    lines = [
        f"| client | seconds for its pages | first score | score of request {REQUESTS + 1} | of its last page | solved the "
        "challenge | score behind it |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in measured.rows:
        name = f"{row['client']}, {row['variant']}"
        if "requests" not in row:
            lines.append(f"| {name} | not here: {row['missing']} | | | | | |")
            continue
        of = row["requests"]
        pages = [each for each in of if each[1].startswith("/w/p") and "." not in each[1]]
        behind = next(each[4] for each in of if each[1] == "/w/behind")
        seconds = f"{pages[-1][0] - pages[0][0]:.2f}"
        solved = f"yes, in {row['seconds']:.1f} s" if row["passed"] else "no"
        lines.append(f"| {name} | {seconds} | {pages[0][4]} | {of[REQUESTS][4]} | {pages[-1][4]} | {solved} | {behind} |")
    return lines


def report(data: Matrix, values: Numbers, seed: int) -> str:
    """The figures as markdown.

    Args:
        values: scores of all rows, by held-out models and heuristics.
    """
    return "\n".join([
        f"**After {REQUESTS} requests and after a challenge.** What sessions move a score, in log-odds: median (5 % … 95 % of "
        f"{DRAWS} sessions); behind the semicolon the median after {MORE} requests:", "",
        *_sessions(seed), "",
        f"With that, and held-out scores with heuristics; each request is taken as number {REQUESTS + 1}. The humans that "
        "programs are compared with do not contradict themselves, read pages meanwhile, keep cookies, and half of them load "
        "parts; they have passed the challenge where the programs have:", "",
        *_programs(data, values, "automation", seed), "", *_programs(data, values, "impersonator", seed), "",
        *_humans(data, values, seed), "",
        "Real walks: what an edge with the shipped model said while clients went through twenty pages as fast as they can and "
        "then met a `managed_challenge`:", "",
        *_walked(walks()), "",
    ])  # fmt: skip
