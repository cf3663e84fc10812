# What scoring bots adds to a request and to a connection, in this process: no sockets, and an upstream that only pretends.
"""`tables(seconds, measured)`: added CPU of known and of new heads, their parts, new connections, and the model alone.

A request goes through a gateway with bots and through one without, in turn: what is shown is the difference of the least that
each took. With bots means everything: identity, heuristics, model, behaviour, session cookie, log line, counters, a policy.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

from bench import admitted, hellos
from bench.limit_load import Others
from bench.report import EDGE, Run, Table, Target
from edgeproxy.bots import wire
from edgeproxy.bots.features import vector
from edgeproxy.bots.heuristics import detect
from edgeproxy.bots.model import SHIPPED, Model, ModelError, load_once
from edgeproxy.bots.view import View, connection_families
from edgeproxy.certs import CertificatePaths, make_development
from edgeproxy.listen.first import h2_print, h3_print
from edgeproxy.listen.hello import Kind
from edgeproxy.lookups.identifying import Identifying
from edgeproxy.message import Body, Headers, Peer, Request
from edgeproxy.observe.metrics import H1, H2
from edgeproxy.plan import Plan
from edgeproxy.prints import Prints
from edgeproxy.scoring import Scored
from edgeproxy.watching import Marks

ADDED, CONNECTION, ROW = 25.0, 150.0, 50.0  # µs that are to be reached
NO_MODEL = "without the model: there is none in this tree, or onnxruntime is not installed (the extra `bots`)"
WINDOW = 0.2  # of --seconds: there are many rows
TURNS = 6  # of each gateway in a run
BOTS = {"bots": {"enabled": True, "mode": "act", "block": 0, "challenge": 0, "log": 0, "slow": {"score": 1}}}
CHROME: Headers = [
    (b"sec-ch-ua", b'"Chromium";v="148", "Google Chrome";v="148", "Not/A)Brand";v="99"'), (b"sec-ch-ua-mobile", b"?0"),
    (b"sec-ch-ua-platform", b'"Linux"'), (b"upgrade-insecure-requests", b"1"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/148.0.0.0 Safari/537.36"),
    (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"),
    (b"sec-fetch-site", b"same-origin"), (b"sec-fetch-mode", b"navigate"), (b"sec-fetch-user", b"?1"),
    (b"sec-fetch-dest", b"document"), (b"referer", b"https://localhost/"), (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"accept-language", b"de-DE,de;q=0.9,en;q=0.8"), (b"priority", b"u=0, i"),
]  # fmt: skip
UNNAMED: Headers = [
    (b"user-agent", b"AcmeDesk/2.1 (build 118)"), (b"accept", b"application/json"), (b"content-type", b"application/json"),
    (b"authorization", b"Bearer sk-0123456789"), (b"x-team", b"red"),
]  # fmt: skip

Actions = dict[str, Callable[[], Run]]
Measured = Callable[[Table, Actions], Table]


class Head(NamedTuple):
    """Somebody who asks.

    Attributes:
        client: whose ClientHello it has, of tests/data.
        pages: it is a browser that carries the session cookie.
    """

    name: str
    client: str
    headers: Headers
    path: bytes
    body: bytes
    pages: bool


HEADS = (
    Head("browser", "chromium", CHROME, b"/", b"", True),
    Head("SDK", "python ssl", admitted.HEADERS, b"/v1/chat/completions", admitted.BODY % b"", False),
    Head("program without a known name", "python ssl", UNNAMED, b"/v1/chat/completions", admitted.BODY % b"", False),
)


def model() -> Model | None:
    """The shipped model, if it is there and has an engine."""
    try:
        return load_once(SHIPPED)
    except ModelError:
        return None


def prints_of(client: str) -> Prints:
    """A new connection's, with its HTTP/2 or HTTP/3; no name of it is known yet."""
    vector = next(each for each in hellos.VECTORS if each["client"] == client)
    kind: Kind = "q" if vector["transport"] == "quic" else "t"
    message = bytes.fromhex(vector["client_hello"])
    prints = Prints(message if kind == "q" else hellos.framed(message), kind)
    if kind == "q":
        prints.h3 = h3_print(prints, hellos.SETTINGS, hellos.SECTION)
    elif client == "chromium":
        prints.h2 = h2_print(hellos.FIRST, hellos.SECTION)
    return prints


class Log:
    """Takes lines as the access log's writer does, and forgets them."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def flush(self) -> None:
        self.lines.clear()


class Case:
    """A gateway, with bots or without, and one head on one connection."""

    def __init__(self, head: Head, paths: CertificatePaths, *, bots: bool) -> None:
        pool = admitted.Pool()
        pool.parts = [admitted.PLAIN]
        pool.head = [(b"content-type", b"application/json"), (b"server", b"x"), (b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")]
        gateway = self.gateway = admitted.gateway_of(pool, paths, **(BOTS if bots else {}))
        gateway.log = cast("Any", Log())
        self.head, self.sink = head, cast("Any", admitted.Sink())
        self.peer = Peer("192.0.2.1", trusted=False, secure=True)
        self.peer.prints = prints_of(head.client)
        self.settings = settings = gateway.snapshot.bots
        self.headers = head.headers
        cookie = b"__Host-edge_session=" + b"A" * 90
        if settings is not None:
            settings.stats, settings.watch = gateway.stats.bots, gateway.watch
            # Addresses and keys are looked up beside the path: nothing is looked up here.
            settings.identity = Identifying().identity(settings.known._replace(dns=False, agents={}))
            assert settings.sessions is not None
            now = time.time()
            cookie = settings.sessions.write(settings.sessions.begin(now)._replace(requests=1), now).partition(b";")[0]
        if head.pages:
            self.headers = [*head.headers, (b"cookie", b"theme=dark; " + cookie)]
        self.number = 0
        self.plan = gateway.plan(self.request(head.path))
        self.parsed = self.request(head.path)

    def request(self, path: bytes) -> Request:
        """As a listener makes it."""
        head = self.head
        method, protocol = b"POST" if head.body else b"GET", H2 if head.pages else H1
        return Request(method, b"localhost", path, self.headers, len(head.body), protocol, self.peer)

    def known(self) -> None:
        """A head that came before, on this connection."""
        self._run(self.request(self.head.path), self.plan)

    def new(self) -> None:
        """One that did not: another path, and so another plan."""
        self.number += 1
        request = self.request(b"%b?page=%d" % (self.head.path, self.number))
        self._run(request, self.gateway.plan(request))

    def _run(self, request: Request, plan: Plan) -> None:
        body, content = Body(None), self.head.body
        if content:
            body.chunks.append(content)
            body.received = len(content)
        body.done = True
        exchange = self.gateway.open(request, plan, body, self.sink)
        self.gateway.run(exchange)
        if exchange.sink is not None:
            raise RuntimeError("it did not end")


# -- requests --------------------------------------------------------------------------------------------------------


def least(steps: list[Callable[[], object]], seconds: float) -> list[float]:
    """CPU µs of each, the least of `TURNS` turns; they take turns, since a busy machine only adds."""
    best, each = [float("inf")] * len(steps), seconds / len(steps) / TURNS
    for step in steps:
        for _ in range(50):
            step()
    gc.collect()
    gc.freeze()  # as a worker does: what was there before is not looked through again
    try:
        for _ in range(TURNS):
            for at, step in enumerate(steps):
                count, began = 0, time.process_time()
                while (used := time.process_time() - began) < each:
                    for _ in range(25):
                        step()
                    count += 25
                best[at] = min(best[at], used / max(count, 1) * 1e6)
    finally:
        gc.unfreeze()
    return best


def added(without: Callable[[], object], having: Callable[[], object], seconds: float) -> Run:
    """The difference of two."""
    others, used = Others(), time.process_time()
    a, b = least([without, having], seconds)
    return Run(b - a, {"without": a, "with": b, **others.share(time.process_time() - used)})


def requests(paths: CertificatePaths, seconds: float, *, new: bool) -> tuple[Table, Actions]:
    """What bots add to a request whose head is known, or is not."""
    what = "a head that was not seen before" if new else "a head that came before"
    table = Table(f"bots, {'new' if new else 'known'} head", what, "added CPU µs/request", against="")
    actions: Actions = {}
    for head in HEADS:
        pair = [Case(head, paths, bots=bots) for bots in (False, True)]
        without, having = (case.new if new else case.known for case in pair)
        actions[head.name] = lambda without=without, having=having: added(without, having, seconds)  # type: ignore[misc]
        table.targets.append(Target(None, ADDED, head.name, head.name))
        having()
        score = pair[1].plan.scored.current() if pair[1].plan.scored is not None else None
        table.notes.append(f"{head.name}: scored {score.value} by {score.source}" if score is not None else "not scored")
    if model() is None:
        table.notes.append(NO_MODEL)
    return table, actions


def parts(paths: CertificatePaths, seconds: float) -> tuple[Table, Actions]:
    """The browser's new head, taken to pieces."""
    table = Table("bots, parts", "of a browser's new head", "CPU µs", against="")
    case = Case(HEADS[0], paths, bots=True)
    case.new()
    request, settings, now = case.parsed, case.settings, time.time()
    assert settings is not None
    identity, sessions, watch, scorer = settings.identity, settings.sessions, settings.watch, settings.scorer
    assert identity is not None
    assert sessions is not None
    assert watch is not None
    view, scored, found = View(request, request.peer.prints), Scored(settings, request, "192.0.2.1", "localhost"), model()
    marks, score, session, line = scored.marks(), scored.current(), sessions.begin(now), case.plan.log
    row = vector(request, now)
    steps: dict[str, Callable[[], object]] = {
        "identity": lambda: identity.of(request, "192.0.2.1", now),
        "view": lambda: View(request, request.peer.prints),
        "heuristics": lambda: detect(view),
        "features": lambda: vector(request, now),
        "score, from nothing": lambda: scorer.score(forgotten(request), now),
        "score, kept by the connection": lambda: scorer.score(request, now),
        "session cookie, read": lambda: sessions.read(request.headers, now),
        "session cookie, written (once a minute)": lambda: sessions.write(session, now),
        "marks": lambda: Marks(request, "192.0.2.1", session.id),
        "behaviour: what it says": lambda: watch.moved(marks, 1000.0),
        "behaviour: counted when it ends": lambda: watch.ended(marks, score, 200, time.monotonic()),
        "log line, the first one": lambda: Scored(settings, request, "192.0.2.1", "").line(line, score),
    }
    if found is not None:
        steps["model"] = lambda: found.predict(row)
    table.notes.append("counting a finished exchange is done for each request, the rest for each new head")
    actions: Actions = {name: lambda step=step: Run(least([step], seconds / 2)[0]) for name, step in steps.items()}  # type: ignore[misc]
    return table, actions


# -- connections, and the model --------------------------------------------------------------------------------------


def forgotten(request: Request) -> Request:
    """A request on a connection that keeps no scores."""
    assert request.peer.prints is not None
    request.peer.prints.scores = None
    return request


def connected(client: str) -> Callable[[], object]:
    """All that is found out of a new connection: its hello, its names, how its protocol begins, what the model reads of it."""

    def step() -> object:
        prints = prints_of(client)
        return prints.ja4, prints.ja4n, wire.connection(prints), connection_families(prints)

    return step


def first_scored(case: Case) -> Callable[[], object]:
    """The same, and the score of its first head."""
    settings, request = case.settings, case.parsed
    assert settings is not None
    client, scorer, peer, now = case.head.client, settings.scorer, case.peer, time.time()

    def step() -> object:
        prints = peer.prints = prints_of(client)
        return prints.ja4, prints.ja4n, scorer.score(request, now)

    return step


def connections(paths: CertificatePaths, seconds: float) -> tuple[Table, Actions]:
    """What bots add to a connection."""
    table = Table("bots, new connection", "hello, names, features", "CPU µs/connection", against="")
    names = [each["client"] for each in hellos.VECTORS if each["client"] in CLIENTS]
    steps = {name: connected(name) for name in names}
    steps[FIRST] = first_scored(Case(HEADS[0], paths, bots=True))
    table.targets += [Target(None, CONNECTION, name, name) for name in steps]
    return table, {name: lambda step=step: Run(least([step], seconds)[0]) for name, step in steps.items()}  # type: ignore[misc]


FIRST = "chromium, and its first head scored"
CLIENTS = ("chromium", "firefox", "curl", "python ssl", "chromium, HTTP/3")


def one_by_one(found: Model, row: list[float], count: int) -> Run:
    """The model's answers, each timed: CPU time of this thread, and by the clock (in which others have their part)."""
    cpu, wall = [], []
    predict, thread, clock = found.predict, time.thread_time_ns, time.perf_counter_ns
    for _ in range(200):
        predict(row)
    for _ in range(count):
        a, b = clock(), thread()
        predict(row)
        c, d = thread(), clock()
        cpu.append((c - b) / 1000)
        wall.append((d - a) / 1000)
    percent = statistics.quantiles(cpu, n=100)
    return Run(percent[98], {"p50": percent[49], "by the clock p99": statistics.quantiles(wall, n=100)[98]})


def rows(paths: CertificatePaths, seconds: float) -> tuple[Table, Actions]:
    """The model's time for one row."""
    table = Table("bots, model", "one row", "p99 CPU µs", [Target(None, ROW, "", EDGE)], against="")
    found = model()
    if found is None:
        table.notes.append(NO_MODEL)
        return table, {}
    row = vector(Case(HEADS[0], paths, bots=True).parsed, time.time())
    count = max(200, int(seconds * 20_000))
    table.notes.append(f"{found.manifest.name}; {count:,} rows a run")
    return table, {EDGE: lambda: one_by_one(found, row, count)}


def tables(seconds: float, measured: Measured) -> list[Table]:
    """All tables that need no edge.

    Args:
        measured: runs the actions of a table in turns and shows it.
    """
    window = WINDOW * seconds
    with tempfile.TemporaryDirectory(prefix="edge-bench-bots-") as folder:
        paths = make_development(Path(folder), ("localhost",))
        made = [measured(*requests(paths, window, new=new)) for new in (False, True)]
        made += [measured(*parts(paths, window)), measured(*connections(paths, window))]
        table, actions = rows(paths, window)
        return [*made, measured(table, actions)] if actions else made
