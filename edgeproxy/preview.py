# The only step of the pipeline that waits for a body, and only on routes that decide by what is in it.
"""Preview: hold a request body, read what routing needs from it, then let everything go on as if nothing had waited."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

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


class Preview:
    """Holds the body of one exchange: its consumer until there is enough, an `Attempt` for the exchange meanwhile."""

    __slots__ = ("_exchange", "_held", "_most", "_parts", "_size")

    def __init__(self, exchange: Exchange, most: int, held: Held) -> None:
        """Hold up to `most` bytes, then call `held`, which goes on with the exchange."""
        self._exchange = exchange
        self._most = most
        self._held: Held | None = held
        self._parts: list[bytes] = []
        self._size = 0

    def begin(self) -> None:
        """Take what is here; decide at once when that is all."""
        exchange = self._exchange
        body = exchange.body
        if body.done:
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
        if self._size > self._most and self._held is not None:
            self._decide(b"".join(self._parts))

    def body_end(self) -> None:
        """All of it."""
        if self._exchange.attempt is self:
            self._decide(b"".join(self._parts))

    def _decide(self, content: bytes) -> None:
        exchange, held = self._exchange, self._held
        self._parts = []
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
        self._parts = []
        self._held = None
