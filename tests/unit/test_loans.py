from __future__ import annotations

import socket
from collections.abc import Iterator

import msgspec
import pytest

from edgeproxy.children import Child
from edgeproxy.ipc import GiveBack, Lend, ToSupervisor, ToWorker, pair
from edgeproxy.loans import Loans
from edgeproxy.sockets import Slot


class Recorder(Child):
    def __init__(self, slot: int) -> None:
        ours, self.theirs = pair(ToSupervisor, ToWorker)
        super().__init__(f"worker-{slot}", slot, state="ready", channel=ours)
        self.sent: list[msgspec.Struct] = []

    def send(self, head: msgspec.Struct, blob: bytes = b"", fds: tuple[int, ...] = ()) -> bool:
        self.sent.append(head)
        assert isinstance(head, GiveBack) or len(fds) == 1
        return True


@pytest.fixture
def workers() -> Iterator[list[Recorder]]:
    made = [Recorder(slot) for slot in range(3)]
    yield made
    for worker in made:
        worker.theirs.close()
        if worker.channel is not None:
            worker.channel.close()


@pytest.fixture
def loans(workers: list[Recorder]) -> Iterator[Loans]:
    slots = [Slot(https=[socket.create_server(("127.0.0.1", 0))]) for _ in workers]
    yield Loans(workers, slots)
    for slot in slots:
        slot.https[0].close()


def end(worker: Recorder) -> None:
    worker.state = "back-off"


def test_a_slot_is_lent_and_given_back(workers: list[Recorder], loans: Loans) -> None:
    end(workers[0])
    loans.on_gone(workers[0])
    assert workers[0].lent_to == 1 and workers[1].sent == [Lend(0, 1)]
    workers[0].state = "ready"
    loans.on_ready(workers[0])
    assert workers[0].lent_to is None and workers[1].sent == [Lend(0, 1), GiveBack(0)]


def test_loans_are_spread(workers: list[Recorder], loans: Loans) -> None:
    end(workers[0])
    loans.on_gone(workers[0])
    end(workers[2])
    loans.on_gone(workers[2])
    assert (workers[0].lent_to, workers[2].lent_to) == (1, 1)  # nobody else is left
    workers[0].state = "ready"
    loans.on_ready(workers[0])
    end(workers[1])
    loans.on_gone(workers[1])  # with it goes what it had borrowed
    assert (workers[1].lent_to, workers[2].lent_to) == (0, 0)
    assert sorted(workers[0].sent, key=str) == [Lend(1, 1), Lend(2, 1)]


def test_with_nobody_left_the_first_to_come_back_takes_all(workers: list[Recorder], loans: Loans) -> None:
    for worker in workers:
        end(worker)
    for worker in workers:
        loans.on_gone(worker)
    assert {worker.lent_to for worker in workers} == {None}
    workers[1].state = "ready"
    loans.on_ready(workers[1])
    assert (workers[0].lent_to, workers[2].lent_to) == (1, 1)
    assert workers[1].sent == [Lend(0, 1), Lend(2, 1)]


def test_unix_sockets_are_not_lent(workers: list[Recorder], loans: Loans) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        shared = Loans(workers, [Slot(https=[sock]) for _ in workers])
        end(workers[0])
        shared.on_gone(workers[0])
    assert workers[0].lent_to is None and workers[1].sent == []
