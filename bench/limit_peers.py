# The other limiters of the case `limits`: which interpreter has them, and one run of limit_others.py with it.
"""`run` gives a `Run`; `why_not` says why a package takes no part."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import proc
from bench.children import Child, Failure, watched
from bench.limit_load import RATE, Others
from bench.report import Run

SCRIPT = Path(__file__).with_name("limit_others.py")
START = 60.0  # s; LiteLLM takes four to be imported
WARM = 0.5


@dataclass(frozen=True, slots=True)
class Other:
    """One of them.

    Attributes:
        name: in tables.
        words: for limit_others.py.
        python: the interpreter.
    """

    name: str
    words: tuple[str, ...]
    python: str


def why_not(python: str, package: str, module: str) -> str | None:
    """None when the interpreter has the package."""
    question = f"import importlib.util as u, sys; sys.exit(0 if u.find_spec({module!r}) else 3)"
    try:
        done = subprocess.run([python, "-I", "-c", question], capture_output=True, timeout=START, check=False)
    except OSError as error:
        return f"{package}: the interpreter that was named cannot be asked ({error.strerror})"
    except subprocess.TimeoutExpired:
        return f"{package}: the interpreter that was named cannot be asked (no answer)"
    return None if done.returncode == 0 else f"{package} is not installed"


def version(python: str, package: str) -> str:
    question = f"from importlib.metadata import version; print(version({package!r}))"
    try:
        done = subprocess.run([python, "-I", "-c", question], capture_output=True, text=True, timeout=START, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def in_memory(limits: str | None, litellm: str | None) -> list[Other]:
    """Those there are, of interpreters that have the packages (None: there is none)."""
    made = []
    if limits:
        made += [
            Other("limits, fixed window", ("limits-fixed",), limits),
            Other("limits, moving window", ("limits-moving",), limits),
            Other("limits, sliding window", ("limits-sliding",), limits),
            Other("limits, fixed window, asyncio", ("limits-fixed", "--async"), limits),
            Other("limits, moving window, asyncio", ("limits-moving", "--async"), limits),
        ]
    if litellm:
        made.append(Other("LiteLLM", ("litellm",), litellm))
    return made


def in_redis(limits: str | None, litellm: str | None, in_flight: int) -> list[Other]:
    """As `in_memory`, with so many checks under way."""
    more = ("--in-flight", str(in_flight))
    made = []
    if limits:
        made.append(Other(f"limits, fixed window, {in_flight} in flight", ("limits-fixed", *more), limits))
        made.append(Other(f"limits, moving window, {in_flight} in flight", ("limits-moving", *more), limits))
    if litellm:
        made.append(Other(f"LiteLLM, {in_flight} in flight", ("litellm", *more), litellm))
    return made


def run(other: Other, seconds: float, cores: str, server: Callable[[], float] | None = None, url: str = "") -> Run:
    """One window of it, in a process of its own.

    Args:
        cores: that it is pinned to.
        server: CPU seconds of redis-server until now; None: it counts in memory.
        url: of redis-server.

    Raises: Failure.
    """
    words = [*other.words, "--seconds", str(seconds), "--warm", str(WARM)]
    if server is not None:
        words += ["--redis", url.removeprefix("redis://").partition("/")[0]]
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as name:
        folder = Path(name)
        command = [other.python, "-I", str(SCRIPT), *words]  # -I: what lies beside the script is not to be imported
        with (
            Child(command, cores=cores, cwd=folder, log=folder / "log", pipes=True) as child,
            watched(child, START + seconds),
        ):
            found, theirs, share = _conversation(child, server or (lambda: 0.0), proc.core_list(cores))
    run = figures(found, theirs, redis=server is not None)
    run.more |= share
    return run


def _conversation(child: Child, server: Callable[[], float], cores: set[int]) -> tuple[dict[str, float], float, dict[str, float]]:
    """What it found; the server's CPU seconds, and what others took from its cores, between `begin` and `end`."""
    stdin, stdout = child.process.stdin, child.process.stdout
    assert stdin is not None
    assert stdout is not None
    looks: list[float] = []
    others, busy = Others(cores), 0.0
    for line in stdout:
        word = line.strip()
        if word == b"begin":
            others, looks = Others(cores), [server()]
        elif word == b"end":
            looks.append(server())
            busy = others.share(0.0)["others %"]
        elif word.startswith(b"{") and len(looks) == 2:
            found = json.loads(word)
            mine = 100 * found["cpu"] / found["wall"] / len(cores)
            return found, looks[1] - looks[0], {"others %": max(0.0, busy - mine)}
        else:
            continue
        stdin.write(b"\n")
        stdin.flush()
    raise Failure(f"it gave no figures: {child.tail(3)}")


def figures(found: dict[str, float], server: float, *, redis: bool) -> Run:
    """A run from what the script printed and the server's CPU seconds."""
    count = max(found["checks"], 1)
    more = {"redis-server µs": 1e6 * server / count} if redis else {}
    more[RATE] = count / found["wall"]
    if redis and "p50" in found:
        more |= {"p50 ms": 1e3 * found["p50"], "p99 ms": 1e3 * found["p99"]}
    return Run(1e6 * found["cpu"] / count, more)
