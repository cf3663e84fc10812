# Figures become medians, ratios, a table, JSON and Markdown here; nothing is measured in this file.
"""The results of a bench run: data, arithmetic and rendering."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

EDGE = "edgeproxy"
RATIO = 3  # the place of its column


@dataclass(slots=True)
class Run:
    """One run of one peer: `value` in the case's unit (None: it failed), more figures by name, and why it is doubtful.

    A run with flags is shown and counted but enters no median.
    """

    value: float | None
    more: dict[str, float] = field(default_factory=dict)
    flags: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Target:
    """`edgeproxy` ≤ `factor` × `peer` in this case; without a peer, `factor` is a bound in the case's unit.

    Attributes:
        who: instead of the table's `against`.
        least: without a peer: `factor` is what this further figure is to be at least.
    """

    peer: str | None
    factor: float
    note: str = ""
    who: str | None = None
    least: str | None = None


@dataclass(slots=True)
class Table:
    """All runs of one case: what is counted in which unit, what is to be reached, the runs by peer in round order.

    Attributes:
        against: whose ratios to the others are shown; "" shows none.
    """

    case: str
    title: str
    unit: str
    targets: list[Target] = field(default_factory=list)
    runs: dict[str, list[Run]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    against: str = EDGE


def good(runs: Iterable[Run]) -> list[Run]:
    return [run for run in runs if run.value is not None and not run.flags]


def median(runs: Iterable[Run], name: str | None = None) -> float | None:
    """Median of the runs without flags: of the value, or of the figure `name`."""
    kept = good(runs)
    values = [run.value if name is None else run.more.get(name) for run in kept]
    present = [value for value in values if value is not None]
    return statistics.median(present) if present else None


def ratio(table: Table, peer: str, against: str | None = None) -> float | None:
    """Median over the rounds of (against ÷ peer), both taken from the same round: slow drift cancels out."""
    ours, theirs = table.runs.get(against or table.against, []), table.runs.get(peer, [])
    pairs = [
        ours[at].value / theirs[at].value  # type: ignore[operator]
        for at in range(min(len(ours), len(theirs)))
        if good([ours[at]]) and good([theirs[at]]) and theirs[at].value
    ]
    return statistics.median(pairs) if pairs else None


def verdict(table: Table, target: Target) -> str | None:
    """One line about a target, or None when the figures for it are not there."""
    who = target.who or table.against
    measured = ratio(table, target.peer, who) if target.peer else median(table.runs.get(who, []), target.least)
    if measured is None:
        return None
    if target.least and not target.peer:
        met = "reached" if measured >= target.factor else "missed"
        return f"{met}: {number(measured)} {target.least}, to reach {number(target.factor)}{_noted(target)}"
    met = "reached" if measured <= target.factor else "missed"
    if target.peer:
        return f"{met}: {measured:.2f} × {target.peer}, to reach {target.factor:.2f}{_noted(target)}"
    return f"{met}: {measured:.3g} {table.unit}, to reach {target.factor:g}{_noted(target)}"


def _noted(target: Target) -> str:
    return f" ({target.note})" if target.note else ""


def number(value: float | None) -> str:
    """Three significant digits, thousands with a comma, "-" for nothing."""
    if value is None:
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def columns(table: Table) -> list[str]:
    """Names of the further figures, in the order they first appear."""
    seen: dict[str, None] = {}
    for runs in table.runs.values():
        for run in runs:
            seen.update(dict.fromkeys(run.more))
    return list(seen)


def rows(table: Table) -> list[list[str]]:
    """Head and body of the table as text: peer, median, spread, ratio, further figures, flags."""
    extra = columns(table)
    head = [table.title, table.unit, "min-max", f"{table.against} ÷ it", *extra, "left out"]
    body = []
    for peer, runs in table.runs.items():
        values = [run.value for run in good(runs) if run.value is not None]
        spread = f"{number(min(values))}-{number(max(values))}" if values else "-"
        share = ratio(table, peer)
        doubtful = len(runs) - len(good(runs))
        body.append(
            [
                peer,
                number(median(runs)),
                spread,
                f"{share:.2f}" if share is not None else "-",
                *(number(median(runs, name)) for name in extra),
                f"{doubtful} of {len(runs)} runs" if doubtful else "",
            ]
        )
    return [head, *body]


def used(table: Table) -> list[int]:
    """Which columns to show: an empty column of doubts says nothing, nor do ratios to nobody."""
    lines = rows(table)
    last = len(lines[0]) - 1
    shown = [at for at in range(last + 1) if at < last or any(line[last] for line in lines[1:])]
    return shown if table.against else [at for at in shown if at != RATIO]


def doubts(table: Table) -> list[str]:
    """Why runs were left out of the medians, by peer, each reason once."""
    lines = []
    for peer, runs in table.runs.items():
        flags: dict[str, int] = {}
        for run in runs:
            for flag in run.flags:
                flags[flag] = flags.get(flag, 0) + 1
        lines += [f"{peer}, {count} of {len(runs)} runs left out: {flag}" for flag, count in flags.items()]
    return lines


def dump(table: Table) -> dict[str, Any]:
    """The table for JSON: raw runs, medians and ratios."""
    data = asdict(table)
    data["medians"] = {peer: median(runs) for peer, runs in table.runs.items()}
    data["ratios"] = {peer: ratio(table, peer) for peer in table.runs}
    data["verdicts"] = [line for target in table.targets if (line := verdict(table, target))]
    return data


def load(data: dict[str, Any]) -> Table:
    """The inverse of `dump`."""
    return Table(
        data["case"],
        data["title"],
        data["unit"],
        [Target(**target) for target in data["targets"]],
        {peer: [Run(**run) for run in runs] for peer, runs in data["runs"].items()},
        data["notes"],
        data["against"],
    )


def markdown(results: list[dict[str, Any]]) -> str:
    """docs/benchmarks.md from the JSON of one or several runs; facts only, the reader judges."""
    lines = [
        "# Benchmarks",
        "",
        "Made by `python -m bench --markdown FILE…` from results of `make bench`; don't edit. "
        "[bench/README.md](../bench/README.md) says how it is measured and what each case means.",
        "",
    ]
    for result in results:
        machine, method = result["machine"], result["method"]
        lines += [
            f"Measured on {result['date']}: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
            f"{machine['kernel']}; {method['rounds']} interleaved rounds of {method['seconds']:g} s, certificate "
            f"{method['certificate']}, {method['tls']}. Medians; ratios are medians of ratios within a round.",
            "",
            "Versions: " + ", ".join(f"{name} {version}" for name, version in result["versions"].items()) + ".",
            "",
        ]
        for data in result["cases"]:
            table = load(data)
            shown = used(table)
            grid = [[line[at] for at in shown] for line in rows(table)]
            lines += [f"## {table.case}", "", "| " + " | ".join(grid[0]) + " |"]
            lines += ["|" + "---|" * len(shown), *("| " + " | ".join(line) + " |" for line in grid[1:]), ""]
            remarks = [*data["verdicts"], *table.notes, *doubts(table)]
            lines += [*(f"- {text}" for text in remarks), *([""] if remarks else [])]
    return "\n".join(lines)
