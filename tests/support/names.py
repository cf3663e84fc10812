# A small DNS server on loopback, for records that a test chooses.
"""`dns(records)`: UDP; answers, fails or keeps silent."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import cast

KINDS = {1: "A", 28: "AAAA", 12: "PTR", 5: "CNAME"}
FAIL, SILENT = "fail", "silent"
Records = Mapping[tuple[str, str], list[str] | str]


def _name(text: str) -> bytes:
    labels = text.rstrip(".").split(".")
    return b"".join(bytes([len(label)]) + label.encode("latin-1") for label in labels) + b"\0"


class Server(asyncio.DatagramProtocol):
    def __init__(self, records: Records) -> None:
        self.records = records
        self.asked: list[tuple[str, str]] = []
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)  # uvloop's is none by its class

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        at, labels = 12, []
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode("latin-1"))
            at += 1 + data[at]
        question = data[12 : at + 5]
        kind = KINDS.get(struct.unpack("!H", data[at + 1 : at + 3])[0], "?")
        name = ".".join(labels).lower()
        self.asked.append((name, kind))
        found = self.records.get((name, kind))
        if found == SILENT:
            return
        answers = b""
        count = 0
        for value in found if isinstance(found, list) else []:
            target, what = (value.removeprefix("alias "), "CNAME") if value.startswith("alias ") else (value, kind)
            packed = socket.inet_pton(socket.AF_INET, target) if what == "A" else (
                socket.inet_pton(socket.AF_INET6, target) if what == "AAAA" else _name(target))  # fmt: skip
            number = next(key for key, word in KINDS.items() if word == what)
            answers += b"\xc0\x0c" + struct.pack("!HHIH", number, 1, 60, len(packed)) + packed
            count += 1
        code = 2 if found == FAIL else 0 if found is not None else 3
        head = data[:2] + struct.pack("!HHHHH", 0x8580 | code, 1, count, 0, 0)
        assert self.transport is not None
        self.transport.sendto(head + question + answers, addr)


@asynccontextmanager
async def dns(records: Records) -> AsyncIterator[tuple[Server, int]]:
    server = Server(records)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: server, local_addr=("127.0.0.1", 0))
    try:
        yield server, transport.get_extra_info("sockname")[1]
    finally:
        transport.close()
