# The only step of the pipeline that waits for a body, and only on routes that decide by what is in it.
"""Preview: hold a request body, read what routing needs from it, then let everything go on as if nothing had waited."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING

import msgspec

from edgeproxy.deadlines import NEVER
from edgeproxy.faults import Fault, client_fault, edge_fault

if TYPE_CHECKING:
    from edgeproxy.config.snapshot import Route
    from edgeproxy.exchange import Exchange
    from edgeproxy.upstream.pool import Pool


class _Model(msgspec.Struct):
    """What is read of a chat request: nothing else is decoded."""

    model: str | None = None


_decode = msgspec.json.Decoder(_Model).decode


def read_model(content: bytes) -> str | None:
    """The `model` of a chat request.

    Raises: msgspec.DecodeError when the content is not JSON, not an object, or its model is not a string.
    """
    return _decode(content).model


def read_pool(content: bytes, truncated: bool, route: Route) -> Pool | Fault:
    """The pool of the model that a held body names, or why there is none.

    Args:
        truncated: the body is longer than what was held.
    """
    if truncated:
        # Half a JSON document says nothing that a second `model` key further on could not take back.
        return client_fault(413, "preview_too_large", f"Bodies on this route may have at most {route.preview} bytes.")
    try:
        model = read_model(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return client_fault(400, "body", "The request body is not a JSON object with a string 'model'.")
    pool = route.pool_for(model)
    if pool is None:
        return edge_fault(503, "upstream_gone", "The model's upstream was taken out of the configuration.")
    return pool


Held = Callable[[bytes, bool], None]
"""Told of the bytes that were held, and whether there are more."""


def hold(exchange: Exchange, most: int, held: Held) -> None:
    """Hold the body of an exchange up to `most` bytes, then call `held`, which goes on with it: now, if it is all here."""
    body = exchange.body
    if not body.done:
        Preview(exchange, most, held).begin()
        return
    content = body.take()
    body.restore(content)
    held(content[:most] if len(content) > most else content, len(content) > most)


class Preview:
    """Holds the body of one exchange: its consumer until there is enough, an `Attempt` for the exchange meanwhile.

    What previews of a worker hold together is bounded, and so is the time that each has, however steadily bytes drip in:
    nobody but the client is waited for here, and no upstream's bounds hold yet. When it is too much, the largest one ends: so
    a few large bodies that do not come to an end keep nobody's small ones out.

    Attributes:
        deadline: see `Deadlines`.
        size: bytes that it holds.
    """

    __slots__ = ("_exchange", "_held", "_most", "_parts", "deadline", "size")

    def __init__(self, exchange: Exchange, most: int, held: Held) -> None:
        """Hold up to `most` bytes, then call `held`, which goes on with the exchange."""
        self._exchange = exchange
        self._most = most
        self._held: Held | None = held
        self._parts: list[bytes] = []
        self.size = 0
        self.deadline = NEVER

    def begin(self) -> None:
        """Take what is here."""
        exchange = self._exchange
        body = exchange.body
        exchange.attempt = self
        data = body.take()
        body.consumer = self
        deadlines = exchange.gateway.deadlines
        self.deadline = deadlines.now + exchange.plan.snapshot.client.timeouts.preview
        deadlines.members.add(self)
        exchange.gateway.previews.add(self)
        if exchange.sink is not None:
            exchange.sink.proceed()
        if data:
            self.body_data(data)

    def body_data(self, data: bytes) -> None:
        """More of the body."""
        if self._held is None:
            return
        gateway, size = self._exchange.gateway, len(data)
        self._parts.append(data)
        self.size += size
        gateway.held += size
        if self.size > self._most:
            self._decide(self._release())
        elif gateway.held > self._exchange.plan.snapshot.client.previews:
            # Each such look ends one of them, so that looking at all costs no more than their beginning did.
            max(gateway.previews, key=_size, default=self)._make_room(self)

    def body_end(self) -> None:
        """All of it."""
        if self._exchange.attempt is self:
            self._decide(self._release())

    def expire(self, now: float) -> None:
        """The body took too long."""
        del now
        self._give_up(client_fault(408, "preview_timeout", "The request body took too long to arrive."))

    def _make_room(self, newest: Preview) -> None:
        """This one is the largest: it or the newest one, which holds as much, gives up."""
        ends = self if self.size > newest.size else newest
        ends._give_up(edge_fault(503, "previews_full", "Too many request bodies are being read; try again shortly."))

    def _give_up(self, fault: Fault) -> None:
        self._release()
        self._held = None
        self._exchange.attempt = None
        self._exchange.fail(fault)

    def _release(self) -> bytes:
        """What was held; it no longer counts."""
        gateway = self._exchange.gateway
        gateway.held -= self.size
        gateway.deadlines.members.discard(self)
        gateway.previews.discard(self)
        parts, self._parts, self.size = self._parts, [], 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _decide(self, content: bytes) -> None:
        exchange, held = self._exchange, self._held
        self._held = None
        exchange.attempt = None
        exchange.body.restore(content)
        if held is not None:
            held(content[: self._most], len(content) > self._most)

    def pause(self) -> None:
        """Nothing is read for the client yet."""

    def resume(self) -> None:
        """Nothing is read for the client yet."""

    def cancel(self) -> None:
        """The client left."""
        self._release()
        self._held = None


_size = attrgetter("size")
