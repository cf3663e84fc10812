# Files of lines on a disk that is full for a while: whole lines before and after, and the lost ones counted.
from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeproxy.observe import lines
from edgeproxy.observe.events import EventWriter
from edgeproxy.observe.metrics import WorkerStats

REAL = lines._write_some


def full_after(count: int) -> Callable[[int, memoryview], int]:
    """A disk with room for so many bytes."""
    left = [count]

    def write(fd: int, view: memoryview) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "full")
        done = REAL(fd, view[: left[0]])
        left[0] -= done
        return done

    return write


LINES = [b'{"a":1}\n{"b":2}\n', b'{"c":3}\n', b'{"d":4}\n{"e":5}\n', b'{"f":6}\n']


@pytest.mark.parametrize(("rooms", "whole", "lost"), [
    ([10, 0, 0, None], "af", 4), ([10, None, None, None], "acdef", 1), ([8, 0, None, None], "adef", 2),
    ([0, None, None, None], "cdef", 2),
    ([10, 1, None, None], "adef", 2), ([10, 5, 0, None], "af", 4), ([10, 9, 0, None], "acf", 3), ([10, 0, 9, None], "adf", 3),
])  # fmt: skip
def test_a_full_disk_leaves_no_line_glued_to_half_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rooms: list[int | None], whole: str, lost: int
) -> None:
    path = tmp_path / "lines"
    writer = EventWriter(str(path), WorkerStats())
    for room, data in zip(rooms, LINES, strict=True):
        monkeypatch.setattr(lines, "_write_some", REAL if room is None else full_after(room))
        try:
            writer._write(data)
        except OSError:
            assert room is not None
    found = []
    for line in path.read_bytes().splitlines():
        try:
            found += list(json.loads(line))
        except ValueError:
            assert b"}{" not in line and not line.endswith(b"}")
    assert "".join(found) == whole
    assert writer._lost == lost and writer._written == sum(map(len, LINES))
    writer.close()
