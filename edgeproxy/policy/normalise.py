# What a path means is decided once, here, before routing: a path that could mean two things is refused.
"""Request targets in one form (RFC 3986 §6.2.2, RFC 9110 §4.2.3).

Rules, routes and the upstream must see the same path. A target that decoders disagree about (escaped slashes, dot
segments, backslashes, control bytes) is refused instead of repaired: repairing it here and not at the upstream is how
access rules are passed by.
"""

from __future__ import annotations

import re

# Characters that RFC 3986 allows in a path or query, as bytes; everything else must come percent-encoded.
_PLAIN = re.compile(rb"/[A-Za-z0-9\-_~!$&'()*+,;=:@/.]*(?:\?[A-Za-z0-9\-._~!$&'()*+,;=:@/?%\[\]|{}^`\"<>\\]*)?")
_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# Escapes of bytes that decide structure or end strings: / \ NUL CR LF and other controls, DEL.
_BAD_ESCAPE = re.compile(rb"%(?:2[fF]|5[cC]|[01][0-9A-Fa-f]|7[fF])")
# Escapes of characters that need none (RFC 3986 §2.3): `/%761/` is `/v1/` to an upstream and not to a prefix.
_NEEDLESS_ESCAPE = re.compile(rb"%(?:2[dDeE]|3[0-9]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aAeE])")
_DOT_SEGMENT = re.compile(rb"/(?:\.|%2[eE]){1,2}(?:/|$|;)")
_PATH = re.compile(rb"/[\x21\x22\x24-\x3e\x40-\x5b\x5d-\x7e\x80-\xff]*")


def path_problem(target: bytes) -> str | None:
    """Why an origin-form target is refused, None when it is fine.

    Args:
        target: path with optional query, as received, starting with `/`.
    """
    # The common case: nothing encoded, no dot that starts a segment, no doubled slash. One scan in C.
    if _PLAIN.fullmatch(target) is not None and b"//" not in target and b"/." not in target:
        return None
    path, _, query = target.partition(b"?")
    if _PATH.fullmatch(path) is None:
        return "the path has a character that must be percent-encoded (a space, a control, '#', '\\')"
    if b"#" in query or _controls(query):
        return "the query has a character that must be percent-encoded (a space, a control, '#')"
    if b"//" in path:
        return "the path has an empty segment ('//')"
    if _ESCAPE.search(path) is not None:
        return "the path has a '%' that is not followed by two hex digits"
    if _BAD_ESCAPE.search(path) is not None:
        return "the path has an escaped slash, backslash or control character"
    if _DOT_SEGMENT.search(path) is not None:
        return "the path has a dot segment ('/./' or '/../')"
    if _NEEDLESS_ESCAPE.search(path) is not None:
        return "the path has an escaped letter, digit, '-', '.', '_' or '~': send it as it is"
    return None


def _controls(data: bytes) -> bool:
    return any(byte <= 0x20 or byte == 0x7F for byte in data)
