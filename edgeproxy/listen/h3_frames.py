# Frames of a request stream (RFC 9114 §4.1, §7): from bytes as they come to field sections and content.
"""`FrameReader`: one per request stream."""

from __future__ import annotations

from typing import Protocol

from edgeproxy.listen.h3_codes import (
    CANCEL_PUSH,
    DATA,
    EXCESSIVE_LOAD,
    FRAME_ERROR,
    FRAME_UNEXPECTED,
    GOAWAY,
    HEADERS,
    HTTP2_FRAMES,
    MAX_PUSH_ID,
    PUSH_PROMISE,
    SETTINGS,
    H3Error,
)  # fmt: skip
from edgeproxy.quic import varint

_ELSEWHERE = HTTP2_FRAMES | {CANCEL_PUSH, SETTINGS, PUSH_PROMISE, GOAWAY, MAX_PUSH_ID}


class Receiver(Protocol):
    """Who a reader reads for."""

    def on_section(self, block: bytes) -> None:
        """A field section: the head, or the trailers behind the content."""

    def on_content(self, data: bytes) -> None:
        """Content."""


class FrameReader:
    """See the module.

    Attributes:
        overhead: bytes since it was last set to 0 that were not content.
        noise: of these, the ones that lead to nothing: frames nobody knows, and DATA without content.
    """

    __slots__ = ("_content", "_most", "_rest", "_skip", "_state", "noise", "overhead")

    def __init__(self, most: int) -> None:
        """`most`: bytes of the largest field section that is read."""
        self._most = most
        self._rest = b""  # the start of a frame that is not whole
        self._content = 0  # bytes of the current DATA frame that are still to come
        self._skip = 0  # bytes of a frame nobody knows
        self._state = 0  # 0: head; 1: content or trailers; 2: nothing more
        self.overhead = 0
        self.noise = 0

    def feed(self, data: bytes, receiver: Receiver) -> None:
        """The next bytes. Raises H3Error, and what the receiver raises."""
        if self._rest:
            self.overhead -= len(self._rest)
            data = self._rest + data
            self._rest = b""
        at, end = 0, len(data)
        while at < end:
            if self._content:
                chunk = data[at : at + self._content]
                self._content -= len(chunk)
                at += len(chunk)
                receiver.on_content(chunk)
                continue
            if self._skip:
                taken = min(self._skip, end - at)
                self._skip -= taken
                at += taken
                self.overhead += taken
                self.noise += taken
                continue
            start = at
            try:
                kind, at = varint.read(data, at)
                size, at = varint.read(data, at)
            except IndexError:
                self._rest = data[start:]
                self.overhead += end - start
                return
            if kind == DATA:
                if self._state != 1:
                    raise H3Error(FRAME_UNEXPECTED, "content where none may be")
                self._content = size
                if not size:
                    self.noise += at - start
            elif kind == HEADERS:
                if size > self._most:
                    raise H3Error(EXCESSIVE_LOAD, "a field section is much too large")
                if at + size > end:
                    self._rest = data[start:]
                    self.overhead += end - start
                    return
                if self._state == 2:
                    raise H3Error(FRAME_UNEXPECTED, "a field section behind the trailers")
                self._state += 1
                block = data[at : at + size]
                at += size
                self.overhead += at - start
                receiver.on_section(block)
                continue
            elif kind in _ELSEWHERE:
                raise H3Error(FRAME_UNEXPECTED, "a frame that has no place on a request stream")
            else:
                self._skip = size
                self.noise += at - start
            self.overhead += at - start

    def end(self) -> bool:
        """The client's side is complete. Returns: there was a head. Raises H3Error when it stops inside a frame."""
        if self._rest or self._content or self._skip:
            raise H3Error(FRAME_ERROR, "a stream ends inside a frame")
        return self._state > 0
