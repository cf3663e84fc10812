# What protocols may ask of a connection, be it plain TCP or TLS of our own.
"""The `Transport` contract and the worker's one read buffer."""

from __future__ import annotations

from typing import Protocol

READ_BUFFER = memoryview(bytearray(64 * 1024))
"""Every connection of a worker reads into this buffer and is done with it before it returns to the loop, so one is
enough: no allocation per read, no memory per idle connection."""


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
