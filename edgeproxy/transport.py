# What connections and the protocols on them may ask of each other, be it plain TCP or TLS of our own. Contracts only.
"""`Transport` towards upstreams, `Connection` and `Application` towards clients, and the worker's one read buffer."""

from __future__ import annotations

from typing import Protocol

READ_BUFFER = memoryview(bytearray(64 * 1024))
"""Every connection of a worker reads into this buffer and is done with it before it returns to the loop, so one is
enough: no allocation per read, no memory per idle connection."""

LINGER_TIME = 5.0  # seconds without a byte for which a closed connection is still read, so that the answer is not
LINGER_TOTAL = 30.0  # lost in a reset; and seconds altogether (nginx's lingering_timeout and lingering_time)


class Transport(Protocol):
    """uvloop's TCP transport and `listen.tls.TlsConnection` both are one."""

    def write(self, data: bytes) -> None:
        """Queue bytes."""

    def close(self) -> None:
        """Send what is queued, then close."""

    def abort(self) -> None:
        """Reset now; queued bytes are lost. Over TLS no close_notify: the peer can tell."""

    def pause_reading(self) -> None:
        """Stop reading from the peer."""

    def resume_reading(self) -> None:
        """Read again; harmless when not paused."""

    def get_write_buffer_size(self) -> int:
        """Bytes queued and not yet taken by the kernel."""

    def is_closing(self) -> bool:
        """`close` or `abort` was called, or the peer is gone."""


class Connection(Protocol):
    """A client's connection as its application sees it: a `TlsConnection` or a `PlainConnection`."""

    deadline: float

    def write(self, data: bytes) -> None: ...
    def close(self, *, linger: bool = False) -> None: ...
    def cut(self) -> None: ...
    def abort(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def is_closing(self) -> bool: ...


class Application(Protocol):
    """What sits on a TLS connection: `H1Connection`, `H2Connection`, `UpstreamConnection`."""

    def data_received(self, data: memoryview) -> None:
        """Plaintext, as much as one read brought; valid during the call only."""

    def eof_received(self) -> bool:
        """The peer's close_notify: its data is complete."""

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone. Called once."""

    def pause_writing(self) -> None:
        """The socket is full."""

    def resume_writing(self) -> None:
        """The socket drained."""

    def expire(self, now: float) -> None:
        """`TlsConnection.deadline` passed."""
