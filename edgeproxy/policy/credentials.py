# The edge's own keys stop at the edge, and an upstream gets the key that is its own; only these lines are touched here.
"""`swap`: credentials in forwarded fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edgeproxy.config.secret import Secret
    from edgeproxy.message import Headers

# Where a client may carry a key: OpenAI's, Anthropic's and Azure's way. Trailers have no business with any of them.
CARRIERS: Final = frozenset({b"authorization", b"x-api-key", b"api-key"})


def line(header: str, secret: Secret) -> bytes:
    """The value of an upstream's own credential.

    Args:
        header: `authorization` (then it is a bearer's), `x-api-key` or `api-key`.
    """
    return b"Bearer " + secret.reveal() if header == "authorization" else secret.reveal()


def swap(headers: Headers, header_name: bytes | None, secret_line: bytes) -> Headers:
    """The fields without any key of the client's, with the upstream's own where it has one.

    All three carriers go, whichever of them was believed: a second one would be the client's word to the upstream.

    Args:
        header_name: lower case; None: the upstream has no key of its own.
        secret_line: the value, as `line` makes it.

    Returns: a new list; lines that stay are the same objects, in their order.
    """
    kept = [pair for pair in headers if pair[0] not in CARRIERS]
    if header_name is not None:
        kept.append((header_name, secret_line))
    return kept
