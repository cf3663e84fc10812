# What bots add to real edges: one that scores beside one that does not, both up at the same time.
"""`tables(bench, measured)`: added CPU at saturation, measured as for limits (limits_edge.py), and added memory.

The load's ClientHello is OpenSSL's, so that a browser's name would be a lie and caught at once: those who are scored by the
model have a name that nobody knows.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import ssl
from collections.abc import Iterator
from pathlib import Path

from bench import bots, cases, load, peers, probe, proc, upstream
from bench.cases import Bench, Running
from bench.children import Failure
from bench.limits_edge import Actions, configured, in_turn
from bench.report import Run, Table, Target

SECTION = "bots: {enabled: true, log: 0, challenge: 0, block: 0, slow: {score: 1}, mode: act}\n"
ASKED = 1_000  # requests before memory is looked at
EACH = 100  # of one connection
MEMORY = 60.0  # MB
SDK = 'wrk.headers["User-Agent"] = "OpenAI/Python 1.50.0"; wrk.headers["Accept"] = "application/json"\n'
UNNAMED = 'wrk.headers["User-Agent"] = "AcmeDesk/2.1 (build 118)"; wrk.headers["Accept"] = "application/json"\n'
LOADS = {
    "SDK": SDK,
    "program without a known name": UNNAMED,
    "the same, with another path each time": UNNAMED + load.PATHS,
}


@contextlib.contextmanager
def pair(bench: Bench) -> Iterator[tuple[Running, Running]]:
    """An edge without bots, and one with.

    Raises: Failure.
    """
    with cases.running(bench, peers.edgeproxy()) as without, cases.running(bench, configured(SECTION)) as having:
        yield without, having
        for run, expected in ((without, False), (having, True)):
            if scored(run.place.folder) != expected:
                raise Failure("the log tells of scores where nobody scores, or of none where somebody does")


def scored(folder: Path) -> bool:
    """Whether the access log of an edge tells of scores."""
    return any(b'"bot_score":' in path.read_bytes()[-4096:] for path in folder.glob("access.jsonl*"))


def added_cpu(bench: Bench, script: str) -> Run:
    """CPU µs that bots add to a request, all processes of the edge counted."""
    with pair(bench) as edges:
        return in_turn(bench, edges, script=script)


def ask(port: int, requests: int, agent: str) -> None:
    """So many requests, `EACH` on a connection, all with another path.

    Raises: Failure.
    """
    for begun in range(0, requests, EACH):
        connection = probe.connect(port, 10)
        try:
            for number in range(begun, min(begun + EACH, requests)):
                headers = {**probe.HEADERS, "User-Agent": agent}
                connection.request("POST", f"/v1/chat/completions?request={number}", upstream.QUESTION, headers)
                answer = connection.getresponse()
                answer.read()
                if answer.status != http.client.OK:
                    raise Failure(f"status {answer.status}")
        except (OSError, ssl.SSLError, http.client.HTTPException) as error:
            raise Failure(f"no answer: {error!r}") from error
        finally:
            connection.close()


def resident(pid: int) -> int:
    """Bytes of the largest process of a tree: of the worker, which has the snapshot and the pools."""
    table = proc.stats()
    return max(table[each].pages for each in proc.tree(pid, table)) * proc.PAGE


def added_memory(bench: Bench) -> Run:
    """MB that bots add to a worker after a thousand requests."""
    with pair(bench) as edges:
        for edge in edges:
            ask(edge.place.port, ASKED, "AcmeDesk/2.1 (build 118)")
        rss = [resident(edge.child.pid) / 1e6 for edge in edges]
        pss = [proc.pss(edge.child.pid) / 1e6 for edge in edges]
    return Run(rss[1] - rss[0], {"RSS without": rss[0], "RSS with": rss[1], "PSS of all processes": pss[1] - pss[0]})


def tables(bench: Bench, measured: bots.Measured) -> list[Table]:
    """Both tables.

    Args:
        measured: runs the actions of a table in turns and shows it.
    """
    cpu = Table("bots, added CPU", "requests at saturation", "added CPU µs/request", against="")
    memory = Table("bots, added memory", "one worker", "added RSS MB", [Target(None, MEMORY, "a worker", WORKER)], against="")
    actions: Actions = {name: functools.partial(added_cpu, bench, script) for name, script in LOADS.items()}
    cpu.targets += [Target(None, bots.ADDED, name, name) for name in LOADS]
    cpu.notes.append("the load of `h1` with the head of a program; all processes of the edge are counted")
    memory.notes.append(f"after {ASKED:,} requests, {EACH} on a connection, each with another path")
    if bots.model() is None:
        for table in (cpu, memory):
            table.notes.append(bots.NO_MODEL)
    return [measured(cpu, actions), measured(memory, {WORKER: functools.partial(added_memory, bench)})]


WORKER = "edgeproxy"
