# The case `rules`: CPU time of asking rules about a request, and of loading them. No network, no other program.
"""`tables(options, console, measure)`: rules compiled by edgeproxy beside closures over the same trees and two CEL engines.

Every figure is CPU time of this process (its core is that of the proxy), the mean over a window in which the two requests
of rule_sets.py take turns; each turn makes new `Facts`, so that every field that is read is computed. The CEL engines get
their variables made beforehand and only those that an expression names, one context for each expression: what is
measured of them is the evaluation alone.
"""

from __future__ import annotations

import gc
import itertools
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from bench import cel, proc
from bench.children import Failure
from bench.closures import compile_closure
from bench.report import EDGE, Run, Table, Target
from bench.rule_sets import MATCHING, REQUESTS, rules
from edgeproxy.message import Request
from edgeproxy.rules.batches import batches
from edgeproxy.rules.compiler import Batched, compile_test
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.files import read_rules
from edgeproxy.rules.parser import parse
from edgeproxy.rules.ruleset import compile_rules
from edgeproxy.rules.syntax import Test

ONE = 'http.user_agent contains "sqlmap"'
FILES = 10
CLOSURES, EACH, READY = "closures", "edgeproxy, a function for each rule", "edgeproxy, fields computed before"
RUST, PYTHON = "common-expression-language", "cel-python"
WINDOW = 0.2  # of --seconds, in CPU time: nothing but this process is measured

Ask = Callable[[Request], Any]
Actions = dict[str, Callable[[], Run]]


def facts_of(request: Request) -> Facts:
    return Facts(request, "chat.example.org", request.peer.address, b"0123456789abcdef", time.time)


# -- who asks --------------------------------------------------------------------------------------------------------


def edge(tests: list[Test]) -> Ask:
    """As the edge does it: new `Facts`, then the functions that `batches` makes."""
    made = batches([Batched(test, place) for place, test in enumerate(tests)], {})

    def ask(request: Request) -> list[int]:
        facts = facts_of(request)
        found: list[int] = []
        for batch in made:
            batch(facts, found.append, _broken)
        return found

    return ask


def one_by_one(tests: list[Test], compiler: Callable[[Test], Callable[[Facts], Any]]) -> Ask:
    """New `Facts`, then one function after the other."""
    checks = list(enumerate(map(compiler, tests)))

    def ask(request: Request) -> list[int]:
        facts = facts_of(request)
        return [place for place, check in checks if check(facts)]

    return ask


def ready(tests: list[Test]) -> Ask:
    """The same functions as `edge`, on `Facts` whose fields were read before."""
    made = batches([Batched(test, place) for place, test in enumerate(tests)], {})
    known = {id(request): facts_of(request) for request in REQUESTS.values()}

    def ask(request: Request) -> list[int]:
        facts = known[id(request)]
        found: list[int] = []
        for batch in made:
            batch(facts, found.append, _broken)
        return found

    return ask


def _broken(rule: Any, error: Exception) -> None:
    raise AssertionError(f"rule {rule}") from error


def rust(texts: list[str]) -> Ask:
    import cel as engine

    programs = [engine.compile(text) for text in texts]

    def contexts(request: Request) -> list[Any]:
        values = cel.variables(facts_of(request))
        made = []
        for program in programs:
            context = engine.Context()
            context.update({name: values[name] for name in program.variables() if name in values})
            made.append(context)
        return made

    known = {id(request): list(zip(programs, contexts(request), strict=True)) for request in _ALL}
    return lambda request: [place for place, (program, context) in enumerate(known[id(request)]) if program.execute(context)]


def python(texts: list[str]) -> Ask:
    import celpy

    environment = celpy.Environment()
    programs = [environment.program(environment.compile(text)) for text in texts]

    def activations(request: Request) -> list[Any]:
        values = cel.variables(facts_of(request))
        return [celpy.json_to_cel({name: values[name] for name in values if name in text}) for text in texts]

    known = {id(request): list(zip(programs, activations(request), strict=True)) for request in _ALL}
    return lambda request: [place for place, (program, values) in enumerate(known[id(request)]) if program.evaluate(values)]


_ALL = [*REQUESTS.values(), *MATCHING.values()]

# -- the clock -------------------------------------------------------------------------------------------------------


def timed(ask: Ask, seconds: float) -> Run:
    """CPU µs of one request, each kind as often as the other; the figures of each kind beside it."""
    cores = os.sched_getaffinity(0)
    busy, cpu, begun = proc.busy(cores), time.process_time(), time.monotonic()
    more = {f"{name} µs": _mean(ask, request, seconds / len(REQUESTS)) for name, request in REQUESTS.items()}
    value = sum(more.values()) / len(more)
    others = proc.busy(cores) - busy - (time.process_time() - cpu)
    more["others %"] = 100 * max(0.0, others) / (time.monotonic() - begun)
    return Run(value, more)


def _mean(ask: Ask, request: Request, seconds: float) -> float:
    count = 1
    gc.collect()
    gc.disable()
    try:
        while True:
            turns = itertools.repeat(None, count)
            begun = time.process_time()
            for _ in turns:
                ask(request)
            spent = time.process_time() - begun
            if spent >= seconds:
                return 1e6 * spent / count
            count = max(count + 1, int(count * min(1.1 * seconds / max(spent, 1e-7), 100)))
    finally:
        gc.enable()


def checked(asks: dict[str, Ask], wanted: Ask, *, requests: list[Request]) -> None:
    """Who gives another answer than a function for each rule does has no figure.

    Raises: Failure.
    """
    for request in requests:
        right = wanted(request)
        for name, ask in asks.items():
            if list(ask(request)) != right:
                raise Failure(f"{name} finds other rules than {EACH}")


# -- the tables ------------------------------------------------------------------------------------------------------


def _parsed(texts: list[str]) -> list[Test]:
    return [parse(text, {}) for text in texts]


def _actions(asks: dict[str, Ask], seconds: float) -> Actions:
    return {name: lambda ask=ask: timed(ask, seconds) for name, ask in asks.items()}  # type: ignore[misc]


def _engines(texts: list[str], notes: list[str]) -> dict[str, Ask]:
    found: dict[str, Ask] = {}
    for name, make in ((RUST, rust), (PYTHON, python)):
        try:
            found[name] = make(texts)
        except ImportError:
            notes.append(f"{name} is not installed (the extra `bench`)")
    return found


def one(seconds: float) -> tuple[Table, Actions]:
    """One simple rule."""
    table = Table("rules 1", "one rule", "CPU µs/request")
    table.targets = [Target(None, 0.5, "everything included"), Target(None, 0.5, "fields computed before", READY)]
    tests = _parsed([ONE])
    table.notes.append(f"`{ONE}`, which does not hold; a request has 15 header lines")
    table.notes.append(
        f"{EDGE}: the call, new `Facts`, finding the header, its text, the search; the row below is the call and the search"
    )
    text = cel.translate(tests[0])
    assert text is not None
    each = one_by_one(tests, lambda test: compile_test(test, {}))
    engines = _engines([text], table.notes)
    asks: dict[str, Ask] = {EDGE: edge(tests), CLOSURES: one_by_one(tests, compile_closure), **engines}
    checked(asks, each, requests=_ALL)
    return table, _actions({EDGE: asks.pop(EDGE), READY: ready(tests), **asks}, seconds)


def many(count: int, target: float, seconds: float) -> tuple[Table, Actions]:
    """Rules of mixed kinds that do not hold."""
    table = Table(f"rules {count:,}", f"{count:,} rules", "CPU µs/request", [Target(None, target)])
    tests = _parsed(rules(count))
    each = one_by_one(tests, lambda test: compile_test(test, {}))
    asks = {EDGE: edge(tests), EACH: each, CLOSURES: one_by_one(tests, compile_closure)}
    checked(asks, each, requests=_ALL)
    if any(each(request) for request in REQUESTS.values()):
        raise Failure("a rule holds for a request that none should match")
    return table, _actions(asks, seconds)


def sayable(seconds: float) -> tuple[Table, Actions]:
    """Those of a hundred rules that CEL has words for."""
    texts = {text: said for text in rules(100) if (said := cel.translate(parse(text, {}))) is not None}
    table = Table("rules CEL", f"{len(texts)} of 100 rules", "CPU µs/request")
    table.notes.append("those of the 100 that can be said in CEL; its engines read variables that were made beforehand")
    tests = _parsed(list(texts))
    each = one_by_one(tests, lambda test: compile_test(test, {}))
    asks = {EDGE: edge(tests), CLOSURES: one_by_one(tests, compile_closure), **_engines(list(texts.values()), table.notes)}
    checked(asks, each, requests=_ALL)
    return table, _actions(asks, seconds)


def loading(folder: Path) -> tuple[Table, Actions]:
    """Ten files with a hundred rules each, from YAML to what is called."""
    table = Table("rules load", "1,000 rules", "CPU s", [Target(None, 1.5)])
    table.notes.append("read: YAML, validation, every expression parsed and checked; compile: what each worker does again")
    table.notes.append("longest wait: of another thread that wants to run every millisecond, 5 ms being Python's own turn")
    texts = rules(1000)
    for number in range(FILES):
        part = texts[number :: FILES]
        written = [
            {"id": f"rule-{number}-{index}", "expression": text, "action": "block"} for index, text in enumerate(part)
        ]
        (folder / f"{number}.yaml").write_text(yaml.safe_dump({"rules": written}))
    return table, {EDGE: lambda: _loaded(str(folder / "*.yaml"))}


def _loaded(pattern: str) -> Run:
    begun = time.process_time()
    loaded = read_rules((pattern,))
    read = time.process_time() - begun
    if loaded.problems or len(loaded.book.rules) != 1000:
        return Run(None, flags=[f"{len(loaded.book.rules)} rules, problems: {loaded.problems[:1]}"])
    begun = time.process_time()
    made = compile_rules(loaded.book)
    compiled = time.process_time() - begun
    assert made is not None
    more = {"read s": read, "compile s": compiled, "longest wait ms": _longest_wait(lambda: compile_rules(loaded.book))}
    return Run(read + compiled, more)


def _longest_wait(work: Callable[[], object]) -> float:
    """How long another thread, that wants to run every millisecond, is kept from it while `work` runs; ms."""
    gc.collect()
    gc.freeze()  # as a worker does: what was there before is not looked through again
    thread = threading.Thread(target=work)
    worst = 0.0
    thread.start()
    while thread.is_alive():
        before = time.perf_counter()
        time.sleep(0.001)
        worst = max(worst, time.perf_counter() - before - 0.001)
    thread.join()
    gc.unfreeze()
    return 1e3 * worst


def tables(seconds: float, measured: Callable[[Table, Actions], Table]) -> list[Table]:
    """All tables of the case.

    Args:
        measured: runs the actions of a table in turns and shows it.
    """
    window = WINDOW * seconds
    done = [measured(*one(window)), measured(*many(100, 15.0, window)), measured(*many(1000, 120.0, window))]
    done.append(measured(*sayable(window)))
    with tempfile.TemporaryDirectory(prefix="edge-bench-rules-") as folder:
        done.append(measured(*loading(Path(folder))))
    return done
