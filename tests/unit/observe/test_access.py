from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeproxy.bots.heuristics import HEURISTICS
from edgeproxy.bots.score import Score
from edgeproxy.observe import access
from edgeproxy.observe import lines as line_writer
from edgeproxy.observe.access import AccessLogWriter, line, score_piece, static_part, with_score
from edgeproxy.observe.metrics import WorkerStats


def entry(path: bytes = b"/v1/chat", agent: bytes = b"curl/8") -> bytes:
    static = static_part(
        client="10.0.0.1", protocol="h2", method=b"POST", host=b"localhost", path=path, route="*/v1/", agent=agent
    )
    return line(1700000000.5, b"0af3", 200, 10, 20, 0.0015, None, b'"chat"', "ok", static)


def until(probe: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not probe():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def stats() -> WorkerStats:
    return WorkerStats()


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_entries_come_out_as_json_lines_in_order(tmp_path: Path, stats: WorkerStats) -> None:
    path = tmp_path / "access.jsonl"
    writer = AccessLogWriter(str(path), stats)
    kept = writer.lines
    for number in range(1000):
        writer.lines.append(entry(b"/%d" % number))
    writer.flush()
    assert writer.lines is kept and not kept  # the data plane may hold on to the list
    writer.close()
    assert [found["path"] for found in lines(path)] == [f"/{n}" for n in range(1000)]
    assert stats.log_dropped == 0
    assert path.stat().st_mode & 0o777 == 0o640


def test_all_fields_of_the_contract_are_there(tmp_path: Path, stats: WorkerStats) -> None:
    path = tmp_path / "access.jsonl"
    writer = AccessLogWriter(str(path), stats)
    writer.lines.append(entry(agent=b'evil"\n{"x": 1}\xe9\\'))
    writer.close()
    (found,) = lines(path)
    assert found == {
        "time": 1700000000.5, "ray": "0af3", "client": "10.0.0.1", "protocol": "h2", "method": "POST",
        "host": "localhost", "path": "/v1/chat", "status": 200, "bytes_in": 10, "bytes_out": 20, "duration_ms": 1.5,
        "first_byte_ms": None, "route": "*/v1/", "upstream": "chat", "outcome": "ok",
        "user_agent": 'evil"\n{"x": 1}\u00e9\\',
    }  # fmt: skip


def test_documented_fields_are_those_of_a_line() -> None:
    docs = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    table = docs.partition("## Access log")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)
    static = json.loads(entry())
    piece = score_piece(1, "Heuristics", (1003,), ("declared_library",), "Goodbot", True, "t13d")
    scored = json.loads(with_score(entry(), piece))
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert named[-7:] == list(scored)[-7:], "those of scores are last"
    assert set(named) == scored.keys() > static.keys()


def test_what_a_line_says_of_a_score() -> None:
    least = json.loads(with_score(entry(), score_piece(0, "Not Computed", (), (), "", False, "")))
    assert least.keys() - json.loads(entry()).keys() == {"bot_score", "bot_source"}
    worst = Score(1, "Behavioral Analysis", HEURISTICS)
    worst.moved = -3.0
    piece = score_piece(99, worst.source, tuple(worst.ids), worst.names, "x" * 5000, True, "t" * 36)
    assert len(piece) < 600, "whoever is refused fills a disk with these"
    assert json.loads(with_score(entry(), piece))["verified_bot"] == "x" * 64


def test_query_strings_never_get_in_and_texts_are_bounded(tmp_path: Path, stats: WorkerStats) -> None:
    path = tmp_path / "access.jsonl"
    writer = AccessLogWriter(str(path), stats)
    writer.lines.append(entry(b"/v1/models?api_key=secret"))
    writer.lines.append(entry(b"/" + b"a" * 100_000, agent=b"b" * 100_000))
    writer.close()
    first, second = lines(path)
    assert first["path"] == "/v1/models"
    assert len(str(second["path"])) == access.MAX_TEXT
    assert len(str(second["user_agent"])) == access.MAX_AGENT


def test_overflow_drops_whole_batches_and_counts_lines(
    tmp_path: Path, stats: WorkerStats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A FIFO that nobody reads: the thread stays in its write, the queue fills, and the loop is never held up."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    monkeypatch.setattr(line_writer, "PENDING_BYTES", 300_000)
    writer = AccessLogWriter(str(fifo), stats)
    began = time.monotonic()
    written = 0
    while not stats.log_dropped:
        for _ in range(access.BATCH):
            writer.lines.append(entry())
        written += access.BATCH
        writer.flush()
        assert written < 100_000
    assert time.monotonic() - began < 5
    assert stats.log_dropped == access.BATCH

    # When somebody reads again all that was not dropped comes through, each line whole.
    os.set_blocking(reader, True)
    received = bytearray()

    def read() -> None:
        while data := os.read(reader, 65536):
            received.extend(data)

    thread = threading.Thread(target=read)
    thread.start()
    writer.close()
    thread.join(10)
    os.close(reader)
    assert [json.loads(text)["path"] for text in received.splitlines()] == ["/v1/chat"] * (written - access.BATCH)


def test_pipe_writes_end_at_line_ends_within_pipe_buf() -> None:
    data = b"".join(b"x" * n + b"\n" for n in (1000, 3000, 94, 4096, 5000, 1))
    cuts = []
    start = 0
    while start < len(data):
        end = line_writer._cut(data, start)
        assert data[end - 1] == 10
        cuts.append(end - start)
        start = end
    # 1001 + 3001 + 94 + 1 would be one byte more than fits; lines longer than PIPE_BUF go alone.
    assert cuts == [1001 + 3001, 95, 4097, 5001, 2]


def test_reopen_follows_a_rotation_and_loses_nothing(tmp_path: Path, stats: WorkerStats) -> None:
    path = tmp_path / "access.jsonl"
    writer = AccessLogWriter(str(path), stats)
    writer.lines.append(entry(b"/before"))
    writer.flush()
    until(lambda: path.read_text() != "")
    path.rename(tmp_path / "rotated")
    writer.lines.append(entry(b"/still old"))
    writer.reopen()
    writer.lines.append(entry(b"/new"))
    writer.close()
    assert [found["path"] for found in lines(tmp_path / "rotated")] == ["/before", "/still old"]
    assert [found["path"] for found in lines(path)] == ["/new"]


def test_a_file_that_cannot_be_opened_is_an_error_at_the_start_only(
    tmp_path: Path, stats: WorkerStats, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FileNotFoundError):
        AccessLogWriter(str(tmp_path / "no" / "access.jsonl"), stats)
    path = tmp_path / "access.jsonl"
    writer = AccessLogWriter(str(path), stats)
    writer.reopen(str(tmp_path / "no" / "access.jsonl"))
    writer.lines.append(entry())
    writer.close()
    assert len(lines(path)) == 1  # the old file goes on
    assert "no/access.jsonl" in capfd.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_counted_and_told_once(stats: WorkerStats, capfd: pytest.CaptureFixture[str]) -> None:
    writer = AccessLogWriter("/dev/full", stats)
    for _ in range(3):
        writer.lines += [entry(), entry()]
        writer.flush()
    writer.close()
    assert stats.log_dropped == 6
    assert capfd.readouterr().err.count("No space left") == 1


def test_a_half_written_line_is_ended_before_the_next(
    tmp_path: Path, stats: WorkerStats, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "access.jsonl"
    writer = AccessLogWriter(str(path), stats)
    real, calls = os.write, []

    def failing(fd: int, view: memoryview) -> int:
        calls.append(len(view))
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return real(fd, view[:40] if len(calls) == 1 else view)

    monkeypatch.setattr(line_writer.os, "write", failing)
    writer.lines.append(entry(b"/lost"))
    writer.flush()
    until(lambda: len(calls) == 2)
    writer.lines.append(entry(b"/kept"))
    writer.close()
    half, whole = path.read_text().splitlines()
    assert len(half) == 40 and json.loads(whole)["path"] == "/kept"
    assert stats.log_dropped == 1


def test_standard_output(stats: WorkerStats, capfd: pytest.CaptureFixture[str]) -> None:
    writer = AccessLogWriter("-", stats)
    writer.lines.append(entry())
    writer.close()
    writer = AccessLogWriter("-", stats)  # close() must have left it open
    writer.lines.append(entry())
    writer.reopen()
    writer.close()
    assert len(capfd.readouterr().out.splitlines()) == 2
