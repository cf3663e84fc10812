# Blocks and refusals of limits in the pipeline: keys of the edge, what the log line names, and which events there are.
from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from support.pipeline import Stand
from unit import test_admission, test_keying

from edgeproxy.blocking import Blocking
from edgeproxy.observe.events import Events
from edgeproxy.policy.blocks import Block, Blocks


def watched(made: Stand, folder: Path) -> Path:
    made.gateway.events = Events(str(folder / "events.jsonl"), made.stats)
    return folder / "events.jsonl"


def told(made: Stand, file: Path) -> list[dict[str, Any]]:
    assert made.gateway.events is not None
    made.gateway.events.writer.close()
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_key_is_blocked_by_its_id(tmp_path: Path) -> None:
    made = test_keying.stand(tmp_path)
    file = watched(made, tmp_path)
    made.gateway.blocking = Blocking(Blocks([Block("key", test_keying.KEYS["plain"].id, time.monotonic() + 60, 0.0, "leaked")]))
    for _ in range(3):
        assert test_keying.code(test_keying.post(made, "plain")) == (403, "blocked")
    assert test_admission.status(test_keying.post(made, "models")) == 200
    assert test_keying.code(test_keying.post(made, None)) == (401, "missing_api_key")
    assert made.stats.blocked == {"key": 3}
    (event,) = told(made, file)  # once a minute
    key = test_keying.KEYS["plain"].id
    assert (event["event"], event["block"], event["reason"], event["times"]) == ("blocked", f"key {key}", "leaked", 1)
    assert (event["key"], event["name"], event["client"], event["method"]) == (key, "plain", "192.0.2.1", "POST")
    assert event["path"] == "/v1/chat/completions" and test_keying.KEYS["plain"].text not in json.dumps(event)


def test_limits_that_refuse_are_named(tmp_path: Path) -> None:
    limits: list[dict[str, Any]] = [
        {"name": "small", "requests": 1}, {"name": "trial", "requests": 1, "mode": "log"}, {"name": "large", "requests": 9},
    ]  # fmt: skip
    made = test_admission.stand(tmp_path, *limits)
    file = watched(made, tmp_path)
    made.gateway.events.writer.flush()  # type: ignore[union-attr]
    statuses = [test_admission.status(test_admission.ask(made)) for _ in range(4)]
    assert statuses == [200, 429, 429, 429]
    lines = [json.loads(line) for line in made.gateway.log.lines]  # type: ignore[union-attr]
    assert [line.get("limits") for line in lines] == [None, ["small"], ["small"], ["small"]]
    (event,) = told(made, file)
    assert {name: event[name] for name in ("event", "limit", "mode", "by", "times", "client", "status", "route")} == {
        "event": "limit", "limit": "small", "mode": "act", "by": "store", "times": 1, "client": "192.0.2.1", "status": 429,
        "route": "*/",
    }  # fmt: skip


def test_limits_on_trial_are_named_where_they_would_have_refused(tmp_path: Path) -> None:
    made = test_admission.stand(tmp_path, {"name": "trial", "requests": 1, "mode": "log"})
    file = watched(made, tmp_path)
    assert [test_admission.status(test_admission.ask(made)) for _ in range(3)] == [200] * 3
    lines = [json.loads(line) for line in made.gateway.log.lines]  # type: ignore[union-attr]
    assert [(line.get("limits"), line["outcome"]) for line in lines] == [(None, "ok"), (["trial"], "ok"), (["trial"], "ok")]
    (event,) = told(made, file)
    assert (event["limit"], event["mode"], "status" in event) == ("trial", "log", False)
