# The only step of the pipeline that waits for a body, and only on routes that decide by what is in it.
"""Preview: hold a request body, read what routing needs from it, then let everything go on as if nothing had waited."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edgeproxy.faults import client_fault, edge_fault

if TYPE_CHECKING:
    from edgeproxy.config.snapshot import Route
    from edgeproxy.exchange import Exchange


class _Model(msgspec.Struct):
    """What is read of a chat request: nothing else is decoded."""

    model: str | None = None


_decode = msgspec.json.Decoder(_Model).decode


def read_model(content: bytes) -> str | None:
    """The `model` of a chat request.

    Raises: msgspec.DecodeError when the content is not JSON, not an object, or its model is not a string.
    """
    return _decode(content).model


class Preview:
    """Holds the body of one exchange: its consumer until all of it is here, an `Attempt` for the exchange."""

    __slots__ = ("_exchange", "_parts", "_route", "_size")

    def __init__(self, exchange: Exchange, route: Route) -> None:
        self._exchange = exchange
        self._route = route
        self._parts: list[bytes] = []
        self._size = 0

    def begin(self) -> None:
        """Take what is here; decide at once when that is all."""
        exchange = self._exchange
        body = exchange.body
        length = exchange.request.length
        if body.done or (length is not None and length > self._route.preview):
            self._size = body.received if body.done else length or 0
            self._decide(body.take())
            return
        exchange.attempt = self
        data = body.take()
        body.consumer = self
        if exchange.sink is not None:
            exchange.sink.proceed()
        if data:
            self.body_data(data)

    def body_data(self, data: bytes) -> None:
        """More of the body."""
        self._parts.append(data)
        self._size += len(data)
        if self._size > self._route.preview:
            self._decide(b"")

    def body_end(self) -> None:
        """All of it."""
        if self._exchange.attempt is self:
            self._decide(b"".join(self._parts))

    def _decide(self, content: bytes) -> None:
        exchange, route = self._exchange, self._route
        exchange.attempt = None
        self._parts = []
        if self._size > route.preview:
            # Half a JSON document says nothing that a second `model` key further on could not take back.
            exchange.fail(
                client_fault(413, "preview_too_large", f"Bodies on this route may have at most {route.preview} bytes.")
            )
            return
        try:
            model = read_model(content)
        except (msgspec.DecodeError, UnicodeDecodeError):
            exchange.fail(client_fault(400, "body", "The request body is not a JSON object with a string 'model'."))
            return
        exchange.body.restore(content)
        pool = route.pool_for(model)
        if pool is None:
            exchange.fail(edge_fault(503, "upstream_gone", "The model's upstream was taken out of the configuration."))
        else:
            pool.submit(exchange)

    def pause(self) -> None:
        """Nothing is read for the client yet."""

    def resume(self) -> None:
        """Nothing is read for the client yet."""

    def cancel(self) -> None:
        """The client left."""
        self._parts = []
