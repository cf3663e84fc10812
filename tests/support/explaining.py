# What tests of explanations share: a configuration with some routes and given rules, and a gateway that has really decided.
"""`config_with`, `asked`, and `served`, which runs a request through a real gateway."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from edgeproxy.config.model import Config
from edgeproxy.explaining.answer import Explanation, RuleTrace
from edgeproxy.explaining.course import explain
from edgeproxy.explaining.paper import PaperSnapshot
from edgeproxy.explaining.question import Question
from edgeproxy.rules.model import LoadedList, RuleBook, RuleFiles, RuleModel
from support.edge import configuration
from support.pipeline import RecordingPool, Stand

CLIENT = "192.0.2.1"  # of Stand
LISTS = (
    LoadedList(name="nets", kind="ip", items=("10.0.0.0/8", "192.0.2.0/24")),
    LoadedList(name="words", kind="string", items=("example.org", "a", "x")),
    LoadedList(name="numbers", kind="number", items=("0", "1", "443")),
)


def config_with(*rules: dict[str, Any], **changes: Any) -> Config:
    """Two upstreams, a chat route that looks at models, and these rules."""
    config = configuration(**{
        "upstreams": {"other": {"targets": [{"url": "https://api.example"}], "host": "upstream"}},
        "routes": [
            {"path": "/", "upstream": "main"},
            {"path": "/v1/", "upstream": "main", "dialect": "openai", "models": {"big*": "other"}, "max_body": "100B"},
            {"host": "*.sub.example", "path": "/", "upstream": "other", "preview": "20B"},
        ],
        **changes,
    })  # fmt: skip
    models = tuple(RuleModel.model_validate({"action": "log", **rule}) for rule in rules)
    return config.model_copy(update={"rules": RuleFiles(book=RuleBook(rules=models, lists=LISTS))})


def asked(config: Config, url: str = "https://example.org/", **about: Any) -> Explanation:
    """The explanation of a request."""
    secrets = about.pop("show_secrets", False)
    return explain(PaperSnapshot(config), Question(url, **about), show_secrets=secrets)


def rule(explanation: Explanation, name: str) -> RuleTrace:
    """What is said of one rule."""
    return next(each for stage in explanation.stages for each in stage.rules if each.id == name)


class Served(NamedTuple):
    """What a gateway did: the status the client got, where the request went, its head there, the rules that were hit."""

    status: int
    upstream: str | None
    head: bytes
    hits: list[str]
    reply: bytes


class Real:
    """A gateway with one recording pool for each upstream."""

    def __init__(self, config: Config) -> None:
        self.stand = Stand(config)
        self.stand.gateway.log = cast("Any", SimpleNamespace(lines=[], flush=lambda: None))
        self.pools = {name: RecordingPool() for name in config.upstreams}
        for route in self.stand.snapshot.routes:
            route.pools = cast("Any", self.pools)
            route.pool = cast("Any", self.pools[route.upstream])

    def served(self, raw: bytes, *, secure: bool = True) -> Served:
        """What becomes of one request, as bytes of HTTP/1.1."""
        for pool in self.pools.values():
            pool.jobs.clear()
        lines = self.stand.gateway.log.lines  # type: ignore[union-attr]  # set above
        lines.clear()
        driver = self.stand.h1(secure=secure).feed(raw)
        took = [(name, pool.jobs[0].head) for name, pool in self.pools.items() if pool.jobs]
        assert len(took) <= 1 and len(lines) == 1, (took, lines)
        line = json.loads(lines[0])
        upstream, head = took[0] if took else (None, b"")
        return Served(line["status"], upstream, head, line.get("rules", []), driver.link.written)
