# How the edge's own failures look to a chat client: official SDKs must raise the right exception from them.
"""Errors in the dialects of OpenAI (chat and responses) and Anthropic, before and in the middle of a stream.

Shapes and what the SDKs make of them: docs/decisions.md, "Errors in the caller's dialect".
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from edgeproxy.faults import Fault, Source

_encode = msgspec.json.encode

_OPENAI_TYPES: Final = {
    400: "invalid_request_error", 401: "invalid_request_error", 403: "permission_error", 404: "invalid_request_error",
    408: "timeout_error", 413: "invalid_request_error", 429: "rate_limit_error", 503: "overloaded_error",
    504: "timeout_error",
}  # fmt: skip
_ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    408: "timeout_error", 413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error",
    504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip
_SEQUENCE = re.compile(rb'"sequence_number"\s*:\s*(\d{1,9})')


def error_body(dialect: str, fault: Fault, ray: str) -> bytes:
    """The JSON body of an error reply.

    Args:
        dialect: `openai`, `responses` or `anthropic`.
        ray: id of the exchange, so that a user can quote it.
    """
    if dialect == "anthropic":
        return _encode({"type": "error", "error": _anthropic(fault), "request_id": ray})
    return _encode({"error": _openai(fault)})


def stream_error(dialect: str, fault: Fault, tail: bytes) -> bytes | None:
    """The event that ends a broken stream, None when the stream does not stand at an event boundary.

    An event put into the middle of another one would only be a parse error; then a reset alone is the honest end.

    Args:
        tail: the last bytes that were passed on.
    """
    if not tail.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")):
        return None
    if dialect == "anthropic":
        return b"event: error\ndata: " + _encode({"type": "error", "error": _anthropic(fault)}) + b"\n\n"
    if dialect == "responses":
        numbers = _SEQUENCE.findall(tail)
        event = {
            "type": "error",
            "code": fault.reason,
            "message": fault.message,
            "param": None,
            "sequence_number": int(numbers[-1]) + 1 if numbers else 0,
        }
        return b"event: error\ndata: " + _encode(event) + b"\n\n"
    return b"data: " + _encode({"error": _openai(fault)}) + b"\n\n"


def _openai(fault: Fault) -> dict[str, str | None]:
    kind = fault.kind or _OPENAI_TYPES.get(fault.status)
    if kind is None:
        kind = "invalid_request_error" if fault.source is Source.CLIENT else "server_error"
    return {"message": fault.message, "type": kind, "param": None, "code": fault.reason}


def _anthropic(fault: Fault) -> dict[str, str]:
    kind = _ANTHROPIC_TYPES.get(fault.status)
    if kind is None:
        kind = "invalid_request_error" if fault.source is Source.CLIENT else "api_error"
    return {"type": kind, "message": fault.message}
