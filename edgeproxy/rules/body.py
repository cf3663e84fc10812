# What rules read of a request body that was held for them. Who holds it, how much, and when, is not known here.
"""`HeldBody`, and the sources of `http.request.body.*`.

As at Cloudflare, nothing of a form is decoded (an expression says `url_decode(…)`), and only
`application/x-www-form-urlencoded` is a form: `multipart/form-data` is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from edgeproxy.message import Request
    from edgeproxy.rules.facts import Facts
    from edgeproxy.rules.fields import FieldInfo

MAX_PAIRS: Final = 1000  # of a form; what follows is not looked at
_FORM: Final = b"application/x-www-form-urlencoded"

Pairs = list[tuple[bytes, bytes]]


class _Named(msgspec.Struct):
    model: str | None = None


_decode = msgspec.json.Decoder(_Named).decode


class HeldBody(NamedTuple):
    """The beginning of a request body.

    Attributes:
        content: the bytes that were held.
        truncated: there are more than these.
    """

    content: bytes
    truncated: bool


_EMPTY: Final = HeldBody(b"", False)


def must_hold(info: FieldInfo, request: Request) -> bool:
    """Whether a field has its value only after the body of this request was held."""
    if not info.needs_body or request.length == 0:
        return False
    return request.length is None or not info.declared


def held(facts: Facts) -> HeldBody | None:
    """What is known of the body: of a request without one, everything."""
    body = facts.body
    return _EMPTY if body is None and facts.request.length == 0 else body


def raw(facts: Facts) -> bytes | None:
    """The bytes that were held."""
    body = held(facts)
    return body.content if body is not None else None


def truncated(facts: Facts) -> bool | None:
    """Whether there is more than rules see: bytes that were not held, or fields of a form that were not cut out."""
    body = held(facts)
    if body is None:
        return None
    return body.truncated or (is_form(facts) and body.content.count(b"&") >= MAX_PAIRS)


def model(facts: Facts) -> bytes | None:
    """The `model` of a chat request, all of which was held; None where there is none, and on routes without a dialect."""
    body = held(facts)
    if body is None or body.truncated or facts.dialect is None:
        return None
    try:
        found = _decode(body.content).model
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found.encode("utf-8", "surrogatepass") if found is not None else None


def size(facts: Facts) -> int | None:
    """Bytes of the whole body: declared, or counted where all of it was held. Where it was not, what is sure."""
    declared = facts.request.length
    if declared is not None:
        return declared
    body = facts.body
    return len(body.content) + body.truncated if body is not None else None


def media_type(value: bytes | None) -> bytes | None:
    """`text/html` of `Text/HTML; charset=utf-8`; None where nothing is declared."""
    if value is None:
        return None
    return value.partition(b";")[0].strip(b" \t").lower() or None


def form(facts: Facts) -> Pairs | None:
    """The fields of a form in their order; None where the body is none, or was not held."""
    body = held(facts)
    return pairs(body.content) if body is not None and is_form(facts) else None


def is_form(facts: Facts) -> bool:
    """Whether one of the Content-Types that were sent says so: who reads another one than this edge does sees a form."""
    return any(name == b"content-type" and media_type(value) == _FORM for name, value in facts.request.headers)


def pairs(content: bytes) -> Pairs:
    """`a=1&b=2` as pairs, the first MAX_PAIRS of them; a name without `=` has an empty value. Nothing is decoded."""
    found: Pairs = []
    # One more cut than pairs: what is behind the last one stays uncut, and is dropped.
    for part in content.split(b"&", MAX_PAIRS)[:MAX_PAIRS]:
        if part:
            name, _, value = part.partition(b"=")
            found.append((name, value))
    return found
