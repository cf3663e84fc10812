# What a tree of processes costs is read here from /proc; this file starts nothing and decides nothing.
"""CPU seconds, memory and open connections of a process tree, from Linux' /proc (proc(5))."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
ESTABLISHED = "01"  # column "st" of /proc/net/tcp


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that matter: the parent, CPU ticks and resident pages."""

    pid: int
    parent: int
    ticks: int
    pages: int


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds (user + system, reaped children included) and resident bytes of a process tree."""

    cpu: float
    rss: int
    processes: int


def parse_stat(text: str) -> Stat:
    """One line of /proc/PID/stat. The command name may hold blanks and parentheses, so count from the last one."""
    pid = int(text[: text.index(" ")])
    fields = text[text.rindex(")") + 2 :].split()
    # fields[0] is the state (field 3 of proc(5)); utime, stime, cutime and cstime are fields 14-17, rss is 24.
    # A child that ended and was waited for moves its ticks into its parent's cutime/cstime: the sum stays monotonic.
    return Stat(pid, int(fields[1]), sum(int(n) for n in fields[11:15]), int(fields[21]))


def stats() -> dict[int, Stat]:
    """Every process of the machine that could be read."""
    found: dict[int, Stat] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    found[int(name)] = parse_stat(file.read())
            except (OSError, ValueError):  # it ended meanwhile
                continue
    return found


def tree(root: int, table: dict[int, Stat]) -> list[int]:
    """`root` and its descendants, parents first."""
    children: dict[int, list[int]] = {}
    for stat in table.values():
        children.setdefault(stat.parent, []).append(stat.pid)
    pids = [root]
    for pid in pids:
        pids.extend(sorted(children.get(pid, ())))
    return pids


def usage(root: int) -> Usage:
    """What the tree below `root` has used until now. Raises ProcessLookupError when it is gone."""
    table = stats()
    if root not in table:
        raise ProcessLookupError(root)
    rows = [table[pid] for pid in tree(root, table)]
    return Usage(sum(row.ticks for row in rows) / TICKS, sum(row.pages for row in rows) * PAGE, len(rows))


def spent(pid: int) -> float:
    """CPU seconds of one process, without its children: to the microsecond, where the kernel counts so (else in ticks).

    Raises ProcessLookupError when it is gone.
    """
    try:
        threads = [int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        return sum(threads) / 1e9 if threads else parse_stat(Path(f"/proc/{pid}/stat").read_text()).ticks / TICKS
    except (OSError, ValueError, IndexError) as error:
        raise ProcessLookupError(pid) from error


def parse_rollup(text: str) -> int:
    """Bytes of the "Pss" line of /proc/PID/smaps_rollup: like RSS, but a shared page is divided among its users."""
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def pss(root: int) -> int:
    """Proportional set size of the tree in bytes (forked workers share pages that RSS counts once for each)."""
    total = 0
    for pid in tree(root, stats()):
        try:
            total += parse_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())
        except OSError:
            continue
    return total


def parse_tcp(text: str, port: int) -> set[str]:
    """Socket inodes of established connections whose local port is `port`, from /proc/net/tcp or tcp6."""
    inodes = set()
    for line in text.splitlines()[1:]:
        fields = line.split()
        if fields[3] == ESTABLISHED and int(fields[1].rpartition(":")[2], 16) == port:
            inodes.add(fields[9])
    return inodes


def connections(pids: Iterable[int], port: int) -> dict[int, int]:
    """How many of the established connections to the local `port` each process holds; those with none are left out."""
    inodes: set[str] = set()
    for name in ("tcp", "tcp6"):
        try:
            inodes |= parse_tcp(Path(f"/proc/net/{name}").read_text(), port)
        except OSError:
            continue
    counts: dict[int, int] = {}
    for pid in pids:
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for name in names:
            try:
                target = os.readlink(f"/proc/{pid}/fd/{name}")
            except OSError:
                continue
            if target.startswith("socket:[") and target[8:-1] in inodes:
                counts[pid] = counts.get(pid, 0) + 1
    return counts


def parse_snmp(text: str) -> int:
    """Datagrams that did not fit into a socket's buffer, from the two lines "Udp:" of /proc/net/snmp."""
    names, values = (line.split()[1:] for line in text.splitlines() if line.startswith("Udp:"))
    counts = dict(zip(names, map(int, values), strict=True))
    return counts["RcvbufErrors"] + counts["SndbufErrors"]


def udp_drops() -> int:
    """Dropped for want of buffer until now, by all sockets of this network namespace."""
    return parse_snmp(Path("/proc/net/snmp").read_text())


def core_list(text: str) -> set[int]:
    """Cores of a taskset list such as "0,2-3"."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def parse_busy(text: str, cores: set[int]) -> float:
    """Seconds in which the cores did anything for anyone (idle and iowait left out), from /proc/stat."""
    ticks = 0
    for line in text.splitlines():
        name, *numbers = line.split() or [""]
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            counts = [int(number) for number in numbers[:8]]  # what follows, guest time, is in user time already
            ticks += sum(counts) - counts[3] - counts[4]
    return ticks / TICKS


def busy(cores: set[int]) -> float:
    return parse_busy(Path("/proc/stat").read_text(), cores)


def machine() -> dict[str, str | int]:
    """Kernel, CPU model, cores and memory: what a reader needs to judge figures, and no name of the host."""
    model = "unknown"
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    memory = os.sysconf("SC_PHYS_PAGES") * PAGE
    kernel = ".".join(platform.release().split("-")[0].split(".")[:3])
    return {
        "cpu": model,
        "cores": os.cpu_count() or 1,
        "memory_gib": round(memory / 2**30),
        "kernel": f"{platform.system()} {kernel}",
    }
