# What HTTP/3 needs of supervisor and workers: UDP sockets that outlive workers, and mailboxes between them (processes.py).
from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from processes import Edge, is_alive, stopped_edge, until


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    with stopped_edge(tmp_path) as edge:
        yield edge


class Who(NamedTuple):
    slot: int
    generation: int
    pid: int
    secret: str


class Client:
    """A client that stays where it is: the kernel gives all its datagrams to one worker's socket."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(15)
        self.socket.connect(("127.0.0.1", port))

    def send(self, text: str) -> None:
        self.socket.send(text.encode())

    def receive(self) -> str:
        return self.socket.recv(200).decode()

    def ask(self, text: str) -> str:
        self.send(text)
        return self.receive()

    def who(self) -> Who:
        slot, generation, pid, secret = self.ask("who").split()
        return Who(int(slot), int(generation), int(pid), secret)


@pytest.fixture
def clients(edge: Edge) -> Iterator[list[Client]]:
    """A client of each of the two workers, by slot."""
    edge.start()
    found: dict[int, Client] = {}
    others: list[Client] = []

    def both() -> bool:
        client = Client(edge.port("https"))
        others.append(client)
        found.setdefault(client.who().slot, client)
        return len(found) == 2

    until(both, "an answer of each worker")
    yield [found[0], found[1]]
    for client in others:
        client.socket.close()


def test_each_worker_has_a_seat_of_its_own(edge: Edge, clients: list[Client]) -> None:
    pids = edge.pids()
    first, second = (client.who() for client in clients)
    assert (first[:3], second[:3]) == ((0, 0, pids["worker-0"]), (1, 0, pids["worker-1"]))
    assert first.secret == second.secret
    assert [client.who() for client in clients] == [first, second]  # nobody moves
    assert f"h3 on 127.0.0.1:{edge.port('https')}/udp" in edge.wait_for("edgeproxy: serving")


def test_what_is_sent_to_a_dead_worker_reaches_its_replacement(edge: Edge, clients: list[Client]) -> None:
    dead, other = clients[0].who(), clients[1].who()
    for count in (1, 2):
        os.kill(clients[0].who().pid, signal.SIGKILL)
        edge.wait_for(r"worker-0 .*SIGKILL", count)
        # Its socket is still there, with a queue: the kernel moves nobody's packets.
        new = clients[0].who()
        assert (new.slot, new.generation, new.secret) == (0, count, dead.secret)
        assert new.pid != dead.pid
        assert clients[1].who() == other


def test_workers_pass_datagrams_on(edge: Edge, clients: list[Client]) -> None:
    for sender, receiver in ((0, 1), (1, 0)):
        clients[sender].ask(f"pass {receiver} from-{sender}")
        until(lambda sender=sender, receiver=receiver: clients[receiver].ask("mail") == f"from-{sender}", "the mail")
    os.kill(clients[0].who().pid, signal.SIGKILL)
    edge.wait_for(r"worker-0 .*SIGKILL")
    clients[1].ask("pass 0 while-dead")
    until(lambda: clients[0].ask("mail") == "while-dead", "the mail of the dead")


def test_each_child_holds_its_own_udp_socket_only(edge: Edge) -> None:
    pids = edge.start().pids()

    def bound(pid: int) -> set[str]:
        rows = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
        wanted = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(f":{edge.port('https'):04X}")}
        return wanted & {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}

    assert len(bound(pids["supervisor"])) == 2
    first, second = bound(pids["worker-0"]), bound(pids["worker-1"])
    assert (len(first), len(second), len(first | second)) == (1, 1, 2)
    assert not bound(pids["control"])


def test_a_drain_closes_them(edge: Edge, clients: list[Client]) -> None:
    pids = edge.pids()
    edge.signal(signal.SIGTERM)
    assert edge.wait() == 0
    assert not [pid for pid in pids.values() if is_alive(pid)]
    with pytest.raises(ConnectionRefusedError):
        clients[0].who()


def test_without_h3_there_is_no_udp(edge: Edge) -> None:
    edge.write(listen={**edge.base["listen"], "protocols": ["h1", "h2"]})
    edge.start()
    client = Client(edge.port("https"))
    with client.socket, pytest.raises(ConnectionRefusedError):
        client.who()
    assert "h3" not in edge.wait_for("edgeproxy: serving")
    # And a reload cannot bring it: binding may need rights that are gone.
    edge.write()
    edge.signal(signal.SIGHUP)
    assert edge.wait_for("reload: generation 2").endswith("a restart is needed for: listen.protocols (h3)")
