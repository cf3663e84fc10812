# The access log: JSON lines, one per finished request. The hot path fills in the numbers of a prepared line and appends
# it to a list; how lines reach the disk is lines.py's business.
"""The lines of the access log, and their writer.

Secrets never get in: a line has no field for header values other than the user agent, none for bodies, and a path is
cut at its query string (queries carry API keys).
"""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar, Final

import msgspec

from edgeproxy.observe.lines import BATCH, LineWriter

__all__ = ["BATCH", "AccessLogWriter", "line", "score_piece", "static_part", "with_limits", "with_rules", "with_score"]

MAX_TEXT: Final = 2048  # characters kept of a path
MAX_AGENT: Final = 512  # characters kept of a user agent, an outcome
MAX_NAME: Final = 64  # and of a verified bot's name, which the operator may have made
_ROUTE: Final = b',"route":'
_encode = msgspec.json.encode


def static_part(*, client: str, protocol: str, method: bytes, host: bytes, path: bytes, route: str, agent: bytes) -> bytes:
    """The end of a line, the same for every request with the same head: made once per head, not per request.

    Args:
        path: without a query; what follows a `?` is cut off here again, because queries carry keys.
        method, host, path, agent: as received; long ones are cut.
    """
    return _encode({
        "client": client,
        "protocol": protocol,
        "method": method.decode("latin-1"),
        "host": host.decode("latin-1")[:MAX_AGENT],
        "path": path.partition(b"?")[0].decode("latin-1")[:MAX_TEXT],
        "user_agent": agent.decode("latin-1")[:MAX_AGENT],
        "route": route,  # last: rules may want another one
    })[1:] + b"\n"  # fmt: skip


def with_rules(static: bytes, rules: tuple[str, ...], tags: tuple[str, ...]) -> bytes:
    """A static part that also names the rules that matched, in order, and the tags that they set."""
    named = static[:-2] + b',"rules":' + _encode(rules)
    return named + (b',"tags":' + _encode(tags) if tags else b"") + b"}\n"


def with_score(static: bytes, piece: bytes) -> bytes:
    """A static part that also says who sent the request: see `score_piece`."""
    return static[:-2] + piece


@lru_cache(1024)  # clients with the same program come again and again, on other connections
def score_piece(
    score: int, source: str, detections: tuple[int, ...], reasons: tuple[str, ...], verified: str, passed: bool, ja4: str
) -> bytes:  # fmt: skip
    """The end of a line that tells of a score. All text in it is our own: an attacker who writes it writes little.

    Args:
        source: of the score, in Cloudflare's words.
        detections: numbers of heuristics; reasons: the weightiest, by name.
        verified: name of a verified bot, "" for others.
        passed: the client has passed a challenge.
        ja4: "" unknown.
    """
    more: dict[str, object] = {"bot_score": score, "bot_source": source}
    if detections:
        more["bot_detections"] = detections
    if reasons:
        more["bot_reasons"] = reasons
    if verified:
        more["verified_bot"] = verified[:MAX_NAME]
    if passed:
        more["challenge_passed"] = True
    if ja4:
        more["ja4"] = ja4
    return b"," + _encode(more)[1:] + b"\n"


@lru_cache(256)  # an attack is refused with the same head again and again
def with_limits(static: bytes, limits: tuple[str, ...]) -> bytes:
    """A static part, with or without rules, that also names limits: those that refused, and those on trial that would have."""
    return static[:-2] + b',"limits":' + _encode(limits) + b"}\n"


def with_route(static: bytes, route: str) -> bytes:
    """A static part, straight from `static_part`, with another route."""
    return static[: static.rindex(_ROUTE)] + _ROUTE + _encode(route) + b"}\n"


def line(
    now: float, ray: bytes, status: int, bytes_in: int, bytes_out: int, seconds: float, first: float | None,
    upstream: bytes, outcome: str, static: bytes,
) -> bytes:  # fmt: skip
    """One line of the log.

    Args:
        now: Unix time.
        ray: id of the exchange, hex digits.
        status: 0 when the client left before there was any.
        bytes_in, bytes_out: of bodies.
        seconds: from the head's arrival to the end.
        first: seconds to the reply's head, None when there was none.
        upstream: label of the target as JSON, or b"null".
        outcome: `ok`, `client_gone`, or source and reason of a fault; from our own tables, never text from outside.
        static: from `static_part`.
    """
    duration = b"%.3f" % (seconds * 1000)
    # A reply in one piece begins when it ends.
    began = duration if first == seconds else b"null" if first is None else b"%.3f" % (first * 1000)
    return (
        b'{"time":%.3f,"ray":"%b","status":%d,"bytes_in":%d,"bytes_out":%d,"duration_ms":%b,"first_byte_ms":%b,'
        b'"upstream":%b,"outcome":"%b",%b'
    ) % (now, ray, status, bytes_in, bytes_out, duration, began, upstream, outcome.encode("ascii"), static)


class AccessLogWriter(LineWriter):
    """The writer of the access log."""

    __slots__ = ()
    what: ClassVar[str] = "access log"
    counter: ClassVar[str] = "log_dropped"
