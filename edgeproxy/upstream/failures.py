# What is said about a reply that failed: every fault of a connection to an upstream is worded in this file.
"""Faults of upstream connections; statuses are RFC 9110 §15.6.3 (502) and §15.6.5 (504)."""

from __future__ import annotations

from edgeproxy.faults import Fault, upstream_fault

_STOPPED = {"first_byte": "did not begin to answer", "idle": "stopped in the middle of its answer"}


def not_http() -> Fault:
    """The first bytes are those of another protocol."""
    return upstream_fault(502, "reply_version", "The upstream does not answer in HTTP/1.x.")


def malformed(error: Exception) -> Fault:
    """The parser objects."""
    return upstream_fault(502, "malformed_reply", f"The upstream's reply is not valid HTTP/1.1: {error}.")


def too_large() -> Fault:
    """More head than anyone needs."""
    return upstream_fault(502, "reply_head_too_large", "The upstream's reply head is too large.")


def framing() -> Fault:
    """RFC 9112 §6.3: two framings, or one we cannot read: the end of this message is anyone's guess."""
    return upstream_fault(502, "reply_framing", "The upstream's reply has contradicting or unknown framing.")


def status(code: int) -> Fault:
    """No status of HTTP, or one that nothing led to."""
    return upstream_fault(502, "reply_status", f"The upstream answered with the status {code}.")


def switched() -> Fault:
    """A 101 that nobody asked for, or to another protocol."""
    return upstream_fault(502, "reply_status", "The upstream switched protocols without being asked.")


def truncated() -> Fault:
    """The connection ended before the reply did."""
    return upstream_fault(502, "truncated", "The upstream closed the connection before its reply was complete.")


def closed(error: Exception | None, *, retry: bool) -> Fault:
    """The connection ended before a head came."""
    detail = f" ({error})" if error is not None else ""
    return upstream_fault(502, "closed", f"The upstream closed the connection before it answered{detail}.", retry=retry)


def timeout(phase: str) -> Fault:
    """`first_byte`, `idle` or `total` took too long."""
    what = _STOPPED.get(phase, "did not finish its answer")
    return upstream_fault(504, f"{phase}_timeout", f"The upstream {what} in time.")
