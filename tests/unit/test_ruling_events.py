# Hits on their way from the pipeline to the events: each rule that acts or logs, as it saw the request, and nothing without.
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.explaining import Real, config_with

from edgeproxy.observe.events import Events


class Told(Real):
    """A gateway that tells of hits."""

    def __init__(self, path: Path, *rules: dict[str, Any]) -> None:
        super().__init__(config_with(*rules))
        self.path = path / "events.jsonl"
        self.events = self.stand.gateway.events = Events(str(self.path), self.stand.stats)

    def told(self) -> list[dict[str, Any]]:
        self.events.writer.close()
        return [json.loads(line) for line in self.path.read_text().splitlines()]


GET = b"GET /old/a?key=hush HTTP/1.1\r\nHost: x.example\r\nUser-Agent: sqlmap\r\nCookie: sid=hush\r\n\r\n"
STABLE = 'http.user_agent contains "sqlmap"'
VOLATILE = "http.request.timestamp.sec gt 0"


@pytest.mark.parametrize("kind", [STABLE, VOLATILE])
def test_each_hit_as_its_rule_saw_the_request(tmp_path: Path, kind: str) -> None:
    real = Told(
        tmp_path, {"id": "try", "expression": f"{kind} and http.cookie contains \"hush\"", "action": "block", "mode": "log"},
        {"id": "no", "expression": 'http.host eq "other"'},
        {"id": "path", "expression": 'http.request.uri.path eq "/old/a"', "action": "rewrite", "path": "/v1/b"},
        {"id": "after", "expression": 'http.request.uri.path eq "/v1/b" and raw.http.request.uri.path eq "/old/a"'},
        {"id": "end", "expression": "ssl", "action": "block", "status": 451},
        {"id": "late", "expression": "true"},
        {"id": "reply", "phase": "response", "expression": "http.response.code eq 451"},
    )  # fmt: skip
    served = real.served(GET)
    events = real.told()
    assert served.status == 451 and "hush" not in str(events)
    assert [(each["rule"], each["action"], each["mode"], each["path"], each.get("status")) for each in events] == [
        ("try", "log", "log", "/old/a", None), ("path", "rewrite", "act", "/old/a", None), ("after", "log", "act", "/v1/b", None),
        ("end", "block", "act", "/v1/b", 451), ("reply", "log", "act", "/v1/b", None),
    ]  # fmt: skip
    assert events[0]["fields"]["http.cookie"] == {"length": 8}
    assert events[2]["fields"] == {"http.request.uri.path": "/v1/b", "raw.http.request.uri.path": "/old/a"}
    assert events[4]["fields"] == {"http.response.code": 451}
    line = json.loads(real.stand.gateway.log.lines[0])  # type: ignore[union-attr]
    assert {each["ray"] for each in events} == {line["ray"]} and line["rules"] == served.hits
    assert {each["client"] for each in events} == {"192.0.2.1"}


def test_a_body_that_was_read_is_a_length(tmp_path: Path) -> None:
    real = Told(tmp_path, {"id": "a", "expression": 'http.request.body.raw contains "hush"', "action": "block"})
    real.served(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nhush!!")
    (event,) = real.told()
    assert event["fields"] == {"http.request.body.raw": {"length": 6}} and event["status"] == 403


def test_nothing_is_told_without_hits(tmp_path: Path) -> None:
    real = Told(tmp_path, {"id": "a", "expression": 'http.host eq "other"'})
    real.served(GET)
    assert real.told() == []


def test_the_same_head_again_is_told_again(tmp_path: Path) -> None:
    real = Told(tmp_path, {"id": "a", "expression": STABLE})
    driver = real.stand.h1()
    driver.feed(GET).feed(GET)
    first, second = real.told()
    assert first["ray"] != second["ray"]


@pytest.mark.parametrize("kind", [STABLE, VOLATILE])
def test_what_each_of_several_rewrites_saw(tmp_path: Path, kind: str) -> None:
    seen = 'http.request.headers["x-a"][0]'
    real = Told(
        tmp_path, {"id": "log", "expression": f'not {seen} eq "1"'},
        {"id": "one", "expression": f'{kind} and not {seen} eq "1"', "action": "rewrite", "headers": {"set": {"x-a": "1"}}},
        {"id": "two", "expression": f'{seen} eq "1"', "action": "rewrite", "path": "/b", "headers": {"set": {"x-a": "2"}}},
        {"id": "three", "expression": f'{seen} eq "2"', "action": "rewrite", "headers": {"remove": ["x-a"]}},
        {"id": "end", "expression": f'not {seen} eq "2"'},
    )  # fmt: skip
    real.served(GET)
    told = [(each["rule"], each["path"], each["fields"][seen]) for each in real.told()]
    assert told == [
        ("log", "/old/a", None), ("one", "/old/a", None), ("two", "/old/a", "1"), ("three", "/b", "2"), ("end", "/b", None),
    ]  # fmt: skip


def test_what_each_rule_saw_of_the_reply(tmp_path: Path) -> None:
    seen = 'http.response.headers["x-a"][0]'
    real = Told(
        tmp_path, {"id": "no", "expression": "ssl", "action": "block"},
        *({"phase": "response", "action": "rewrite", **rule} for rule in (
            {"id": "one", "expression": f'not {seen} eq "1"', "headers": {"set": {"x-a": "1"}}},
            {"id": "two", "expression": f'{seen} eq "1"', "headers": {"set": {"x-a": "2"}}},
            {"id": "three", "expression": f'{seen} eq "2"', "headers": {"remove": ["x-a"]}},
        )),
    )  # fmt: skip
    real.served(GET)
    assert [(each["rule"], each["fields"].get(seen)) for each in real.told()] == [
        ("no", None), ("one", None), ("two", "1"), ("three", "2")]  # fmt: skip


@pytest.mark.parametrize("kind", [STABLE, VOLATILE])
def test_a_body_that_is_refused_leaves_earlier_hits_counted_and_told(tmp_path: Path, kind: str) -> None:
    real = Told(
        tmp_path, {"id": "tag", "expression": kind, "action": "set", "tags": ("t",)},
        {"id": "move", "expression": 'http.request.uri.path eq "/old/a"', "action": "rewrite", "path": "/v1/b"},
        {"id": "body", "expression": 'http.request.body.raw contains "x"', "action": "block"},
        {"id": "reply", "phase": "response", "expression": "http.response.code eq 413"},
    )  # fmt: skip
    served = real.served(GET.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 101\r\n\r\n" + b"x" * 101))
    assert (served.status, served.hits) == (413, ["tag", "move", "reply"])
    assert b'"type"' in served.reply, "in the dialect of the route that it would have gone to"
    assert [(each["rule"], each["path"]) for each in real.told()] == [("tag", "/old/a"), ("move", "/old/a"), ("reply", "/v1/b")]
    line = json.loads(real.stand.gateway.log.lines[0])  # type: ignore[union-attr]
    assert (line["tags"], line["route"]) == (["t"], "*/v1/")
    assert real.stand.stats.rule_hits == {("tag", "set"): 1, ("move", "rewrite"): 1, ("reply", "log"): 1}
