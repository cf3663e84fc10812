# Events: what a line says, and what it never says.
from __future__ import annotations

import gc
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from support.rules import facts

from edgeproxy.observe import events
from edgeproxy.observe.events import Events
from edgeproxy.observe.metrics import WorkerStats
from edgeproxy.rules.model import LoadedList, RuleBook, RuleModel
from edgeproxy.rules.ruleset import Ruleset

HEADERS = [
    (b"user-agent", b"sqlmap" + b"\xe9" * 400), (b"authorization", b"Bearer sk-verysecret"), (b"cookie", b"sid=verysecret"),
    (b"x-a", b"1"), (b"x-a", b"2"),
]  # fmt: skip


class Hits:
    """Gives hits of rules to `Events`, and reads the lines."""

    def __init__(self, folder: Path, *rules: dict[str, Any]) -> None:
        self.path = folder / "events.jsonl"
        self.stats = WorkerStats()
        self.events = Events(str(self.path), self.stats)
        self.use(*rules)

    def use(self, *rules: dict[str, Any]) -> None:
        nets = LoadedList(name="nets", kind="ip", items=("203.0.113.0/24",))
        models = tuple(RuleModel.model_validate({"id": f"r{n}", "action": "log", **rule}) for n, rule in enumerate(rules))
        self.rules = [rule for rule in Ruleset(RuleBook(rules=models, lists=(nets,))).rules if rule.check(facts(headers=HEADERS))]

    def lines(self) -> list[dict[str, Any]]:
        plan = SimpleNamespace(client="203.0.113.7", route=SimpleNamespace(name="*/v1/"))
        exchange = cast("Any", SimpleNamespace(plan=plan, ray=b"5f0c7f6f7f3a1b2c"))
        given = facts(b"/v1/models?key=verysecret", headers=HEADERS, method=b"POST")
        for rule in self.rules:
            self.events.rule(exchange, rule, given)
        self.events.writer.close()
        return [json.loads(line) for line in self.path.read_text().splitlines()]


def test_a_line_says_who_did_what(tmp_path: Path) -> None:
    hits = Hits(tmp_path, {"expression": 'ip.src in $nets and http.request.headers["x-a"][1] eq "2"', "action": "block"})
    (line,) = hits.lines()
    assert line.pop("time") > 1_700_000_000
    assert line == {
        "event": "rule", "rule": "r0", "action": "block", "mode": "act", "ray": "5f0c7f6f7f3a1b2c", "client": "203.0.113.7",
        "protocol": "h2", "method": "POST", "host": "example.org", "path": "/v1/models", "route": "*/v1/", "status": 403,
        "fields": {"ip.src": "203.0.113.7", 'http.request.headers["x-a"][1]': "2"},
    }  # fmt: skip


def test_statuses_and_modes(tmp_path: Path) -> None:
    lines = Hits(
        tmp_path, {"expression": "ssl", "action": "block", "mode": "log"}, {"expression": "ssl"},
        {"expression": "ssl", "action": "redirect", "location": "/x"}, {"expression": "ssl", "action": "challenge"},
        {"expression": "ssl", "action": "block", "status": 451}, {"expression": "ssl", "action": "allow"},
    ).lines()  # fmt: skip
    assert [(line["action"], line["mode"], line.get("status")) for line in lines] == [
        ("log", "log", None), ("log", "act", None), ("redirect", "act", 302), ("challenge", "act", None), ("block", "act", 451),
        ("allow", "act", None),
    ]  # fmt: skip
    assert lines[0]["fields"] == {"ssl": True}


def test_secrets_are_lengths(tmp_path: Path) -> None:
    secret = (
        'http.cookie contains "very"', 'http.request.headers["authorization"][0] contains "sk-"',
        'http.request.uri contains "very"', 'any(http.request.headers.values[*] contains "very")',
        'any(http.request.cookies["sid"][*] contains "very")', 'any(http.request.headers[*][*] contains "very")',
    )  # fmt: skip
    hits = Hits(tmp_path, *({"expression": f"ssl and {text}"} for text in secret))
    # These rules were asked about another target than the one that is told, so only what headers say can hit.
    assert len(hits.rules) == 5
    lines = hits.lines()
    assert "very" not in hits.path.read_text()
    lengths = [value["length"] for line in lines for name, value in line["fields"].items() if name != "ssl"]
    assert lengths == [14, 20, 6, 1, 6], "of headers and their values, Host among them"


def test_values_and_fields_are_bounded(tmp_path: Path) -> None:
    many = " and ".join(f'not http.request.headers["h{n}"][0] eq "x"' for n in range(20))
    lines = Hits(tmp_path, {"expression": 'http.user_agent contains "sqlmap"'}, {"expression": many}).lines()
    assert lines[0]["fields"]["http.user_agent"] == "sqlmap" + "é" * (events.MAX_VALUE - 6)
    assert list(lines[1]["fields"].values()) == [None] * events.MAX_FIELDS


def test_after_a_reload_the_new_rule_says_what_it_reads(tmp_path: Path) -> None:
    hits = Hits(tmp_path, {"expression": "ssl"})
    hits.events.rule  # noqa: B018  the first use fills what is known
    first = hits.rules
    hits.use({"expression": 'http.host eq "example.org"'})
    hits.rules = [*first, *hits.rules]
    lines = hits.lines()
    assert [list(line["fields"]) for line in lines][1] == ["http.host"]


def test_documented_keys_are_those_of_a_line(tmp_path: Path) -> None:
    docs = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    table = docs.partition("## Events")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE)
    rules = [{"expression": "ssl", "action": "block"}, {"expression": "ssl", "action": "set", "tags": ["a"]}]
    lines = Hits(tmp_path, *rules).lines()
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == {key for line in lines for key in line}


def test_lost_events_are_counted_apart(tmp_path: Path) -> None:
    stats = WorkerStats()
    writer = events.EventWriter(str(tmp_path / "e"), stats)
    writer._submitted = 1 << 30  # as if the thread were far behind
    writer.lines += [b"{}\n"] * 3
    writer.flush()
    assert (stats.events_dropped, stats.log_dropped) == (3, 0)


def test_rules_of_a_configuration_that_is_gone_are_not_kept(tmp_path: Path) -> None:
    hits = Hits(tmp_path, {"expression": "ssl", "id": "a"}, {"expression": 'http.host contains "e"', "id": "b"})
    hits.lines()
    assert len(hits.events._reads) == 2
    hits.use({"expression": "ssl", "id": "c"})
    gc.collect()
    assert len(hits.events._reads) == 0
