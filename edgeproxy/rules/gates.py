# What a rule cannot hold without: one fact about a request that is quickly looked up for many rules at once.
"""`gate(test, lists)`: a necessary condition of a test, as atoms of which at least one is true whenever the test is.

A rule whose gate is closed is false and is not asked. So an atom may be true too often, which costs time, and never too
seldom, which would be a miss: words are compared in lower case, what stands in one element of a list is looked for in the
text that the list was read from, and where nothing certain can be said there is no gate at all (None). No atoms at all
(`NEVER`): the rule reads a field that this edge has no value for, or `false`, and holds for no request.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from edgeproxy.rules.addresses import V6, Range
from edgeproxy.rules.fields import FIELDS, FieldInfo, lower_slot
from edgeproxy.rules.functions import FUNCTIONS
from edgeproxy.rules.regexes import is_small
from edgeproxy.rules.required import required
from edgeproxy.rules.syntax import (
    BYTES,
    BitAnd,
    Call,
    Combine,
    Compare,
    Comparison,
    Constant,
    Contains,
    Each,
    Field,
    In,
    Index,
    Kind,
    Literal,
    Matches,
    Not,
    Quantifier,
    Test,
    Truth,
    Value,
    Wildcard,
)  # fmt: skip
from edgeproxy.rules.wildcards import split

MAX_ATOMS: Final = 64  # of one gate; a rule with more is asked itself


@dataclass(frozen=True, slots=True)
class Word:
    """A word, in lower case, is in the string (in lower case) at `slot`."""

    slot: str
    word: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """A pattern is found in the string at `slot`."""

    slot: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Equal:
    """The value at `slot` is this one."""

    slot: str
    value: bytes | int


@dataclass(frozen=True, slots=True)
class Within:
    """The number or address at `slot` lies in a range."""

    slot: str
    range: Range


@dataclass(frozen=True, slots=True)
class Member:
    """The list at `slot` has this element, or the map this key."""

    slot: str
    value: bytes | int


Atom = Word | Found | Equal | Within | Member
Gate = frozenset[Atom]
NEVER: Final[Gate] = frozenset()
LINES: Final = "header_lines"  # the names of header lines without the map of them all, which is dearer to make

# Text in which every element of a list or map stands as it is: elements are cut out of it.
_READ_FROM: Final = {
    "http.request.cookies": "lower_http_cookie",
    "http.request.headers": "lower_header_text",
    "http.request.headers.values": "lower_header_text",
    **{
        f"{raw}http.request.uri.args{part}": f"lower_{raw.replace('.', '_')}http_request_uri_query"
        for raw in ("", "raw.") for part in ("", ".names", ".values")
    },
}  # fmt: skip
_COOKIES: Final = "http.request.cookies"
_HEADERS: Final = "http.request.headers"
_NAMES: Final = f"{_HEADERS}.names"

# -- how seldom an atom is true: only the order counts, and whether it is worth a look --------------------------------

WORTH: Final = 3
_WIDE: Final = 1 << 24  # a /8, of IPv6 a /32
_COMMON_VALUES: Final = frozenset({b"GET", b"HEAD", b"POST", b"OPTIONS", b"HTTP/1.1", b"HTTP/2", b"HTTP/3", b"/", b""})
# What the heads of most requests have in them: agents of browsers, paths of chat APIs, types, origins.
_COMMON_TEXT: Final = b"""mozilla/5.0 (windows nt 10.0; win64; x64) applewebkit/537.36 (khtml, like gecko) chrome/ safari/
    macintosh;    intel mac os x linux x86_64 iphone; android mobile firefox/ edg/ openai/python /v1/chat/completions /v1/messages
    /v1/responses /api/ /static/ /assets/ /index.html application/json text/event-stream https://www. http:// .com .org"""
_COMMON_NAMES: Final = frozenset({
    b"host", b"user-agent", b"accept", b"accept-encoding", b"accept-language", b"content-type", b"content-length", b"cookie",
    b"origin", b"referer", b"authorization",
})  # fmt: skip


def rarity(atom: Atom) -> int:
    """About how seldom an atom is true; below `WORTH` it says too little to be asked first."""
    match atom:
        case Word(_, word):
            return 1 if word in _COMMON_TEXT else min(len(word), 8)
        case Found():
            return 4
        case Equal(slot, value):
            return 1 if value in _COMMON_VALUES else 4 if slot.endswith("http_host") else 9
        case Within(_, (first, last)):
            return 7 if last - first < (_WIDE if first < V6 else _WIDE << 72) else 1
        case Member(_, value):
            return 1 if value in _COMMON_NAMES else 7


def _worth(one: Gate) -> float:
    """Of a gate; the fewer atoms the better."""
    return min(map(rarity, one), default=100) - len(one) / (MAX_ATOMS + 1)


# -- tests -----------------------------------------------------------------------------------------------------------


def gate(test: Test) -> Gate | None:
    """The gate of a test, or, for a vector, of `any` of it."""
    match test:
        case Constant(value):
            return None if value else NEVER
        case Truth(value):
            return NEVER if never(value) else _truth(value)
        case Combine("and", tests):
            return _narrowest(map(gate, tests))
        case Combine("or", tests):
            return _united(map(gate, tests))
        case Quantifier(every, inner):
            return None if every else gate(inner)
        case Not() | Combine():
            return None
        case _:
            if never(test.left) or (isinstance(test, Compare | BitAnd) and never(test.right)):
                return NEVER
            return _comparison(test)


def _narrowest(gates: Iterable[Gate | None]) -> Gate | None:
    return max((each for each in gates if each is not None), key=_worth, default=None)


def _united(gates: Iterable[Gate | None]) -> Gate | None:
    atoms: set[Atom] = set()
    for each in gates:
        if each is None:
            return None
        atoms |= each
    return frozenset(atoms) if len(atoms) <= MAX_ATOMS else None


def never(value: Value) -> bool:
    """Whether a value is missing from every request: it is made of a field that this edge does not know."""
    match value:
        case Literal():
            return False
        case Field(name):
            return not FIELDS[name].known
        case Index(base) | Each(base):
            return never(base)
        case Call(name, args):
            if value.mapped:
                return False  # an array, empty where its first argument is missing
            return not FUNCTIONS[name].takes_missing and any(map(never, args))


def _truth(value: Value) -> Gate | None:
    if not isinstance(value, Call) or len(value.args) != 2 or not isinstance(value.args[1], Literal):
        return None
    first, literal = value.args[0], value.args[1].value
    assert isinstance(literal, bytes)
    if value.name in ("starts_with", "ends_with"):
        return _words(first, (literal,))
    if value.name in ("has_key", "has_value") and isinstance(first, Field):
        return _member(first, literal)
    return None


def _comparison(test: Comparison) -> Gate | None:
    key = _key(test.left)
    if key is not None:
        return key
    values = _values(test)
    if values is not None:
        return _one_of(test.left, values)
    match test:
        case Contains(left, needle):
            return _words(left, (needle,))
        case Matches(left, pattern):
            words = required(pattern)
            found = _words(left, words) if words is not None else None
            if found is not None and min(map(rarity, found)) >= WORTH:
                return found
            if not isinstance(left, Field) or not is_small(pattern):
                return None
            return frozenset({Found(FIELDS[left.name].slot, pattern)})
        case Wildcard(left, pattern):
            pieces = split(pattern)
            return _words(left, (max(pieces, key=len),)) if isinstance(pieces, list) else None
        case _:
            return None  # an order, a bit, a named list: no look-up is cheaper than the comparison itself


def _values(test: Comparison) -> tuple[bytes | Range, ...] | None:
    """What `value eq literal` and `value in {…}` compare with; a number is a range of one."""
    if isinstance(test, In):
        return test.items if len(test.items) <= MAX_ATOMS else None
    if isinstance(test, Compare) and test.op == "eq" and isinstance(test.right, Literal):
        literal = test.right.value
        return (literal,) if isinstance(literal, bytes) else ((literal, literal),)
    return None


def _one_of(left: Value, values: tuple[bytes | Range, ...]) -> Gate | None:
    if isinstance(left, Field) and left.type.of is None:
        slot = FIELDS[left.name].slot
        return frozenset(Equal(slot, each) if isinstance(each, bytes) else Within(slot, each) for each in values)
    words = tuple(each for each in values if isinstance(each, bytes))
    if len(words) != len(values):
        return None
    if isinstance(left, Call) and left.name == "lower" and isinstance(left.args[0], Field) and not left.mapped:
        return frozenset(Equal(lower_slot(FIELDS[left.args[0].name]), word) for word in words)
    base = left.base if isinstance(left, Each | Index) else None
    if isinstance(base, Field) and base.type.kind is Kind.ARRAY:
        return _united(_member(base, word) for word in words)
    return _words(left, words)


def _member(field: Field, value: bytes) -> Gate | None:
    """The list or map `field` has an element or a key."""
    if field.name in (_HEADERS, _NAMES):
        # The map has one name more than there are lines: that of Host.
        return frozenset({Member(LINES, value)}) if value != b"host" else None
    text = _READ_FROM.get(field.name) if field.name != _COOKIES else None  # names of cookies are decoded
    if text is not None and len(value) >= WORTH:
        return frozenset({Word(text, value.lower())})  # to take the text to pieces is dearer
    keys = FIELDS.get(field.name.removesuffix(".names"), FIELDS[field.name])
    return frozenset({Member(keys.slot if keys.type.kind is Kind.MAP else FIELDS[field.name].slot, value)})


def _key(left: Value) -> Gate | None:
    """The gate of whatever is said about `map["key"]`."""
    while isinstance(left, Index | Each):
        if isinstance(left, Index) and isinstance(left.key, bytes) and isinstance(left.base, Field):
            return _member(left.base, left.key)
        left = left.base
    return None


def _words(left: Value, words: Iterable[bytes]) -> Gate | None:
    """One of some words is in a string, or in an element of a list of them."""
    slot = _text(left)
    found = frozenset(Word(slot, word.lower()) for word in words) if slot is not None else None
    return found if found and all(atom.word for atom in found) else None


def _text(value: Value) -> str | None:
    """The slot of text, in lower case, in which a string stands, whatever its letters' case."""
    while True:
        match value:
            case Field(name):
                info: FieldInfo = FIELDS[name]
                return lower_slot(info) if info.type == BYTES else _READ_FROM.get(name)
            case Each(base) | Index(base):
                value = base
            case Call("lower" | "upper", (inner,)):
                value = inner
            case _:
                return None
