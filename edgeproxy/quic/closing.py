# How a connection ends (RFC 9000 §10): by us with a reason, by the peer, or in silence. What has to go then is not known here.
"""`Closing`: the end of a connection, in one of three ways, once."""

from __future__ import annotations

from edgeproxy.quic import varint
from edgeproxy.quic.errors import INTERNAL_ERROR, TransportError

_OPEN, _CLOSING, _DRAINING = 0, 1, 2


class Closing:
    """See the module.

    Attributes:
        state: 0 while the connection is open.
    """

    __slots__ = ("_close_packet", "_closes", "state")

    def __init__(self) -> None:
        self.state = _OPEN
        self._close_packet = b""
        self._closes = 0

    def _farewell(self, frame: bytes) -> bytes:
        """The last datagram, of one frame."""
        raise NotImplementedError

    def _release(self, reason: str) -> None:
        """Let go of everything, and tell the application."""
        raise NotImplementedError

    def _repeat_farewell(self, address: tuple[str, int]) -> None:
        """Send the last datagram again, if the peer is still at this address."""
        raise NotImplementedError

    @property
    def is_open(self) -> bool:
        """Neither side has closed it."""
        return not self.state

    def fail(self, error: TransportError) -> None:
        """The peer broke the transport."""
        reason = error.reason.encode()
        self._close(
            b"\x1c%b%b%b%b" % (varint.write(error.code), varint.write(error.frame), varint.write(len(reason)), reason),
            error.reason,
        )

    def close(self, code: int, reason: str = "") -> None:
        """Close with an application error code (RFC 9114 §8.1), after what is already on its way."""
        text = reason.encode()[:200]
        self._close(b"\x1d%b%b%b" % (varint.write(code), varint.write(len(text)), text), reason)

    def crash(self) -> None:
        """Something of ours broke."""
        self.fail(TransportError(INTERNAL_ERROR, "internal error"))

    def _close(self, frame: bytes, reason: str) -> None:
        if not self.state:
            self._close_packet = self._farewell(frame)
            self.state = _CLOSING
            self._release(reason)

    def closed_by_peer(self, code: int, *, transport: bool, reason: str) -> None:
        """CONNECTION_CLOSE came: say nothing more (§10.2.2)."""
        if not self.state:
            self.state = _DRAINING
            kind = "transport" if transport else "application"
            self._release(f"{kind} error {code:#x} {reason}".strip() if code else "")

    def vanish(self, reason: str) -> None:
        """Forget the peer without a word (idle timeout, no path)."""
        if not self.state:
            self.state = _DRAINING
            self._release(reason)

    def last_words(self) -> bytes:
        """The datagram that says why; b"" when there is nothing to say."""
        return self._close_packet

    def answer(self, address: tuple[str, int]) -> None:
        """A packet came for a connection that is closed: the same answer, ever more rarely (§10.2.1)."""
        if self.state == _CLOSING:
            self._closes += 1
            if not self._closes & (self._closes - 1):
                self._repeat_farewell(address)
