# /proc as text in, figures out: no process is started here but this one.
from __future__ import annotations

import os
import socket
import time

import pytest

from bench import proc

STAT = (
    "4711 (nginx: worker (1) ) S 17 4711 4711 0 -1 4194624 512 33 0 0 250 125 7 3 20 0 1 0 12345 56000000 6200 "
    "18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0"
)


def test_stat_counts_from_the_last_parenthesis() -> None:
    stat = proc.parse_stat(STAT)
    assert stat == proc.Stat(4711, 17, 250 + 125 + 7 + 3, 6200)


def test_tree_has_descendants_and_no_strangers() -> None:
    table = {pid: proc.Stat(pid, parent, 0, 0) for pid, parent in ((1, 0), (10, 1), (11, 10), (12, 11), (20, 1))}
    assert proc.tree(10, table) == [10, 11, 12]
    assert sorted(proc.tree(1, table)) == [1, 10, 11, 12, 20]


def test_usage_of_this_process_grows() -> None:
    before = proc.usage(os.getpid())
    while proc.usage(os.getpid()).cpu <= before.cpu:  # a tick is 10 ms of work
        sum(range(10_000))
    assert before.rss > 1_000_000
    assert before.processes >= 1


def test_rollup() -> None:
    assert proc.parse_rollup("55d0-7ffc ---p 00000000 00:00 0 [rollup]\nRss:    9000 kB\nPss:     4321 kB\n") == 4321 * 1024
    assert proc.parse_rollup("") == 0


TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 100 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 101 1 0 20 4 30 10 -1
   2: 0100007F:C000 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 102 1 0 20 4 30 10 -1
   3: 0100007F:1F90 0100007F:C001 06 00000000:00000000 00:00000000 00000000     0        0 0 3 0
"""


def test_tcp_takes_established_connections_of_the_local_port() -> None:
    assert proc.parse_tcp(TCP, 8080) == {"101"}
    assert proc.parse_tcp(TCP, 0xC000) == {"102"}
    assert proc.parse_tcp(TCP, 9) == set()


def test_connections_are_counted_per_process() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), listener.accept()[0]:
            assert proc.connections([os.getpid()], port) == {os.getpid(): 1}
        assert proc.connections([os.getpid()], port) == {}


CPUS = """\
cpu  300 0 200 1000 50 0 10 5 0 0
cpu0 100 0 100 500 25 0 5 5 0 0
cpu1 200 0 100 500 25 0 5 0 77 0
intr 1
"""


def test_busy_leaves_idle_time_and_guests_out() -> None:
    assert proc.parse_busy(CPUS, {0}) == 210 / proc.TICKS
    assert proc.parse_busy(CPUS, {0, 1}) == (210 + 305) / proc.TICKS


def test_core_list() -> None:
    assert proc.core_list("0") == {0}
    assert proc.core_list("0,2-4") == {0, 2, 3, 4}


def test_machine_names_no_host() -> None:
    machine = proc.machine()
    assert set(machine) == {"cpu", "cores", "memory_gib", "kernel"}
    assert os.uname().nodename not in str(machine["cpu"])


def test_what_one_process_has_spent() -> None:
    before, busy = proc.spent(os.getpid()), time.process_time()
    while time.process_time() < busy + 0.05:
        sum(range(10_000))
    # The kernel may count a running thread's last slice later: some ms.
    assert 0.02 < proc.spent(os.getpid()) - before < 10
    with pytest.raises(ProcessLookupError):
        proc.spent(2**22 + 1)  # above the largest there can be
