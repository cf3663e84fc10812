# Redis for the case `limits`: one server, or a cluster of three, on the load core; started and ended here.
"""`server` and `cluster`: context managers that yield a `Redis`, empty and ready. Nothing is written to a disk."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hiredis

from bench import peers, proc
from bench.children import Child, Failure, find, wait_port

MISSING = "redis-server is not installed (Debian package redis-server)"
SLOTS = 16384
WAIT = 20.0  # s for a cluster to form


@dataclass(frozen=True, slots=True)
class Redis:
    """Running servers.

    Attributes:
        url: as the configuration's `store` has it.
    """

    url: str
    children: list[Child]

    def cpu(self) -> float:
        """CPU seconds of all of them until now."""
        return sum(proc.spent(child.pid) for child in self.children)


def binary() -> str | None:
    return find("redis-server")


def version() -> str:
    """Of the server; empty when there is none."""
    path = binary()
    found = re.search(r" v=(\S+)", peers.output([path, "--version"])) if path else None
    return found[1] if found else ""


def free_pair() -> int:
    """A port that was free, as was the one 10,000 above it (the bus of a cluster); below those that connections take."""
    while True:
        port = random.randrange(12_000, 22_000)
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


def command(port: int, *words: str) -> object:
    """One command to a server on loopback, and its answer.

    Raises: Failure (an error, no answer within 5 s).
    """
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as sock:
            sock.sendall(hiredis.pack_command(words))  # type: ignore[arg-type]  # its types say one word; many are meant
            reader = hiredis.Reader(encoding="utf-8")
            while (answer := reader.gets()) is False:
                if not (data := sock.recv(65536)):
                    raise Failure(f"redis-server hung up after {words[0]}")
                reader.feed(data)
    except OSError as error:
        raise Failure(f"redis-server did not answer {words[0]}: {error}") from error
    if isinstance(answer, hiredis.ReplyError):
        raise Failure(f"redis-server: {words[0]}: {answer}")
    return answer


def _start(folder: Path, cores: str, port: int, *more: str) -> Child:
    path = binary()
    if path is None:
        raise Failure(MISSING)
    folder.mkdir(parents=True, exist_ok=True)
    words = [path, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    return Child([*words, *more], cores=cores, cwd=folder, log=folder / "redis.log")


@contextlib.contextmanager
def _started(folder: Path, cores: str, ports: list[int], *more: str) -> Iterator[list[Child]]:
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(_start(folder / str(port), cores, port, *more)) for port in ports]
        for child, port in zip(children, ports, strict=True):
            wait_port(port, child)
        yield children


@contextlib.contextmanager
def server(folder: Path, cores: str) -> Iterator[Redis]:
    """One server. Raises Failure when there is none, or it does not come up."""
    port = free_pair()
    with _started(folder, cores, [port]) as children:
        yield Redis(f"redis://127.0.0.1:{port}/0", children)


@contextlib.contextmanager
def cluster(folder: Path, cores: str) -> Iterator[Redis]:
    """Three primaries that have all slots. Raises Failure."""
    ports: list[int] = []
    while len(ports) < 3:
        port = free_pair()
        ports += [] if port in ports else [port]
    with _started(folder, cores, ports, "--cluster-enabled", "yes", "--cluster-node-timeout", "5000") as children:
        for number, port in enumerate(ports):
            share = range(SLOTS * number // 3, SLOTS * (number + 1) // 3)
            command(port, "CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
            command(port, "CLUSTER", "ADDSLOTS", *map(str, share))
            if number:
                command(port, "CLUSTER", "MEET", "127.0.0.1", str(ports[0]))
        deadline = time.monotonic() + WAIT
        while not all(whole(str(command(port, "CLUSTER", "INFO"))) for port in ports):
            if time.monotonic() > deadline:
                raise Failure(f"the cluster was not whole within {WAIT:.0f} s")
            time.sleep(0.05)
        yield Redis("redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in ports), children)


def whole(info: str) -> bool:
    """Whether a node knows all three and somebody for each slot, by its CLUSTER INFO."""
    lines = info.split()
    return {"cluster_state:ok", f"cluster_slots_ok:{SLOTS}", "cluster_known_nodes:3"} <= set(lines)
