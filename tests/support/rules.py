# What tests of the rules language share: requests, random expressions, and an interpreter that is plain instead of fast.
"""`facts`, `LISTS`, `evaluate` (the meaning of a tree, written down a second time), and strategies for trees."""

from __future__ import annotations

from typing import Any

import re2
from hypothesis import strategies as st

from edgeproxy.message import Headers, Peer, Request
from edgeproxy.rules import syntax as s
from edgeproxy.rules.addresses import LAST, Ranges
from edgeproxy.rules.facts import Facts
from edgeproxy.rules.fields import FIELDS
from edgeproxy.rules.functions import FUNCTIONS, runner
from edgeproxy.rules.regexes import compile_pattern
from edgeproxy.rules.wildcards import find, split

LISTS = {"nets": s.IP, "words": s.BYTES, "numbers": s.INT}
CONTAINERS: dict[str, Any] = {
    "nets": Ranges([(0x0A000000, 0x0AFFFFFF), (0xCB007100, 0xCB0071FF)]),
    "words": frozenset({b"example.org", b"a", b"x"}),
    "numbers": frozenset({0, 1, 443}),
}
HEADERS: Headers = [
    (b"user-agent", b"sqlmap/1.0"), (b"accept", b"*/*"), (b"cookie", b"a=b; c=d; a=e"), (b"x-a", b"1"), (b"x-a", b"two"),
    (b"accept-language", b"de;q=0.7, en-GB, en;q=0.9"),
]  # fmt: skip


def facts(
    target: bytes = b"/Path/to.PHP?a=1&b=2&a=x", *, method: bytes = b"GET", headers: Headers | None = None,
    host: str = "example.org", client: str = "203.0.113.7", protocol: int = 1, now: float = 1_750_000_000.25,
) -> Facts:  # fmt: skip
    """The fields of a request."""
    peer = Peer(client, trusted=False, secure=True)
    request = Request(method, host.encode(), target, HEADERS if headers is None else headers, 0, protocol, peer)
    return Facts(request, host, client, b"0123456789abcdef", lambda: now)


# -- the meaning of a tree -------------------------------------------------------------------------------------------

_ORDER = {
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b, "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
}  # fmt: skip


def evaluate(test: s.Test, given: Facts) -> Any:
    """The answer, or for a vector the list of answers."""
    match test:
        case s.Constant(value):
            return value
        case s.Truth(value):
            found = value_of(value, given)
            return (found or []) if s.is_vector(test) else bool(found)
        case s.Not(inner):
            answer = evaluate(inner, given)
            return [not each for each in answer] if s.is_vector(inner) else not answer
        case s.Quantifier(every, inner):
            return (all if every else any)(evaluate(inner, given))
        case s.Combine(op, tests):
            answers = [evaluate(each, given) for each in tests]
            if s.is_vector(test):
                return [_join(op, row) for row in zip(*answers, strict=False)]
            return _join(op, answers)
        case _:
            if s.each_in(test.left):
                return [_holds(test, each, given) for each in _many(test.left, given)]
            return _holds(test, value_of(test.left, given), given)


def _join(op: str, answers: Any) -> bool:
    if op == "xor":
        return sum(map(bool, answers)) % 2 == 1
    return all(answers) if op == "and" else any(answers)


def _holds(test: Any, value: Any, given: Facts) -> bool:
    if value is None:
        return False
    match test:
        case s.Compare(op, _, right):
            other = value_of(right, given)
            return other is not None and _ORDER[op](value, other)
        case s.Contains(_, needle):
            return needle in value
        case s.Matches(_, pattern):
            return re2._Regexp.search(compile_pattern(pattern), value) is not None
        case s.Wildcard(_, pattern, strict):
            pieces = split(pattern if strict else pattern.lower())
            return find(pieces, value if strict else value.lower()) is not None  # type: ignore[arg-type]
        case s.In(_, items):
            return any(value == item if isinstance(item, bytes) else item[0] <= value <= item[1] for item in items)
        case s.InList(_, name):
            return value in CONTAINERS[name]
        case s.BitAnd(_, right):
            mask = value_of(right, given)
            return mask is not None and value & mask != 0
    raise AssertionError(test)


def _many(value: Any, given: Facts) -> list[Any]:
    """What a chain with `[*]` stands for."""
    if isinstance(value, s.Each):
        bases = _many(value.base, given) if s.each_in(value.base) else [value_of(value.base, given)]
        return [item for base in bases if base is not None for item in (base.values() if isinstance(base, dict) else base)]
    found = [_at(base, value.key) for base in _many(value.base, given)]
    return [each for each in found if each is not None]


def _at(base: Any, key: Any) -> Any:
    if base is None:
        return None
    if isinstance(base, dict):
        return base.get(key)
    return base[key] if key < len(base) else None


def value_of(value: Any, given: Facts) -> Any:
    """A value; None where it is missing."""
    match value:
        case s.Literal(content):
            return content
        case s.Field(name):
            return getattr(given, FIELDS[name].slot)
        case s.Index(base, key):
            return _at(value_of(base, given), key)
        case s.Call(name, args):
            function = FUNCTIONS[name]
            prepared: list[Any] = [arg.value if isinstance(arg, s.Literal) else None for arg in args]
            if function.prepare is not None:
                prepared = function.prepare(prepared)
            rest = [
                made if isinstance(arg, s.Literal) else value_of(arg, given)
                for arg, made in zip(args[1:], prepared[1:], strict=False)
            ]
            run = runner(name, args[0].type)
            if value.mapped:
                return [run(each, *rest) for each in _many(args[0], given)]
            first = prepared[0] if isinstance(args[0], s.Literal) else value_of(args[0], given)
            if not function.takes_missing and (first is None or any(each is None for each in rest)):
                return None
            return run(first, *rest)
    raise AssertionError(value)


# -- random trees ----------------------------------------------------------------------------------------------------

_BYTES = st.one_of(st.sampled_from([b"example.org", b"a", b"x", b"1", b"", b"sqlmap", b'"\\', b"\xff"]), st.binary(max_size=6))
_NUMBERS = st.integers(-5, 600)
_CODES = st.one_of(st.sampled_from([0x0A000001, 0xCB007107, (1 << 32) + 1]), st.integers(0, LAST))
_STRING_FIELDS = (
    "http.host", "http.user_agent", "http.request.uri.path", "http.request.method", "cf.tls_version", "ip.src.country",
    "http.request.uri.path.extension",
)  # fmt: skip
_INT_FIELDS = ("cf.threat_score", "cf.bot_management.score", "http.request.timestamp.sec", "cf.edge.server_port")
_ARRAYS = ("http.request.headers.names", "http.request.uri.args.values", "cf.llm.prompt.pii_categories")
_MAPS = ("http.request.headers", "http.request.uri.args", "http.request.jwt.claims.aud")


def field(name: str) -> s.Field:
    """A field."""
    return s.Field(name, FIELDS[name].type)


def _array() -> st.SearchStrategy[Any]:
    keys = st.sampled_from([b"x-a", b"a", b"none"])
    of_map = st.builds(lambda name, key: s.Index(field(name), key, FIELDS[name].type.of), st.sampled_from(_MAPS),
        keys)  # type: ignore[arg-type]
    return st.one_of(st.sampled_from(_ARRAYS).map(field), of_map)


def _strings(depth: int = 2) -> st.SearchStrategy[Any]:
    plain = st.sampled_from(_STRING_FIELDS).map(field)
    item = st.builds(lambda base, at: s.Index(base, at, s.BYTES), _array(), st.integers(0, 3))
    if not depth:
        return st.one_of(plain, item)
    inner = _strings(depth - 1)
    literal = st.builds(lambda each: s.Literal(each, s.BYTES), _BYTES)
    return st.one_of(
        plain, item,
        st.builds(lambda name, each: s.Call(name, (each,), s.BYTES), st.sampled_from(["lower", "upper", "url_decode"]), inner),
        st.builds(lambda one, other: s.Call("concat", (one, other), s.BYTES), inner, st.one_of(inner, literal)),
    )  # fmt: skip


def _ints() -> st.SearchStrategy[Any]:
    length = _strings(1).map(lambda each: s.Call("len", (each,), s.INT))
    return st.one_of(st.sampled_from(_INT_FIELDS).map(field), length)


def _elements() -> st.SearchStrategy[Any]:
    nested = st.sampled_from(_MAPS).map(lambda name: s.Each(s.Each(field(name), s.array(s.BYTES)), s.BYTES))
    indexed = st.sampled_from(_MAPS).map(lambda name: s.Index(s.Each(field(name), s.array(s.BYTES)), 0, s.BYTES))
    return st.one_of(_array().map(lambda base: s.Each(base, s.BYTES)), nested, indexed)


def _on_strings(left: st.SearchStrategy[Any], right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    literal = _BYTES.map(lambda each: s.Literal(each, s.BYTES))
    stars = st.lists(st.sampled_from([b"a", b"/", b"\\*", b"\\\\", b"X", b"org"]), max_size=4).map(b"*".join)
    patterns = st.sampled_from(["sqlmap", "a|b", "^/p", r"\.php$", r"[a-z]+\s?x", "(?i)PATH", ".", 'a"b', r"\x41"])
    return st.one_of(
        st.builds(s.Compare, st.sampled_from(sorted(_ORDER)), left, st.one_of(literal, right)),
        st.builds(s.Contains, left, _BYTES),
        st.builds(s.Matches, left, patterns),
        st.builds(s.Wildcard, left, stars, st.booleans()),
        st.builds(s.In, left, st.lists(_BYTES, max_size=4).map(tuple)),
        st.builds(lambda each: s.InList(each, "words"), left),
    )


def _comparisons() -> st.SearchStrategy[Any]:
    number = _NUMBERS.map(lambda each: s.Literal(each, s.INT))
    ranges = st.tuples(_NUMBERS, _NUMBERS).map(lambda pair: (min(pair), max(pair)))
    nets = st.tuples(_CODES,
        _CODES).map(lambda pair: tuple(sorted(pair)) if (pair[0] < 1 << 32) == (pair[1] < 1 << 32) else (pair[0],) * 2)
    address = st.just(field("ip.src"))
    return st.one_of(
        _on_strings(_strings(), _strings(1)),
        st.builds(s.Compare, st.sampled_from(sorted(_ORDER)), _ints(), st.one_of(number, _ints())),
        st.builds(s.In, _ints(), st.lists(ranges, max_size=4).map(tuple)),
        st.builds(s.BitAnd, _ints(), st.one_of(number, _ints())),
        st.builds(s.Compare, st.sampled_from(sorted(_ORDER)), address, _CODES.map(lambda each: s.Literal(each, s.IP))),
        st.builds(s.In, address, st.lists(nets, max_size=4).map(tuple)),
        st.builds(lambda each: s.InList(each, "nets"), address),
        st.sampled_from(["ssl", "cf.client.bot"]).map(lambda name: s.Truth(field(name))),
        st.builds(lambda one, prefix: s.Truth(s.Call("starts_with", (one, s.Literal(prefix, s.BYTES)), s.BOOL)), _strings(1),
            _BYTES),
    )


def _combined(tests: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def combine(op: Any, parts: list[Any]) -> Any:
        # A flat list is what text reads back to: the first part of an `and` is no `and`.
        flat: list[Any] = []
        for part in parts:
            flat += part.tests if isinstance(part, s.Combine) and part.op == op and not flat else [part]
        return s.Combine(op, tuple(flat))

    return st.one_of(
        tests.map(s.Not), st.builds(combine, st.sampled_from(["and", "or", "xor"]), st.lists(tests, min_size=2, max_size=3))
    )


def trees() -> st.SearchStrategy[Any]:
    """Random well-typed trees, as the parser makes them."""
    vector = st.recursive(_on_strings(_elements(), _strings(1)), _combined, max_leaves=3)
    quantified = st.builds(s.Quantifier, st.booleans(), vector)
    mapped = _elements().map(lambda each: s.Each(s.Call("lower", (each,), s.array(s.BYTES), mapped=True), s.BYTES))
    over_calls = st.builds(lambda every, one, needle: s.Quantifier(every, s.Contains(one, needle)), st.booleans(), mapped, _BYTES)
    return st.recursive(
        st.one_of(_comparisons(), quantified, over_calls, st.booleans().map(s.Constant)), _combined, max_leaves=6
    )
