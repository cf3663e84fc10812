# Which counters a request, or a key of the edge, has in the limits of the configuration; how full they are, only a store knows.
"""`of_request` and `of_key`; the stages of an explanation find out, so that nothing is decided a second time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from edgeproxy.explaining import admitted, after, before, ruled
from edgeproxy.explaining.course import begin
from edgeproxy.explaining.question import Question, Unclear
from edgeproxy.explaining.trace import Veil
from edgeproxy.keying import Keying
from edgeproxy.rules.lists import TYPES
from edgeproxy.rules.parser import parse, parse_any
from edgeproxy.rules.syntax import fields_of
from edgeproxy.state.lookup import MAX_CHARGES

if TYPE_CHECKING:
    from edgeproxy.explaining.course import StageOf
    from edgeproxy.explaining.paper import PaperSnapshot
    from edgeproxy.explaining.ways import Ways
    from edgeproxy.policy.keys import Key
    from edgeproxy.policy.limits import CompiledLimit
    from edgeproxy.state.ports import Charge, Level

_BEFORE: Final[tuple[StageOf, ...]] = (
    before.head, before.host, before.path, before.https, before.client, before.route, ruled.rules, after.routed_again,
)  # fmt: skip
_OF_KEYS: Final = frozenset({"edge.key.id", "edge.key.name"})


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """What may be asked: a `request` (as /api/explain takes it), a `key` of the edge by its id, or both: as if the request
    carried that key. `limit`: this one alone."""

    limit: str | None = None
    request: msgspec.Raw = msgspec.Raw(b"")  # empty: there is none
    key: str | None = None


@dataclass(slots=True)
class Counted:
    """The answer.

    Attributes:
        limits: with the charges that ask about them.
        left_out: limits that nobody can tell about without a request.
        says: why there are none; "" where that needs no reason.
    """

    limits: list[tuple[CompiledLimit, Charge]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    says: str = ""

    @property
    def charges(self) -> list[Charge]:
        return [charge for _, charge in self.limits]

    def shown(self, levels: tuple[Level, ...]) -> dict[str, Any]:
        """As JSON, with what the store said; seconds."""
        rows = []
        for (limit, charge), level in zip(self.limits, levels, strict=True):
            rows.append({
                "limit": limit.label, "says": limit.said, "mode": limit.model.mode, "key": list(limit.model.key),
                "counter": charge.key.hex(), "most": charge.quota.burst, "remaining": level.remaining,
                "reset": level.reset / 1e6, "blocked": level.blocked / 1e6,
            })  # fmt: skip
        return {"limits": rows, **self._notes()}

    def reset(self) -> dict[str, Any]:
        """As JSON, when they were reset."""
        return {"reset": [limit.label for limit, _ in self.limits], **self._notes()}

    def _notes(self) -> dict[str, Any]:
        notes: dict[str, Any] = {"left_out": self.left_out} if self.left_out else {}
        return {**notes, "says": self.says} if self.says else notes

    def keep(self, name: str | None, snapshot: PaperSnapshot) -> Counted:
        """Only one limit, by its name or label. Raises: Unclear where the configuration has none."""
        if name is not None:
            known = [*snapshot.limits, *(limit for each in snapshot.budgets.values() for limit in each)]
            if not any(name in (limit.label, limit.name) for limit in known):
                raise Unclear(f"there is no limit {name!r}")
            self.limits = [each for each in self.limits if name in (each[0].label, each[0].name)]
            self.left_out = [each for each in self.left_out if each == name]
            if not self.limits and not self.left_out and not self.says:
                self.says = f"the limit {name!r} is not about this"
        del self.limits[MAX_CHARGES:]
        return self


_decode = msgspec.json.Decoder(Asked).decode


def decode(content: bytes) -> Asked:
    """Raises: Unclear."""
    try:
        asked = _decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unclear(f"the question is not understood: {error}") from None
    if not bytes(asked.request) and asked.key is None:
        raise Unclear("give 'request' (as for /api/explain), 'key' (the id of a key, ep-…), or both")
    return asked


def of_request(snapshot: PaperSnapshot, asked: Asked, question: Question, until: float = math.inf) -> Counted:
    """The limits that a request is under. Raises: Unclear; Busy when it is too late."""
    ways = begin(snapshot, question, Veil(False), until=until)
    key = _key(snapshot, asked.key) if asked.key is not None else None
    if key is not None:
        ways.plan.keyed = Keying(key, None, ways.plan.client)
    for stage in _BEFORE:
        stage(ways)
    if key is not None:
        ways.plan.keyed = Keying(key, None, ways.plan.client)  # rules may have led elsewhere
    else:
        admitted.key(ways)
    found = Counted()
    if ways.outcome is not None:
        found.says = f"limits are not asked: {ways.outcome.says}"
    elif ways.plan.route is None:
        found.says = "limits are not asked: there is no route"
    elif admitted.skipped(ways):
        found.says = "a rule skips the limits"
    else:
        found.limits = _charges(ways, ways.plan.route.dialect is not None)
    return found.keep(asked.limit, snapshot)


def _charges(ways: Ways, chat: bool) -> list[tuple[CompiledLimit, Charge]]:
    return [(limit, limit.charge(key, 0)) for limit, key in admitted.counted(ways, chat=chat) if isinstance(key, bytes)]


def of_key(snapshot: PaperSnapshot, asked: Asked) -> Counted:
    """What a key of the edge is counted under, whatever it asks for: its budgets, and limits that read only the key.

    Raises: Unclear.
    """
    assert asked.key is not None
    key = _key(snapshot, asked.key)
    ways = begin(snapshot, Question("https://localhost/"), Veil(False))
    ways.plan.keyed = Keying(key, None, ways.plan.client)
    types = {each.name: TYPES[each.kind] for each in snapshot.config.rules.book.lists}
    found = Counted()
    own = set()
    for limit in snapshot.limits:
        if limit.named and limit.name not in key.limits:
            continue
        model = limit.model
        read = frozenset().union(*(fields_of(parse_any(text, types)) for text in model.key))
        if model.expression is not None:
            read |= fields_of(parse(model.expression, types))
        if read and read <= _OF_KEYS:
            own.add(limit)
        else:
            found.left_out.append(limit.name)
    found.limits = [each for each in _charges(ways, True) if each[0].budget or each[0] in own]
    return found.keep(asked.limit, snapshot)


def _key(snapshot: PaperSnapshot, text: str) -> Key:
    """A key by its id. Raises: Unclear."""
    key = snapshot.keys.keys.get(text.removeprefix("ep-")) if snapshot.keys is not None else None
    if key is None:
        raise Unclear("there is no such key: give its id, ep- and 8 characters, and not the key itself")
    return key
