# Which parts of a request an expression looks at, and which of those may hold what nobody should see in a log.
"""`reads` lists the parts, as small as the expression names them; `credential` and `private` say what to keep quiet about.

A *credential* opens doors (a cookie, a token, a key). What is *private* may hold one, or a person's words: queries, bodies
and everything that is made of them.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

from edgeproxy.rules.facts import Facts
from edgeproxy.rules.fields import FIELDS
from edgeproxy.rules.runtime import leaves
from edgeproxy.rules.syntax import (
    BitAnd,
    Call,
    Combine,
    Compare,
    Constant,
    Each,
    Field,
    Index,
    Literal,
    Not,
    Quantifier,
    Test,
    Truth,
    Value,
    each_in,
)  # fmt: skip

Read = Field | Index | Each

# Words in the name of a header whose value is a credential: better one too many than one too few.
_WORDS: Final = (
    b"auth", b"cookie", b"token", b"secret", b"pass", b"api-key", b"apikey", b"signature", b"credential", b"session", b"jwt",
    b"assertion", b"oidc", b"dpop", b"otp", b"csrf", b"xsrf", b"bearer", b"cert", b"hmac",
    b"verify",  # `x-origin-verify`: how an origin knows its edge
)  # fmt: skip
_CREDENTIALS: Final = frozenset({"http.cookie", "http.request.cookies"})
_HEADERS: Final = (
    "http.request.headers", "http.request.headers.values", "http.response.headers", "http.response.headers.values",
)  # fmt: skip
_ARGUMENTS: Final = frozenset({"http.request.uri.args", "http.request.body.form"})
_PRIVATE: Final = (
    "http.request.uri.query", "http.request.uri.args", "http.request.full_uri", "http.request.body.", "http.referer",
    "http.request.jwt.", "http.request.headers.values", "http.response.headers.values",
)  # fmt: skip


def secret_header(name: bytes) -> bool:
    """Whether the value of a header (name in lower case) is a credential."""
    return name.endswith(b"-key") or any(word in name for word in _WORDS)


def reads(node: Test | Value) -> tuple[Read, ...]:
    """The fields that a test or value reads, each as far as it is indexed, in the order they are written."""
    return tuple(dict.fromkeys(_reads(node)))


def _reads(node: Test | Value) -> list[Read]:
    match node:
        case Field():
            return [node]
        case Index(base) | Each(base):
            # `lower(x)[0]` reads x.
            return [node] if isinstance(root(node), Field) else _reads(base)
        case Literal() | Constant():
            return []
        case Call(_, parts) | Combine(_, parts):
            return [each for part in parts for each in _reads(part)]
        case Truth(inner) | Not(inner):
            return _reads(inner)
        case Quantifier(_, inner):
            return _reads(inner)
        case Compare(_, left, right) | BitAnd(left, right):
            return [*_reads(left), *_reads(right)]
        case _:
            return _reads(node.left)


def root(value: Value) -> Value:
    """What a chain of indices begins with."""
    while isinstance(value, Index | Each):
        value = value.base
    return value


def credential(read: Read) -> bool:
    """Whether a part of a request is a credential, or a whole that may have one in it."""
    name, path = _parts(read)
    name = name.removeprefix("raw.")
    if name in _CREDENTIALS:
        return True
    if name in _HEADERS:
        key = next((step for step in path if isinstance(step, bytes)), None)
        return key is None or secret_header(key)
    return False


def whole(read: Read) -> bool:
    """Whether a part is all headers at once, not one of them."""
    name, path = _parts(read)
    return name.removeprefix("raw.") in _HEADERS and not any(isinstance(step, bytes) for step in path)


def secret_argument(read: Read) -> bool:
    """Whether a part is an argument of the query or a form whose name says that it is a credential."""
    name, path = _parts(read)
    key = next((step for step in path if isinstance(step, bytes)), b"")
    return name.removeprefix("raw.") in _ARGUMENTS and secret_header(key.lower())


def private(read: Read) -> bool:
    """Whether a part of a request is a credential, or may hold one or a person's words."""
    name, _ = _parts(read)
    plain = name.removeprefix("raw.")
    return plain == "http.request.uri" or plain.startswith(_PRIVATE) or credential(read)


def source(read: Read) -> Callable[[Facts], Any]:
    """What gives the value of a part: None where it is missing, a list where there is an `[*]` in it."""
    name, path = _parts(read)
    field = attrgetter(FIELDS[name].slot)
    if not path:
        return field
    if each_in(read):
        return lambda facts: leaves(field(facts), path)
    return lambda facts: next(iter(leaves(field(facts), path)), None)


def _parts(read: Read) -> tuple[str, tuple[int | bytes | None, ...]]:
    """The field's name, and the steps from there; None is `[*]`."""
    path: list[int | bytes | None] = []
    value: Value = read
    while isinstance(value, Index | Each):
        path.append(value.key if isinstance(value, Index) else None)
        value = value.base
    assert isinstance(value, Field)
    return value.name, tuple(reversed(path))
