# Security events: a JSON line for each rule that acts or logs, with what it saw, and for limits and blocks that refuse. Nothing
# is done here without a hit, and what may be a secret is never written, only how long it is.
"""`Events.rule` is called for each hit, `limited` and `blocked` for each refusal (of which few are told); the lines go the way of
the access log's (lines.py)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple
from weakref import WeakKeyDictionary

import msgspec

from edgeproxy.observe.access import MAX_AGENT, MAX_TEXT
from edgeproxy.observe.lines import BATCH, LineWriter
from edgeproxy.observe.metrics import PROTOCOLS
from edgeproxy.observe.quiet import Quiet
from edgeproxy.rules.addresses import show_ip
from edgeproxy.rules.reads import private, reads, source
from edgeproxy.rules.syntax import IP, show_value

if TYPE_CHECKING:
    from edgeproxy.bots.score import Score
    from edgeproxy.exchange import Exchange
    from edgeproxy.message import Request
    from edgeproxy.observe.metrics import WorkerStats
    from edgeproxy.plan import Plan
    from edgeproxy.policy.blocks import Block
    from edgeproxy.policy.limits import CompiledLimit
    from edgeproxy.policy.sightings import Sighting
    from edgeproxy.rules.facts import Facts
    from edgeproxy.rules.rule import Rule

MAX_FIELDS: Final = 16  # of one event, and items of one field
MAX_VALUE: Final = 256  # characters kept of a value
_REDIRECT: Final = 302
_NO_ROUTE: Final = "-"
_encode = msgspec.json.encode


class Shown(NamedTuple):
    """A part of a request that a rule reads.

    Attributes:
        private: only its length is shown.
        address: it is one, or several.
    """

    name: str
    value: Callable[[Facts], Any]
    private: bool
    address: bool


class EventWriter(LineWriter):
    """The writer of the events."""

    __slots__ = ()
    what: ClassVar[str] = "events"
    counter: ClassVar[str] = "events_dropped"


class Events:
    """Writes events; belongs to one worker.

    Attributes:
        writer: where they go.
    """

    __slots__ = ("_quiet", "_reads", "writer")

    def __init__(self, path: str, stats: WorkerStats) -> None:
        """Raises: OSError when the file cannot be opened."""
        self.writer = EventWriter(path, stats)
        self._quiet = Quiet()
        # What each rule reads; a reload makes new rules, and what is known of the old ones goes with them.
        self._reads: WeakKeyDictionary[Rule, tuple[Shown, ...]] = WeakKeyDictionary()

    def rule(self, exchange: Exchange, rule: Rule, facts: Facts) -> None:
        """A rule was hit.

        Args:
            facts: the request as the rule saw it.
        """
        event: dict[str, Any] = {
            "time": round(time.time(), 3),
            "event": "rule",
            "rule": rule.id,
            "action": rule.label,
            "mode": rule.model.mode,
            **_about(exchange, facts.request),
        }
        status = answer(rule)
        if status is not None:
            event["status"] = status
        if rule.model.tags:
            event["tags"] = rule.model.tags
        event["fields"] = {each.name: seen(each, facts) for each in self._read_by(rule)}
        self._write(event)

    def limited(self, exchange: Exchange, limit: CompiledLimit, by: str) -> None:
        """A limit refused an exchange, or would have: told once in a while for each limit and client.

        Args:
            by: who decided, as in `Admission.by`.
        """
        plan = exchange.plan
        times = self._quiet.again((limit.label, plan.client), exchange.started)
        if not times:
            return
        event: dict[str, Any] = {
            "time": round(time.time(), 3), "event": "limit", "limit": limit.label, "mode": limit.model.mode, "by": by,
            "times": times, **_about(exchange, exchange.request), **_key(plan),
        }  # fmt: skip
        if limit.acts:
            event["status"] = limit.model.status
        self._write(event)

    def blocked(self, exchange: Exchange, block: Block) -> None:
        """An exchange was refused since an operator blocked its client or its key: told once in a while for each block."""
        plan = exchange.plan
        times = self._quiet.again(block.name, exchange.started)
        if times:
            about = {**_about(exchange, exchange.request), **_key(plan)}
            self._write({
                "time": round(time.time(), 3), "event": "blocked", "block": f"{block.kind} {block.value}", "reason": block.reason,
                "times": times, **about,
            })  # fmt: skip

    def _write(self, event: dict[str, Any]) -> None:
        lines = self.writer.lines
        lines.append(_encode(event) + b"\n")
        if len(lines) >= BATCH:
            self.writer.flush()

    def sighting(self, exchange: Exchange, seen: Sighting) -> None:
        """A key of the edge was used where it may not be, or in many networks."""
        event: dict[str, Any] = {
            "time": round(time.time(), 3), "event": f"key_{seen.kind}", "key": seen.key, "name": seen.name,
            "ray": exchange.ray.decode("ascii"), "client": seen.client, "networks": seen.networks, "times": seen.times,
        }  # fmt: skip
        prints = exchange.request.peer.prints
        if prints is not None:
            event["ja4"] = prints.ja4
        self.writer.lines.append(_encode(event) + b"\n")

    def bot(self, exchange: Exchange, score: Score, act: str, *, acts: bool) -> None:
        """The bot policy does something about a request, or would do."""
        plan, request = exchange.plan, exchange.request
        prints = request.peer.prints
        event = {
            "time": round(time.time(), 3), "event": "bot", "action": act, "mode": "act" if acts else "log",
            "ray": exchange.ray.decode("ascii"), "client": plan.client, "protocol": PROTOCOLS[request.protocol],
            "method": request.method.decode("latin-1"), "host": request.authority.decode("latin-1")[:MAX_AGENT],
            "path": request.target.partition(b"?")[0].decode("latin-1")[:MAX_TEXT],
            "route": _NO_ROUTE if plan.route is None else plan.route.name, "score": score.value, "source": score.source,
            "detections": score.ids, "reasons": score.reasons(), "ja4": prints.ja4 if prints is not None else "",
        }  # fmt: skip
        lines = self.writer.lines
        lines.append(_encode(event) + b"\n")
        if len(lines) >= BATCH:
            self.writer.flush()

    def challenge(self, exchange: Exchange, outcome: str, reason: str, facts: dict[str, int]) -> None:
        """Somebody handed in what a challenge asked for.

        Args:
            outcome, reason: as in metrics.
            facts: numbers about it.
        """
        event = {
            "time": round(time.time(), 3), "event": "challenge", "outcome": outcome, "reason": reason,
            "ray": exchange.ray.decode("ascii"), "client": exchange.plan.client,
            "host": exchange.request.authority.decode("latin-1")[:MAX_AGENT], **facts,
        }  # fmt: skip
        lines = self.writer.lines
        lines.append(_encode(event) + b"\n")
        if len(lines) >= BATCH:
            self.writer.flush()

    def _read_by(self, rule: Rule) -> tuple[Shown, ...]:
        known = self._reads.get(rule)
        if known is None:
            found = reads(rule.test())[:MAX_FIELDS]
            known = tuple(Shown(show_value(read), source(read), private(read), read.type == IP) for read in found)
            self._reads[rule] = known
        return known


def _about(exchange: Exchange, request: Request) -> dict[str, Any]:
    """What every event about an exchange says of it."""
    plan = exchange.plan
    return {
        "ray": exchange.ray.decode("ascii"),
        "client": plan.client,
        "protocol": PROTOCOLS[request.protocol],
        "method": request.method.decode("latin-1"),
        "host": request.authority.decode("latin-1")[:MAX_AGENT],
        "path": request.target.partition(b"?")[0].decode("latin-1")[:MAX_TEXT],
        "route": _NO_ROUTE if plan.route is None else plan.route.name,
    }


def _key(plan: Plan) -> dict[str, Any]:
    """Whose key the exchange carries, where it is one of the edge."""
    key = plan.keyed.key if plan.keyed is not None else None
    return {} if key is None else {"key": key.id, "name": key.name}


def answer(rule: Rule) -> int | None:
    """The status that a rule answers with, None for one that does not answer."""
    if not rule.acts or rule.challenges:  # challenges answer people and scripts differently
        return None
    if rule.fault is not None:
        return rule.fault.status
    return rule.model.status or _REDIRECT if rule.model.action == "redirect" else None


def seen(read: Shown, facts: Facts) -> Any:
    """A part of a request as an event shows it: cut, and of what is private only the length (bytes, or items)."""
    try:
        value = read.value(facts)
    except Exception:  # a field that fails is a rule's fault to report; an event never takes a request down
        return None
    if read.private:
        return None if value is None else {"length": len(value) if isinstance(value, bytes | list | dict) else 1}
    return _plain(value, read.address)


def _plain(value: Any, address: bool) -> Any:
    if isinstance(value, bytes):
        return value[:MAX_VALUE].decode("latin-1")
    if isinstance(value, list):
        return [_plain(each, address) for each in value[:MAX_FIELDS]]
    if isinstance(value, dict):
        return {_plain(key, False): _plain(each, address) for key, each in list(value.items())[:MAX_FIELDS]}
    return show_ip(value) if address and isinstance(value, int) else value
