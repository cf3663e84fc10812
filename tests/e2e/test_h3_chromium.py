# HTTP/3 as Chromium sees it: a page, a fetch that streams, an upload, and the way here from Alt-Svc.
from __future__ import annotations

import asyncio
import json
from pathlib import Path

from browser import Tab, chromium
from support.edge import certificates, running_edge
from support.upstream import Connection, Handler, running_upstream
from support.waiting import until

PAGE = b"<!doctype html><title>edge</title><link rel=icon href=data:,><p>hello"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
# Reads a stream piece by piece and tells when each came.
READ = """(async () => {
  const answer = await fetch('/stream'), reader = answer.body.getReader(), pieces = [], decoder = new TextDecoder()
  for (let step = await reader.read(); !step.done; step = await reader.read()) {
    pieces.push(decoder.decode(step.value))
    await fetch('/next')
  }
  return [answer.status, pieces, performance.getEntriesByName(answer.url)[0]?.nextHopProtocol]
})()"""


def site(turns: asyncio.Queue[None]) -> Handler:
    """A page, a stream of five events each of which waits for `/next`, and an echo of how much was sent."""

    async def handler(connection: Connection) -> None:
        while True:
            received = await connection.request()
            content = PAGE
            if b"/next" in received.line:
                turns.put_nowait(None)
            elif b"/stream" in received.line:
                connection.write(STREAM)
                for number in range(5):
                    event = b"data: %d\n\n" % number
                    connection.write(b"%x\r\n%b\r\n" % (len(event), event))
                    await turns.get()
                connection.write(b"0\r\n\r\n")
                continue
            elif b"/upload" in received.line:
                content = b"%d" % len(received.body)
            head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n"
            connection.write(head % len(content) + content)

    return handler


async def protocol_of_the_page(tab: Tab) -> str:
    found: str = await tab.run("performance.getEntriesByType('navigation')[0].nextHopProtocol")
    return found


async def test_a_page_and_a_streaming_fetch(tmp_path: Path) -> None:
    turns: asyncio.Queue[None] = asyncio.Queue()
    async with running_upstream(site(turns)) as upstream, running_edge(upstream.port) as edge:
        force = f"--origin-to-force-quic-on=localhost:{edge.https_port}"
        async with chromium(tmp_path, certificates().cert, force) as tab:
            await tab.open(f"https://localhost:{edge.https_port}/")
            assert await protocol_of_the_page(tab) == "h3"
            assert await tab.run("document.body.innerText.trim()") == "hello"
            # A piece is only sent when the one before has been read: nothing on the way waits for more.
            status, pieces, protocol = await tab.run(READ)
            assert (status, protocol) == (200, "h3")
            assert pieces == [f"data: {number}\n\n" for number in range(5)]
            size = 3 << 20
            upload = f"fetch('/upload', {{method: 'POST', body: new Uint8Array({size})}}).then(answer => answer.text())"
            assert await tab.run(upload) == str(size)
            many = "Promise.all([...Array(50).keys()].map(n => fetch('/' + n).then(answer => answer.status)))"
            assert await tab.run(many) == [200] * 50
            leave = (
                "(async () => { const stop = new AbortController(), answer = await fetch('/stream', {signal: stop.signal});"
                " await answer.body.getReader().read(); stop.abort() })()"
            )
            cancels = upstream.cancels
            await tab.run(leave)
            await until(lambda: upstream.cancels == cancels + 1)
            assert edge.stats.connections_total == [0, 0, 1]
        assert not edge.faults


async def test_alt_svc_brings_it_here(tmp_path: Path) -> None:
    turns: asyncio.Queue[None] = asyncio.Queue()
    # What the address says of itself must be the port that Chromium uses: the one that the test got.
    async with running_upstream(site(turns)) as upstream, running_edge(upstream.port) as edge:
        port = edge.https_port
        edge.data_plane.switch(advertising(upstream.port, port))
        # For HTTP/3 Chromium wants a public authority, or a host that is forced somewhere: on a port that nobody asks for.
        async with chromium(tmp_path, certificates().cert, "--origin-to-force-quic-on=localhost:1") as tab:
            await tab.open(f"https://localhost:{port}/")
            assert await protocol_of_the_page(tab) == "h2"
            fetched = (
                "(async () => { for (let n = 0; n < 100; n++) { await (await fetch('/' + n)).text();"
                " if (performance.getEntriesByName(location.origin + '/' + n)[0]?.nextHopProtocol == 'h3') return n;"
                " await new Promise(done => setTimeout(done, 20)) } })()"
            )
            assert await tab.run(fetched) is not None, json.dumps(edge.stats.connections_total)
            await tab.open(f"https://localhost:{port}/again")
            assert await protocol_of_the_page(tab) == "h3"
        assert edge.stats.connections_total[2] >= 1


def advertising(upstream: int, port: int):  # type: ignore[no-untyped-def]
    """A snapshot that knows by which port it is reached."""
    from support.edge import configuration, prepared

    return prepared(configuration(upstream, listen={"public_port": port}))
