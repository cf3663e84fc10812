# How a request's content is framed towards an upstream: by length where it is known, else in chunks (RFC 9112 §6, §7.1).
"""The bytes of a request, from behind the ray id on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeproxy.message import Body, Request

_WITH_CONTENT = frozenset({b"POST", b"PUT", b"PATCH"})  # say Content-Length: 0 (RFC 9110 §8.6)


def opening(head: bytes, request: Request, body: Body) -> bytes:
    """The head with its framing, and what there is of the body: it is taken.

    Args:
        head: without the end of its last line.
    """
    if request.upgrade:
        return head + b"\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    length = request.length
    if body.done:
        content = body.take()
        if content or (length is not None and length != 0):
            return b"%b\r\ncontent-length: %d\r\n\r\n%b" % (head, len(content), content)
        if length == 0 and request.method in _WITH_CONTENT:
            return head + b"\r\ncontent-length: 0\r\n\r\n"
        return head + b"\r\n\r\n"
    content = body.take()
    if length is not None:
        return b"%b\r\ncontent-length: %d\r\n\r\n%b" % (head, length, content)
    return b"%b\r\ntransfer-encoding: chunked\r\n\r\n%b" % (head, chunk(content) if content else b"")


def chunk(data: bytes) -> bytes:
    """One chunk; `data` is not empty, because an empty one would be the end."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The end of a body in chunks."""
    return b"0\r\n" + b"".join([name + b": " + value + b"\r\n" for name, value in trailers]) + b"\r\n"
