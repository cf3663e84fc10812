# A connection after a request with Upgrade: its bytes are kept or passed on, never parsed.
"""`Tunnel`: what comes behind an upgrade request on HTTP/1.1 (RFC 9110 §7.8; WebSocket is the only protocol let through)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.listen.h1_reply import reply_head

if TYPE_CHECKING:
    from edgeproxy.exchange import Exchange
    from edgeproxy.message import Reply


class Tunnel:
    """Begins with the request; `is_open` from the upstream's 101 on. The connection carries nothing else afterwards.

    Attributes:
        is_open: the upstream has agreed.
    """

    __slots__ = ("_rest", "is_open")

    def __init__(self, rest: bytes) -> None:
        self._rest = rest  # bytes that came before the upstream has agreed
        self.is_open = False

    def data(self, exchange: Exchange | None, data: bytes) -> None:
        """Bytes from the client: through the tunnel, or kept until there is one."""
        if not self.is_open:
            self._rest += data
        elif exchange is not None:
            exchange.gateway.tunnel_data(exchange, data)

    def head(self, reply: Reply) -> bytes:
        """The 101 for the client."""
        reply.headers += [(b"connection", b"upgrade"), (b"upgrade", b"websocket")]
        return reply_head(reply, None, close=False, minor=1)

    def open(self, exchange: Exchange | None) -> None:
        """The client was told: what was kept goes through."""
        self.is_open = True
        rest, self._rest = self._rest, b""
        if rest:
            self.data(exchange, rest)

    def is_full(self, exchange: Exchange | None, limit: int) -> bool:
        """No more should be read from the client."""
        if self.is_open:
            return exchange is not None and exchange.body.paused
        return len(self._rest) > limit
