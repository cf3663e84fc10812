# The values of one request's fields, each computed when it is first asked for and then kept; where they come from is sources.py.
"""`Facts`: what compiled rules read. Slots are made for every field, and for the other forms in which rules want strings."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from edgeproxy.rules import body, client
from edgeproxy.rules.fields import FIELDS, FieldInfo, lower_slot, text_slot
from edgeproxy.rules.sources import SOURCES, Source
from edgeproxy.rules.syntax import BYTES

if TYPE_CHECKING:
    from edgeproxy.geo import Geo
    from edgeproxy.message import Reply, Request


class Context:
    """What the facts of all requests of a snapshot share.

    Attributes:
        geo: where addresses are, None when nobody knows.
        dialect: of the route of an authority and a target; None: it has none.
    """

    __slots__ = ("dialect", "geo")

    def __init__(self, geo: Geo | None = None, dialect: Callable[[bytes, bytes], str | None] | None = None) -> None:
        self.geo = geo
        self.dialect = dialect


ALONE: Final = Context()


def _lowered(slot: str) -> Source:
    def value(facts: Facts) -> bytes | None:
        text: bytes | None = getattr(facts, slot)
        return text.lower() if text is not None else None

    return value


def _as_text(slot: str) -> Source:
    def value(facts: Facts) -> str | None:
        content: bytes | None = getattr(facts, slot)
        return content.decode("latin-1") if content is not None else None

    return value


def _missing(_: Facts) -> None:
    """The value of a field that this edge does not know."""


def _forms(info: FieldInfo) -> dict[str, Source]:
    """The slots of one field, and what fills them."""
    made: dict[str, Source] = {info.slot: SOURCES.get(info.name, _missing)}
    if info.type == BYTES:
        made[lower_slot(info)] = _lowered(info.slot)
        made |= {text_slot(slot): _as_text(slot) for slot in tuple(made)}
    return made


def _dialect(facts: Facts) -> str | None:
    dialect, request = facts.context.dialect, facts.request
    return dialect(request.authority, request.target) if dialect is not None else None


# What the pipeline may set; so the constructor does not have to.
_SET: Final[dict[str, Source]] = {
    "body": _missing,
    "dialect": _dialect,
    "original": lambda facts: facts.request,
    "original_reply": lambda facts: facts.reply,
    "reply": _missing,
}
_BY_SLOT: Final[dict[str, Source]] = {
    **{slot: source for info in FIELDS.values() if info.known for slot, source in _forms(info).items()},
    **_SET,
    "link": client.link,
    "place": client.place,
    "first": lambda facts: Facts(facts.original, facts.host, facts.client, facts.ray, facts.clock, facts.context),
    "form": body.form,
}
# What these come from may still come: that they are missing is not kept.
_LATE: Final = frozenset({
    "body", "form", "original_reply", "reply",
    *(slot for info in FIELDS.values() if info.needs_body or info.phase == "response" for slot in _forms(info)),
})  # fmt: skip


class Facts:
    """The fields of one request, by slot. Reading one that is not there yet computes and keeps it.

    Attributes:
        request: as it would be forwarded.
        host: of the authority, lower case, without port.
        client: textual address of the client; empty for Unix sockets.
        ray: id of the exchange; None while a plan is made, which no exchange owns.
        clock: gives seconds since the epoch.
        context: what is shared.

    What may be set at any time before it is read (`body` and `reply` also after fields of theirs were found missing):
        original: the request as it came, when a rule has rewritten it; `raw.*` reads it.
        dialect: of the route; None: of none.
        body: what is held of the body; None: nothing was.
        reply: the reply as it would be sent, in the response phase; None before.
        original_reply: the same as it came, when a rule has changed it.
    """

    __slots__ = ("client", "clock", "context", "host", "ray", "request", *_BY_SLOT)

    request: Request
    host: str
    client: str
    ray: bytes | None
    clock: Callable[[], float]
    context: Context
    original: Request
    dialect: str | None
    body: body.HeldBody | None
    reply: Reply | None
    original_reply: Reply | None

    def __init__(
        self, request: Request, host: str, client: str, ray: bytes | None, clock: Callable[[], float], context: Context = ALONE
    ) -> None:
        self.request = request
        self.host = host
        self.client = client
        self.ray = ray
        self.clock = clock
        self.context = context

    def following(self, request: Request) -> Facts:
        """The facts for later rules, when one has made another request of this one."""
        made = Facts(request, self.host, self.client, self.ray, self.clock, self.context)
        made.original = self.original
        made.body = self.body
        return made

    def __getattr__(self, slot: str) -> Any:
        """Called for a slot that is still empty (Python's own way of reading finds the others)."""
        source = _BY_SLOT.get(slot)
        if source is None:
            raise AttributeError(slot)
        value = source(self)
        if value is not None or slot not in _LATE:
            setattr(self, slot, value)
        return value


# What is missing for everybody needs no place in everybody's facts.
for _slot in (slot for info in FIELDS.values() if not info.known for slot in _forms(info)):
    setattr(Facts, _slot, None)
