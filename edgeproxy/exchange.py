# One Exchange per request; it connects a sink with an upstream and knows how the whole thing ended.
"""`Exchange`: the only mutable object of the pipeline, from the head's arrival to the access-log line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edgeproxy.faults import CLIENT_GONE, OK

if TYPE_CHECKING:
    from edgeproxy.bots.score import Score
    from edgeproxy.config.snapshot import TargetSettings
    from edgeproxy.faults import Fault
    from edgeproxy.gateway import Gateway
    from edgeproxy.message import Body, Reply, Request, Sink
    from edgeproxy.plan import Plan
    from edgeproxy.ticket import Ticket
    from edgeproxy.tokens import Asked


class Attempt(Protocol):
    """What an exchange holds on to while an upstream works for it: a connection, a connect or a place in the queue."""

    def pause(self) -> None:
        """The client's side is full: stop reading."""

    def resume(self) -> None:
        """The client's side drained."""

    def cancel(self) -> None:
        """The exchange is over for the client: stop the upstream's work at once."""


class Exchange:
    """One request and its reply.

    Attributes (writer in brackets):
        gateway, plan, request, body, ray, started: given at the start; the plan pins its snapshot through reloads.
        sink: where the reply goes; None once the exchange is over [end].
        attempt: who works on it [upstream].
        served_by: the target that took the request, None before [upstream].
        status: 0 until the reply's head is sent [start].
        sent: bytes of body sent to the client [start, write].
        first: monotonic seconds when the reply's head was sent, 0.0 before [start].
        ticket, tried: what it was admitted with, and what limits on trial said [admission].
        asked: what it asks of a model, where limits count that [admission].
        limited: names of limits that refused it, or would have [ticket].
        score: who sent it, once somebody asked [botting].
    """

    __slots__ = (
        "asked", "attempt", "body", "first", "gateway", "limited", "plan", "ray", "request", "score", "sent", "served_by",
        "sink", "started", "status", "ticket", "tried",
    )  # fmt: skip

    def __init__(
        self, gateway: Gateway, plan: Plan, request: Request, body: Body, sink: Sink, ray: bytes, started: float
    ) -> None:
        self.gateway = gateway
        self.plan = plan
        self.request = request
        self.body = body
        self.sink: Sink | None = sink
        self.ray = ray
        self.started = started
        self.attempt: Attempt | None = None
        self.served_by: TargetSettings | None = None
        self.status = 0
        self.sent = 0
        self.first = 0.0
        self.asked: Asked | None = None
        self.score: Score | None = None
        self.ticket: Ticket | None = None
        self.tried: tuple[Ticket, ...] = ()
        self.limited: tuple[str, ...] = ()

    def start(self, reply: Reply, data: bytes, end: bool, outcome: str = OK) -> None:
        """Send the head and the first bytes. With `end` the exchange is complete."""
        sink = self.sink
        if sink is None:
            return
        if self.asked is not None:
            data = self.asked.take(data, end)
        self.status = reply.status
        self.first = now = self.gateway.time()
        self.sent = len(data)
        if end:
            # The record comes first: the sink may begin the connection's next exchange from inside `start`.
            self.gateway.end(self, outcome, now)
        sink.start(reply, data, end)

    def write(self, data: bytes, end: bool) -> None:
        """Send more of the body. With `end` the exchange is complete."""
        sink = self.sink
        if sink is None:
            return
        if self.asked is not None:
            data = self.asked.take(data, end)
            if not data and not end:
                return  # held back; an empty chunk would be the last one
        self.sent += len(data)
        if end:
            self.gateway.end(self, OK)
        sink.write(data, end)

    def fail(self, fault: Fault, tail: bytes = b"") -> None:
        """The edge or the upstream cannot go on: an error reply, or a reset when the head is out already."""
        self.gateway.fail(self, fault, tail)

    def cancel(self, outcome: str = CLIENT_GONE) -> None:
        """The client left (or broke its own request): stop all work for it and record. Nothing is sent."""
        if self.sink is None:
            return
        attempt, self.attempt = self.attempt, None
        self.body.drop()
        self.gateway.end(self, outcome)
        if attempt is not None:
            attempt.cancel()

    def pause(self) -> None:
        """The sink is full."""
        if self.attempt is not None:
            self.attempt.pause()

    def resume(self) -> None:
        """The sink drained."""
        if self.attempt is not None:
            self.attempt.resume()
