# One-way streams of the client: control, QPACK, and those nobody knows (RFC 9114 §6.2, RFC 9204 §4.2).
"""`OneWay`: reads a one-way stream of the client; `Control` is what all of a connection share."""

from __future__ import annotations

from edgeproxy.listen import h3_codes as h3
from edgeproxy.listen.h3_codes import H3Error
from edgeproxy.quic import varint

MAX_FRAME = 4096  # bytes of a control frame that is read; unknown ones are skipped whatever their size
MAX_SETTINGS = 64


class Control:
    """What the client said on its control streams.

    Attributes:
        settings: identifiers and values in order, None before SETTINGS came (also a fingerprint).
        types: stream types of which there is one already.
        goaway: the client's GOAWAY, None without.
    """

    __slots__ = ("goaway", "max_push", "settings", "types")

    def __init__(self) -> None:
        self.settings: list[tuple[int, int]] | None = None
        self.types: set[int] = set()
        self.goaway: int | None = None
        self.max_push = -1

    def frame(self, kind: int, payload: bytes) -> None:
        """A frame on the control stream. Raises H3Error."""
        if self.settings is None and kind != h3.SETTINGS:
            raise H3Error(h3.MISSING_SETTINGS, "the control stream does not begin with SETTINGS")
        if kind == h3.SETTINGS:
            if self.settings is not None:
                raise H3Error(h3.FRAME_UNEXPECTED, "SETTINGS twice")
            self.settings = _settings(payload)
        elif kind in {h3.DATA, h3.HEADERS, h3.PUSH_PROMISE} or kind in h3.HTTP2_FRAMES:
            raise H3Error(h3.FRAME_UNEXPECTED, "a frame that has no place on the control stream")
        elif kind in {h3.GOAWAY, h3.MAX_PUSH_ID, h3.CANCEL_PUSH}:
            self._id(kind, _one(payload))

    def _id(self, kind: int, value: int) -> None:
        if kind == h3.GOAWAY:
            if self.goaway is not None and value > self.goaway:
                raise H3Error(h3.ID_ERROR, "GOAWAY goes up")
            self.goaway = value
        elif kind == h3.MAX_PUSH_ID:
            if value < self.max_push:
                raise H3Error(h3.ID_ERROR, "MAX_PUSH_ID goes down")
            self.max_push = value
        elif value > self.max_push:
            raise H3Error(h3.ID_ERROR, "CANCEL_PUSH for a push that can't be")


class OneWay:
    """See the module.

    Attributes:
        unwanted: of a kind we do not know: its bytes are thrown away.
    """

    __slots__ = ("_control", "_known", "_rest", "_skip", "_type", "unwanted")

    def __init__(self, control: Control) -> None:
        self._control = control
        self._type = -1
        self._rest = b""
        self._skip = 0
        self._known = False
        self.unwanted = False

    @property
    def is_critical(self) -> bool:
        """It must not end before the connection does."""
        return self._known

    def feed(self, data: bytes) -> None:
        """The next bytes. Raises H3Error."""
        if self.unwanted:
            return
        data = self._rest + data
        self._rest = b""
        at = 0
        if self._type < 0:
            try:
                self._type, at = varint.read(data, 0)
            except IndexError:
                self._rest = data
                return
            self._begin()
        if self._type == h3.CONTROL_STREAM:
            self._frames(data, at)
        elif self._type == h3.ENCODER_STREAM:
            # RFC 9204 §4.3.1: all that fits a table of size 0 is setting its capacity to 0.
            if data[at:].strip(b"\x20"):
                raise H3Error(h3.QPACK_ENCODER_STREAM_ERROR, "an instruction for a dynamic table that was not allowed")
        elif self._type == h3.DECODER_STREAM:
            self._decoder(data, at)

    def _begin(self) -> None:
        kind = self._type
        if kind == h3.PUSH_STREAM:
            raise H3Error(h3.STREAM_CREATION_ERROR, "a client can't push")
        if kind not in {h3.CONTROL_STREAM, h3.ENCODER_STREAM, h3.DECODER_STREAM}:
            self.unwanted = True
            return
        if kind in self._control.types:
            raise H3Error(h3.STREAM_CREATION_ERROR, "a second control stream of one kind")
        self._control.types.add(kind)
        self._known = True

    def _frames(self, data: bytes, at: int) -> None:
        end = len(data)
        while at < end:
            if self._skip:
                taken = min(self._skip, end - at)
                self._skip -= taken
                at += taken
                continue
            start = at
            try:
                kind, at = varint.read(data, at)
                size, at = varint.read(data, at)
            except IndexError:
                self._rest = data[start:]
                return
            known = kind in {h3.SETTINGS, h3.GOAWAY, h3.MAX_PUSH_ID, h3.CANCEL_PUSH}
            if not known:
                self._control.frame(kind, b"")
                self._skip = size
                continue
            if size > MAX_FRAME:
                raise H3Error(h3.EXCESSIVE_LOAD, "a control frame is much too large")
            if at + size > end:
                self._rest = data[start:]
                return
            self._control.frame(kind, data[at : at + size])
            at += size

    def _decoder(self, data: bytes, at: int) -> None:
        """RFC 9204 §4.4: of a decoder that got no dynamic entries, only cancellations make sense."""
        while at < len(data):
            start = at
            first = data[at]
            at += 1
            if first & 0xC0 != 0x40:
                raise H3Error(h3.QPACK_DECODER_STREAM_ERROR, "an acknowledgment of table entries that were never sent")
            if first & 0x3F == 0x3F:
                while at < len(data) and data[at] & 0x80:
                    at += 1
                if at - start > 10:
                    raise H3Error(h3.QPACK_DECODER_STREAM_ERROR, "an integer is too long")
                if at >= len(data):
                    self._rest = data[start:]
                    return
                at += 1


def _settings(payload: bytes) -> list[tuple[int, int]]:
    settings: list[tuple[int, int]] = []
    seen: set[int] = set()
    at = 0
    try:
        while at < len(payload):
            name, at = varint.read(payload, at)
            value, at = varint.read(payload, at)
            if name in seen or name in h3.HTTP2_SETTINGS:
                raise H3Error(h3.SETTINGS_ERROR, "a setting stands twice or has no meaning here")
            seen.add(name)
            settings.append((name, value))
            if len(settings) > MAX_SETTINGS:
                raise H3Error(h3.EXCESSIVE_LOAD, "too many settings")
    except IndexError:
        raise H3Error(h3.FRAME_ERROR, "SETTINGS ends early") from None
    return settings


def _one(payload: bytes) -> int:
    try:
        value, at = varint.read(payload, 0)
    except IndexError:
        at, value = -1, 0
    if at != len(payload):
        raise H3Error(h3.FRAME_ERROR, "a control frame has the wrong size")
    return value
