# Nothing of ours stays behind: connections and exchanges are freed by reference counting alone, and memory stands still.
"""Census of our own objects and RSS over thousands of connections and exchanges, with the garbage collector off.

A reference cycle per connection or exchange would show as growth by the number of rounds, since nothing collects it.
2,000 connections instead of 10,000: a TLS handshake costs both ends 2 ms in one process. EDGEPROXY_LEAK_CONNECTIONS sets
another number (10000 for both protocols takes about 45 s of CPU).
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from contract.stand import STREAM, Stand, chunk, routed, stand, upstream_settings
from support.census import census, collector_off, grown
from support.edge import client_context
from support.upstream import OK, Connection, Gone
from support.waiting import until

CONNECTIONS = int(os.environ.get("EDGEPROXY_LEAK_CONNECTIONS", "2000"))
EXCHANGES = 5000
WARM = 100


def rss() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def check(s: Stand, before: Counter[str], rounds: int, memory: int) -> None:
    """Nothing may have grown by as much as a fraction of the rounds."""
    assert grown(before, census()) == {}
    # Objects without gc (bytes, floats) do not show in the census: a kilobyte a round would.
    limit = (8 << 20) + rounds * 256
    assert rss() - memory < limit, f"{(rss() - memory) / rounds:.0f} bytes a round"


async def measured(s: Stand, once: Callable[[int], Awaitable[None]], rounds: int, parallel: int = 8) -> None:
    """Runs `once` `rounds` times; the first ones warm caches up and are not counted."""

    async def run(count: int) -> None:
        numbers = iter(range(count))

        async def work() -> None:
            for number in numbers:
                await once(number)

        await asyncio.gather(*(work() for _ in range(parallel)))
        s.log.lines.clear()
        s.upstream.connections[:] = [each for each in s.upstream.connections if not each.closed]
        s.upstream.requests.clear()
        for route in s.edge.stats.routes.values():
            route.requests[:] = [0] * len(route.requests)
            route.durations[:] = [0] * len(route.durations)
            route.bytes_in = route.bytes_out = 0

    await run(WARM)
    await until(lambda: quiet(s))
    async with collector_off():
        before, memory = census(), rss()
        await run(rounds)
        await until(lambda: quiet(s))
        check(s, before, rounds, memory)


def quiet(s: Stand) -> bool:
    """Nothing is going on, and clients that are not kept have gone."""
    stats = s.edge.stats
    open_wires = sum(not wire.closed for wire in s.wires)
    return (
        s.edge.data_plane.connections == open_wires
        and stats.streams_open == 0
        and all(target.active == 0 for target in stats.upstreams.values())
    )


async def soon(condition: Callable[[], object]) -> None:
    """`until` for thousands of rounds: looks in every turn of the loop."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  the thing waited for has no event
            await asyncio.sleep(0)


class Client(asyncio.Protocol):
    """A connection that asks once and leaves; as little of our own as possible, so that the census is the edge's."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, error: Exception | None) -> None:
        del error
        if not self.gone.done():
            self.gone.set_result(None)


GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
H2_GET = bytes([0, 0, 14, 1, 5, 0, 0, 0, 1, 0x82, 0x87, 0x84, 0x41, 9]) + b"localhost"


@pytest.mark.parametrize("protocol", ["h1", "h2"])
@pytest.mark.timeout(300)
async def test_connections(protocol: str) -> None:
    """Opened, used once and closed by one side or the other; every third one is reset, every fifth never asks."""
    loop = asyncio.get_running_loop()
    context = client_context(("http/1.1",) if protocol == "h1" else ("h2",))
    ask = GET if protocol == "h1" else PREFACE + H2_GET

    async def handler(connection: Connection) -> None:
        while True:
            await connection.request()
            connection.write(OK)

    async with stand(protocol, handler) as s:

        async def once(number: int) -> None:
            transport, client = await loop.create_connection(
                Client, "127.0.0.1", s.edge.https_port, ssl=context, server_hostname="localhost"
            )
            if number % 5:
                transport.write(ask)
                await soon(lambda: client.data.endswith(b"ok"))
            if number % 3:
                transport.close()
            else:
                sock: socket.socket = transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                transport.abort()
            await client.gone

        await measured(s, once, CONNECTIONS)


async def test_handshakes_that_fail() -> None:
    async with stand("h1") as s:

        async def once(number: int) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", s.edge.https_port)
            writer.write([b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\x16"][number % 3])
            if number % 3 < 2:
                await reader.read()
            writer.transport.abort()
            await asyncio.sleep(0)

        await measured(s, once, 500)


async def exchange_handler(connection: Connection) -> None:
    """By path: answers, streams and waits, or dies."""
    while True:
        received = await connection.request()
        line = received.line
        if b"/stream" in line:
            connection.write(STREAM + chunk(b"data: 1\n\n"))
            await connection.gone()
            raise Gone
        if b"/dies" in line:
            connection.write(STREAM + chunk(b"data: 1\n\n"))
            connection.close()
            return
        if b"/silent" in line:
            await connection.gone()
            raise Gone
        connection.write(OK)


@pytest.mark.parametrize("protocol", ["h1", "h2"])
@pytest.mark.timeout(300)
async def test_exchanges(protocol: str) -> None:
    """On few connections: answered, refused, cancelled before and after the first byte, broken by the upstream."""
    kinds = ["/", "/", "/post", "/none//"]
    if protocol == "h2":
        kinds += ["/", "/stream", "/silent", "/dies"]
    async with stand(protocol, exchange_handler, routes=routed(dialect="openai")) as s:
        wires = [await s.dial() for _ in range(4)]
        if protocol == "h2":
            # More of them: every one leaves by RST_STREAM, and too many of those in a row end a connection.
            s.reload(routes=routed(dialect="openai"), client={"h2": {"reset_burst": 1_000_000}})
            for wire in wires:
                await wire.leave()
            wires = [await s.dial() for _ in range(4)]

        async def once(number: int) -> None:
            wire = wires[number % 4]
            path = kinds[number % len(kinds)]
            call = wire.call("POST", "/", (), b"content") if path == "/post" else wire.call("GET", path)
            if path == "/stream":
                await call.received(9)
                call.cancel()
            elif path == "/silent":
                call.cancel()
            elif path == "/dies":
                await call.failed()
            else:
                await soon(lambda: call.over)
            wire.calls.remove(call)
            getattr(wire, "_by_id", {}).pop(call.id, None)

        # HTTP/1.1 takes one request at a time on a connection; one worker a connection keeps it so.
        await measured(s, once, EXCHANGES, parallel=4 if protocol == "h2" else 1)


@pytest.mark.parametrize("path", ["/stream", "/silent", "/dies"])
async def test_exchanges_that_end_with_their_connection(path: str) -> None:
    """HTTP/1.1: to leave is to close."""
    async with stand("h1", exchange_handler, routes=routed(dialect="openai")) as s:

        async def once(number: int) -> None:
            wire = await s.dial(wait=False)
            call = wire.call("GET", path)
            if path == "/stream":
                await call.received(9)
            elif path == "/dies":
                await call.failed()
            await wire.leave()
            wire.calls.clear()  # a cycle of the test's own
            s.wires.remove(wire)

        await measured(s, once, 500)


async def test_connects_that_fail() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        dead = free.getsockname()[1]
    async with stand("h2", upstreams=upstream_settings(targets=[{"url": f"http://127.0.0.1:{dead}"}])) as s:
        wire = await s.dial()

        async def once(number: int) -> None:
            call = wire.call()
            await soon(lambda: call.over)
            wire.calls.remove(call)
            getattr(wire, "_by_id", {}).pop(call.id, None)

        await measured(s, once, 500)


async def test_tls_to_upstreams_that_fails() -> None:
    async with stand("h2") as s:
        targets = [{"url": f"https://127.0.0.1:{s.upstream.port}"}]
        s.reload(upstreams=upstream_settings(targets=targets, timeouts={"connect": "50ms"}))
        wire = await s.dial()
        s.upstream.handler = closing

        async def once(number: int) -> None:
            call = wire.call()
            await soon(lambda: call.over)
            wire.calls.remove(call)
            getattr(wire, "_by_id", {}).pop(call.id, None)

        await measured(s, once, 300)


async def closing(connection: Connection) -> None:
    """Says something that is not TLS."""
    connection.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    connection.close()
