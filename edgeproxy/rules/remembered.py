# Answers of rules that many requests share: what a rule says of a path or of a User-Agent, it says of the next one, too.
"""`remembering(rules, lists)`: what `batches` gives, with a memory of the last answers of rules that read the same one thing.

Clients send few User-Agents and ask for the same paths again and again, and most targets have no query. What is remembered
is bounded, and holds no secrets: nothing is kept of a target with a query. What rules say of the field lines is kept with the
facts themselves, for the next head of the connection that has the same ones (plan.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from edgeproxy.rules.batches import Batch, batches, divided
from edgeproxy.rules.compiler import Batched, Container
from edgeproxy.rules.facts import FIELD_LINES, Facts
from edgeproxy.rules.optimise import cost, simplify
from edgeproxy.rules.syntax import Combine, Test, fields_of

Key = Callable[[Facts], bytes | None]
"""What an answer depends on; None: nothing is remembered of this request."""

MOST: Final = 2048  # answers of a family; when there are more, all are forgotten
ALL: Final = 16_384  # the same of all groups of rules together: each rewrite begins one, and there may be thousands
_ENOUGH: Final = 128  # answers of which one is found often enough
LONGEST: Final = 256  # bytes of a value about which an answer is kept
_WORTH: Final = 50  # what a family costs at least (optimise.cost); a cheaper one is asked sooner than its answers are found
_PATH: Final = frozenset({"http.request.uri.path", "http.request.uri.path.extension"})
_QUERY: Final = frozenset({
    "http.request.uri.query", "http.request.uri.args", "http.request.uri.args.names", "http.request.uri.args.values",
})  # fmt: skip
_TARGET: Final = _PATH | _QUERY | {"http.request.uri"}
_KIND: Final = _PATH | {"edge.route.dialect", "http.request.body.mime", "http.request.method"}
_AGENT: Final = frozenset({"http.user_agent"})
_OF_CONNECTION: Final = frozenset({"http.host", "http.request.method", "http.request.version", "ip.src", "ssl"})


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


def _fields(facts: Facts) -> bytes | None:
    """Never asked: these answers are kept with the facts."""
    raise AssertionError(facts)


# In order: the first family that has all fields of a rule takes it.
_FAMILIES: Final[tuple[tuple[frozenset[str], Key], ...]] = (
    (_AGENT, _agent), (FIELD_LINES | _OF_CONNECTION, _fields), (_QUERY, _no_query), (_TARGET, _whole), (_KIND, _kind),
)  # fmt: skip


def remembering(rules: list[Batched], lists: Mapping[str, Container], groups: int = 1) -> tuple[Batch, ...]:
    """What has to be called for each request, in order; what they find is in order, too, if it is one function.

    Args:
        groups: of rules that remember beside each other: all of them share ALL, and very many remember nothing.
    """
    share = ALL // groups
    if share < _ENOUGH:
        return batches(rules, lists)
    gates, plain = divided(rules)
    families = list(_families(plain))
    if all(key is None for _, key in families):
        return batches(rules, lists)
    # Those with gates are looked up together, which is cheaper than to look up the answers of a few here and a few there.
    gated = [([rules[place] for place in sorted(gates)], None)] if gates else []
    parts = [(batches(part, lists), key) for part, key in [*gated, *families]]
    return (Remembering(rules, parts, min(MOST, share)),)


def _families(rules: list[Batched]) -> Iterator[tuple[list[Batched], Key | None]]:
    """Rules that are to be asked together, in order, and what their answers depend on; None: on something else. All of them come,
    those whose alternatives are of several families in each of these."""
    taken, rest = _taken(rules)
    for family in taken:
        if sum(cost(simplify(each.test)) for each in family) < _WORTH:
            rest += family
            family.clear()
    if rest:
        yield rest, None
    for family, (_, key) in zip(taken, _FAMILIES, strict=True):
        if family:
            yield family, key


def _taken(rules: list[Batched]) -> tuple[list[list[Batched]], list[Batched]]:
    """The rules of each family, and those of none."""
    taken: list[list[Batched]] = [[] for _ in _FAMILIES]
    rest: list[Batched] = []
    for rule in rules:
        alternatives = rule.test.tests if isinstance(rule.test, Combine) and rule.test.op == "or" else (rule.test,)
        places = [_place(each) for each in alternatives]
        if None in places:
            place = _place(rule.test)
            (rest if place is None else taken[place]).append(rule)
            continue
        for place in sorted(set(places), key=str):
            tests = tuple(test for test, at in zip(alternatives, places, strict=True) if at == place)
            test = tests[0] if len(tests) == 1 else Combine("or", tests)
            taken[place].append(Batched(test, rule.rule, rule.length))  # type: ignore[index]  # none is None
    return taken, rest


def _place(test: Test) -> int | None:
    """Of the family that a test is of."""
    names = fields_of(test)
    return next((at for at, (having, _) in enumerate(_FAMILIES) if names and names <= having), None)


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
        failed: list[Any] = []

        def told(rule: Any, error: Exception) -> None:
            if not any(each is rule for each in failed):
                failed.append(rule)
                broken(rule, error)

        for ask, key, known in self._parts:
            if key is _fields:
                hits += self._of_fields(ask, facts, told, failed)
                continue
            try:
                value = key(facts) if key is not None else None
            except Exception:
                value = None  # whoever reads it says so
            if value is None:
                for batch in ask:
                    batch(facts, hits.append, told)
                continue
            answer = known.get(value)
            if answer is None:
                before = len(failed)
                answer = _asked(ask, facts, told)
                if len(failed) == before and len(value) <= LONGEST:  # a failure is told of each time
                    if len(known) >= self._most:
                        known.clear()
                    known[value] = answer
            if answer:
                hits += answer
        if failed:
            hits = [rule for rule in hits if not any(each is rule for each in failed)]
        if len(hits) > 1:
            hits = sorted({id(rule): rule for rule in hits}.values(), key=lambda rule: self._order[id(rule)])
        for rule in hits:
            found(rule)

    def _of_fields(
        self, ask: tuple[Batch, ...], facts: Facts, told: Callable[[Any, Exception], None], failed: list[Any]
    ) -> Iterable[Any]:
        """What is said of the field lines, once for all facts that share them."""
        said = facts.said
        answer = said.get(id(self))
        if answer is None:
            before = len(failed)
            answer = _asked(ask, facts, told)
            if len(failed) == before:
                said[id(self)] = answer
        return answer


def _asked(ask: tuple[Batch, ...], facts: Facts, told: Callable[[Any, Exception], None]) -> tuple[Any, ...]:
    hits: list[Any] = []
    for batch in ask:
        batch(facts, hits.append, told)
    return tuple(hits)
