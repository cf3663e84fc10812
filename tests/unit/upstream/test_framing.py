# What is sent behind a request's head, as a parser of ours reads it again.
"""upstream/framing.py."""

from __future__ import annotations

import pytest

from edgeproxy.message import Body, Peer, Request
from edgeproxy.upstream.framing import chunk, last_chunk, opening

PEER = Peer("192.0.2.1", trusted=False, secure=True)
HEAD = b"POST / HTTP/1.1\r\nx-ray-id: 0"


def sent(method: bytes, length: int | None, *parts: bytes, done: bool = True, upgrade: bool = False) -> bytes:
    request = Request(method, b"a", b"/", [], length, 0, PEER)
    request.upgrade = upgrade
    body = Body(None)
    for part in parts:
        body.push(part)
    body.done = done
    data = opening(HEAD, request, body)
    assert data.startswith(HEAD + b"\r\n")
    return data[len(HEAD) + 2 :]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (sent(b"GET", 0), b"\r\n"),
        (sent(b"POST", 0), b"content-length: 0\r\n\r\n"),
        (sent(b"POST", 5, b"hello"), b"content-length: 5\r\n\r\nhello"),
        (sent(b"POST", None, b"hel", b"lo"), b"content-length: 5\r\n\r\nhello"),
        (sent(b"POST", None), b"\r\n"),
        (sent(b"POST", 5, b"he", done=False), b"content-length: 5\r\n\r\nhe"),
        (sent(b"POST", None, b"he", done=False), b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n"),
        (sent(b"POST", None, done=False), b"transfer-encoding: chunked\r\n\r\n"),
        (sent(b"GET", 0, upgrade=True), b"connection: upgrade\r\nupgrade: websocket\r\n\r\n"),
    ],
)
def test_the_opening(found: bytes, expected: bytes) -> None:
    assert found == expected


def test_chunks() -> None:
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert last_chunk(()) == b"0\r\n\r\n"
    assert last_chunk([(b"a", b"b"), (b"c", b"")]) == b"0\r\na: b\r\nc: \r\n\r\n"
