# How a reply's head looks on an HTTP/1.1 connection; bytes only.
"""Reply heads in HTTP/1.1 form (RFC 9112 §4, §5)."""

from __future__ import annotations

import http

from edgeproxy.message import Reply

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode("ascii") for status in http.HTTPStatus
}


def reply_head(reply: Reply, length: int | None, *, close: bool, minor: int, chunked: bool = False) -> bytes:
    """The head, blank line included.

    Args:
        length: value for Content-Length, None to leave it away.
        close: the connection ends after this reply.
        minor: minor version of the request: a 1.0 client is told when the connection stays open.
        chunked: the content is sent in chunks.
    """
    status = reply.status
    line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    head = line + b"".join([name + b": " + value + b"\r\n" for name, value in reply.headers])
    if chunked:
        head += b"transfer-encoding: chunked\r\n"
    elif length is not None and status != 204 and status >= 200:
        head += b"content-length: %d\r\n" % length
    if close:
        return head + b"connection: close\r\n\r\n"
    if minor == 0:
        return head + b"connection: keep-alive\r\n\r\n"
    return head + b"\r\n"
