# The values of one request's fields, each computed when it is first asked for and then kept; where they come from is sources.py.
"""`Facts`: what compiled rules read. Slots are made for every field, and for the other forms in which rules want strings."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from edgeproxy.rules import body, client
from edgeproxy.rules.fields import FIELDS, FieldInfo, lower_slot, text_slot
from edgeproxy.rules.sources import SOURCES, Source, header_text, moment
from edgeproxy.rules.syntax import BYTES

if TYPE_CHECKING:
    from edgeproxy.bots.score import Score
    from edgeproxy.bots.signals import Signal
    from edgeproxy.geo import Geo
    from edgeproxy.message import Reply, Request
    from edgeproxy.policy.keys import Key
    from edgeproxy.scoring import Scored


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


# Fields that are mostly looked at as text or in lower case, and cost less to make again than to keep.
_MADE_AGAIN: Final = frozenset({
    "http.cookie", "http.referer", "http.request.uri.query", "http.user_agent", "http.x_forwarded_for",
})  # fmt: skip


def _reader(info: FieldInfo) -> Callable[[Facts], bytes | None]:
    return SOURCES[info.name] if info.name in _MADE_AGAIN else attrgetter(info.slot)


def _lowered(info: FieldInfo) -> Source:
    read = _reader(info)

    def value(facts: Facts) -> bytes | None:
        content = read(facts)
        return content.lower() if content is not None else None

    return value


def _as_text(info: FieldInfo) -> Source:
    read = _reader(info)

    def value(facts: Facts) -> str | None:
        content = read(facts)
        return content.decode("latin-1") if content is not None else None

    return value


def _lowered_text(info: FieldInfo) -> Source:
    read = _reader(info)

    def value(facts: Facts) -> str | None:
        content = read(facts)
        return content.lower().decode("latin-1") if content is not None else None  # not str.lower: it knows É

    return value


def _missing(_: Facts) -> None:
    """The value of a field that this edge does not know."""


def _forms(info: FieldInfo) -> dict[str, Source]:
    """The slots of one field, and what fills them."""
    made: dict[str, Source] = {info.slot: SOURCES.get(info.name, _missing)}
    if info.type == BYTES:
        made[lower_slot(info)] = _lowered(info)
        made[text_slot(info.slot)] = _as_text(info)
        made[text_slot(lower_slot(info))] = _lowered_text(info)
    return made


def _dialect(facts: Facts) -> str | None:
    dialect, request = facts.context.dialect, facts.request
    return dialect(request.authority, request.target) if dialect is not None else None


# What the pipeline may set; so the constructor does not have to.
_SET: Final[dict[str, Source]] = {
    "body": _missing,
    "dialect": _dialect,
    "key": _missing,
    "original": lambda facts: facts.request,
    "original_reply": lambda facts: facts.reply,
    "scored": _missing,
    "reply": _missing,
}
_BY_SLOT: Final[dict[str, Source]] = {
    **{slot: source for info in FIELDS.values() if info.known for slot, source in _forms(info).items()},
    **_SET,
    "signal": lambda facts: facts.scored.signal() if facts.scored is not None else None,
    "bot": lambda facts: facts.scored.current() if facts.scored is not None else None,
    "link": client.link,
    "moment": moment,
    "place": client.place,
    "said": lambda _: {},
    "first": lambda facts: Facts(facts.original, facts.host, facts.client, facts.ray, facts.clock, facts.context),
    "form": body.form,
    # What others are made of or looked for in: the last line of each name, and all values as one text.
    "header_lines": lambda facts: dict(facts.request.headers),
    "lower_header_text": lambda facts: header_text(facts).lower(),
    "text_lower_header_text": lambda facts: header_text(facts).lower().decode("latin-1"),
}
# What these come from may still come: that they are missing is not kept.
_LATE: Final = frozenset({
    "body", "form", "original_reply", "reply",
    *(slot for info in FIELDS.values() if info.needs_body or info.phase == "response" for slot in _forms(info)),
})  # fmt: skip


# What a rewrite does not change and is dear to know.
_OF_THE_CLIENT: Final = frozenset({"bot", "link", "place", "signal"})
# What follows from the field lines of a request alone: the same for all that differ in their target. Nobody changes these.
FIELD_LINES: Final = frozenset(
    info.name
    for info in FIELDS.values()
    if info.known
    and info.name.startswith((
        "http.cookie", "http.referer", "http.request.accepted_languages", "http.request.cookies", "http.request.headers",
        "http.user_agent", "http.x_forwarded_for",
    ))
)  # fmt: skip
# Of these, what a connection may keep for its next head: the lines themselves, put together. Idle connections are many: not what
# takes a line to pieces (a cookie of four bytes becomes 130) or is a copy of it in another form.
OF_FIELD_LINES: Final = frozenset({
    "header_lines", "http_cookie", "http_referer", "http_request_headers_names", "http_request_headers_values", "http_user_agent",
    "http_x_forwarded_for", "said",
})  # fmt: skip


class _Slot:
    """Where a field is on `Facts`: asked when the instance has no such attribute yet, it computes the value and keeps it there.

    No `__set__`: Python then finds the instance's own attribute first, so that every later look is a plain one.
    """

    __slots__ = ("name", "source")

    def __init__(self, name: str, source: Source) -> None:
        self.name = name
        self.source = source

    def __get__(self, facts: Facts, owner: type[Facts]) -> Any:
        value = self.source(facts)
        setattr(facts, self.name, value)
        return value


class _Late:
    """The place of a field that may be missing now and there later: nothing is kept."""

    __slots__ = ("source",)

    def __init__(self, source: Source) -> None:
        self.source = source

    def __get__(self, facts: Facts, owner: type[Facts]) -> Any:
        return self.source(facts)


class Facts:
    """The fields of one request, by slot. Reading one that is not there yet computes and keeps it.

    No `__slots__`: an object with room for every field costs five times as much to make and to free as one that holds the
    few fields that were read.

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
        key: of the edge that the request carries; None: none.
        scored: gives the score of who sent it; None: nobody scores.
        body: what is held of the body; None: nothing was.
        reply: the reply as it would be sent, in the response phase; None before.
        original_reply: the same as it came, when a rule has changed it.
    """

    request: Request
    host: str
    client: str
    ray: bytes | None
    clock: Callable[[], float]
    context: Context
    original: Request
    dialect: str | None
    key: Key | None
    scored: Scored | None
    bot: Score | None
    edge_model: bytes | None
    said: dict[int, tuple[Any, ...]]
    signal: Signal | None
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
        made.key = self.key
        made.scored = self.scored
        made.__dict__.update({slot: self.__dict__[slot] for slot in _OF_THE_CLIENT & self.__dict__.keys()})
        return made

    if TYPE_CHECKING:

        def __getattr__(self, slot: str) -> Any:
            """The fields: their names are data."""


for _name, _source in _BY_SLOT.items():
    setattr(Facts, _name, _Late(_source) if _name in _LATE else _Slot(_name, _source))
# What is missing for everybody is computed for nobody.
for _name in (slot for info in FIELDS.values() if not info.known for slot in _forms(info)):
    setattr(Facts, _name, None)
