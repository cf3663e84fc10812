# Field sections of HTTP/3: QPACK without its dynamic table, both ways, and what a section must look like.
"""Reading and writing field sections (RFC 9204, RFC 9114 §4.2, §4.3).

We announce a dynamic table of size 0. So no section waits for another stream, a section of n bytes decodes to a bounded
multiple of n (a table entry of kilobytes cannot be named by one byte), and the same bytes always mean the same fields.
"""

from __future__ import annotations

import re

import pylsqpack

from edgeproxy.listen.h3_codes import MESSAGE_ERROR, QPACK_DECOMPRESSION_FAILED, H3Error, StreamError
from edgeproxy.listen.pseudo import Section
from edgeproxy.message import Headers

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search
_FORBIDDEN = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})  # §4.2
_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path"})
_NEVER_REPEATED = frozenset({
    b"x-ray-id", b"x-request-id", b"request-id", b"set-cookie", b"etag", b"last-modified", b"location", b"traceparent",
    b"content-range",
})  # fmt: skip
FIELD = 32  # bytes that a field counts for, whatever is in it (RFC 9114 §4.2.2)
MAX_LINES = 1024  # encoded lines that are remembered, and…
MAX_LINE = 256  # … bytes of the longest of them


class Decoder:
    """Field sections of a worker: without a dynamic table a section depends on nothing that came before it."""

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = pylsqpack.Decoder(0, 0)

    def section(self, stream_id: int, block: bytes) -> Section:
        """The fields of an encoded section. Raises H3Error."""
        if block == b"\0\0":
            return ()  # trailers may have no fields; the decoder takes that for a fault
        try:
            _, fields = self._decoder.feed_header(stream_id, block)
        except (pylsqpack.DecompressionFailed, pylsqpack.StreamBlocked, ValueError):
            raise H3Error(QPACK_DECOMPRESSION_FAILED, "a field section can't be decoded") from None
        return tuple(fields)


def check_request(section: Section) -> None:
    """Raises StreamError for a request's section that is malformed (§4.1.2, §4.2, §4.3.1)."""
    seen: set[bytes] = set()
    fields = False
    for name, value in section:
        if name[:1] == b":":
            if fields:
                raise StreamError(MESSAGE_ERROR, "a pseudo-header field behind other fields")
            if name not in _PSEUDO:
                raise StreamError(MESSAGE_ERROR, "an unknown pseudo-header field")
            if name in seen:
                raise StreamError(MESSAGE_ERROR, "a pseudo-header field stands twice")
            seen.add(name)
            if not value:  # RFC 9114 §4.3.1: neither may :authority be for http and https
                raise StreamError(MESSAGE_ERROR, "an empty pseudo-header field")
            if b" " in value or b"\t" in value:
                raise StreamError(MESSAGE_ERROR, "white space in a pseudo-header field")
            if name == b":method" and _METHOD(value) is None:
                raise StreamError(MESSAGE_ERROR, "a method that is no token")  # RFC 9110 §9.1
        else:
            fields = True
            if name == b"content-length":
                if name in seen:
                    raise StreamError(MESSAGE_ERROR, "Content-Length stands twice")  # RFC 9110 §8.6
                seen.add(name)
        _check(name, value)
    if b":method" not in seen or b":path" not in seen or b":scheme" not in seen:
        raise StreamError(MESSAGE_ERROR, "a pseudo-header field is missing")


def check_trailers(section: Section) -> Headers:
    """The fields of a trailer section. Raises StreamError."""
    for name, value in section:
        if name[:1] == b":":
            raise StreamError(MESSAGE_ERROR, "a pseudo-header field in the trailers")
        _check(name, value)
    return list(section)


def _check(name: bytes, value: bytes) -> None:
    if _NAME(name[1:] if name[:1] == b":" else name) is None:
        raise StreamError(MESSAGE_ERROR, "a field name with forbidden characters")
    if _BAD_VALUE(value) is not None or value[:1] in {b" ", b"\t"} or value[-1:] in {b" ", b"\t"}:
        raise StreamError(MESSAGE_ERROR, "a field value with forbidden characters")
    if name in _FORBIDDEN or (name == b"te" and value != b"trailers"):
        raise StreamError(MESSAGE_ERROR, "a field about the connection")


class Encoder:
    """Encoded field lines of a worker: a line that was encoded before is copied."""

    __slots__ = ("_encoder", "_lines", "_names")

    def __init__(self) -> None:
        self._encoder = pylsqpack.Encoder()
        self._lines: dict[tuple[bytes, bytes], bytes] = {}
        self._names: dict[bytes, bytes] = {}

    def section(self, fields: Headers) -> bytes:
        """An encoded section. It refers to the static table only, so its prefix is two zeros (RFC 9204 §4.5.1)."""
        lines = self._lines
        parts = [b"\0\0"]
        for field in fields:
            line = lines.get(field)
            parts.append(line if line is not None else self._line(field))
        return b"".join(parts)

    def _line(self, field: tuple[bytes, bytes]) -> bytes:
        name, value = field
        if name in _NEVER_REPEATED and len(value) < 127:
            # Its name as it was encoded before, and the value as it is, without Huffman's code.
            start = self._names.get(name)
            if start is None:
                # A value that is in no table, so that what comes out is a name and a literal of one byte.
                start = self._names[name] = self._encode((name, b"\x01"))[:-2]
            return b"%b%c%b" % (start, len(value), value)
        line = self._encode(field)
        if len(line) <= MAX_LINE and name not in _NEVER_REPEATED:
            if len(self._lines) >= MAX_LINES:
                self._lines.clear()
            self._lines[field] = line
        return line

    def _encode(self, field: tuple[bytes, bytes]) -> bytes:
        _, block = self._encoder.encode(0, [field])
        return block[2:]
