# What is behind the edge while it records: pages that make browsers ask in every way they have, and JSON for the rest.
"""`serve`: an aiohttp application on a loopback port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

_SCRIPT = """
const base = location.pathname.replace(/[^/]*$/, "");
const wait = (ms) => new Promise((go) => setTimeout(go, ms));
const quiet = async (what) => { try { await what(); } catch (e) { console.log(e); } };
const json = JSON.stringify({model: "m", messages: [{role: "user", content: "hi"}], stream: true});
const asks = [
  () => fetch(base + "json").then((r) => r.text()),
  () => fetch(base + "json", {method: "POST", headers: {"content-type": "application/json"}, body: json}).then((r) => r.text()),
  () => fetch(base + "stream", {
    method: "POST", headers: {"content-type": "application/json", authorization: "Bearer x"}, body: json,
  }).then((r) => r.text()),
  () => fetch(base + "json", {headers: {accept: "application/json"}, cache: "no-store"}).then((r) => r.text()),
  () => fetch(base + "json", {method: "PUT", body: "x"}).then((r) => r.text()),
  () => fetch(base + "json", {method: "DELETE"}).then((r) => r.text()),
  () => fetch(base + "json", {method: "POST", body: new URLSearchParams({a: "1"})}).then((r) => r.text()),
  () => new Promise((go) => {
    const old = new XMLHttpRequest();
    old.open("GET", base + "json");
    old.onloadend = go;
    old.send();
  }),
  () => new Promise((go) => {
    const source = new EventSource(base + "stream");
    source.onmessage = source.onerror = () => { source.close(); go(); };
  }),
];
(async () => {
  const step = Number(new URLSearchParams(location.search).get("n") ?? 0);
  for (const ask of asks) await quiet(ask);
  await wait(1600);
  for (const ask of asks.slice(0, 3)) await quiet(ask);
  if (step === 0) { document.getElementById("next").click(); return; }
  if (step === 1) { location.href = base + "page?n=2"; return; }
  if (step === 2) { document.forms[0].submit(); return; }
  if (step === 3) { location.replace(base + "page?n=4"); return; }
  if (step === 4 && !sessionStorage.getItem("again")) { sessionStorage.setItem("again", "1"); location.reload(); return; }
  await quiet(() => fetch(base + "done"));
  document.title = "done";
})();
"""

_PAGE = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>page</title>
<link rel="stylesheet" href="style.css"><link rel="icon" href="icon.png"></head><body><h1>A page</h1>
<img src="a.png" alt=""><img src="b.webp" alt="" loading="eager"><iframe src="frame" title="frame"></iframe>
<video src="film.mp4" preload="auto" muted></video>
<a id="next" href="page?n=1">next</a><form method="post" action="page?n=3"><input name="q" value="x"></form>
<script src="script.js"></script><script>{_SCRIPT}</script></body></html>"""

_KINDS = {
    "page": ("text/html", _PAGE),
    "frame": ("text/html", "<!doctype html><p>frame</p>"),
    "style.css": ("text/css", "@font-face{font-family:x;src:url(font.woff2)} h1{font-family:x}"),
    "script.js": ("text/javascript", "window.loaded = true;"),
    "stream": ("text/event-stream", 'data: {"x":1}\n\ndata: [DONE]\n\n'),
}


async def _answer(request: web.Request) -> web.StreamResponse:
    last = request.path.rsplit("/", 1)[-1]
    await request.read()
    if last == "done":
        application: set[str] = request.app["done"]
        application.add(request.path)
    kind, content = _KINDS.get(last, ("application/json", '{"object":"list","data":[]}'))
    if last.rsplit(".", 1)[-1] in {"png", "webp", "woff2", "mp4", "ico"}:
        return web.Response(status=404, text="")
    headers = {"set-cookie": "session=1; Path=/; Secure; HttpOnly"} if last == "page" else {}
    return web.Response(text=content, content_type=kind, charset="utf-8", headers=headers)


@asynccontextmanager
async def serve() -> AsyncIterator[tuple[int, set[str]]]:
    """Yields its port, and the paths of pages that came to their end."""
    application = web.Application(client_max_size=1 << 20)
    application["done"] = done = set()
    application.router.add_route("*", "/{path:.*}", _answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port: int = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    try:
        yield port, done
    finally:
        await runner.cleanup()
        await asyncio.sleep(0)
