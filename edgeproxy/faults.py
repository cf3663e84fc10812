# Everything that can go wrong with an exchange is a Fault; foreign exceptions are mapped to one at the boundary.
"""Faults: who failed, what status that is for the client, and the sentence that is shown.

A fault is data, not control flow: the hot path passes it along instead of raising it. `Fault` is an exception only so
that slow paths (connecting, compiling) can raise it.
"""

from __future__ import annotations

from enum import Enum


class Source(Enum):
    """Who failed. The value is the label used in metrics and in the access log."""

    CLIENT = "client"
    EDGE = "edge"
    UPSTREAM = "upstream"


class Fault(Exception):
    """One failure.

    Attributes:
        source: who failed.
        status: HTTP status for a client that has not been answered yet.
        reason: short stable label for metrics and logs (`head_too_large`).
        message: a sentence for people: what happened and what to do.
        retry: another attempt cannot repeat an effect (nothing reached the upstream, or it said so).
        fields: header fields that an answer with it has, too.
        kind: `type` of the error for OpenAI's clients, where it is not that of the status.
    """

    def __init__(self, source: Source, status: int, reason: str, message: str, *, retry: bool = False) -> None:
        super().__init__(message)
        self.source = source
        self.status = status
        self.reason = reason
        self.message = message
        self.retry = retry
        self.fields: list[tuple[bytes, bytes]] = []
        self.kind: str | None = None

    @property
    def outcome(self) -> str:
        """How the access log names it: `upstream: first_byte_timeout`."""
        return f"{self.source.value}: {self.reason}"


def client_fault(status: int, reason: str, message: str) -> Fault:
    """The client sent something it must not send."""
    return Fault(Source.CLIENT, status, reason, message)


def edge_fault(status: int, reason: str, message: str) -> Fault:
    """The edge refuses or cannot: limits, routing, shutdown."""
    return Fault(Source.EDGE, status, reason, message)


def upstream_fault(status: int, reason: str, message: str, *, retry: bool = False) -> Fault:
    """The upstream did not answer, or not in HTTP."""
    return Fault(Source.UPSTREAM, status, reason, message, retry=retry)


# Outcomes without a Fault object: they carry no status of their own.
OK = "ok"
CLIENT_GONE = "client_gone"
