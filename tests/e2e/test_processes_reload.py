# Supervisor and workers as real processes, told to reload or to drain (processes.py).
from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import Edge, stopped_edge, until


@pytest.fixture
def edge(tmp_path: Path) -> Iterator[Edge]:
    with stopped_edge(tmp_path) as edge:
        yield edge


# Reload


def test_reload_applies_and_names_what_needs_a_restart(edge: Edge) -> None:
    edge.start()
    client = edge.client()
    assert client.ask("GET /mark") == "16384"
    edge.write(client={"max_url": "4KiB"}, workers=3, listen={**edge.base["listen"], "https": "127.0.0.1:1"})
    edge.signal(signal.SIGHUP)
    assert "restart is needed for: listen.https, workers" in edge.wait_for("generation 2 is in use")
    assert client.ask("GET /mark") == "4096"  # the same connection
    until(lambda: edge.ready()[1]["generation"] == 2, "told to control")
    status, detail = edge.ready()
    assert status == 200
    assert detail["last_reload"]["result"] == "ok"
    assert detail["last_reload"]["needs_restart"] == ["listen.https", "workers"]
    assert [w["generation"] for w in detail["workers"]] == [2, 2]
    metrics = edge.metrics()
    assert metrics["edgeproxy_config_generation",] == 2
    assert metrics["edgeproxy_reloads_total", "ok"] == 1

    # A worker that starts later has the newest configuration.
    os.kill(detail["workers"][0]["pid"], signal.SIGKILL)
    edge.wait_for("worker-0 is back")
    assert {edge.ask("GET /mark") for _ in range(20)} == {"4096"}
    client.close()


@pytest.mark.parametrize(
    ("upstreams", "reason"),
    [
        ({}, "upstreams"),  # the file itself
        ({"refused": {"targets": [{"url": "http://127.0.0.1:9000"}]}}, "refused by this data plane"),
        ({"exit": {"targets": [{"url": "http://127.0.0.1:9000"}]}}, "ended while preparing"),
    ],
)
def test_a_bad_reload_changes_nothing_and_says_why(edge: Edge, upstreams: dict[str, Any], reason: str) -> None:
    edge.start()
    name = next(iter(upstreams), "web")
    edge.write(client={"max_url": "4KiB"}, upstreams=upstreams, routes=[{"upstream": name}])
    edge.signal(signal.SIGHUP)
    edge.wait_for("reload failed, generation 1 stays in use")
    until(lambda: edge.ready()[1]["last_reload"], "told to control")
    last = edge.ready()[1]["last_reload"]
    assert last["result"] == "failed" and reason in last["reason"]
    until(lambda: edge.ready()[0] == 200, "ready as before")
    assert {edge.ask("GET /mark") for _ in range(20)} == {"16384"}
    assert edge.metrics()["edgeproxy_reloads_total", "failed"] == 1

    edge.write(client={"max_url": "8KiB"})
    edge.signal(signal.SIGHUP)
    edge.wait_for(" is in use")  # 2, or 3 where workers had seen the refused one: no number is used twice
    assert edge.ask("GET /mark") == "8192"


def test_signals_during_a_reload_lead_to_one_more(edge: Edge) -> None:
    edge.start()
    for size in (4, 5, 6):
        edge.write(client={"max_url": f"{size}KiB"})
        edge.signal(signal.SIGHUP)
    until(lambda: {edge.ask("GET /mark") for _ in range(8)} == {"6144"}, "the last file is in use")
    assert edge.ready()[0] == 200


def test_reload_reopens_the_access_log(edge: Edge) -> None:
    log, old = edge.directory / "access.jsonl", edge.directory / "access.jsonl.1"
    edge.write(access_log={"file": str(log)})
    edge.start()
    edge.ask("GET /pid")
    until(lambda: log.read_text().count("\n") == 1, "a line")
    log.rename(old)
    edge.signal(signal.SIGHUP)
    edge.wait_for("generation 2 is in use")
    edge.ask("GET /pid")
    until(lambda: log.exists() and log.read_text().count("\n") == 1, "a line in the new file")
    assert old.read_text().count("\n") == 1
    other = edge.directory / "other.jsonl"
    edge.write(access_log={"file": str(other)})
    edge.signal(signal.SIGHUP)
    edge.wait_for("generation 3 is in use")
    edge.ask("GET /pid")
    until(lambda: other.exists() and other.read_text().count("\n") == 1, "a line in the other file")
    entry = json.loads(other.read_text())
    assert entry["client"] == "127.0.0.1" and entry["status"] == 200


# Drain


def test_sigterm_waits_for_a_stream_and_fails_readiness(edge: Edge) -> None:
    edge.start()
    busy, idle = edge.client(), edge.client()
    busy.send("GET /hold")
    assert idle.ask("GET /other") == "ok"
    edge.metrics()
    edge.signal(signal.SIGTERM)
    edge.wait_for("draining")
    until(lambda: edge.ready()[0] == 503, "readiness fails")
    assert edge.ready()[1]["draining"] is True
    assert idle.socket.recv(1) == b""  # idle connections are closed

    def is_refused() -> bool:
        try:
            edge.client().close()
        except ConnectionRefusedError:
            return True
        return False

    until(is_refused, "new connections are refused")
    assert edge.admin("/healthz")[0] == 200
    assert edge.metrics()["edgeproxy_ready",] == 0
    assert busy.ask("GET /other") == "ok"  # the stream goes on, and ends whole
    assert edge.wait() == 0
    busy.close()
    idle.close()


def test_what_is_left_after_the_drain_time_is_reset(edge: Edge) -> None:
    edge.write(drain="300ms")
    edge.start()
    client = edge.client()
    client.send("GET /hold")
    until(lambda: edge.metrics()["edgeproxy_connections_open", "h1"] == 1, "the connection is there")
    edge.signal(signal.SIGTERM)
    with pytest.raises(ConnectionResetError):
        client.receive()
    assert edge.wait() == 0
    client.close()


def test_a_second_signal_stops_at_once(edge: Edge) -> None:
    edge.write(drain="1h")
    edge.start()
    client = edge.client()
    client.send("GET /hold")
    until(lambda: edge.metrics()["edgeproxy_connections_open", "h1"] == 1, "the connection is there")
    edge.signal(signal.SIGINT)
    edge.wait_for("draining")
    edge.signal(signal.SIGTERM)
    with pytest.raises(ConnectionResetError):
        client.receive()
    assert edge.wait() == 0
    client.close()
