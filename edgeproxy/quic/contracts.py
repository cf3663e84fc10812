# What a connection asks of what is above and below it. Contracts only.
"""`Application` runs over a connection, `Host` is its socket and its place in the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from edgeproxy.quic.connection import Connection
    from edgeproxy.quic.streams import Stream


class Application(Protocol):
    """What runs over a connection. Called from inside `receive` and `transmit`."""

    def stream_data(self, stream: Stream, data: bytes, fin: bool) -> None:
        """Bytes in order; `stream.consume` opens the window again."""

    def stream_reset(self, stream: Stream, code: int) -> None:
        """The peer gave its side of a stream up."""

    def stop_sending(self, stream: Stream, code: int) -> None:
        """The peer does not want our side of a stream; it has been reset."""

    def writable(self, stream: Stream) -> None:
        """A stream that was `waiting` has a short queue again, or none."""

    def closed(self, reason: str, streams: list[Stream]) -> None:
        """The connection is over, with all that was left on it. `reason`: "" when the peer closed it without an error."""


class Host(Protocol):
    """What a connection needs of its socket."""

    def wake(self, connection: Connection) -> None:
        """The connection has something to send."""

    def acknowledge_later(self, connection: Connection) -> None:
        """Call `acknowledge` within 25 ms, what we promise as max_ack_delay."""

    def new_id(self) -> tuple[bytes, bytes]:
        """A fresh connection id and its stateless-reset token."""

    def issued(self, connection: Connection, connection_id: bytes) -> None:
        """Packets for this id are ours."""

    def retired(self, connection_id: bytes) -> None:
        """They are not any more."""

    def over(self, connection: Connection) -> None:
        """The connection sends nothing any more; it stays known for a moment to catch late packets."""


class Nobody:
    """The host of a connection that is forgotten: whoever still holds it reaches nothing."""

    __slots__ = ()

    def wake(self, connection: Connection) -> None:
        """Nothing."""

    def acknowledge_later(self, connection: Connection) -> None:
        """Nothing."""

    def new_id(self) -> tuple[bytes, bytes]:
        """Nothing that means anything."""
        return b"", b""

    def issued(self, connection: Connection, connection_id: bytes) -> None:
        """Nothing."""

    def retired(self, connection_id: bytes) -> None:
        """Nothing."""

    def over(self, connection: Connection) -> None:
        """Nothing."""


NOBODY = Nobody()
