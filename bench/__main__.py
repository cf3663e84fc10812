# The command line of the bench: which cases and peers, in which order, and where the results go.
"""`python -m bench [CASE…] [--peers …] [--rounds N] [--seconds S] [--json FILE]`, or `--markdown FILE…`."""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import os
import resource
import shutil
import signal
import ssl
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table as RichTable

from bench import bots, bots_edge, cases, certificate, limits_edge, limits_tables, parts, peers, proc, report, rules, upstream
from bench.children import Failure, find
from bench.peers import Peer
from bench.report import Run, Table

PACKAGES = (
    "uvloop", "httptools", "ngh2", "aioquic", "pylsqpack", "google-re2", "common-expression-language", "cel-python",
)  # fmt: skip
RULES, LIMITS, BOTS = "rules", "limits", "bots"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="edgeproxy beside its peers, in one run")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(parts.CASES)} (all)")
    parser.add_argument("--peers", default=",".join(peers.DEFAULT), help="by comma (%(default)s)")
    parser.add_argument("--add", action="append", default=[], metavar="NAME=COMMAND", help="one more peer; see README")
    parser.add_argument(
        "--add-bare", action="append", default=[], metavar="NAME=COMMAND", help="one that answers by itself; see README"
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each peer runs, in turn (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of the measured window (%(default)s)")
    parser.add_argument("--certificate", choices=sorted(certificate.KINDS), default="ecdsa")
    parser.add_argument("--proxy-cores", default="0", help="taskset list for the proxy (%(default)s)")
    parser.add_argument("--load-cores", default="1", help="for the load and the upstream (%(default)s)")
    parser.add_argument(
        "--litellm", type=os.path.abspath, metavar="PYTHON", help="an interpreter that has LiteLLM, for limits; see README"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")
    parser.add_argument("--markdown", nargs="+", type=Path, metavar="FILE", help="print Markdown made of JSON results")
    parser.add_argument("--keep", action="store_true", help="keep the directory of generated files and logs")
    return parser.parse_args(argv)


def chosen_peers(options: argparse.Namespace, console: Console) -> list[Peer]:
    known = peers.known()
    names = [name for name in options.peers.split(",") if name]
    for extra in [*map(peers.added, options.add), *(peers.added(text, bare=True) for text in options.add_bare)]:
        known[extra.name] = extra
        names.append(extra.name)
    chosen = []
    for name in dict.fromkeys(names):
        if name not in known:
            raise Failure(f"unknown peer {name!r}; there are {', '.join(known)}")
        if known[name].missing:
            console.print(f"[yellow]skipped[/] {name}: {known[name].missing}")
        else:
            chosen.append(known[name])
    if not chosen:
        raise Failure("no peer is left to run")
    return chosen


def attempt(action: Callable[[], Run]) -> Run:
    """A run that failed is a run without a figure, and says why; the others go on."""
    try:
        return action()
    except Failure as error:
        return Run(None, flags=[" / ".join(str(error).split("\n"))[:300]])
    except (OSError, ValueError, KeyError) as error:
        return Run(None, flags=[f"{type(error).__name__}: {error}"[:300]])


def tell(console: Console, table: Table, name: str, turn: str, run: Run) -> None:
    more = ", ".join(f"{report.number(value)} {label}" for label, value in run.more.items())
    doubts = f"  [red]{'; '.join(run.flags)}[/]" if run.flags else ""
    console.print(
        f"[dim]{table.case} {turn}[/] {name}: {report.number(run.value)} {table.unit}  {more}{doubts}",
        highlight=False,
    )


def interleave(names: list[str], rounds: int) -> list[tuple[int, str]]:
    """(round, name): A B C, then C B A, and so on, so that neither drift nor order favours anyone."""
    return [(at, name) for at in range(rounds) for name in (names if at % 2 == 0 else names[::-1])]


def measure(table: Table, actions: Mapping[str, Callable[[], Run]], rounds: int, console: Console) -> Table:
    table.runs = {name: [] for name in actions}
    for at, name in interleave(list(actions), rounds):
        run = attempt(actions[name])
        table.runs[name].append(run)
        tell(console, table, name, f"{at + 1}/{rounds}", run)
    return table


def workers_table(bench: cases.Bench, peer: Peer, rounds: int, console: Console) -> Table:
    """Two workers beside one. On two cores the second worker either shares the first's core or the load's."""
    one, same, spread = "1 worker", "2 workers on one core", "2 workers on two cores"
    table = Table("workers", "edgeproxy", "CPU µs/request", [], against=same)
    table.targets += [report.Target(one, 1.1, name, name) for name in (same, spread)]
    if (os.cpu_count() or 1) < 4:
        table.notes.append("on this machine the second of two cores is shared with the load and the upstream")
    both = f"{bench.proxy_cores},{bench.load_cores}" if (os.cpu_count() or 1) < 4 else "0,2"
    actions = {
        one: functools.partial(cases.workers, bench, peer, 1, bench.proxy_cores),
        same: functools.partial(cases.workers, bench, peer, 2, bench.proxy_cores),
        spread: functools.partial(cases.workers, bench, peer, 2, both),
    }
    measure(table, actions, rounds, console)
    shares = [run.more["largest share %"] for name in (same, spread) for run in table.runs[name] if run.more]
    if shares:
        worst, middle = max(shares), sorted(shares)[len(shares) // 2]
        table.notes.append(
            f"the larger worker's share of 64 connections: median {middle:.0f} %, worst of {len(shares)} runs "
            f"{worst:.0f} % (to reach: 70 %)"
        )
    return table


Measured = Callable[[Table, Mapping[str, Callable[[], Run]]], Table]


def shown(options: argparse.Namespace, console: Console) -> Measured:
    """What runs the actions of a table in turns, and shows it."""

    def measured(table: Table, actions: Mapping[str, Callable[[], Run]]) -> Table:
        show(console, measure(table, actions, options.rounds, console))
        return table

    return measured


def alone(options: argparse.Namespace, wanted: list[str], console: Console) -> list[Table]:
    """What needs neither upstream nor peers: this process itself takes the proxy's core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, proc.core_list(options.proxy_cores))
    measured, tables = shown(options, console), []
    try:
        if RULES in wanted:
            tables += rules.tables(options.seconds, measured)
        if LIMITS in wanted:
            cores = (options.proxy_cores, options.load_cores)
            tables += limits_tables.tables(options.seconds, *cores, options.litellm, measured)
        if BOTS in wanted:
            tables += bots.tables(options.seconds, measured)
    finally:
        os.sched_setaffinity(0, before)
    return tables


DISTURBED = 10.0  # percent of the proxy's core that others took; an idle machine shows about 1


def remark(table: Table) -> None:
    """Say so when the machine was not ours alone."""
    shares = [run.more["others %"] for runs in table.runs.values() for run in runs if "others %" in run.more]
    if shares and table.case != "workers" and max(shares) > DISTURBED:
        table.notes.append(
            f"disturbed: other programs took up to {max(shares):.0f} % of the proxy's core; figures are too high, ratios less so"
        )


def show(console: Console, table: Table) -> None:
    remark(table)
    lines = report.rows(table)
    grid = RichTable(title=table.case, title_justify="left", title_style="bold")
    shown = report.used(table)
    for at in shown:
        grid.add_column(lines[0][at], justify="left" if at in (0, len(lines[0]) - 1) else "right", overflow="fold")
    for line in lines[1:]:
        grid.add_row(*(line[at] for at in shown), style="bold" if line[0] == report.EDGE else "")
    console.print(grid)
    for target in table.targets:
        if text := report.verdict(table, target):
            console.print(f"  {text}", style="green" if text.startswith("reached") else "yellow")
    for note in [*table.notes, *report.doubts(table)]:
        console.print(f"  {note}", style="dim")


def versions(chosen: list[Peer], tables: list[Table], litellm: str | None) -> dict[str, str]:
    found = {peer.name: peer.version() for peer in chosen if peer.name != "envoy+log"}
    found["python"] = sys.version.split()[0]
    found["openssl"] = ssl.OPENSSL_VERSION.split()[1]
    if any(table.case.startswith(LIMITS) for table in tables):
        found |= limits_tables.versions(litellm)
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if nginx := find("nginx"):
        found["upstream nginx"] = peers.output([nginx, "-v"]).rpartition("/")[2]
    if h2load := find("h2load"):
        found["h2load"] = peers.output([h2load, "--version"]).rpartition("/")[2]
    return {name: version for name, version in found.items() if version}


def taking_part(part: parts.Part, bench: cases.Bench, chosen: list[Peer], console: Console) -> dict[str, Callable[[], Run]]:
    """The runs of a part by peer, without those peers that can't; none when the load for it is not there."""
    if reason := part.missing():
        console.print(f"[yellow]skipped[/] {part.name}: {reason}")
        return {}
    actions: dict[str, Callable[[], Run]] = {}
    for peer in chosen:
        if reason := part.without(peer):
            console.print(f"[yellow]skipped[/] {peer.name} in {part.name}: {reason}")
        else:
            actions[peer.name] = functools.partial(part.action, bench, peer)
    return actions


def run(options: argparse.Namespace, console: Console) -> list[Table]:
    wanted = options.cases or list(parts.CASES)
    if unknown := [name for name in wanted if name not in parts.CASES]:
        raise Failure(f"unknown case {', '.join(unknown)}; there are {', '.join(parts.CASES)}")
    tables = alone(options, wanted, console)
    if set(wanted) == {RULES}:
        if options.json:
            save(options, [], tables)
        return tables
    chosen = [peers.edgeproxy()] if set(wanted) <= {RULES, LIMITS, BOTS} else chosen_peers(options, console)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < 16_000:
        console.print(f"[yellow]only {hard} open files are allowed: the case conns may fail[/]")
    os.sched_setaffinity(0, proc.core_list(options.load_cores))
    folder = Path(tempfile.mkdtemp(prefix="edge-bench-"))
    try:
        certs = folder / "certs"
        certs.mkdir()
        certificate.make(certs, options.certificate)
        behind = upstream.start(folder, options.load_cores)
        try:
            if not behind.lua:
                console.print(f"[yellow]{upstream.LUA_HINT}[/]")
            bench = cases.Bench(folder, certs, behind, options.seconds, options.proxy_cores, options.load_cores)
            for part in parts.PARTS:
                actions = taking_part(part, bench, chosen, console) if part.case in wanted else {}
                if actions:
                    table = part.table()
                    if report.EDGE not in actions:  # then the ratios are to the last one named
                        table.against = list(actions)[-1]
                        table.targets.clear()
                    tables.append(measure(table, actions, part.rounds(options.rounds), console))
                    show(console, tables[-1])
            edge = next((peer for peer in chosen if peer.name == report.EDGE), None)
            if "workers" in wanted and edge is not None:
                tables.append(workers_table(bench, edge, options.rounds, console))
                show(console, tables[-1])
            if LIMITS in wanted:
                tables += limits_edge.tables(bench, shown(options, console))
            if BOTS in wanted:
                tables += bots_edge.tables(bench, shown(options, console))
            options.tls = ", ".join(sorted(bench.tls))
        finally:
            behind.child.stop()
    finally:
        if options.keep:
            console.print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
        if options.json and tables:
            save(options, chosen, tables)
    return tables


def save(options: argparse.Namespace, chosen: list[Peer], tables: list[Table]) -> None:
    """What was measured until now, an interrupted run included."""
    result: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "machine": proc.machine(),
        "versions": versions(chosen, tables, options.litellm),
        "method": {
            "rounds": options.rounds,
            "seconds": options.seconds,
            "certificate": certificate.KINDS[options.certificate],
            "tls": getattr(options, "tls", ""),
            "proxy_cores": options.proxy_cores,
            "load_cores": options.load_cores,
        },
        "cases": [report.dump(table) for table in tables],
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1) + "\n")


def ended(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    options = arguments(argv)
    if options.markdown:
        results = [json.loads(path.read_text()) for path in options.markdown]
        sys.stdout.write(report.markdown(results))
        return 0
    console = Console() if sys.stdout.isatty() else Console(width=150)  # a pipe would be taken for 80 columns
    signal.signal(signal.SIGTERM, ended)  # children are ended by the same way out as after Ctrl-C
    try:
        tables = run(options, console)
    except Failure as error:
        console.print(f"[red]{error}[/]")
        return 1
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130
    failed = any(run.flags for table in tables for runs in table.runs.values() for run in runs)
    return 2 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
