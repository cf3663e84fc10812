# Real drivers walk through a site behind the edge and meet a challenge. What the edge counted and said is kept.
"""`python -m tools.bots.walking [--cache DIR]`: writes `data/walked.json`.

A walk: PAGES pages as fast as the client can, a page that is challenged, one page more. Each has an edge of its own, with all
that it scores with, so that nothing is left of the walk before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvloop
from aiohttp import web

from edgeproxy.certs import make_development
from edgeproxy.config.bots import Bots
from edgeproxy.gateway import Gateway
from edgeproxy.rules.model import RuleBook, RuleFiles, RuleModel
from edgeproxy.watching import Marks, Watch
from tools.bots.capture import CACHE, play
from tools.bots.clients import CLIENTS
from tools.bots.edge import running
from tools.bots.starting import HERE, Command, Missing, chromium, headed, prepare

if TYPE_CHECKING:
    from edgeproxy.bots.score import Score
    from edgeproxy.config.model import Config
    from edgeproxy.message import Body, Request, Sink
    from edgeproxy.plan import Plan

PAGES: Final = 20
WALKED: Final = HERE / "data/walked.json"
WALKS: Final = (
    ("playwright", "headed"), ("playwright", "headless"), ("playwright", "a context per page"), ("playwright", "no parts"),
    ("patchright", "headed"), ("patchright", "headless"), ("selenium", "headed"), ("selenium", "headless"),
    ("curl_cffi", "chrome"), ("primp", "chrome_146"),
)  # fmt: skip
_RULE = {"id": "ask", "expression": 'starts_with(http.request.uri.path, "/ask")', "action": "managed_challenge"}
_PAGE = """<!doctype html><html lang="en"><head><title>{name}</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="{name}.css"></head><body><p>page {name}</p><img src="{name}.png" alt="">
<script src="{name}.js"></script></body></html>"""


class Noting(Watch):
    """Notes what is counted, as rows: seconds, path, number of the session whose cookie came (0: none), status, score,
    log-odds."""

    __slots__ = ()
    sessions: dict[bytes | str, int] = {b"": 0}  # noqa: RUF012  numbers, in the order they came
    rows: list[list[Any]] = []  # noqa: RUF012  one walk at a time
    paths: dict[int, str] = {}  # noqa: RUF012  by the hash of one

    def ended(self, marks: Marks, score: Score, status: int, now: float, *, given: bool = False) -> None:
        """See `Watch`."""
        session = self.sessions.setdefault(marks.keys.session, len(self.sessions))
        self.rows.append([round(now, 3), self.paths.get(marks.path, ""), session, status, score.value, round(score.moved, 3)])
        super().ended(marks, score, status, now, given=given)


class Walked(Gateway):
    """A gateway whose watch notes."""

    __slots__ = ()

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.watch = Noting(self, self.deadlines)

    def open(self, request: Request, plan: Plan, body: Body, sink: Sink) -> Any:
        """See `Gateway`."""
        if plan.scored is not None:
            Noting.paths[plan.scored.marks().path] = request.target.partition(b"?")[0].decode("latin-1")
        return super().open(request, plan, body, sink)


@asynccontextmanager
async def _site() -> AsyncIterator[int]:
    """Pages with a style, a picture and a script each, all there; yields its port."""

    async def answer(request: web.Request) -> web.Response:
        name = request.path.rsplit("/", 1)[-1]
        if request.path.startswith("/ask"):
            return web.Response(text="<!doctype html><p>behind the challenge", content_type="text/html")
        if "." in name:
            kind = {"css": "text/css", "js": "text/javascript"}.get(name.rsplit(".", 1)[-1], "image/png")
            return web.Response(text="" if kind != "text/css" else "p{margin:0}", content_type=kind)
        return web.Response(text=_PAGE.replace("{name}", name), content_type="text/html")

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    finally:
        await runner.cleanup()


def _scoring(config: Config) -> Config:
    book = RuleBook(rules=(RuleModel.model_validate(_RULE),))
    return config.model_copy(update={"bots": Bots.model_validate({"enabled": True}), "rules": RuleFiles(book=book)})


async def _walk(name: str, variant: str, cache: Path, upstream: int) -> dict[str, Any]:
    """One walk, as it is kept."""
    client = next(each for each in CLIENTS if each.name == name)
    try:
        folder = await asyncio.to_thread(prepare, client, cache / "clients")
        paths = make_development(cache / "certs", ("localhost", "127.0.0.1", "edge.test"))
        Noting.rows, Noting.sessions = [], {b"": 0}
        async with running(paths, upstream, ["h1", "h2"], Walked, _scoring) as port:
            argv = [
                str(folder / "bin/python"), str(HERE / "drivers/py_walking.py"), name, variant, f"https://localhost:{port}",
                chromium(), str(PAGES),
            ]  # fmt: skip
            out, bad = await play(Command(headed(argv), folder, {"no_proxy": "localhost"}, 150.0), set())
    except Missing as e:
        return {"client": name, "variant": variant, "missing": str(e)}
    try:
        said = json.loads(out.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return {"client": name, "variant": variant, "missing": (bad.strip().splitlines() or ["it said nothing"])[-1][:200]}
    began = Noting.rows[0][0] if Noting.rows else 0.0
    rows = [[round(row[0] - began, 3), *row[1:]] for row in Noting.rows]
    return {"client": name, "variant": variant, "tier": client.tier, **said, "requests": rows}


async def _all(cache: Path) -> None:
    made = []
    async with _site() as upstream:
        for name, variant in WALKS:
            row = await _walk(name, variant, cache, upstream)
            print(name, variant, {key: value for key, value in row.items() if key != "requests"}, flush=True)
            made.append(row)
    about = {
        "when": time.strftime("%Y-%m-%d", time.gmtime()), "python": platform.python_version(), "pages": PAGES,
        "columns": ["seconds", "path", "session", "status", "score", "moved"],
    }  # fmt: skip
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in made)
    WALKED.write_text(json.dumps(about)[:-1] + ', "walks": [\n' + lines + "\n]}\n")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=CACHE)
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_all(given.cache))


if __name__ == "__main__":
    main()
