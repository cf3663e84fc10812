# Datagrams that mean nothing, or almost something: no exception in the loop, no growth, and everybody else is served.
"""EDGEPROXY_FUZZ is how many datagrams are thrown at the edge: 100,000 by default, 1,000,000 before a release."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import resource
from pathlib import Path
from typing import Any

import pytest
from support.edge import Edge, running_edge
from support.h3 import RawH3, data, h3_connected, headers
from support.heads import GET, GOOD, POST
from support.quic import Connection, configuration
from support.upstream import echo, running_upstream
from support.waiting import until

COUNT = int(os.environ.get("EDGEPROXY_FUZZ", "100000"))
GROWTH = 16 << 20
AT_A_TIME = 100  # then the edge must have dealt with them before more come


def rss() -> int:
    """Resident bytes of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Garbage:
    """Datagrams from a seed: random bytes, random bytes behind a plausible head, and real datagrams with some of them changed."""

    def __init__(self, real: list[bytes], seed: int) -> None:
        self.random = random.Random(seed)
        self.initials = [each for each in real if each[0] & 0x80]
        self.short = [each for each in real if not each[0] & 0x80]

    def next(self) -> bytes:
        draw = self.random.random()
        if draw < 0.2:
            return self.random.randbytes(self.random.choice([0, 1, 2, 5, 9, 20, 21, 40, 100, 1199, 1200, 1252, 1400]))
        if draw < 0.4:
            version = self.random.choice([b"\0\0\0\1", b"\0\0\0\0", b"\x6b\x33\x43\xcf"])
            return bytes([self.random.randrange(64, 256)]) + version + self.random.randbytes(self.random.randrange(5, 60))
        if draw < 0.45:
            return self.mutated(self.random.choice(self.initials))
        return self.mutated(self.random.choice(self.short))

    def mutated(self, original: bytes) -> bytes:
        changed = bytearray(original)
        how = self.random.randrange(4)
        if how == 0:  # bytes of the head, which is where parsers read
            for _ in range(self.random.randrange(1, 4)):
                changed[self.random.randrange(min(30, len(changed)))] = self.random.randrange(256)
        elif how == 1:
            changed[self.random.randrange(len(changed))] ^= 1 << self.random.randrange(8)
        elif how == 2:
            del changed[self.random.randrange(1, len(changed)) :]
        else:
            changed += self.random.randbytes(self.random.randrange(1, 100))
        return bytes(changed)


class Recording(RawH3):
    """A client that remembers some of what it sent."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.said: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.said.append(data)
        super().send(data)


async def forgotten(edge: Edge, *clients: RawH3) -> None:
    """Handshakes that were begun by chance time out."""
    for client in clients:
        await client.fine(GOOD)  # the edge has read all that was sent before, and nobody is idle
    edge.after(36)  # the clock of deadlines may still be where the last call of this put it: 25 s ahead
    edge.after(25)
    await until(lambda: edge.stats.quic.half_open == 0)


@pytest.mark.timeout(120 + COUNT // 2000)
async def test_garbage() -> None:
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    async with running_upstream(echo) as upstream, running_edge(upstream.port, client={"h3": {"retry_at": 1000}}) as edge:
        client = Recording(edge.https_port)
        await client.connect()
        client.start()
        for _ in range(20):
            await client.over(client.request(headers([*POST[:3], (b":path", b"/good")]), data(bytes(3000))))
        initials = []
        for _ in range(20):
            quic = Connection(configuration=configuration())
            quic.connect(("127.0.0.1", 1), loop.time())
            initials += [each for each, _ in quic.datagrams_to_send(loop.time())]
        garbage = Garbage(client.said[1:] + initials, seed=11)
        async with h3_connected(edge.https_port) as neighbour:
            before = 0
            for number in range(COUNT):
                client.send(garbage.next() or b"\0")
                client.said.clear()
                if number % 5_000 == 0:
                    await neighbour.fine(GOOD)  # nothing but pings would be a flood
                elif number % AT_A_TIME == 0:
                    await neighbour.ping()
                if number == COUNT // 10:
                    await forgotten(edge, client, neighbour)
                    before = rss()  # caches and tables have their size by now
                elif number % 20_000 == 0:
                    await forgotten(edge, client, neighbour)
            await neighbour.fine(GOOD)
            # Authenticated packets were never changed without breaking: the connection they were taken from lives.
            await client.fine([*GET[:3], (b":path", b"/good")])
            await forgotten(edge, client, neighbour)
            assert rss() - before < GROWTH, f"{(rss() - before) >> 20} MiB"
            assert edge.stats.quic.connections_open == 2
        client.close()
    assert complaints == []
    assert len(edge.stats.quic.drops) <= 32
