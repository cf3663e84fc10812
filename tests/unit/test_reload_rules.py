# A reload of a thousand rules must not hold up a worker's loop for 20 ms. The thread that compiles shares the interpreter
# with the loop, so what is held here is what could keep it: one long piece of work in C, and the garbage collector.
"""worker.py, config/snapshot.py and rules/ruleset.py: compiling rules gives way, and leaves the collector nothing to do."""

from __future__ import annotations

import ast
import asyncio
import builtins
import gc
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from support.census import census
from support.edge import certificates, prepared

from edgeproxy import preparing, worker
from edgeproxy.config.load import build
from edgeproxy.config.model import Config
from edgeproxy.dataplane import DataPlane
from edgeproxy.ipc import TICKET_KEYS
from edgeproxy.observe.metrics import WorkerStats
from edgeproxy.rules import nodes
from edgeproxy.rules.model import RuleBook
from edgeproxy.rules.ruleset import Ruleset

KEYS = bytes(TICKET_KEYS)
LONGEST = 4096  # characters of an expression
# What rules are like; each has a number in it, so that no two share anything.
KINDS = (
    """{id: r%d, expression: 'http.user_agent contains "scan%d" or http.request.uri.path contains "/probe%d/"', action: block}""",
    """{id: r%d, expression: 'http.request.uri.path matches "^/api/v%d/[a-z]+/[0-9]{1,5}x%d$"', action: log}""",
    """{id: r%d, expression: 'ip.src in $big and http.host eq "h%d.test"', action: block, body: 'no %d'}""",
    """{id: r%d, expression: 'http.request.uri.path eq "/p%d"', action: rewrite, path: /q,
      headers: {set: {x-a: {expression: 'concat("%d", http.host)'}}}}""",
    """{id: r%d, expression: 'http.request.headers["x-t"][0] eq "%d" and lower(http.request.uri.query) wildcard "*a%d*"',
      action: redirect, location_expression: 'concat("https://x.test/", http.request.uri.path)'}""",
    """{id: r%d, expression: 'any(http.request.headers.values[*] contains "x%d") or http.request.method eq "%d"', action: log}""",
    """{id: r%d, expression: 'http.request.body.raw contains "bad%d" and http.request.uri.path eq "/b%d"', action: block}""",
    """{id: r%d, phase: response, expression: 'http.response.code eq %d or http.host eq "r%d"', action: log}""",
)


def configured(folder: Path, count: int, cidrs: int = 5000) -> Config:
    """So many rules of all kinds, and a list of so many networks."""
    lines = ["lists: {big: {kind: ip, file: big.txt}}", "rules:"]
    lines += ["- " + KINDS[n % len(KINDS)] % (n, n, n) for n in range(count)]
    (folder / "r.yaml").write_text("\n".join(lines))
    (folder / "big.txt").write_text("".join(f"10.{n >> 8}.{n & 255}.0/{24 + n % 2 * 4}\n" for n in range(cidrs)))
    paths = certificates()
    return build({
        "listen": {"https": "127.0.0.1:8443", "admin": None},
        "tls": {"certificates": [{"cert": str(paths.cert), "key": str(paths.key)}]},
        "upstreams": {"main": {"targets": [{"url": "http://127.0.0.1:1"}]}},
        "routes": [{"upstream": "main"}],
        "rules": [str(folder / "r.yaml")],
        "shipped": {"baseline": False, "chat": False},
    })  # fmt: skip


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return configured(tmp_path_factory.mktemp("thousand"), 1000)


@pytest.fixture
def collector() -> Iterator[None]:
    """The collector as a worker has it."""
    before = gc.get_threshold()
    gc.collect()
    gc.set_threshold(20_000, 20, 50)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def compiled(config: Config) -> tuple[Config, Any]:
    """What the worker's thread does with what the supervisor sends."""
    task = worker.Task(0, config, KEYS, 1, "0123456789ab", [], [], [], None, cast("Any", None), None, None, DataPlane)
    return preparing.compiled(task, KEYS + config.model_dump_json().encode())


def test_the_collector_does_not_run_over_what_is_compiled(thousand: Config, collector: None) -> None:
    runs: list[int] = []

    def note(phase: str, about: dict[str, int]) -> None:
        if phase == "start":
            runs.append(about["generation"])

    gc.callbacks.append(note)
    try:
        kept = [compiled(thousand) for _ in range(3)]
        assert gc.isenabled()
        assert runs == [], "a thousand rules are some ten thousand objects: each run over them takes milliseconds"
        more: list[list[int]] = [[] for _ in range(25_000)]
        assert len(runs) == 1 and len(kept) == 3 and more, "what comes behind is collected as always"
    finally:
        gc.callbacks.remove(note)


def test_a_refused_configuration_leaves_the_collector_on(thousand: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DataPlane, "prepare", lambda *_: (_ for _ in ()).throw(ValueError("no")))
    with pytest.raises(ValueError, match="no"):
        compiled(thousand)
    assert gc.isenabled()


async def test_old_rules_go_without_the_collector(tmp_path: Path) -> None:
    config = configured(tmp_path, 40)
    plane = DataPlane(asyncio.get_running_loop(), WorkerStats(), None)
    plane.switch(prepared(config))
    gc.collect()
    gc.disable()
    try:
        before, functions = everything()
        for _ in range(50):
            plane.switch(prepared(config))
        after, more = everything()
        assert after - before == Counter()
        assert more <= functions + 5, "compiled expressions"
    finally:
        gc.enable()


def everything() -> tuple[Counter[str], int]:
    """Our objects and TLS contexts by class, and functions made of rules."""
    kinds, functions = census(), 0
    for thing in gc.get_objects():
        kinds["SSLContext"] += type(thing).__name__ == "SSLContext"
        functions += type(thing).__name__ == "function" and thing.__code__.co_filename == "<rules>"
    return kinds, functions


def test_compiling_leaves_no_cycles(thousand: Config) -> None:
    book = thousand.rules.book
    Ruleset(book)  # what is made once, is made
    gc.collect()
    gc.disable()
    try:
        rules = Ruleset(book)
        assert len(rules.rules) + len(rules.responses.rules) == 1000
        del rules
        assert gc.collect() == 0
    finally:
        gc.enable()


LONG = {
    "lower": " and ".join(f'lower(http.request.uri.args["a{n}"][0]) eq "{n}"' for n in range(80)),
    "any": " or ".join(f'any(http.request.headers.values[*] contains "x{n}")' for n in range(75)),
    "fields": " or ".join(f'http.host eq "{n}"' for n in range(190)),
}


@pytest.mark.parametrize("name", LONG)
def test_no_piece_of_compiling_is_large(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`compile` does not let go before it is through: some 2.5 ms for ten thousand nodes."""
    sizes: list[int] = []

    def counted(tree: ast.AST, *args: Any, **more: Any) -> Any:
        sizes.append(sum(1 for _ in ast.walk(tree)))
        return builtins.compile(tree, *args, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(nodes, "compile", counted, raising=False)
    assert 3500 < len(LONG[name]) <= LONGEST
    one = {"action": "log", "expression": LONG[name]}
    Ruleset(RuleBook.model_validate({"rules": [{**one, "id": "r"}]}))
    (alone,) = sizes
    sizes.clear()
    Ruleset(RuleBook.model_validate({"rules": [{**one, "id": f"r{n}"} for n in range(40)]}))
    assert max(sizes) <= alone and len(sizes) == 40
    sizes.clear()
    short = {"action": "log", "expression": "ssl"}
    Ruleset(RuleBook.model_validate({"rules": [{**short, "id": f"r{n}"} for n in range(40)]}))
    assert len(sizes) == 3, "short ones go together: asking is what is done often"


def longest_wait(work: Callable[[], object]) -> float:
    """The longest time that a thread was kept from its turn while another worked: seconds of this process's CPU, since what
    other programs take meanwhile is not our doing."""
    done = threading.Event()

    def run() -> None:
        try:
            work()
        finally:
            done.set()

    thread = threading.Thread(target=run)
    now, longest = time.process_time, 0.0
    thread.start()
    last = now()
    while not done.is_set():
        at = now()
        longest = max(longest, at - last)
        last = at
    thread.join()
    return longest


def test_the_longest_wait_of_the_loop(thousand: Config, collector: None, record_property: Callable[[str, object], None]) -> None:
    """The figure itself: 20 ms. The median of five reloads counts: how fast a CPU is depends on its neighbours, too."""
    kept: list[Any] = []

    def work() -> None:
        kept[:] = [compiled(thousand)]

    waits = [longest_wait(work) for _ in range(5)]
    record_property("longest_wait_ms", [round(wait * 1000, 1) for wait in waits])
    sys.stdout.write(f"longest waits: {[f'{wait * 1000:.1f} ms' for wait in waits]}\n")
    assert sorted(waits)[2] < 0.020
