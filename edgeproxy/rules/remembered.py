# Answers of rules that many requests share: what a rule says of a path or of a User-Agent, it says of the next one, too.
"""`remembering(rules, lists)`: what `batches` gives, with a memory of the last answers of rules that read the same one thing.

Clients send few User-Agents and ask for the same paths again and again, and most targets have no query. What is remembered
is bounded, whatever the number of rules, and nothing of a query is in it: queries carry secrets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from edgeproxy.rules.batches import Batch, batches
from edgeproxy.rules.compiler import Batched, Container
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.syntax import fields_of

Key = Callable[[Facts], bytes | None]
"""What an answer depends on; None: nothing is remembered of this request."""

MOST: Final = 2048  # answers of a family; when there are more, all are forgotten
ALL: Final = 16_384  # the same of all groups of rules together: each rewrite begins one, and there may be thousands
_WORTH: Final = 128  # answers of which one is found often enough
LONGEST: Final = 256  # bytes of a value about which an answer is kept
_PATH: Final = frozenset({"http.request.uri.path", "http.request.uri.path.extension"})
_QUERY: Final = frozenset({
    "http.request.uri.query", "http.request.uri.args", "http.request.uri.args.names", "http.request.uri.args.values",
})  # fmt: skip
_TARGET: Final = _PATH | _QUERY | {"http.request.uri"}
_KIND: Final = _PATH | {"edge.route.dialect", "http.request.body.mime", "http.request.method"}
_AGENT: Final = frozenset({"http.user_agent"})


def _no_query(facts: Facts) -> bytes | None:
    """The empty query; queries are of one request, and hold secrets."""
    return None if b"?" in facts.request.target else b""


def _whole(facts: Facts) -> bytes | None:
    """The target, where it is nothing but a path."""
    target = facts.request.target
    return None if b"?" in target else target


def _agent(facts: Facts) -> bytes:
    return facts.http_user_agent  # type: ignore[no-any-return]  # a slot: bytes


def _kind(facts: Facts) -> bytes:
    """Which endpoint is asked, and with what. No separator is in any of them."""
    request, dialect = facts.request, (facts.dialect or "").encode()
    content_type = request.header(b"content-type") or b""
    return b"%b\n%b\n%b\n%b" % (dialect, request.method, content_type, facts.http_request_uri_path)


# In order: the first family that has all fields of a rule takes it.
_FAMILIES: Final[tuple[tuple[frozenset[str], Key], ...]] = (
    (_AGENT, _agent), (_QUERY, _no_query), (_TARGET, _whole), (_KIND, _kind),
)  # fmt: skip


def remembering(rules: list[Batched], lists: Mapping[str, Container], groups: int = 1) -> tuple[Batch, ...]:
    """What has to be called for each request, in order; what they find is in order, too, if it is one function.

    Args:
        groups: of rules that remember beside each other: all of them share ALL, and very many remember nothing.
    """
    share = ALL // groups
    if share < _WORTH:
        return batches(rules, lists)
    parts = [(batches(part, lists), key) for part, key in _families(rules)]
    if all(key is None for _, key in parts):
        return parts[0][0] if parts else ()
    return (Remembering(rules, parts, min(MOST, share)),)


def _families(rules: list[Batched]) -> Iterator[tuple[list[Batched], Key | None]]:
    """Rules that are to be asked together, in order, and what their answers depend on; None: on something else. All of them come
    exactly once."""
    taken: list[list[Batched]] = [[] for _ in _FAMILIES]
    rest: list[Batched] = []
    for rule in rules:
        names = fields_of(rule.test)
        place = next((at for at, (having, _) in enumerate(_FAMILIES) if names and names <= having), None)
        (rest if place is None else taken[place]).append(rule)
    if rest:
        yield rest, None
    for family, (_, key) in zip(taken, _FAMILIES, strict=True):
        if family:
            yield family, key


class Remembering:
    """A batch that asks others; each with what its answers depend on."""

    __slots__ = ("_most", "_order", "_parts")

    def __init__(self, rules: list[Batched], parts: list[tuple[tuple[Batch, ...], Key | None]], most: int) -> None:
        """Args: `rules` in order; `parts`: what asks each family; `most`: answers of each that are kept."""
        self._most = most
        self._order = {id(each.rule): place for place, each in enumerate(rules)}
        self._parts = [(each, key, dict[bytes, tuple[Any, ...]]()) for each, key in parts]

    def __call__(self, facts: Facts, found: Callable[[Any], None], broken: Callable[[Any, Exception], None]) -> None:
        """Calls `found(rule)` for each rule that holds, in order, and `broken(rule, error)` for those that raise."""
        hits: list[Any] = []
        for ask, key, known in self._parts:
            try:
                value = key(facts) if key is not None else None
            except Exception:
                value = None  # whoever reads it says so
            if value is None:
                for batch in ask:
                    batch(facts, hits.append, broken)
                continue
            answer = known.get(value)
            if answer is None:
                answer = self._ask(ask, facts, broken, known, value)
            if answer:
                hits += answer
        if len(hits) > 1:
            hits.sort(key=lambda rule: self._order[id(rule)])
        for rule in hits:
            found(rule)

    def _ask(
        self, ask: tuple[Batch, ...], facts: Facts, broken: Callable[[Any, Exception], None],
        known: dict[bytes, tuple[Any, ...]], value: bytes,
    ) -> tuple[Any, ...]:  # fmt: skip
        hits: list[Any] = []
        failed: list[Any] = []

        def told(rule: Any, error: Exception) -> None:
            failed.append(rule)
            broken(rule, error)

        for batch in ask:
            batch(facts, hits.append, told)
        answer = tuple(hits)
        if not failed and len(value) <= LONGEST:  # a failure is told of each time
            if len(known) >= self._most:
                known.clear()
            known[value] = answer
        return answer
